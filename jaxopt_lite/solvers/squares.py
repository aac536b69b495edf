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
from jaxopt_lite.solvers.linear_model import Model, Steps, column_norms, curve, decrease, factorize
from jaxopt_lite.solvers.robust import rescale

__all__ = ["SquaresState", "Attempt", "squares_method"]

FADE = 0.8  # of the largest column norms so far, at each accepted step
ENOUGH = 1e-4  # the share of the predicted decrease that a step must bring
REJECTIONS = 60  # successive trials without a decrease after which a solve ends
ROUNDING = 2.0  # values and gradients are known to this times ε times the root of the sum of the squares of their terms


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

    `model.factor` is the triangular factor R [n, n] of the Jacobian, for `linear_model.covariance`.
    """

    value: jax.Array
    aux: Any
    grads: Any
    model: Model
    second: jax.Array  # S [n, n], an approximation of Σ rᵢ ∇²rᵢ; in `model` where it is used
    tests: Tests
    trial: jax.Array  # the next point to evaluate, a vector [n]
    expected: jax.Array  # the decrease of the value that the model predicts there
    slope: jax.Array  # the derivative of the model along the step
    whole: jax.Array  # bool: the step is the Gauss-Newton step
    radius: jax.Array  # how far the step may go
    rejections: jax.Array  # int32, successive ones
    begun: jax.Array  # bool: whether the start has been evaluated


def squares_method(
    propose: Callable[[Model, jax.Array, Any, int], Steps],
    resize: Callable[[Attempt], jax.Array],
    *,
    curved: bool = False,
) -> tuple[Callable, Callable]:
    """The pair (init, step) of a method for sums of squares.

    Args:
        propose: (model, free coordinates, radius, number of residuals) -> Steps.
        resize: Attempt -> the next radius, a scalar.
        curved: whether the model may have the curvature of the residuals.
    """

    def init(objective: Objective, params: Any) -> SquaresState:
        value, aux = jax.eval_shape(objective.value, params)
        empty = lambda like: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        x = to_vector(params)
        r = jax.eval_shape(to_vector, aux[0])
        vector = jnp.zeros(x.size, jnp.result_type(x.dtype, r.dtype))
        zero, no = jnp.zeros([], vector.dtype), jnp.array(False)
        square = jnp.zeros((x.size, x.size), zero.dtype)
        start = vector_box(objective, params).clip(x).astype(vector.dtype)  # the first point that is evaluated
        return SquaresState(
            *(jnp.zeros([], value.dtype), empty(aux), jax.tree.map(jnp.zeros_like, params)),
            *(Model(square, vector, vector, square, vector, no), square, Tests(no, no, no, zero, zero, zero)),
            *(start, zero, zero, no, zero, jnp.zeros([], jnp.int32), no),
        )

    def step(objective: Objective, params: Any, state: SquaresState) -> tuple[Any, SquaresState, Info]:
        box = vector_box(objective, params)
        trial_params = from_vector(state.trial, params)
        r, aux, jacobian = objective.jacobian(trial_params)
        dtype, first = state.trial.dtype, ~state.begun
        x, point = (to_vector(p).astype(dtype) for p in (params, trial_params))
        value = objective.cost(aux[0])
        r, jacobian = rescale(objective.rho, aux[0], r.astype(dtype), jacobian.astype(dtype))
        finite = jnp.all(jnp.isfinite(r)) & jnp.all(jnp.isfinite(jacobian))

        gained = jnp.where(finite, _gained(objective, state, value, aux[0]), jnp.nan).astype(dtype)
        ratio = jnp.where(state.expected > 0, gained / jnp.where(state.expected > 0, state.expected, 1), jnp.nan)
        sizes = column_norms(jacobian)
        gradient = jacobian.T @ r
        quiet = (state.expected <= state.tests.noise) & (jnp.abs(gained) <= 2 * state.tests.noise) & ~first
        calms = _steepness(gradient, sizes, box.active(point, gradient)) < 0.9 * state.tests.steepness
        accepted = (ratio >= ENOUGH) | first | (quiet & calms)
        base = jnp.where(state.value > 0, state.value, 1).astype(dtype)
        length = jnp.linalg.norm(state.model.scale * (point - x))

        # The model where the method stands now: one that is not finite is selected at the start only.
        factor, rotated = factorize(r, jacobian)
        change = point - x
        turned = gradient - to_vector(state.grads).astype(dtype)
        second = curve(state.second, factor, change, turned) if curved else state.second
        second = jnp.where(accepted & ~first, second, state.second)
        # Of the models with and without S the next step is by the one that has foretold the last change better.
        plain = state.expected + change @ state.model.second @ change / 2
        errors = jnp.abs(gained - plain), jnp.abs(gained - plain + change @ state.second @ change / 2)
        better = jnp.where(state.model.curved, errors[0] >= 0.5 * errors[1], errors[1] < 0.5 * errors[0]) & ~first
        scale = jnp.maximum(FADE * state.model.scale, sizes)
        here = Model(factor, rotated, scale, second, jnp.zeros_like(x), better)
        model = tree.where(accepted, here, state.model)
        model = model._replace(second=jnp.where(better, second, 0), curved=better)
        measured = (value, aux, from_vector(gradient, params))
        value, aux, grads = tree.where(accepted, measured, (state.value, state.aux, state.grads))
        x = jnp.where(accepted, point, x)

        # The next trial point.
        unit = model._replace(scale=jnp.where(model.scale > 0, model.scale, 1))
        size = jnp.linalg.norm(unit.scale * x)
        radius = resize(
            Attempt(accepted, first, ratio, gained / base, state.slope / base, length, size, state.radius, state.whole)
        )
        active = box.active(x, model.gradient)
        newton, trial = step_in_box(
            box, unit, x, active, lambda model, free, radius: propose(model, free, radius, r.size), radius
        )
        expected, slope = decrease(model, trial - x)
        tests = _tests(objective, x, r, jacobian, gradient, value, sizes, newton, decrease(model, newton)[0], active)
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
                first & ~finite,
                tests.gradient,
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

        new_params = tree.where(accepted, trial_params, params)
        updates = jax.tree.map(jnp.subtract, new_params, params)
        new_state = SquaresState(
            *(value, aux, grads, model, second, tests, trial, expected, slope, jnp.all(trial == x + newton)),
            *(radius, rejections, jnp.array(True)),
        )
        return new_params, new_state, Info(value, aux, grads, updates, status, jnp.ones([], jnp.int32))

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


def _tests(objective, x, r, jacobian, gradient, value, sizes, newton, possible, active) -> Tests:
    """The tests of convergence at a point; `possible` is the predicted decrease of the Gauss-Newton step."""
    tol, eps = jnp.asarray(objective.tol, x.dtype), jnp.finfo(x.dtype).eps
    weight = jnp.where(sizes > 0, sizes, 1)
    # Through Q the steps are known to ε |r|: below it they tell nothing of a slope beside a large constant.
    moves, places = weight * jnp.abs(newton) + eps * jnp.linalg.norm(r), weight * jnp.abs(x)
    moves = jnp.where(active, 0, moves)
    least = jnp.sqrt(tol) * jnp.linalg.norm(places)
    is_small = lambda share: jnp.all(moves <= share * jnp.maximum(places, least))
    # Residuals are known to ε times their terms, of which |J| |x| measures the size; their errors add as squares do.
    terms = jnp.abs(jacobian) @ jnp.abs(x) + jnp.abs(r)
    rounding = ROUNDING * eps * column_norms(jacobian * terms[:, None])
    slopes = jnp.where(active, 0, jnp.abs(gradient))
    orthogonal = jnp.all(slopes <= tol * sizes * jnp.sqrt(2 * value).astype(x.dtype))
    near = is_small(jnp.sqrt(tol))
    return Tests(
        jnp.all(slopes <= rounding) | (orthogonal & near),
        is_small(tol),
        near,
        possible,
        ROUNDING * eps * jnp.linalg.norm(r * terms),
        _steepness(gradient, sizes, active),
    )
