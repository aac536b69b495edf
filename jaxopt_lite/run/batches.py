"""`minimize_batch`: one objective from many starts at once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.arguments import INT32_MAX, check_bool
from jaxopt_lite.core.method import Status
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.log.progress import Progress
from jaxopt_lite.run.arguments import check_progress
from jaxopt_lite.run.minimizing import LBFGS, LBFGSB, Differentiate
from jaxopt_lite.run.minimizing import Progress as Shown
from jaxopt_lite.run.parts import each, number_of_parts
from jaxopt_lite.run.problems import Ready, floating, is_given, is_traced, prepare
from jaxopt_lite.solve.batch import Axes, begin_batch, divided, joined, narrowed, run_lanes, solutions_of, solve_batch
from jaxopt_lite.solve.problem import Problem
from jaxopt_lite.solve.solution import Solution

__all__ = ["minimize_batch"]

ROUND = 10  # steps between two looks at which lanes have ended
LEAST = 8  # lanes of the narrowest batch


def minimize_batch(
    f: Callable[..., Any],
    starts: Any,
    method: Any = None,
    args: tuple = (),
    bounds: Any = None,
    constraints: Any = (),
    tol: float | None = None,
    max_steps: int = 1000,
    has_aux: bool = False,
    key: jax.Array | None = None,
    *,
    args_axes: Any = None,
    gather: bool = False,
    progress: Shown = "none",
    differentiate: Differentiate = "implicit",
) -> Solution:
    """Minimize f(params, *args) from many starts at once, each lane a solve of its own with its own status.

    It is `vmap` of `minimize` with checks, and with `gather` lanes that have not ended are moved into smaller batches.
    On a CPU, 128 lanes and more are divided among the cores, each of which solves a part until its last lane ends.
    A lane's numbers depend on the width of its batch or part in the last bits, as XLA's sums and products do; within
    one width they do not depend on what the other lanes do.

    Args:
        f: as for `minimize`, of the parameters of one lane.
        starts: a pytree whose leaves have a leading axis [lanes, ...].
        method: as for `minimize`.
        args: further arguments of f.
        bounds: as for `minimize`, the same for all lanes.
        constraints: as for `minimize`, the same for all lanes.
        tol: as for `minimize`.
        max_steps: the largest number of steps of each lane, at least 1.
        has_aux: whether f returns a pair.
        key: a random key, split into one for each lane.
        args_axes: None, if all lanes have the same args; 0, if each array in args has a leading axis [lanes, ...]; or a
            tuple of these, one for each argument.
        gather: every 10 steps, halve the width of the batch where the unfinished lanes fit. It pays where an evaluation
            is dear: a program is compiled for each width, and the host waits for each round. Not under jit.
        progress: as for `minimize`, by lanes that have ended. Not under jit.
        differentiate: as for `minimize`; with `gather` or progress the solutions are constants.

    Returns:
        A `Solution` of arrays with a leading axis [lanes, ...]; `message` is a list.

    Raises:
        TypeError: as for `minimize`.
        ValueError: as for `minimize`, and if leaves have no common leading axis, or gather or progress is asked for
            under a trace.
    """
    who = "minimize_batch"
    check_bool(who, "gather", gather)
    check_progress(who, progress, ("none", "auto", "bar", "lines"))
    starts = floating(who, starts)
    lanes = _lanes(who, "starts", starts)
    axes = _axes(who, args, args_axes, lanes, key)
    first = jax.tree.map(lambda x: np.zeros(x.shape[1:], x.dtype), starts)  # of a lane; the numbers play no part
    leaves = [
        x if axis is None else jnp.asarray(x)[0] for x, axis in zip(jax.tree.leaves(args), axes.args, strict=True)
    ]
    ready = prepare(
        *(who, "minimize", f, first, method, LBFGS if bounds is None and not is_given(constraints) else LBFGSB),
        **dict(args=jax.tree.unflatten(jax.tree.structure(args), leaves), bounds=bounds, tol=tol),
        **dict(max_steps=max_steps, has_aux=has_aux, key=key, differentiate=differentiate, constraints=constraints),
    )
    keys = None if key is None else jax.random.split(key, lanes)
    ready = dataclasses.replace(ready, given=ready.given._replace(args=args, key=keys))
    if not is_traced(ready.given, starts):
        return _solve(ready, axes, starts, lanes, gather, progress)
    if gather or progress != "none":
        raise ValueError(f"{who}: gather and progress run on the host, and cannot be used under jit, grad or vmap")
    return solve_batch(ready.problem, axes, ready.given, starts, ready.max_steps)


def _lanes(who: str, name: str, batch: Any) -> int:
    """The length of the leading axis of all leaves."""
    sizes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if np.ndim(leaf) == 0:
            raise ValueError(
                f"{who}: {name}{jax.tree_util.keystr(path)} has no leading axis [lanes, ...]; minimize takes one start"
            )
        sizes.setdefault(np.shape(leaf)[0], jax.tree_util.keystr(path))
    if len(sizes) != 1 or 0 in sizes:
        found = ", ".join(f"{size} at {name}{path}" for size, path in sizes.items())
        raise ValueError(f"{who}: all leaves must have one leading axis of at least 1 lane, got {found}")
    return next(iter(sizes))


def _axes(who: str, args: Any, args_axes: Any, lanes: int, key: Any) -> Axes:
    if not isinstance(args, tuple):
        raise TypeError(f"{who}: args must be a tuple of the further arguments, got {describe(args)}; write (x,)")
    each = args_axes if isinstance(args_axes, tuple) else (args_axes,) * len(args)
    if len(each) != len(args) or any(axis is not None and axis != 0 for axis in each):
        raise ValueError(f"{who}: args_axes must be None, 0 or a tuple of them for {len(args)} args, got {args_axes!r}")
    for i, (axis, arg) in enumerate(zip(each, args, strict=True)):
        if axis == 0 and _lanes(who, f"args[{i}]", arg) != lanes:
            raise ValueError(f"{who}: args[{i}] must have a leading axis of {lanes}, as the starts have")
    by_leaf = [axis for axis, arg in zip(each, args, strict=True) for _ in jax.tree.leaves(arg)]
    return Axes(tuple(by_leaf), None, None if key is None else 0)


def _solve(ready: Ready, axes: Axes, starts: Any, n: int, gather: bool, progress: str) -> Solution:
    """Solve all lanes, in parts where that pays, and in rounds of some steps where the host is asked for."""
    parts, problem, last = number_of_parts(n), ready.problem, np.int32(min(ready.max_steps, INT32_MAX))
    some = divided(axes, ready.given, starts, parts) if parts > 1 else [(ready.given, starts)]
    if gather or progress != "none":
        found = _rounds(problem, axes, some, n, last, gather, progress)
    else:
        found = each(solve_batch, problem, axes, [(*part, last) for part in some], threads=parts > 1)
    return joined(n, found) if parts > 1 else found[0]


def _rounds(problem: Problem, axes: Axes, some: list, n: int, last: Any, gather: bool, progress: str) -> list[Solution]:
    """Run rounds until all lanes of all parts have ended."""
    threads = len(some) > 1
    states = each(begin_batch, problem, axes, some, threads)
    running = [np.ones(len(state.status), bool) for state in states]
    lanes = [np.arange(len(state.status), dtype=np.int32) for state in states]
    bar = Progress(n, progress, ("solved",))
    try:
        while busy := [i for i, still in enumerate(running) if still.any()]:
            for i in busy if gather else ():
                lanes[i] = narrowed(running[i], len(lanes[i]), LEAST)
            calls = [(some[i][0], states[i], lanes[i], np.int32(ROUND), last) for i in busy]
            for i, (state, still) in zip(busy, each(run_lanes, problem, axes, calls, threads), strict=True):
                states[i], running[i] = state, np.array(still)
            status = np.concatenate([state.status for state in states])[:n]
            converged = np.isin(status, [int(s) for s in Status if s.converged])
            bar.update(n - int(np.concatenate(running)[:n].sum()), {"solved": float(converged.mean())})
    finally:
        bar.close()
    return [solutions_of(state, problem) for state in states]
