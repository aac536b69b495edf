"""Newton's method for few parameters, with the whole Hessian.

dogleg    p on the path from x to the minimum along -g, and on to the Newton step      Powell, 1970

The Hessian is scaled to a diagonal of ones, S = D H D, and decomposed, S = V Λ Vᵀ. The path is that of B, which is
D⁻¹ V |Λ| Vᵀ D⁻¹: H itself where H is positive definite. Where it has a negative eigenvalue, the step is extended to the
radius along the eigenvector of the least one. Scaled, small eigenvalues are not lost in the rounding of large ones.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite.core.method import Objective, solver
from jaxopt_lite.core.numbers import Positive
from jaxopt_lite.core.vectors import from_vector, to_vector
from jaxopt_lite.solvers.trust_region import LocalModel, Proposal, trust_region_method

__all__ = ["dogleg"]

FLAT = 30.0  # eigenvalues above minus this times ε ‖H‖ are not negative


class Quadratic(NamedTuple):
    """The quadratic model at a point, of n real numbers; it does not depend on the radius."""

    hessian: jax.Array  # [n, n]
    newton: jax.Array  # [n], -B⁻¹g
    curvature: jax.Array  # gᵀBg / gᵀg
    lowest: jax.Array  # [n], a unit vector of negative curvature if there is one
    saddle: jax.Array  # bool
    terms: jax.Array  # [n], |H| |x|


@solver
def dogleg(first_radius: Positive = 1.0):
    """Powell's dogleg in a trust region, for few parameters: the Hessian is formed and decomposed after each step.

    For n real parameters (complex ones count twice) a step takes n products with the Hessian and about 9 n³ operations,
    so it suits up to a few hundred parameters; use `newton_cg` for more. A saddle is left along the eigenvector of the
    least eigenvalue, also where the gradient is zero.

    `solution.evaluations` counts values with gradients, and `solution.state.method_state.products` products with H.

    Args:
        first_radius: of the first trust region, above 0, in units of the larger of ‖x‖ and ‖g‖ / ‖H‖ at the start.

    Reference: Powell, "A New Algorithm for Unconstrained Optimization", 1970; Nocedal & Wright, "Numerical
        Optimization", 2006, Section 4.1.
    """

    def empty(params):
        x = jnp.zeros_like(to_vector(params))
        zero = jnp.zeros([], x.dtype)
        return Quadratic(jnp.zeros((x.size, x.size), x.dtype), x, zero, x, jnp.array(False), x)

    def build(objective: Objective, x, g, memory, moved):
        vector = to_vector(x)

        def at_x():
            gradient = lambda v: to_vector(objective.value_and_grad(from_vector(v, x))[2])
            _, push = jax.linearize(gradient, vector)
            hessian = jax.vmap(push)(jnp.eye(vector.size, dtype=vector.dtype))
            return _quadratic(hessian, to_vector(g), vector), jnp.asarray(vector.size, jnp.int32)

        model, products = jax.lax.cond(moved, at_x, lambda: (memory, jnp.zeros([], jnp.int32)))
        return (
            LocalModel(model, from_vector(model.terms, x), jnp.max(jnp.abs(model.hessian), initial=0)),
            model,
            products,
        )

    def propose(model: LocalModel, g, radius, near, at_end):
        hessian, newton, curvature, lowest, saddle, _ = model.hessian
        delta = radius.astype(newton.dtype)
        gradient = to_vector(g)
        norm = _norm(gradient)
        unit = gradient / jnp.where(norm == 0, 1, norm)
        # y = p / Δ
        length = jnp.where(norm == 0, 0, norm / jnp.where(curvature > 0, curvature * delta, 0))
        y, at_radius = _path(unit, length, newton / delta)
        side = jnp.where(jnp.sum(lowest * unit) > 0, -lowest, lowest)
        y = jnp.where(saddle & ~at_radius, y + _reach(y, side) * side, y)
        at_radius = at_radius | saddle
        predicted = -delta * (norm * jnp.sum(unit * y) + delta * jnp.sum(y * (hessian @ y)) / 2)
        decrement = jnp.where(at_radius, jnp.inf, predicted)
        real = lambda x: x.astype(radius.dtype)
        p = from_vector(delta * y, g)
        return Proposal(p, real(predicted), at_radius, real(decrement), saddle), jnp.zeros([], jnp.int32)

    return trust_region_method(empty, build, propose, first_radius)


def _quadratic(hessian: jax.Array, g: jax.Array, x: jax.Array) -> Quadratic:
    """The model of a Hessian [n, n] and a gradient [n] at x [n]."""
    hessian = jnp.where(jnp.all(jnp.isfinite(hessian)), hessian, 0)
    diagonal = jnp.abs(jnp.diagonal(hessian))
    diagonal = jnp.where(diagonal > 0, diagonal, jnp.max(jnp.abs(hessian), axis=1, initial=0))
    d = 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    values, v = jnp.linalg.eigh(d[:, None] * hessian * d[None])
    largest = jnp.max(jnp.abs(values), initial=0)
    eps = jnp.finfo(values.dtype).eps
    b = jnp.maximum(jnp.abs(values), eps * jnp.where(largest > 0, largest, 1))
    newton = -d * (v @ ((d * g) @ v / b))
    norm = _norm(g)
    curvature = jnp.sum(jnp.abs(values) * ((g / jnp.where(norm == 0, 1, norm) / d) @ v) ** 2)
    lowest = d * v[:, 0]
    saddle = values[0] < -FLAT * eps * largest
    return Quadratic(hessian, newton, curvature, lowest / _norm(lowest), saddle, jnp.abs(hessian) @ jnp.abs(x))


def _path(unit: jax.Array, length: jax.Array, newton: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The dogleg step within ‖y‖ <= 1, and whether it is at 1.

    Args:
        unit: g / ‖g‖, [n].
        length: of the step to the minimum along -g; infinite where B = 0.
        newton: the Newton step, [n].
    """
    short = (_norm(newton) <= 1) & jnp.isfinite(length)
    cauchy = -jnp.minimum(length, 1) * unit
    leg = newton - cauchy
    size = _norm(leg)
    leg = leg / jnp.where((size > 0) & jnp.isfinite(size), size, 1)
    bent = cauchy + jnp.minimum(_reach(cauchy, leg), size) * leg
    return jnp.where(short, newton, jnp.where(length < 1, bent, cauchy)), ~short


def _reach(y: jax.Array, d: jax.Array) -> jax.Array:
    """The positive root s of ‖y + s d‖ = 1, for ‖y‖ <= 1 and ‖d‖ = 1; Nocedal & Wright, Eq. (4.16)."""
    half, room = jnp.sum(y * d), jnp.maximum(1 - jnp.sum(y * y), 0)
    root = jnp.sqrt(half * half + room)
    return jnp.where(half > 0, room / jnp.where(half + root > 0, half + root, 1), root - half)


def _norm(x):
    scale = jnp.max(jnp.abs(x), initial=0)
    safe = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
    return safe * jnp.sqrt(jnp.sum((x / safe) ** 2))
