"""A traced function as a program: what it captured is an argument, and the same text is compiled for each device."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

__all__ = []


class Program:
    """A traced function of which every captured array is an argument; compiled once for each device."""

    def __init__(self, function: Callable, arguments: tuple):
        traced, out = jax.make_jaxpr(function, return_shape=True)(*arguments)
        self.captured = [np.asarray(c) if not is_key(c) else c for c in traced.consts]
        self._arguments, self._compiled, self._constants = arguments, {}, {}
        result = jax.tree.structure(out)

        def run(captured, *arguments):
            found = jax.core.eval_jaxpr(traced.jaxpr, captured, *jax.tree.leaves(arguments))
            return jax.tree.unflatten(result, found)

        self._jitted = jax.jit(run, donate_argnums=1)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of what is computed: the program's text and the arrays that it captured."""
        lowered = self._jitted.lower(self.captured, *self._arguments)
        text = lowered.as_text() + jax.__version__ + digest(self.captured)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @functools.cached_property
    def size(self) -> int:
        """Characters of the program's text."""
        return len(self._jitted.lower(self.captured, *self._arguments).as_text())

    def compile(self, device: Any) -> Any:
        """The executable for a device."""
        if device not in self._compiled:
            here = jax.sharding.SingleDeviceSharding(device)
            self._constants[device] = jax.device_put(self.captured, device)
            shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=here), self._arguments)
            self._compiled[device] = self._jitted.lower(self._constants[device], *shapes).compile()
        return self._compiled[device]

    def memory_of(self, device: Any) -> int | None:
        """Bytes that a call needs beside data and states, where the compiler says so."""
        found = self.compile(device).memory_analysis()
        return None if found is None else int(found.temp_size_in_bytes)

    def __call__(self, device: Any, *arguments: Any) -> Any:
        return self.compile(device)(self._constants[device], *arguments)


def pack(rows: Any) -> list:
    """The leaves of a state, random keys as their words."""
    return [jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in jax.tree.leaves(rows)]


def unpack(packed: list, like: Any) -> Any:
    """The inverse of `pack`, given shapes of the state."""
    leaves, structure = jax.tree.flatten(like)
    wrap = lambda x, s: jax.random.wrap_key_data(x, impl=jax.random.key_impl(s)) if is_key(s) else x
    return jax.tree.unflatten(structure, [wrap(x, s) for x, s in zip(packed, leaves, strict=True)])


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def digest(arrays: Any) -> str:
    """A hash of arrays: shapes, dtypes and bytes."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]
