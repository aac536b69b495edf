"""Bounds of a vector of parameters, and steps of the linear model that stay within them.

A step is first computed without bounds, in the coordinates that are free: a coordinate at a bound to which the gradient
pushes it is held. Coordinates that it would carry over a bound are put exactly on the bound, and the step is computed
again in the others, until none is carried over. Where the model decreases less by that than by half of what a
projected step along the gradient brings, that one is taken: a method whose steps all bring a fixed share of the
decrease along the projected gradient converges (Conn, Gould & Toint, "Trust-Region Methods", 2000, Section 12.2).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.vectors import to_vector
from jaxopt_lite.solvers.linear_model import Steps

__all__ = ["VectorBox", "vector_box", "step_in_box"]

PASSES = 20  # times at most that the step is computed again with more coordinates held; the rest is cut off
SHORTER = 16  # number of projected steps along the gradient that are compared, each a quarter of the one before


class VectorBox(NamedTuple):
    """Lower and upper bounds, vectors [n]; both None for a problem without bounds."""

    lower: Any
    upper: Any

    @property
    def is_all(self) -> bool:
        """Whether there are no bounds."""
        return self.lower is None

    @property
    def exists(self) -> jax.Array:
        """Whether any point lies within, a bool scalar; not with NaN among the bounds."""
        return jnp.array(True) if self.is_all else jnp.all(self.lower <= self.upper)

    def clip(self, x: jax.Array) -> jax.Array:
        """The nearest point within."""
        return x if self.is_all else jnp.clip(x, self.lower, self.upper)

    def active(self, x: jax.Array, gradient: jax.Array) -> jax.Array:
        """The coordinates at a bound to which the negative gradient pushes them, bool [n]."""
        if self.is_all:
            return jnp.zeros(x.shape, bool)
        low, high = x <= self.lower, x >= self.upper
        return (low & high) | (low & (gradient >= 0)) | (high & (gradient <= 0))


def vector_box(objective: Any, params: Any) -> VectorBox:
    """The bounds of an objective as vectors in the dtypes of params; a bound of None for the whole tree is infinite."""
    if objective.lower is None and objective.upper is None:
        return VectorBox(None, None)

    def vector(bound, default):
        if not _is_tree(bound, params):
            bound = jax.tree.map(lambda _: default if bound is None else bound, params)
        full = jax.tree.map(lambda b, p: jnp.broadcast_to(jnp.asarray(b, tree.dtype_of(p)), p.shape), bound, params)
        return to_vector(full)

    return VectorBox(vector(objective.lower, -jnp.inf), vector(objective.upper, jnp.inf))


def _is_tree(bound, params):
    return jax.tree.structure(bound) == jax.tree.structure(params)


def step_in_box(
    box: VectorBox,
    model: Any,
    x: jax.Array,
    active: jax.Array,
    propose: Callable[[Any, Any, Any], Steps],
    radius: Any,
) -> tuple[jax.Array, jax.Array]:
    """The Gauss-Newton step in the free coordinates, and the point to try.

    Args:
        box: the bounds; x lies within.
        model: the linear model at x.
        x: the point [n].
        active: the coordinates that are held, bool [n].
        propose: (model, free coordinates, radius) -> Steps.
        radius: how far the step may go.
    """
    if box.is_all:
        newton, taken = propose(model, ~active, radius)
        return newton, x + taken

    def is_running(state):
        *_, outside, count = state
        return (count == 0) | jnp.any(outside) & (count < PASSES)

    def hold(state):
        first, p, held, outside, count = state
        free = ~(held | outside)
        # Those held keep the displacement to their bound; the model of the others begins there.
        fixed = jnp.where(free | active, 0, box.clip(x + p) - x)
        used = jnp.linalg.norm(model.scale * fixed) / jnp.maximum(jnp.linalg.norm(model.scale * p), tiny)
        rest = radius * jnp.sqrt(jnp.maximum(1 - used**2, 0.01))
        made = propose(model.moved(fixed), free, rest)
        p = jnp.where(free, made.taken, fixed)
        over = free & ((x + p < box.lower) | (x + p > box.upper))
        return tree.where(count == 0, made, first), p, held | outside, over, count + 1

    tiny, zeros = jnp.finfo(x.dtype).tiny, jnp.zeros_like(x)
    start = (Steps(zeros, zeros), zeros, active, jnp.zeros_like(active), jnp.zeros([], jnp.int32))
    (newton, taken), p, *_ = jax.lax.while_loop(is_running, hold, start)
    point = box.clip(x + p)

    # Projected steps along the negative gradient, in units of D, no longer than the first step.
    gradient = jnp.where(active, 0, model.gradient)
    h = gradient / model.scale**2
    bend = jnp.sqrt(jnp.maximum(model.bend(h), 0))
    slope = jnp.linalg.norm(gradient / model.scale)
    length = jnp.linalg.norm(model.scale * taken)
    t = jnp.minimum(
        jnp.where(bend > 0, slope / jnp.where(bend > 0, bend, 1), jnp.inf) ** 2, length / jnp.where(slope > 0, slope, 1)
    )
    shares = 0.25 ** jnp.arange(SHORTER, dtype=x.dtype)
    points = jax.vmap(lambda share: box.clip(x - t * share * h))(shares)
    brings = jax.vmap(lambda y: model.decrease(y - x)[0])(points)
    best = jnp.argmax(brings)
    return newton, jnp.where(model.decrease(point - x)[0] < brings[best] / 2, points[best], point)
