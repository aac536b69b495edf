"""Robust losses of residuals: the cost is ½ Σ C² ρ(rᵢ² / C²), where C is the size of a residual that is an inlier.

    linear     ρ(z) = z
    huber      ρ(z) = z for z <= 1, else 2 √z - 1
    soft_l1    ρ(z) = 2 (√(1 + z) - 1)
    cauchy     ρ(z) = log(1 + z)
    arctan     ρ(z) = arctan(z)

They are those of `scipy.optimize.least_squares`. A method for sums of squares minimizes such a cost with residuals and
Jacobian that are scaled so that JᵀJ and Jᵀr are its (Gauss-Newton) Hessian and its gradient: Triggs et al., "Bundle
Adjustment - A Modern Synthesis", 2000, Section 4.3.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.vectors import to_vector

__all__ = ["LOSSES", "rescale", "rho"]


def _huber(z):
    large = jnp.where(z > 1, z, 1)  # so that the derivative of the root is finite at 0
    return jnp.where(z > 1, 2 * jnp.sqrt(large) - 1, z)


def _soft_l1(z):
    return 2 * z / (jnp.sqrt(1 + z) + 1)  # 2 (√(1 + z) - 1) without cancellation


LOSSES: dict[str, Callable] = {
    "linear": lambda z: z,
    "huber": _huber,
    "soft_l1": _soft_l1,
    "cauchy": jnp.log1p,
    "arctan": jnp.arctan,
}


def rho(loss: Any, f_scale: Any = 1.0) -> Callable | None:
    """The function of squared residuals, z -> C² ρ(z / C²), for `Objective(rho=...)`; None for "linear".

    Args:
        loss: "linear", "huber", "soft_l1", "cauchy" or "arctan", or a function ρ of an array of squared residuals in
            units of C², elementwise, with ρ(0) = 0 and ρ'(0) = 1.
        f_scale: C, a positive number: residuals smaller than it are inliers.

    Raises:
        ValueError: if a name is not one of these.
        TypeError: if `loss` is neither a name nor a function.
    """
    if isinstance(loss, str) and loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(map(repr, LOSSES))} or a function of z, got {loss!r}")
    if not isinstance(loss, str) and not callable(loss):
        raise TypeError(f"loss must be a name or a function of squared residuals, got {loss!r}")
    if loss == "linear":
        return None
    of_units = LOSSES[loss] if isinstance(loss, str) else loss

    def scaled(z):
        square = jnp.asarray(f_scale, z.dtype) ** 2
        return square * of_units(z / square)

    return scaled


def rescale(rho: Any, residuals: Any, r: jax.Array) -> tuple[jax.Array, Any]:
    """The residuals, and the factors of the rows of the Jacobian, with which JᵀJ and Jᵀr are those of ½ Σ ρ(|rᵢ|²).

    Args:
        rho: ρ, elementwise, or None for the identity.
        residuals: a tree of arrays.
        r: the same as a real vector [m].

    Returns:
        Residuals [m], and factors [m], or None where they are 1.

    Rows where ρ is concave beyond √ε ρ' keep that much curvature: the Hessian stays positive, and so do enough digits
    of the scaled residual. Of a complex residual only ρ' is taken into account.
    """
    if rho is None:
        return r, None
    first, second = (to_vector(jax.tree.map(lambda x, d=d: _derivatives(rho, x)[d], residuals)) for d in (0, 1))
    curvature = jnp.maximum(first + 2 * second * r * r, jnp.sqrt(jnp.finfo(r.dtype).eps) * first)
    root = jnp.sqrt(jnp.where(curvature > 0, curvature, 1))
    root = jnp.where(curvature > 0, root, 0)
    return jnp.where(curvature > 0, r * first / jnp.where(root > 0, root, 1), 0), root


def _derivatives(rho: Callable, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """ρ' and ρ'' at |x|², one for each real number of x."""
    z = tree.abs_sq(x)
    one = jnp.ones_like(z)
    slope = lambda z: jax.jvp(rho, (z,), (one,))[1]
    first, second = jax.jvp(slope, (z,), (one,))
    if jnp.iscomplexobj(x):
        return jax.lax.complex(first, first), jnp.zeros_like(x)
    return first, second
