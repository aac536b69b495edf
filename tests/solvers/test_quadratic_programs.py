"""Quadratic programs: conditions of first order, certificates and derivatives, many in one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.core.method import Status
from tests.quick import quick_jit

INF = np.inf
N, M = 20, 36  # all programs are padded to this many variables and constraints
KINDS = ("equalities", "inequalities", "bounds", "all", "degenerate", "linear", "small rows")
KINDS += ("infeasible", "at infinity", "unbounded", "not convex")


def random_program(kind, seed):
    """P, q, A, lower, upper of a random program with a feasible point, unless it is to be infeasible."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(5, 15)), int(rng.integers(4, 14))
    root, q, x = rng.normal(size=(n, n)), rng.normal(size=n), rng.normal(size=n)
    a = rng.normal(size=(m, n))
    lower, upper = a @ x - rng.uniform(0, 1, m), a @ x + rng.uniform(0, 1, m)
    if kind in ("equalities", "all", "degenerate"):
        lower[: n // 3] = upper[: n // 3] = (a @ x)[: n // 3]
    if kind == "degenerate":  # P is singular, and each constraint is there twice
        root[:, n // 2 :] = 0
        a, lower, upper = np.concatenate([a, a])[:20], np.tile(lower, 2)[:20], np.tile(upper, 2)[:20]
    if kind == "linear":
        root[:] = 0
    if kind in ("bounds", "all", "degenerate", "linear"):
        a = np.eye(n) if kind == "bounds" else np.concatenate([a, np.eye(n)])
        sides = x - rng.uniform(0, 2, n), x + rng.uniform(0, 2, n)
        lower, upper = sides if kind == "bounds" else map(np.append, (lower, upper), sides)
    if kind == "inequalities":
        upper[:] = INF
    if kind == "infeasible":
        a, lower, upper = np.append(a, a[:1], 0), np.append(lower, upper[0] + 0.1), np.append(upper, INF)
    if kind == "at infinity":
        lower[0] = upper[0] = INF
    if kind == "small rows":
        a, lower, upper = 1e-6 * a, 1e-6 * lower, 1e-6 * upper
    if kind == "unbounded":
        root[:, -1] = 0
        way = np.linalg.svd(root.T)[2][-1]  # P way = 0
        q, lower[:] = q - 5 * way, -INF
        a = a - np.outer(np.maximum(a @ way, 0), way)
    p = root @ root.T / n
    if kind == "not convex":
        p = p - 0.5 * np.linalg.eigvalsh(p)[-1] * np.eye(n)
    whole = np.eye(N), np.zeros(N), np.zeros((M, N)), np.full(M, -INF), np.full(M, INF)
    for big, small in zip(whole, (p, q, a, lower, upper), strict=True):
        big[tuple(slice(size) for size in small.shape)] = small
    return whole


def conditions(p, q, a, lower, upper, x, multipliers):
    """The largest relative violations of P x + q = Aᵀλ, of the bounds, and of the complementarity with signs."""
    ax = a @ x
    slack = np.where(multipliers > 0, ax - lower, np.where(multipliers < 0, upper - ax, 0))
    products = np.minimum(np.abs(slack), np.abs(multipliers))
    outside = np.maximum(0, np.maximum(lower - ax, ax - upper))
    return np.abs(p @ x + q - a.T @ multipliers).max() / max(1, np.abs(q).max()), outside.max(), products.max()


def solved(batch, dtype):
    programs = [jnp.asarray(np.stack(arrays), dtype) for arrays in zip(*batch, strict=True)]
    return quick_jit(jax.vmap(jo.quadratic_program))(*programs)


@pytest.mark.parametrize(("x64", "tol"), [(True, 1e-9), (False, 1e-3)])
def test_random_programs(x64, tol):
    kinds = [kind for kind in KINDS for _ in range(6 if x64 else 3)]
    programs = [random_program(kind, seed) for seed, kind in enumerate(kinds)]
    statuses = {
        "infeasible": Status.INFEASIBLE,
        "at infinity": Status.INFEASIBLE,
        "unbounded": Status.UNBOUNDED,
        "not convex": Status.NOT_CONVEX,
    }
    with jax.enable_x64(x64):
        batch = solved(programs, jnp.float64 if x64 else jnp.float32)
        for i, (kind, program) in enumerate(zip(kinds, programs, strict=True)):
            status = Status(int(batch.status[i]))
            assert status == statuses.get(kind, Status.CONVERGED_GRADIENT), (kind, i, status, batch.steps[i])
            if kind not in statuses:
                x, multipliers = (np.asarray(a[i], float) for a in (batch.params, batch.multipliers))
                errors = conditions(*program, x, multipliers)
                assert max(errors) <= tol, (kind, i, errors)
                p, q = program[:2]
                assert batch.value[i] == pytest.approx(x @ p @ x / 2 + q @ x, abs=1e-9 if x64 else 1e-4)
        assert batch.steps.max() <= 100, batch.steps


@pytest.mark.usefixtures("x64")
def test_bounds_of_x_and_resuming():
    """A = None is the identity; a P that is not symmetric counts by its symmetric part; a state is resumed."""
    p, q = jnp.array([[2.0, 1.0], [0.0, 2.0]]), jnp.array([-2.0, -6.0])
    solution = jo.quadratic_program(p, q, lower=[0.0, -INF], upper=2.0)
    assert solution.converged and solution.violation <= 1e-15, solution
    np.testing.assert_allclose(solution.params, [0.5, 2.0], atol=1e-12)
    np.testing.assert_allclose(solution.multipliers, [0.0, -1.75], atol=1e-12)
    slow = jo.solvers.osqp(polish=False, interval=5)
    part = jo.quadratic_program(p, q, upper=2.0, method=slow, tol=1e-9, max_steps=2)
    rest = jo.quadratic_program(p, q, upper=2.0, method=slow, tol=1e-9, state=part.state)
    whole = jo.quadratic_program(p, q, upper=2.0, method=slow, tol=1e-9)
    assert part.status == Status.MAX_STEPS and rest.converged and part.evaluations == 10
    assert np.array_equal(rest.params, whole.params) and rest.steps == whole.steps
    np.testing.assert_allclose(whole.params, [0.5, 2.0], atol=1e-8)
    assert jo.parse(repr(slow)) == slow


@pytest.mark.usefixtures("x64")
def test_derivatives():
    """By P, q, A and bounds, of x, multipliers and value: forward, reverse, second order, against differences."""
    rng = np.random.default_rng(3)
    root, a = rng.normal(size=(6, 4)), rng.normal(size=(5, 4))
    a[4] *= -1  # active at its upper bound
    lower, upper = np.array([0.1, -0.1, -INF, -1, -INF]), np.array([0.1, 0.1, 0.3, 1, 0.2])

    def solve(t):
        s = jo.quadratic_program(
            root.T @ root + t[0] * jnp.diag(jnp.arange(4.0)),
            5 * jnp.sin(3 * t[1] * jnp.arange(4.0)),
            jnp.asarray(a).at[1, 2].multiply(1 + t[2]),
            lower + t[0] * np.where(np.isfinite(lower), lower, 0),
            upper + t[0] * np.where(np.isfinite(upper), upper, 0),
        )
        return jnp.concatenate([s.params, s.multipliers, s.value[None]])

    h, point = 1e-6, jnp.array([0.7, 0.4, 0.3])
    all_of = lambda t: (solve(t), jax.jacfwd(solve)(t), jax.jacrev(solve)(t), jax.hessian(solve)(t))
    near = jnp.stack([point, *[point.at[i].add(s * h) for i in range(3) for s in (1, -1)]])
    values, forward, reverse, second = quick_jit(jax.vmap(all_of))(near)
    difference = lambda a: np.moveaxis(np.stack([a[2 * i + 1] - a[2 * i + 2] for i in range(3)]), 0, -1) / (2 * h)
    assert np.count_nonzero(values[0, 4:9]) == 3 and values[0, 8] < 0
    np.testing.assert_allclose(forward[0], reverse[0], atol=1e-9)
    np.testing.assert_allclose(forward[0], difference(values), atol=1e-5)
    np.testing.assert_allclose(second[0], difference(forward), atol=1e-3, rtol=1e-5)


MISTAKES = [
    (lambda p, q: jo.quadratic_program(p, q[:1]), r"P must have the shape \(1, 1\)"),
    (lambda p, q: jo.quadratic_program(q, q), "P must be a matrix of real numbers"),
    (lambda p, q: jo.quadratic_program(p, q, A=[[1.0, 2.0, 3.0]]), r"A must have the shape \(1, 2\)"),
    (
        lambda p, q: jo.quadratic_program(p, q, lower=[1.0, 2.0, 3.0]),
        r"lower must be a number or have the shape \(2,\)",
    ),
    (lambda p, q: jo.quadratic_program(p, q, lower=1.0, upper=0.0), "lower must not exceed upper"),
    (lambda p, q: jo.quadratic_program(p, q, lower=np.nan), "neither may be NaN"),
    (lambda p, q: jo.quadratic_program(p * np.nan, q), "P must be finite"),
    (lambda p, q: jo.quadratic_program(p, q, method=jo.solvers.lbfgs()), "is a method of minimize; use solvers.osqp"),
    (lambda p, q: jo.minimize(lambda x: x @ x, q, jo.solvers.osqp()), "is a method of quadratic_program"),
    (lambda p, q: jo.quadratic_program(p, q, start=np.ones(3)), r"start must have the shape \(2,\)"),
    (lambda p, q: jo.solvers.osqp(interval=1), "interval must be an int of at least 2"),
]


def test_mistakes_are_named():
    for call, words in MISTAKES:
        with pytest.raises((TypeError, ValueError), match=words):
            call(np.eye(2), np.ones(2))
