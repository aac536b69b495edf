"""Differential evolution: its partners, what its strategies find, and how it ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.search.differential_evolution import STRATEGIES, _partners
from tests.quick import quick_jit
from tests.solvers.families import one_of

inside = lambda x: jnp.all(jnp.abs(x) <= 5)
FUNCTIONS = (  # of 2 numbers in [-5, 5], the least value, and the status
    (lambda x: jnp.sum((x - 1) ** 2) - 7, -7, jo.Status.CONVERGED_VALUE),
    (lambda x: jnp.sum((x - 1) ** 2 - 10 * jnp.cos(2 * jnp.pi * (x - 1))) + 20, 0, jo.Status.CONVERGED_VALUE),
    (lambda x: jnp.where(inside(x), jnp.sum(x) + 10, -1e9), 0, jo.Status.CONVERGED_VALUE),  # at a corner
    (lambda x: jnp.where(x[0] < 0, jnp.nan, jnp.sum(jnp.abs(x - 1))), 0, jo.Status.CONVERGED_VALUE),
    (lambda x: jnp.sum(x) * 0 + 3, 3, jo.Status.STALLED),
    (lambda x: jnp.sum(x) * jnp.nan, np.inf, jo.Status.MAX_STEPS),  # it may be finite elsewhere
    (lambda x: jnp.where(x[0] > 3, -jnp.inf, x[1]), -np.inf, jo.Status.UNBOUNDED),
)


def test_partners_are_three_others():
    partners = jnp.stack(
        quick_jit(jax.vmap(lambda key: jnp.stack(_partners(key, 5))))(jax.random.split(jax.random.key(0), 300))
    )
    with_own = np.concatenate([partners, np.broadcast_to(np.arange(5), (300, 1, 5))], axis=1)
    assert all(len(set(column)) == 4 for lane in with_own for column in lane.T)
    counts = np.array([np.bincount(np.asarray(partners[:, i, 2]), minlength=5) for i in range(3)])
    assert (counts[:, 2] == 0).all() and counts[:, [0, 1, 3, 4]].min() > 45  # 75 each


def solve(minimize, i, seed):
    return minimize(args=(i,), key=jax.random.key(seed))


def test_minima_and_endings():
    """In float32, from a start at which the function may be NaN, for three keys each."""
    f = one_of(*(row[0] for row in FUNCTIONS))
    lanes = jnp.repeat(jnp.arange(len(FUNCTIONS)), 3), jnp.tile(jnp.arange(3), len(FUNCTIONS))
    wanted, statuses = (np.repeat([row[k] for row in FUNCTIONS], 3) for k in (1, 2))
    method = jo.search.differential_evolution(population=24)
    minimize = functools.partial(jo.minimize, f, jnp.full(2, -3.0), method, bounds=(-5.0, 5.0), max_steps=400)
    solution = quick_jit(jax.vmap(functools.partial(solve, minimize)))(*lanes)
    assert (solution.status == statuses).all(), solution.status
    np.testing.assert_allclose(solution.value, wanted, atol=1e-3)
    assert (solution.evaluations == 24 * solution.steps).all()


def test_strategies():
    f, steps = lambda x: jnp.sum((x - 1) ** 2), []
    for strategy in STRATEGIES:
        method = jo.search.differential_evolution(population=24, strategy=strategy)
        solution = jo.minimize(f, jnp.full(2, -3.0), method, bounds=(-5.0, 5.0), key=jax.random.key(0))
        assert solution.converged and solution.value < 1e-4, (strategy, solution)
        steps.append(int(solution.steps))
    assert steps[0] > max(steps[1:]) and len(set(steps)) == 3, steps  # rand1 is the slowest


def test_a_tree_one_dimension_and_arguments():
    f = lambda p: (p["x"][0, 0] - 0.5) ** 2 + (p["y"] - 2.0) ** 2
    start = {"x": np.zeros((1, 1)), "y": np.float16(2)}
    bounds = {"x": np.full((1, 1), -1.0), "y": 2.0}, {"x": np.full((1, 1), 1.0), "y": 2.0}
    solve = lambda seed: jo.minimize(
        f, start, jo.search.differential_evolution(), bounds=bounds, key=jax.random.key(seed)
    )
    first, second, other = solve(0), solve(0), solve(1)
    assert first.converged and abs(first.params["x"][0, 0] - 0.5) < 1e-3 and first.params["y"] == 2
    assert first.params["x"] == second.params["x"] != other.params["x"]
    for arguments, words in (
        (dict(population=3), "population must be an int of at least 4, got 3"),
        (dict(strategy="rand2"), "strategy must be 'rand1', 'best1' or 'current_to_best1', got 'rand2'"),
        (dict(crossover=1.5), r"crossover must be in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=words):
            jo.search.differential_evolution(**arguments)
