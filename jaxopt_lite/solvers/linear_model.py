"""The linear model of residuals, r(x + p) ≈ r + J p, by its triangular factor, and the steps that minimize it.

With J = Q R and q = Qᵀr the value of the model is ½ |r + J p|² = ½ |q + R p|² + a constant, so that whatever the
number of residuals, a step is computed from R [n, n] and q [n]. JᵀJ is never formed: that would lose half the digits.

    Gauss-Newton step    min |q + R p|                        of all minimizers the one with the least |D p|
    trust-region step    min |q + R p|   with |D p| <= Δ      Moré, "The Levenberg-Marquardt Algorithm: Implementation
                                                              and Theory", 1978

D is diagonal. The second is p(α) = -(JᵀJ + α D²)⁻¹ Jᵀr, where α >= 0 solves |D p(α)| = Δ; with the singular values
of R D⁻¹ at hand an iteration for α costs a few n operations.

Where residuals are large at the solution their own curvature Σ rᵢ ∇²rᵢ counts. A model may have an approximation S
of it (Dennis, Gay & Welsch, 1981); then JᵀJ + S takes the place of JᵀJ, and its eigenvalues that of the singular
values.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.vectors import to_vector
from jaxopt_lite.solvers.robust import rescale

__all__ = ["DENSE", "Linear", "Measured", "Model", "Steps", "column_norms", "covariance", "curve", "factorize", "steps"]

ROUNDING = 2.0  # values and gradients are known to this times ε times the root of the sum of the squares of their terms
NEWTON = 30  # the largest number of iterations for α
CLOSE = 0.1  # |D p| may differ from Δ by this share of it


class Model(NamedTuple):
    """The model of the value at a point: ½ |q + R p|² + t·p + ½ pᵀS p; without `curved` the last term is left out."""

    factor: jax.Array  # R [n, n]
    rotated: jax.Array  # q = Qᵀr [n]
    scale: jax.Array  # D [n], positive
    second: jax.Array  # S [n, n], an approximation of Σ rᵢ ∇²rᵢ
    tilt: jax.Array  # t [n]
    curved: jax.Array  # bool: whether S is used

    @property
    def gradient(self) -> jax.Array:
        """The gradient of the model at p = 0."""
        return self.factor.T @ self.rotated + self.tilt

    def bend(self, p: jax.Array) -> jax.Array:
        """The second derivative along p, pᵀ(JᵀJ + S)p."""
        return jnp.sum((self.factor @ p) ** 2) + jnp.where(self.curved, p @ self.second @ p, 0)

    def decrease(self, p: jax.Array) -> tuple[jax.Array, jax.Array]:
        """How much the model decreases by a step p, and its slope along p."""
        slope = self.rotated @ (self.factor @ p) + self.tilt @ p
        return -slope - self.bend(p) / 2, slope

    def moved(self, p: jax.Array) -> "Model":
        """The same model as a function of steps from p."""
        tilt = self.tilt + jnp.where(self.curved, self.second @ p, 0)
        return self._replace(rotated=self.rotated + self.factor @ p, tilt=tilt)


class Measured(NamedTuple):
    """What the tests of convergence want to know of a point; residuals and Jacobian are rescaled by a robust loss."""

    residuals: jax.Array  # r [m]
    gradient: jax.Array  # Jᵀr [n]
    sizes: jax.Array  # norms of the columns of J, or estimates of them [n]
    rounding: jax.Array  # of the elements of the gradient [n]
    noise: jax.Array  # the rounding of the value, a scalar
    finite: jax.Array  # bool: residuals and Jacobian are


class Linear(NamedTuple):
    """A kind of linear model: its functions.

    Attributes:
        empty: (objective, params, dtype) -> a model before the first evaluation, a pytree.
        measure: (objective, params, dtype) -> aux, Measured, the model there with D = sizes, and a function that gives
            such models their methods `gradient`, `bend`, `decrease` and `moved`. It evaluates the residuals once.
    """

    empty: Callable
    measure: Callable


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


def _empty(objective: Any, params: Any, dtype: Any) -> Model:
    vector = jnp.zeros(to_vector(params).size, dtype)
    square = jnp.zeros((vector.size, vector.size), dtype)
    return Model(square, vector, vector, square, vector, jnp.array(False))


def _measure(objective: Any, params: Any, dtype: Any) -> tuple[Any, Measured, Model, Callable]:
    x = to_vector(params).astype(dtype)
    r, aux, jacobian = objective.jacobian(params)
    jacobian = jacobian.astype(dtype)
    r, factors = rescale(objective.rho, aux[0], r.astype(dtype))
    jacobian = jacobian if factors is None else jacobian * factors[:, None]
    factor, rotated = factorize(r, jacobian)
    sizes, eps = column_norms(jacobian), jnp.finfo(dtype).eps
    # Residuals are known to ε times their terms, of which |J| |x| measures the size; their errors add as squares do.
    terms = jnp.abs(jacobian) @ jnp.abs(x) + jnp.abs(r)
    rounding = ROUNDING * eps * column_norms(jacobian * terms[:, None])
    noise = ROUNDING * eps * jnp.linalg.norm(r * terms)
    finite = jnp.all(jnp.isfinite(r)) & jnp.all(jnp.isfinite(jacobian))
    zeros = jnp.zeros_like(x)
    model = Model(factor, rotated, sizes, jnp.zeros_like(factor), zeros, jnp.array(False))
    return aux, Measured(r, jacobian.T @ r, sizes, rounding, noise, finite), model, lambda model: model


DENSE = Linear(_empty, _measure)


def column_norms(matrix: jax.Array) -> jax.Array:
    """The Euclidean norm of each column, a vector [n]; squares neither overflow nor vanish."""
    largest = jnp.max(jnp.abs(matrix), axis=0, initial=0)
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return unit * tree.safe_sqrt(jnp.sum((matrix / unit[None]) ** 2, axis=0))


def steps(model: Model, free: jax.Array, radius: Any, rows: int) -> Steps:
    """The minimizer of the model and the minimizer in the trust region, in the coordinates that are free.

    Args:
        model: the model.
        free: bool [n]; the other coordinates do not move.
        radius: Δ, a scalar; infinite for the Gauss-Newton step alone.
        rows: m, the number of residuals: singular values below max(m, n) ε times the largest count as 0.

    Returns:
        Both steps; the first is infinite where the model has no minimizer.
    """
    curvature, slope, basis = jax.lax.cond(
        model.curved, _eigenvalues, functools.partial(_singular_values, rows), model, free
    )
    alpha = _damping(curvature, slope, radius)
    bounded = jnp.all((curvature > 0) | (slope == 0))
    newton, taken = (jnp.where(free, -(basis @ _damped(curvature, slope, a)) / model.scale, 0) for a in (0, alpha))
    return Steps(jnp.where(free & ~bounded, jnp.inf, newton), taken)


def _singular_values(rows, model, free):
    """Curvatures and slopes of |q + R p|² / 2 along the singular vectors of R D⁻¹, which are the basis."""
    left, s, right = jnp.linalg.svd(jnp.where(free[None], model.factor / model.scale[None], 0))
    s = jnp.where(s > max(rows, s.size) * jnp.finfo(s.dtype).eps * s[0], s, 0)
    return s * s, s * (left.T @ model.rotated), right.T


def _eigenvalues(model, free):
    """Curvatures and slopes of the model along the eigenvectors of D⁻¹ (RᵀR + S) D⁻¹, which are the basis."""
    scaled = jnp.where(free[None], model.factor / model.scale[None], 0)
    second = jnp.where(free[None] & free[:, None], model.second / jnp.outer(model.scale, model.scale), 0)
    curvature, basis = jnp.linalg.eigh(scaled.T @ scaled + second)
    return curvature, basis.T @ jnp.where(free, model.gradient / model.scale, 0), basis


def _damped(curvature, slope, alpha):
    """slope / (curvature + α): the length of the step along each vector of the basis, 0 where the slope is 0."""
    bottom = jnp.where((slope == 0) | (curvature + alpha == 0), 1, curvature + alpha)
    return slope / bottom


def _damping(curvature: jax.Array, slope: jax.Array, radius: Any) -> jax.Array:
    """α with |D p(α)| within a tenth of Δ, or the least that is allowed if the step is no longer than that with it.

    Newton's method for 1/Δ - 1/|D p(α)| = 0, from the left, where it is monotone (Moré, 1978, Eq. 5.5).
    """
    eps = jnp.finfo(curvature.dtype).eps
    lowest = jnp.min(jnp.where(slope == 0, jnp.inf, curvature))
    least = jnp.where(lowest > 0, 0, -lowest + eps * jnp.max(jnp.abs(curvature)))  # the model is convex above it
    least = jnp.where(jnp.isfinite(least), least, 0)

    def measure(alpha):
        z = _damped(curvature, slope, alpha)
        length = jnp.linalg.norm(z)
        unit = z / jnp.where(length > 0, length, 1)
        return length, jnp.sum(_damped(curvature, unit * unit, alpha))  # |D p| and -|D p|' / |D p|

    def is_far(state):
        _, length, _, count = state
        return (length > (1 + CLOSE) * radius) & (count < NEWTON)

    def improve(state):
        alpha, length, rate, count = state
        alpha = alpha + (length / radius - 1) / jnp.where(rate > 0, rate, 1)
        return alpha, *measure(alpha), count + 1

    return jax.lax.while_loop(is_far, improve, (least, *measure(least), jnp.zeros([], jnp.int32)))[0]


def curve(second: jax.Array, factor: jax.Array, s: jax.Array, y: jax.Array) -> jax.Array:
    """S after a step s that changed the gradient by y: then (RᵀR + S) s = y.

    Where the curvature s·y is not positive S is returned as it is. Reference: Dennis, Gay & Welsch, "An Adaptive
        Nonlinear Least-Squares Algorithm", 1981, Section 3.
    """
    sy = s @ y
    good = sy > jnp.finfo(s.dtype).eps * jnp.linalg.norm(s) * jnp.linalg.norm(y)
    sy = jnp.where(good, sy, 1)
    wanted = y - factor.T @ (factor @ s)
    old = s @ second @ s
    shrink = jnp.minimum(1, jnp.abs(s @ wanted) / jnp.where(old == 0, 1, jnp.abs(old)))
    second = jnp.where(good, shrink, 1) * second
    w = wanted - second @ s
    change = (jnp.outer(w, y) + jnp.outer(y, w)) / sy - (w @ s / sy) * jnp.outer(y, y / sy)
    change = jnp.where(jnp.all(jnp.isfinite(change)), change, 0)
    return jnp.where(good, second + change, second)


@jax.jit
def covariance(factor: jax.Array) -> jax.Array:
    """(RᵀR)⁻¹ = (JᵀJ)⁻¹ [n, n] of the triangular factor R [n, n] of the Jacobian at a solution.

    Times 2 cost / (m - n) it is the covariance of the parameters of a fit; with residuals in units of their standard
    deviation it is that as it is. A parameter that the residuals do not determine has an infinite variance, and its
    covariances are NaN; the others are those of the fit in which it is held.
    """
    n, eps = factor.shape[-1], jnp.finfo(factor.dtype).eps
    size = column_norms(factor)
    unit = jnp.where(size > 0, size, 1)
    _, s, right = jnp.linalg.svd(factor / unit[None])
    is_null = s <= 10 * n * eps * s[0]
    inverse = jnp.where(is_null, 0, 1 / jnp.where(is_null, 1, s))
    half = right.T * inverse[None] / unit[:, None]
    # A parameter is undetermined if a vector of the null space of J moves it.
    undetermined = jnp.any(is_null[None] & (jnp.abs(right.T) > jnp.sqrt(eps)), axis=1) | (size == 0)
    either = undetermined[:, None] | undetermined[None]
    result = jnp.where(either, jnp.nan, half @ half.T)
    return jnp.where(jnp.eye(n, dtype=bool) & undetermined[:, None], jnp.inf, result)
