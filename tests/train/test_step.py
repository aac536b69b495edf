"""One step is a pure function of a state that holds everything."""

import functools
import gc
import weakref
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from tests.train.tasks import LINEAR, ON_POLICY, STATEFUL, TRAIN, assert_same, compiles, counted, init, loss

BATCH = jax.tree.map(lambda x: x[:4], LINEAR.train)


def test_a_step_is_its_formula():
    state = jo.init_state(LINEAR, jo.sgd(0.1), seed=3)
    value, grads = jax.value_and_grad(loss)(state.params, BATCH, None)
    wanted = jax.tree.map(lambda p, g: p - jnp.float32(0.1) * g, state.params, grads)
    state, metrics = jo.make_step(loss)(state, BATCH)
    assert_same(state.params, wanted, rtol=1e-6)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads)))
    assert set(metrics) == {"loss", "learning_rate", "grad_norm", "update_norm"}
    np.testing.assert_allclose([metrics["loss"], metrics["grad_norm"]], [value, norm], rtol=1e-5)
    np.testing.assert_allclose(metrics["update_norm"], 0.1 * norm, rtol=1e-5)
    assert int(state.step) == 1


def test_a_step_donates_its_state():
    state = jo.init_state(LINEAR, jo.adam(0.1))
    after, _ = jo.make_step(LINEAR)(state, BATCH)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params) + jax.tree.leaves(state.opt_state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))
    assert not BATCH["x"].is_deleted()


def test_the_optimizer_is_edited_between_steps_without_another_trace():
    counting, traces = counted(loss)
    step, state = jo.make_step(counting), jo.init_state(LINEAR, jo.adamw(0.1))
    state, _ = step(state, BATCH)
    for rate in (0.2, 0.3):
        state = state._replace(optimizer=jo.replace(state.optimizer, {"learning_rate": rate, "weight_decay": 0.0}))
        state, metrics = step(state, BATCH)
        assert metrics["learning_rate"] == np.float32(rate)
    assert len(traces) == 1


def test_other_numbers_make_no_other_trace():
    counting, traces = counted(loss)
    step = jo.make_step(counting)
    ends = [step(jo.init_state(LINEAR, jo.adam(rate)), BATCH)[0].params for rate in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert len(traces) == 1
    assert len({float(params["w"][0]) for params in ends}) == 5


def test_a_batch_of_states_is_made_by_vmap_over_seeds():
    states = jax.vmap(lambda seed: jo.init_state(LINEAR, jo.adam(0.1), seed))(jnp.arange(3))
    for seed in range(3):
        assert_same(jax.tree.map(lambda x, i=seed: x[i], states), jo.init_state(LINEAR, jo.adam(0.1), seed))


def test_the_seed_may_be_a_key():
    assert_same(jo.init_state(LINEAR, jo.adam(0.1), jax.random.key(7)), jo.init_state(LINEAR, jo.adam(0.1), 7))


def test_the_state_shares_no_memory_with_what_it_was_made_from():
    params, means, key = init(jax.random.key(0)), {"mean": jnp.zeros(4)}, jax.random.key(1)
    task = jo.Task(lambda key: (params, means), STATEFUL.loss, TRAIN, stateful=True)
    optimizer, step = jo.arrays(jo.adam(0.1)), jo.make_step(task)
    step(jo.init_state(task, optimizer, key), BATCH)
    step(jo.init_state(task, optimizer, key, params=params), BATCH)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, means, key, optimizer)))


def test_every_step_has_a_key_of_its_own():
    step, state, losses = jo.make_step(ON_POLICY), jo.init_state(ON_POLICY, jo.sgd(0.0)), []
    for _ in range(3):
        state, metrics = step(state, None)
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 3


def test_a_model_state_goes_from_step_to_step():
    step, state = jo.make_step(STATEFUL.loss, stateful=True), jo.init_state(STATEFUL, jo.sgd(0.0))
    for _ in range(2):
        state, metrics = step(state, BATCH)
    wanted = (0.9 * 0.1 + 0.1) * BATCH["x"].mean(axis=0)
    np.testing.assert_allclose(state.model_state["mean"], wanted, rtol=1e-5)
    np.testing.assert_allclose(metrics["first"], wanted[0], rtol=1e-5)


def test_each_learning_rate_is_measured_under_its_path():
    optimizer = jo.chain(jo.adam(jo.linear_schedule(1.0, 0.0, 4)), jo.sgd(0.5))
    step, state = jo.make_step(LINEAR), jo.init_state(LINEAR, optimizer)
    for wanted in (1.0, 0.75):
        state, metrics = step(state, BATCH)
        assert metrics["adam.learning_rate"] == wanted and metrics["sgd.learning_rate"] == 0.5
    assert "learning_rate" not in metrics


def test_computing_in_bfloat16_keeps_float32_masters():
    seen = []

    def spying(params, batch, key):
        seen.append((params["w"].dtype, batch["x"].dtype))
        return loss(params, batch, key)

    start = jo.init_state(LINEAR, jo.adamw(1e-3, weight_decay=1e-3))
    before = jax.tree.map(np.asarray, start.params)
    state, metrics = jo.make_step(spying, compute_dtype="bfloat16")(start, BATCH)
    assert seen == [(jnp.bfloat16, jnp.bfloat16)]
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, metrics))} == {jnp.dtype("float32")}
    moved = np.abs(state.params["w"] - before["w"])
    np.testing.assert_allclose(moved, 1e-3 * (1 + 1e-3 * np.abs(before["w"])), rtol=1e-2)  # far below bfloat16's grain


def test_a_model_state_computed_in_bfloat16_stays_float32():
    def coarse(params, model_state, batch, key):
        return jnp.sum(params["w"] ** 2), ({}, {"mean": batch["x"].mean(axis=0)})

    state = jo.init_state(STATEFUL, jo.sgd(0.1))
    state, _ = jo.make_step(coarse, stateful=True, compute_dtype=jnp.bfloat16)(state, BATCH)
    assert state.model_state["mean"].dtype == jnp.float32


def test_python_numbers_are_parameters_like_any_other():
    state = jo.init_state(jo.Task(lambda key: {"w": 1.0}, loss), jo.sgd(0.1))
    assert state.params["w"].dtype == jnp.float32 and not state.params["w"].weak_type


def test_what_an_optimizer_asks_for_is_given():
    def update(updates, state, params=None, *, value, grad, value_fn, **extra):
        return jax.tree.map(jnp.negative, grad), (value, value_fn(params))

    curious = optax.GradientTransformationExtraArgs(lambda params: (jnp.zeros(()), jnp.zeros(())), update)
    state, metrics = jo.make_step(LINEAR)(jo.init_state(LINEAR, curious), BATCH)
    value, again = state.opt_state
    np.testing.assert_allclose([value, again], metrics["loss"], rtol=1e-6)
    np.testing.assert_allclose(metrics["update_norm"], metrics["grad_norm"], rtol=1e-6)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: jo.init_state(loss, jo.sgd(0.1)), TypeError, "init_state: task must be a Task"),
        (lambda: jo.init_state(LINEAR, jo.sgd), TypeError, r"optimizer must be .*call it: sgd\(...\)"),
        (
            lambda: jo.init_state(LINEAR, jo.sgd(0.1), "0"),
            TypeError,
            "seed must be an int or a key, got the string '0'",
        ),
        (
            lambda: jo.init_state(LINEAR, jo.sgd(0.1), params={"w": "x"}),
            TypeError,
            r"init_state: params\['w'\] is the string",
        ),
        (lambda: jo.make_step(None), TypeError, "make_step: loss must be a function or a Task, got None"),
        (lambda: jo.make_step(loss, compute_dtype="int8"), ValueError, "compute_dtype must be a floating dtype"),
        (lambda: jo.make_step(loss, compute_dtype="half16"), ValueError, "compute_dtype must be .*'half16'"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def noise_of(optimizer, seed):
    """The first update at a gradient of zero, which is the noise alone."""
    state, zeros = jo.init_state(NOTHING, optimizer, seed), {"w": jnp.zeros(3)}
    return np.asarray(optimizer.update(zeros, state.opt_state, zeros)[0]["w"])


NOTHING = jo.Task(lambda key: {"w": jnp.zeros(3)}, lambda params, batch, key: 0.0)


class WithKey(NamedTuple):
    rng: jax.Array


def keyed(key, packed):
    """An Optax pair that keeps its key in a field or in a dict."""

    def init(params):
        return WithKey(key) if packed else {"count": jnp.zeros(2, jnp.uint32), "keys": {"w": key}}

    def update(updates, state, params=None):
        own = state.rng if packed else state["keys"]["w"]
        noise = jax.tree.map(lambda u: u + jax.random.normal(own, u.shape), updates)
        return noise, state

    return optax.GradientTransformation(init, update)


NOISES = {
    "a seed": lambda: jo.noisy_sgd(0.1),
    "another seed": lambda: jo.noisy_sgd(0.1, key=7),
    "a key": lambda: jo.chain(jo.add_noise(0.01, 0.55, jax.random.key(3)), jo.sgd(0.1)),
    "an old key": lambda: jo.noisy_sgd(0.1, key=jax.random.PRNGKey(3)),
    "within": lambda: jo.partition({"a": jo.noisy_sgd(0.1)}, "a"),
    "lifted": lambda: jo.lift(optax.add_noise)(0.1, 0.5, 0),
    "lifted by a key": lambda: jo.lift(optax.add_noise)(0.1, 0.5, jax.random.key(0)),
    "Optax's own": lambda: optax.noisy_sgd(0.1, key=0),
    "a field": lambda: keyed(jax.random.PRNGKey(0), True),
    "a dict of keys": lambda: keyed(jax.random.PRNGKey(0), False),
    "keys of its own kind": lambda: keyed(jax.random.key(0, impl="rbg"), True),
}


def test_each_seed_has_noise_of_its_own_and_the_same_again():
    found = {}
    for name, make in NOISES.items():
        optimizer = make()
        found[name] = noise_of(optimizer, 0)
        assert np.all(found[name] != 0) and not np.any(found[name] == noise_of(optimizer, 1)), name
        np.testing.assert_array_equal(found[name], noise_of(optimizer, 0), err_msg=name)
    assert not np.any(found["a seed"] == found["another seed"]), "the rule's own key counts too"
    np.testing.assert_array_equal(found["a key"], found["an old key"])


def test_two_rules_of_one_optimizer_have_noise_of_their_own():
    """Also with equal keys, such as those that nobody gave."""
    there_and_back = jo.chain(jo.add_noise(0.1, 0.5), jo.scale(-1.0), jo.add_noise(0.1, 0.5))
    assert np.all(noise_of(there_and_back, 0) != 0)
    task = jo.Task(lambda key: {"a": jnp.zeros(3), "b": jnp.zeros(3)}, lambda params, batch, key: 0.0)
    optimizer = jo.partition({"a": jo.noisy_sgd(0.1), "b": jo.noisy_sgd(0.1)}, {"a": "a", "b": "b"})
    state = jo.init_state(task, optimizer)
    updates = optimizer.update(state.params, state.opt_state, state.params)[0]
    assert not np.any(updates["a"] == updates["b"])


def test_a_rule_in_a_loop_without_a_run_keeps_its_own_key():
    state = jo.add_noise(0.1, 0.5, 3).init(jnp.zeros(2))
    assert_same(state.rng_key, jax.random.key(3))


def test_what_is_no_key_is_left_alone():
    counts = {"hits": jnp.zeros(2, jnp.uint32), "key": jnp.zeros(3, jnp.uint32), "rng": jnp.zeros(2, jnp.int32)}
    rule = optax.GradientTransformation(lambda params: counts, lambda updates, state, params=None: (updates, state))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(jo.init_state(LINEAR, rule, 5).opt_state))


def test_noise_of_runs_side_by_side_is_that_of_each_alone():
    rule = jo.noisy_sgd(0.1)
    states = jax.vmap(lambda seed: jo.init_state(LINEAR, rule, seed))(jnp.arange(3))
    for seed in range(3):
        assert_same(jax.tree.map(lambda x, i=seed: x[i], states), jo.init_state(LINEAR, rule, seed))


def test_arrays_changed_afterwards_are_not_seen():
    task = jo.Task(lambda key: {"w": jnp.zeros((50_000, 8))}, lambda params, batch, key: jnp.mean(params["w"] * batch))
    step, buffer = jo.make_step(task), np.zeros((50_000, 8), np.float32)
    for _ in range(5):
        buffer[:] = 0
        state = jo.init_state(task, jo.sgd(1.0), params={"w": buffer})
        buffer[:] = 7
        assert not np.any(state.params["w"])
        buffer[:] = 0
        state = jo.init_state(jo.Task(lambda key: {"w": buffer}, task.loss), jo.sgd(1.0))
        buffer[:] = 7
        assert not np.any(state.params["w"]), "an array that init captured"
        buffer[:] = 0
        state, _ = step(state, buffer)
        buffer[:] = 7
        assert not np.any(state.params["w"]), "a batch that a loader fills again"


def test_a_seed_is_an_int_of_32_bits_or_a_key():
    for seed in (np.int64(7), np.array(7), jnp.int32(7), jax.random.key(7), jax.random.PRNGKey(7)):
        assert_same(jo.init_state(LINEAR, jo.sgd(0.1), seed), jo.init_state(LINEAR, jo.sgd(0.1), 7))
    keys = [jo.init_state(LINEAR, jo.sgd(0.1), seed).key for seed in (0, 1, 2**31, 2**32 - 1)]
    assert len({str(jax.random.key_data(key)) for key in keys}) == 4
    for seed in (2**32, np.int64(2**32), -1, np.int64(-1)):
        with pytest.raises(ValueError, match=r"init_state: seed must be (less than|an int of at least 0)"):
            jo.init_state(LINEAR, jo.sgd(0.1), seed)
    for seed in (True, np.bool_(True), 0.5, np.float32(0.5), jnp.float32(0), jnp.arange(3), None):
        with pytest.raises(TypeError, match="init_state: seed must be an int or a key, got"):
            jo.init_state(LINEAR, jo.sgd(0.1), seed)


COMPILES = compiles()


def test_an_init_made_anew_is_compiled_once():
    def fresh(kind, scale, rows):
        normal = lambda scale, key: {"w": scale * jax.random.normal(key, (4,)) + rows, "b": jnp.zeros(())}
        inner = lambda key: {"w": jax.jit(lambda: jnp.asarray(rows) * 2)(), "b": jnp.zeros(())}
        kinds = {"partial": functools.partial(normal, scale), "lambda": lambda key: normal(scale, key), "jitted": inner}
        return kinds[kind]

    for kind in ("partial", "lambda", "jitted"):
        first, second = np.zeros(4, np.float32), np.arange(4, dtype=np.float32)
        make = lambda scale, rows, kind=kind: jo.init_state(jo.Task(fresh(kind, scale, rows), loss), jo.adam(0.1))
        make(1.0, first)
        before = len(COMPILES)
        w = np.asarray(make(1.0, first).params["w"])
        assert len(COMPILES) == before, kind
        changed = np.asarray(make(1.0, second).params["w"])
        assert np.any(changed != w), f"{kind}: other captured arrays, other parameters"
        if kind != "jitted":
            assert len(COMPILES) == before, "captured arrays are no part of the program"
            assert np.any(np.asarray(make(2.0, first).params["w"]) != w), f"{kind}: another number, another program"


def test_an_init_is_not_kept_when_nobody_has_the_task():
    rows = jnp.zeros(4)
    made = lambda key: {"w": rows + 0, "b": jnp.zeros(())}
    kept = weakref.ref(made)
    jo.init_state(jo.Task(made, loss), jo.adam(0.1))
    del made
    gc.collect()
    assert kept() is None


def test_a_task_made_anew_sees_a_changed_global(monkeypatch):
    def init(key):
        return {"w": jnp.full(4, START), "b": jnp.zeros(())}

    assert jo.init_state(jo.Task(init, loss), jo.sgd(0.1)).params["w"][0] == 1
    monkeypatch.setitem(globals(), "START", 2.0)
    assert jo.init_state(jo.Task(init, loss), jo.sgd(0.1)).params["w"][0] == 2


START = 1.0


def test_functions_on_the_host_are_told_apart_within_an_init():
    """Their texts are the same, what they return is not."""
    wanted = jax.ShapeDtypeStruct((4,), jnp.float32)

    def task(value):
        ones = lambda: np.full(4, value, np.float32)
        return jo.Task(lambda key: {"w": jax.pure_callback(ones, wanted), "b": jnp.zeros(())}, loss)

    found = [jo.init_state(task(value), jo.sgd(0.1)).params["w"][0] for value in (1, 2, 1)]
    assert found == [1, 2, 1]


def test_an_init_may_capture_what_is_traced():
    def begun(scale):
        task = jo.Task(lambda key: {"w": scale * jnp.ones(4), "b": jnp.zeros(())}, loss)
        return jo.init_state(task, jo.sgd(0.1)).params["w"].sum()

    assert jax.jit(begun)(2.0) == 8 and jax.grad(begun)(2.0) == 4
    np.testing.assert_array_equal(jax.vmap(begun)(jnp.arange(3.0)), [0, 4, 8])


def test_an_init_is_traced_once_for_a_task():
    counting, traces = counted(init)
    task = jo.Task(counting, loss)
    for rate in (0.1, 0.2):
        jo.init_state(task, jo.adam(rate))
    assert len(traces) == 1
