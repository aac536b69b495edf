"""What policies decide, on ledgers that are made by hand."""

import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.sweeps.ledger import DIVERGED, FINISHED, STOPPED
from jaxopt_lite.sweeps.policies import run_all

# A traced choice, and ints that are traced.
WHOLE = jo.space(
    {
        "layers": jo.int_uniform(1, 6, traced=True),
        "offset": jo.int_uniform(-3, 0, traced=True),
        "patch": jo.choice([2, 4, 8], traced=True),
        "width": jo.int_uniform(1, 9),
    }
)
SPACE = jo.space({"learning_rate": jo.log_uniform(1e-4, 1e-1), "b1": jo.uniform(0.0, 0.9), "width": jo.choice([1, 2])})


def ledger(n, steps=64, every=1, seeds=1, space=SPACE, decays=("b1",)):
    made = jo.Ledger(space, "valid.loss", False, steps, every, seeds, 0, decays=frozenset(decays))
    made.extend(space.from_unit(np.random.default_rng(0).random((n, len(space.names)))))
    return made


def advance(made, trials, to, scores):
    """Let trials run to a step; their curve is flat at their score."""
    trials = np.asarray(trials)
    points = (to - made.step[trials]) // made.eval_every
    for trial, n, score in zip(trials, points, scores, strict=True):
        rows = {"valid.loss": np.full((n, 1, made.seeds), score, np.float32)}
        made.record(np.array([trial]), rows, np.isfinite(rows["valid.loss"][:, :, 0]))


def run(made, rule, scores):
    """Follow a policy to the end, each trial at its own score; returns the targets that it gave."""
    given = []
    for _ in range(500):
        decision = rule.decide(made)
        if decision.bracket is not None:
            made.bracket[:] = decision.bracket
        if decision.stop is not None:
            made.status[decision.stop & made.running] = STOPPED
        running = made.running
        made.target[running] = np.maximum(decision.target, made.step)[running]
        pending = np.flatnonzero(made.pending)
        if not len(pending):
            return given
        given.append({int(t): int(made.target[t]) for t in pending})
        for trial in pending:
            advance(made, [trial], made.target[trial], [scores[trial]])
    raise AssertionError("it never ends")


def test_run_all():
    made = ledger(3)
    assert run(made, run_all(), [1, 2, np.nan]) == [{0: 64, 1: 64, 2: 64}]
    assert made.status.tolist() == [FINISHED, FINISHED, DIVERGED]


def test_successive_halving_by_hand():
    made = ledger(16)
    scores = np.arange(16.0)[::-1]
    given = run(made, jo.successive_halving(4), scores)  # rungs 4, 16, 64
    assert given == [dict.fromkeys(range(16), 4), dict.fromkeys(range(12, 16), 16), {15: 64}]
    assert made.step.tolist() == [4] * 12 + [16] * 3 + [64]


def test_rungs_are_points_and_begin_at_min_steps():
    made = ledger(9, steps=60, every=5)
    given = run(made, jo.successive_halving(3, min_steps=7), np.arange(9.0))
    assert [sorted(set(targets.values())) for targets in given] == [[10], [30], [60]]
    assert [len(targets) for targets in given] == [9, 3, 1]


def test_diverged_trials_are_not_promoted_and_do_not_count_for_others():
    made = ledger(16)
    scores = np.where(np.arange(16) < 14, np.nan, np.arange(16.0))
    given = run(made, jo.successive_halving(4), scores)
    assert [len(targets) for targets in given] == [16, 2, 1]


def test_equal_scores_go_by_number():
    given = run(ledger(16), jo.successive_halving(4), np.zeros(16))
    assert sorted(given[1]) == [0, 1, 2, 3] and sorted(given[2]) == [0]


def test_brackets_are_hyperband():
    made = ledger(40)
    given = run(made, jo.successive_halving(4, min_steps=4, brackets=3), np.arange(40.0))
    counts = np.bincount(made.bracket)
    assert (np.diff(counts) < 0).all() and counts.sum() == 40  # the first bracket has the most trials
    assert {b: {given[0][t] for t in np.flatnonzero(made.bracket == b)} for b in range(3)} == {0: {4}, 1: {16}, 2: {64}}
    cost = [made.step[made.bracket == b].sum() for b in range(3)]
    assert max(cost) < 2.5 * min(cost)
    with pytest.raises(ValueError, match="brackets=9 is more than the 3 rungs"):
        jo.successive_halving(4, min_steps=4, brackets=9).decide(ledger(40))


def test_asynchronous_promotes_the_best_of_those_that_came():
    made = ledger(12)
    rule = jo.successive_halving(4, min_steps=4, asynchronous=True, concurrency=4)
    given = run(made, rule, np.arange(12.0))
    assert [len(targets) for targets in given[:2]] == [4, 4]
    assert given[0] == dict.fromkeys(range(4), 4)
    assert given[1] == {0: 16, 4: 4, 5: 4, 6: 4}  # one of four is promoted at once, and new ones begin
    assert made.step[0] == 16 or made.step[0] == 64
    assert sum(made.step >= 16) <= 12 // 4 + 1


def test_a_batch_has_halving_of_its_own():
    made = ledger(16)
    rule = jo.successive_halving(4)
    run(made, rule, np.arange(16.0))
    before = made.status.copy(), made.step.copy()
    made.extend(SPACE.from_unit(np.random.default_rng(1).random((16, 3))))
    given = run(made, rule, np.arange(32.0))
    assert given[0] == dict.fromkeys(range(16, 32), 4)
    assert sorted(given[1]) == [16, 17, 18, 19]
    np.testing.assert_array_equal(made.step[:16], before[1])


def test_median_stopping_by_hand():
    made = ledger(6, steps=4)
    rule = jo.median_stopping(min_trials=3)
    given = run(made, rule, np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.nan]))
    assert sorted(given[1]) == [0, 1, 2] and made.step.tolist()[3:5] == [1, 1]
    assert made.status[5] == DIVERGED and made.step[0] == 4
    late = ledger(6, steps=4)
    given = run(late, jo.median_stopping(min_trials=3, warmup=2), np.arange(6.0))
    assert given[0] == dict.fromkeys(range(6), 2)
    alone = ledger(3, steps=4)
    run(alone, jo.median_stopping(min_trials=3), np.arange(3.0))
    assert (alone.status == FINISHED).all()  # two others are too few


def test_population_based_training_by_hand():
    made = ledger(8, steps=40, every=2)
    rule = jo.population_based(interval=10, fraction=0.25, perturb=(0.5, 2.0), resample=0.0)
    assert set(rule.decide(made).target.tolist()) == {10}
    advance(made, np.arange(8), 10, np.arange(8.0))
    decision = rule.decide(made)
    assert set(decision.target.tolist()) == {20}
    assert sorted(copy.trial for copy in decision.copies) == [6, 7]
    for copy in decision.copies:
        assert copy.source in (0, 1) and copy.step == 10 and not copy.reset
        source = made.table[copy.source]
        ratio = copy.row[0] / source[0]
        assert ratio == pytest.approx(0.5) or ratio == pytest.approx(2.0) or copy.row[0] in (1e-4, np.float32(1e-1))
        np.testing.assert_array_equal(copy.row[1:], source[1:])  # a decay, and a choice
    again = rule.decide(made)
    assert [copy.row.tolist() for copy in again.copies] == [copy.row.tolist() for copy in decision.copies]


def test_exploration_stays_in_the_space_and_resamples():
    made = ledger(64, steps=40, every=2)
    advance(made, np.arange(64), 4, np.arange(64.0))
    rule = jo.population_based(interval=4, fraction=0.5, resample=1.0, dimensions=("learning_rate", "b1"))
    copies = rule.decide(made).copies
    rows = np.array([copy.row for copy in copies])
    assert len(copies) == 32 and all(copy.reset for copy in copies)  # b1 is a decay
    np.testing.assert_array_equal(rows, SPACE.clip(rows))
    assert len(np.unique(rows[:, 1])) == 32


def exchanged(made, **options):
    """Rows of the copies and of their sources at the first exchange."""
    advance(made, np.arange(len(made)), 4, np.arange(float(len(made))))
    copies = jo.population_based(interval=4, fraction=0.5, **options).decide(made).copies
    return np.array([copy.row for copy in copies]), made.table[[copy.source for copy in copies]]


def test_decays_are_those_of_the_ledger_whatever_their_names():
    space = jo.space({"rate": jo.uniform(0.1, 1.0), "beta1": jo.uniform(0.1, 0.9), "momentum": jo.uniform(0.1, 0.9)})
    rows, sources = exchanged(ledger(64, 40, 2, space=space, decays=("beta1",)))
    assert (rows[:, 1] == sources[:, 1]).all() and (rows[:, [0, 2]] != sources[:, [0, 2]]).mean() > 0.9
    made = ledger(8, 40, 2, space=space, decays=("beta1",))
    advance(made, np.arange(8), 4, np.arange(8.0))
    for name, reset in (("beta1", True), ("momentum", False)):
        copies = jo.population_based(interval=4, dimensions=(name,)).decide(made).copies
        assert copies and all(copy.reset == reset for copy in copies)
    with pytest.raises(ValueError, match="nothing to vary: name decays in `dimensions`"):
        jo.population_based(interval=4).decide(ledger(8, 40, 2, space=space, decays=space.names))


def test_choices_stay_as_they_were_copied_unless_they_are_resampled():
    rows, sources = exchanged(ledger(64, 40, 2, space=WHOLE), resample=0.0)
    np.testing.assert_array_equal(rows[:, 2], sources[:, 2])
    rows, sources = exchanged(ledger(256, 40, 2, space=WHOLE), resample=0.3)
    assert 0.1 < np.mean(rows[:, 2] != sources[:, 2]) < 0.3  # a third of those drawn anew is what it was
    np.testing.assert_array_equal(rows[:, 3], sources[:, 3])  # what is static is never varied
    np.testing.assert_array_equal(rows, WHOLE.clip(rows))


@pytest.mark.parametrize("factor", [0.8, 1.25, 0.99, 1.01])
def test_a_perturbed_int_moves_within_its_range(factor):
    rows, sources = exchanged(ledger(64, 40, 2, space=WHOLE), resample=0.0, perturb=(factor,))
    sign = 1 if factor > 1 else -1
    for column, low, high in ((0, 1, 6), (1, -3, 0)):
        moves = (rows - sources)[:, column] * sign
        at_end = sources[:, column] == (high if sign > 0 else low)
        assert at_end.any() and (moves[at_end] == 0).all() and (moves[~at_end] >= 1).all()
    rows, sources = exchanged(ledger(64, 40, 2, space=WHOLE), resample=0.0, perturb=(1.0,))
    np.testing.assert_array_equal(rows, sources)


def test_a_diverged_trial_is_replaced():
    made = ledger(8, steps=40, every=2)
    advance(made, np.arange(8), 10, [np.nan, *np.arange(7.0)])
    copies = jo.population_based(interval=10, fraction=0.125).decide(made).copies
    assert {copy.trial for copy in copies} == {0, 7} or {copy.trial for copy in copies} == {0}
    made.copy(copies[0])
    assert made.running[copies[0].trial] and made.step[copies[0].trial] == 10


def test_a_copy_is_at_its_own_step_even_if_its_source_was_just_replaced():
    made = ledger(3, steps=40, every=2)
    advance(made, [0, 1], 8, [0.0, 1.0])
    advance(made, [2], 4, [2.0])
    for copy in (jo.Copy(1, 2, 4, made.table[2].copy(), False), jo.Copy(0, 1, 8, made.table[1].copy(), False)):
        made.copy(copy)
    assert made.step.tolist() == [*made.target.tolist()[:2], 4] == [8, 4, 4]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: jo.successive_halving(1), "factor must be an int of at least 2, got 1"),
        (lambda: jo.successive_halving(2.5), "factor must be an int of at least"),
        (lambda: jo.successive_halving(asynchronous=1), "asynchronous must be True or False"),
        (lambda: jo.median_stopping(min_trials=0), "min_trials must be an int of at least 1"),
        (lambda: jo.successive_halving(10**30), "factor must be at most 2147483647"),
        (lambda: jo.successive_halving(min_steps=2**31), "min_steps must be at most 2147483647"),
        (lambda: jo.median_stopping(interval=2**31), "interval must be at most 2147483647"),
        (lambda: jo.median_stopping(warmup=2**31), "warmup must be at most 2147483647"),
        (lambda: jo.population_based(interval=2**31), "interval must be at most 2147483647"),
        (lambda: jo.population_based(fraction=0.7), "fraction must be a number above 0 and at most 0.5, got 0.7"),
        (lambda: jo.population_based(resample=-1), "resample must be a number of at least 0 and at most 1, got -1"),
        (lambda: jo.population_based(perturb=(0.0,)), "perturb must be numbers above 0"),
        (lambda: jo.population_based(reset=1), "reset must be True or False, got 1"),
        (
            lambda: jo.population_based(dimensions=("lr",)).decide(ledger(4)),
            "no traced number 'lr' in the space; there are",
        ),
        (lambda: jo.population_based(interval=3).decide(ledger(4, every=2)), "interval=3 must be a multiple"),
        (lambda: jo.median_stopping(interval=3).decide(ledger(4, every=2)), "interval=3 must be a multiple"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize(
    "decision, message",
    [
        (None, "must return a Decision, got None"),
        (jo.Decision(target=3), "a target must be a multiple of eval_every=2 up to steps=64, got 3"),
        (jo.Decision(target=100), "up to steps=64, got 100"),
        (jo.Decision(target=2.0), "target must be 4 ints"),
        (jo.Decision(stop=np.zeros(3, bool)), "stop must be 4 bools"),
        (jo.Decision(copies=[jo.Copy(0, 1, 8, np.zeros(3), False)]), "trial 1 is not at step 8"),
    ],
)
def test_bad_decisions(decision, message):
    @jo.policy
    def rule():
        return lambda ledger: decision

    with pytest.raises((TypeError, ValueError), match=message):
        rule().decide(ledger(4, every=2))


def test_steps_up_to_the_largest_count_in_every_policy():
    steps = 3 * 715_827_882  # the next multiple of two points is beyond int32
    for rule in (jo.median_stopping(interval=2 * steps // 3), jo.successive_halving(2**31 - 1), jo.population_based()):
        made = ledger(2, steps=steps, every=steps // 3)
        run(made, rule, np.zeros(2))
        assert made.step.max() == steps, rule


def test_policies_are_values():
    rule = jo.successive_halving(4, brackets=2)
    assert jo.parse(repr(rule)) == rule != jo.successive_halving(4)
