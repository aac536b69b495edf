"""Bisection and Brent's method: ends, jumps, batches, precision, and the evaluations of SciPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxopt_lite as jo
from jaxopt_lite import Status
from jaxopt_lite.solvers import bisection, brent
from tests.quick import quick_jit
from tests.solvers.families import one_of

BOTH = (brent(), bisection())


def line(x, root, sign):
    return sign * (x - root)


def cubic(x, factor):
    return factor * x**3 - x - 2


def bracketed(f, method, low, high, args=(), dtype: Any = np.float32, **more):
    """All brackets at once: low, high and args are broadcast against each other."""
    arrays = np.broadcast_arrays(low, high, *args)
    low, high, *args = (np.atleast_1d(a).astype(dtype if a.dtype.kind == "f" else a.dtype) for a in arrays)
    solve = lambda low, high, *args: jo.root(f, None, method, args, (low, high), **more)
    return quick_jit(jax.vmap(solve))(low, high, *args)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_end_that_is_a_root_is_found(dtype):
    roots, high = np.array([0.0, 1.0, 0.5, 0.3]), np.array([1.0, 1.0, 1.0, 0.0])
    for method in BOTH:
        for sign in (1.0, -1.0):
            solution = bracketed(line, method, 1 - high, high, (roots, sign), dtype)
            assert solution.converged.all() and solution.params.dtype == dtype
            assert solution.evaluations[:3].tolist() == [1, 2, 3]
            assert solution.params[:3].tolist() == [0, 1, 0.5] and abs(solution.params[3] - 0.3) < 1e-7


def test_no_change_of_sign_is_a_status_of_each_lane_and_so_is_nan():
    hole = lambda x: jnp.where(jnp.abs(x) < 0.5, jnp.nan, x)
    f = one_of(lambda x: x - 5, lambda x: jnp.sqrt(x - 0.5), hole, lambda x: x - 1.1)
    for method in BOTH:
        solution = bracketed(
            f, method, np.array([0.0, 0.0, -1.0, 0.0]), np.array([2.0, 2.0, 1.2, 2.0]), (np.arange(4),)
        )
        wanted = [Status.NO_BRACKET, Status.NON_FINITE, Status.NON_FINITE]
        assert solution.status[:3].tolist() == wanted and solution.converged[3]
        assert solution.evaluations[0] == 2 and solution.params[0] == 2 and np.isfinite(solution.params[2])


@pytest.mark.usefixtures("x64")
def test_as_many_evaluations_as_scipys_brentq():
    functions = [
        (lambda x: x**3 - 2 * x - 5, 2.0, 3.0),
        (lambda x: jnp.cos(x) - x, 0.0, 1.0),
        (lambda x: jnp.exp(x) - 1, -5.0, 30.0),
        (lambda x: jnp.sin(x) - x / 2, 1.5, 2.0),
        (lambda x: x * jnp.exp(-x * x), -3.0, 4.0),
        (lambda x: jnp.log(x), 1e-3, 1e8),
    ]
    f, lows, highs = one_of(*(row[0] for row in functions)), *np.array([row[1:] for row in functions]).T
    by_brent, by_half = (bracketed(f, method, lows, highs, (np.arange(6),), np.float64) for method in BOTH)
    for i, (g, low, high) in enumerate(functions):
        options: Any = dict(xtol=1e-300, rtol=1e-15, full_output=True)
        peer = scipy.optimize.brentq(lambda x, g=g: float(g(x)), low, high, **options)[1]
        assert by_brent.converged[i] and abs(by_brent.evaluations[i] - peer.function_calls) <= 1
        np.testing.assert_allclose(by_brent.params[i], peer.root, 4e-16, 1e-16)
        np.testing.assert_allclose(by_half.params[i], peer.root, 1e-15, 1e-16)


@pytest.mark.usefixtures("x64")
def test_a_jump_and_a_pole_are_no_roots():
    jump, pole = lambda x: jnp.where(x < 0.3, -1.0, 1.0), lambda x: 1 / (x - 0.3)
    f = one_of(jump, pole, lambda x: jnp.sign(x - 0.3) + 10 * x - 3, lambda x: jnp.cbrt(x - 0.1))
    for method in BOTH:
        solution = bracketed(f, method, np.array([0.0, 0.0, 0.0, -1.0]), 1.0, (np.arange(4),), np.float64)
        assert solution.status[:3].tolist() == [Status.STALLED] * 3 and solution.converged[3]
        np.testing.assert_allclose(solution.params, [0.3, 0.3, 0.3, 0.1], 1e-14)


def test_roots_of_any_scale_and_the_tolerance():
    roots, low, high = np.array([(1e-8, 0.0, 1.0), (2e8, 0.0, 1e9), (1.0, -1e6, 1e7)]).T
    for method in BOTH:
        solution = bracketed(line, method, low, high, (roots, 1e-20))
        assert solution.converged.all()
        np.testing.assert_allclose(solution.params, roots, 1e-6)
    loose = jo.root(cubic, None, bisection(), (2.0,), (1.0, 2.0), tol=1e-3)
    assert loose.converged and loose.evaluations < 15
    np.testing.assert_allclose(loose.params, 1.1653730430624147, 1e-3)


def test_aux_trees_and_derivatives():
    f = lambda p, a: ({"r": p["x"] ** 2 - a}, {"seen": p["x"]})
    solve = lambda a: jo.root(f, {"x": jnp.ones(1)}, args=(a,), bracket=(0.0, 2.0), has_aux=True)
    solution, slope = quick_jit(jax.value_and_grad(lambda a: solve(a).params["x"][0]))(2.0)
    np.testing.assert_allclose((solution, slope), (2**0.5, 0.5 / 2**0.5), 1e-6)
    solution = solve(2.0)
    assert solution.converged and solution.aux["seen"] == solution.params["x"]


def test_wrong_problems_are_refused_in_words():
    with pytest.raises(ValueError, match="brent: one real equation in one real unknown is needed, got 2 in 2"):
        brent().init(jo.Objective(residual=lambda x: x), jnp.ones(2))
    with pytest.raises(ValueError, match="bisection: both ends of the bracket are needed"):
        bisection().init(jo.Objective(residual=lambda x: x), jnp.ones(()))
    with pytest.raises(ValueError, match="a bracket is for one real unknown"):
        jo.root(lambda x: x, jnp.ones(2), bracket=(0.0, 1.0))
    with pytest.raises(ValueError, match="root: needs one equation in one unknown, got 2 equations and 1 unknowns"):
        jo.root(lambda x: jnp.stack([x, x]), bracket=(0.0, 1.0))
    assert jo.solvers.brent().solves == "bracket"
