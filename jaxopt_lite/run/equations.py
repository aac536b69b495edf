"""`root` and `fixed_point`: equations in as many unknowns."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite.core.numbers import describe
from jaxopt_lite.run.minimizing import Differentiate, Progress
from jaxopt_lite.run.problems import check_arrays, floating, prepare
from jaxopt_lite.run.solving import drive
from jaxopt_lite.solve.solution import Solution, SolveState
from jaxopt_lite.solvers import anderson, brent, newton

__all__ = ["fixed_point", "root"]


def root(
    f: Callable[..., Any],
    start: Any = None,
    method: Any = None,
    args: tuple = (),
    bracket: tuple[Any, Any] | None = None,
    tol: float | None = None,
    max_steps: int = 200,
    has_aux: bool = False,
    key: jax.Array | None = None,
    state: SolveState | None = None,
    callback: Callable[[Solution], bool | None] | None = None,
    progress: Progress = "none",
    differentiate: Differentiate = "implicit",
) -> Solution:
    """Solve f(params, *args) = 0, as many equations as unknowns.

    Compiled, vmapped and differentiated as `minimize` is.

    Args:
        f: (params, *args) -> a tree of arrays, of any structure, with as many numbers as params; or (tree, aux) with
            `has_aux`.
        start: parameters to begin with, a pytree of numbers or arrays. With a bracket it may be left out, or be a
            single number between the ends.
        method: `jo.solvers.newton()`, the default, or `jo.solvers.broyden()`; with a bracket `jo.solvers.brent()`, the
            default, or `jo.solvers.bisection()`.
        args: further arguments of f, pytrees of numbers and arrays.
        bracket: for one equation in one unknown: two numbers in either order, which may be traced, at which f has
            opposite signs or is zero. If it has not, the status is NO_BRACKET.
        tol: tolerance, see the method. None is ε^(2/3) of the parameters' dtype, and with a bracket what the dtype can
            resolve.
        max_steps: the largest number of steps of this call, at least 1.
        has_aux: whether f returns a pair.
        key: a random key, for methods that draw numbers.
        state: `solution.state` of an earlier solve, to be resumed.
        callback: as for `minimize`.
        progress: as for `minimize`.
        differentiate: as for `minimize`.

    Returns:
        A `Solution`, with `residuals` = f at params, of norm `grad_norm`, and `value` half their sum of squares.

    Raises:
        TypeError: if f is not callable or returns no floating numbers, or start holds leaves that are not numbers.
        ValueError: for another number of equations than of unknowns, a method of another kind of problem, a bracket
            that is no pair, a state of another problem, or numbers out of range.
    """
    kind, default, bounds = "root", newton(), None
    if bracket is not None:
        kind, default = "bracket", brent()
        start, bounds = _bracket(start, bracket)
    elif start is None:
        raise ValueError("root: give a start, or a bracket (low, high) for one equation in one unknown")
    ready = prepare(
        *("root", kind, f, start, method, default),
        **dict(args=args, bounds=bounds, tol=tol, max_steps=max_steps, has_aux=has_aux, key=key),
        differentiate=differentiate,
    )
    return drive("root", ready, state, callback, progress)


def _bracket(start: Any, bracket: Any) -> tuple[Any, tuple[Any, Any]]:
    """The start, by default the midpoint, and the ends as trees like it."""
    if not isinstance(bracket, (tuple, list)) or len(bracket) != 2:
        raise ValueError(f"root: bracket must be a pair of numbers (low, high), got {describe(bracket)}")
    check_arrays("root", "bracket", tuple(bracket))
    for end in bracket:
        if np.ndim(end) > 0 and np.size(end) != 1:
            raise ValueError(f"root: the ends of a bracket must be single numbers, got shape {np.shape(end)}; use vmap")
    low, high = (jnp.asarray(end, jnp.result_type(float, *bracket)) for end in bracket)
    if not isinstance(low, Tracer) and not isinstance(high, Tracer) and not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"root: the ends of a bracket must be finite, got {bracket}")
    low, high = jnp.minimum(low, high), jnp.maximum(low, high)
    params = floating("root", low + (high - low) / 2 if start is None else start)
    leaves, structure = jax.tree.flatten(params)
    if len(leaves) != 1 or leaves[0].size != 1 or jnp.iscomplexobj(leaves[0]):
        raise ValueError("root: a bracket is for one real unknown, got a start of other size; use vmap for many")
    as_leaf = lambda end: structure.unflatten([jnp.reshape(end, leaves[0].shape).astype(leaves[0].dtype)])
    return params, (as_leaf(low), as_leaf(high))


def fixed_point(
    g: Callable[..., Any],
    start: Any,
    method: Any = None,
    args: tuple = (),
    tol: float | None = None,
    max_steps: int = 1000,
    has_aux: bool = False,
    key: jax.Array | None = None,
    state: SolveState | None = None,
    callback: Callable[[Solution], bool | None] | None = None,
    progress: Progress = "none",
    differentiate: Differentiate = "implicit",
) -> Solution:
    """Find params with g(params, *args) = params.

    Compiled, vmapped and differentiated as `minimize` is.

    Args:
        g: (params, *args) -> a tree like params, or (tree, aux) with `has_aux`.
        start: parameters to begin with, a pytree of numbers or arrays.
        method: `jo.solvers.anderson()`, the default, `jo.solvers.fixed_point_iteration()`, or a method of `root`, such
            as `jo.solvers.newton()`, which is given g(x) - x.
        args: further arguments of g, pytrees of numbers and arrays.
        tol: tolerance of g(x) - x, see the method. None is ε^(2/3) of the parameters' dtype.
        max_steps: the largest number of steps of this call, at least 1.
        has_aux: whether g returns a pair.
        key: a random key, for methods that draw numbers.
        state: `solution.state` of an earlier solve, to be resumed.
        callback: as for `minimize`.
        progress: as for `minimize`.
        differentiate: as for `minimize`.

    Returns:
        A `Solution`, with `residuals` = g(params) - params, of norm `grad_norm`.

    Raises:
        TypeError: if g is not callable or returns no floating numbers, or start holds leaves that are not numbers.
        ValueError: if g does not return a tree like params, for a method of another kind of problem, a state of another
            problem, or numbers out of range.
    """
    ready = prepare(
        *("fixed_point", "fixed_point", g, start, method, anderson()),
        **dict(args=args, bounds=None, tol=tol, max_steps=max_steps, has_aux=has_aux, key=key),
        differentiate=differentiate,
    )
    return drive("fixed_point", ready, state, callback, progress)
