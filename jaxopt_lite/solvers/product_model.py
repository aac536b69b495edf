"""The linear model of residuals by products J v and Jᵀu only, for thousands of parameters.

The Gauss-Newton step p is that of LSMR for min |r + J p|, in units of D. A step within the trust region lies on the
path from zero to the minimum along -D⁻²Jᵀr, and from there to p (Powell's dogleg). D holds estimates of the norms of
the columns of J: of random signs u each (Jᵀu)ⱼ² is an unbiased estimate of |Jⱼ|² (Bekas, Kokiopoulou & Saad, "An
Estimator for the Diagonal of a Matrix", 2007).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite.core.vectors import from_vector, to_vector
from jaxopt_lite.solvers.krylov import adjoint, lsmr
from jaxopt_lite.solvers.linear_model import ROUNDING, Linear, Measured, Steps
from jaxopt_lite.solvers.robust import rescale

__all__ = ["PRODUCTS", "Products", "product_steps"]

PROBES = 8  # random vectors for the norms of columns
LEFT = 1e-3  # the share of the gradient that may be left by LSMR, of the model at the end of its step
SOLVED = 0.1  # the share up to which the step of LSMR counts as the Gauss-Newton step


class Products(NamedTuple):
    """The linear model at a point, as it is carried from step to step: ½ |r + J p|²."""

    arrays: list  # of which the linear function v -> J v is made
    factors: Any  # of the rows of J, [m], or None
    residuals: jax.Array  # r [m]
    gradient: jax.Array  # Jᵀr [n]
    scale: jax.Array  # D [n], positive


class ProductModel:
    """The model with its methods, as `linear_model.Model` has them."""

    def __init__(self, model: Products, push: Callable):
        self.model, self.push = model, push
        self.pull = adjoint(push, model.scale)
        self.residuals, self.gradient, self.scale = model.residuals, model.gradient, model.scale

    def bend(self, p: jax.Array) -> jax.Array:
        """The second derivative along p, |J p|²."""
        return jnp.sum(self.push(p) ** 2)

    def decrease(self, p: jax.Array) -> tuple[jax.Array, jax.Array]:
        """How much the model decreases by a step p, and its slope along p."""
        change = self.push(p)
        slope = self.residuals @ change
        return -slope - change @ change / 2, slope

    def moved(self, p: jax.Array) -> "ProductModel":
        """The same model as a function of steps from p."""
        residuals = self.residuals + self.push(p)
        return ProductModel(self.model._replace(residuals=residuals, gradient=self.pull(residuals)), self.push)


def _linearize(objective, params, dtype):
    def flat(x):
        residuals, aux = objective.residual(from_vector(x, params))
        return to_vector(residuals).astype(dtype), aux

    return jax.linearize(flat, to_vector(params).astype(dtype), has_aux=True)


def _empty(objective: Any, params: Any, dtype: Any) -> Products:
    r, push, _ = jax.eval_shape(lambda params: _linearize(objective, params, dtype), params)
    zeros = lambda like: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
    x = jnp.zeros_like(to_vector(params), dtype)
    return Products(zeros(jax.tree.leaves(push)), None if objective.rho is None else zeros(r), zeros(r), x, x)


def _measure(objective: Any, params: Any, dtype: Any) -> tuple[Any, Measured, Products, Callable]:
    x = to_vector(params).astype(dtype)
    r, push, aux = _linearize(objective, params, dtype)
    r, factors = rescale(objective.rho, aux[0], r)
    arrays, structure = jax.tree.flatten(push)

    def opened(model: Products) -> ProductModel:
        push = structure.unflatten(model.arrays)
        return ProductModel(model, push if model.factors is None else lambda v: model.factors * push(v))

    eps = jnp.finfo(dtype).eps
    here = opened(Products(arrays, factors, r, jnp.zeros_like(x), x))
    terms = jnp.abs(here.push(x)) + jnp.abs(r)
    signs = jax.random.rademacher(jax.random.key(0), (PROBES, r.size), dtype)
    squares = jax.lax.map(lambda u: (here.pull(u) ** 2, here.pull(u * terms) ** 2), signs)
    sizes, rough = (jnp.sqrt(jnp.mean(s, axis=0)) for s in squares)
    gradient = here.pull(r)
    finite = jnp.all(jnp.isfinite(r)) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(sizes))
    noise = ROUNDING * eps * jnp.linalg.norm(r * terms)
    measured = Measured(r, gradient, sizes, ROUNDING * eps * rough, noise, finite)
    return aux, measured, Products(arrays, factors, r, gradient, sizes), opened


PRODUCTS = Linear(_empty, _measure)


def product_steps(model: ProductModel, free: jax.Array, radius: Any, limit: int) -> Steps:
    """The Gauss-Newton step and the step within the trust region, in the coordinates that are free.

    Args:
        model: the model.
        free: bool [n]; the other coordinates do not move.
        radius: Δ, a scalar.
        limit: the largest number of steps of LSMR.

    Returns:
        Both steps; the first is infinite where LSMR has not found it.
    """
    units = jnp.where(free, 1 / model.scale, 0)
    push, pull = (lambda z: model.push(units * z)), (lambda u: units * model.pull(u))
    r, norm = model.residuals, jnp.linalg.norm
    g = pull(r)
    tol = LEFT * norm(g) / (jnp.sqrt(g.size) * jnp.where(norm(r) > 0, norm(r), 1))
    z = lsmr(push, pull, -r, g, tol=tol, max_steps=limit)
    solved = norm(pull(r + push(z))) <= SOLVED * norm(g)

    bend = norm(push(g))
    t = (norm(g) / jnp.where(bend > 0, bend, 1)) ** 2
    t = jnp.minimum(t, radius / jnp.where(norm(g) > 0, norm(g), 1))  # -t g is the minimum, or the edge before it
    # |-t g + τ (z + t g)| = Δ
    d = z + t * g
    a, b, c = d @ d, -t * (g @ d), jnp.maximum(radius**2 - t**2 * (g @ g), 0)
    root = jnp.sqrt(b * b + a * c)
    share = jnp.where(b > 0, c / jnp.where(b + root > 0, b + root, 1), (root - b) / jnp.where(a > 0, a, 1))
    share = jnp.where(norm(z) <= radius, 1, jnp.clip(share, 0, 1))
    taken = units * (share * d - t * g)
    return Steps(jnp.where(free & ~solved, jnp.inf, units * z), jnp.where(share == 1, units * z, taken))
