"""Methods that search along a direction of descent d, and the simplest of them.

    gradient descent    d = -g        Cauchy, 1847; the first step length by Barzilai & Borwein, 1988

All share one state machine: make the direction that is due, and begin a search along it; evaluate at x + t d; if the
line search accepts t, move there, else try the next t. One evaluation a step. The direction is made before the
evaluation, from numbers that the last step has stored: made after it, XLA would compute the search's decision anew for
each number of the memory.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Objective, solver
from jaxopt_lite.core.numbers import Fraction, Positive, concrete
from jaxopt_lite.solvers import endings, linesearch
from jaxopt_lite.solvers.box import box_of, clip, moved, reduced
from jaxopt_lite.tree import inner

__all__ = ["DescentState", "again", "check_search", "gradient_descent", "line_search_method"]


NOTHING, FIRST, NEXT, GRADIENT = 0, 1, 2, 3  # the direction that is due: of the start, the method, or the gradient

ACROSS = 1e-8  # cosine of the angle of a direction with the negative gradient, below which it is not followed


class Move(NamedTuple):
    """From parameters x₋ to a trial x."""

    s: Any  # x - x₋
    y: Any  # g - g₋
    direction: Any  # d₋, the direction that is searched along
    ss: jax.Array  # s·s
    sy: jax.Array
    yy: jax.Array
    is_good: jax.Array  # bool: whether the method moved, and s·y is safely positive


class DescentState(NamedTuple):
    """The state of a method with a line search. Values, aux and gradient are those at the parameters."""

    value: jax.Array
    aux: Any
    grads: Any
    move: Move  # to the last trial
    search: linesearch.Search
    memory: Any  # what the method keeps to compute directions, such as pairs (s, y)
    due: jax.Array  # int32: which direction is to be made before the next evaluation
    steepest: jax.Array  # bool: whether the direction is that of the gradient, with an empty memory
    course: endings.Course


def line_search_method(
    empty: Callable[[Any], Any],
    direct: Callable[..., tuple[Any, Any]],
    c1: Any,
    c2: Any,
    first_step: Any,
    tries: int,
    *,
    remember: Callable[..., Any] = lambda memory, move: memory,
    forget: Callable[[Any, Any], Any] = lambda memory, when: memory,
    bounded: bool = False,
) -> tuple[Callable, Callable]:
    """The pair (init, step) of a method that searches along directions of descent.

    In derivatives of the solve by unrolling, step lengths and the memory are constants.

    Args:
        empty: params -> the memory at the start.
        direct: (before, memory, move, g, x, box) -> (d, t): from the memory before and after the last `Move`, the
            gradient, the parameters and their bounds or None, a direction, and the step to try first.
        c1: of the sufficient decrease.
        c2: of the curvature.
        first_step: the length of the first trial step, for gradients of norm 1 and more; shorter for smaller ones,
            except at a start where the gradient may be small enough to end: there it is max(1, ‖x‖), see `endings`.
        tries: trials in one search.
        remember: (memory, move) -> the memory with the last `Move`, if that is good.
        forget: (memory, when) -> the memory, empty if `when`: where a direction does not descend or has failed.
        bounded: whether to keep within the objective's bounds; f is never evaluated outside.
    """

    def init(objective: Objective, params: Any) -> DescentState:
        value, aux = jax.eval_shape(objective.value, params)
        zeros = lambda like: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        zero, still = jnp.zeros([], value.dtype), jax.tree.map(jnp.zeros_like, params)
        search = linesearch.begin(zero, zero, 0.0)  # t = 0: the first evaluation is at the start
        course, due = endings.unbegun(zero), jnp.zeros([], jnp.int32)
        none = inner(still, still)
        move = Move(still, still, still, none, none, none, jnp.array(False))
        return DescentState(zero, zeros(aux), still, move, search, empty(params), due, jnp.array(True), course)

    def aim(objective: Objective, params: Any, state: DescentState, memory: Any, box: Any) -> tuple[Any, Any, Any]:
        """Direction, search, and whether it is along the gradient, for the direction that is due."""
        grads, value, norm = state.grads, state.value, state.course.norm
        direction, t = direct(*jax.lax.stop_gradient((state.memory, memory, state.move)), grads, params, box)
        down = slope_of(params, direction, grads, box).astype(value.dtype)
        # A direction across the gradient says that curvatures differ by more than differences of gradients can tell.
        length = jnp.sqrt(inner(direction, direction)).astype(value.dtype)
        descends = (state.due == NEXT) & (down < -ACROSS * norm * length)
        # Along the gradient at the start, and where the method's direction does not descend or has failed. At the
        # start a gradient that is small may be small enough: look far along it.
        inverse = 1 / jnp.where(norm == 0, 1, norm)
        is_far = (state.due == FIRST) & endings.is_small(objective, norm, value)
        t_steepest = jnp.where(is_far, endings.reach(params), first_step * jnp.minimum(1, norm)) * inverse
        t = jnp.where(descends, t, t_steepest)
        steepest = jax.tree.map(jnp.negative, reduced(params, grads, box))
        direction = tree.where(descends, direction, steepest)
        search = linesearch.begin(value, jnp.where(descends, down, -(norm**2)), t)
        return direction, search, ~descends

    def step(objective: Objective, params: Any, state: DescentState) -> tuple[Any, DescentState, Info]:
        course = state.course
        begun, probing = course.begun, course.probe != endings.NO
        box = box_of(objective, params) if bounded else None
        memory = remember(*jax.lax.stop_gradient((state.memory, state.move)))
        kept = (state.move.direction, state.search, state.steepest)
        direction, search, is_steepest = jax.lax.cond(
            state.due == NOTHING,
            lambda: kept,
            lambda: tree.keep_dtypes(aim(objective, params, state, memory, box), kept),
        )
        memory = forget(memory, is_steepest)
        search = jax.lax.stop_gradient(search)
        trial = clip(endings.beside(course, params, moved(params, search.t, direction, box)), box)
        value, aux, grads = objective.value_and_grad(trial)
        full_norm = tree.global_norm(grads).astype(value.dtype)
        norm = full_norm if box is None else tree.global_norm(reduced(trial, grads, box)).astype(value.dtype)
        slope = slope_of(trial, direction, grads, box).astype(value.dtype)
        no = jnp.array(False)
        next_search, accepted, failed = jax.lax.cond(
            begun & ~probing,
            lambda: linesearch.judge(search, *jax.lax.stop_gradient((value, slope)), c1, c2, tries),
            lambda: (search, ~begun, no),
        )
        # A failed search is followed by one along the gradient; if it was along the gradient, the solve ends.
        due = jnp.where(accepted, jnp.where(begun | ~is_steepest, NEXT, FIRST), jnp.where(failed, GRADIENT, NOTHING))

        is_tiny = -search.slope0 * search.first <= 100 * endings.ROUNDING * jnp.finfo(value.dtype).eps * jnp.abs(value)
        is_first = (search.tries == 0) & ~failed
        s, y = (jax.tree.map(jnp.subtract, *pair) for pair in ((trial, params), (grads, state.grads)))
        ss, sy, yy = inner(s, s), inner(s, y), inner(y, y)
        is_good = accepted & begun & is_curved(ss, sy, yy)
        move = Move(s, y, direction, ss, sy, yy, is_good)
        sizes = (norm, full_norm, move.ss, move.yy)
        seen = endings.Trial(
            trial, value, grads, *sizes, accepted, search.settle, is_first, failed & is_steepest, is_tiny
        )
        next_course, status = endings.follow(course, objective, params, state.value, seen)
        here, there = (trial, value, aux, grads), (params, state.value, state.aux, state.grads)
        new_params, value, aux, grads = tree.where(accepted, here, there)
        updates = jax.tree.map(lambda s: jnp.where(accepted, s, 0), s)
        new_state = DescentState(
            *(value, aux, grads, move, next_search, memory, due.astype(jnp.int32), is_steepest, next_course)
        )
        shown = reduced(new_params, grads, box)
        return new_params, new_state, Info(value, aux, shown, updates, status, jnp.ones([], jnp.int32))

    return init, step


def again(state: DescentState) -> DescentState:
    """The state for a solve of a slightly different objective from where this one ends: what was learned is kept."""
    zero = jnp.zeros_like(state.value)
    course = endings.unbegun(zero)._replace(opening=jnp.array(False))
    search, due = linesearch.begin(zero, zero, 0.0), jnp.zeros([], jnp.int32)
    return state._replace(search=search, due=due, steepest=jnp.array(False), course=course)


def slope_of(params: Any, direction: Any, grads: Any, box: Any) -> jax.Array:
    """g·d without the parameters that stand on a bound and would leave the box."""
    return -inner(grads, reduced(params, jax.tree.map(jnp.negative, direction), box))


def is_curved(ss: jax.Array, sy: jax.Array, yy: jax.Array) -> jax.Array:
    """Whether the curvature s·y is safely positive (Nocedal & Wright, Section 7.2)."""
    return (sy > jnp.finfo(sy.dtype).eps * jnp.sqrt(ss) * jnp.sqrt(yy)) & jnp.isfinite(sy) & jnp.isfinite(yy)


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

    def direct(before, memory, move, g, x, box):
        t = jnp.where(move.sy > 0, move.ss / jnp.where(move.sy > 0, move.sy, 1), first_step)
        return jax.tree.map(jnp.negative, g), t

    return line_search_method(lambda params: (), direct, c1, c2, first_step, tries)
