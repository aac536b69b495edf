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
from jaxopt_lite.run.parts import each, jitted, number_of_parts
from jaxopt_lite.run.problems import Ready, floating, is_given, is_traced, prepare
from jaxopt_lite.solve.batch import Axes, begin_batch, divided, joined, run_batch, solutions_of, solve_batch
from jaxopt_lite.solve.problem import Problem
from jaxopt_lite.solve.solution import Solution

__all__ = ["minimize_batch"]

ROUND = 10  # steps between two updates of the progress


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
        gather: move the unfinished lanes into a batch of a quarter of the width as soon as they fit there, down to 8
            lanes: evaluations of lanes that have ended are saved. Each width is compiled, so the first call takes
            longer, and the last bits of a lane depend on when others end.
        progress: as for `minimize`, by lanes that have ended. Not under jit.
        differentiate: as for `minimize`; under a trace "unrolled" is an error with `gather`.

    Returns:
        A `Solution` of arrays with a leading axis [lanes, ...]; `message` is a list.

    Raises:
        TypeError: as for `minimize`.
        ValueError: as for `minimize`, and if leaves have no common leading axis, progress is asked for under a trace,
            or `gather` is to be unrolled.
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
    most = min(ready.max_steps, INT32_MAX)
    ready = dataclasses.replace(ready, given=ready.given._replace(args=args, key=keys), max_steps=most)
    if not is_traced(ready.given, starts):
        return _solve(ready, axes, starts, lanes, gather, progress)
    if progress != "none":
        raise ValueError(f"{who}: progress is shown by the host, and cannot be used under jit, grad or vmap")
    if gather and differentiate == "unrolled":
        raise ValueError(f"{who}: with gather, whose loops cannot be unrolled, differentiate must not be 'unrolled'")
    solve = jitted(solve_batch, 3, alone=False)
    return solve(ready.problem, axes, gather, ready.given, starts, ready.max_steps)


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
    """Solve all lanes, in parts where that pays, and in rounds of some steps where progress is shown."""
    parts, last = number_of_parts(n), np.int32(ready.max_steps)
    lanes = list(divided(n, parts)) if parts > 1 else [None]
    if progress == "none":
        calls = [(ready.given, starts, last, some) for some in lanes]
        found = each(solve_batch, (ready.problem, axes, gather), calls)
    else:
        begun = each(begin_batch, (ready.problem, axes), [(ready.given, starts, some) for some in lanes])
        found = _rounds(ready.problem, axes, begun, n, last, gather, progress)
    return joined(n, found) if parts > 1 else found[0]


def _rounds(
    problem: Problem, axes: Axes, begun: list, n: int, last: Any, gather: bool, progress: str
) -> list[Solution]:
    """Run rounds until all lanes of all parts have ended; `begun` is each part's numbers and states."""
    given, states = zip(*begun, strict=True)
    running = [np.ones(len(state.status), bool) for state in states]
    bar = Progress(n, progress, ("solved",))
    try:
        while any(np.any(still) for still in running):
            calls = [(*part, np.int32(ROUND), last) for part in zip(given, states, strict=True)]
            states, running = zip(*each(run_batch, (problem, axes, gather), calls), strict=True)
            status = np.concatenate([state.status for state in states])[:n]
            converged = np.isin(status, [int(s) for s in Status if s.converged])
            bar.update(n - int(np.concatenate(running)[:n].sum()), {"solved": float(converged.mean())})
    finally:
        bar.close()
    return [solutions_of(state, problem) for state in states]
