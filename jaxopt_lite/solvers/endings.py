"""When a descent ends: the tests that all methods of this folder share, and the probes that they need.

A gradient is small only beside other gradients of the same function. A solve that begins at a solution has seen none,
so it looks max(1, ‖x‖) away:

    down    along -g: where f falls, the start is no minimum. It is the first trial of the method itself
    far     towards the origin, where many solves begin
    near    some units in the last place away: where g changes by as much as its own length, it cannot be told from
            zero in this precision

A start is looked at twice at most. `near` is also looked at where a solve would otherwise be called stalled.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Objective, Status
from jaxopt_lite.tree import inner

__all__ = ["NO", "PROGRESS", "ROUNDING", "Course", "Trial", "beside", "follow", "is_small", "reach", "unbegun"]

ROUNDING = 8.0  # values that differ by less than this times ε |f| count as equal
IDLE = 12  # number of successive accepted steps without progress after which a solve has stalled
PROGRESS = 0.9  # a gradient norm below this times the least so far counts as progress
FARTHER = 1.25  # the gradient at the origin is taken to be this times the one at the probe before it
NO, FAR, NEAR, LAST = 0, 1, 2, 3  # which probe the next evaluation is; LAST is `near` at the end


class Course(NamedTuple):
    """What a solve has seen of its gradients. Norms are of the gradient without the parameters that bounds hold."""

    norm: jax.Array  # of the gradient at the parameters
    first_norm: jax.Array  # at the start, or the largest seen from there where f is higher
    least_norm: jax.Array
    idle: jax.Array  # int32: successive steps without progress
    begun: jax.Array  # bool: whether the start has been evaluated
    opening: jax.Array  # bool: whether no step has been accepted yet
    probe: jax.Array  # int32: which probe the next evaluation is, or NO


class Trial(NamedTuple):
    """An evaluation: where, what it gave, and what the method makes of it."""

    params: Any
    value: jax.Array
    grads: Any
    norm: jax.Array  # of the gradient without the parameters that bounds hold
    full_norm: jax.Array  # of the gradient with them
    ss: jax.Array  # s·s of the change of the parameters, s
    yy: jax.Array  # y·y of the change of the gradient, y
    accepted: Any  # bool: whether it is the start or the method moves there
    is_steep: Any  # bool: whether it is accepted with a slope that is too steep, for want of a better one
    is_first: Any  # bool: whether it is the first trial of a search that goes on
    is_over: Any  # bool: whether the method has no other trial to make
    is_tiny: Any  # bool: whether the decrease that the gradient predicts for this search is within rounding


def unbegun(value: jax.Array) -> Course:
    """Before the start is evaluated; `value` is any scalar of the dtype of the values."""
    zero, count = jnp.zeros_like(value), jnp.zeros([], jnp.int32)
    return Course(zero, zero, zero, count, jnp.array(False), jnp.array(True), count)


def reach(params: Any) -> jax.Array:
    """max(1, ‖x‖): how far away a probe looks, a constant in derivatives; less than ‖x‖ where its square overflows."""
    square = jax.lax.stop_gradient(inner(params, params))
    return jnp.maximum(1, jnp.sqrt(jnp.minimum(square, jnp.finfo(square.dtype).max)))


def is_small(objective: Objective, norm: jax.Array, value: jax.Array) -> jax.Array:
    """Whether a start with this gradient may be a solution: then the first trial is `reach` away, along -g."""
    magnitude = jnp.maximum(1, jnp.abs(value))
    return norm <= jnp.maximum(jnp.sqrt(objective.tol), 10 * objective.tol * magnitude)


def beside(course: Course, params: Any, trial: Any) -> Any:
    """Where to evaluate next: at the probe that is due, else at the trial."""
    return jax.lax.cond(
        course.probe == NO,
        lambda: trial,
        lambda: tree.where(course.probe == FAR, _far(params), _near(params)),
    )


def follow(
    course: Course,
    objective: Objective,
    params: Any,
    value: jax.Array,
    trial: Trial,
    idle_limit: int = IDLE,
) -> tuple[Course, jax.Array]:
    """The course after an evaluation, and a status.

    Args:
        course: before it.
        objective: what is minimized.
        params: the parameters before it.
        value: f there.
        trial: the evaluation.
        idle_limit: number of successive steps without progress after which a solve has stalled.
    """
    c, t = course, trial
    probing, dtype = c.probe != NO, t.value.dtype
    moved, change = jnp.sqrt(t.ss).astype(dtype), jnp.sqrt(t.yy).astype(dtype)
    eps = max(float(jnp.finfo(x.dtype).eps) for x in (t.value, *jax.tree.leaves(params)))  # of the coarsest

    # The gradients that this one is measured by. Those of the first search count where f is higher than at the start.
    small = is_small(objective, c.norm, value)
    is_higher = c.opening & (t.value > value) & jnp.isfinite(t.full_norm)
    seen = jnp.where(c.probe == FAR, FARTHER, 1) * t.full_norm
    first_norm = jnp.where(is_higher, jnp.maximum(c.first_norm, seen), c.first_norm)
    first_norm = jnp.where(c.begun, first_norm, t.norm)
    norm, at = tree.where(t.accepted, (t.norm, t.value), (c.norm, value))
    at_floor = (c.probe >= NEAR) & (c.norm <= change) & jnp.isfinite(change)

    rounding = ROUNDING * eps * jnp.abs(t.value)
    progress = ((value - t.value > rounding) & ~t.is_steep) | (t.norm < PROGRESS * c.least_norm) | ~c.begun
    idle = jnp.where(t.accepted, jnp.where(progress, 0, c.idle + 1), c.idle)
    least_norm = jnp.where(t.accepted, jnp.where(c.begun, jnp.minimum(c.least_norm, t.norm), t.norm), c.least_norm)
    pairs = zip(jax.tree.leaves(t.params), jax.tree.leaves(params), strict=True)
    unmoved = functools.reduce(jnp.logical_and, [jnp.all(a == b) for a, b in pairs])
    stalls = (idle >= idle_limit) | (c.begun & unmoved) | (t.is_over & t.is_tiny)
    status = jnp.where(t.is_over & ~stalls, Status.LINE_SEARCH_FAILED, Status.RUNNING)
    status = jnp.where(c.probe == LAST, Status.STALLED, status)
    status = jnp.where(objective.converged(norm, at, first_norm) | at_floor, Status.CONVERGED_GRADIENT, status)
    is_bad = ~c.begun & ~(jnp.isfinite(t.value) & jnp.isfinite(t.norm))
    status = jnp.where(is_bad, Status.NON_FINITE, status)
    status = jnp.where(t.value == -jnp.inf, Status.UNBOUNDED, status).astype(jnp.int32)

    may_be_noise = c.norm * moved <= 10 * eps * change * reach(params)
    is_doubtful = c.opening & c.begun & ~probing & t.is_first & ~(t.value < value) & (small | may_be_noise)
    which = jnp.where(c.norm <= objective.tol * jnp.maximum(1, jnp.abs(value)), FAR, NEAR)
    probe = jnp.where(stalls & ~probing, LAST, jnp.where(is_doubtful, which, NO)).astype(jnp.int32)
    opening = c.opening & ~(t.accepted & c.begun)
    return Course(norm, first_norm, least_norm, idle.astype(jnp.int32), jnp.array(True), opening, probe), status


def _far(params: Any) -> Any:
    """x - 0.9 max(1, ‖x‖) u with u = x / ‖x‖: towards the origin, where logarithms are still finite.

    From x = 0 along a fixed direction without symmetries.
    """
    any_way = jax.tree.map(lambda x: jnp.cos(1 + jnp.arange(x.size, dtype=x.real.dtype)).reshape(x.shape), params)
    square = inner(params, params)
    u = jax.tree.map(lambda x, v: jnp.where(square == 0, v.astype(x.dtype), x), params, any_way)
    length = 0.9 * reach(params) / jnp.sqrt(jnp.where(square == 0, inner(any_way, any_way), square))
    return jax.tree.map(lambda x, v: x - length.astype(x.real.dtype) * v, params, u)


def _near(params: Any) -> Any:
    """x (1 + k ε) with 1 <= k <= 5, another k for each number."""

    def change(x):
        k = (3 + 2 * jnp.cos(2 * jnp.arange(x.size, dtype=x.real.dtype))).reshape(x.shape)
        return x * (1 + k * jnp.finfo(x.dtype).eps)

    return jax.tree.map(change, params)
