"""Global search in a box: methods such as `jo.search.cma_es()`, for `jo.minimize(..., bounds=, key=)`."""

from jaxopt_lite.search.random_search import random_search

__all__ = ["random_search"]
