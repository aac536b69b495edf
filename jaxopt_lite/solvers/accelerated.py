"""Gradient descent with momentum that is made anew where it points uphill.

    x₊ = y - ∇f(y) / L        y₊ = x₊ + β (x₊ - x)        β = (θ - 1) / θ₊        θ₊ = (1 + √(1 + 4 θ²)) / 2

Nesterov, 1983; Beck & Teboulle, 2009. θ = 1 again where ∇f(y)·(x₊ - x) > 0: O'Donoghue & Candès, 2015. f is evaluated
at y₊ only, and L, the curvature, is checked between y and y₊: one evaluation a step, and none in between.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Objective, solver
from jaxopt_lite.core.numbers import Fraction, Positive
from jaxopt_lite.solvers import endings
from jaxopt_lite.tree import inner

__all__ = ["MOMENTUM_TRIES", "accelerated_gradient_descent", "judge_curvature"]

IDLE = 60  # number of steps without progress after which it has stalled: the norm of the gradient goes up and down
MOMENTUM_TRIES = 3  # number of rejected trials after which the momentum is dropped too


class AcceleratedState(NamedTuple):
    """The state; the parameters are y, and value, aux and gradient those there."""

    value: jax.Array
    aux: Any
    grads: Any
    x: Any  # the point that the last gradient step led to
    theta: jax.Array
    curvature: jax.Array  # L
    rejected: jax.Array  # int32: successive rejected trials
    course: endings.Course


@solver
def accelerated_gradient_descent(first_step: Positive = 1.0, relax: Fraction = 0.95, *, tries: int = 60):
    """Nesterov's accelerated gradient with adaptive restart; the step length 1 / L is found by backtracking.

    For smooth functions whose gradient alone is affordable; `lbfgs` needs fewer evaluations nearly always.

    Args:
        first_step: length of the first trial step, above 0, in units of the parameters, for gradients of norm 1 and
            more; shorter for smaller ones.
        relax: the factor of L after each accepted step, in [0, 1], so that steps can grow again; 1 never lowers L.
        tries: successive evaluations that may be rejected, at least 1.

    Raises:
        ValueError: if tries is less than 1.

    Reference: Nesterov, "A Method of Solving a Convex Programming Problem with Convergence Rate O(1/k²)", 1983; Beck &
        Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems", 2009; O'Donoghue &
        Candès, "Adaptive Restart for Accelerated Gradient Schemes", 2015, Eq. (13).
    """
    if not isinstance(tries, int) or tries < 1:
        raise ValueError(f"accelerated_gradient_descent: tries must be an int of at least 1, got {tries!r}")

    def init(objective: Objective, params: Any) -> AcceleratedState:
        value, aux = jax.eval_shape(objective.value, params)
        zeros = lambda like: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        zero, still = jnp.zeros([], value.dtype), jax.tree.map(jnp.zeros_like, params)
        one = jnp.ones_like(zero)
        course = endings.unbegun(zero)
        return AcceleratedState(zero, zeros(aux), still, params, one, one, jnp.zeros([], jnp.int32), course)

    def step(objective: Objective, params: Any, state: AcceleratedState) -> tuple[Any, AcceleratedState, Info]:
        course = state.course
        begun, probing = course.begun, course.probe != endings.NO
        x, y_next, theta, momentum = propose(params, state)
        trial = endings.beside(course, params, tree.where(begun, y_next, params))
        value, aux, grads = objective.value_and_grad(trial)
        dtype = value.dtype
        norm = tree.global_norm(grads).astype(dtype)

        before, after = (params, state.value, state.grads), (trial, value, grads)
        judged = judge_curvature(before, after, norm, state.curvature, relax, course.opening)
        accepted = (judged.enough & ~probing) | ~begun
        rejected = jnp.where(probing, state.rejected, jnp.where(accepted, 0, state.rejected + 1))
        first = jnp.where(norm == 0, 1, norm) / first_step * jnp.maximum(1, 1 / jnp.where(norm == 0, 1, norm))
        first = jnp.where(endings.is_small(objective, norm, value), norm / endings.reach(params).astype(dtype), first)
        curvature = jnp.where(probing, state.curvature, judged.raised)
        curvature = jnp.where(accepted, jnp.where(begun, judged.lowered, first), curvature)

        is_over = (rejected >= tries) & ~accepted
        is_tiny = course.norm**2 / state.curvature <= 100 * judged.rounding
        is_first = (state.rejected == 0) & ~is_over
        sizes = (norm, norm, judged.dd, judged.yy)
        seen = endings.Trial(trial, value, grads, *sizes, accepted, False, is_first, is_over, is_tiny)
        next_course, status = endings.follow(course, objective, params, state.value, seen, IDLE)
        restarts = ~begun | (value > state.value + judged.rounding) | ~momentum
        theta = jnp.where(accepted, jnp.where(restarts, 1, theta), state.theta).astype(dtype)
        here = (trial, value, aux, grads, tree.where(begun, x, trial))
        there = (params, state.value, state.aux, state.grads, state.x)
        new_params, value, aux, grads, x = tree.where(accepted, here, there)
        updates = jax.tree.map(jnp.subtract, new_params, params)
        new_state = AcceleratedState(
            *(value, aux, grads, x, theta),
            *(curvature.astype(dtype), rejected.astype(jnp.int32), next_course),
        )
        return new_params, new_state, Info(value, aux, grads, updates, status, jnp.ones([], jnp.int32))

    return init, step


def propose(y: Any, state: AcceleratedState) -> tuple[Any, Any, jax.Array, jax.Array]:
    """x₊, y₊, θ₊ of the next trial, and whether it has momentum."""
    x = jax.tree.map(lambda y, g: y - g / state.curvature.astype(g.real.dtype), y, state.grads)
    ahead = jax.tree.map(jnp.subtract, x, state.x)
    momentum = (inner(state.grads, ahead) <= 0) & (state.rejected < MOMENTUM_TRIES)
    theta = (1 + jnp.sqrt(1 + 4 * state.theta**2)) / 2
    beta = jnp.where(momentum, (state.theta - 1) / theta, 0)
    return x, jax.tree.map(lambda x, a: x + beta.astype(a.real.dtype) * a, x, ahead), theta, momentum


class Judged(NamedTuple):
    """What an evaluation of f at y₊ says about the curvature L between y and y₊ = y + δ."""

    enough: jax.Array  # bool: whether L is large enough
    lowered: jax.Array  # the next L if it is
    raised: jax.Array  # the next L if it is not
    measured: jax.Array  # ‖Δg‖ / ‖δ‖, or 0 where it is not finite
    dd: jax.Array  # δ·δ
    yy: jax.Array  # Δg·Δg
    rounding: jax.Array  # of f


def judge_curvature(
    before: tuple,
    after: tuple,
    norm: jax.Array,
    curvature: jax.Array,
    relax: Any,
    opening: jax.Array,
    *,
    beside_slope: bool = False,
) -> Judged:
    """Judge L: f(y₊) <= f(y) + g·δ + L ‖δ‖² / 2 and ‖Δg‖ <= L ‖δ‖; where values differ by rounding, the second only.

    Args:
        before: parameters, f and its gradient at y.
        after: the same at y₊.
        norm: of the gradient at y₊.
        curvature: L.
        relax: the factor of an L that is large enough.
        opening: whether no step has been accepted yet; then L is lowered to what was measured, by 1000 at most.
        beside_slope: whether "by rounding" is of f(y) + g·δ, for methods whose g is not small in the end.
    """
    (params, old_value, old_grads), (trial, value, grads) = before, after
    dtype = value.dtype
    delta, change = (jax.tree.map(jnp.subtract, *pair) for pair in ((trial, params), (grads, old_grads)))
    dd = inner(delta, delta).astype(dtype)
    slope = inner(old_grads, delta).astype(dtype)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    rounding = endings.ROUNDING * jnp.finfo(dtype).eps * jnp.abs(old_value)
    expected = old_value + slope if beside_slope else old_value
    equal = jnp.abs(value - expected) <= rounding
    below = value <= old_value + slope + curvature * dd / 2
    turn = tree.global_norm(change) / jnp.where(dd == 0, 1, jnp.sqrt(dd)).astype(dtype)
    enough = finite & (turn <= curvature) & (below | equal)
    measured = jnp.where(finite & jnp.isfinite(turn), turn, 0)
    opened = jnp.clip(1.1 * jnp.maximum(measured, 0), 1e-3 * curvature, curvature)
    lowered = jnp.where(opening, opened, relax * curvature)
    raised = curvature * jnp.where(finite, jnp.clip(measured / curvature, 2, 10), 10)
    return Judged(enough, lowered, raised, measured, dd, inner(change, change), rounding)
