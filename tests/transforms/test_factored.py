"""Factored second moments: which axes, what is kept, and that nothing is divided by zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from tests.quick import quick_jit

random = np.random.default_rng(0)
SHAPES = {"tall": (4, 3), "square": (3, 3), "kernel": (3, 2, 4, 4), "wide": (2, 3, 2), "b": (5,), "s": ()}
GRADS = {name: jnp.asarray(random.normal(size=(3, *shape)), jnp.float32) for name, shape in SHAPES.items()}
PARAMS = jax.tree.map(lambda g: jnp.ones(g.shape[1:]), GRADS)


def descend(optimizer, grads=GRADS, params=PARAMS):
    """The updates of three steps, and the last state."""

    def step(state, g):
        updates, state = optimizer.update(g, state, params)
        return state, updates

    return jax.lax.scan(step, optimizer.init(params), grads)[::-1]


def test_axes_and_states_are_those_of_optax():
    """Of leaves of any shape: the two largest axes, of which the row has lost the largest."""
    ours = jo.scale_by_factored_rms(min_dim_size_to_factor=2, epsilon=1e-3)
    theirs = optax.scale_by_factored_rms(min_dim_size_to_factor=2, epsilon=1e-3)
    found, wanted = quick_jit(lambda: (descend(ours), descend(theirs)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), found, wanted)
    state = found[1]
    assert state.v_row["kernel"].shape == (3, 2, 4) and state.v_row["tall"].shape == (3,)
    assert state.v["kernel"].shape == (1,) and state.v["b"].shape == (5,)
    for shape, kept in (((128, 200), 128 + 200 + 1), ((127, 200), 127 * 200 + 2)):
        state = jax.eval_shape(jo.scale_by_factored_rms().init, jnp.zeros(shape))
        assert sum(leaf.size for leaf in jax.tree.leaves(state)) == kept + 1  # the count


def test_in_the_form_of_pytorch_a_leaf_is_a_batch_of_matrices():
    """Each as it would be alone; a matrix of rank one is factored without loss."""
    rule = jo.scale_by_factored_rms(min_dim_size_to_factor=0, epsilon=None, form="torch")
    batch = GRADS["kernel"].transpose(0, 3, 4, 1, 2)  # [3, 4, 4, 3, 2]: the matrices are the smaller axes
    run = quick_jit(lambda g: descend(rule, g, jnp.ones(g.shape[1:]))[0])
    together, alone = run(batch), run(batch[:, 1, 0])
    np.testing.assert_allclose(together[:, 1, 0], alone, rtol=1e-6)
    outer = jnp.outer(jnp.array([1.0, -2.0, 3.0]), jnp.array([0.1, 10.0]))
    np.testing.assert_allclose(run(jnp.stack([outer] * 3)), jnp.sign(jnp.stack([outer] * 3)), rtol=1e-5)


def test_zero_and_tiny_gradients():
    """No 0 / 0 in either form; gradients of 1e-8, whose products of squares are zero in float32, keep their scale."""
    for given in ({"epsilon": 0.0}, {"form": "torch"}, {"form": "torch", "epsilon": 0.0}):
        rule = jo.scale_by_factored_rms(min_dim_size_to_factor=2, **given)
        g = jnp.array([[0.0, 0.0], [3e-11, -3e-11]])
        updates, _ = rule.update(g, rule.init(g), g)
        np.testing.assert_allclose(updates, [[0, 0], [1, -1]], rtol=1e-4)


def test_what_is_refused():
    with pytest.raises(ValueError, match="scale_by_param_block_rms needs params, got None"):
        jo.scale_by_param_block_rms().update(GRADS, optax.EmptyState())
    with pytest.raises(ValueError, match="min_dim_size_to_factor must be an int of at least 0"):
        jo.adafactor(0.1, -1).init(PARAMS)
