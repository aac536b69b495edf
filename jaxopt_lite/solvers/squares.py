"""What methods for sums of squares share: one evaluation a step, bounds, robust losses, and tests of convergence.

At a point x the state holds a model of the value there and the next trial point. A step evaluates residuals and
Jacobian at it, moves there if the value has decreased by at least 1e-4 of what the model predicts, and proposes the
next one. Where a prediction is less than the rounding of the value, the gradient decides. Methods differ in how they
propose a point, and in how far it may be.

Tests of convergence, all invariant to units of the residuals and of each parameter (gⱼ is the gradient, Jⱼ a column of
the Jacobian, p the Gauss-Newton step, Dⱼ = |Jⱼ|):

    gradient    |gⱼ| <= tol |Jⱼ| |r| for each j, and p is small to √tol; or each |gⱼ| is within its rounding
    step        p is small to tol
    value       the last change, and any that is possible, is within tol^(4/3) of the value or its rounding, and p is
                small to √tol

p is small to t if Dⱼ |pⱼ| <= t max(Dⱼ |xⱼ|, √tol |D x|) for each j: without it, every point is converged if a large
constant is among the residuals, and so is a slope without an end.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Objective, Status
from jaxopt_lite.core.vectors import from_vector, to_vector
from jaxopt_lite.solvers.bounded_step import step_in_box, vector_box
from jaxopt_lite.solvers.linear_model import DENSE, Linear, Measured, Steps, curve

__all__ = ["SquaresState", "Attempt", "squares_method"]

FADE = 0.8  # of the largest column norms so far, at each accepted step
ENOUGH = 1e-4  # the share of the predicted decrease that a step must bring
REJECTIONS = 60  # successive trials without a decrease after which a solve ends


class Tests(NamedTuple):
    """What the tests of convergence ask of a point, scalars."""

    gradient: jax.Array  # bool: the test of the gradient is met
    step: jax.Array  # bool: the test of the step is met
    near: jax.Array  # bool: the Gauss-Newton step is small to √tol
    possible: jax.Array  # the decrease that the model predicts for it
    noise: jax.Array  # the rounding of the value
    steepness: jax.Array  # |D⁻¹ g|


class Attempt(NamedTuple):
    """What became of a trial point, as the rules for the radius want it; scalars."""

    accepted: jax.Array  # bool
    first: jax.Array  # bool: it is the start
    ratio: jax.Array  # decrease / predicted decrease, at most 0 where the trial is worse, NaN where it is not finite
    gain: jax.Array  # decrease / value, in units of the value before
    slope: jax.Array  # derivative of the model along the step, in the same units
    length: jax.Array  # |D p|
    size: jax.Array  # |D x| at the new point
    radius: jax.Array  # the present one
    whole: jax.Array  # bool: the step was the Gauss-Newton step


class SquaresState(NamedTuple):
    """The state of a method for sums of squares: measurements at the current parameters, and the next trial point.

    `model.factor` of a dense model is the triangular factor R [n, n] of the Jacobian, for `linear_model.covariance`.
    """

    value: jax.Array
    aux: Any
    grads: Any
    model: Any
    tests: Tests
    trial: jax.Array  # the next point to evaluate, a vector [n]
    expected: jax.Array  # the decrease of the value that the model predicts there
    slope: jax.Array  # the derivative of the model along the step
    whole: jax.Array  # bool: the step is the Gauss-Newton step
    radius: jax.Array  # how far the step may go
    rejections: jax.Array  # int32, successive ones
    begun: jax.Array  # bool: whether the start has been evaluated


def squares_method(
    propose: Callable[[Any, jax.Array, Any, int], Steps],
    resize: Callable[[Attempt], jax.Array],
    *,
    linear: Linear = DENSE,
    curved: bool = False,
) -> tuple[Callable, Callable]:
    """The pair (init, step) of a method for sums of squares.

    Args:
        propose: (model, free coordinates, radius, number of residuals) -> Steps.
        resize: Attempt -> the next radius, a scalar.
        linear: the kind of model.
        curved: whether the model may have the curvature of the residuals; only a dense one can.
    """

    def init(objective: Objective, params: Any) -> SquaresState:
        value, aux = jax.eval_shape(objective.value, params)
        empty = lambda like: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        x = to_vector(params)
        r = jax.eval_shape(to_vector, aux[0])
        vector = jnp.zeros(x.size, jnp.result_type(x.dtype, r.dtype))
        zero, no = jnp.zeros([], vector.dtype), jnp.array(False)
        start = vector_box(objective, params).clip(x).astype(vector.dtype)  # the first point that is evaluated
        return SquaresState(
            *(jnp.zeros([], value.dtype), empty(aux), jax.tree.map(jnp.zeros_like, params)),
            *(linear.empty(objective, params, vector.dtype), Tests(no, no, no, zero, zero, zero)),
            *(start, zero, zero, no, zero, jnp.zeros([], jnp.int32), no),
        )

    def step(objective: Objective, params: Any, state: SquaresState) -> tuple[Any, SquaresState, Info]:
        box = vector_box(objective, params)
        trial_params = from_vector(state.trial, params)
        dtype, first = state.trial.dtype, ~state.begun
        aux, seen, here, opened = linear.measure(objective, trial_params, dtype)
        value, gradient, sizes = objective.cost(aux[0]), seen.gradient, seen.sizes
        x, point = (to_vector(p).astype(dtype) for p in (params, trial_params))

        gained = jnp.where(seen.finite, _gained(objective, state, value, aux[0]), jnp.nan).astype(dtype)
        ratio = jnp.where(state.expected > 0, gained / jnp.where(state.expected > 0, state.expected, 1), jnp.nan)
        quiet = (state.expected <= state.tests.noise) & (jnp.abs(gained) <= 2 * state.tests.noise) & ~first
        calms = _steepness(gradient, sizes, box.active(point, gradient)) < 0.9 * state.tests.steepness
        accepted = (ratio >= ENOUGH) | first | (quiet & calms)
        base = jnp.where(state.value > 0, state.value, 1).astype(dtype)
        length = jnp.linalg.norm(state.model.scale * (point - x))

        # The model where the method stands now: one that is not finite is selected at the start only.
        change = point - x
        here = here._replace(scale=jnp.maximum(FADE * state.model.scale, sizes))
        if curved:
            turned = gradient - to_vector(state.grads).astype(dtype)
            second = curve(state.model.second, here.factor, change, turned)
            here = here._replace(second=jnp.where(first, state.model.second, second))
        model = tree.where(accepted, here, state.model)
        if curved:
            model = model._replace(curved=_foretells_better(state, change, gained) & ~first)
        measured = (value, aux, from_vector(gradient, params))
        value, aux, grads = tree.where(accepted, measured, (state.value, state.aux, state.grads))
        x = jnp.where(accepted, point, x)

        # The next trial point.
        unit: Any = opened(model._replace(scale=jnp.where(model.scale > 0, model.scale, 1)))
        size = jnp.linalg.norm(unit.scale * x)
        radius = resize(
            Attempt(accepted, first, ratio, gained / base, state.slope / base, length, size, state.radius, state.whole)
        )
        active = box.active(x, unit.gradient)
        limited = lambda model, free, radius: propose(model, free, radius, seen.residuals.size)
        newton, trial = step_in_box(box, unit, x, active, limited, radius)
        expected, slope = unit.decrease(trial - x)
        tests = _tests(objective, x, seen, value, newton, unit, active)
        tests = tree.where(accepted, tests, state.tests)

        tol, eps = jnp.asarray(objective.tol, dtype), jnp.finfo(dtype).eps
        least = tol ** (4 / 3) * base
        changes = (jnp.abs(gained) > tol * base) | (gained > 2 * state.expected + least) | (state.expected > least)
        settled = ~changes & (state.tests.possible <= least) & (tests.possible <= least)
        settled = state.tests.near & tests.near & (settled | (quiet & ~accepted))
        settled = ~first & (
            settled | (curved & ~accepted & _turns_at_once(objective, state, change, sizes, gained, gradient, base))
        )
        rejections = jnp.where(accepted, 0, state.rejections + 1)
        unmoved = jnp.all(trial == x) | (expected <= 0) | (length <= eps * size) & ~accepted
        stuck = unmoved | (rejections >= REJECTIONS)
        promised = ~accepted & (tests.steepness > jnp.sqrt(tol) * jnp.sqrt(2 * base))  # the gradient is far from 0
        status = jnp.select(
            [
                ~box.exists,
                first & ~seen.finite,
                tests.gradient | (state.value > 0) & (value == 0),
                tests.step,
                settled,
                stuck & promised,
                stuck,
            ],
            [
                *(Status.INFEASIBLE, Status.NON_FINITE, Status.CONVERGED_GRADIENT, Status.CONVERGED_STEP),
                *(Status.CONVERGED_VALUE, Status.LINE_SEARCH_FAILED, Status.STALLED),
            ],
            Status.RUNNING,
        ).astype(jnp.int32)

        reduced = from_vector(jnp.where(active, 0, to_vector(grads)), params)
        new_params = tree.where(accepted, trial_params, params)
        updates = jax.tree.map(jnp.subtract, new_params, params)
        new_state = SquaresState(
            *(value, aux, grads, model, tests, trial, expected, slope, jnp.all(trial == x + newton)),
            *(radius, rejections, jnp.array(True)),
        )
        return new_params, new_state, Info(value, aux, reduced, updates, status, jnp.ones([], jnp.int32))

    return init, step


def _gained(objective, state, value, residuals):
    """The decrease of the value; of plain squares without the cancellation of two nearly equal sums."""
    if objective.rho is not None:
        return state.value - value
    old, new = to_vector(state.aux[0]), to_vector(residuals)
    return jnp.sum((old - new) * (old + new)) / 2


def _turns_at_once(objective, state, change, sizes, gained, gradient, base):
    """Whether the minimum along a step that was rejected is at its start, by the secant of the slopes at both ends.

    It tells the minima at which J is singular, where the Gauss-Newton step stays long. It counts where the values at
    the ends agree with such a parabola.
    """
    tol = jnp.asarray(objective.tol, change.dtype)
    here, there = state.slope, gradient @ change
    agrees = jnp.abs(gained + (here + there) / 2) <= there / 8
    share = -here / jnp.where(there > 0, there - here, 1)
    is_least = -here * share / 2 <= tol ** (4 / 3) * base
    length, size = (jnp.linalg.norm(sizes * v) for v in (change, state.trial))
    return (there > 0) & agrees & is_least & (share * length <= jnp.sqrt(tol) * size)


def _steepness(gradient, sizes, active):
    return jnp.linalg.norm(jnp.where(active, 0, gradient) / jnp.where(sizes > 0, sizes, 1))


def _foretells_better(state, change, gained):
    """Whether S is to be used: by the model with or without it that has foretold the last change better."""
    old = state.model
    by_second = change @ old.second @ change / 2
    plain = state.expected + jnp.where(old.curved, by_second, 0)
    without, with_it = jnp.abs(gained - plain), jnp.abs(gained - plain + by_second)
    return jnp.where(old.curved, without >= 0.5 * with_it, with_it < 0.5 * without)


def _tests(objective, x, seen: Measured, value, newton, model, active) -> Tests:
    """The tests of convergence at a point."""
    tol, eps, sizes = jnp.asarray(objective.tol, x.dtype), jnp.finfo(x.dtype).eps, seen.sizes
    weight = jnp.where(sizes > 0, sizes, 1)
    # The steps are known to ε |r|: below it they tell nothing of a slope beside a large constant.
    moves, places = weight * jnp.abs(newton) + eps * jnp.linalg.norm(seen.residuals), weight * jnp.abs(x)
    moves = jnp.where(active, 0, moves)
    least = jnp.sqrt(tol) * jnp.linalg.norm(places)
    is_small = lambda share: jnp.all(moves <= share * jnp.maximum(places, least))
    slopes = jnp.where(active, 0, jnp.abs(seen.gradient))
    orthogonal = jnp.all(slopes <= tol * sizes * jnp.sqrt(2 * value).astype(x.dtype))
    # A column that has vanished beside what it was takes no part in the step: the point has left a slope behind.
    vanished = sizes <= max(seen.residuals.size, x.size) * eps * model.scale
    near = is_small(jnp.sqrt(tol)) & ~jnp.any(vanished & (slopes > seen.rounding))
    return Tests(
        jnp.all(slopes <= seen.rounding) | (orthogonal & near),
        is_small(tol),
        near,
        model.decrease(newton)[0],
        seen.noise,
        _steepness(seen.gradient, sizes, active | vanished),
    )
