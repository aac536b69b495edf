"""Options of XLA's compiler, where the program that is compiled is known to gain from them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

__all__ = []


def quickly() -> dict[str, Any]:
    """For what takes longer to compile than to run: on CPU, less optimization, same numbers."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


def many_scalars(is_tiny: bool) -> dict[str, Any]:
    """For a solve: on CPU, the older emitters of kernels, and for a tiny one no optimization.

    A solve of two parameters compiles in half the time with the older emitters, and runs faster.
    """
    level = {"xla_backend_optimization_level": 0} if is_tiny else {}
    return _on_cpu(xla_cpu_use_fusion_emitters=False, **level)


def many_lanes() -> dict[str, Any]:
    """For many solves in one loop: on CPU, fewer copies of what the loop carries, and wider vectors.

    For 256 lanes of 10 parameters the first takes 0.9 of the time, both together 0.85.
    """
    return _on_cpu(xla_cpu_copy_insertion_use_region_analysis=True, xla_cpu_prefer_vector_width=512)


def _on_cpu(**options: Any) -> dict[str, Any]:
    """Those of the options that this version of the compiler knows."""
    if jax.default_backend() != "cpu":
        return {}
    return {name: value for name, value in options.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    try:
        jax.jit(jnp.negative).lower(0.0).compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True
