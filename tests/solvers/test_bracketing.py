"""Bisection and Brent's method: ends, jumps, batches, precision, and the evaluations of SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxopt_lite as jo
from jaxopt_lite import Status
from jaxopt_lite.solvers import bisection, brent
from tests.solvers.solving import solve

BOTH = (brent(), bisection())


def line(x, root, sign):
    return sign * (x - root)


def cubic(x, factor):
    return factor * x**3 - x - 2


def bracketed(f, method, low, high, args=(), dtype=jnp.float32, tol=0.0):
    low, high, args = (jax.tree.map(lambda v: jnp.asarray(v, dtype), v) for v in (low, high, args))
    return solve(f, method, low, jnp.asarray(tol, dtype), low, high, args)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_an_end_that_is_a_root_is_found(dtype):
    for method in BOTH:
        for root, evaluations in ((0.0, 1), (1.0, 2)):
            for sign in (1.0, -1.0):
                solution = bracketed(line, method, 0.0, 1.0, (root, sign), dtype)
                assert solution.converged and solution.evaluations == evaluations
                assert solution.params == root and solution.params.dtype == dtype and solution.value == 0
        middle = bracketed(line, method, 0.0, 1.0, (0.5, 1.0), dtype)
        assert middle.converged and middle.params == 0.5 and middle.evaluations == 3
        backwards = bracketed(line, method, 1.0, 0.0, (0.3, 1.0), dtype)
        assert backwards.converged and abs(backwards.params - 0.3) < 1e-7


def test_no_change_of_sign_is_a_status_and_so_is_nan():
    for method in BOTH:
        none = bracketed(line, method, 0.0, 2.0, (5.0, 1.0))
        assert none.status == Status.NO_BRACKET and none.evaluations == 2 and none.params == 2
        nan = bracketed(lambda x: jnp.sqrt(x - 0.5), method, 0.0, 2.0)
        assert nan.status == Status.NON_FINITE
        hole = bracketed(lambda x: jnp.where(jnp.abs(x) < 0.5, jnp.nan, x), method, -1.0, 1.2)
        assert hole.status == Status.NON_FINITE and jnp.isfinite(hole.params)


def test_each_lane_of_a_batch_has_its_own_bracket_and_status():
    batch = jax.vmap(lambda factor: solve(cubic, brent(), 1.5, 0.0, 1.0, 2.0, (factor,)))(jnp.array([2.0, 4.0, 6.0]))
    assert batch.converged.tolist() == [True, False, False]
    assert batch.status.tolist()[1:] == [Status.NO_BRACKET] * 2
    np.testing.assert_allclose(batch.params[0], 1.1653730430624147, 1e-6)
    ends = jax.vmap(lambda high: solve(line, brent(), 0.0, 0.0, 0.0, high, (0.7, 1.0)))(jnp.array([0.5, 1.0, 2.0]))
    assert ends.converged.tolist() == [False, True, True]


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
    for f, low, high in functions:
        peer = scipy.optimize.brentq(lambda x, f=f: float(f(x)), low, high, xtol=1e-300, rtol=1e-15, full_output=True)[
            1
        ]
        solution = bracketed(f, brent(), low, high, dtype=jnp.float64)
        assert solution.converged and abs(solution.evaluations - peer.function_calls) <= 1
        np.testing.assert_allclose(solution.params, peer.root, 4e-16, 1e-16)
        half = bracketed(f, bisection(), low, high, dtype=jnp.float64)
        np.testing.assert_allclose(half.params, peer.root, 1e-15, 1e-16)


@pytest.mark.usefixtures("x64")
def test_a_jump_and_a_pole_are_no_roots():
    for method in BOTH:
        for f in (
            lambda x: jnp.where(x < 0.3, -1.0, 1.0),
            lambda x: 1 / (x - 0.3),
            lambda x: jnp.sign(x - 0.3) + 10 * x - 3,
        ):
            solution = bracketed(f, method, 0.0, 1.0, dtype=jnp.float64)
            assert solution.status == Status.STALLED
            np.testing.assert_allclose(solution.params, 0.3, 1e-14)
        steep = bracketed(lambda x: jnp.cbrt(x - 0.1), method, -1.0, 1.0, dtype=jnp.float64)
        assert steep.converged and abs(steep.params - 0.1) < 1e-15


def test_roots_of_any_scale_and_the_tolerance():
    for root, low, high in ((1e-8, 0.0, 1.0), (2e8, 0.0, 1e9), (1.0, -1e6, 1e7)):
        for method in BOTH:
            solution = bracketed(line, method, low, high, (root, 1e-20))
            assert solution.converged
            np.testing.assert_allclose(solution.params, root, 1e-6)
    loose = bracketed(cubic, bisection(), 1.0, 2.0, (2.0,), tol=1e-3)
    assert loose.converged and loose.evaluations < 15
    np.testing.assert_allclose(loose.params, 1.1653730430624147, 1e-3)


def test_aux_and_trees():
    f = lambda p: ({"r": p["x"] ** 2 - 2}, {"seen": p["x"]})
    ends = ({"x": jnp.zeros(1)}, {"x": jnp.full(1, 2.0)})
    solution = solve(f, brent(), {"x": jnp.ones(1)}, 0.0, *ends, has_aux=True)
    assert solution.converged and solution.aux[1]["seen"] == solution.params["x"]
    np.testing.assert_allclose(solution.params["x"], 2**0.5, 1e-6)


def test_wrong_problems_are_refused_in_words():
    with pytest.raises(ValueError, match="brent: one real equation in one real unknown is needed, got 2 in 2"):
        solve(lambda x: x, brent(), jnp.ones(2), 0.0, jnp.zeros(2), jnp.ones(2))
    with pytest.raises(ValueError, match="bisection: both ends of the bracket are needed"):
        solve(lambda x: x, bisection(), jnp.ones(()))
    assert jo.solvers.brent().solves == "bracket"
