"""Metrics that are not finite, by the public face: who is the best, who is stopped, and from whom is copied.

The trials' curves are given: parameters count the steps, and `evaluate` looks a trial's metric up.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.report.panels import Sweep

NAN, INF = float("nan"), float("inf")
FLAT = [[9.0 - i] * 4 for i in range(8)]  # the last trial is the best


def sweep(curves, mode="min", **given):
    """A sweep whose trial i has the i-th curve, a point each two steps."""
    table = jnp.asarray(curves, jnp.float32)

    def trial(config):
        curve = table[config["row"].astype(jnp.int32)]
        evaluate = lambda params, data: {"score": curve[(params // 2).astype(jnp.int32) - 1]}
        task = jo.Task(
            lambda key: jnp.float32(0), lambda params, batch, key: -params, valid=jnp.zeros(1), evaluate=evaluate
        )
        return task, jo.sgd(1.0 + 0.0 * config["x"])

    n = len(curves)
    space = {"row": jo.int_uniform(0, max(n - 1, 1), traced=True), "x": jo.uniform(0.0, 1.0)}
    initial = [{"row": i, "x": 0.5} for i in range(n)]
    given = {"trials": n, "steps": 2 * table.shape[1], "eval_every": 2, "batch_size": None, "width": 8, **given}
    return jo.sweep(trial, space, metric="valid.score", mode=mode, initial=initial, **given)


def bests(result, tmp_path):
    """Which trial is the best for each that tells."""
    pytest.importorskip("optuna")
    study = result.to_optuna()
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    rows = result.summary(top=1).splitlines()[1].split()
    with_score = result.best is not None  # otherwise there is a first row all the same
    return {
        "best": None if result.best is None else result.best.number,
        "top": result.top(1)[0].number if with_score else None,
        "summary": int(rows[0]) if with_score else None,
        "picture": Sweep(result.ledger, 3).best,
        "optuna": study.best_trial.user_attrs["number"] if complete else None,
    }


@pytest.mark.parametrize(
    ("mode", "last", "best"),
    [
        ("min", [-INF, 2.0, 1.0], 2),
        ("min", [3.0, NAN, 1.0], 2),
        ("min", [INF, 2.0, -INF], 1),
        ("max", [3.0, 2.0, INF], 0),
        ("max", [NAN, 2.0, -INF], 1),
        ("max", [1.0, INF, -INF], 0),
        ("min", [NAN, -INF, INF], None),
        ("max", [NAN, -INF, INF], None),
    ],
)
def test_a_score_that_is_not_finite_never_wins_wherever_it_is_asked(mode, last, best, tmp_path):
    result = sweep([[0.5, score] for score in last], mode)
    assert [t.status for t in result.trials] == ["finished"] * 3
    assert set(bests(result, tmp_path).values()) == {best}
    assert f"trial {best})" in repr(result) or best is None
    assert [np.isfinite(t.score) for t in result.top(3)] == sorted(np.isfinite(last).tolist(), reverse=True)
    if best is not None:
        assert result.best.score == last[best] and result.best.params.shape == (1,)


def test_seeds_that_are_infinite_in_both_directions_have_no_mean():
    made = sweep([[1.0], [2.0]], seeds=2).ledger
    made.curves["valid.score"][0, :, 0] = INF, -INF
    assert made.ranked().tolist() == [1] and np.isnan(made.last_scores()[0])


def test_a_stopped_trial_with_a_score_is_better_than_a_finished_one_without(tmp_path):
    @jo.policy
    def stop_the_second():
        def decide(ledger):
            return jo.Decision(
                target=2 if not ledger.step.any() else 4, stop=np.arange(2) == 1 if ledger.step.any() else None
            )

        return decide

    result = sweep([[1.0, NAN], [2.0, 2.0]], policy=stop_the_second())
    assert [t.status for t in result.trials] == ["finished", "stopped"]
    told = bests(result, tmp_path)
    assert told.pop("optuna") is None and set(told.values()) == {1}  # for Optuna a pruned trial has no value


def test_importance_asks_the_same_ranking():
    last = np.arange(16.0)
    last[3] = -INF
    by_row = sweep([[score] for score in last])
    last[3] = INF
    assert by_row.importance == sweep([[score] for score in last]).importance


MEDIAN = {
    # name: (mode, curves that replace those of FLAT by trial, who is stopped)
    "as it is": ("min", {}, {0, 1, 2, 3, 4, 5}),
    "one nan, first": ("min", {7: [NAN, 2, 2, 2]}, {0, 1, 2, 3, 4}),
    "one nan, later": ("min", {7: [2, NAN, 2, 2]}, {0, 1, 2, 3, 4, 5}),
    "nan at everybody's first point": ("min", {i: [NAN, *FLAT[i][1:]] for i in range(8)}, {0, 1, 2, 3, 4, 5}),
    "one -inf": ("min", {7: [2, -INF, 2, 2], 0: [-INF, 9, 9, 9]}, {0, 1, 2, 3, 4, 5}),
    "never a score": ("min", {i: [NAN] * 4 for i in range(8)}, set()),
    "the worst": ("min", {7: [INF] * 4}, {0, 1, 2, 3, 4, 7}),
    "+inf where the highest is the best": ("max", {0: [9, INF, 9, 9]}, {2, 3, 4, 5, 6, 7}),
}


@pytest.mark.parametrize("name", MEDIAN)
def test_the_median_rule_leaves_out_points_that_are_not_finite(name):
    mode, given, stopped = MEDIAN[name]
    result = sweep([given.get(i, curve) for i, curve in enumerate(FLAT)], mode, policy=jo.median_stopping(min_trials=3))
    assert {t.number for t in result.trials if t.status == "stopped"} == stopped


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("mode", "value"), [("min", NAN), ("min", -INF), ("max", INF)])
def test_successive_halving_promotes_no_trial_without_a_score_before_one_that_has_it(mode, value, asynchronous):
    curves = [[value] * 4, [value, 0.0, 0.0, 0.0], *FLAT[2:]]
    rule = jo.successive_halving(2, min_steps=2, asynchronous=asynchronous)
    result = sweep(curves, mode, policy=rule)
    assert result.trials[0].steps == result.trials[1].steps == 2
    assert result.best.number == (7 if mode == "min" else 2)


def test_successive_halving_waits_for_a_score():
    late = [[NAN, *curve[1:]] for curve in FLAT]
    result = sweep(late, policy=jo.successive_halving(2, min_steps=2))
    assert [t.steps for t in result.trials] == [4] * 6 + [8] * 2 and result.best.number == 7


@pytest.mark.parametrize(
    ("mode", "first", "sources", "copied"),
    [
        ("min", [NAN] * 8, set(), set()),  # nobody has a score yet
        ("min", [INF, -INF] * 4, set(), set()),
        ("min", [NAN, NAN, NAN, NAN, NAN, NAN, 5.0, NAN], {6}, {4, 5, 7}),
        ("min", [-INF, 3.0, 4.0, 5.0, 6.0, 1.0, 7.0, 2.0], {1, 5, 7}, {0, 4, 6}),
        ("max", [INF, 3.0, 4.0, 5.0, 6.0, 1.0, 7.0, 2.0], {3, 4, 6}, {0, 5, 7}),
        ("max", [NAN, 3.0, 4.0, 5.0, 6.0, 1.0, 7.0, 2.0], {3, 4, 6}, {0, 5, 7}),
    ],
)
def test_population_based_training_copies_from_trials_with_a_score_alone(mode, first, sources, copied):
    rule = jo.population_based(interval=2, fraction=0.4, dimensions=("x",))
    result = sweep([[score, 1.0] for score in first], mode, policy=rule)
    now = result.ledger.lineage
    assert {copy.trial for copy in now} == copied
    assert {copy.source for copy in now} <= sources and bool(now) == bool(sources)
