"""Methods that search along a direction of descent d, and the simplest of them.

    gradient descent    d = -g        Cauchy, 1847; the first step length by Barzilai & Borwein, 1988

All share one state machine: evaluate at x + t d; if the line search accepts t, move there, make the next direction and
begin the next search; else try the next t. One evaluation a step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Objective, solver
from jaxopt_lite.core.numbers import Fraction, Positive, concrete
from jaxopt_lite.solvers import endings, linesearch
from jaxopt_lite.solvers.box import box_of, clip, move, reduced
from jaxopt_lite.solvers.endings import dot

__all__ = ["DescentState", "check_search", "gradient_descent", "line_search_method"]


class DescentState(NamedTuple):
    """The state of a method with a line search. Values, aux and gradient are those at the parameters."""

    value: jax.Array
    aux: Any
    grads: Any
    direction: Any
    search: linesearch.Search
    memory: Any  # what the method keeps to compute directions, such as pairs (s, y)
    steepest: jax.Array  # bool: whether the direction is that of the gradient, with an empty memory
    course: endings.Course


def line_search_method(
    empty: Callable[[Any], Any],
    direct: Callable[..., tuple[Any, Any, Any]],
    c1: Any,
    c2: Any,
    first_step: Any,
    tries: int,
    *,
    bounded: bool = False,
) -> tuple[Callable, Callable]:
    """The pair (init, step) of a method that searches along directions of descent.

    Args:
        empty: params -> the memory at the start, to which the method falls back where a direction fails.
        direct: (memory, s, y, g, x, box) -> (memory, d, t): from the last step, the change of the gradient, the
            gradient, the parameters and their bounds or None, the new memory, a direction, and the step to try first.
        c1: of the sufficient decrease.
        c2: of the curvature.
        first_step: the length of the first trial step, for gradients of norm 1 and more; shorter for smaller ones,
            except at a start where the gradient may be small enough to end: there it is max(1, ‖x‖), see `endings`.
        tries: trials in one search.
        bounded: whether to keep within the objective's bounds; f is never evaluated outside.
    """

    def steepest(params, grads, value, norm):
        """Memory, direction and search along the negative gradient: at the start, and where another direction fails."""
        t = first_step * jnp.minimum(1, 1 / jnp.where(norm == 0, 1, norm))
        return empty(params), jax.tree.map(jnp.negative, grads), linesearch.begin(value, -(norm**2), t)

    def init(objective: Objective, params: Any) -> DescentState:
        value, aux = jax.eval_shape(objective.value, params)
        zeros = lambda like: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        zero, still = jnp.zeros([], value.dtype), jax.tree.map(jnp.zeros_like, params)
        search = linesearch.begin(zero, zero, 0.0)  # t = 0: the first evaluation is at the start
        course = endings.unbegun(zero)
        return DescentState(zero, zeros(aux), still, still, search, empty(params), jnp.array(True), course)

    def step(objective: Objective, params: Any, state: DescentState) -> tuple[Any, DescentState, Info]:
        search, course = state.search, state.course
        begun, probing = course.begun, course.probe != endings.NO
        box = box_of(objective, params) if bounded else None
        trial = clip(endings.beside(course, params, move(params, search.t, state.direction, box)), box)
        value, aux, grads = objective.value_and_grad(trial)
        free_grads = reduced(trial, grads, box)
        norm = tree.global_norm(free_grads).astype(value.dtype)
        slope = slope_of(trial, state.direction, grads, box).astype(value.dtype)
        next_search, accepted, failed = linesearch.judge(search, value, slope, c1, c2, tries)
        accepted, failed = (accepted & ~probing) | ~begun, failed & begun & ~probing
        next_search = tree.where(probing, search, next_search)
        is_over = failed & state.steepest
        is_tiny = -search.slope0 * search.first <= 100 * endings.ROUNDING * jnp.finfo(value.dtype).eps * jnp.abs(value)

        # Accepted: search along the next direction, or the steepest where that does not descend.
        s, y = (jax.tree.map(jnp.subtract, *pair) for pair in ((trial, params), (grads, state.grads)))
        memory, direction, t = direct(state.memory, s, y, grads, trial, box)
        down = slope_of(trial, direction, grads, box).astype(value.dtype)
        descends = begun & (down < 0) & jnp.isfinite(down)
        following = (memory, direction, linesearch.begin(value, down, t))
        following = tree.where(descends, following, steepest(trial, free_grads, value, norm))
        # Failed: start a search along the steepest direction; if the failed one was along it, the solve ends.
        kept = (state.memory, state.direction, next_search)
        again = steepest(params, reduced(params, state.grads, box), state.value, course.norm)
        memory, direction, next_search = tree.where(accepted, following, tree.where(failed, again, kept))
        is_steepest = jnp.where(accepted, ~descends, state.steepest | failed)
        # At the start a gradient that is small may be small enough: look far along it.
        probes_down = ~begun & endings.is_small(objective, norm, value)
        t = jnp.where(probes_down, (endings.reach(trial) / norm).astype(value.dtype), next_search.t)
        next_search = next_search._replace(t=t, first=jnp.where(begun, next_search.first, t))

        is_first = (search.tries == 0) & ~failed
        seen = endings.Trial(trial, value, grads, norm, accepted, is_first, is_over, is_tiny)
        next_course, status = endings.follow(course, objective, params, state.value, state.grads, seen)
        here, there = (trial, value, aux, grads), (params, state.value, state.aux, state.grads)
        new_params, value, aux, grads = tree.where(accepted, here, there)
        updates = jax.tree.map(jnp.subtract, new_params, params)
        new_state = DescentState(value, aux, grads, direction, next_search, memory, is_steepest, next_course)
        shown = reduced(new_params, grads, box)
        return new_params, new_state, Info(value, aux, shown, updates, status, jnp.ones([], jnp.int32))

    return init, step


def slope_of(params: Any, direction: Any, grads: Any, box: Any) -> jax.Array:
    """g·d without the parameters that stand on a bound and would leave the box."""
    return -dot(grads, reduced(params, jax.tree.map(jnp.negative, direction), box))


def check_search(who: str, c1: Any, c2: Any, tries: int) -> None:
    """Raise unless c₁ < c₂ and there is at least one trial."""
    if concrete(c1, c2) and not c1 < c2:
        raise ValueError(f"{who}: c1 must be less than c2, got c1={c1} and c2={c2}")
    if not isinstance(tries, int) or tries < 1:
        raise ValueError(f"{who}: tries must be an int of at least 1, got {tries!r}")


@solver
def gradient_descent(c1: Fraction = 1e-4, c2: Fraction = 0.9, first_step: Positive = 1.0, *, tries: int = 20):
    """Steepest descent, d = -g, with a line search for the strong Wolfe conditions.

    Args:
        c1: c₁, the share of the expected decrease that a step must bring, in [0, 1]; below 1/2 to be of use.
        c2: c₂, the share of the slope that may be left, in [0, 1], above c₁.
        first_step: length of the first trial step, above 0, in units of the parameters; in units of the gradient
            where the last step saw no positive curvature.
        tries: evaluations in one line search, at least 1.

    Raises:
        ValueError: if c1 is not less than c2, or tries is less than 1.

    Reference: Nocedal & Wright, "Numerical Optimization", 2006, Algorithms 3.5 and 3.6; the first trial of each search
        is s·s / s·y of Barzilai & Borwein, "Two-Point Step Size Gradient Methods", 1988, Eq. (5).
    """
    check_search("gradient_descent", c1, c2, tries)

    def direct(memory, s, y, g, x, box):
        curvature = dot(s, y)
        t = jnp.where(curvature > 0, dot(s, s) / jnp.where(curvature > 0, curvature, 1), first_step)
        return memory, jax.tree.map(jnp.negative, g), t

    return line_search_method(lambda params: (), direct, c1, c2, first_step, tries)
