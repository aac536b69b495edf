"""Newton's method for few parameters, with the whole Hessian.

dogleg    p on the path from x to the minimum along -g, and on to the Newton step      Powell, 1970

The Hessian is decomposed, H = V Λ Vᵀ, and the path is that of B = V |Λ| Vᵀ, which is H where H is positive definite.
Where H has a negative eigenvalue, the step is extended to the radius along the eigenvector of the least one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite.core.method import Objective, solver
from jaxopt_lite.core.numbers import Positive
from jaxopt_lite.core.vectors import from_vector, to_vector
from jaxopt_lite.solvers.trust_region import Model, Proposal, trust_region_method

__all__ = ["dogleg"]

FLAT = 30.0  # eigenvalues above minus this times ε ‖H‖ are not negative


class Eigen(NamedTuple):
    """The Hessian of n real numbers, decomposed."""

    values: jax.Array  # [n], in increasing order
    vectors: jax.Array  # [n, n], in columns
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
        x = to_vector(params)
        return Eigen(jnp.zeros_like(x), jnp.zeros((x.size, x.size), x.dtype), jnp.zeros_like(x))

    def build(objective: Objective, x, g, memory, moved):
        def decompose():
            like, vector = x, to_vector(x)
            _, push = jax.linearize(lambda v: to_vector(objective.value_and_grad(from_vector(v, like))[2]), vector)
            hessian = jax.vmap(push)(jnp.eye(vector.size, dtype=vector.dtype))
            hessian = jnp.where(jnp.all(jnp.isfinite(hessian)), hessian, 0)
            values, vectors = jnp.linalg.eigh(hessian)
            return Eigen(values, vectors, jnp.abs(hessian) @ jnp.abs(vector)), jnp.asarray(vector.size, jnp.int32)

        eigen, products = jax.lax.cond(moved, decompose, lambda: (memory, jnp.zeros([], jnp.int32)))
        size = jnp.max(jnp.abs(eigen.values), initial=0)
        return Model(eigen, from_vector(eigen.terms, x), size), eigen, products

    def propose(model: Model, g, radius, near, at_end):
        values, vectors, _ = model.hessian
        real = lambda x: jnp.asarray(x, values.dtype)
        eps, most = jnp.finfo(values.dtype).eps, jnp.finfo(values.dtype).max
        a = to_vector(g) @ vectors
        norm = _norm(a)
        a = a / jnp.where(norm == 0, 1, norm)
        # In units of Δ for p and of ‖g‖ for g
        values = jnp.clip(values * (real(radius) / jnp.where(norm == 0, 1, norm)), -most / 4, most / 4)
        largest = jnp.max(jnp.abs(values), initial=0)
        b = jnp.maximum(jnp.abs(values), eps * jnp.maximum(largest, 1))
        y, at_radius = _path(a, b)

        saddle = values[0] < -FLAT * eps * largest
        direction = jnp.where(a[0] > 0, -1, 1)
        others = jnp.sum(y[1:] ** 2)
        out = direction * jnp.sqrt(jnp.maximum(1 - others, 0))  # not shorter than y[0], and of its sign
        y = y.at[0].set(jnp.where(saddle, out, y[0]))
        model_change = jnp.sum(a * y) + jnp.sum(values * y * y) / 2
        predicted = -model_change * norm * real(radius)
        newton = jnp.where(at_radius | saddle, jnp.inf, predicted)
        p = from_vector(real(radius) * (vectors @ y), g)
        to = lambda x: x.astype(radius.dtype)
        return Proposal(p, to(predicted), at_radius | saddle, to(newton), saddle), jnp.zeros([], jnp.int32)

    return trust_region_method(empty, build, propose, first_radius)


def _path(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The dogleg step for the gradient a [n] and the eigenvalues b [n] > 0 within ‖y‖ <= 1, and whether it is at 1."""
    aa = jnp.sum(a * a)
    cauchy = -a * aa / jnp.where(aa == 0, 1, jnp.sum(b * a * a))
    newton = -a / b
    short, steep = _norm(newton) <= 1, _norm(cauchy) >= 1
    leg = newton - cauchy
    # The positive root of ‖cauchy + s leg‖ = 1, Nocedal & Wright, Eq. (4.16)
    square, half, room = jnp.sum(leg * leg), jnp.sum(cauchy * leg), jnp.maximum(1 - jnp.sum(cauchy * cauchy), 0)
    square = jnp.where(square == 0, 1, square)
    s = room / (half + jnp.sqrt(half * half + square * room) + jnp.finfo(a.dtype).tiny)
    bent = cauchy + jnp.clip(s, 0, 1) * leg
    return jnp.where(short, newton, jnp.where(steep, -a / jnp.sqrt(jnp.where(aa == 0, 1, aa)), bent)), ~short


def _norm(x):
    scale = jnp.max(jnp.abs(x), initial=0)
    safe = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
    return safe * jnp.sqrt(jnp.sum((x / safe) ** 2))
