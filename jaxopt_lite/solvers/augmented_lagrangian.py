"""Minimizing under constraints l <= c(x) <= u, equalities where l = u, by a method that takes none.

    L(x; y, ρ) = f(x) + ½ ρ |s - P(s)|²,   s = c(x) + y / ρ,   P the projection onto [l, u]

is minimized by an inner solver (Hestenes, 1969; Powell, 1969; for inequalities Rockafellar, 1974). Where it ends, the
multipliers become ŷ = ρ (s - P(s)), with which the gradient of L is that of the Lagrangian f + ŷ·c, and a new inner
solve begins from there. Its penalty ρ grows where the measure |c - P(s)| of infeasibility and complementarity has not
shrunk enough. So far Birgin & Martínez, "Practical Augmented Lagrangian Methods for Constrained Optimization", 2014,
Algorithm 4.1. Here a step is one step of the inner solver.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.execution import any_lane
from jaxopt_lite.core.method import Info, Interval, Objective, Solver, Status, solver
from jaxopt_lite.core.numbers import Fraction, Positive, concrete
from jaxopt_lite.core.vectors import from_vector, to_vector
from jaxopt_lite.solvers.bounded import lbfgsb
from jaxopt_lite.solvers.descent import DescentState, again

__all__ = ["augmented_lagrangian"]

FEASIBLE = 10.0  # the tolerance of a constraint is this times max(tol, ε) max(1, |bound|)
ROUNDING = 64.0  # and this times ε times its size at the start
OFFSET = 4.0  # size of the constant that is added to values, in units of max(1, |f|) at the start
LARGEST = 1e20  # multipliers are kept within ± this, so that they stay safeguarded
STUCK = 6  # inner solves without progress after which it ends, if the penalty term is larger than f
HOPELESS = 20  # and after which it ends anyway
RUNAWAY = 1e4  # growth of the violation after which an inner solve is begun anew with a larger penalty
PROBES = 8  # products with the Jacobian of the constraints, which measure its rows
GAP = 0.01  # the size of a constraint is at least this times its distance from the nearest bound at the start
SMALLEST = 1e-4  # the least unit of f or a constraint
SECTION = 0.1  # an inner solve ends where the norm of the gradient is this times the one at its start


class Point(NamedTuple):
    """Parameters with what was measured there."""

    params: Any
    value: jax.Array  # f
    aux: Any
    grads: Any  # of the Lagrangian, without the parameters that bounds hold
    multipliers: jax.Array  # -ŷ [m]
    violation: jax.Array  # max |c - P(c)|


class AugmentedState(NamedTuple):
    """The state of a solve. The inner one is that of the current augmented Lagrangian."""

    point: Point  # what is returned: the solution, or the best point
    here: Any  # the parameters of the inner solver
    anchor: Any  # those with which the inner solve began
    inner: Any  # its state
    y: jax.Array  # [m]
    penalty: jax.Array  # ρ
    offset: jax.Array  # added to the values of the augmented Lagrangian, see `_augmented`
    inner_tol: jax.Array  # gradient norm at which an inner solve ends
    measures: jax.Array  # |c - P(s)| where the last two inner solves ended [2], the last one first
    least: jax.Array  # the least max of the gradient's norm and the measure, each relative to its tolerance
    size: jax.Array  # of f at the start
    sizes: jax.Array  # of the gradients of the constraints at the start [m]; the inner solver sees c / sizes
    rounding: jax.Array  # of the constraints at the start [m]
    first_norm: jax.Array  # of the gradient of the first augmented Lagrangian at the start
    first_violation: jax.Array
    stuck: jax.Array  # int32: successive inner solves without progress
    count: jax.Array  # int32: steps, of which the first measures the scale
    opens: jax.Array  # bool: whether the next step is the first of an inner solve

    @property
    def multipliers(self) -> jax.Array:
        return self.point.multipliers

    @property
    def violation(self) -> jax.Array:
        return self.point.violation


@solver(bounds=True, constraints=True)
def augmented_lagrangian(
    inner: Solver = lbfgsb(),  # noqa: B008, a value that does not change
    growth: Positive = 10.0,
    sufficient: Fraction = 0.1,
):
    """The augmented Lagrangian method, with any solver for the problems without constraints.

    It has converged where the (projected) gradient of the Lagrangian meets the test that other solvers ask of the
    gradient of f, and every constraint holds within 10 tol max(1, |bound|), plus its rounding at the start, exactly so
    where its multiplier is not zero. The status is INFEASIBLE where the violation is not small and no longer shrinks
    while the penalty grows: at a stationary point of the violation, which need not be its least value. Without
    convergence the feasible point with the least f is returned, or where none was seen, the one with the least
    violation. f and c are evaluated outside of the constraints, but within the bounds if the inner solver takes them.
    The first evaluation measures the sizes of f and of each constraint, mainly the norms of their gradients at the
    start. Constraints are divided by theirs, and that of f sets the penalty, so their units matter little; those of the
    parameters do.

    Args:
        inner: a solver of kind "minimize", such as `jo.solvers.lbfgsb()`, which takes bounds.
        growth: factor of the penalty, above 1.
        sufficient: the penalty grows unless infeasibility and complementarity shrink by this factor in two inner
            solves, in [0, 1].

    Raises:
        ValueError: for an inner solver of another kind, or one that takes constraints or draws random numbers, or a
            growth of at most 1; and when it is used with bounds that the inner solver does not take.

    Reference: Birgin & Martínez, "Practical Augmented Lagrangian Methods for Constrained Optimization", 2014, Algorithm
        4.1; Andreani, Birgin, Martínez & Schuverdt, "On Augmented Lagrangian Methods with General Lower-Level
        Constraints", 2007.
    """
    name = inner.factory.spec.name
    if inner.solves != "minimize" or inner.takes_constraints or inner.needs_key or inner.needs_box:
        raise ValueError(
            f"augmented_lagrangian: inner must be a local solver of minimize, such as lbfgsb(), got {name}"
        )
    if concrete(growth) and not growth > 1:
        raise ValueError(f"augmented_lagrangian: growth must be above 1, got {growth}")

    def init(objective: Objective, params: Any) -> AugmentedState:
        if objective.lower is not None and not inner.takes_bounds:
            raise ValueError(f"augmented_lagrangian: {name} takes no bounds; use inner=jo.solvers.lbfgsb()")
        (value, aux), interval = jax.eval_shape(lambda p: (objective.value(p), _interval(objective, p)), params)
        zero, count = jnp.zeros([], value.dtype), jnp.zeros([], jnp.int32)
        y, infinity = jnp.zeros(interval.values.shape, value.dtype), jnp.full_like(zero, jnp.inf)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), aux)
        point = Point(params, infinity, zeros, jax.tree.map(jnp.zeros_like, params), y, infinity)
        state = inner.init(_augmented(objective, y, y + 1, zero + 1, zero), params)
        numbers = (zero + 1, zero, infinity, jnp.full(2, infinity), infinity, zero + 1)  # from the penalty to the size
        return AugmentedState(
            *(point, params, params, state, y, *numbers, y + 1, y, zero, zero, count, count, jnp.array(True))
        )

    def step(objective: Objective, params: Any, state: AugmentedState) -> tuple[Any, AugmentedState, Info]:
        s, rho = state, state.penalty
        here, inner_state, info = inner.step(_augmented(objective, s.y, s.sizes, rho, s.offset), s.here, s.inner)
        value, aux, interval = info.aux
        norm = tree.global_norm(info.grads).astype(value.dtype)

        scaling = s.count == 0
        old_sizes = s.size, s.sizes
        size, sizes = jax.lax.cond(
            any_lane(scaling),
            lambda: tree.keep_dtypes(tree.where(scaling, _sizes(objective, params), old_sizes), old_sizes),
            lambda: old_sizes,
        )
        scaled = Interval(*(bound / sizes for bound in interval))
        shift = Interval(scaled.values + s.y / rho, *scaled[1:]).excess - s.y / rho  # c - P(s)
        multipliers = s.y + rho * shift
        outside = jnp.abs(interval.excess)
        measure, violation = _largest(shift), _largest(outside)
        eps = max(float(jnp.finfo(x.dtype).eps) for x in (value, *jax.tree.leaves(params)))  # of the coarsest
        rounding = jnp.where(scaling, ROUNDING * eps * jnp.abs(interval.values), s.rounding)
        nearest = jnp.clip(*interval)  # outside the bound itself, of which the other one may be 1e20
        allowed = FEASIBLE * jnp.maximum(objective.tol, eps) * jnp.maximum(1, jnp.abs(nearest)) + rounding
        first_norm = jnp.where(s.count <= 1, norm, s.first_norm)
        first_violation = jnp.where(scaling, violation, s.first_violation)

        # Where the multiplier is not zero, c - P(s) is the distance from the bound.
        excess = _largest(jnp.where(multipliers != 0, jnp.abs(shift) * sizes, 0) / allowed)
        target = objective.tol * jnp.minimum(first_norm, jnp.maximum(1, jnp.abs(value)))
        inner_converged = jnp.isin(info.status, jnp.array([int(k) for k in Status if k.converged]))
        # The inner solver's word counts unless rounding of the penalty term is all that it can see.
        is_known = jnp.isnan(norm) | (norm <= jnp.sqrt(objective.tol) * size)
        stationary = objective.converged(norm, value, first_norm) | (inner_converged & is_known)
        converged = ~scaling & stationary & (excess <= 1)

        inner_tol = jnp.where(s.opens, jnp.minimum(s.inner_tol, SECTION * norm), s.inner_tol)
        # The gradients of the scaled constraints have norms of about 1, so the sum over them is rounded by this.
        noise = FEASIBLE * eps * jnp.sum(jnp.abs(multipliers))
        inner_tol = jnp.maximum(inner_tol, jnp.maximum(0.5 * target, noise))

        # The next inner solve. One that does not begin with finite numbers would not do so again.
        is_bad = (s.opens & (info.status == Status.NON_FINITE)) | (scaling & ~jnp.isfinite(value + violation))
        runs_away = violation > RUNAWAY * jnp.maximum(1, first_violation)
        unbounded = (info.status == Status.UNBOUNDED) & ~(violation > jnp.sqrt(objective.tol))
        runs_away |= ((info.status == Status.UNBOUNDED) & ~unbounded) | ((info.status == Status.NON_FINITE) & ~scaling)
        ends = ~scaling & (runs_away | (norm <= inner_tol) | (info.status != Status.RUNNING))
        shrunk = ~runs_away & (measure <= sufficient * jnp.max(s.measures))
        merit = jnp.maximum(jnp.where(jnp.isnan(norm), 0, norm) / jnp.where(target > 0, target, 1), excess)
        progress = ~runs_away & ((measure <= 0.9 * jnp.min(s.measures)) | (merit <= 0.5 * s.least))
        stuck = jnp.where(ends, jnp.where(progress, 0, s.stuck + 1), s.stuck).astype(jnp.int32)
        # Only where the penalty outweighs f does the violation that is left say that no point is feasible.
        dominated = rho / 2 * jnp.sum(scaled.excess**2) >= jnp.maximum(1, jnp.abs(value))
        dominated |= violation <= jnp.sqrt(objective.tol)
        grown = rho * jnp.where(ends & ~shrunk, jnp.where(runs_away, growth**2, growth), 1)
        first_penalty = 10 * size / jnp.maximum(1, jnp.sum(scaled.excess**2) / 2)
        penalty = jnp.where(scaling, jnp.clip(first_penalty, 1e-8, 1e8), grown)
        y = jnp.where(ends & ~runs_away, jnp.clip(multipliers, -LARGEST, LARGEST), s.y)
        offset = jnp.where(scaling, jnp.where(value < 0, -OFFSET, OFFSET) * size, s.offset)
        last_two = jnp.stack([measure, s.measures[0]]).astype(value.dtype)
        measures = jnp.where(ends & ~runs_away, last_two, s.measures)
        here = tree.where(runs_away, s.anchor, here)
        anchor = tree.where(ends, here, s.anchor)
        following = _augmented(objective, y, sizes, penalty, offset)
        kept = jax.lax.cond(
            ends | scaling,
            lambda: _begun(inner, following, here, inner_state, ~runs_away & ~scaling),
            lambda: inner_state,
        )

        point = Point(here, value, aux, info.grads, 0 - multipliers / sizes, violation)
        point = tree.where(converged | _is_better(point, s.point, allowed, outside), point, s.point)
        status = jnp.select(
            [
                is_bad,
                converged,
                unbounded,
                (stuck >= HOPELESS) | ((stuck >= STUCK) & dominated),
            ],
            [
                Status.NON_FINITE,
                jnp.where(jnp.isnan(norm), Status.CONVERGED_STEP, Status.CONVERGED_GRADIENT),
                Status.UNBOUNDED,
                jnp.where(s.point.violation > jnp.sqrt(objective.tol), Status.INFEASIBLE, Status.STALLED),
            ],
            Status.RUNNING,
        ).astype(jnp.int32)
        least = jnp.where(ends, jnp.minimum(merit, s.least), s.least)
        inner_tol = jnp.where(scaling, jnp.inf, inner_tol)
        new_state = AugmentedState(
            *(point, here, anchor, kept, y, penalty, offset, inner_tol, measures, least, size, sizes, rounding),
            *(first_norm, first_violation, stuck, s.count + 1, ends | scaling),
        )
        updates = jax.tree.map(jnp.subtract, point.params, params)
        result = Info(point.value, point.aux, point.grads, updates, status, info.evaluations)
        return point.params, tree.keep_dtypes(new_state, state), result

    return init, step


def _interval(objective: Objective, params: Any) -> Interval:
    """The constraints at params; none of them if the objective has none."""
    nothing = jnp.zeros(0, jnp.float32)
    return Interval(nothing, nothing, nothing) if objective.constraints is None else objective.constraints(params)


def _augmented(
    objective: Objective, y: jax.Array, sizes: jax.Array, penalty: jax.Array, offset: jax.Array
) -> Objective:
    """The augmented Lagrangian of the constraints c / sizes, with (f, aux, constraints) beside its value.

    Line searches take values for equal that differ by some ε times their size. The terms of f may be larger than its
    value, which is often zero at a solution, so a constant of the size of f at the start is added.
    """

    def f(params):
        value, aux = objective.value(params)
        interval = _interval(objective, params)
        values, lower, upper = (bound / sizes for bound in interval)
        shifted = Interval(values + y / penalty, lower, upper)
        augmented = value + (offset + penalty / 2 * jnp.sum(shifted.excess**2)).astype(value.dtype)
        return augmented, (value, aux, interval)

    common: Any = {"lower": objective.lower, "upper": objective.upper, "key": objective.key}
    return Objective(f, has_aux=True, tol=objective.tol, **common)


def _begun(inner: Solver, objective: Objective, params: Any, state: Any, keeps: jax.Array) -> Any:
    """The state of a new inner solve; of a line search method with the memory of the last one if it `keeps` it."""
    fresh = inner.init(objective, params)
    if isinstance(state, DescentState):
        fresh = tree.where(keeps, again(state), fresh)
    return tree.keep_dtypes(fresh, state)


def _sizes(objective: Objective, params: Any) -> tuple[jax.Array, jax.Array]:
    """The size of f, a scalar, and those of the constraints, [m]: the norms of their gradients, and shares of values.

    Of more than PROBES parameters the norms |∇c| are about right, from products J v: where the numbers of v are ±1 at
    random, the mean of (∇c·v)² is |∇c|². The v here have the same mean square, and need no key.
    """

    def both(x):
        interval = _interval(objective, from_vector(x, params))
        return (objective.value(from_vector(x, params))[0], interval.values), interval

    x = to_vector(params)
    (value, values), pull, interval = jax.vjp(both, x, has_aux=True)
    gradient = pull((jnp.ones_like(value), jnp.zeros_like(values)))[0]
    # J v as the transpose of Jᵀu: a function with a derivative of its own need not have a forward mode.
    push = jax.linear_transpose(lambda u: pull((jnp.zeros_like(value), u))[0], values)
    i = jnp.arange(x.size, dtype=x.dtype)
    few = x.size <= PROBES
    probe = lambda k: jnp.where(i == k, 1.0, 0.0) if few else jnp.sqrt(2.0) * jnp.cos((k + 1) * (i + 1))
    squares = jax.lax.map(lambda k: push(probe(k).astype(x.dtype))[0] ** 2, jnp.arange(min(x.size, PROBES)))
    norms = jnp.sqrt(jnp.sum(squares, axis=0) if few else jnp.mean(squares, axis=0))
    gaps = jnp.minimum(jnp.abs(values - interval.lower), jnp.abs(values - interval.upper))
    norm = tree.global_norm(gradient).astype(value.dtype)
    return jnp.maximum(jnp.abs(value), _unit(norm, norm)), _unit(norms, GAP * gaps)


def _unit(norm: jax.Array, other: jax.Array) -> jax.Array:
    """The larger one, if it is finite; 1 for zero, and not too small, since it may be so at the start only."""
    size = jnp.maximum(jnp.where(jnp.isfinite(norm), norm, 0), jnp.where(jnp.isfinite(other), other, 0))
    return jnp.where(size > 0, jnp.maximum(size, SMALLEST), 1)


def _largest(vector: jax.Array) -> jax.Array:
    return jnp.max(vector, initial=0) if vector.size == 0 else jnp.max(jnp.abs(vector))


def _is_better(new: Point, old: Point, allowed: jax.Array, outside: jax.Array) -> jax.Array:
    """Whether a point is feasible with a lower value than the old one, or is less infeasible."""
    loose = jnp.max(allowed, initial=0)
    is_new, is_old = jnp.all(outside <= allowed), old.violation <= loose
    finite = jnp.isfinite(new.value) & jnp.isfinite(new.violation)
    return finite & jnp.where(is_new, ~is_old | (new.value < old.value), ~is_old & (new.violation < old.violation))
