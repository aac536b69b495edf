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

_KEPT = 64  # executables
_EXECUTABLES: dict[tuple[bytes, Any], Any] = {}  # by hash of the text, and device


class Program:
    """A traced function of which every captured array is an argument."""

    def __init__(self, function: Callable, arguments: tuple):
        traced, out = jax.make_jaxpr(function, return_shape=True)(*arguments)
        self.captured = [np.asarray(c) if not is_key(c) else c for c in traced.consts]
        self._arguments, self._constants = arguments, {}
        result = jax.tree.structure(out)

        def run(captured, *arguments):
            found = jax.core.eval_jaxpr(traced.jaxpr, captured, *jax.tree.leaves(arguments))
            return jax.tree.unflatten(result, found)

        self._jitted = jax.jit(run, donate_argnums=1)

    @functools.cached_property
    def text(self) -> str:
        """What is computed, as StableHLO; no device is named in it."""
        return self._jitted.lower(self.captured, *self._arguments).as_text()

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of what is computed: the text, the arrays that it captured, and the version of the compiler."""
        whole = f"{jax.__version__} {digest(self.captured)} {self.text}"
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def compile(self, device: Any) -> Any:
        """The executable for a device. It is kept, for this program and for others of the same text."""
        if device not in self._constants:
            self._constants[device] = jax.device_put(self.captured, device)
        key = hashlib.sha256(self.text.encode()).digest(), device
        if key not in _EXECUTABLES:
            here = jax.sharding.SingleDeviceSharding(device)
            shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=here), self._arguments)
            _EXECUTABLES[key] = self._jitted.lower(self._constants[device], *shapes).compile()
            while len(_EXECUTABLES) > _KEPT:
                _EXECUTABLES.pop(next(iter(_EXECUTABLES)))
        return _EXECUTABLES[key]

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
    impl = lambda shape: jax.random.key_impl(jnp.empty((), shape.dtype))  # it takes arrays only
    wrap = lambda x, shape: jax.random.wrap_key_data(x, impl=impl(shape)) if is_key(shape) else x
    return jax.tree.unflatten(structure, [wrap(x, shape) for x, shape in zip(packed, leaves, strict=True)])


def run_key(seed: Any) -> jax.Array:
    """The key of a run, that of `fit` under JAX's usual settings.

    It is of one kind whatever those settings are: from keys of the kind "rbg", what a run draws under vmap would depend
    on its neighbours.
    """
    return jax.random.key(seed, impl="threefry2x32")


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
