"""Uniform random points, the baseline of global search."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.method import Info, Objective, solver
from jaxopt_lite.search.population import Best, better, evaluate, none_yet, region_of, report, status_of

__all__ = ["random_search"]


class RandomState(NamedTuple):
    """The state."""

    best: Best
    count: jax.Array  # int32, generations


@solver(box=True, random=True)
def random_search(*, population: int = 64):
    """Points drawn uniformly from the box; the start is the first of them. It ends at `max_steps` only.

    Args:
        population: points of a step, at least 1.

    Raises:
        ValueError: if population is less than 1.

    Reference: Bergstra & Bengio, "Random Search for Hyper-Parameter Optimization", 2012.
    """
    check_int("random_search", "population", population)

    def init(objective: Objective, params: Any) -> RandomState:
        return RandomState(none_yet(objective, params), jnp.zeros([], jnp.int32))

    def step(objective: Objective, params: Any, state: RandomState) -> tuple[Any, RandomState, Info]:
        region = region_of("random_search", objective, params)
        key = jax.random.fold_in(objective.key, state.count)
        fractions = jax.random.uniform(key, (population, region.lower.size), region.lower.dtype)
        points = region.at(fractions)
        points = jnp.where((state.count == 0) & (jnp.arange(population) == 0)[:, None], state.best.point, points)
        best = better(state.best, points, *evaluate(objective, params, points))
        here, info = report(params, best, population, status_of(best, jnp.array(False)))
        return here, RandomState(best, state.count + 1), info

    return init, step
