"""Points of a box, evaluated together: what all methods of global search share.

Points are the rows of an array [k, n] of real numbers, see `core.vectors`; every one that is evaluated lies in the box.
A value that is NaN counts as infinite. The best point that was evaluated is kept with its aux.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Objective, Status
from jaxopt_lite.core.vectors import from_vector, to_vector

__all__ = [
    "Best",
    "Region",
    "better",
    "evaluate",
    "has_collapsed",
    "none_yet",
    "region_of",
    "report",
    "scattered",
    "spread_of",
    "status_of",
]

ROUNDING = 4.0  # values that differ by less than this times ε |f| count as equal


class Region(NamedTuple):
    """A box of n real numbers."""

    lower: jax.Array  # [n]
    upper: jax.Array  # [n]

    @property
    def width(self) -> jax.Array:
        """The lengths of its edges, [n]."""
        return self.upper - self.lower

    def clip(self, points: jax.Array) -> jax.Array:
        """The nearest points in the box, of points [..., n]."""
        lower, upper = (jnp.broadcast_to(bound, points.shape) for bound in (self.lower, self.upper))
        return jnp.clip(points, lower, upper)

    def reflect(self, points: jax.Array) -> jax.Array:
        """Points [..., n] reflected at the faces of the box, as often as it takes; those inside stay the same."""
        lower, upper, width = (jnp.broadcast_to(x, points.shape) for x in (self.lower, self.upper, self.width))
        folded = jnp.abs(jnp.mod(points - lower + width, 2 * jnp.where(width > 0, width, 1)) - width)
        is_inside = (lower <= points) & (points <= upper)
        return self.clip(jnp.where(is_inside | (width <= 0), points, lower + folded))

    def at(self, fractions: jax.Array) -> jax.Array:
        """The points at fractions [..., n] of the edges, each in [0, 1]."""
        lower, width = (jnp.broadcast_to(x, fractions.shape) for x in (self.lower, self.width))
        return self.clip(lower + fractions * width)


def scattered(key: jax.Array, region: Region, start: jax.Array, count: int) -> jax.Array:
    """A first generation [count, n]: the start [n], and points drawn uniformly from the box."""
    points = region.at(jax.random.uniform(key, (count, start.size), start.dtype))
    return points.at[0].set(start)


class Best(NamedTuple):
    """The best point that was evaluated."""

    point: jax.Array  # [n]
    value: jax.Array  # a scalar, infinite before the first evaluation
    aux: Any


def region_of(who: str, objective: Objective, params: Any) -> Region:
    """The box of an objective.

    Raises:
        ValueError: if it has no bounds.
        TypeError: for complex parameters.
    """
    if objective.lower is None or objective.upper is None:
        raise ValueError(f"{who} searches a box: the objective needs lower and upper bounds")
    if any(jnp.iscomplexobj(x) for x in jax.tree.leaves(params)):
        raise TypeError(f"{who}: complex parameters have no bounds; search over their real and imaginary parts")
    like = to_vector(params)
    return Region(*(to_vector(bound).astype(like.dtype) for bound in (objective.lower, objective.upper)))


def evaluate(objective: Objective, params: Any, points: jax.Array) -> tuple[jax.Array, Any]:
    """The values [k] of points [k, n] and their aux, with a leading axis [k]; `params` says how a point is a tree."""
    values, aux = jax.vmap(lambda point: objective.value(from_vector(point, params)))(points)
    return jnp.where(jnp.isnan(values), jnp.inf, values), aux


def none_yet(objective: Objective, params: Any) -> Best:
    """Before anything is evaluated: the start, with an infinite value."""
    value, aux = jax.eval_shape(objective.value, params)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), aux)
    return Best(to_vector(params), jnp.full([], jnp.inf, value.dtype), zeros)


def better(best: Best, points: jax.Array, values: jax.Array, aux: Any) -> Best:
    """The best of what is known and of points [k, n] with their values [k] and aux."""
    i = jnp.argmin(values)
    found = Best(points[i], values[i], jax.tree.map(lambda a: a[i], aux))
    return tree.where(found.value < best.value, found, best)


def has_collapsed(region: Region, points: jax.Array, values: jax.Array, spread: jax.Array, tol: Any) -> jax.Array:
    """Whether a population has converged: its points lie close together, and their values too.

    Neither depends on an offset of f. With rounding aside, values differ by at most tol times the spread of the first
    values, and points by √tol times the edges of the box.

    Args:
        region: the box.
        points: [k, n].
        values: [k], of the points.
        spread: the difference between the values of the first population, a scalar.
        tol: the tolerance.
    """
    sizes = jnp.max(points, axis=0) - jnp.min(points, axis=0)
    difference = jnp.max(values) - jnp.min(values)
    rounding = ROUNDING * jnp.finfo(values.dtype).eps * jnp.abs(jnp.min(values))
    near = jnp.all(sizes <= jnp.sqrt(tol) * region.width)
    return near & (difference <= jnp.maximum(tol * spread, rounding))


def spread_of(values: jax.Array) -> jax.Array:
    """The difference between the largest and the least finite one of some values [k]; 0 without any."""
    finite = jnp.isfinite(values)
    difference = jnp.max(jnp.where(finite, values, -jnp.inf)) - jnp.min(jnp.where(finite, values, jnp.inf))
    return jnp.where(jnp.any(finite), difference, 0)


def status_of(best: Best, ended: jax.Array, as_what: Any = Status.CONVERGED_VALUE) -> jax.Array:
    """The status after a step: int32. Unbounded at minus infinity, non-finite where no value was finite at all.

    Args:
        best: after the step.
        ended: bool, whether the method has ended.
        as_what: the status with which it ends, an int or a scalar.
    """
    status = jnp.where(ended, jnp.asarray(as_what, jnp.int32), jnp.int32(Status.RUNNING))
    status = jnp.where(ended & (best.value == jnp.inf), jnp.int32(Status.NON_FINITE), status)
    return jnp.where(best.value == -jnp.inf, jnp.int32(Status.UNBOUNDED), status)


def report(params: Any, best: Best, evaluations: Any, status: jax.Array, grads: Any = None) -> tuple[Any, Info]:
    """The best point as parameters, and the step's `Info`. Where the gradient is not given it is unknown: NaN."""
    here = from_vector(best.point, params)
    updates = jax.tree.map(jnp.subtract, here, params)
    grads = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), params) if grads is None else grads
    return here, Info(best.value, best.aux, grads, updates, status, jnp.asarray(evaluations, jnp.int32))
