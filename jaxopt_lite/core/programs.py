"""A traced function as a program: what it captured is an argument, and equal texts share an executable.

The text of a program is its jaxpr. `fit` and sweeps trace the user's functions at each call (`Task.init` once for each
task), so that a global, an attribute or a closure that has changed is seen, and compile once for each text.
"""

import dataclasses
import functools
import hashlib
import re
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxopt_lite import tree
from jaxopt_lite.core.compiler import quickly
from jaxopt_lite.core.execution import is_tracing

__all__ = []

_SMALL = 2**22  # numbers that a program makes, below which compiling it takes longer than running it
_ADDRESS = re.compile(r" at 0x[0-9a-fA-FX]+")  # of a Python callback, of which the text shows nothing else


@dataclasses.dataclass(frozen=True)
class _Text:
    """A jaxpr, equal to every other one of the same digest; the arrays that it captured are arguments."""

    digest: tuple[bytes, int]
    donated: int  # how many of its first arguments are donated
    once: bool
    jaxpr: Any = dataclasses.field(compare=False)


class Program:
    """A traced function of which every captured array is an argument.

    Args:
        function: to be traced, with `arguments`, arrays or their shapes.
        arguments: pytrees; calls must give the same structures, shapes and dtypes.
        donate: whether calls use up the memory of the first argument.
        once: whether it runs once for each run, so that compiling it takes longer unless it makes large arrays.
    """

    def __init__(self, function: Callable, arguments: tuple, donate: bool = False, once: bool = False):
        self._arguments = arguments
        # A jitted function is traced by JAX once for each structure of its arguments, any other one here.
        traced = (function if hasattr(function, "trace") else jax.jit(function)).trace(*arguments)
        self._jaxpr, self._structure = traced.jaxpr.jaxpr, jax.tree.structure(traced.out_info)
        self.shapes = traced.out_info
        # Copies of NumPy's arrays: see `calls.copied`.
        self.captured = [x if isinstance(x, jax.Array) else np.array(x) for x in traced.jaxpr.consts]
        donated = len(jax.tree.leaves(arguments[0])) if donate else 0
        self._text = _Text(_digest(self._jaxpr), donated, once, self._jaxpr)
        self._on: dict[Any, list] = {}

    @property
    def is_whole(self) -> bool:
        """Whether it captured no tracers; one that did is a part of what traces it, and cannot be called here."""
        return len(self._jaxpr.invars) == len(jax.tree.leaves(self._arguments))

    def __call__(self, *arguments: Any) -> Any:
        return self._result(_jitted(self._text)(*self._split(self.captured, arguments)))

    @property
    def signature(self) -> tuple[bytes, str]:
        """Of the text and the captured arrays: equal for programs that compute the same, except for their callbacks."""
        return self._text.digest[0], digest(self.captured)

    @property
    def calls_back(self) -> bool:
        """Whether it calls Python functions while it runs."""
        return self._text.digest[1] != 0

    @property
    def fingerprint(self) -> str:
        """A hash of what is computed, the same in each process: text, captured arrays and version of JAX."""
        text = _ADDRESS.sub("", str(self._jaxpr)) + "".join(map(digest, _captured_within(self._jaxpr)))
        return hashlib.sha256(f"{jax.__version__} {digest(self.captured)} {text}".encode()).hexdigest()[:16]

    def run_on(self, device: Any, *arguments: Any) -> Any:
        """A call on one device, on which the arguments lie or to which NumPy's are copied."""
        if device not in self._on:
            self._on[device] = jax.device_put(self.captured, device)
        return self._result(_compiled(self._text, device)(*self._split(self._on[device], arguments)))

    def memory_on(self, device: Any) -> int | None:
        """Bytes that a call on a device needs beside its arguments; None where the compiler does not report them."""
        found = _compiled(self._text, device).memory_analysis()
        return None if found is None else int(found.temp_size_in_bytes)

    def _split(self, captured: list, arguments: tuple) -> tuple[list, list, list]:
        leaves, n = jax.tree.leaves(arguments), self._text.donated
        return leaves[:n], captured, leaves[n:]

    def _result(self, leaves: list) -> Any:
        return jax.tree.unflatten(self._structure, leaves)


class Same:
    """An object that equals nothing but itself, whatever it is."""

    def __init__(self, of: Any):
        self.of = of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.of is other.of

    def __hash__(self) -> int:
        return id(self.of)


def compiled_once(function: Callable, *arguments: Any) -> Any:
    """Call a function of `jax.jit` by a program that it shares with all functions of the same text."""
    if is_tracing():  # a part of what is traced, such as by `eval_shape`, is not compiled here
        return function(*arguments)
    program = Program(function, arguments, once=True)
    return program(*arguments) if program.is_whole else function(*arguments)


@functools.lru_cache(maxsize=64)
def _compiled(text: _Text, device: Any) -> Any:
    here = jax.sharding.SingleDeviceSharding(device)
    shapes = lambda variables: [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, sharding=here) for v in variables]
    donated, rest = text.jaxpr.invars[: text.donated], text.jaxpr.invars[text.donated :]
    return _jitted(text).lower(shapes(donated), shapes(text.jaxpr.constvars), shapes(rest)).compile()


@functools.lru_cache(maxsize=256)
def _jitted(text: _Text) -> Callable:
    given = {id(v) for v in (*text.jaxpr.constvars, *text.jaxpr.invars)}

    def run(donated, captured, leaves):
        results = jax.core.eval_jaxpr(text.jaxpr, captured, *donated, *leaves)
        if donated:
            return results
        # Copies of what is handed through: JAX would return the very arrays that it was given, and steps donate them.
        return [jnp.copy(x) if id(v) in given else x for v, x in zip(text.jaxpr.outvars, results, strict=True)]

    is_quick = text.once and sum(v.aval.size for v in text.jaxpr.outvars) < _SMALL
    return jax.jit(run, donate_argnums=0, compiler_options=quickly() if is_quick else None)


_digests: weakref.WeakKeyDictionary[Any, tuple[bytes, int]] = weakref.WeakKeyDictionary()  # by jaxpr


def _digest(jaxpr: Any) -> tuple[bytes, int]:
    """What two jaxprs share only if they compute the same, as long as one of them is kept."""
    if jaxpr not in _digests:
        found, is_whole = text_digest(jaxpr)
        _digests[jaxpr] = found, 0 if is_whole else id(jaxpr)
    return _digests[jaxpr]


def text_digest(jaxpr: Any) -> tuple[bytes, bool]:
    """A hash of the text of a jaxpr, and whether that shows all that it computes.

    Of a Python callback the text shows no more than an address.
    """
    text = str(jaxpr)
    # A jitted function inside keeps the arrays that it captured, and the text leaves them out.
    text += "".join(map(digest, _captured_within(jaxpr)))
    plain = _ADDRESS.sub("", text)
    return hashlib.sha256(plain.encode()).digest(), plain == text


def _captured_within(jaxpr: Any) -> Iterator[Any]:
    """The arrays that are kept inside the operations of a jaxpr."""
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(list(equation.params.values())):
            if hasattr(inner, "consts"):
                yield from inner.consts
            if hasattr(inner, "eqns"):
                yield from _captured_within(getattr(inner, "jaxpr", inner))


def digest(arrays: Any) -> str:
    """A hash of a pytree of arrays: paths, shapes, dtypes and bytes."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        array = np.asarray(jax.random.key_data(leaf) if tree.is_random_key(leaf) else leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]
