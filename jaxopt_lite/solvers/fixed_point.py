"""Methods for fixed points, g(x) = x, by evaluations of g only. With r(x) = g(x) - x:

    damped iteration    x₊ = x + β r
    Anderson            x₊ = x + β r - Σᵢ γᵢ (Δxᵢ + β Δrᵢ),  γ = argmin ‖r - Σᵢ γᵢ Δrᵢ‖
                                                                        Anderson, 1965; Walker & Ni, 2011, Eq. (2.1)

where Δxᵢ, Δrᵢ are differences of the last points. A point whose ‖r‖ is more than twice that of the point before it is
rejected: the history is emptied, the damping β is halved, and the next point is a damped one from the point before
(a safeguard in the manner of Zhang, O'Donoghue & Boyd, 2018, arXiv:1808.03971).

The distance to the fixed point is about κ‖r‖, where κ = ‖Δx‖ / ‖Δr‖ is 1 / (1 - rate) of a contraction. Converged
means κ‖r‖ <= tol max(‖x‖, 1e-12) with a measured κ: small steps of a slow iteration are not convergence. Where
κ ε > 0.001, rounding hides where the fixed point is, and even a residual of zero is not one. Where no κ can be
measured, because the start is a fixed point already, a residual of rounding size is enough.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Objective, Status, solver
from jaxopt_lite.core.numbers import Positive
from jaxopt_lite.core.vectors import from_vector, to_vector
from jaxopt_lite.solvers.hybrid import NEAR_ZERO, epsilon, norm

__all__ = ["FixedPointState", "anderson", "fixed_point_iteration"]

GROWTH = 2.0  # ‖r‖ may grow by this factor from one accepted point to the next
DAMPING = 1 / 256  # the least damping, as a share of β; with it every finite point is accepted
RECOVERY = (1.05, 0.7)  # factors of the damping where ‖r‖ has shrunk, and where it has grown but not too much
RECOVERY_WITH_HISTORY = (1.2, 1.2)  # a point of Anderson's may be worse without a reason to damp
SLOWEST = 1e-3  # κ ε above which the rounding of g hides where the fixed point is, so that r = 0 proves nothing
RIDGE = 0.75  # the exponent of ε in the regularisation of the least squares, relative to each ‖Δrᵢ‖
IDLE = 12  # points at the rounding of r without a smaller ‖r‖ after which a solve has stalled


class FixedPointState(NamedTuple):
    """The state. The parameters, residuals and aux are those of the least ‖r‖ so far; x is where the iteration is."""

    residuals: Any
    aux: Any
    least: jax.Array  # the least ‖r‖ so far
    x: jax.Array  # the last accepted point, [n]
    r: jax.Array  # its residual, [n]
    trial: jax.Array  # the next point, [n]
    dx: jax.Array  # the last differences of accepted points, [history, n], the newest last
    dr: jax.Array
    used: jax.Array  # int32, the number of differences
    damping: jax.Array  # the present share of β
    kappa: jax.Array  # κ, 0 as long as it has not been measured
    best_kappa: jax.Array  # κ at the least ‖r‖
    idle: jax.Array  # int32
    rejected: jax.Array  # int32: points in a row that were not finite
    begun: jax.Array  # bool: whether the start has been evaluated


def mixing_method(who: str, beta: Any, history: int) -> tuple:
    """The pair (init, step) of Anderson's method; with a history of 0 the damped iteration."""
    recovery = RECOVERY_WITH_HISTORY if history else RECOVERY

    def init(objective: Objective, params: Any) -> FixedPointState:
        residuals, aux = jax.eval_shape(objective.residual, params)
        r, x = jax.eval_shape(to_vector, residuals), to_vector(params)
        if r.size != x.size:
            raise ValueError(f"{who}: g must return as many numbers as it takes, got {r.size} from {x.size}")
        dtype = jnp.result_type(r.dtype, x.dtype)
        fill = lambda like: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        x, zero, count = x.astype(dtype), jnp.zeros([], dtype), jnp.zeros([], jnp.int32)
        past = jnp.zeros((history, x.size), dtype)
        return FixedPointState(
            *(fill(residuals), fill(aux), zero, x, jnp.zeros_like(x), x, past, past, count),
            *(jnp.ones([], dtype), zero, zero, count, count, jnp.array(False)),
        )

    def step(objective: Objective, params: Any, state: FixedPointState) -> tuple[Any, FixedPointState, Info]:
        begun, dtype = state.begun, state.x.dtype
        tol = jnp.asarray(0 if objective.tol is None else objective.tol, dtype)
        eps = epsilon(params, state.residuals)
        trial = tree.where(begun, from_vector(state.trial, params), params)
        x = to_vector(trial).astype(dtype)
        residuals, aux = objective.residual(trial)
        r = to_vector(residuals).astype(dtype)
        size, old_size, size_x = norm(r), norm(state.r), norm(x)
        finite = jnp.isfinite(size) & jnp.isfinite(size_x)
        steady = (size <= GROWTH * old_size) | (state.damping <= DAMPING)
        accepted = ~begun | (finite & steady)

        # The history, and κ from differences above rounding.
        dx, dr = x - state.x, r - state.r
        noise = 2 * eps * (norm(jnp.maximum(jnp.abs(x), jnp.abs(state.x))) + size)
        moved = begun & accepted & finite
        # Where Δr is rounding, κ is at least so large.
        slope = norm(dx) / jnp.where(norm(dr) > noise, norm(dr), jnp.where(noise > 0, noise, 1))
        clear = begun & finite & ((norm(dr) > noise) | (norm(dx) > 100 * noise))
        kappa = jnp.where(clear, jnp.maximum(slope, state.kappa / 2), state.kappa)
        shift = lambda old, new: jnp.concatenate([old[1:], new[None]]) if history else old
        past_x, past_r = (
            jnp.where(moved, shift(state.dx, dx), state.dx),
            jnp.where(moved, shift(state.dr, dr), state.dr),
        )
        used = jnp.where(accepted, jnp.where(begun, jnp.minimum(state.used + 1, history), 0), 0)

        x, r = jnp.where(accepted, x, state.x), jnp.where(accepted, r, state.r)
        less = jnp.where(finite, state.damping / 2, state.damping / 8)
        factor = jnp.where(~begun, 1, jnp.where(size < old_size, *recovery))
        damped = jnp.minimum(1, jnp.maximum(state.damping * factor, DAMPING))
        damping = jnp.where(accepted, damped, jnp.maximum(less, DAMPING / 8))
        mix = (beta * damping).astype(dtype)
        move = mix * r
        if history:
            present = jnp.arange(history) >= history - used
            gamma = _least_squares(jnp.where(present[:, None], past_r, 0).T, r)
            move = move - gamma @ jnp.where(present[:, None], past_x + mix * past_r, 0)
        following = from_vector(x + move, params)
        unmoved = jnp.all(to_vector(following).astype(dtype) == x)

        better = ~begun | (finite & (size < state.least))
        least = jnp.where(better, size, state.least)
        at_floor = least <= 64 * eps * norm(x)
        idle = jnp.where(~begun | (size < 0.9 * state.least), 0, state.idle + at_floor.astype(jnp.int32))
        rejected = jnp.where(finite, 0, state.rejected + 1)
        new_params, residuals, aux = tree.where(better, (trial, residuals, aux), (params, state.residuals, state.aux))
        size_x = jnp.maximum(norm(to_vector(new_params).astype(dtype)), NEAR_ZERO)
        best_kappa = jnp.where(kappa > 0, jnp.maximum(kappa, jnp.where(better, 0, state.best_kappa)), 0)
        known = kappa * eps <= SLOWEST
        close = known & (best_kappa > 0) & (jnp.maximum(best_kappa, 1) * least <= tol * size_x)
        at_start = (kappa == 0) & (least <= eps * size_x)
        status = jnp.select(
            [
                ~begun & ~finite,
                (least == 0) & known | at_start,
                close,
                rejected >= 10,
                (least == 0) | unmoved | (idle >= IDLE),
            ],
            [
                *(Status.NON_FINITE, Status.CONVERGED_GRADIENT, Status.CONVERGED_GRADIENT, Status.NON_FINITE),
                Status.STALLED,
            ],
            Status.RUNNING,
        ).astype(jnp.int32)
        new_state = FixedPointState(
            *(residuals, aux, least, x, r, to_vector(following).astype(dtype), past_x, past_r, used),
            *(damping.astype(dtype), kappa, best_kappa, idle, rejected, jnp.array(True)),
        )
        updates = jax.tree.map(jnp.subtract, new_params, params)
        count = jnp.ones([], jnp.int32)
        return new_params, new_state, Info(objective.cost(residuals), aux, residuals, updates, status, count)

    return init, step


def _least_squares(A: jax.Array, b: jax.Array) -> jax.Array:
    """min ‖A γ - b‖² + λ²‖γ‖² for A [n, m] with columns scaled to length 1, by QR; 0 for columns of zeros."""
    sizes = jax.vmap(norm, in_axes=1)(A)
    sizes = jnp.where(sizes > 0, sizes, 1)
    ridge = jnp.finfo(A.dtype).eps ** RIDGE * jnp.eye(A.shape[1], dtype=A.dtype)
    Q, R = jnp.linalg.qr(jnp.concatenate([A / sizes[None], ridge]))
    return jax.scipy.linalg.solve_triangular(R, Q[: b.size].T @ b) / sizes


@solver(solves="fixed_point")
def fixed_point_iteration(beta: Positive = 1.0):
    """x₊ = x + β (g(x) - x), with β halved where the residual doubles.

    Args:
        beta: β, above 0; 1 is the plain iteration, less is damped.

    Raises:
        ValueError: at the start of a solve, if g does not return as many numbers as it takes.

    Reference: Picard, 1890; Krasnosel'skii, "Two Remarks on the Method of Successive Approximations", 1955.
    """
    return mixing_method("fixed_point_iteration", beta, 0)


@solver(solves="fixed_point")
def anderson(beta: Positive = 1.0, *, history: int = 5):
    """Anderson's acceleration of x₊ = g(x), type II, with a safeguard.

    Args:
        beta: β, the mixing, above 0; 1 is undamped.
        history: m, the number of differences kept, at least 1; the state is 2 m times as large as x.

    Raises:
        ValueError: if history is not an int of at least 1; at the start of a solve, if g does not return as many
            numbers as it takes.

    Reference: Anderson, "Iterative Procedures for Nonlinear Integral Equations", 1965; Walker & Ni, "Anderson
        Acceleration for Fixed-Point Iterations", 2011, Eq. (2.1) to (2.3).
    """
    if not isinstance(history, int) or history < 1:
        raise ValueError(f"anderson: history must be an int of at least 1, got {history!r}")
    return mixing_method("anderson", beta, history)
