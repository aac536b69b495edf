"""One program called on parts of a batch, each in a thread: XLA runs the small operations of a solve on one core."""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxopt_lite.core.compiler import many_lanes

__all__ = []

SHARE = 64  # lanes for which one more core pays


def number_of_parts(lanes: int) -> int:
    """How many parts pay; 1 where the device is no CPU, or XLA was told to be several devices."""
    is_plain = jax.default_backend() == "cpu" and jax.local_device_count() == 1
    if not is_plain or jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, lanes // SHARE))


@functools.cache
def jitted(function: Callable, statics: int, alone: bool) -> Callable:
    """A function of a batch as a program.

    Args:
        function: to be compiled.
        statics: how many of its first arguments are static.
        alone: whether it is called outside of all traces, where the compiler takes options.
    """
    return jax.jit(function, static_argnums=range(statics), compiler_options=many_lanes() if alone else None)


def each(function: Callable, statics: tuple, calls: Sequence[tuple]) -> list[Any]:
    """What a function returns for several tuples of arguments, computed side by side.

    Args:
        function: to be compiled and called outside of all traces.
        statics: its first arguments, which are static.
        calls: the others.
    """
    if len(calls) == 1:
        return [jitted(function, len(statics), alone=True)(*statics, *calls[0])]
    programs = [_program(function, statics, arguments) for arguments in calls]
    x64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]

    def run(program, arguments):
        with jax.enable_x64(x64):  # a thread does not know what `with jax.enable_x64(...)` has set
            return jax.block_until_ready(program(*arguments))

    others = _threads().map(run, programs[1:], calls[1:])
    return [run(programs[0], calls[0]), *others]


@functools.cache
def _threads() -> concurrent.futures.Executor:
    """Kept, as a new thread takes half a millisecond."""
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count(), "jaxopt_lite")


def _program(function: Callable, statics: tuple, arguments: tuple) -> Callable:
    leaves, structure = jax.tree.flatten(arguments)
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return _compiled(function, statics, structure, tuple(jax.typeof(leaf) for leaf in leaves), precision)


@functools.lru_cache(maxsize=64)
def _compiled(function: Callable, statics: tuple, structure: Any, shapes: tuple, precision: str | None) -> Callable:
    """Compiled by the thread that calls, which knows the settings that hold in it."""
    leaves = [jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=x.weak_type) for x in shapes]
    return jitted(function, len(statics), alone=True).lower(*statics, *structure.unflatten(leaves)).compile()
