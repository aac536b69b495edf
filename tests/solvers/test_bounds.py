"""L-BFGS within bounds: active bounds are met exactly, and f is never asked outside of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.core.method import Status
from jaxopt_lite.solvers import lbfgsb
from tests.quick import quick_jit
from tests.solvers.problems import BOXED, rosenbrock

INF = np.inf


def solve(f, start, lower, upper, tol):
    return jo.minimize(f, start, lbfgsb(), bounds=(lower, upper), tol=tol)


def fenced(f):
    """f that is NaN outside of x >= 0."""
    return lambda x: jnp.where(jnp.all(x >= 0), f(x), jnp.nan)


@pytest.mark.usefixtures("x64")
def test_boxed_problems():
    total = 0
    for i, (f, start, lower, upper, value, limit) in enumerate(BOXED):
        low, high = np.array(lower, float), np.array(upper, float)
        solution = solve(f, jnp.array(start), low, high, 1e-6)
        assert solution.converged and abs(solution.value - value) <= 1e-8 * (1 + abs(value)), (i, solution)
        assert np.all((low <= solution.params) & (solution.params <= high)) and solution.evaluations <= limit, i
        assert solve(f, solution.params, low, high, 1e-6).evaluations <= 3
        total += int(solution.evaluations)
    assert total <= 258
    assert (
        solve(*BOXED[0][:1], jnp.array([-1.2, 1.0]), *map(np.array, ([-100.0, -100], [0.5, 100])), 1e-6).params[0]
        == 0.5
    )


def test_float32_under_both_settings():
    for x64 in (False, True):
        with jax.enable_x64(x64):
            start, low, high = (jnp.array(v, jnp.float32) for v in ([-1.2, 1.0], [-100, -100], [0.5, 100]))
            solution = solve(rosenbrock, start, low, high, 1e-5)
            assert solution.converged and solution.params.dtype == jnp.float32 and solution.params[0] == 0.5


def test_f_is_never_evaluated_outside():
    solution = solve(
        fenced(lambda x: jnp.sum((x - jnp.array([2.0, -3.0, 0.5])) ** 2)), jnp.full(3, -1.0), jnp.zeros(3), None, 1e-5
    )
    assert solution.converged, solution
    np.testing.assert_allclose(solution.params, [2, 0, 0.5], atol=1e-4)
    assert solution.params[1] == 0


def test_equal_bounds_hold_and_no_bounds_are_none():
    lower, upper = jnp.array([-5.0, 1.3, -5, -5]), jnp.array([5.0, 1.3, 5, 5])
    solution = solve(rosenbrock, jnp.zeros(4), lower, upper, 1e-5)
    assert solution.converged and solution.params[1] == lower[1]
    free = solve(rosenbrock, jnp.array([-1.2, 1.0]), None, None, 1e-5)
    assert free.converged
    np.testing.assert_allclose(free.params, 1, atol=1e-3)


def test_bounds_of_trees_and_batches():
    f = lambda p: jnp.sum((p["a"] - 2) ** 2) + jnp.sum((p["b"] + 1) ** 2)
    start, low = {"a": jnp.zeros(2), "b": jnp.ones(())}, {"a": jnp.full(2, -1.0), "b": jnp.zeros(())}
    tops = jnp.array([0.5, 1.5, 3.0])

    def ends(top):
        return solve(f, start, low, {"a": jnp.full(2, 1.0) * top, "b": jnp.ones(()) * 9}, 1e-5)

    batch = jax.vmap(ends)(tops)
    assert batch.converged.all() and (batch.params["b"] == 0).all()
    np.testing.assert_allclose(batch.params["a"][:, 0], [0.5, 1.5, 2.0], atol=1e-4)


def test_complex_parameters_have_no_bounds():
    with pytest.raises(ValueError, match="complex, which has no bounds"):
        solve(lambda z: jnp.sum(jnp.abs(z)), jnp.ones(2, jnp.complex64), jnp.zeros(2), None, 1e-5)


def test_a_start_that_is_not_finite_says_so():
    solution = solve(lambda x: jnp.sum(jnp.log(x)), jnp.array([1.0]), jnp.array([-1.0]), jnp.array([-0.5]), 1e-5)
    assert solution.status == Status.NON_FINITE


def test_bounds_of_jax_arrays_under_jit():
    bounds = (jnp.zeros(2), jnp.ones(2))
    nearest = quick_jit(lambda c: jo.minimize(lambda x: jnp.sum((x - c) ** 2), jnp.full(2, 0.5), bounds=bounds).params)
    np.testing.assert_allclose(nearest(jnp.array([0.3, 2.0])), [0.3, 1.0], rtol=1e-4)
