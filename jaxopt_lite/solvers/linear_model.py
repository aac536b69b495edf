"""The linear model of residuals, r(x + p) ≈ r + J p, by its triangular factor, and the steps that minimize it.

With J = Q R and q = Qᵀr the value of the model is ½ |r + J p|² = ½ |q + R p|² + a constant, so that whatever the
number of residuals, a step is computed from R [n, n] and q [n]. JᵀJ is never formed: that would lose half the digits.

    Gauss-Newton step    min |q + R p|                        of all minimizers the one with the least |D p|
    trust-region step    min |q + R p|   with |D p| <= Δ      Moré, "The Levenberg-Marquardt Algorithm: Implementation
                                                              and Theory", 1978

D is diagonal. The second is p(α) = -(JᵀJ + α D²)⁻¹ Jᵀr, where α >= 0 solves |D p(α)| = Δ; with the singular values
of R D⁻¹ at hand an iteration for α costs 2n operations.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Model", "Steps", "column_norms", "covariance", "decrease", "factorize", "steps"]

NEWTON = 30  # the largest number of iterations for α
CLOSE = 0.1  # |D p| may differ from Δ by this share of it


class Model(NamedTuple):
    """The linear model of the residuals at a point."""

    factor: jax.Array  # R [n, n]
    rotated: jax.Array  # q = Qᵀr [n]
    scale: jax.Array  # D [n], positive


class Steps(NamedTuple):
    """The minimizer of the model, and the step to take."""

    newton: jax.Array  # the Gauss-Newton step [n]
    taken: jax.Array  # a shorter one, such as the minimizer in a trust region [n]


def factorize(residuals: jax.Array, jacobian: jax.Array) -> tuple[jax.Array, jax.Array]:
    """R [n, n] and q = Qᵀr [n] of residuals [m] and their Jacobian [m, n]; with m < n the last rows are 0."""
    n = jacobian.shape[1]
    upper = jnp.linalg.qr(jnp.concatenate([jacobian, residuals[:, None]], 1), mode="r")[:n]
    upper = jnp.concatenate([upper, jnp.zeros((n - upper.shape[0], n + 1), upper.dtype)])
    return upper[:, :n], upper[:, n]


def column_norms(matrix: jax.Array) -> jax.Array:
    """The Euclidean norm of each column, a vector [n]; squares neither overflow nor vanish."""
    largest = jnp.max(jnp.abs(matrix), axis=0, initial=0)
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return unit * jnp.linalg.norm(matrix / unit, axis=0)


def decrease(model: Model, p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How much the model decreases by a step p, and its slope along p, rᵀJ p."""
    change = model.factor @ p
    slope = model.rotated @ change
    return -slope - change @ change / 2, slope


def steps(model: Model, free: jax.Array, radius: Any, rows: int) -> Steps:
    """The Gauss-Newton step and the trust-region step, in the coordinates that are free.

    Args:
        model: the model.
        free: bool [n]; the other coordinates do not move.
        radius: Δ, a scalar; infinite for the Gauss-Newton step alone.
        rows: m, the number of residuals: singular values below max(m, n) ε times the largest count as 0.
    """
    n = model.scale.size
    left, s, right = jnp.linalg.svd(jnp.where(free, model.factor / model.scale, 0))
    s = jnp.where(s > max(rows, n) * jnp.finfo(s.dtype).eps * s[0], s, 0)
    c = left.T @ model.rotated
    alpha = _damping(s, c, radius)
    z = jnp.stack([_filtered(s, c, 0), _filtered(s, c, alpha)])
    newton, taken = jnp.where(free, -(z @ right) / model.scale, 0)
    return Steps(newton, taken)


def _filtered(s, c, alpha):
    """s c / (s² + α): a step in the coordinates of the singular vectors, 0 where s is 0."""
    bottom = s + alpha / jnp.where(s > 0, s, 1)
    return jnp.where(s > 0, c / jnp.where(s > 0, bottom, 1), 0)


def _damping(s: jax.Array, c: jax.Array, radius: Any) -> jax.Array:
    """α with |D p(α)| within a tenth of Δ, or 0 if the Gauss-Newton step is no longer than that.

    Newton's method for 1/Δ - 1/|D p(α)| = 0, from the left, where it is monotone (Moré, 1978, Eq. 5.5).
    """

    def measure(alpha):
        z = _filtered(s, c, alpha)
        length = jnp.sqrt(z @ z)
        unit = z / jnp.where(length > 0, length, 1)
        slope = jnp.where(s > 0, unit * unit / jnp.where(s > 0, s * s + alpha, 1), 0).sum()  # -|D p|' / |D p|
        return length, slope

    def is_far(state):
        _, length, _, count = state
        return (length > (1 + CLOSE) * radius) & (count < NEWTON)

    def improve(state):
        alpha, length, slope, count = state
        alpha = alpha + (length / radius - 1) / jnp.where(slope > 0, slope, 1)
        return alpha, *measure(alpha), count + 1

    alpha = jnp.zeros([], s.dtype)
    return jax.lax.while_loop(is_far, improve, (alpha, *measure(alpha), jnp.zeros([], jnp.int32)))[0]


def covariance(factor: jax.Array) -> jax.Array:
    """(RᵀR)⁻¹ = (JᵀJ)⁻¹ [n, n] of the triangular factor R [n, n] of the Jacobian at a solution.

    Times 2 cost / (m - n) it is the covariance of the parameters of a fit; with residuals in units of their standard
    deviation it is that as it is. A parameter that the residuals do not determine has an infinite variance, and its
    covariances are NaN; the others are those of the fit in which it is held.
    """
    n, eps = factor.shape[-1], jnp.finfo(factor.dtype).eps
    size = column_norms(factor)
    unit = jnp.where(size > 0, size, 1)
    _, s, right = jnp.linalg.svd(factor / unit)
    is_null = s <= 10 * n * eps * s[0]
    inverse = jnp.where(is_null, 0, 1 / jnp.where(is_null, 1, s))
    half = right.T * inverse / unit[:, None]
    # A parameter is undetermined if a vector of the null space of J moves it.
    undetermined = jnp.any(is_null & (jnp.abs(right.T) > jnp.sqrt(eps)), axis=1) | (size == 0)
    either = undetermined[:, None] | undetermined
    result = jnp.where(either, jnp.nan, half @ half.T)
    return jnp.where(jnp.eye(n, dtype=bool) & undetermined[:, None], jnp.inf, result)
