"""The engine keeps its promise: what a trial computes depends on nothing but the trial."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.sweeps.engine import Advanced, Happened, Reply
from jaxopt_lite.sweeps.ledger import DIVERGED, FAILED, FINISHED
from jaxopt_lite.sweeps.policies import Decision, median_stopping, policy, run_all, successive_halving
from jaxopt_lite.sweeps.population import lineage, population_based, replay
from jaxopt_lite.sweeps.samplers import grid
from tests.sweeps import small

POLICIES = [
    run_all(),
    median_stopping(min_trials=2),
    successive_halving(2),
    successive_halving(2, brackets=2),
    successive_halving(2, asynchronous=True, concurrency=3),
    population_based(interval=4),
]


@pytest.fixture(scope="module")
def whole():
    """Eight trials, undisturbed."""
    return small.drive(small.engine())[0]


def curves_of(outcome, trial):
    return {name: curve[trial] for name, curve in outcome.ledger.curves.items()}


def test_a_sweep_trains_as_fit_does(whole):
    config = whole.ledger.space.configs(whole.ledger.table[3:4])[0]
    task, optimizer = small.trial(config)
    fit = jo.fit(task, optimizer, small.STEPS, small.BATCH, seeds=small.SEEDS, eval_every=small.EVAL_EVERY)
    for name in ("train.loss", "valid.loss"):
        np.testing.assert_allclose(whole.ledger.curves[name][3], fit.history[name], rtol=1e-5)
    np.testing.assert_allclose(fit.metrics["valid.loss"], whole.ledger.curves["valid.loss"][3, :, -1], rtol=1e-5)


def test_best_is_the_best_of_the_mean_over_seeds(whole):
    last = whole.ledger.curves["valid.loss"][:, :, -1].astype(np.float64).mean(axis=1)
    assert whole.best.number == np.argmin(last)
    task, _ = small.trial(whole.ledger.space.configs(whole.ledger.table[whole.best.number][None])[0])
    losses = jax.vmap(task.loss, (0, None, None))(whole.best.params, task.test, None)
    np.testing.assert_allclose(whole.best.test["test.loss"], losses, rtol=1e-5)


@pytest.mark.parametrize("trial", [0, 5])
def test_alone_in_a_padded_cohort(whole, trial):
    config = whole.ledger.space.configs(whole.ledger.table[trial][None])[0]
    alone, _, _ = small.drive(small.engine(trials=1, initial=[config]))
    for name, curve in curves_of(whole, trial).items():
        np.testing.assert_array_equal(alone.ledger.curves[name][0], curve, err_msg=name)


def test_in_any_slot_and_among_any_neighbours(whole):
    order = np.random.default_rng(0).permutation(8)
    configs = whole.ledger.space.configs(whole.ledger.table[order])
    other, _, _ = small.drive(small.engine(initial=configs))
    for name, curve in whole.ledger.curves.items():
        np.testing.assert_array_equal(other.ledger.curves[name], curve[order], err_msg=name)


def test_beside_a_diverging_neighbour(whole):
    configs = whole.ledger.space.configs(whole.ledger.table)
    wide = {**small.SPACE, "learning_rate": jo.log_uniform(1e-3, 1e10)}
    configs[1] = {**configs[1], "learning_rate": np.float32(1e9)}
    other, _, _ = small.drive(small.engine(spec=wide, initial=configs))
    assert other.ledger.status[1] == DIVERGED and other.ledger.step[1] < small.STEPS
    points = other.ledger.step[1] // small.EVAL_EVERY
    assert np.isnan(other.ledger.curves["train.loss"][1, :, points:]).all()
    assert other.ledger.ranking()[-1] == 1
    rest = [0, 2, 3, 4, 5, 6, 7]
    for name, curve in whole.ledger.curves.items():
        np.testing.assert_array_equal(other.ledger.curves[name][rest], curve[rest], err_msg=name)


@hypothesis.settings(max_examples=8, deadline=None, derandomize=True)
@hypothesis.given(st.permutations(range(8)), st.integers(1, 8), st.integers(1, 8))
def test_of_any_subset_in_any_order_with_calls_of_any_length(whole, order, n, quanta):
    chosen = list(order)[:n]
    configs = whole.ledger.space.configs(whole.ledger.table[chosen])
    other, _, _ = small.drive(small.engine(trials=n, initial=configs), lambda event, i: Reply(points=quanta))
    for name, curve in whole.ledger.curves.items():
        np.testing.assert_array_equal(other.ledger.curves[name], curve[chosen], err_msg=name)


@pytest.mark.parametrize("quanta", [1, 3])
def test_with_calls_of_any_length(whole, quanta):
    other, events, _ = small.drive(small.engine(), lambda event, i: Reply(points=quanta))
    assert max(e.steps for e in events[-3:] if isinstance(e, Advanced)) <= quanta * small.EVAL_EVERY
    small.same(other, whole)


def test_whatever_kind_of_random_keys_is_usual(whole):
    with jax.default_prng_impl("rbg"):
        small.same(small.drive(small.engine())[0], whole)


def test_a_divergence_is_cut_off_at_the_same_point_with_calls_of_any_length():
    wide = {**small.SPACE, "learning_rate": jo.log_uniform(0.3, 30.0)}
    one, _, _ = small.drive(small.engine(spec=wide))
    other, _, _ = small.drive(small.engine(spec=wide), lambda event, i: Reply(points=1))
    assert 0 < (one.ledger.status == DIVERGED).sum() < 8
    small.same(one, other)


@pytest.mark.parametrize("rule", POLICIES, ids=repr)
def test_stopped_anywhere_and_resumed(rule):
    spec = {**small.SPACE, "hidden": jo.choice([3, 4])}
    whole, events, _ = small.drive(small.engine(rule, spec=spec))
    assert len(whole.ledger.lineage) > 0 or "population" not in repr(rule)
    for at in sorted({2, len(events) // 3, len(events) // 2, len(events) - 3}):
        stopped, _, snapshot = small.drive(small.engine(rule, spec=spec), small.stop_at(at))
        assert not stopped.complete
        again = small.engine(rule, spec=spec)
        again.groups.restore(snapshot)
        small.same(small.drive(again, lambda event, i: Reply(points=2))[0], whole)


def test_one_compilation_for_each_group_and_width():
    compiled = []

    def listen(name, duration, **kwargs):
        if name == "/jax/core/compile/backend_compile_duration" and "run" in str(kwargs.get("fun_name", "")):
            compiled.append(kwargs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        spec = {**small.SPACE, "hidden": jo.choice([2, 6])}
        _, events, _ = small.drive(small.engine(successive_halving(2), spec=spec, trials=12))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len([event for event in events if getattr(event, "what", "") == "compiled"]) == 2
    assert len(compiled) == 2


def test_program_text_does_not_grow_with_the_data():
    sizes = []
    for rows in (40, 4000):

        def trial(config, rows=rows):
            train, valid = small.data(rows=rows)
            captured = jnp.asarray(train["x"])  # by the loss, as a constant would be
            full = small.task()
            loss = lambda params, batch, key: full.loss(params, batch, key) + 0 * captured.sum()
            return jo.Task(full.init, loss, train, valid), jo.sgd(config["learning_rate"])

        made = small.engine(trial=trial, trials=2)
        small.drive(made)
        sizes.append(len(str(next(iter(made.groups.runners.values())).program._jaxpr)))
    assert abs(sizes[1] - sizes[0]) < 200, sizes


def test_independent_trials_have_keys_and_orders_of_their_own():
    config = {"learning_rate": np.float32(0.01), "momentum": np.float32(0.5)}
    paired, _, _ = small.drive(small.engine(trials=3, initial=[config] * 3))
    own, _, _ = small.drive(small.engine(trials=3, initial=[config] * 3, independent=True))
    loss = paired.ledger.curves["train.loss"]
    np.testing.assert_array_equal(loss[0], loss[2])
    loss = own.ledger.curves["train.loss"]
    assert (loss[0] != loss[1]).all() and (loss[1] != loss[2]).all()
    alone, _, _ = small.drive(small.engine(trials=1, initial=[config], independent=True))
    np.testing.assert_array_equal(alone.ledger.curves["train.loss"][0], loss[0])


def test_population_based_training_copies_and_can_be_replayed():
    rule = population_based(interval=4, fraction=0.25)
    whole, _, _ = small.drive(small.engine(rule, width=4))
    ledger, best = whole.ledger, whole.best
    changes = lineage(ledger, best.number)
    assert len(changes) > 1 and changes[0].step == 0
    config = ledger.space.configs(np.array([changes[0].row]))[0]
    again, _, _ = small.drive(small.engine(replay(changes), trials=1, initial=[config], width=4))
    for x, y in zip(jax.tree.leaves(again.best.params), jax.tree.leaves(best.params), strict=True):
        np.testing.assert_array_equal(x, y)


def test_reset_makes_the_optimizer_state_anew():
    def trial(config):
        return small.task(), jo.adam(config["learning_rate"], b1=config["momentum"])

    @policy
    def copy_once(reset: bool):
        def decide(ledger):
            step = ledger.step.max()
            copies = [jo.Copy(1, 0, 8, ledger.table[0].copy(), reset)] if step == 8 else []
            return Decision(target=8 if step == 0 else 16, copies=copies)

        return decide

    for reset in (False, True):
        outcome, _, _ = small.drive(small.engine(copy_once(reset), trial=trial, trials=2))
        loss = outcome.ledger.curves["train.loss"]
        assert np.array_equal(loss[0, :, 4:], loss[1, :, 4:]) != reset


def test_a_trial_that_raises_fails_its_group():
    def trial(config):
        if config["hidden"] == 3:
            raise RuntimeError("three is too few")
        return small.trial(config)

    spec = {**small.SPACE, "hidden": jo.choice([3, 4])}
    with pytest.raises(RuntimeError, match="three is too few") as raised:
        small.drive(small.engine(trial=trial, spec=spec))
    assert "'hidden': 3" in "".join(raised.value.__notes__)
    outcome, events, _ = small.drive(small.engine(trial=trial, spec=spec, keep_on=True))
    failed = outcome.ledger.status == FAILED
    assert failed.sum() == 4 and (outcome.ledger.status[~failed] == FINISHED).all()
    assert "three is too few" in outcome.ledger.errors[int(np.flatnonzero(failed)[0])]
    assert [getattr(e, "what", "") for e in events].count("groupfailed") == 1


@pytest.mark.parametrize(
    "returned, message",
    [
        (lambda c: jo.sgd(0.1), r"trial must return \(task, optimizer\)"),
        (lambda c: None, "got None"),
        (lambda c: (small.task(), jo.sgd), "must be a transformation, got the function sgd"),
        (lambda c: (small.task(), jo.sgd(c["learning_rate"]), 1), "got a tuple of 3"),
        (lambda c: (scaled(c["learning_rate"]), jo.sgd(0.1)), "the task's train data depend on a traced number"),
        (lambda c: (small.task(), jo.sgd(0.1 if c["learning_rate"] > 0.01 else 0.2)), "bool"),
        (lambda c: (jo.Task(small.task().init, small.task().loss, iter([])), jo.sgd(0.1)), "train must be arrays"),
    ],
)
def test_trial_returns_something_else(returned, message):
    with pytest.raises((TypeError, ValueError), match=message):
        small.drive(small.engine(trial=returned))


def scaled(factor):
    full = small.task()
    train = {**full.train, "x": jnp.asarray(full.train["x"]) * factor}
    return jo.Task(full.init, full.loss, train, full.valid)


def test_too_many_groups_name_the_culprit():
    spec = {**small.SPACE, "hidden": jo.int_uniform(1, 60), "two": jo.choice([1, 2])}
    with pytest.raises(ValueError, match=r"groups.*'hidden' is static and has .* values"):
        small.drive(small.engine(spec=spec, trials=40, max_groups=8))


def test_unknown_metric_and_missing_mode():
    with pytest.raises(ValueError, match="no metric 'valid"):
        small.drive(small.engine(metric="valid.los"))
    with pytest.raises(ValueError, match="there are train"):
        small.drive(small.engine(metric="zzz"))


def test_valid_data_are_not_passed_over_in_silence():
    def trial(config):
        task, optimizer = small.trial(config)
        measure = lambda params, data: {"error": task.loss(params, data, None)}
        return jo.Task(task.init, task.loss, task.train, task.valid, evaluate=measure), optimizer

    with pytest.raises(ValueError, match=r"evaluate reports neither; give metric \(there are valid.error\) and mode"):
        small.drive(small.engine(trial=trial))
    with pytest.raises(ValueError, match="mode must be given"):
        small.drive(small.engine(trial=trial, metric="valid.error"))


def test_the_width_is_halved_when_memory_does_not_suffice(monkeypatch):
    from jaxopt_lite.sweeps import pool

    launch = pool.Runner.launch

    def scarce(self, *args):
        if self.width > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return launch(self, *args)

    whole, _, _ = small.drive(small.engine(width=2))
    monkeypatch.setattr(pool.Runner, "launch", scarce)
    outcome, events, _ = small.drive(small.engine(width=8))
    assert [e.facts["width"] for e in events if isinstance(e, Happened) and e.what == "narrowed"] == [4, 2]
    small.same(outcome, whole)


def test_the_width_stays_where_states_would_be_lost(monkeypatch):
    from jaxopt_lite.sweeps import pool

    launch, events = pool.Runner.launch, []

    def scarce(self, trials, numbers, step, *args):
        if step >= small.STEPS // 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return launch(self, trials, numbers, step, *args)

    def answer(event, i):
        events.append(event)
        return Reply(points=1)

    monkeypatch.setattr(pool.Runner, "launch", scarce)
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        small.drive(small.engine(), answer)
    assert "narrowed" not in [getattr(event, "what", "") for event in events]


def test_more_trials_extend_a_sweep_without_changing_it(whole):
    made = small.engine()
    outcome, _, _ = small.drive(made)
    (pool,) = [runner.pool for runner in made.groups.runners.values()]
    assert list(pool.held) == [outcome.best.number]
    assert {len(array) for array in pool.held[outcome.best.number][1]} == {1}, "without the slots of its cohort"
    longer = small.engine(trials=16)
    longer.groups.restore(made.groups.snapshot())
    extended, _, _ = small.drive(longer)
    assert len(extended.ledger) == 16
    for name, curve in outcome.ledger.curves.items():
        np.testing.assert_array_equal(extended.ledger.curves[name][:8], curve)
    at_once, _, _ = small.drive(small.engine(trials=16))
    np.testing.assert_array_equal(extended.ledger.table, at_once.ledger.table)


def test_another_program_or_other_data_are_refused():
    made = small.engine()
    small.drive(made)
    saved = made.groups.snapshot()

    def other_code(config):
        task, optimizer = small.trial(config)
        return jo.Task(task.init, lambda p, b, k: 2 * task.loss(p, b, k), task.train, task.valid), optimizer

    def other_data(config):
        task, optimizer = small.trial(config)
        return jo.Task(task.init, task.loss, {**task.train, "y": task.train["y"] + 1}, task.valid), optimizer

    for trial, what in ((other_code, "program"), (other_data, "data")):
        with pytest.raises(ValueError, match=f"the {what} of all trials changed"):
            small.engine(trial=trial).groups.restore(saved)


def test_a_grid_runs_whole():
    outcome, _, _ = small.drive(small.engine(sampler=grid(3), trials=9))
    assert (outcome.ledger.status == FINISHED).all()


def test_states_on_the_host_are_the_same(whole, monkeypatch):
    from jaxopt_lite.sweeps import pool

    monkeypatch.setattr(pool, "_memory", lambda device: 1)
    outcome, _, _ = small.drive(small.engine(width=4))
    small.same(outcome, whole)


@pytest.mark.usefixtures("x64")
def test_curves_stay_float32_with_x64_also_under_strict_promotion():
    """Metrics are float64 there, which JAX puts into a float32 array with a warning, or not at all."""

    def trial(config):
        data = {"x": jnp.ones((8, 2)), "y": jnp.zeros(8)}
        task = jo.Task(lambda key: jnp.ones(2), lambda w, b, key: jnp.mean((b["x"] @ w - b["y"]) ** 2), data, data)
        return task, jo.adam(config["learning_rate"])

    with jax.numpy_dtype_promotion("strict"):
        outcome, _, _ = small.drive(small.engine(trial=trial, trials=2))
    assert all(curve.dtype == np.float32 for curve in outcome.ledger.curves.values())
    assert (outcome.ledger.status == FINISHED).all()


def test_states_with_random_keys_are_kept():
    def trial(config):
        return small.trial(config)[0], jo.noisy_sgd(config["learning_rate"], eta=0.1)

    whole, _, _ = small.drive(small.engine(trial=trial, trials=6))
    for reply in (Reply(points=1), Reply(points=2)):
        again, _, _ = small.drive(small.engine(trial=trial, trials=6), lambda event, i, reply=reply: reply)
        small.same(again, whole)


def outside(config):
    return small.task(), jo.sgd(config["learning_rate"], momentum=config["momentum"])


@pytest.mark.parametrize("name, low, high", [("learning_rate", -0.001, 0.1), ("momentum", 0.0, 1.02)])
def test_a_number_out_of_its_range_is_refused_whichever_trial_has_it(name, low, high):
    spec = {**small.SPACE, name: jo.uniform(low, high)}
    with pytest.raises(ValueError, match=rf"sweep: sgd: {name} must be .*, for trial \d+ with .*: narrow the space"):
        small.drive(small.engine(trial=outside, spec=spec, trials=200))


def test_or_fails_that_trial_alone():
    spec = {**small.SPACE, "momentum": jo.uniform(0.0, 1.02)}
    outcome, _, _ = small.drive(small.engine(trial=outside, spec=spec, trials=64, keep_on=True))
    momentum = np.array([config["momentum"] for config in outcome.ledger.space.configs(outcome.ledger.table)])
    assert ((outcome.ledger.status == FAILED) == (momentum >= 1)).all() and (momentum >= 1).any()
    assert all("sgd: momentum must be" in said for said in outcome.ledger.errors.values())
