"""A run is what a plain loop over the same batches would do, however it is cut into pieces."""

import gc
import itertools
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from jaxopt_lite import tree
from tests.train.tasks import (
    LINEAR,
    ON_POLICY,
    RAMP,
    STATEFUL,
    TEST,
    TRAIN,
    VALID,
    assert_same,
    compiles,
    falling,
    init,
    loss,
)

WARMED = jo.adam(jo.warmup_cosine_decay_schedule(0.0, 0.1, warmup_steps=5, decay_steps=30))
RUN = {"steps": 20, "batch_size": 4, "eval_every": 6}


def by_hand(optimizer, seed, order):
    """The parameters after a scan over the rows of each step, and what it measured: nothing of the loop's is used."""

    @jax.jit
    def scan(optimizer, params, data, order):
        def step(carry, index):
            params, state = carry
            batch = jax.tree.map(lambda x: x[index], data) if len(index) else data
            value, grads = jax.value_and_grad(loss)(params, batch, None)
            updates, state = optimizer.update(grads, state, params)
            norms = tree.global_norm(grads), tree.global_norm(updates)
            return (jo.apply_updates(params, updates), state), (value, *norms)

        return jax.lax.scan(step, (params, optimizer.init(params)), order)

    (params, state), measured = scan(optimizer, jo.init_state(LINEAR, optimizer, seed).params, LINEAR.train, order)
    return params, state, measured


@pytest.mark.parametrize("batch_size", [4, 1, None])
def test_a_run_is_a_scan_over_its_batches_bit_for_bit(batch_size):
    order = jo.batch_order(jax.random.key(3), 14, batch_size, 0, 20) if batch_size else np.zeros((20, 0), int)
    optimizer = jo.arrays(jo.adam(0.1))
    params, opt_state, (losses, *norms) = by_hand(optimizer, 3, order)
    result = jo.fit(LINEAR, optimizer, 20, batch_size, seed=3, eval_every=6)
    assert_same((result.params, result.state.opt_state), (params, opt_state))
    last = np.array([5, 11, 17, 19])
    for name, norm in zip(["grad_norm", "update_norm"], norms, strict=True):
        np.testing.assert_allclose(result.history[name], norm[last], rtol=1e-6)
    means = [losses[i : i + 6].mean() for i in (0, 6, 12, 18)]
    np.testing.assert_allclose(result.history["train.loss"], means, rtol=1e-5)


def test_a_run_does_not_depend_on_where_it_is_looked_at():
    whole = jo.fit(LINEAR, WARMED, **RUN)
    for eval_every in (1, 20, 50):
        assert_same(jo.fit(LINEAR, WARMED, 20, 4, eval_every=eval_every).state, whole.state)


@pytest.mark.parametrize("seeds", [None, 2])
def test_the_order_is_made_block_by_block_while_the_run_goes_on(monkeypatch, seeds):
    at_once = jo.fit(LINEAR, WARMED, **RUN, seeds=seeds)
    monkeypatch.setattr("jaxopt_lite.train.data._BLOCK", 1)
    assert_same(jo.fit(LINEAR, WARMED, **RUN, seeds=seeds).state, at_once.state)


@pytest.mark.parametrize("task", [LINEAR, STATEFUL, ON_POLICY], ids=["plain", "stateful", "on-policy"])
def test_a_run_in_two_parts_is_the_run(task):
    whole = jo.fit(task, WARMED, **RUN)
    first = jo.fit(task, WARMED, **{**RUN, "steps": 7})
    second = jo.fit(task, None, **{**RUN, "steps": 13}, state=first.state)
    assert_same(second.state, whole.state)
    assert second.history["step"].tolist() == [13, 19, 20]
    assert second.status == "max_steps" and second.steps == 20
    assert not first.state.params["w"].is_deleted()
    assert_same(jo.fit(task, WARMED, **{**RUN, "steps": 13}, state=first.state).state, whole.state)


def test_a_state_holds_all_that_counts():
    state = jo.fit(LINEAR, WARMED, **RUN).state
    with pytest.raises(
        ValueError, match=r"differ in adam.learning_rate.peak_value, adam.b1; pass optimizer=None to resume"
    ):
        other = jo.replace(WARMED, {"peak_value": 0.2, "b1": 0.8})
        jo.fit(LINEAR, other, **RUN, state=state)
    with pytest.raises(ValueError, match="differ in what they chain"):
        jo.fit(LINEAR, jo.sgd(0.1), **RUN, state=state)
    with pytest.raises(ValueError, match="state holds params already"):
        jo.fit(LINEAR, None, **RUN, state=state, params=state.params)
    with pytest.raises(ValueError, match="seeds must be None, as in the run that the state is of, got 2"):
        jo.fit(LINEAR, None, **RUN, state=state, seeds=2)
    with pytest.raises(TypeError, match="state must be a TrainState"):
        jo.fit(LINEAR, None, **RUN, state=state.params)
    assert not state.params["w"].is_deleted()


def test_runs_side_by_side_are_the_runs():
    side_by_side = jo.fit(LINEAR, WARMED, **RUN, seed=5, seeds=3)
    for i in range(3):
        alone = jo.fit(LINEAR, WARMED, **RUN, seed=5 + i)
        assert_same(jax.tree.map(lambda x, i=i: x[i], side_by_side.state), alone.state, rtol=2e-5, atol=1e-6)
        for name in alone.history.keys() - {"step"}:
            np.testing.assert_allclose(side_by_side.history[name][i], alone.history[name], rtol=1e-4, err_msg=name)
            np.testing.assert_allclose(side_by_side.metrics[name][i], alone.metrics[name], rtol=1e-4, err_msg=name)
    assert side_by_side.status == ["max_steps"] * 3 and side_by_side.steps == [20] * 3
    assert side_by_side.history["step"].tolist() == [6, 12, 18, 20]


# Each seed begins elsewhere, so each reaches the target, and breaks down, at a step of its own.
SPREAD = jo.Task(
    lambda key: {"w": -jnp.floor(8 * jax.random.uniform(key))},
    lambda params, batch, key: jnp.where(params["w"] < -9.5, jnp.nan, params["w"]),
)


def test_a_run_that_stops_waits_for_the_others():
    run = {"steps": 12, "eval_every": 1, "target": -6.0}
    side_by_side = jo.fit(SPREAD, jo.sgd(1.0), **run, seeds=4)
    alone = [jo.fit(SPREAD, jo.sgd(1.0), **run, seed=i) for i in range(4)]
    assert side_by_side.steps == [result.steps for result in alone] and len(set(side_by_side.steps)) > 1
    assert side_by_side.status == [result.status for result in alone]
    assert side_by_side.params["w"].tolist() == [result.params["w"] for result in alone]
    for i, result in enumerate(alone):
        measured = side_by_side.history["train.loss"][i]
        assert measured[: result.steps].tolist() == result.history["train.loss"].tolist()
        assert np.isnan(measured[result.steps :]).all()
        assert side_by_side.metrics["train.loss"][i] == result.metrics["train.loss"]


def test_a_run_that_breaks_down_touches_nobody():
    result = jo.fit(SPREAD, jo.sgd(1.0), 7, eval_every=1, seeds=4)
    broken = [status == "non_finite" for status in result.status]
    assert any(broken) and not all(broken)
    kept = [result.history["train.loss"][i] for i in range(4) if not broken[i]]
    assert np.isfinite(kept).all() and result.status.count("max_steps") == len(kept)
    assert f"{len(kept)} of 4: All steps were done." in result.message


def test_runs_that_stopped_apart_go_on_each_from_its_own_step():
    halves = jo.fit(LINEAR, jo.sgd(0.05), 12, 4, eval_every=1, seeds=2, target=1.5)
    assert halves.steps[0] != halves.steps[1]
    on = jo.fit(LINEAR, None, 5, 4, eval_every=1, seeds=2, state=halves.state)
    for i in range(2):
        alone = jo.fit(LINEAR, jo.sgd(0.05), halves.steps[i] + 5, 4, eval_every=1, seed=i)
        assert on.steps[i] == alone.steps
        assert_same(jax.tree.map(lambda x, i=i: x[i], on.params), alone.params, rtol=1e-5)


def test_the_history_says_what_happened():
    task = jo.Task(init, lambda p, b, k: (loss(p, b, k), {"bias": p["b"]}), TRAIN, VALID)
    result = jo.fit(task, WARMED, **RUN, params={"w": np.zeros(4, np.float32), "b": np.float32(0)})
    names = [
        "step",
        "train.bias",
        "train.loss",
        "valid.bias",
        "valid.loss",
        "grad_norm",
        "learning_rate",
        "update_norm",
    ]
    assert list(result.history) == names
    steps = result.history["step"]
    assert steps.tolist() == [6, 12, 18, 20]
    rates = [WARMED.arguments["learning_rate"](step - 1) for step in steps]
    np.testing.assert_allclose(result.history["learning_rate"], rates, rtol=1e-5)
    assert result.metrics == {name: column[-1] for name, column in result.history.items() if name != "step"}
    np.testing.assert_allclose(result.metrics["valid.loss"], loss(result.params, task.valid, None), rtol=1e-5)
    assert result.metrics["valid.bias"] == result.params["b"]


def test_a_result_prints_what_it_has_come_to():
    task = jo.Task(RAMP.init, falling, valid=np.zeros((1, 1)))
    result = jo.fit(task, jo.sgd(1.0), 4, eval_every=2)
    assert repr(result) == "Result(max_steps, 4 steps, train.loss -2.5, valid.loss -4)"
    result = jo.fit(task, jo.sgd(1.0), 4, eval_every=2, seeds=2)
    assert repr(result) == "Result(2 runs: max_steps, 4 steps, mean train.loss -2.5, mean valid.loss -4)"


def test_norms_are_those_of_the_last_step_of_a_point():
    every, seldom = (jo.fit(LINEAR, jo.adam(0.1), 12, 4, eval_every=n).history for n in (1, 6))
    for name in ("grad_norm", "update_norm"):
        np.testing.assert_array_equal(every[name][5::6], seldom[name])


COMPILES = compiles()


def test_a_second_run_compiles_nothing():
    task = jo.Task(init, loss, TRAIN, VALID, TEST)
    jo.fit(task, jo.adam(0.1), **RUN)
    first = len(COMPILES)
    for rate in (0.1, 0.2, 0.3):
        jo.fit(task, jo.adam(rate), **RUN, seed=1)
    jo.fit(jo.Task(init, lambda *args: loss(*args), TRAIN, VALID, TEST), jo.adam(0.1), **{**RUN, "steps": 3})
    assert len(COMPILES) == first


def test_other_limits_are_the_same_program():
    task = jo.Task(init, loss, TRAIN, VALID)
    jo.fit(task, jo.adam(0.1), **RUN)
    first = len(COMPILES)
    for target in (None, -1.0, 1e-9):
        for patience in (None, 1, 3):
            jo.fit(task, jo.adam(0.1), **RUN, target=target, patience=patience, min_grad_norm=1e-12)
    assert len(COMPILES) == first


SLOPE = 1.0


class Weighted:
    """A loss that reads an attribute, and has no hash."""

    __hash__ = None
    weight = 1.0

    def __call__(self, params, batch, key):
        return self.weight * SLOPE * params["w"]


def test_a_loss_is_seen_to_have_changed(monkeypatch):
    loss = Weighted()
    task = jo.Task(lambda key: {"w": 0.0}, loss)
    assert jo.fit(task, jo.sgd(1.0), 2).params["w"] == -2
    loss.weight = 3.0
    assert jo.fit(task, jo.sgd(1.0), 2).params["w"] == -6
    monkeypatch.setitem(globals(), "SLOPE", 2.0)
    assert jo.fit(task, jo.sgd(1.0), 2).params["w"] == -12


def test_callbacks_of_a_loss_are_its_own_and_compile_once():
    """Their programs have the same text."""
    seen = []

    def calling(name):
        note = lambda: seen.append(name)

        def loss(params, batch, key):
            jax.debug.callback(note)
            return params["w"]

        return jo.Task(lambda key: {"w": 0.0}, loss)

    for name in "abcd":
        seen.clear()
        task = calling(name)
        jo.fit(task, jo.sgd(1.0), 2)
        first = len(COMPILES)
        jo.fit(task, jo.sgd(1.0), 2)
        jax.effects_barrier()
        assert set(seen) == {name} and len(COMPILES) == first
        del task


def test_given_parameters_are_begun_with_and_stay():
    params = init(jax.random.key(9))
    result = jo.fit(LINEAR, jo.sgd(0.0), **RUN, params=params)
    assert_same(result.params, params)
    jo.fit(LINEAR, jo.sgd(0.1), **RUN, params=params)
    assert not params["w"].is_deleted()


def test_data_are_not_kept_when_nobody_has_the_task():
    task = jo.Task(init, loss, TRAIN)
    kept = weakref.ref(task)
    jo.fit(task, jo.adam(0.1), **RUN)
    del task
    gc.collect()
    assert kept() is None


class Loader:
    """As PyTorch's: it can be gone through, it has a length, and gives lists."""

    def __len__(self):
        return 20

    def __iter__(self):
        return ([batch["x"], batch["y"]] for batch in batches())


def batches(number=None):
    """The batches of seed 0, drawn by hand."""
    order = jo.batch_order(jax.random.key(0), 14, 4, 0, 20 if number is None else number)
    return ({name: rows[index] for name, rows in TRAIN.items()} for index in order)


def listed(params, batch, key):
    return loss(params, {"x": batch[0], "y": batch[1]}, key)


@pytest.mark.parametrize(
    "source, function, eval_every",
    [(batches, loss, 6), (lambda: list(batches()), loss, 1), (Loader(), listed, 20)],
    ids=["function that returns one", "function that returns a list", "loader"],
)
def test_an_iterator_of_the_same_batches_gives_the_same_run(source, function, eval_every):
    result = jo.fit(jo.Task(init, function, source), WARMED, 20, eval_every=eval_every)
    assert_same(result.params, jo.fit(LINEAR, WARMED, **RUN).params, rtol=1e-6)
    assert result.status == "max_steps"


def test_an_iterator_is_taken_from_no_further_than_needed():
    source = batches(40)
    task = jo.Task(init, loss, source)
    first = jo.fit(task, WARMED, **{**RUN, "steps": 7})
    second = jo.fit(task, WARMED, **{**RUN, "steps": 13}, state=first.state)
    assert_same(second.params, jo.fit(LINEAR, WARMED, **RUN).params, rtol=1e-6)
    assert len(list(source)) == 20


@pytest.mark.parametrize("number, points", [(5, [5]), (16, [6, 12, 16]), (18, [6, 12, 18])])
def test_a_run_ends_with_its_data(number, points):
    result = jo.fit(jo.Task(init, loss, batches(number)), WARMED, **{**RUN, "steps": 30})
    assert (result.status, result.steps) == ("out_of_data", number)
    assert result.history["step"].tolist() == points
    assert_same(result.params, jo.fit(LINEAR, WARMED, **{**RUN, "steps": number}).params, rtol=1e-6)


def test_data_may_end_with_a_full_stack():
    result = jo.fit(jo.Task(init, loss, batches(16)), WARMED, 100, eval_every=50)
    assert (result.status, result.steps, result.history["step"].tolist()) == ("out_of_data", 16, [16])


def test_an_iterator_gives_something():
    with pytest.raises(ValueError, match="the iterator of batches yielded none"):
        jo.fit(jo.Task(init, loss, iter([])), WARMED, **RUN)


def test_runs_side_by_side_share_an_iterator():
    result = jo.fit(jo.Task(init, loss, batches), WARMED, **RUN, seeds=2)
    alone = jo.fit(jo.Task(init, loss, batches), WARMED, **RUN, seed=1)
    assert_same(jax.tree.map(lambda x: x[1], result.params), alone.params, rtol=1e-5)


def test_masters_stay_float32_when_computing_in_bfloat16():
    coarse = jo.fit(STATEFUL, WARMED, **RUN, compute_dtype="bfloat16")
    fine = jo.fit(STATEFUL, WARMED, **RUN)
    assert [x.dtype for x in jax.tree.leaves(coarse.state)] == [x.dtype for x in jax.tree.leaves(fine.state)]
    assert_same(coarse.params, fine.params, atol=0.05)
    assert not np.array_equal(coarse.params["w"], fine.params["w"])


# Optax compares these in Python, so they are static.
PLATEAU = jo.lift(optax.contrib.reduce_on_plateau, static=("factor", "rtol", "atol"))
OPTIMIZERS = {
    "a line search": jo.lift(optax.lbfgs)(),
    "a step length from the value": optax.polyak_sgd(),
    "a plateau of the value": jo.chain(jo.adam(0.2), PLATEAU(patience=10)),
    "Optax's own": optax.adam(0.2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_of_all_kinds_train(name):
    result = jo.fit(LINEAR, OPTIMIZERS[name], 40, None, eval_every=20)
    exact, residual, *_ = np.linalg.lstsq(np.c_[TRAIN["x"], np.ones(14)], TRAIN["y"], rcond=None)
    first, last = result.history["train.loss"]
    assert last < first / 2 and loss(result.params, LINEAR.train, None) < residual / 14 + 1
    if name == "a line search":
        np.testing.assert_allclose(result.params["w"], exact[:4], atol=1e-3)


def test_an_optimizer_of_optax_goes_on_too():
    optimizer = optax.adam(0.2)
    whole = jo.fit(LINEAR, optimizer, 12, 4)
    assert_same(jo.fit(LINEAR, optimizer, 7, 4, state=jo.fit(LINEAR, optimizer, 5, 4).state).params, whole.params)


def test_the_generator_says_what_happened_and_asks_whether_to_go_on():
    plan = jo.Plan(steps=9, eval_every=2)
    run = jo.training(RAMP, jo.sgd(1.0), plan, ahead=False)
    first = next(run)
    assert first.step == 2 and first.metrics["train.loss"] == -0.5 and first.state.params["w"] == -2
    assert run.send(None).step == 4
    with pytest.raises(StopIteration) as end:
        run.send(True)
    assert (end.value.value.status, end.value.value.steps) == ("interrupted", 4)


def test_a_run_ahead_of_its_driver_ends_at_the_same_point():
    points = list(itertools.islice(jo.training(RAMP, jo.sgd(1.0), jo.Plan(steps=9, eval_every=1, target=0.35)), 20))
    assert [point.step for point in points] == [1, 2, 3, 4] and points[0].state is None


def test_a_run_asked_to_stop_after_its_last_step_has_done_all():
    result = jo.fit(RAMP, jo.sgd(1.0), 2, eval_every=1, callbacks=[lambda point: point.step == 2])
    assert result.status == "max_steps"


def test_a_long_order_goes_to_the_device_in_parts(monkeypatch):
    monkeypatch.setattr("jaxopt_lite.train.source._INDICES", 4 * 4)
    assert_same(jo.fit(LINEAR, WARMED, 20, 4).state, jo.fit(LINEAR, WARMED, **RUN).state)


def test_a_loss_may_know_its_step_from_the_state_alone():
    """Nothing of a run lives outside its state: two states of one run, interleaved, do not disturb each other."""
    task = jo.Task(RAMP.init, falling)
    one, other = jo.init_state(task, jo.sgd(1.0)), jo.init_state(task, jo.sgd(2.0))
    for _ in range(3):
        one = jo.fit(task, None, 1, state=one).state
        other = jo.fit(task, None, 1, state=other).state
    assert (one.params["w"], other.params["w"]) == (-3, -6)


def test_steps_are_counted_in_32_bits():
    state = jo.init_state(RAMP, jo.sgd(1.0))._replace(step=2**31 - 3)
    with pytest.raises(ValueError, match="steps must be at most 2 from a state at step 2147483645, got 3"):
        jo.fit(RAMP, None, 3, state=state)
    assert jo.fit(RAMP, None, 2, state=state).steps == 2**31 - 1
    assert jo.fit(RAMP, jo.sgd(1.0), 4, eval_every=3_000_000_000, patience=10**12).steps == 4


NOISY = jo.Task(lambda key: {"w": jnp.zeros(3)}, lambda params, batch, key: 0.0 * params["w"].sum())


def test_runs_side_by_side_have_noises_of_their_own():
    optimizer = jo.chain(jo.lift(optax.add_noise)(0.1, 0.5, 0), jo.noisy_sgd(0.1))
    result = jo.fit(NOISY, optimizer, 4, eval_every=2, seeds=3)
    assert len(np.unique(result.params["w"])) == 9
    alone = jo.fit(NOISY, optimizer, 4, eval_every=2, seed=2)
    np.testing.assert_allclose(result.params["w"][2], alone.params["w"], rtol=1e-5)
    half = jo.fit(NOISY, optimizer, 1, eval_every=2, seed=2).state
    assert_same(jo.fit(NOISY, None, 3, eval_every=2, state=half).params, alone.params)


def by_hand_state(state, optimizer):
    """A state as somebody writes it who has read its docstring."""
    host = jax.tree.map(np.asarray, (state.params, state.opt_state))
    return jo.TrainState(host[0], optimizer, host[1], None, jax.random.PRNGKey(0), 0)


def test_a_state_may_be_made_or_changed_by_hand():
    adam, pair = jo.adam(0.1), optax.adam(0.1)
    state, run = jo.init_state(LINEAR, adam), {"steps": 3, "batch_size": 4}
    wanted = jo.fit(LINEAR, adam, **run).params
    for optimizer, given in [
        (adam, state._replace(optimizer=adam)),
        (None, state._replace(optimizer=adam)),
        (adam, by_hand_state(state, adam)),
        (None, state._replace(key=0, step=0)),
        (pair, state._replace(optimizer=pair)),
        (None, by_hand_state(state, pair)),
    ]:
        assert_same(jo.fit(LINEAR, optimizer, **run, state=given).params, wanted, rtol=1e-4)
    for optimizer, message in [("adam(0.1)", "got the string"), (jo.adam, "call it: adam"), (None, "got None")]:
        with pytest.raises(TypeError, match=f"fit: optimizer must be a transformation, .*{message}"):
            jo.fit(LINEAR, None, **run, state=state._replace(optimizer=optimizer))
    with pytest.raises(ValueError, match=r"differ in adam\.learning_rate"):
        jo.fit(LINEAR, jo.adam(0.2), **run, state=state._replace(optimizer=adam))
    with pytest.raises(TypeError, match="fit: the state's key must be an int or a key"):
        jo.fit(LINEAR, None, **run, state=state._replace(key="0"))
    for step in (-1, 2**31, 1.5, None):
        with pytest.raises(ValueError, match=r"fit: the state's step must be an int in \[0, 2147483647\], got"):
            jo.fit(LINEAR, None, **run, state=state._replace(step=step))
    with pytest.raises(ValueError, match="sgd: the state is not one of this optimizer"):
        jo.fit(LINEAR, None, **run, state=state._replace(optimizer=jo.sgd(0.1, momentum=0.9)))


def test_runs_side_by_side_share_the_numbers_of_an_optimizer_put_in_by_hand():
    stairs = jo.piecewise_constant_schedule(0.1, {2: 0.5, 4: 0.1})  # two numbers of its own, and two runs
    optimizer = jo.chain(
        jo.add_noise(0.1, 0.5, jax.random.PRNGKey(1)), jo.add_noise(0, 0, jax.random.key(1)), jo.adam(stairs)
    )
    state = jo.fit(LINEAR, optimizer, 1, 4, seeds=2).state
    by_hand = jo.fit(LINEAR, None, 3, 4, seeds=2, state=state._replace(optimizer=optimizer))
    assert_same(by_hand.params, jo.fit(LINEAR, None, 3, 4, seeds=2, state=state).params)


def test_a_run_under_strict_promotion_of_dtypes():
    task = jo.Task(init, loss, TRAIN, VALID, VALID)
    rules = {"target": -1.0, "patience": 9, "min_grad_norm": 0.0, "restore_best": True}
    plain = jo.fit(task, jo.noisy_sgd(0.1), 7, 4, eval_every=3, **rules)
    with jax.numpy_dtype_promotion("strict"):
        strict = jo.fit(task, jo.noisy_sgd(0.1), 7, 4, eval_every=3, **rules)
        jo.fit(LINEAR, jo.sgd(0.1), 2, None, compute_dtype="bfloat16")
    assert_same(strict.state, plain.state)


def test_a_point_belongs_to_the_callback_that_is_given_it():
    result = jo.fit(RAMP, jo.sgd(1.0), 4, eval_every=2, callbacks=[lambda point: point.metrics.clear()])
    assert result.history["train.loss"].tolist() == [-0.5, -2.5]


def test_a_test_set_that_cannot_be_evaluated_does_not_lose_the_run():
    def evaluate(params, data):
        def fail(x):
            raise RuntimeError("no room") if len(data) == 2 else None
            return x

        return {
            "loss": jax.pure_callback(
                fail if len(data) == 2 else np.asarray, jax.ShapeDtypeStruct((), "f4"), params["w"]
            )
        }

    task = jo.Task(RAMP.init, falling, None, np.zeros((1, 1)), np.zeros((2, 1)), evaluate)
    result = jo.fit(task, jo.sgd(1.0), 2, eval_every=1)
    assert result.params["w"] == -2 and "test.loss" not in result.metrics
    assert "All steps were done. test could not be evaluated: " in result.message


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"task": loss}, TypeError, "task must be a Task, got the function 'loss'; if it makes a Task, call it"),
        ({"task": {"w": np.zeros(9)}}, TypeError, r"task must be a Task, got \{'w': .* of type dict$"),
        ({"optimizer": jo.adam}, TypeError, r"optimizer must be .* call it: adam\(...\)"),
        ({"optimizer": None}, TypeError, "optimizer must be a transformation, got None"),
        ({"optimizer": "adam(0.1)"}, TypeError, r"got the string 'adam\(0.1\)'; use jaxopt_lite.parse"),
        ({"batch_size": 15}, ValueError, "batch_size=15 is more than the 14 training examples"),
        ({"seed": -1}, ValueError, "seed must be an int of at least 0, got -1"),
        ({"seed": 0.5}, ValueError, "seed must be an int"),
        ({"seed": True}, ValueError, "seed must be an int"),
        ({"seed": 2**32}, ValueError, r"seed must be less than 2\*\*32 = 4294967296, got 4294967296"),
        ({"seed": np.int64(2**40)}, ValueError, "seed must be less than"),
        ({"seed": 2**32 - 1, "seeds": 2}, ValueError, "that of the last run is 4294967296"),
        ({"steps": 3_000_000_000}, ValueError, "fit: steps must be at most 2147483647, got 3000000000"),
        ({"steps": 2**31, "eval_every": 2**31}, ValueError, "fit: steps must be at most 2147483647"),
        ({"seeds": 0}, ValueError, "seeds must be an int of at least 1"),
        ({"params": {"w": np.zeros(4, int)}}, TypeError, r"params\['w'\] is an array of dtype int64"),
    ],
)
def test_wrong_arguments_are_named(given, error, message):
    given = {"task": LINEAR, "optimizer": WARMED, "steps": 2, "batch_size": 4, **given}
    with pytest.raises(error, match=message):
        jo.fit(**given)
