"""CMA-ES: a normal distribution that learns the scales and correlations of f from ranked points, with restarts.

A generation of the k-th restart has population · 2^k points and takes 2^k steps, which fill a buffer; the distribution
is updated when it is full. See `distribution` for the formulas.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite import tree
from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.execution import any_lane
from jaxopt_lite.core.method import Info, Objective, Status, solver
from jaxopt_lite.core.numbers import Positive
from jaxopt_lite.core.vectors import to_vector
from jaxopt_lite.search.distribution import Gaussian, Rates, fresh, rates_of, updated
from jaxopt_lite.search.population import (
    ROUNDING,
    Best,
    Region,
    better,
    evaluate,
    has_collapsed,
    none_yet,
    region_of,
    report,
    spread_of,
    status_of,
)

__all__ = ["cma_es"]

MOST_RESTARTS = 10  # a thousand times the population
CONDITION = 1e14  # of C, above which a descent ends; in float32 1/ε


class Generation(NamedTuple):
    """The points of a generation so far, in a buffer for the largest one."""

    steps: jax.Array  # [length, n]: x = m + σ y before it is moved into the box
    values: jax.Array  # [length]
    outside: jax.Array  # [length]: squared distances to the box, in deviations of the coordinates
    corners: jax.Array  # [2, n], of the smallest box that holds the points that were evaluated
    filled: jax.Array  # int32, steps taken of the 2^k


class Descent(NamedTuple):
    """What decides when a descent ends, that is a run of the distribution from one mean."""

    history: jax.Array  # [10 + 30 n/λ], the best values of the last generations
    best_value: jax.Array
    best_median: jax.Array  # of a generation
    idle: jax.Array  # int32, generations without a better median
    spread: jax.Array  # of the values of the first generation of the solve in which they differ
    restart: jax.Array  # int32, its number k


class CmaState(NamedTuple):
    """The state."""

    best: Best
    gaussian: Gaussian
    generation: Generation
    descent: Descent
    outcome: jax.Array  # int32, how the descent ended that found the best point
    count: jax.Array  # int32, steps


@solver(box=True, random=True)
def cma_es(sigma: Positive = 0.2, *, population: int | None = None, restarts: int = 4):
    """CMA-ES with active covariance updates, default learning rates, and restarts that double the population.

    Only the ranks of values matter, so f may be scaled, shifted and bent monotonically; an ill-conditioned and rotated
    f costs little more than a round one. Memory is n² and time n³ per generation, for n to a few hundreds.

    A step evaluates `population` points. The first point is the start, the first descent begins there, and later ones
    at uniformly random points. A descent ends where

    - its points lie within √tol of the box's edges, and the values of a generation and the best ones of the last
      10 + ⌈30 n/λ⌉ generations differ by at most tol times the spread of the first values (CONVERGED_VALUE);
    - these values are equal to rounding, or no generation of the last 100 + 100 n^1.5 / λ had a better median than
      those before (CONVERGED_VALUE if the points lie within ε^¼ of the edges, else STALLED);
    - its standard deviations are below ε^¾ of the edges or the precision of a coordinate (CONVERGED_STEP);
    - the condition of C exceeds 1e14, in float32 1/ε (STALLED).

    None of these depends on an offset of f, rounding aside. The solve ends with the last descent, that of restart
    number `restarts`; its status is that of the descent that found the best point. A search for a global minimum
    usually ends at `max_steps`; with `restarts=0` it is one descent, which ends where it converges.

    A sampled point outside the box is moved to the nearest point of the box, where f is evaluated. For its rank the
    interquartile range of the generation's values is added to its value, times the mean over the coordinates of the
    squared distance to the box in standard deviations; the distribution is updated with the point before it was moved.

    Args:
        sigma: the first standard deviation, relative to the edges of the box, above 0.
        population: λ, points of a step and of a generation of the first descent, at least 2; None is 4 + ⌊3 ln n⌋.
        restarts: after a descent has ended, at most 10; memory and the time of an update grow with 2^restarts.

    Raises:
        WrongTypeError: if population or restarts is not an int.
        ValueError: if one of them is out of its range.

    Reference: Hansen, "The CMA Evolution Strategy: A Tutorial", 2016, arXiv:1604.00772; Auger & Hansen, "A Restart CMA
        Evolution Strategy With Increasing Population Size", 2005. The penalty is our own.
    """
    check_int("cma_es", "population", population, least=2, none=True)
    check_int("cma_es", "restarts", restarts, least=0, most=MOST_RESTARTS)

    def init(objective: Objective, params: Any) -> CmaState:
        mean, best = to_vector(params), none_yet(objective, params)
        n, size = mean.size, _size(population, mean.size)
        length, zero = size * 2**restarts, jnp.zeros([], jnp.int32)
        of_steps, of_values = jnp.zeros((length, n), mean.dtype), jnp.zeros(length, best.value.dtype)
        generation = Generation(of_steps, of_values, of_steps[:, 0], jnp.zeros((2, n), mean.dtype), zero)
        history = jnp.full(int(_memory(n, size)), jnp.inf, best.value.dtype)
        descent = Descent(history, best.value, best.value, zero, jnp.zeros_like(best.value), zero)
        return CmaState(best, fresh(mean, jnp.asarray(sigma)), generation, descent, zero, zero)

    def step(objective: Objective, params: Any, state: CmaState) -> tuple[Any, CmaState, Info]:
        region = region_of("cma_es", objective, params)
        size = _size(population, region.lower.size)
        of_points, of_restart = jax.random.split(jax.random.fold_in(objective.key, state.count))
        raw, y = _sampled(of_points, state, region, size)
        points = region.clip(raw)
        values, aux = evaluate(objective, params, points)
        best = better(state.best, points, values, aux)
        least = jnp.minimum(state.descent.best_value, jnp.min(values))
        descent = state.descent._replace(best_value=least)
        generation = _stored(state, region, y, raw, points, values)
        now = CmaState(best, state.gaussian, generation, descent, state.outcome, state.count + 1)

        full = generation.filled == 2**descent.restart
        learn = functools.partial(_learned, region, size, restarts, objective.tol, sigma, of_restart)
        learn_where_full = lambda now: tree.where(full, learn(now), (now, jnp.array(False)))
        new, ended = jax.lax.cond(any_lane(full), learn_where_full, lambda now: (now, jnp.array(False)), now)
        here, info = report(params, best, size, status_of(best, ended, new.outcome))
        return here, tree.keep_dtypes(new, state), info

    return init, step


def _size(population: int | None, n: int) -> int:
    """λ of the first descent, Eq. (48)."""
    return population or 4 + int(3 * np.log(max(n, 1)))


def _memory(n: int, size: Any) -> Any:
    """The number of generations whose best values are compared."""
    return 10 + np.ceil(30 * n / size) if isinstance(size, int) else 10 + jnp.ceil(30 * n / size).astype(jnp.int32)


def _sampled(key: jax.Array, state: CmaState, region: Region, size: int) -> tuple[jax.Array, jax.Array]:
    """Points [size, n], which may lie outside of the box, and their steps y, Eq. (38) to (40)."""
    m, sigma, _, B, D, *_ = state.gaussian
    y = (jax.random.normal(key, (size, m.size), m.dtype) * D[None]) @ B.T
    is_start = (state.count == 0) & (jnp.arange(size) == 0)
    y = jnp.where(is_start[:, None], 0, y)
    return m[None] + (sigma * region.width)[None] * y, y


def _stored(
    state: CmaState, region: Region, y: jax.Array, raw: jax.Array, points: jax.Array, values: jax.Array
) -> Generation:
    """The generation with the points of a step."""
    old, is_first = state.generation, state.generation.filled == 0
    deviations = (state.gaussian.deviations() * region.width)[None]
    distances = jnp.where(raw == points, 0, (raw - points) / deviations)
    extremes = jnp.stack([jnp.min(points, axis=0), jnp.max(points, axis=0)])
    widened = jnp.stack([jnp.minimum(old.corners[0], extremes[0]), jnp.maximum(old.corners[1], extremes[1])])
    at = old.filled * len(values)
    return Generation(
        jax.lax.dynamic_update_slice(old.steps, y, (at, jnp.zeros_like(at))),
        jax.lax.dynamic_update_slice(old.values, values, (at,)),
        jax.lax.dynamic_update_slice(old.outside, jnp.mean(distances**2, axis=1), (at,)),
        jnp.where(is_first, extremes, widened),
        old.filled + 1,
    )


def _order(generation: Generation, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The order of the points by value and penalty, and the values in rising order, both [length]."""
    is_point = jnp.arange(generation.values.size) < count
    values = jnp.where(is_point, generation.values, jnp.inf)
    ranked = jnp.sort(values)
    middle = ranked[3 * count // 4] - ranked[count // 4]
    middle = jnp.where(jnp.isfinite(middle), middle, 0)
    outside = jnp.where(is_point, generation.outside, jnp.inf)
    order = jnp.lexsort((outside, jnp.where(is_point, values + middle * generation.outside, jnp.inf)))
    return order, ranked


def _learned(
    region: Region, size: int, restarts: int, tol: Any, sigma: Any, key: jax.Array, state: CmaState
) -> tuple[CmaState, jax.Array]:
    """The state after a generation is full, and whether the solve has ended."""
    n, dtype, old = region.lower.size, region.lower.dtype, state.descent
    each = [rates_of(n, size * 2**k, size * 2**restarts) for k in range(restarts + 1)]
    rates = Rates(*(jnp.asarray(np.array(column), dtype)[old.restart] for column in zip(*each, strict=True)))
    count = size * 2**old.restart
    order, ranked = _order(state.generation, count)
    low, median, high = ranked[0], ranked[count // 2], ranked[count - 1]
    gaussian = updated(state.gaussian, state.generation.steps[order], region.width, rates)

    age = state.gaussian.generation
    descent = old._replace(
        history=old.history.at[age % _memory(n, count)].set(low),
        best_median=jnp.minimum(median, old.best_median),
        idle=jnp.where(median < old.best_median, 0, old.idle + 1),
        spread=jnp.where(old.spread == 0, spread_of(ranked), old.spread),
    )
    status = _ending(region, tol, gaussian, descent, state.generation.corners, low, high, count)
    ends = status != Status.RUNNING
    outcome = jnp.where(ends & (descent.best_value <= state.best.value), status, state.outcome)
    again = ends & (old.restart < restarts)
    elsewhere = region.at(jax.random.uniform(key, (n,), dtype))
    nothing = jnp.full_like(descent.best_value, jnp.inf)
    afresh = Descent(
        jnp.full_like(descent.history, jnp.inf), nothing, nothing, old.idle * 0, old.spread, old.restart + 1
    )
    gaussian, descent = tree.where(again, (fresh(elsewhere, sigma), afresh), (gaussian, descent))
    generation = state.generation._replace(filled=state.generation.filled * 0)
    return state._replace(gaussian=gaussian, generation=generation, descent=descent, outcome=outcome), ends & ~again


def _ending(
    region: Region,
    tol: Any,
    gaussian: Gaussian,
    descent: Descent,
    corners: jax.Array,
    low: jax.Array,
    high: jax.Array,
    count: jax.Array,
) -> jax.Array:
    """Why a descent ends, or RUNNING: int32. `low` and `high` are the extreme values of a generation of `count`."""
    n, eps, memory = region.lower.size, jnp.finfo(region.lower.dtype).eps, _memory(region.lower.size, count)
    remembered = jnp.arange(descent.history.size) < memory
    first, last = (f(jnp.where(remembered, descent.history, low)) for f in (jnp.min, jnp.max))
    extremes = jnp.stack([jnp.minimum(low, first), jnp.maximum(high, last)])
    is_full = gaussian.generation >= memory
    collapsed = is_full & has_collapsed(region, corners, extremes, descent.spread, tol)
    rounding = ROUNDING * jnp.finfo(low.dtype).eps * jnp.abs(low)
    level = is_full & (extremes[1] - extremes[0] <= rounding)
    near = jnp.all(corners[1] - corners[0] <= eps**0.25 * region.width)

    deviations = gaussian.deviations()
    reach = jnp.maximum(deviations, gaussian.sigma * jnp.abs(gaussian.p_c))
    m, is_edge = gaussian.mean, region.width > 0
    small = jnp.all(reach <= eps**0.75) | jnp.any((m + 0.2 * deviations * region.width == m) & is_edge)
    ill = jnp.max(gaussian.D) > jnp.sqrt(min(CONDITION, 1 / eps)) * jnp.min(gaussian.D)
    idle = descent.idle > 100 + 100 * n**1.5 / count
    return jnp.select(
        [collapsed | (level | idle) & near, small, level | ill | idle],
        [Status.CONVERGED_VALUE, Status.CONVERGED_STEP, Status.STALLED],
        Status.RUNNING,
    ).astype(jnp.int32)
