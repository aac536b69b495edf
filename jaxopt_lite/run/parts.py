"""One program called on parts of a batch, each in a thread: XLA runs the small operations of a solve on one core."""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxopt_lite.solve.batch import Axes
from jaxopt_lite.solve.problem import Problem

__all__ = []

SHARE = 64  # lanes for which one more core pays


def number_of_parts(lanes: int) -> int:
    """How many parts pay; 1 where the device is no CPU, or XLA was told to be several devices."""
    is_plain = jax.default_backend() == "cpu" and jax.local_device_count() == 1
    if not is_plain or jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, lanes // SHARE))


def each(function: Callable, problem: Problem, axes: Axes, calls: Sequence[tuple], threads: bool) -> list[Any]:
    """What a function of `jax.jit` returns for several tuples of arguments.

    Args:
        function: its first two arguments, problem and axes, are static.
        problem: the static part of the problem.
        axes: of its numbers.
        calls: the other arguments.
        threads: whether the calls run side by side.
    """
    if not threads:
        return [function(problem, axes, *arguments) for arguments in calls]
    programs = [_program(function, problem, axes, arguments) for arguments in calls]
    run = lambda program, arguments: jax.block_until_ready(program(*arguments))
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as executor:
        others = executor.map(run, programs[1:], calls[1:])
        return [run(programs[0], calls[0]), *others]


def _program(function: Callable, problem: Problem, axes: Axes, arguments: tuple) -> Callable:
    leaves, structure = jax.tree.flatten(arguments)
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return _compiled(function, problem, axes, structure, tuple(jax.typeof(leaf) for leaf in leaves), precision)


@functools.lru_cache(maxsize=64)
def _compiled(
    function: Any, problem: Problem, axes: Axes, structure: Any, shapes: tuple, precision: str | None
) -> Callable:
    """Compiled here: a thread does not know what `with jax.enable_x64(...)` and the like have set."""
    leaves = [jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=x.weak_type) for x in shapes]
    return function.lower(problem, axes, *structure.unflatten(leaves)).compile()
