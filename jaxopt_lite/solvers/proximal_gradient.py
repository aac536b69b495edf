"""Minimizing f + h, where f is smooth and h is a penalty with a proximal operator, or a set in which params must lie.

    x₊ = prox_h(y - ∇f(y) / L, 1 / L)        y₊ = prox_h(x₊ + β (x₊ - x), 0)        β = (θ - 1) / θ₊

    prox_h(v, t) = argmin_w h(w) + ‖w - v‖² / (2 t)        of a set it is the projection

Beck & Teboulle, 2009. θ grows as in `accelerated_gradient_descent`, and is 1 again where (y - x₊)·(x₊ - x) > 0 or f + h
rises: O'Donoghue & Candès, 2015. f is evaluated at y₊ only, which the second prox keeps in the domain of h. A point
minimizes f + h, if both are convex, where the gradient mapping L (y - x₊) is zero; without h that is ∇f(y).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite import tree
from jaxopt_lite.core.checks import check_like
from jaxopt_lite.core.method import Info, Objective, Status, solver
from jaxopt_lite.core.numbers import Fraction, Positive, describe
from jaxopt_lite.core.parameters import Arrays
from jaxopt_lite.losses import Penalty
from jaxopt_lite.solvers import endings
from jaxopt_lite.solvers.accelerated import MOMENTUM_TRIES, judge_curvature
from jaxopt_lite.solvers.krylov import along
from jaxopt_lite.tree import inner

__all__ = ["projected_gradient", "proximal_gradient"]

IDLE = 300  # number of steps without progress after which it has stalled: with momentum the norm goes up and down
PRODUCTS = 3  # products with the Hessian, for the step of the equation that differentiates a solution


class ProximalState(NamedTuple):
    """The state; the parameters are y, and value, f, aux and gradient those there."""

    value: jax.Array  # f + h
    smooth: jax.Array  # f
    aux: Any
    grads: Any
    x: Any  # where the last prox step led to
    ahead: Any  # x₊: where a prox step from y leads to
    theta: jax.Array
    curvature: jax.Array  # L
    rejected: jax.Array  # int32: successive rejected trials
    relapses: jax.Array  # int32: how often a trial was rejected after one that was accepted
    course: endings.Course  # its norms are of the gradient mapping


@solver
def proximal_gradient(penalty: Penalty, first_step: Positive = 1.0, relax: Fraction = 0.95, *, tries: int = 60):
    """FISTA: accelerated proximal gradient descent on f plus a penalty, with adaptive restart and backtracking.

    It minimizes f + penalty, and `solution.value` is that sum; give f without the penalty. `grad_norm` is the norm of
    the gradient mapping. Zeros of an L1 penalty are exact. The solution can be differentiated with respect to the
    penalty's numbers too.

    Args:
        penalty: with a proximal operator, such as `l1_penalty(0.1)`. f is evaluated where it is finite only.
        first_step: length of the first trial step, above 0, in units of the parameters, for gradients of norm 1 and
            more; shorter for smaller ones.
        relax: the factor of L after each accepted step, in [0, 1], so that steps can grow again; 1 never lowers L.
        tries: successive evaluations that may be rejected, at least 1.

    Raises:
        TypeError: if penalty is not a penalty, or has no proximal operator.
        ValueError: if tries is less than 1.

    Reference: Beck & Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems", 2009;
        O'Donoghue & Candès, "Adaptive Restart for Accelerated Gradient Schemes", 2015, Section 5.
    """
    if not penalty.has_prox:
        raise TypeError(
            f"proximal_gradient: {penalty!r} has no proximal operator; add it to f where it is smooth, or let its "
            "factory return a pair (value, prox)"
        )
    return proximal_method("proximal_gradient", penalty.prox, penalty, first_step, relax, tries)


@solver
def projected_gradient(
    projection: Any, arguments: Arrays = (), first_step: Positive = 1.0, relax: Fraction = 0.95, *, tries: int = 60
):
    """Accelerated projected gradient descent: f over a set that is given by its projection.

    f is evaluated at points of the set only, the start is moved to the nearest one. `grad_norm` is the norm of the
    gradient mapping. The set should be convex; of others, such as spheres, a point is found at which a small step along
    the negative gradient leads back to it. If the projection does not return points of the set, but moves its own
    results, the status is INFEASIBLE.

    Args:
        projection: (params, *arguments) -> the nearest point of the set, a tree like params, such as those of
            `optax.projections`; static.
        arguments: a tuple of the further arguments of the projection, pytrees of numbers and arrays, such as the radius
            of a ball. They are traced, so they can be swept, vmapped and differentiated.
        first_step: as in `proximal_gradient`.
        relax: as in `proximal_gradient`.
        tries: as in `proximal_gradient`.

    Raises:
        TypeError: if projection is not a function, or arguments is not a tuple of numbers and arrays.
        ValueError: if tries is less than 1.

    Reference: as for `proximal_gradient`; without momentum: Goldstein, "Convex Programming in Hilbert Space", 1964.
    """
    if isinstance(projection, Penalty):
        raise TypeError(
            f"projected_gradient: projection must be a function, got a penalty; use proximal_gradient({projection!r})"
        )
    if not callable(projection):
        raise TypeError(
            f"projected_gradient: projection must be a function (params, *arguments), got {describe(projection)}"
        )
    if not isinstance(arguments, tuple):
        raise TypeError(
            "projected_gradient: arguments must be a tuple of the further arguments of the projection, got "
            f"{describe(arguments)}; write (x,)"
        )

    def prox(params, step):
        dtype = functools.reduce(tree.wider, [tree.real_dtype(tree.dtype_of(p)) for p in jax.tree.leaves(params)])

        def like_params(x):
            is_complex = jnp.iscomplexobj(x)
            return tree.cast(x, jnp.result_type(dtype, jnp.complex64) if is_complex else dtype)

        result = projection(params, *jax.tree.map(like_params, arguments))
        check_like("projected_gradient: the projection", result, params)
        return tree.cast_like(result, params)

    return proximal_method("projected_gradient", prox, lambda params: jnp.zeros(()), first_step, relax, tries)


def proximal_method(
    who: str, prox: Callable, penalty: Callable, first_step: Any, relax: Any, tries: int
) -> tuple[Callable, Callable, Callable, Callable]:
    """`init`, `step`, `optimality` and `penalty` of a solver.

    In derivatives of the solve by unrolling, step lengths are constants.

    Args:
        who: the solver, for messages.
        prox: (params, step) -> params.
        penalty: h, params -> scalar.
        first_step: length of the first trial step.
        relax: the factor of L after each accepted step.
        tries: successive evaluations that may be rejected.
    """
    if not isinstance(tries, int) or tries < 1:
        raise ValueError(f"{who}: tries must be an int of at least 1, got {tries!r}")
    total = lambda smooth, params: smooth + penalty(params).astype(smooth.dtype)

    def init(objective: Objective, params: Any) -> ProximalState:
        value, aux = jax.eval_shape(objective.value, params)
        zeros = lambda like: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        zero, still = jnp.zeros([], value.dtype), jax.tree.map(jnp.zeros_like, params)
        one, course = jnp.ones_like(zero), endings.unbegun(zero)
        none = jnp.zeros([], jnp.int32)
        return ProximalState(*(zero, zero, zeros(aux), still, params, params, one, one, none, none, course))

    def step(objective: Objective, params: Any, state: ProximalState) -> tuple[Any, ProximalState, Info]:
        course = state.course
        begun, probing = course.begun, course.probe != endings.NO
        # A start with a small gradient mapping may be a solution: first look far along it.
        looks = begun & course.opening & ~probing & (state.rejected == 0)
        looks &= endings.is_small(objective, course.norm, state.value)
        y_next, theta, momentum = propose(params, state)
        is_still = ~momentum | (state.theta == 1)  # β = 0
        target = tree.where(begun, tree.where(looks, far(params, state), y_next), params)
        target = endings.beside(course, params, target)
        trial = prox(target, jnp.zeros_like(state.value))
        smooth, aux, grads = objective.value_and_grad(trial)
        value, g_norm = total(smooth, trial), tree.global_norm(grads).astype(smooth.dtype)

        before, after = (params, state.smooth, state.grads), (trial, smooth, grads)
        reach = endings.reach(params).astype(value.dtype)
        curvature = jnp.where(looks, jnp.minimum(course.norm / reach, state.curvature), state.curvature)
        # The more often L was too small, the slower it is lowered: momentum begins anew each time.
        slow = jnp.asarray(relax, value.dtype) ** (1 / (1 + state.relapses.astype(value.dtype)) ** 2)
        judged = judge_curvature(before, after, g_norm, curvature, slow, course.opening, beside_slope=True)
        enough = judged.enough & jnp.isfinite(value) & (~looks | (value < state.value))
        accepted = (enough & ~probing) | ~begun
        rejected = jnp.where(probing, state.rejected, jnp.where(accepted, 0, state.rejected + 1))
        seen_there = jnp.where(
            judged.measured > 0, jnp.clip(judged.measured, curvature, state.curvature), state.curvature
        )
        raised = jnp.where(looks, seen_there, judged.raised)
        curvature = jnp.where(probing, state.curvature, raised)
        first = jnp.maximum(g_norm, 1) / first_step
        curvature = jnp.where(accepted, jnp.where(begun, judged.lowered, first), curvature)

        here = (trial, value, smooth, aux, grads, tree.where(begun, state.ahead, trial))
        there = (params, state.value, state.smooth, state.aux, state.grads, state.x)
        new, new_value, new_smooth, new_aux, new_grads, x = tree.where(accepted, here, there)
        curvature = jax.lax.stop_gradient(floored(curvature, new, new_grads).astype(value.dtype))
        ahead, mapping = prox_step(prox, new, new_grads, curvature)
        norm = tree.global_norm(mapping).astype(value.dtype)

        course = course._replace(norm=jnp.where(accepted, course.norm, norm))
        noise = jnp.finfo(value.dtype).eps * curvature * reach  # of the gradient mapping, by rounding of parameters
        rounding = judged.rounding + endings.ROUNDING * jnp.finfo(value.dtype).eps * jnp.abs(state.value)
        relapses = begun & ~probing & ~accepted & ~course.opening & (state.rejected == 0)
        is_over = (rejected >= tries) & ~accepted
        seen = endings.Trial(
            *(trial, value, grads, norm, g_norm, judged.dd, judged.yy + noise**2, accepted, False),
            *((state.rejected == 0) & ~is_over, is_over, course.norm**2 / curvature <= 100 * rounding),
        )
        next_course, status = endings.follow(course, objective, params, state.value, seen, IDLE)
        # A norm that falls slowly is progress too: it is compared with the one at the last progress.
        fell = accepted & (~begun | (norm < endings.PROGRESS * state.course.least_norm))
        next_course = next_course._replace(least_norm=jnp.where(fell, norm, state.course.least_norm))
        strays = begun & ~probing & ~looks & is_still & is_apart(trial, state.ahead, params)
        status = jnp.where(strays, jnp.int32(Status.INFEASIBLE), status)
        restarts = ~begun | looks | (value > state.value + rounding) | ~momentum
        theta = jnp.where(accepted, jnp.where(restarts, 1, theta), state.theta).astype(value.dtype)
        new_state = ProximalState(
            *(new_value, new_smooth, new_aux, new_grads, x, ahead, theta, curvature),
            *(rejected.astype(jnp.int32), (state.relapses + relapses).astype(jnp.int32), next_course),
        )
        updates = jax.tree.map(jnp.subtract, new, params)
        return new, new_state, Info(new_value, new_aux, mapping, updates, status, jnp.ones([], jnp.int32))

    def optimality(objective: Objective, params: Any) -> Any:
        grads = objective.value_and_grad(params)[2]
        return prox_step(prox, params, grads, jax.lax.stop_gradient(curvature_at(objective, params, grads)))[1]

    return init, step, optimality, lambda objective, params: penalty(params)


def propose(y: Any, state: ProximalState) -> tuple[Any, jax.Array, jax.Array]:
    """x₊ + β (x₊ - x), θ₊, and whether the momentum is kept."""
    ahead = jax.tree.map(jnp.subtract, state.ahead, state.x)
    back = jax.tree.map(jnp.subtract, y, state.ahead)
    momentum = (inner(back, ahead) <= 0) & (state.rejected < MOMENTUM_TRIES)
    theta = (1 + jnp.sqrt(1 + 4 * state.theta**2)) / 2
    beta = jnp.where(momentum, (state.theta - 1) / theta, 0)
    return along(state.ahead, beta, ahead), theta, momentum


def prox_step(prox: Callable, y: Any, grads: Any, curvature: jax.Array) -> tuple[Any, Any]:
    """x₊ = prox(y - g / L, 1 / L), and the gradient mapping L (y - x₊)."""
    x = prox(along(y, -1 / curvature, grads), 1 / curvature)
    return x, jax.tree.map(lambda y, x: curvature.astype(y.real.dtype) * (y - x), y, x)


def far(y: Any, state: ProximalState) -> Any:
    """A point max(1, ‖y‖) away from y, in the direction of x₊."""
    d = jax.tree.map(jnp.subtract, state.ahead, y)
    length = tree.global_norm(d)
    return along(y, endings.reach(y) / jnp.where(length == 0, 1, length), d)


def floored(curvature: jax.Array, params: Any, grads: Any) -> jax.Array:
    """L, so large that y - g / L keeps two thirds of the digits of y.

    With a bounded set the gradient mapping L (y - x₊) is small for any y if only L is: also for that it needs a limit.
    """
    least = jnp.finfo(curvature.dtype).eps ** (1 / 3) * tree.global_norm(grads) / endings.reach(params)
    return jnp.maximum(curvature, least)


def is_apart(trial: Any, ahead: Any, y: Any) -> jax.Array:
    """Whether the projection of x₊, which is itself a projection, is another point."""
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(trial))
    size = jnp.maximum(tree.global_norm(ahead), tree.global_norm(jax.tree.map(jnp.subtract, ahead, y)))
    return tree.global_norm(jax.tree.map(jnp.subtract, trial, ahead)) > np.sqrt(eps) * size


def curvature_at(objective: Objective, params: Any, grads: Any) -> jax.Array:
    """An L of the size of the largest eigenvalue of the Hessian, by some steps of the power method."""
    any_way = lambda x: jnp.cos(1 + jnp.arange(x.size, dtype=x.real.dtype)).reshape(x.shape).astype(x.dtype)
    unit = lambda v, size: jax.tree.map(lambda x: x / jnp.where(size == 0, 1, size).astype(x.real.dtype), v)
    v = jax.tree.map(any_way, params)
    size = tree.global_norm(v)
    for _ in range(PRODUCTS):
        v = objective.hvp(params, unit(v, size))
        size = tree.global_norm(v)
    size = jnp.where(jnp.isfinite(size) & (size > 0), size, 1)
    return floored(size, params, grads)
