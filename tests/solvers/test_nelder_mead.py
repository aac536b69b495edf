"""Nelder-Mead: problems with and without bounds, scales, plateaus, and honest endings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.core.method import Objective, default_tol
from jaxopt_lite.solve import begin, run, solution_of
from tests.solvers.problems import TEN, rosenbrock

METHOD = jo.solvers.nelder_mead()


@functools.partial(jax.jit, static_argnums=0)
def boxed(f, start, lower, upper):
    objective = Objective(f, tol=default_tol(start.dtype), lower=lower, upper=upper)
    return solution_of(run(METHOD, objective, begin(METHOD, objective, start), 3000))


@pytest.mark.usefixtures("x64")
def test_classic_problems():
    for f, start, value in (TEN[0], TEN[2], TEN[3], TEN[4], TEN[5], TEN[6], TEN[8], TEN[9]):
        solution = jo.minimize(f, start, method=METHOD, max_steps=2000)
        assert solution.converged and solution.value - value <= 1e-8 * (1 + value), (f.__name__, solution)
        assert solution.evaluations == solution.steps and np.isnan(solution.grad_norm)


@pytest.mark.usefixtures("x64")
def test_bounds_do_not_flatten_the_simplex():
    infinite = np.full(1, np.inf)
    for f, start, lower, upper, wanted in (
        (lambda x: jnp.sum(x**2) - 3, [4.0], [0.0], [4.0], [0.0]),
        (rosenbrock, [-1.2, 1.0], [-100.0, -100.0], [0.5, 100.0], [0.5, 0.25]),
        (lambda x: jnp.sum((x - 1) ** 2), [10.0], -infinite, [0.0], [0.0]),
        (lambda x: jnp.sum(x + 1 / x), [1500.0], [1e-12], infinite, [1.0]),
        (lambda x: jnp.sum((x - 3) ** 2) + x[0] * x[1], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]),
    ):
        solution = boxed(f, *map(np.asarray, (start, lower, upper)))
        assert solution.converged, solution
        np.testing.assert_allclose(solution.params, wanted, atol=1e-5)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_scales_of_the_value_and_of_the_parameters(unit):
    f = lambda x, factor, unit: factor * rosenbrock(x / unit)
    for factor in (1e-8, 1e8):
        for start in ([-1.2, 1.0], [0.0, 0.0]) if unit >= 1 else ([-1.2, 1.0],):
            solution = jo.minimize(f, unit * jnp.array(start), method=METHOD, args=(factor, unit))
            right = np.allclose(solution.params / unit, 1, atol=1e-2)
            assert right if start[0] else (right or not solution.converged), solution


def test_plateaus_offsets_and_other_endings_that_are_no_solutions_say_so():
    bowl = lambda x: jnp.sum((x - 1) ** 2)
    for f, start, status in (
        (lambda x: jnp.sum(x) * 0 + 5, [1.0, 2.0], jo.Status.STALLED),
        (lambda x: bowl(x) + 1e6, [3.0, 2.0], jo.Status.STALLED),
        (lambda x: jnp.sum(jnp.log(x)), [-1.0], jo.Status.NON_FINITE),
        (lambda x: -x[0], [1.0], jo.Status.UNBOUNDED),
        (rosenbrock, [-1.2, 1.0], jo.Status.MAX_STEPS),
    ):
        solution = jo.minimize(f, jnp.array(start), method=METHOD, max_steps=50 if f is rosenbrock else 500)
        assert solution.status == status, solution


def test_values_that_are_not_finite_or_have_kinks_and_saddles():
    ridge = lambda p: p[0] ** 2 - p[1] ** 2 + 0.25 * p[1] ** 4
    for f, start, wanted in (
        (lambda x: jnp.sum(x - 10 * jnp.log(x)), [1e4], [10.0]),
        (lambda x: jnp.sum(jnp.abs(x - 1)), [0.3, -2.0], [1.0, 1.0]),
    ):
        solution = jo.minimize(f, jnp.array(start), method=METHOD)
        assert solution.converged, solution
        np.testing.assert_allclose(solution.params, wanted, 1e-3)
    np.testing.assert_allclose(jo.minimize(ridge, jnp.array([1.0, 0.0]), method=METHOD).value, -1, 1e-4)


def test_the_aux_of_the_best_point_trees_and_batches():
    f = lambda p: ((p["x"] - 3) ** 2 + jnp.sum(jnp.abs(p["z"] - 1j) ** 2), {"seen": p})
    start = {"x": jnp.zeros(()), "z": jnp.ones(1, jnp.complex64)}
    solution = jo.minimize(f, start, method=METHOD, has_aux=True)
    assert solution.converged and jax.tree.all(jax.tree.map(jnp.array_equal, solution.aux["seen"], solution.params))
    starts = jnp.array([[-1.2, 1.0], [2.0, 2.0]])
    batch = jax.jit(jax.vmap(lambda x: jo.minimize(rosenbrock, x, method=METHOD)))(starts)
    assert batch.converged.all() and np.allclose(batch.params, 1, atol=1e-2)


def test_bad_numbers_are_refused():
    with pytest.raises(TypeError, match="adaptive must be True or False"):
        jo.solvers.nelder_mead(adaptive=1)  # pyright: ignore[reportArgumentType]
