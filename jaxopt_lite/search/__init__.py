"""Global search in a box: methods such as `jo.search.cma_es()`, for `jo.minimize(..., bounds=, key=)`."""

from jaxopt_lite.search.annealing import simulated_annealing
from jaxopt_lite.search.basin_hopping import basin_hopping
from jaxopt_lite.search.cma_es import cma_es
from jaxopt_lite.search.differential_evolution import differential_evolution
from jaxopt_lite.search.genetic import genetic
from jaxopt_lite.search.multistart import multistart
from jaxopt_lite.search.random_search import random_search

__all__ = [
    "basin_hopping",
    "cma_es",
    "differential_evolution",
    "genetic",
    "multistart",
    "random_search",
    "simulated_annealing",
]
