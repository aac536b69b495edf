"""Strict JAX for every test. Warnings are errors through pytest's settings in pyproject.toml."""

import os

# Before JAX is imported. A run on another device sets JAX_PLATFORMS itself.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads wait for each other on shared cores

import gc
from pathlib import Path

import hypothesis
import jax
import pytest

# A (3,) that meets a (2, 3) by accident is the commonest silent mistake in array code. Doctests of the package too.
jax.config.update("jax_numpy_rank_promotion", "raise")

# The first example of a test compiles, so there is no deadline. The same examples every time, to repeat a failure.
hypothesis.settings.register_profile("jax", deadline=None, derandomize=True)
hypothesis.settings.load_profile("jax")


@pytest.fixture
def x64():
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield


# Every compiled program holds some memory maps. A process may have 65530 of them on Linux, and XLA crashes beyond.
MAPS, MOST_MAPS = Path("/proc/self/maps"), 30_000


def pytest_runtest_teardown(item, nextitem):
    """Between two modules, drop the compiled programs where there are too many."""
    if nextitem is not None and nextitem.path != item.path and MAPS.exists():
        with MAPS.open("rb") as file:
            count = sum(1 for _ in file)
        if count > MOST_MAPS:
            jax.clear_caches()
            gc.collect()
