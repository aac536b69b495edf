"""A traced function as a program: what it captured is an argument, and the same text is compiled for each device."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_lite.train.calls import is_random_key

__all__ = []


def pack(rows: Any) -> list:
    """The leaves of a state, random keys as their words."""
    return [jax.random.key_data(leaf) if is_random_key(leaf) else leaf for leaf in jax.tree.leaves(rows)]


def unpack(packed: list, like: Any) -> Any:
    """The inverse of `pack`, given shapes of the state."""
    leaves, structure = jax.tree.flatten(like)
    impl = lambda shape: jax.random.key_impl(jnp.empty((), shape.dtype))  # it takes arrays only
    wrap = lambda x, shape: jax.random.wrap_key_data(x, impl=impl(shape)) if is_random_key(shape) else x
    return jax.tree.unflatten(structure, [wrap(x, shape) for x, shape in zip(packed, leaves, strict=True)])


def run_key(seed: Any) -> jax.Array:
    """The key of a run, that of `fit` under JAX's usual settings.

    It is of one kind whatever those settings are: from keys of the kind "rbg", what a run draws under vmap would depend
    on its neighbours.
    """
    return jax.random.key(seed, impl="threefry2x32")
