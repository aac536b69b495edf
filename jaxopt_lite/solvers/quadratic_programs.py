"""Convex quadratic programs, min ½ x·P x + q·x with l <= A x <= u, by operator splitting.

    (P + σI + AᵀRA) x̃ = σx - q + Aᵀ(R z - y)                 R = diag(ρᵢ)
    x⁺ = α x̃ + (1 - α) x,    w = α A x̃ + (1 - α) z
    z⁺ = P(w + R⁻¹y),        y⁺ = y + R (w - z⁺)             P the projection onto [l, u]

This is the alternating direction method of multipliers in the form of OSQP (Stellato, Banjac, Goulart, Bemporad & Boyd,
2020, arXiv:1711.08013, Algorithm 1), with the inner system reduced to n unknowns. The data are equilibrated first
(Ruiz, 2001; Algorithm 2 there). A step is a fixed number of iterations with one factorization; after them ρ is adapted,
the certificates of infeasibility are tested, and a guess of the active constraints is solved exactly (Section 5.2).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as dense

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Objective, Quadratic, Status, solver
from jaxopt_lite.core.numbers import Positive
from jaxopt_lite.core.vectors import from_vector, to_vector

__all__ = ["osqp"]

EQUALITY = 1e3  # ρ of equalities is this times that of inequalities
RHO = (1e-6, 1e6)  # the smallest and the largest ρ
CHANGE = 5.0  # ρ is adapted where it would change by more than this factor
REFINE = 10  # iterative refinements of the polished solution


class Scales(NamedTuple):
    """Of the equilibrated data: P̄ = c D P D, q̄ = c D q, Ā = E A D, and bounds E l, E u."""

    d: jax.Array  # [n], the diagonal of D
    e: jax.Array  # [m], the diagonal of E
    c: jax.Array


class Iterate(NamedTuple):
    """Of the equilibrated problem, with the last changes of x and y."""

    x: jax.Array  # [n]
    z: jax.Array  # [m]
    y: jax.Array  # [m]
    dx: jax.Array
    dy: jax.Array


class Pair(NamedTuple):
    """A primal and a dual point, and how far they are from optimal."""

    x: jax.Array  # [n]
    y: jax.Array  # [m]
    error: jax.Array  # the larger of the relative dual and primal residual
    dual: jax.Array  # P x + q + Aᵀy [n]


class SplittingState(NamedTuple):
    """The state of a solve."""

    iterate: Iterate
    rho: jax.Array
    scales: Scales
    best: Pair
    violation: jax.Array
    is_convex: jax.Array

    @property
    def multipliers(self) -> jax.Array:
        return 0 - self.best.y


@solver(solves="quadratic_program")
def osqp(
    rho: Positive = 0.1,
    sigma: Positive = 1e-6,
    alpha: Positive = 1.6,
    *,
    interval: int = 25,
    equilibrations: int = 10,
    polish: bool = True,
):
    """Operator splitting in the form of OSQP, for dense matrices of up to some hundreds of variables.

    A step is `interval` iterations, which `solution.evaluations` counts. With multipliers y of the right signs,
    P x + q + Aᵀy = 0 at a solution. It has converged where the largest |P x + q + Aᵀy| is within tol max(1, |P x|, |q|,
    |Aᵀy|), and the largest |A x - P(A x + y)| within tol max(1, |A x|), with the projection P. Polished solutions meet
    that to rounding, if the guess of the active constraints is right. Without convergence the best pair of x and y seen
    is returned. The status is INFEASIBLE or UNBOUNDED where the changes of y or of x certify it, and NOT_CONVEX where P
    has a negative eigenvalue.

    Args:
        rho: the first ρ of inequalities, above 0; equalities have 1000 times as much. It is adapted.
        sigma: σ, above 0; it regularizes P.
        alpha: the relaxation α, in (0, 2).
        interval: iterations in a step, at least 2.
        equilibrations: passes of the equilibration, at least 0.
        polish: whether the active constraints are guessed and solved for.

    Raises:
        ValueError: if interval is less than 2, or equilibrations less than 0.

    Reference: Stellato, Banjac, Goulart, Bemporad & Boyd, "OSQP: An Operator Splitting Solver for Quadratic Programs",
        2020, arXiv:1711.08013.
    """
    for name, given, least in (("interval", interval, 2), ("equilibrations", equilibrations, 0)):
        if not isinstance(given, int) or given < least:
            raise ValueError(f"osqp: {name} must be an int of at least {least}, got {given!r}")

    def init(objective: Objective, params: Any) -> SplittingState:
        quadratic, x = objective.quadratic, to_vector(params)
        assert quadratic is not None
        y = jnp.zeros_like(quadratic.lower)
        scales = _equilibrate(quadratic, equilibrations)
        x_scaled, ax = x / scales.d, scales.e * (quadratic.a @ x)
        iterate = Iterate(x_scaled, ax, y, jnp.zeros_like(x), y)
        eigenvalues = jnp.linalg.eigvalsh(quadratic.p)
        rounding = 10 * x.size * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(eigenvalues))
        is_convex = ~(eigenvalues[0] < -rounding)
        best = Pair(x, y, jnp.full([], jnp.inf, x.dtype), x)
        return SplittingState(iterate, jnp.asarray(rho, x.dtype), scales, best, jnp.zeros([], x.dtype), is_convex)

    def step(objective: Objective, params: Any, state: SplittingState) -> tuple[Any, SplittingState, Info]:
        quadratic, scales = objective.quadratic, state.scales
        assert quadratic is not None
        scaled = _scaled(quadratic, scales)
        iterate = _iterate(scaled, state.iterate, state.rho, sigma, alpha, interval)
        pairs = [state.best, _pair(quadratic, scales, iterate.x, iterate.y)]
        if polish:
            pairs.append(_pair(quadratic, scales, *_polished(scaled, iterate)))
        best = pairs[0]
        for pair in pairs[1:]:
            best = tree.where(pair.error < best.error, pair, best)

        ax = quadratic.a @ best.x
        violation = jnp.max(jnp.abs(ax - jnp.clip(ax, quadratic.lower, quadratic.upper)), initial=0)
        numbers = jnp.isfinite(jnp.sum(quadratic.p) + jnp.sum(quadratic.q) + jnp.sum(quadratic.a))
        lower, upper = quadratic.lower, quadratic.upper
        crossed = jnp.any(~(lower <= upper) | (lower == jnp.inf) | (upper == -jnp.inf))
        infeasible, unbounded = _certificates(scaled, iterate)
        status = jnp.select(
            [~numbers, crossed, ~state.is_convex, best.error <= objective.tol, infeasible, unbounded],
            [
                *(Status.NON_FINITE, Status.INFEASIBLE, Status.NOT_CONVEX, Status.CONVERGED_GRADIENT),
                *(Status.INFEASIBLE, Status.UNBOUNDED),
            ],
            Status.RUNNING,
        ).astype(jnp.int32)
        new_state = SplittingState(
            iterate, _adapted(scaled, iterate, state.rho), scales, best, violation, state.is_convex
        )
        value, aux = objective.value(from_vector(best.x, params))
        new = from_vector(best.x, params)
        updates = jax.tree.map(jnp.subtract, new, params)
        info = Info(value, aux, from_vector(best.dual, params), updates, status, jnp.asarray(interval, jnp.int32))
        return new, tree.keep_dtypes(new_state, state), info

    return init, step


def _equilibrate(quadratic: Quadratic, passes: int) -> Scales:
    """Scales with which the columns of (P Aᵀ; A 0) have a largest element of about 1, Algorithm 2."""
    p, q, a = quadratic.p, quadratic.q, quadratic.a

    def one(scales, _):
        s = _scaled(quadratic, scales)
        columns = jnp.maximum(jnp.max(jnp.abs(s.p), axis=0), jnp.max(jnp.abs(s.a), axis=0, initial=0))
        rows = jnp.max(jnp.abs(s.a), axis=1)
        d, e = scales.d / _root(columns), scales.e / _root(rows)
        s = _scaled(quadratic, Scales(d, e, scales.c))
        size = jnp.maximum(jnp.mean(jnp.max(jnp.abs(s.p), axis=0)), jnp.max(jnp.abs(s.q)))
        return Scales(d, e, scales.c / jnp.where(size > 0, size, 1)), None

    scales = Scales(jnp.ones_like(q), jnp.ones(len(a), p.dtype), jnp.ones([], p.dtype))
    return jax.lax.scan(one, scales, None, length=passes)[0]


def _root(sizes: jax.Array) -> jax.Array:
    """√ of sizes, within limits; 1 for sizes that are zero, or only rounding relative to the largest."""
    is_some = (sizes > jnp.finfo(sizes.dtype).eps * jnp.max(sizes, initial=0)) & jnp.isfinite(sizes)
    return jnp.sqrt(jnp.where(is_some, jnp.clip(sizes, 1e-4, 1e4), 1))


def _scaled(quadratic: Quadratic, scales: Scales) -> Quadratic:
    p, q, a, lower, upper = quadratic
    d, e, c = scales
    across = d[None, :]
    return Quadratic(c * d[:, None] * p * across, c * d * q, e[:, None] * a * across, e * lower, e * upper)


def _iterate(s: Quadratic, start: Iterate, rho: Any, sigma: Any, alpha: Any, length: int) -> Iterate:
    """Some iterations of Algorithm 1."""
    is_free = jnp.isinf(s.lower) & jnp.isinf(s.upper)
    rhos = jnp.where(s.lower == s.upper, EQUALITY * rho, jnp.where(is_free, RHO[0], rho))
    matrix = s.p + sigma * jnp.eye(len(s.q), dtype=s.q.dtype) + s.a.T @ (rhos[:, None] * s.a)
    factor = dense.cho_factor(matrix)

    def one(iterate, _):
        x, z, y, *_ = iterate
        x_tilde = dense.cho_solve(factor, sigma * x - s.q + s.a.T @ (rhos * z - y))
        x_new = alpha * x_tilde + (1 - alpha) * x
        w = alpha * (s.a @ x_tilde) + (1 - alpha) * z
        z_new = jnp.clip(w + y / rhos, s.lower, s.upper)
        y_new = y + rhos * (w - z_new)
        return tree.keep_dtypes(Iterate(x_new, z_new, y_new, x_new - x, y_new - y), iterate), None

    return jax.lax.scan(one, start, None, length=length)[0]


def _polished(s: Quadratic, iterate: Iterate) -> tuple[jax.Array, jax.Array]:
    """x and y of the problem with the constraints that seem active as equalities, and without the others, Eq. (31)."""
    _, z, y, *_ = iterate
    at_lower = (z - s.lower < -y) | (s.lower == s.upper)
    active = at_lower | (s.upper - z < y)
    a = jnp.where(active[:, None], s.a, 0)
    b = jnp.where(active, jnp.where(at_lower, s.lower, s.upper), 0)
    delta = jnp.finfo(y.dtype).eps ** 0.4
    # With (P + δI, Aᵀ; A, -δI), of which y is eliminated; refinement removes what δ and its rounding change.
    factor = dense.cho_factor(s.p + delta * jnp.eye(len(s.q), dtype=y.dtype) + a.T @ a / delta)

    def refine(point, _):
        x, y = point
        gradient, gap = -s.q - s.p @ x - a.T @ y, b - a @ x
        dx = dense.cho_solve(factor, gradient + a.T @ gap / delta)
        return (x + dx, y + (a @ dx - gap) / delta), None

    start = jnp.zeros_like(s.q), jnp.zeros_like(y)
    return jax.lax.scan(refine, start, None, length=REFINE)[0]


def _pair(quadratic: Quadratic, scales: Scales, x: jax.Array, y: jax.Array) -> Pair:
    """The pair of the original problem, from that of the equilibrated one."""
    p, q, a, lower, upper = quadratic
    x, y = scales.d * x, scales.e * y / scales.c
    y = jnp.where(((y > 0) & jnp.isinf(upper)) | ((y < 0) & jnp.isinf(lower)), 0, y)
    px, ax, ay = p @ x, a @ x, a.T @ y
    dual, primal = px + q + ay, ax - jnp.clip(ax + y, lower, upper)
    sizes = (_largest(px, q, ay), _largest(ax))
    errors = [_largest(r) / jnp.maximum(1, size) for r, size in zip((dual, primal), sizes, strict=True)]
    error = jnp.maximum(*errors)
    return Pair(x, y, jnp.where(jnp.isnan(error), jnp.inf, error), dual)


def _largest(*vectors: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(jnp.concatenate(vectors)), initial=0)


def _adapted(s: Quadratic, iterate: Iterate, rho: jax.Array) -> jax.Array:
    """ρ for equal relative residuals, Section 5.2."""
    x, z, y, *_ = iterate
    px, ax, ay = s.p @ x, s.a @ x, s.a.T @ y
    tiny = jnp.finfo(x.dtype).tiny ** 0.5
    primal = _largest(ax - z) / jnp.maximum(_largest(ax, z), tiny)
    dual = _largest(px + s.q + ay) / jnp.maximum(_largest(px, s.q, ay), tiny)
    factor = jnp.sqrt(jnp.maximum(primal, tiny) / jnp.maximum(dual, tiny))
    changes = (factor > CHANGE) | (factor < 1 / CHANGE)
    return jnp.where(changes, jnp.clip(rho * factor, *RHO), rho)


def _certificates(s: Quadratic, iterate: Iterate) -> tuple[jax.Array, jax.Array]:
    """Whether the last changes of y prove that no point is feasible, and those of x that the value has no bound.

    Eqs. (24) and (25), of the equilibrated problem, in which all numbers are of the order of 1.
    """
    dx, dy = iterate.dx, iterate.dy
    eps = jnp.maximum(1e-6, 10 * jnp.sqrt(jnp.finfo(dx.dtype).eps) * jnp.where(dx.dtype == jnp.float32, 1, 0))
    up = jnp.where(jnp.isinf(s.upper), 0, jnp.maximum(dy, 0))
    down = jnp.where(jnp.isinf(s.lower), 0, jnp.minimum(dy, 0))
    finite = lambda bound: jnp.where(jnp.isinf(bound), 0, bound)
    support = finite(s.upper) @ up + finite(s.lower) @ down
    size = _largest(up, down)
    moves = size > 1e-8 * _largest(iterate.y)
    infeasible = moves & (_largest(s.a.T @ (up + down)) <= eps * size) & (support < -eps * size)

    size, a_dx = _largest(dx), s.a @ dx
    stays = (jnp.isinf(s.upper) | (a_dx <= eps * size)) & (jnp.isinf(s.lower) | (a_dx >= -eps * size))
    moves = size > 1e-8 * _largest(iterate.x)
    unbounded = moves & (s.q @ dx < -eps * size) & (_largest(s.p @ dx) <= eps * size) & jnp.all(stays)
    return infeasible, unbounded
