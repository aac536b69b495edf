"""BFGS, L-BFGS, conjugate gradients and accelerated descent: classic problems, solving again, scales, and what ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.solvers import accelerated_gradient_descent, bfgs, gradient_descent, lbfgs, nonlinear_cg
from tests.solvers.problems import TEN, beale, logistic, rosenbrock

BETAS = ("pr+", "hs", "fr", "dy", "hager_zhang")


def ellipse(x):
    return 0.5 * jnp.sum(jnp.geomspace(1.0, 1000.0, x.size) * (x - 1) ** 2)


@pytest.mark.usefixtures("x64")
def test_solving_again_from_a_solution_takes_three_evaluations():
    """A solve that begins at a solution looks around once or twice; in float32 at the floor of what it can tell."""
    for dtype in (np.float64, np.float32):
        for f, start, value in TEN:
            first = jo.minimize(f, start.astype(dtype), tol=1e-6)
            again = jo.minimize(f, first.params, tol=1e-6)
            assert first.converged and again.converged, (f.__name__, first, again)
            assert again.evaluations <= 3, (f.__name__, again)
            assert first.value - value <= 1e-5 * (1 + abs(value))


@pytest.mark.usefixtures("x64")
def test_logistic_regression_is_solved_again_and_in_float32():
    pytest.importorskip("sklearn")
    f, start = logistic()
    first = jo.minimize(f, start, tol=1e-6)
    again = jo.minimize(f, first.params, tol=1e-6)
    assert first.converged and again.converged and again.evaluations <= 3, again
    narrow = jo.minimize(f, start.astype(np.float32), tol=1e-6)
    assert narrow.evaluations <= 200 and narrow.value - first.value <= 1e-5, narrow


@pytest.mark.usefixtures("x64")
def test_bfgs_on_classic_problems():
    evaluations = 0
    for f, start, value in TEN:
        solution = jo.minimize(f, start, method=bfgs(), tol=1e-6)
        evaluations += int(solution.evaluations)
        assert solution.converged and solution.value <= value * (1 + 1e-8) + 1e-12, (f.__name__, solution)
    assert evaluations <= 600


def test_a_small_function_is_not_small_everywhere():
    """1e-8 f has gradients of 1e-6 at its start: no reason to end."""
    small = lambda x: 1e-8 * rosenbrock(x)
    for start in ([-1.2, 1.0], [-0.5, 0.25], [0.0, 0.0]):
        solution = jo.minimize(small, jnp.array(start))
        assert not solution.converged or float(jnp.max(jnp.abs(solution.params - 1))) < 0.05, (start, solution)
        assert solution.evaluations > 3


def test_a_slope_without_end_is_no_solution():
    for f, start in ((lambda x: -jnp.sum(x), [0.0]), (lambda x: -1e-9 * jnp.sum(x), [0.0]), (lambda x: -x[0], [100.0])):
        solution = jo.minimize(f, jnp.array(start), max_steps=100)
        assert not solution.converged, solution


@pytest.mark.usefixtures("x64")
def test_a_valley_without_end_and_the_edge_of_a_domain():
    """SciPy's L-BFGS-B takes 259 evaluations down Beale's valley, where the gradient falls below any tolerance."""
    valley = jo.minimize(beale, jnp.array([-0.27768017, 1.63041149]), tol=1e-6)
    assert valley.converged and valley.evaluations <= 300, valley
    edge = jo.minimize(lambda x: jnp.sum(jnp.sqrt(x) + x), jnp.array([0.3, 2.0]))
    assert edge.status == jo.Status.STALLED and edge.evaluations <= 150, edge


def test_minus_infinity_is_unbounded():
    fall = lambda x: jnp.where(x[0] > 3, -jnp.inf, -x[0])
    for start in (0.0, 4.0):
        solution = jo.minimize(fall, jnp.array([start]))
        assert solution.status == jo.Status.UNBOUNDED and not solution.converged


@pytest.mark.parametrize("beta", BETAS)
def test_conjugate_gradients_reach_the_minimum(beta):
    """An ellipse of 20 axes, of condition 1000, in float32."""
    method = nonlinear_cg(beta=beta)
    solution = jo.minimize(ellipse, jnp.zeros(20), method=method)
    assert solution.converged and solution.evaluations <= 700, solution
    np.testing.assert_allclose(solution.params, 1, atol=1e-3)
    curved = jo.minimize(rosenbrock, jnp.array([-1.2, 1.0]), method=method, max_steps=2000)
    assert curved.value < 1e-3, curved


def test_acceleration_pays_on_an_ellipse():
    fast = jo.minimize(ellipse, jnp.zeros(20), method=accelerated_gradient_descent())
    assert fast.converged and fast.evaluations < 500, fast
    np.testing.assert_allclose(fast.params, 1, atol=1e-3)
    again = jo.minimize(ellipse, fast.params, method=accelerated_gradient_descent())
    assert again.converged and again.evaluations <= 3, again


@pytest.mark.parametrize("method", [bfgs(), nonlinear_cg(), accelerated_gradient_descent(), gradient_descent()])
def test_any_tree_complex_and_mixed_under_x64_too(method):
    def f(p):
        return jnp.sum((p["a"] - 1) ** 2) + 2 * jnp.sum((p["b"] - 2) ** 2) + jnp.abs(p["c"] - (1 + 2j)) ** 2

    with jax.enable_x64(True):
        start = {
            "a": jnp.zeros((2, 3), jnp.float32),
            "b": jnp.zeros(4, jnp.float64),
            "c": jnp.zeros((), jnp.complex64),
        }
        solution = jo.minimize(f, start, method=method, tol=1e-5)
        assert solution.converged, solution
        assert [x.dtype for x in jax.tree.leaves(solution.params)] == [jnp.float32, jnp.float64, jnp.complex64]
        np.testing.assert_allclose(solution.params["c"], 1 + 2j, atol=1e-3)
        np.testing.assert_allclose(solution.params["b"], 2, atol=1e-3)


def test_bad_numbers_are_refused():
    for make, words in (
        (lambda: bfgs(c1=0.9, c2=0.1), "bfgs: c1 must be less than c2"),
        (lambda: nonlinear_cg(beta="xy"), "nonlinear_cg: beta must be one of"),
        (lambda: accelerated_gradient_descent(tries=0), "tries must be an int of at least 1"),
        (lambda: lbfgs(tries=0), "tries must be an int of at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
