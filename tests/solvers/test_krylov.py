"""Linear solves without a matrix, against NumPy: ranks, scales, precisions, complex leaves and batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lite.solvers.krylov import adjoint, cg, lsmr
from jaxopt_lite.tree import inner


def matrix(m, n, rank, cond, seed=0):
    """An m x n matrix of a rank, with singular values from 1 to 1 / cond."""
    rng = np.random.default_rng(seed)
    u, v = np.linalg.qr(rng.normal(size=(m, m)))[0], np.linalg.qr(rng.normal(size=(n, n)))[0]
    return u[:, :rank] * np.geomspace(1, 1 / cond, rank) @ v[:, :rank].T


@jax.jit
def by_lsmr(a, b, damp, tol):
    return lsmr(
        lambda x: a @ x, lambda u: a.T @ u, b, jnp.zeros_like(a, shape=a.shape[1]), damp=damp, tol=tol, max_steps=400
    )


@jax.jit
def by_cg(a, b, tol):
    return cg(lambda x: a @ x, b, tol=tol, max_steps=400)


def relative(x, wanted):
    return np.linalg.norm(np.asarray(x, float) - wanted) / np.linalg.norm(wanted)


@pytest.mark.usefixtures("x64")
def test_lsmr_finds_the_solution_of_least_norm():
    rng = np.random.default_rng(1)
    for m, n, rank, cond, error in (
        (30, 20, 20, 1e1, 1e-10),
        (20, 30, 20, 1e3, 1e-8),
        (30, 20, 12, 1e1, 1e-10),
        (30, 20, 20, 1e6, 1e-5),
    ):
        a = matrix(m, n, rank, cond)
        for b in (a @ rng.normal(size=n), rng.normal(size=m)):
            wanted = np.linalg.lstsq(a, b, rcond=1e-12)[0]
            assert relative(by_lsmr(a, b, 0.0, 1e-12), wanted) < error, (m, n, rank, cond)
        damped = np.linalg.solve(a.T @ a + 0.01 * np.eye(n), a.T @ b)
        assert relative(by_lsmr(a, b, 0.1, 1e-12), damped) < 1e-9


def test_scales_do_not_overflow_float32():
    a = matrix(30, 20, 20, 10.0)
    x = np.random.default_rng(2).normal(size=20)
    for scale in (1e-25, 1.0, 1e25):
        solution = by_lsmr(jnp.float32(scale * a), jnp.float32(a @ x), 0.0, 1e-6)
        assert relative(np.asarray(solution, float) * scale, x) < 1e-4
        solution = by_cg(jnp.float32(scale * a.T @ a), jnp.float32(a.T @ a @ x), 1e-6)
        assert relative(np.asarray(solution, float) * scale, x) < 1e-3


@pytest.mark.usefixtures("x64")
def test_cg_with_singular_matrices_and_a_preconditioner():
    a = matrix(30, 20, 12, 10.0)
    h, x = a.T @ a, np.linalg.pinv(a) @ np.arange(30.0)
    assert relative(by_cg(h, h @ x, 1e-12), x) < 1e-9
    scales = np.geomspace(1, 1e8, 20)
    h = np.eye(20) * scales + 0.1
    solve = lambda **more: cg(lambda v: jnp.asarray(h) @ v, jnp.ones(20), tol=1e-12, max_steps=12, **more)
    plain, scaled = solve(), solve(preconditioner=lambda r: r / scales)
    assert np.linalg.norm(h @ scaled - 1) < 1e-10 < np.linalg.norm(h @ plain - 1)


def test_zeros_give_zeros_and_never_nan():
    nothing = jnp.zeros((3, 3))
    for a, b in ((jnp.eye(3), jnp.zeros(3)), (nothing, jnp.ones(3)), (nothing, jnp.zeros(3))):
        assert by_cg(a, b, 1e-6).tolist() == [0, 0, 0]
        assert by_lsmr(a, b, 0.0, 1e-6).tolist() == [0, 0, 0]


def test_trees_with_complex_leaves_and_the_adjoint():
    factor = jnp.array([1 + 2j, 3 - 1j], jnp.complex64)
    push = lambda x: {"u": factor * x["z"] + x["w"], "v": 2 * x["w"] + jnp.imag(x["z"])}
    like = {"z": jnp.zeros(2, jnp.complex64), "w": jnp.zeros(2)}
    x = {"z": jnp.array([1 - 1j, 2j], jnp.complex64), "w": jnp.array([0.5, -2.0])}
    pull = adjoint(push, like)
    u = {"u": jnp.array([1j, 2.0], jnp.complex64), "v": jnp.array([3.0, -1.0])}
    np.testing.assert_allclose(inner(u, push(x)), inner(pull(u), x), 1e-5)
    found = jax.jit(lambda b: lsmr(push, pull, b, like, tol=1e-6, max_steps=50))(push(x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4), found, x)


def test_each_lane_of_a_batch_ends_by_itself_and_reverse_mode_goes_through_custom_linear_solve():
    a = jnp.float32(matrix(20, 20, 20, 5.0))
    h = a.T @ a
    batch = jnp.stack([jnp.ones(20), jnp.zeros(20), jnp.arange(20.0)])
    found = jax.jit(jax.vmap(lambda b: by_cg(h, b, 1e-6)))(batch)
    np.testing.assert_allclose(found @ h, batch, atol=1e-3)

    def solve(b):
        inverse = lambda operator, b: cg(operator, b, tol=1e-6, max_steps=100)
        return jax.lax.custom_linear_solve(lambda v: h @ v, b, inverse, symmetric=True)

    slope = jax.jit(jax.grad(lambda b: jnp.sum(solve(b))))(batch[2])
    np.testing.assert_allclose(h @ slope, 1, atol=1e-3)
