"""Newton's method for many parameters: the trust-region model is minimized by products with the Hessian only.

Newton-CG    p by conjugate gradients on H p = -g, ended at the radius or at negative curvature    Steihaug, 1983
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Objective, solver
from jaxopt_lite.core.numbers import Positive
from jaxopt_lite.solvers.krylov import along
from jaxopt_lite.solvers.trust_region import LocalModel, Proposal, magnitudes, trust_region_method
from jaxopt_lite.tree import inner

__all__ = ["newton_cg"]

EXACT = 1e-3  # relative residual of a Newton step from which the end of a solve is judged
FLAT = 30.0  # curvature above minus this times ε ‖H‖ is not negative


@solver
def newton_cg(first_radius: Positive = 1.0, *, products: int = 200):
    """Newton-CG with a trust region: Newton steps from products with the Hessian, for few or many parameters.

    Negative curvature is followed, and before a solve is called converged, negative curvature is also searched from a
    pseudo-random vector: a saddle is left even where the gradient has no component along the way out. The search ends
    after as many products as there are parameters, or `products`, so a saddle with a slight negative curvature among
    very many parameters may not be seen.

    `solution.evaluations` counts values with gradients. Products with the Hessian, each about twice as dear, are
    counted in `solution.state.method_state.products`.

    Args:
        first_radius: of the first trust region, above 0, in units of the larger of ‖x‖ and ‖g‖ / ‖H‖ at the start.
        products: the largest number of products with the Hessian in one step, at least 1.

    Raises:
        ValueError: if products is less than 1.

    Reference: Steihaug, "The Conjugate Gradient Method and Trust Regions in Large Scale Optimization", 1983; Nocedal &
        Wright, "Numerical Optimization", 2006, Algorithms 4.1 and 7.2.
    """
    if not isinstance(products, int) or products < 1:
        raise ValueError(f"newton_cg: products must be an int of at least 1, got {products!r}")

    def build(objective: Objective, x, g, memory, moved):
        _, push = jax.linearize(lambda p: objective.value_and_grad(p)[2], x)
        hessian = lambda v: tree.cast_like(push(v), x)
        signs = _pseudo_random(x)
        norm_x, norm_g = tree.global_norm(x), tree.global_norm(g)
        # Two products, with the halves of x, for terms that would cancel each other. At x = 0 with g, for the size.
        is_zero = norm_x == 0
        half = lambda side: jax.tree.map(lambda x, s: jnp.where(side * s.real > 0, x, jnp.zeros_like(x)), x, signs)
        a, b = (hessian(tree.where(is_zero, g, half(side))) for side in (1, -1))
        length = jnp.where(is_zero, 2 * norm_g, norm_x)
        size = (tree.global_norm(a) + tree.global_norm(b)) / jnp.where(length == 0, 1, length)
        terms = jax.tree.map(lambda a, b: magnitudes(a) + magnitudes(b), a, b)
        terms = tree.where(is_zero, jax.tree.map(jnp.zeros_like, terms), terms)
        return LocalModel((hessian, signs), terms, size), memory, jnp.full([], 2, jnp.int32)

    def propose(model: LocalModel, g, radius, near, at_end):
        hessian, signs = model.hessian
        norm = tree.global_norm(g).astype(radius.dtype)
        eta = jnp.where(near, EXACT, 0.1)
        newton = steihaug(hessian, g, norm, radius, eta, products)
        exact = ~newton.at_radius & (newton.residual <= eta)
        looks = at_end | near
        size = sum(leaf.size * (1 + jnp.iscomplexobj(leaf)) for leaf in jax.tree.leaves(g))
        length = tree.global_norm(signs).astype(radius.dtype)
        probe = steihaug(
            hessian, signs, length, jnp.full_like(radius, jnp.inf), 0.0, jnp.where(looks, min(size, products), 0)
        )
        out = inner(g, probe.direction)
        size_out = tree.global_norm(probe.direction).astype(radius.dtype)
        t = jnp.where(out > 0, -radius, radius) / jnp.where(size_out == 0, 1, size_out)
        away = jax.tree.map(lambda d: t.astype(d.real.dtype) * d, probe.direction)
        rise = t * out.astype(radius.dtype) + t * t * probe.curvature / 2
        p, predicted, at_radius = tree.where(
            probe.negative, (away, -rise, jnp.array(True)), (newton.step, newton.predicted, newton.at_radius)
        )
        decrement = jnp.where(exact, newton.predicted, jnp.inf)
        return Proposal(p, predicted, at_radius, decrement, probe.negative), newton.steps + probe.steps

    return trust_region_method(lambda params: (), build, propose, first_radius)


class Steihaug(NamedTuple):
    """The end of a run of conjugate gradients within a radius."""

    step: Any
    predicted: jax.Array
    at_radius: jax.Array  # bool
    residual: jax.Array  # ‖H p + g‖ / ‖g‖
    negative: jax.Array  # bool: whether it ended at negative curvature
    direction: Any  # the last one
    curvature: jax.Array  # dᵀHd, of the last direction
    steps: jax.Array  # int32


def steihaug(hessian: Callable, g: Any, norm: jax.Array, radius: jax.Array, eta: Any, max_steps: Any) -> Steihaug:
    """Minimize gᵀp + ½ pᵀHp for ‖p‖ <= Δ approximately, by conjugate gradients from p = 0.

    It works on y = p / Δ and g / ‖g‖, so that neither overflows; Δ may be infinite, then y = p / ‖g‖.

    Args:
        hessian: v -> H v.
        g: a tree.
        norm: ‖g‖.
        radius: Δ.
        eta: it ends when ‖H p + g‖ <= eta ‖g‖.
        max_steps: the largest number of products, may be traced.

    Reference: Nocedal & Wright, 2006, Algorithm 7.2.
    """
    bounded = jnp.isfinite(radius)
    safe = jnp.where(norm == 0, 1, norm)
    unit = jax.tree.map(lambda w: w / safe.astype(w.real.dtype), g)
    ratio = jnp.where(bounded, radius / safe, 1)
    eps = jnp.finfo(norm.dtype).eps
    real = lambda x: x.astype(norm.dtype)
    still = jax.tree.map(jnp.zeros_like, g)
    zero, one, no = jnp.zeros_like(norm), jnp.ones_like(norm), jnp.array(False)
    first = {
        **{"y": still, "r": unit, "d": jax.tree.map(jnp.negative, unit), "rr": jnp.where(norm == 0, 0, one)},
        **{"curvature": zero, "size": zero, "negative": no, "at_radius": no, "k": jnp.zeros([], jnp.int32)},
    }

    def is_running(s):
        inside = ~s["at_radius"] & ~s["negative"] & (s["rr"] > eta * eta) & (s["rr"] > 0)
        return inside & jnp.isfinite(s["rr"]) & (s["k"] < max_steps)

    def step(s):
        y, r, d = s["y"], s["r"], s["d"]
        product = hessian(d)
        product = tree.where(tree.all_finite(product), product, still)
        product = jax.tree.map(lambda w: ratio.astype(w.real.dtype) * w, product)
        curvature, dd = real(inner(d, product)), real(inner(d, d))
        size = jnp.maximum(s["size"], real(tree.global_norm(product)) / jnp.sqrt(dd))
        alpha = s["rr"] / jnp.where(curvature > 0, curvature, 1)
        # The positive root of ‖y + τ d‖ = 1
        yd, yy = real(inner(y, d)), real(inner(y, y))
        root = jnp.sqrt(jnp.maximum(yd * yd + dd * jnp.maximum(1 - yy, 0), 0))
        tau = jnp.where(yd > 0, jnp.maximum(1 - yy, 0) / (yd + root), (root - yd) / dd)
        flat = ~(curvature > 0)
        leaves = bounded & (flat | (alpha >= tau))
        t = jnp.where(leaves, tau, jnp.where(flat, 0, alpha))
        y, r = along(y, t, d), along(r, t, product)
        rr = jnp.where(flat & ~bounded, 0, real(inner(r, r)))
        beta = rr / s["rr"]
        negative = curvature < -FLAT * eps * size * dd
        ended = leaves | negative
        d = tree.where(ended, d, jax.tree.map(lambda r, d: beta.astype(d.real.dtype) * d - r, r, d))
        return {
            **{"y": y, "r": r, "d": d, "rr": rr, "curvature": curvature, "size": size},
            **{"negative": negative, "at_radius": leaves, "k": s["k"] + 1},
        }

    s = jax.lax.while_loop(is_running, step, first)
    scale = jnp.where(bounded, radius, norm)
    p = jax.tree.map(lambda y: scale.astype(y.real.dtype) * y, s["y"])
    both = jax.tree.map(jnp.add, unit, s["r"])  # H y = r - g
    predicted = -scale * norm * real(inner(s["y"], both)) / 2
    return Steihaug(
        *(p, predicted, s["at_radius"], jnp.sqrt(s["rr"]), s["negative"]),
        *(s["d"], s["curvature"] / ratio, s["k"]),
    )


def _pseudo_random(like: Any) -> Any:
    """A tree of numbers between -1 and 1 without a pattern, always the same."""
    leaves, structure = jax.tree.flatten(like)

    def numbers(leaf, i):
        dtype = leaf.real.dtype
        x = jax.lax.iota(dtype, leaf.size).reshape(leaf.shape)
        wave = lambda shift: jnp.cos((x + 1) * (x + 1) * 0.618 + shift).astype(dtype)
        return jax.lax.complex(wave(i), wave(i + 0.5)) if jnp.iscomplexobj(leaf) else wave(i)

    return structure.unflatten([numbers(leaf, 1.7 * i) for i, leaf in enumerate(leaves)])
