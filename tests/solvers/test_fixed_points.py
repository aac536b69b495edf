"""Damped iteration and Anderson's acceleration: honest endings, safeguards, precision, trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lite import Status
from jaxopt_lite.solvers import anderson, fixed_point_iteration
from tests.solvers.solving import displacement, solve

BOTH = (fixed_point_iteration(), anderson())
rotation = np.array([[0.0, -1.0], [1.0, 0.0]])


def find(g, method, start, args=(), max_steps=1000):
    return solve(displacement(g), method, start, args=args, max_steps=max_steps)


def affine(x, A, b):
    return A @ x + b


def crowd(p):
    """Eight agents, each the less willing the more the others are, with a steep response."""
    own = jnp.linspace(-0.9, 0.9, 8).astype(p.dtype)
    return jax.nn.sigmoid((own - 16 * (jnp.sum(p) - p) / 7) / 0.1)


def babylonian(x):
    return (x + 2 / x) / 2


def tiny(x):
    return 1e-8 * jnp.cos(x * 1e8)


def logistic(x):
    return 3.7 * x * (1 - x)


def spread(eigenvalues, dtype):
    """A symmetric matrix with these eigenvalues, a right side, and the fixed point."""
    rng = np.random.default_rng(0)
    n = len(eigenvalues)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    A, b = Q @ np.diag(eigenvalues) @ Q.T, rng.normal(size=n)
    return (jnp.asarray(A, dtype), jnp.asarray(b, dtype)), np.linalg.solve(np.eye(n) - A, b)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_fixed_points_and_solving_again(dtype):
    tol = 5e-5 if dtype == jnp.float32 else 1e-9
    maps = [
        (jnp.cos, np.ones(1), 0.7390851332151607),
        (babylonian, np.ones(1), 2**0.5),
        (tiny, np.full(1, 1e-8), 0.7390851332151607e-8),
        (logistic, np.full(1, 0.3), 1 - 1 / 3.7),  # chaotic without a safeguard
    ]
    for g, start, answer in maps:
        for method in BOTH:
            solution = find(g, method, jnp.asarray(start, dtype))
            assert solution.converged and solution.params.dtype == dtype
            np.testing.assert_allclose(solution.params, answer, tol)
            assert find(g, method, solution.params).evaluations <= 3
    assert find(jnp.cos, anderson(), jnp.ones(1, dtype)).evaluations <= 10


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_steep_crowd(dtype):
    """The plain iteration jumps between two points for ever."""
    for method in BOTH:
        solution = find(crowd, method, jnp.full(8, 0.5, dtype))
        assert solution.converged
        np.testing.assert_allclose(crowd(solution.params), solution.params, 1e-3, 1e-4)


@pytest.mark.usefixtures("x64")
def test_linear_maps_anderson_needs_fewer_evaluations():
    for eigenvalues, most in (
        (np.linspace(0, 0.9, 20), 60),
        (np.linspace(-3, 0.5, 20), 80),
        (np.linspace(0, 0.999, 20), 400),
    ):
        args, answer = spread(eigenvalues, jnp.float64)
        solution = find(affine, anderson(), jnp.zeros(20), args)
        assert solution.converged and solution.evaluations <= most
        np.testing.assert_allclose(solution.params, answer, 1e-7, 1e-8)
    expansive = (jnp.asarray(1.2 * rotation), jnp.ones(2))
    for method in BOTH:
        solution = find(affine, method, jnp.zeros(2), expansive)
        assert solution.converged
        np.testing.assert_allclose(solution.params, np.linalg.solve(np.eye(2) - expansive[0], np.ones(2)), 1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_slow_iterations_and_maps_without_a_fixed_point_are_not_converged(dtype):
    slow = find(lambda x: 0.999 * x + 0.002, fixed_point_iteration(), jnp.zeros(1, dtype))
    assert slow.status == Status.MAX_STEPS
    for method in BOTH:
        for g in (lambda x: x + 1, lambda x: x + jnp.exp(-x), lambda x: x**2 + 1):
            assert not find(g, method, jnp.ones(1, dtype)).converged
    repelling = find(lambda x: 2 * x + 1, fixed_point_iteration(), jnp.ones(1, dtype))
    assert not repelling.converged and repelling.params == 1  # the best point
    np.testing.assert_allclose(find(lambda x: 2 * x + 1, anderson(), jnp.ones(1, dtype)).params, -1, 1e-6)


def test_what_is_not_finite():
    for method in BOTH:
        assert find(lambda x: jnp.log(x), method, -jnp.ones(1)).status == Status.NON_FINITE
        back = find(lambda x: jnp.sqrt(1 - x), method, jnp.zeros(1))
        assert back.converged
        np.testing.assert_allclose(back.params, (5**0.5 - 1) / 2, 1e-4)
        assert find(lambda x: jnp.where(x == 1, 2, jnp.nan), method, jnp.ones(1)).status == Status.NON_FINITE


def test_trees_complex_leaves_and_a_start_that_is_one():
    g = lambda p: {"a": jnp.cos(p["a"]), "z": 0.5j * p["z"] + 1}
    start = {"a": jnp.ones(3), "z": jnp.zeros((), jnp.complex64)}
    for method in BOTH:
        solution = find(g, method, start)
        assert solution.converged and solution.params["z"].dtype == jnp.complex64
        np.testing.assert_allclose(solution.params["z"], 1 / (1 - 0.5j), 1e-4)
        assert find(lambda x: x, method, jnp.ones(2)).evaluations == 1
        assert find(lambda x: x * 0.5, method, jnp.zeros(2)).evaluations == 1


def test_a_batch_and_a_sweep_over_beta():
    one = lambda start, beta: find(jnp.cos, fixed_point_iteration(beta), start)
    batch = jax.vmap(one)(jnp.array([[0.1], [1.0], [2.0]]), jnp.array([0.5, 0.8, 1.0]))
    assert batch.converged.all() and len(set(np.asarray(batch.evaluations).tolist())) == 3
    np.testing.assert_allclose(batch.params, 0.739085, 1e-4)


def test_wrong_problems_are_refused_in_words():
    with pytest.raises(ValueError, match="anderson: history must be an int of at least 1"):
        anderson(history=0)
    with pytest.raises(ValueError, match="anderson: g must return as many numbers as it takes, got 2 from 3"):
        solve(lambda x: x[:2], anderson(), jnp.ones(3))
