"""A line search as a state machine: given the value and slope at one trial step, it returns the next trial step.

φ(t) = f(x + t d) is searched for a step that satisfies the strong Wolfe conditions,

    φ(t) <= φ(0) + c₁ t φ'(0)    and    |φ'(t)| <= c₂ |φ'(0)|          Nocedal & Wright, 2006, Eq. (3.7)

by bracketing and cubic interpolation (Algorithms 3.5 and 3.6). Where φ(t) and φ(0) differ by no more than rounding, the
first condition is that on slopes of Hager & Zhang, 2005, Eq. (4.1), φ'(t) <= (2 c₁ - 1) φ'(0): slopes are still exact
where values differ by rounding only.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.solvers.endings import ROUNDING

__all__ = ["Search", "begin", "judge"]

GROW = 4.0  # the largest factor by which a step grows while the minimum is not bracketed
MARGIN = 0.1  # share of the bracket at each end in which no trial is made
SHRINK = 0.85  # the bracket is halved next where a trial has not made it shorter by this factor
WALL = 6  # number of trials after which a search that has lowered f ends before a step where f is not finite
RISES = 6  # number of trials with a higher value but a negative slope after which the slopes are taken to be wrong


class Search(NamedTuple):
    """The state of a search. `low` is the best step so far that decreases enough, `high` the other end, or infinite."""

    t: jax.Array  # the step to try next
    first: jax.Array  # the first step tried
    value0: jax.Array  # φ(0)
    slope0: jax.Array  # φ'(0)
    low: jax.Array
    low_value: jax.Array
    low_slope: jax.Array
    high: jax.Array
    high_value: jax.Array
    high_slope: jax.Array
    tries: jax.Array  # int32
    rises: jax.Array  # int32
    settle: jax.Array  # bool: t is `low` again, and is accepted with any slope


def begin(value0: Any, slope0: Any, t: Any) -> Search:
    """A search from φ(0) and φ'(0) < 0 whose first trial is t > 0."""
    t = jnp.asarray(t, value0.dtype)
    zero, infinity = jnp.zeros_like(value0), jnp.full_like(value0, jnp.inf)
    count, no = jnp.zeros([], jnp.int32), jnp.array(False)
    return Search(t, t, value0, slope0, zero, value0, slope0, infinity, infinity, infinity, count, count, no)


def judge(search: Search, value: Any, slope: Any, c1: Any, c2: Any, tries: int) -> tuple[Search, jax.Array, jax.Array]:
    """Advance a search by the value and slope at its trial step.

    Args:
        search: the state of the search.
        value: φ(t), a scalar; may be infinite or NaN.
        slope: φ'(t), a scalar.
        c1: of the first condition, in [0, 1]; below 1/2 to be of use.
        c2: of the second condition, in (c1, 1].
        tries: the largest number of trials.

    Returns:
        The next state of the search, whether the trial step is accepted, and whether the search has failed.
    """
    s, t = search, search.t
    finite = jnp.isfinite(value) & jnp.isfinite(slope)
    floor = ROUNDING * jnp.finfo(value.dtype).eps * jnp.abs(s.value0)
    equal = jnp.abs(value - s.value0) <= floor
    decreases = (value <= s.value0 + c1 * t * s.slope0) | (equal & (slope <= (2 * c1 - 1) * s.slope0))
    enough = finite & decreases & (equal | (value <= s.low_value))
    accepted = enough & ((jnp.abs(slope) <= -c2 * s.slope0) | s.settle)

    # The new bracket: the trial is its far end, or its near end, and then the old near end may become the far one.
    here, near = (t, jnp.where(finite, value, jnp.inf), slope), (s.low, s.low_value, s.low_slope)
    far = (s.high, s.high_value, s.high_slope)
    beyond = jnp.where(jnp.isfinite(s.high), slope * (s.high - s.low), slope) >= 0
    low, low_value, low_slope = tree.where(enough, here, near)
    high, high_value, high_slope = tree.where(enough, tree.where(beyond, near, far), here)
    halves = jnp.abs(high - low) >= SHRINK * jnp.abs(s.high - s.low)  # false while the old bracket is infinite
    inside = _inside(low, low_value, low_slope, high, high_value, high_slope, equal, halves)
    outside = _outside(s.low, s.low_slope, low, low_slope)
    t_next = jnp.where(jnp.isfinite(high), inside, outside)

    rises = s.rises + (finite & (value > s.value0 + floor) & (slope < 0)).astype(jnp.int32)
    at_wall = (s.tries + 1 >= WALL) & (low > 0) & jnp.isfinite(high) & ~jnp.isfinite(high_value)
    done = (s.tries + 1 >= tries) | (rises >= RISES) | at_wall
    narrow = jnp.abs(t_next - low) <= jnp.finfo(value.dtype).eps * jnp.abs(low)
    over = ~accepted & (done | narrow | s.settle)
    settle = over & (low > 0) & ~s.settle  # one more evaluation at the best step so far, for its gradient
    t_next = jnp.where(settle, low, t_next)
    new = s._replace(
        t=t_next,
        low=low,
        low_value=low_value,
        low_slope=low_slope,
        high=high,
        high_value=high_value,
        high_slope=high_slope,
        tries=s.tries + 1,
        rises=rises,
        settle=settle,
    )
    return new, accepted, over & ~settle


def _inside(low, low_value, low_slope, high, high_value, high_slope, equal, halves):
    """The minimum of the cubic through both ends, kept off them; by slopes alone where values are equal."""
    width = high - low
    finite = jnp.isfinite(high_value) & jnp.isfinite(high_slope) & jnp.isfinite(high)
    width = jnp.where(jnp.isfinite(width), width, 1)
    value, slope = jnp.where(finite, high_value, low_value), jnp.where(finite, high_slope, 0)
    # Nocedal & Wright, Eq. (3.59), as a share of the bracket measured from `low`.
    d1 = low_slope + slope - 3 * (value - low_value) / width
    root = jnp.sqrt(jnp.maximum(d1 * d1 - low_slope * slope, 0)) * jnp.sign(width)
    bottom = slope - low_slope + 2 * root
    cubic = 1 - (slope + root - d1) / jnp.where(bottom == 0, 1, bottom)
    secant = low_slope / jnp.where(low_slope == slope, 1, low_slope - slope)
    share = jnp.where(equal, secant, cubic)
    share = jnp.where(finite & jnp.isfinite(share) & ~halves, share, 0.5)
    share = jnp.where(finite, jnp.clip(share, MARGIN, 1 - MARGIN), MARGIN)  # far from where f is not finite
    return low + share * width


def _outside(before, before_slope, low, low_slope):
    """Where the slope would be zero by linear extrapolation from the last two steps, at least a little further."""
    moved = jnp.where(low > before, low - before, jnp.where(low > 0, low, 1))
    steeper = before_slope - low_slope
    secant = low + moved * jnp.where(steeper < 0, -low_slope / jnp.where(steeper < 0, -steeper, 1), GROW)
    return jnp.clip(secant, low + moved, low + GROW * moved)
