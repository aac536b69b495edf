"""Calling compiled functions: equal programs are compiled once, and signals are handled while a result is awaited."""

import dataclasses
import functools
import hashlib
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

__all__ = []


@dataclasses.dataclass(frozen=True)
class _Text:
    """A jaxpr that is equal to another one of the same digest; the arrays that it captured are arguments."""

    digest: bytes
    jaxpr: Any = dataclasses.field(compare=False)


_digests: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()  # by jaxpr


def compiled_once(function: Callable, *arguments: Any) -> Any:
    """Call a function of `jax.jit` by a program that it shares with all functions of the same jaxpr text."""
    traced = function.trace(*arguments)  # which JAX keeps, for each structure, shape and dtype of the arguments
    jaxpr, leaves = traced.jaxpr.jaxpr, jax.tree.leaves(arguments)
    if len(jaxpr.invars) > len(leaves):  # the function captured tracers, and becomes a part of what traces it
        return function(*arguments)
    if jaxpr not in _digests:
        _digests[jaxpr] = _digest(jaxpr)
    captured = [x if isinstance(x, jax.Array) else np.array(x) for x in traced.jaxpr.consts]  # as in `copied`
    results = _program(_Text(_digests[jaxpr], jaxpr))(captured, leaves)
    return jax.tree.unflatten(jax.tree.structure(traced.out_info), results)


def _digest(jaxpr: Any) -> bytes:
    """Bytes that two jaxprs share only if they compute the same."""
    text = str(jaxpr)
    digest = hashlib.sha256(text.encode())
    if " at 0x" in text:  # a Python function that is called back, of which the text shows no more than an address
        digest.update(str(id(jaxpr)).encode())
    for array in _captured_within(jaxpr):  # a jitted function inside keeps its own, and its text leaves them out
        array = np.asarray(jax.random.key_data(array) if is_random_key(array) else array)
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.digest()


@functools.lru_cache(maxsize=64)
def _program(text: _Text) -> Callable:
    given = {id(v) for v in (*text.jaxpr.constvars, *text.jaxpr.invars)}

    def run(captured, leaves):
        results = jax.core.eval_jaxpr(text.jaxpr, captured, *leaves)
        # Copies of what is handed through: JAX would return the very arrays that it was given, and steps donate them.
        return [jnp.copy(x) if id(v) in given else x for v, x in zip(text.jaxpr.outvars, results, strict=True)]

    return jax.jit(run)


def _captured_within(jaxpr: Any) -> Iterator[Any]:
    """The arrays that are kept inside the operations of a jaxpr."""
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(list(equation.params.values())):
            if hasattr(inner, "consts"):
                yield from inner.consts
            if hasattr(inner, "eqns"):
                yield from _captured_within(getattr(inner, "jaxpr", inner))


def is_random_key(value: Any) -> bool:
    """Whether a value is an array of keys, of JAX's newer form."""
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def copied(arguments: Any) -> Any:
    """The arguments of a call with copies of NumPy's arrays.

    The call returns before JAX has read their memory, and by then a loader may have filled it with the next batch.
    """
    return jax.tree.map(lambda x: np.array(x) if isinstance(x, np.ndarray) else x, arguments)


def fetched(arrays: Any) -> Any:
    """`jax.device_get`, waiting in short pauses.

    Python runs the handlers of signals between its own operations, and not while a call into JAX waits for the device:
    a point of an hour could not be interrupted. A pause is a 32nd of the time waited so far, so little is lost by it.
    """
    leaves: list[Any] = [leaf for leaf in jax.tree.leaves(arrays) if isinstance(leaf, jax.Array)]
    waited, nobody = 1e-3, threading.Event()
    while not all(leaf.is_ready() for leaf in leaves):
        pause = min(waited / 32, 0.05)
        nobody.wait(pause)
        waited += pause
    return jax.device_get(arrays)
