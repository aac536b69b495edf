"""Bounds on each parameter, l <= x <= u: moving along them, and the part of a gradient that they leave.

A parameter is held where it stands on a bound and the negative gradient points out of the box. The gradient without
the held parameters is zero exactly where the conditions of first order hold, and scales with f, unlike P(x - g) - x.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Objective

__all__ = ["Box", "box_of", "clip", "moved", "reduced"]


class Box(NamedTuple):
    """Bounds as trees of arrays like params, infinite where there is none."""

    lower: Any
    upper: Any


def box_of(objective: Objective, params: Any) -> Box:
    """The bounds of an objective as trees of arrays like params, infinite where there are none.

    Raises:
        TypeError: for bounds of complex parameters.
    """

    def like(bounds, infinity):
        if bounds is None:
            return jax.tree.map(lambda x: jnp.full_like(x, infinity), params)
        if any(jnp.iscomplexobj(x) for x in jax.tree.leaves(params)):
            raise TypeError("complex parameters have no bounds; minimize over their real and imaginary parts")
        return jax.tree.map(lambda x, b: jnp.broadcast_to(tree.cast(b, x.dtype), x.shape), params, bounds)

    return Box(like(objective.lower, -jnp.inf), like(objective.upper, jnp.inf))


def clip(params: Any, box: Box | None) -> Any:
    """The nearest point in the box."""
    if box is None:
        return params

    def nearest(x, low, high):
        return x if jnp.iscomplexobj(x) else jnp.clip(x, low, high)

    return jax.tree.map(nearest, params, box.lower, box.upper)


def moved(params: Any, t: Any, direction: Any, box: Box | None) -> Any:
    """x + t d, clipped; exactly on a bound where it is within rounding of it."""
    new = jax.tree.map(lambda x, d: x + t.astype(x.real.dtype) * d, params, direction)
    if box is None:
        return new

    def snap(x, new, low, high):
        if jnp.iscomplexobj(x):
            return new
        rounding = 4 * jnp.finfo(x.dtype).eps * jnp.maximum(jnp.abs(x), jnp.abs(new))
        return jnp.where(new - low <= rounding, low, jnp.where(high - new <= rounding, high, new))

    # A parameter that does not move keeps its bits, unless it stood outside.
    still = jax.tree.map(
        lambda x, new, s: jnp.where(new == x, x, s), params, new, jax.tree.map(snap, params, new, *box)
    )
    return clip(still, box)


def reduced(params: Any, vector: Any, box: Box | None) -> Any:
    """A gradient with zeros where a step against it would leave the box."""
    if box is None:
        return vector

    def keep(x, g, low, high):
        if jnp.iscomplexobj(x):
            return g
        return jnp.where(((x <= low) & (g > 0)) | ((x >= high) & (g < 0)), 0, g)

    return jax.tree.map(keep, params, vector, *box)
