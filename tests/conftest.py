"""Strict JAX for every test. Warnings are errors through pytest's settings in pyproject.toml."""

import os

# Before JAX is imported. A run on another device sets JAX_PLATFORMS itself.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads wait for each other on shared cores

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
