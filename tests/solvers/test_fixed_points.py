"""Damped iteration and Anderson's acceleration: honest endings, safeguards, precision, trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite import Status
from jaxopt_lite.solvers import anderson, fixed_point_iteration
from tests.quick import quick_jit
from tests.solvers.families import one_of, solve_all

BOTH = (fixed_point_iteration(), anderson())
rotation = np.array([[0.0, -1.0], [1.0, 0.0]])


def affine(x, A, b):
    return A @ x + b


def crowd(p):
    """Eight agents, each the less willing the more the others are, with a steep response."""
    own = jnp.linspace(-0.9, 0.9, 8).astype(p.dtype)
    return jax.nn.sigmoid((own - 16 * (jnp.sum(p) - p) / 7) / 0.1)


def spread(eigenvalues, dtype):
    """A symmetric matrix with these eigenvalues, a right side, and the fixed point."""
    rng = np.random.default_rng(0)
    n = len(eigenvalues)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    A, b = Q @ np.diag(eigenvalues) @ Q.T, rng.normal(size=n)
    return (jnp.asarray(A, dtype), jnp.asarray(b, dtype)), np.linalg.solve(np.eye(n) - A, b)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fixed_points_and_solving_again(dtype):
    tol = 5e-5 if dtype == np.float32 else 1e-9
    maps = [
        (jnp.cos, 1.0, 0.7390851332151607),
        (lambda x: (x + 2 / x) / 2, 1.0, 2**0.5),
        (lambda x: 1e-8 * jnp.cos(x * 1e8), 1e-8, 0.7390851332151607e-8),
        (lambda x: 3.7 * x * (1 - x), 0.3, 1 - 1 / 3.7),  # chaotic without a safeguard
        (lambda x: x / 2, 1.0, 0.0),
        (lambda x: 0.9 * jnp.sin(x), 1.0, 0.0),
    ]
    g, starts = one_of(*(row[0] for row in maps)), np.array([[row[1]] for row in maps], dtype)
    for method in BOTH:
        for (_, _, answer), (solution, again) in zip(maps, solve_all(jo.fixed_point, g, starts, method), strict=True):
            assert solution.converged and solution.params.dtype == dtype, (method, answer, solution)
            np.testing.assert_allclose(solution.params, answer, tol, 1e-16)
            assert again.converged and again.evaluations <= 3, (method, answer, again)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_steep_crowd(dtype):
    """The plain iteration jumps between two points for ever."""
    for method in BOTH:
        solution = jo.fixed_point(crowd, np.full(8, 0.5, dtype), method)
        assert solution.converged
        np.testing.assert_allclose(crowd(solution.params), solution.params, 1e-3, 1e-4)


@pytest.mark.usefixtures("x64")
def test_linear_maps_anderson_needs_fewer_evaluations():
    for eigenvalues, most in (
        (np.linspace(0, 0.9, 20), 60),
        (np.linspace(-3, 0.5, 20), 80),
        (np.linspace(0, 0.999, 20), 400),
    ):
        args, answer = spread(eigenvalues, np.float64)
        solution = jo.fixed_point(affine, np.zeros(20), args=args)
        assert solution.converged and solution.evaluations <= most
        np.testing.assert_allclose(solution.params, answer, 1e-7, 1e-8)
    expansive = (1.2 * rotation, np.ones(2))
    for method in (*BOTH, jo.solvers.newton()):
        solution = jo.fixed_point(affine, np.zeros(2), method, expansive)
        assert solution.converged
        np.testing.assert_allclose(solution.params, np.linalg.solve(np.eye(2) - expansive[0], np.ones(2)), 1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_slow_iterations_and_maps_without_a_fixed_point_are_not_converged(dtype):
    g = one_of(
        *(lambda x: x + 1, lambda x: x + jnp.exp(-x), lambda x: x**2 + 1),
        *(lambda x: 2 * x + 1, lambda x: 0.999 * x + 0.002),
    )
    starts = np.array([[1.0], [1.0], [1.0], [1.0], [0.0]], dtype)
    for method in BOTH:
        solutions = [first for first, _ in solve_all(jo.fixed_point, g, starts, method)]
        assert not any(solution.converged for solution in solutions[:3])
        if method is BOTH[0]:
            assert not solutions[3].converged and solutions[3].params == 1  # the best point
            assert solutions[4].status == Status.MAX_STEPS
        else:
            np.testing.assert_allclose(solutions[3].params, -1, 1e-6)


def test_what_is_not_finite():
    g = one_of(jnp.log, lambda x: jnp.sqrt(1 - x), lambda x: jnp.where(x == 1, 2, jnp.nan))
    for method in BOTH:
        first, back, last = (s for s, _ in solve_all(jo.fixed_point, g, np.array([[-1], [0], [1]], np.float32), method))
        assert first.status == last.status == Status.NON_FINITE and back.converged
        np.testing.assert_allclose(back.params, (5**0.5 - 1) / 2, 1e-4)


def test_trees_complex_leaves_and_a_start_that_is_one():
    g = lambda p: {"a": jnp.cos(p["a"]), "z": 0.5j * p["z"] + 1}
    start = {"a": jnp.ones(3), "z": jnp.zeros((), jnp.complex64)}
    trivial = one_of(lambda x: x, lambda x: x * 0.5)
    for method in BOTH:
        solution = jo.fixed_point(g, start, method)
        assert solution.converged and solution.params["z"].dtype == jnp.complex64
        np.testing.assert_allclose(solution.params["z"], 1 / (1 - 0.5j), 1e-4)
        pairs = solve_all(jo.fixed_point, trivial, np.array([[1, 1], [0, 0]], np.float32), method)
        assert all(solution.converged and solution.evaluations == 1 for solution, _ in pairs)


def test_a_batch_and_a_sweep_over_beta():
    one = lambda start, beta: jo.fixed_point(jnp.cos, start, fixed_point_iteration(beta))
    batch = quick_jit(jax.vmap(one))(jnp.array([[0.1], [1.0], [2.0]]), jnp.array([0.5, 0.8, 1.0]))
    assert batch.converged.all() and len(set(np.asarray(batch.evaluations).tolist())) == 3
    np.testing.assert_allclose(batch.params, 0.739085, 1e-4)


def test_wrong_problems_are_refused_in_words():
    with pytest.raises(ValueError, match="anderson: history must be an int of at least 1"):
        anderson(history=0)
    with pytest.raises(ValueError, match="anderson: g must return as many numbers as it takes, got 2 from 3"):
        anderson().init(jo.Objective(residual=lambda x: x[:2]), jnp.ones(3))
    with pytest.raises(ValueError, match="fixed_point: g must return a tree like params"):
        jo.fixed_point(lambda x: x[:2], jnp.ones(3))
    with pytest.raises(ValueError, match="has a complex leaf for a real one"):
        jo.fixed_point(lambda x: 0.5j * x + 1, 1.0)
