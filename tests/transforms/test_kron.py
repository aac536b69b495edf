"""PSGD Kron: what it learns, when it learns, and that its numbers are those of the stored trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.transforms.kron import drawn
from tests.parity import make_goldens, problem
from tests.quick import quick_jit


def path(rule, grads):
    """All updates of a run, and all states."""

    def step(state, g):
        updates, state = rule.update(g, state)
        return state, (updates, state)

    return jax.lax.scan(step, rule.init(jax.tree.map(lambda g: g[0], grads)), grads)[1]


def test_the_draws_of_the_goldens_are_ours(x64):
    """Where they differ, JAX draws other numbers: store them anew, and then the goldens of psgd_kron."""

    def draws(t):
        return {name: drawn(jax.random.fold_in(jax.random.key(0), t), start) for name, start in problem.START.items()}

    ours = quick_jit(jax.vmap(draws))(jnp.arange(problem.STEPS))
    np.testing.assert_allclose(problem.flat(ours), np.load(make_goldens.FILE)["draws"], atol=1e-12)


def test_it_learns_the_inverse_roots_of_the_second_moments():
    """Of gradients whose rows and columns are of very different sizes it makes updates of one size."""
    rows, columns = np.array([10.0, 1.0, 0.1]), np.array([[3.0, 1.0], [0.0, 0.3]])
    normal = np.random.default_rng(0).normal(size=(1500, 3, 2))
    grads = {"w": rows[:, None] * normal @ columns, "b": rows * normal[..., 0]}
    grads = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grads)
    rule = jo.scale_by_kron(0.0, 1.0, max_rms=None)
    updates = quick_jit(lambda grads: path(rule, grads)[0])(grads)
    last = np.asarray(updates["w"][1000:]).reshape(500, 6)
    np.testing.assert_allclose(np.diag(last.T @ last / 500), 1.0, rtol=0.35)
    correlation = np.corrcoef(last.T) - np.eye(6)
    assert np.abs(correlation).max() < 0.25 < np.abs(np.corrcoef(np.asarray(grads["w"])[:, 0].T)[0, 1])
    np.testing.assert_allclose(np.mean(np.square(updates["b"][1000:]), axis=0), 1.0, rtol=0.35)


def test_when_it_learns_and_how_far_a_step_goes():
    """Of lanes with other schedules each learns in its own steps, and learning stays a branch."""
    grads = {"w": 5 * jax.random.normal(jax.random.key(2), (6, 4, 2)), "b": jnp.full((6, 3), 7.0)}
    run = lambda often, bound: path(jo.scale_by_kron(0.5, often, max_rms=bound), grads)
    often = jnp.array([1.0, 0.5, 0.3, 0.0])
    updates, states = quick_jit(jax.vmap(run))(often, jnp.full(4, 0.2))
    changed = np.any(np.diff(np.asarray(states.factors["w"].left), axis=1), axis=(-2, -1))
    np.testing.assert_array_equal(changed[:3], np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 1, 0, 0]]) == 1)
    np.testing.assert_array_equal(states.waited, [[0] * 6, [1, 0] * 3, [1, 2, 3, 0, 1, 2], range(1, 7)])
    np.testing.assert_array_equal(states.factors["w"].left[3, -1], np.eye(4))
    for u in jax.tree.leaves(updates):
        rms = np.sqrt(np.mean(np.square(u), axis=tuple(range(2, u.ndim))))
        assert rms.max() <= 0.2 * 1.00001 and np.any(rms > 0.199)
    free, _ = quick_jit(run)(0.0, None)
    np.testing.assert_allclose(free["b"], 7.0, rtol=1e-6)  # the identity, without a bound
    assert str(jax.make_jaxpr(jax.vmap(run))(often, jnp.full(4, 0.2))).count("cond[") == 2


def test_which_sides_are_diagonal():
    params = {"tall": jnp.zeros((3, 5, 2)), "square": jnp.zeros((4, 4)), "row": jnp.zeros((1, 4))}
    sides = lambda **given: {
        name: (q.left.ndim - params[name].ndim + 2, q.right.ndim - params[name].ndim + 2)
        for name, q in jo.scale_by_kron(precond_init_scale=4.0, **given).init(params).factors.items()
    }
    assert sides() == {"tall": (2, 2), "square": (2, 2), "row": (1, 2)}
    assert sides(max_size_triangular=4) == {"tall": (1, 2), "square": (2, 2), "row": (1, 2)}
    assert sides(memory_save_mode="one_diag") == {"tall": (1, 2), "square": (2, 1), "row": (1, 1)}
    assert sides(memory_save_mode="smart_one_diag") == {"tall": (1, 2), "square": (2, 2), "row": (1, 1)}
    assert sides(memory_save_mode="all_diag") == {"tall": (1, 1), "square": (1, 1), "row": (1, 1)}
    state = jo.scale_by_kron(precond_init_scale=4.0).init(params)
    np.testing.assert_allclose(state.factors["tall"].left[0], 2 * np.eye(5))
    places = jo.state_layout(jo.scale_by_kron(memory_save_mode="one_diag"), params).factors["tall"]
    assert places.left.axes == (0, 1) and places.right.axes == (0, 2, 2)
    with pytest.raises(ValueError, match="max_size_triangular must be an int of at least 0, got -1"):
        jo.scale_by_kron(max_size_triangular=-1).init(params)
