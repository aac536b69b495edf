"""Through an update: derivatives with respect to hyperparameters, parameters and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.contract.table import GRADS, PARAMS, SCHEDULES, TRANSFORMATIONS, at, plain, scan
from tests.quick import quick_jit


def with_default_numbers(value):
    """The row with the numbers that it has by default, where every ε is tiny; its switches stay."""
    parameters = value.factory.spec.parameters
    numbers = [name for name, given in value.arguments.items() if isinstance(given, float)]
    defaults = {name: parameters[name].default for name in numbers}
    return jo.replace(value, {f"{value.factory.spec.name}.{n}": d for n, d in defaults.items() if isinstance(d, float)})


ROWS = {name: with_default_numbers(row) for name, row in TRANSFORMATIONS.items() if not name.endswith("_key")}


def two_steps(optimizer, params, grads):
    """A number that depends on everything that two steps make, states included."""
    state, total = optimizer.init(params), 0.0
    for t in range(2):
        updates, state = optimizer.update(at(t, grads), state, params)
        params = jo.apply_updates(params, updates)
    for leaf in jax.tree.leaves((params, state)):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            total += jnp.sum(leaf)
    return total


@pytest.mark.parametrize("name", ROWS)
def test_meta_gradients_are_finite_at_zero_gradients(name):
    """A coordinate without gradient is common (a dead unit), and one NaN there spoils the whole meta-gradient."""
    slopes = quick_jit(jax.grad(two_steps, argnums=(0, 1, 2)))
    zeros = jax.tree.map(jnp.zeros_like, GRADS)
    half = jax.tree.map(lambda g: g.at[1].set(0), GRADS)
    for grads, params in ((zeros, PARAMS), (half, PARAMS), (zeros, jax.tree.map(jnp.zeros_like, PARAMS))):
        for path, slope in jax.tree_util.tree_leaves_with_path(slopes(ROWS[name], params, grads)):
            assert jnp.isfinite(slope).all(), f"{jax.tree_util.keystr(path)}: {slope}"


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_have_finite_slopes_everywhere(name):
    """At every step, before the first and after the last, on the kinks too."""
    steps = jnp.arange(-1.0, 14.0, 0.5)
    slopes = quick_jit(jax.grad(lambda s, t: jnp.sum(s(t)), argnums=(0, 1)))(SCHEDULES[name], steps)
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
        assert jnp.isfinite(slope).all(), f"{jax.tree_util.keystr(path)}: {slope}"


@pytest.mark.usefixtures("x64")
def test_meta_gradients_of_a_run_are_central_differences():
    """The loss after 20 steps of AdamW, by every hyperparameter, step counts too, away from the schedule's kinks."""
    random = np.random.default_rng(0)
    inputs, start = random.normal(size=(16, 3)), random.normal(size=3)
    targets = inputs @ np.array([1.0, -2.0, 0.5]) + 0.3 * random.normal(size=16)

    def loss(params):
        return jnp.mean(jnp.log(jnp.cosh(inputs @ params["w"] + params["b"] - targets)))

    def after_twenty_steps(optimizer):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (jo.apply_updates(params, updates), state), None

        params = {"w": jnp.asarray(start), "b": jnp.zeros(())}
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=20)
        return loss(params)

    schedule = jo.warmup_cosine_decay_schedule(0.01, 0.2, 9.5, 40.5, end_value=0.02, exponent=1.3)
    optimizer = jo.adamw(schedule, 0.8, 0.95, 1e-2, 1e-3, weight_decay=0.1)
    leaves, structure = jax.tree.flatten(optimizer)
    assert len(leaves) == 11

    slopes = jax.tree.leaves(jax.jit(jax.grad(after_twenty_steps))(optimizer))
    leaves = np.array(leaves)
    h = 1e-5 * leaves
    batch = structure.unflatten([*np.concatenate([leaves + np.diag(h), leaves - np.diag(h)]).T])
    losses = np.asarray(jax.jit(jax.vmap(after_twenty_steps))(batch))
    differences = (losses[: len(h)] - losses[len(h) :]) / (2 * h)
    assert np.isfinite(slopes).all() and (np.abs(slopes) > 1e-9).all()
    np.testing.assert_allclose(slopes, differences, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "accumulate", "lookahead", "nested", "partition_by_path"])
def test_meta_gradients_of_a_batch_are_those_of_its_members(name):
    """vmap of grad under jit: hypergradients of a whole population."""
    optimizer = TRANSFORMATIONS[name]

    def end(optimizer):
        return sum(jnp.sum(p) for p in jax.tree.leaves(scan(optimizer)[1]))

    single = quick_jit(jax.grad(end))(optimizer)
    batch = jax.tree.map(lambda x: np.stack([np.float32(x)] * 2), optimizer)
    for leaf, expected in zip(*map(jax.tree.leaves, plain((quick_jit(jax.vmap(jax.grad(end)))(batch), single)))):
        np.testing.assert_allclose(leaf, [expected] * 2, 1e-4, 1e-6)
