"""Does it run at all? For the newest JAX and Python: import, a step of each recipe, each schedule, and their text."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from jaxopt_lite import optimizers

PUBLIC = {name: getattr(jo, name) for name in jo.__all__}
RECIPES = {name: PUBLIC[name] for name in optimizers.__all__}
# Arguments for any schedule; each takes those that it knows.
PHASES = {
    **{"value": 0.1, "init_value": 0.1, "peak_value": 1.0, "end_value": 0.2, "decay_rate": 0.9, "power": 2.0},
    **{"transition_steps": 5, "decay_steps": 5, "up_steps": 2, "warmup_steps": 2, "total_steps": 9},
    **{"interpolate_type": "linear", "boundaries": [2], "schedules": [jo.constant_schedule(0.1)] * 2},
    "cosine_kwargs": [{"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 5}],
}
SCHEDULES = {
    name: factory(**{p: PHASES[p] for p in inspect.signature(factory).parameters if p in PHASES})
    for name, factory in PUBLIC.items()
    if getattr(getattr(factory, "spec", None), "makes", None) is jo.Schedule
}
# What recipes need beside a learning rate: names that say nothing, and a first step that float32 can tell from none.
LABELS = {"labels": {"w": "matrix", "b": "adam"}}
MORE = {"muon": LABELS, "normuon": LABELS, "dog": {"init_step": 0.1}}
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}


def loss(params):
    return jnp.sum((jnp.ones(2) @ params["w"] + params["b"] - 1.0) ** 2)


def test_all_recipes_and_schedules_are_here():
    assert len(RECIPES) >= 21 and len(SCHEDULES) >= 17


@pytest.mark.parametrize("name", RECIPES)
def test_two_compiled_steps_of_each_recipe(name):
    """The first step of some only measures."""

    @jax.jit
    def steps(optimizer, params):
        state = optimizer.init(params)
        for _ in range(2):
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(grads, state, params, value=value)
            params = jo.apply_updates(params, updates)
        return params

    optimizer = RECIPES[name](0.01, **MORE.get(name, {}))
    params = steps(optimizer, PARAMS)
    assert all(jnp.isfinite(p).all() for p in jax.tree.leaves(params))
    assert not np.array_equal(params["w"], PARAMS["w"])
    assert jo.parse(repr(optimizer)) == optimizer == jo.parse(jo.spell(optimizer, defaults=True))


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_schedule(name):
    schedule = SCHEDULES[name]
    values = jax.jit(lambda s: s(jnp.arange(10)))(schedule)
    assert values.shape == (10,) and jnp.isfinite(values).all()
    assert jo.parse(repr(schedule)) == schedule


def test_training_goes_down_in_a_scan_over_a_batch_of_optimizers():
    def train(optimizer):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(grads, state, params)
            return (jo.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (PARAMS, optimizer.init(PARAMS)), length=20)[1]

    schedule = jo.warmup_cosine_decay_schedule(0.0, 0.1, warmup_steps=2, decay_steps=20)
    optimizer = jo.chain(jo.clip_by_global_norm(1.0), jo.adamw(schedule))
    batch = jo.replace(optimizer, {"peak_value": jnp.array([0.05, 0.1])})
    axes = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, batch)
    losses = jax.jit(jax.vmap(train, in_axes=(axes,)))(batch)
    assert losses.shape == (2, 20) and (losses[:, -1] < 0.5 * losses[:, 0]).all()
    assert jnp.isfinite(jax.grad(lambda o: train(o)[-1])(optimizer).arguments["transforms"][0].arguments["max_norm"])


def test_optax_takes_ours_and_we_take_optax():
    for optimizer in (optax.chain(jo.adam(0.1)), jo.chain(optax.adam(0.1)), jo.lift(optax.adam)(0.1)):
        updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
        np.testing.assert_allclose(updates["w"], -0.1, 1e-5)
