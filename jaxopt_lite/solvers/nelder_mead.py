"""Minimizing without a gradient, by a simplex of n + 1 points that moves, stretches and shrinks.

Nelder-Mead    the worst point is reflected at the centroid c of the others      Nelder & Mead, 1965

    reflection x_r = c + ρ (c - x_w),  expansion c + χ (x_r - c),  contraction c ± γ (x_r - c),  shrinking by σ

One evaluation a step: what is to be evaluated next is the state of a small machine.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Objective, Status, solver
from jaxopt_lite.core.numbers import Positive
from jaxopt_lite.core.vectors import from_vector, to_vector

__all__ = ["nelder_mead"]

FILL, REFLECT, EXPAND, OUTSIDE, INSIDE = range(5)  # what the trial is: a point of a new simplex, or one of the moves
FRESH = 10.0  # the edges of a second simplex, in units of the size at which the first one ended
LEVEL = 1e3  # values that differ by more than this times |f| are not those of a minimum, unless f = 0
NEAR_ZERO = 1e-12  # the least size at which a minimum is looked for from a start of zeros
ROUNDING = 4.0  # values that differ by less than this times ε |f| count as equal


class SimplexState(NamedTuple):
    """The simplex of n real numbers, and what is evaluated next."""

    points: jax.Array  # [n + 1, n]
    values: jax.Array  # [n + 1], infinite where not yet evaluated
    trial: jax.Array  # [n]
    phase: jax.Array  # int32, what the trial is
    index: jax.Array  # int32, of the point to be filled
    reflected: jax.Array  # [n]
    reflected_value: jax.Array
    best: jax.Array  # [n], of all evaluated points
    best_value: jax.Array
    best_aux: Any
    edges: jax.Array  # [n], of the last fresh simplex
    spread: jax.Array  # of the values of the first simplex
    last_best: jax.Array  # [n], where the last fresh simplex was made, NaN for the first one
    unscaled: jax.Array  # bool: the start was all zeros, so the size of the parameters is not known
    flat: jax.Array  # int32, how often in succession all values were equal
    begun: jax.Array  # bool


@solver(bounds=True)
def nelder_mead(edge: Positive = 0.05, *, adaptive: bool = True):
    """The simplex method of Nelder and Mead, for functions of few parameters without a useful gradient.

    Only values of f are used, so it may have kinks and steps; a point where it is NaN or infinite counts as the worst.
    It ends where the simplex is smaller than √tol / 3 relative to each parameter (to the first edge where that is
    larger) and its values differ by less than tol, relative to f and to the differences in the first simplex. A simplex
    may have collapsed where there is no minimum, so it ends only after another one, fresh and ten times as large as it
    was in the end, has ended near the same point. Where all values are equal to rounding while the simplex is larger,
    and also in a fresh one at the same best point, the solve has stalled.

    Trial points are clipped to the bounds, and the first points step inwards from a bound. Gradients and their norm are
    NaN in the solution.

    Args:
        edge: of the first simplex, above 0, relative to each parameter; for parameters that are zero, to the largest,
            or to 1. From a start of zeros that is a guess, and the end is judged by the size of the parameters that are
            found, down to 1e-12.
        adaptive: whether the coefficients depend on n as in Gao & Han, which is better from n = 10 or so; they are the
            same for n = 2. If False, ρ = 1, χ = 2, γ = σ = 1/2.

    Reference: Nelder & Mead, "A Simplex Method for Function Minimization", 1965; Gao & Han, "Implementing the
        Nelder-Mead Simplex Algorithm with Adaptive Parameters", 2012, Eq. (4.1).
    """

    def init(objective: Objective, params: Any) -> SimplexState:
        x = jnp.clip(to_vector(params), *_bounds(objective, params))
        value, aux = jax.eval_shape(objective.value, params)
        largest = jnp.max(jnp.abs(x), initial=0)
        edges = jnp.asarray(edge * jnp.where(x != 0, jnp.abs(x), jnp.where(largest > 0, largest, 1)), x.dtype)
        infinite, count = jnp.full([], jnp.inf, value.dtype), jnp.zeros([], jnp.int32)
        points = _simplex(x, edges, *_bounds(objective, params))
        return SimplexState(
            *(points, jnp.full(x.size + 1, jnp.inf, value.dtype), x, count, count, x, infinite, x, infinite),
            *(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), aux), edges),
            *(jnp.zeros_like(infinite), jnp.full_like(x, jnp.nan), largest == 0, count, jnp.array(False)),
        )

    def step(objective: Objective, params: Any, state: SimplexState) -> tuple[Any, SimplexState, Info]:
        lower, upper = _bounds(objective, params)
        trial, phase, n = state.trial, state.phase, state.trial.size
        rho, chi, gamma, sigma = _coefficients(n, adaptive)
        value, aux = objective.value(from_vector(trial, params))
        value = jnp.where(jnp.isnan(value), jnp.inf, value)
        found = (value < state.best_value) & (value > -jnp.inf) | ~state.begun
        best, best_value, best_aux = tree.where(
            found, (trial, value, aux), (state.best, state.best_value, state.best_aux)
        )

        # What the trial does to the simplex
        low, high, second, worst, centroid = _order(state.points, state.values)
        x_w = state.points[worst]
        reflects, fills = phase == REFLECT, phase == FILL
        keeps = reflects & (value >= low) & (value < second)
        keeps |= (phase == EXPAND) | (phase == OUTSIDE) & (value <= state.reflected_value)
        keeps |= (phase == INSIDE) & (value < high)
        falls_back = (phase == EXPAND) & (value >= state.reflected_value)
        new, new_value = tree.where(falls_back, (state.reflected, state.reflected_value), (trial, value))
        row = jnp.where(fills, state.index, worst)
        points = jnp.where(keeps | fills, state.points.at[row].set(new), state.points)
        values = jnp.where(keeps | fills, state.values.at[row].set(new_value), state.values)
        is_next = keeps | fills & (state.index == n)  # the simplex is complete: reflect
        shrinks = ((phase == OUTSIDE) | (phase == INSIDE)) & ~keeps

        # After a reflection that was not kept: expand or contract
        x_r = trial
        move = jnp.where(value < low, EXPAND, jnp.where(value < high, OUTSIDE, INSIDE))
        factor = jnp.where(value < low, chi, gamma).astype(trial.dtype)
        moved = centroid + factor * (jnp.where(move == INSIDE, x_w, x_r) - centroid)

        # The next reflection
        low, high, _, worst, centroid = _order(points, values)
        across = centroid + rho * (centroid - points[worst])

        # The end: small and level, twice
        root = (jnp.sqrt(objective.tol) / 3).astype(trial.dtype)
        scale = jnp.maximum(jnp.abs(best), state.edges)
        sizes = jnp.max(jnp.abs(points - best[None]), axis=0)
        small = jnp.all(sizes <= root * scale)
        level = (high - low <= ROUNDING * jnp.finfo(value.dtype).eps * jnp.abs(best_value)) & ~small
        # From zeros, the first edge is a guess: where f still differs, the sizes are judged by the parameters found.
        guess = state.unscaled & (high - low > 0.1 * jnp.abs(best_value))
        scale = jnp.where(guess, jnp.maximum(jnp.abs(best), NEAR_ZERO), scale)
        small &= ~guess | jnp.all((sizes <= root * scale) | (sizes <= NEAR_ZERO))
        is_first = jnp.any(jnp.isnan(state.last_best))
        seen = jnp.where(jnp.isfinite(values), values, best_value)
        spread = jnp.where(is_first & fills & is_next, jnp.max(seen) - best_value, state.spread)
        near = objective.tol * jnp.maximum(jnp.abs(best_value), spread)
        near_zero = (best_value == 0) | (high - low <= LEVEL * jnp.abs(best_value))
        ends = is_next & small & (high - low <= near) & near_zero
        flat = jnp.where(is_next, jnp.where(level, state.flat + 1, 0), state.flat)
        stuck = flat >= 2  # as on a plateau; or the bounds have flattened the simplex, and then a fresh one helps
        again = ends & ~jnp.all(jnp.abs(best - state.last_best) <= state.edges)
        again |= stuck & jnp.any(best != state.last_best)
        following_edges = jnp.where(stuck, 0.37 * state.edges, FRESH * root * scale)
        edges = jnp.where(again, following_edges, state.edges).astype(trial.dtype)
        fresh = _simplex(best, edges, lower, upper)

        # The next trial: a simplex that is fresh or shrunk is filled from its second point on, the first is the best.
        b = jnp.argmin(state.values)
        center = state.points[b][None]
        shrunk = center + sigma * (state.points - center)
        shrunk = shrunk.at[b].set(shrunk[0]).at[0].set(state.points[b])
        rebuilt = again | shrinks
        points = jnp.where(again, fresh, jnp.where(shrinks, shrunk, points))
        kept = jnp.where(again, best_value, state.values[b])
        values = jnp.where(rebuilt, jnp.full_like(values, jnp.inf).at[0].set(kept), values)
        index = jnp.where(rebuilt, 1, jnp.where(fills & ~is_next, state.index + 1, n)).astype(jnp.int32)
        is_filling = rebuilt | fills & ~is_next
        following = jnp.where(is_filling, points[index], jnp.where(is_next, across, moved))
        phase = jnp.where(is_filling, FILL, jnp.where(is_next, REFLECT, move)).astype(jnp.int32)

        status = jnp.select(
            [~state.begun & ~jnp.isfinite(value), value == -jnp.inf, ends & ~again, stuck & ~again],
            [Status.NON_FINITE, Status.UNBOUNDED, Status.CONVERGED_STEP, Status.STALLED],
            Status.RUNNING,
        ).astype(jnp.int32)
        new_state = SimplexState(
            *(points, values, jnp.clip(following, lower, upper), phase, index),
            *(jnp.where(reflects, trial, state.reflected), jnp.where(reflects, value, state.reflected_value)),
            *(best, best_value, best_aux, edges, spread),
            *(jnp.where(again, best, state.last_best), state.unscaled, jnp.where(again, 0, flat), jnp.array(True)),
        )
        here = from_vector(best, params)
        updates = jax.tree.map(jnp.subtract, here, params)
        unknown = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), params)
        new_state = tree.keep_dtypes(new_state, state)
        return here, new_state, Info(best_value, best_aux, unknown, updates, status, jnp.ones([], jnp.int32))

    return init, step


def _coefficients(n: int, adaptive: bool) -> tuple[float, float, float, float]:
    """ρ, χ, γ and σ."""
    n = max(n, 2) if adaptive else 2
    return 1.0, 1 + 2 / n, 0.75 - 1 / (2 * n), 1 - 1 / n


def _bounds(objective: Objective, params: Any) -> tuple[jax.Array, jax.Array]:
    """Lower and upper bounds as vectors, infinite where there are none."""
    x = to_vector(params)
    vector = lambda given, nothing: jnp.full_like(x, nothing) if given is None else to_vector(given).astype(x.dtype)
    return vector(objective.lower, -jnp.inf), vector(objective.upper, jnp.inf)


def _simplex(x: jax.Array, edges: jax.Array, lower: jax.Array, upper: jax.Array) -> jax.Array:
    """x [n] and n points [n + 1, n] that differ from it in one coordinate each; away from a bound that is too near."""
    up, down = jnp.minimum(upper - x, edges), jnp.minimum(x - lower, edges)
    steps = jnp.where(up >= down, up, -down).astype(x.dtype)
    return jnp.concatenate([x[None], x[None] + jnp.diag(steps)])


def _order(points: jax.Array, values: jax.Array) -> tuple[jax.Array, ...]:
    """The least, the largest and the second largest value, the index of the largest, and the centroid of the others."""
    best = jnp.argmin(values)
    worst = jnp.argmax(values.at[best].set(-jnp.inf))
    others = jnp.arange(values.size) != worst
    centroid = jnp.sum(jnp.where(others[:, None], points, 0), axis=0) / (values.size - 1)
    return values[best], values[worst], jnp.max(jnp.where(others, values, -jnp.inf)), worst, centroid
