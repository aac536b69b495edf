"""One step is a pure function of a state that holds everything."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from tests.train.tasks import LINEAR, ON_POLICY, STATEFUL, TRAIN, assert_same, counted, init, loss

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
