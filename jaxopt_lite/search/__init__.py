"""Global search in a box: methods such as `jo.search.cma_es()`, for `jo.minimize(..., bounds=, key=)`."""

from jaxopt_lite.search.cma_es import cma_es
from jaxopt_lite.search.differential_evolution import differential_evolution
from jaxopt_lite.search.random_search import random_search

__all__ = ["cma_es", "differential_evolution", "random_search"]
