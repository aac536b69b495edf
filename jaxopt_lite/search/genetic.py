"""A genetic search over real numbers: tournaments, simulated binary crossover, polynomial mutation, elitism.

crossover   ½ (a + b) ± ½ β (b - a)      Deb & Agrawal, 1995: the density of β falls as β^-(η + 2) above 1
mutation    x + δ (u - l)                Deb & Goyal, 1996: the density of δ falls as (1 - |δ|)^η
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.method import Info, Objective, Solver, solver
from jaxopt_lite.core.numbers import Fraction, NonNegative
from jaxopt_lite.core.vectors import to_vector
from jaxopt_lite.search.lanes import check_local, refine
from jaxopt_lite.search.population import (
    Best,
    Region,
    better,
    has_collapsed,
    none_yet,
    region_of,
    report,
    scattered,
    spread_of,
    status_of,
)

__all__ = ["genetic"]


class GeneticState(NamedTuple):
    """The state of a population of k members."""

    points: jax.Array  # [k, n]
    values: jax.Array  # [k]
    spread: jax.Array  # of the values of the first generation, a scalar
    best: Best
    count: jax.Array  # int32, generations


@solver(box=True, random=True)
def genetic(
    crossover: Fraction = 0.9,
    crossover_index: NonNegative = 2.0,
    mutation: Fraction | None = None,
    mutation_index: NonNegative = 20.0,
    local: Solver | None = None,  # pyright: ignore[reportGeneralTypeIssues]
    *,
    population: int = 64,
    elite: int | None = None,
    tournament: int = 2,
    local_steps: int = 5,
):
    """A genetic search, with or without steps of a local solver for each child (then it is a memetic search).

    Each generation draws parents by tournaments, crosses them in pairs and mutates the children; the children are
    evaluated together. The best of the children and of the `elite` best parents survive. The first generation is the
    start and random points. It ends when the population has collapsed: all points within √tol of the edges of the
    box, all values within tol of the spread of the first ones.

    Crossover and mutation act on single coordinates, which helps where f is a sum over coordinates; for others
    `cma_es` or a local solver is better.

    Args:
        crossover: the probability that a pair is crossed, in [0, 1]; each of its coordinates then is with ½.
        crossover_index: η of the crossover, at least 0; children lie closer to their parents for larger ones.
        mutation: the probability that a coordinate is mutated, in [0, 1]; None is 1 / n.
        mutation_index: η of the mutation, at least 0; moves are smaller for larger ones.
        local: a solver that minimizes within bounds, such as `jo.solvers.lbfgsb()`, or None. Children are replaced by
            the points where its steps end.
        population: the number of children, at least 2.
        elite: parents that compete with the children, from 0 (none survives) to population (the best of both do); None
            is half of the population.
        tournament: members of which the best becomes a parent, at least 1; 1 draws parents at random.
        local_steps: steps of the local solver for each child, at least 1; unused without one. The first step of most
            solvers evaluates the child itself.

    Raises:
        ValueError: if local takes no bounds or does not minimize, or a count is out of range.

    Reference: Deb & Agrawal, "Simulated Binary Crossover for Continuous Search Space", 1995; Deb & Goyal, "A Combined
        Genetic Adaptive Search (GeneAS) for Engineering Design", 1996; Moscato, "On Evolution, Search, Optimization,
        Genetic Algorithms and Martial Arts: Towards Memetic Algorithms", 1989.
    """
    if local is not None:
        check_local("genetic", local)
    check_int("genetic", "population", population, least=2)
    check_int("genetic", "elite", elite, least=0, most=population, none=True)
    check_int("genetic", "tournament", tournament)
    check_int("genetic", "local_steps", local_steps)
    kept = population // 2 if elite is None else elite

    def init(objective: Objective, params: Any) -> GeneticState:
        x, best = to_vector(params), none_yet(objective, params)
        points = jnp.broadcast_to(x, (population, x.size))
        values, zero = jnp.full(population, jnp.inf, best.value.dtype), jnp.zeros_like(best.value)
        return GeneticState(points, values, zero, best, jnp.zeros([], jnp.int32))

    def step(objective: Objective, params: Any, state: GeneticState) -> tuple[Any, GeneticState, Info]:
        region = region_of("genetic", objective, params)
        k, n = state.points.shape
        keys = jax.random.split(jax.random.fold_in(objective.key, state.count), 4)
        is_first = state.count == 0

        parents = state.points[select(keys[0], state.values, k + k % 2, tournament)]
        children = cross(keys[1], parents, region, crossover, crossover_index)[:k]
        rate = 1 / n if mutation is None else mutation
        children = region.clip(mutate(keys[2], children, region, rate, mutation_index))
        trials = jnp.where(is_first, scattered(keys[3], region, state.points[0], k), children)
        points, values, aux, evaluations = refine(local, objective, params, trials, local_steps, state.count * k)
        best = better(state.best, points, values, aux)

        spread = jnp.where(is_first, spread_of(values), state.spread)
        # The best of the children and the elite
        best_parents = jnp.argsort(state.values)[:kept]
        values_of_all = jnp.concatenate([values, jnp.where(is_first, jnp.inf, state.values[best_parents])])
        survivors = jnp.argsort(values_of_all)[:k]
        points, values = jnp.concatenate([points, state.points[best_parents]])[survivors], values_of_all[survivors]
        status = status_of(best, has_collapsed(region, points, values, spread, objective.tol))
        here, info = report(params, best, evaluations, status)
        new = GeneticState(points, values, spread, best, state.count + 1)
        return here, tree.keep_dtypes(new, state), info

    return init, step


def select(key: jax.Array, values: jax.Array, count: int, size: int) -> jax.Array:
    """The winners of tournaments, each the best of `size` members drawn at random: indices, int32 [count]."""
    drawn = jax.random.randint(key, (count, size), 0, len(values))
    return jnp.take_along_axis(drawn, jnp.argmin(values[drawn], axis=1)[:, None], axis=1)[:, 0]


def cross(key: jax.Array, parents: jax.Array, region: Region, chance: Any, index: Any) -> jax.Array:
    """Simulated binary crossover of neighbouring parents [k, n], k even, with the spread β bounded by the box."""
    a, b = parents[0::2], parents[1::2]
    keys = jax.random.split(key, 4)
    low, high = jnp.minimum(a, b), jnp.maximum(a, b)
    gap = jnp.where(high > low, high - low, 1)
    u = jax.random.uniform(keys[0], a.shape, a.dtype)

    def spread(room):
        alpha = 2 - (1 + 2 * room / gap) ** -(index + 1)  # Deb & Agrawal: the density of β, cut off at the box
        v = u * alpha
        return jnp.where(v <= 1, v, 1 / jnp.maximum(2 - v, jnp.finfo(a.dtype).eps)) ** (1 / (index + 1))

    middle = (low + high) / 2
    first = middle - spread(low - region.lower[None]) * (high - low) / 2
    second = middle + spread(region.upper[None] - high) * (high - low) / 2
    swapped = jax.random.bernoulli(keys[1], 0.5, a.shape)
    first, second = jnp.where(swapped, second, first), jnp.where(swapped, first, second)
    pairs = jax.random.uniform(keys[2], (len(a), 1), a.dtype) < chance
    crossed = pairs & jax.random.bernoulli(keys[3], 0.5, a.shape)
    children = jnp.stack([jnp.where(crossed, first, a), jnp.where(crossed, second, b)], axis=1)
    return children.reshape(parents.shape)


def mutate(key: jax.Array, points: jax.Array, region: Region, rate: Any, index: Any) -> jax.Array:
    """Polynomial mutation of points [k, n]: each coordinate with probability `rate`, never beyond the box."""
    keys = jax.random.split(key)
    u = jax.random.uniform(keys[0], points.shape, points.dtype)
    lower, upper, width = region.lower[None], region.upper[None], region.width[None]
    scale = jnp.where(width > 0, width, 1)
    below, above = (points - lower) / scale, (upper - points) / scale
    power = 1 / (index + 1)
    down = (2 * u + (1 - 2 * u) * (1 - below) ** (index + 1)) ** power - 1
    up = 1 - (2 * (1 - u) + (2 * u - 1) * (1 - above) ** (index + 1)) ** power
    moves = jnp.where(u < 0.5, down, up) * width
    return jnp.where(jax.random.uniform(keys[1], points.shape, points.dtype) < rate, points + moves, points)
