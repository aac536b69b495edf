"""Differential evolution: a population whose points are moved by differences of others.

rand/1              v = x_r1 + F (x_r2 - x_r3)
best/1              v = x_best + F (x_r1 - x_r2)
current-to-best/1   v = x + F (x_best - x) + F (x_r1 - x_r2)

a trial point takes each coordinate from v with probability CR, else from x, and one of v in any case (bin); it
takes the place of x where its value is not higher.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.arguments import check_choice, check_int
from jaxopt_lite.core.method import Info, Objective, Status, solver
from jaxopt_lite.core.numbers import Fraction, NonNegative
from jaxopt_lite.core.vectors import to_vector
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
    scattered,
    spread_of,
    status_of,
)

__all__ = ["differential_evolution"]

STRATEGIES = ("rand1", "best1", "current_to_best1")
FLAT = 10  # generations with equal values, after which a population that has not drawn together has stalled


class EvolutionState(NamedTuple):
    """The state."""

    best: Best
    points: jax.Array  # [population, n]
    values: jax.Array  # [population], infinite before the first generation
    spread: jax.Array  # of the values of the first generation in which they differ
    flat: jax.Array  # int32, how often in succession all values were equal
    count: jax.Array  # int32, generations


@solver(box=True, random=True)
def differential_evolution(
    factor: NonNegative = 0.75,
    dither: NonNegative = 0.25,
    crossover: Fraction = 0.9,
    *,
    population: int | None = None,
    strategy: str = "rand1",
):
    """Differential evolution, for functions with many minima that need not be smooth.

    A step evaluates a whole generation; the first one is the start and uniformly random points. A coordinate of a trial
    point that is outside of the box is put halfway between the point x and the bound, so that minima on the bounds are
    approached. It ends where the points lie within √tol of the edges of the box and their values differ by at most tol
    times the spread of the first generation, or to rounding (CONVERGED_VALUE); or where all values have been equal to
    rounding in ten generations (CONVERGED_VALUE if the points lie within ε^¼ of the edges, else STALLED).

    Args:
        factor: F, of the differences, at least 0; usually 0.4 to 1.
        dither: F is drawn anew for each generation, uniformly within this distance of `factor`; at least 0.
        crossover: CR, in [0, 1]; near 1 for functions whose parameters depend on each other.
        population: points of a generation, at least 4; None is 4 n, at least 16.
        strategy: "rand1", "best1" or "current_to_best1"; the last two are faster and more often end in a local minimum.

    Raises:
        WrongTypeError: if population is not an int.
        ValueError: if population is less than 4 or the strategy is unknown.

    Reference: Storn & Price, "Differential Evolution", 1997; the third strategy and dither as in Price, Storn &
        Lampinen, "Differential Evolution", 2005.
    """
    check_int("differential_evolution", "population", population, least=4, none=True)
    check_choice("differential_evolution", "strategy", strategy, STRATEGIES)

    def init(objective: Objective, params: Any) -> EvolutionState:
        best, x = none_yet(objective, params), to_vector(params)
        size = population or max(16, 4 * x.size)
        zero, count = jnp.zeros_like(best.value), jnp.zeros([], jnp.int32)
        points = jnp.broadcast_to(x[None], (size, x.size))
        return EvolutionState(best, points, jnp.full(size, jnp.inf, zero.dtype), zero, count, count)

    def step(objective: Objective, params: Any, state: EvolutionState) -> tuple[Any, EvolutionState, Info]:
        region = region_of("differential_evolution", objective, params)
        key = jax.random.fold_in(objective.key, state.count)
        is_first = state.count == 0
        trials = _trials(key, state, region, strategy, factor, dither, crossover)
        trials = jnp.where(is_first, scattered(key, region, state.best.point, len(trials)), trials)
        values, aux = evaluate(objective, params, trials)
        best = better(state.best, trials, values, aux)

        wins = (values <= state.values) | is_first
        points = jnp.where(wins[:, None], trials, state.points)
        values = jnp.where(wins, values, state.values)
        low, high = jnp.min(values), jnp.max(values)
        spread = jnp.where(state.spread == 0, spread_of(values), state.spread)
        is_flat = high - low <= ROUNDING * jnp.finfo(values.dtype).eps * jnp.abs(low)
        flat = jnp.where(is_flat, state.flat + 1, 0)
        sizes = jnp.max(points, axis=0) - jnp.min(points, axis=0)
        near = jnp.all(sizes <= jnp.finfo(points.dtype).eps ** 0.25 * region.width)
        converged = has_collapsed(region, points, values, spread, objective.tol) | (flat >= FLAT) & near
        status = status_of(
            best, converged | (flat >= FLAT), jnp.where(converged, Status.CONVERGED_VALUE, Status.STALLED)
        )
        new = EvolutionState(best, points, values, spread, flat, state.count + 1)
        here, info = report(params, best, len(values), status)
        return here, tree.keep_dtypes(new, state), info

    return init, step


def _trials(
    key: jax.Array, state: EvolutionState, region: Region, strategy: str, factor: Any, dither: Any, crossover: Any
) -> jax.Array:
    """A trial point for each point, [population, n], within the box."""
    x, (size, n) = state.points, state.points.shape
    of_partners, of_factor, of_mask, of_coordinate = jax.random.split(key, 4)
    r_1, r_2, r_3 = (x[i] for i in _partners(of_partners, size))
    F = jnp.asarray(factor + dither * jax.random.uniform(of_factor, (), x.dtype, -1, 1), x.dtype)
    x_best = state.best.point[None]
    v = {
        "rand1": lambda: r_1 + F * (r_2 - r_3),
        "best1": lambda: x_best + F * (r_1 - r_2),
        "current_to_best1": lambda: x + F * (x_best - x) + F * (r_1 - r_2),
    }[strategy]()
    takes = jax.random.uniform(of_mask, (size, n), x.dtype) < crossover
    takes |= jax.random.randint(of_coordinate, (size, 1), 0, n) == jnp.arange(n)[None]
    halfway = lambda bound: (x + bound[None]) / 2
    v = jnp.where(v < region.lower[None], halfway(region.lower), v)
    v = jnp.where(v > region.upper[None], halfway(region.upper), v)
    return region.clip(jnp.where(takes, v, x))


def _partners(key: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Three indices for each of the points [size], different from one another and from its own, uniformly drawn."""
    keys, own = jax.random.split(key, 3), jnp.arange(size)
    taken, found = own[None], []
    for i, k in enumerate(keys):
        index = jax.random.randint(k, (size,), 0, size - 1 - i)
        for other in jnp.sort(taken, axis=0):  # count past those that are taken, the least first
            index = index + (index >= other)
        taken, found = jnp.concatenate([taken, index[None]]), [*found, index]
    return found[0], found[1], found[2]
