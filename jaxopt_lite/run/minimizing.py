"""`minimize`: checks the arguments, and runs the method in one call, or in calls of some steps with progress."""

import sys
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite import tree
from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.checks import check_params, structure_difference
from jaxopt_lite.core.hyperparameters import arrays
from jaxopt_lite.core.method import Solver, Status, default_tol
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.transformation import GradientTransformation
from jaxopt_lite.run.arguments import check_progress
from jaxopt_lite.solve import Solution, SolveState, begin_program, run_program, solution_of, solve_program
from jaxopt_lite.solvers import lbfgs

__all__ = ["minimize"]

_CALL = 20  # steps between two calls of the callback, or two lines of progress


def minimize(
    f: Callable[..., Any],
    start: Any,
    method: Any = None,
    args: tuple = (),
    bounds: Any = None,
    constraints: tuple = (),
    tol: float | None = None,
    max_steps: int = 1000,
    has_aux: bool = False,
    key: jax.Array | None = None,
    state: SolveState | None = None,
    callback: Callable[[Solution], bool | None] | None = None,
    progress: Literal["none", "lines"] = "none",
) -> Solution:
    """Minimize f(params, *args) from a start.

    It is compiled once for each function object and shapes: args, tol and the numbers of the method are traced, so
    other ones do not compile. Write f once and give data through `args`; a function made anew is compiled anew. May be
    used under `jit` and `vmap` (over starts, args and the method's numbers).

    Args:
        f: the objective, (params, *args) -> a real scalar, or (scalar, aux) with `has_aux`.
        start: parameters to begin with, a pytree of numbers or arrays; ints are made floats.
        method: a solver, such as `jo.solvers.lbfgs()`, the default, or a transformation, such as `jo.adamw(1e-2)`.
        args: further arguments of f, pytrees of arrays.
        bounds: not taken by the methods of this version; must be None.
        constraints: not taken by the methods of this version; must be empty.
        tol: tolerance: converged where ‖g‖ = 0 or ‖g‖ <= tol min(‖g₀‖, max(1, |f|)). None is ε^(2/3) of the
            parameters' dtype: 2e-5 for float32, 4e-11 for float64.
        max_steps: the largest number of steps of this call, at least 1.
        has_aux: whether f returns a pair.
        key: a random key, for methods that draw numbers.
        state: `solution.state` of an earlier solve, to be resumed; of `start` only the structure is used then.
        callback: called with the solution so far every 20 steps; ends the solve where it returns True. Not under jit.
        progress: "lines" prints a line every 20 steps to stderr, "none" nothing. Not under jit.

    Returns:
        A `Solution`: params, value, aux, grad_norm, status, message, converged, steps, evaluations, state.

    Raises:
        TypeError: if f is not callable, method is not a method, or start holds leaves that are not numbers.
        ValueError: for bounds or constraints, a state of another problem, or numbers out of range.
    """
    if not callable(f):
        raise TypeError(f"minimize: f must be a function (params, *args) -> scalar, got {describe(f)}")
    method = _method(method)
    for name, given in (("bounds", bounds is not None), ("constraints", len(constraints) > 0)):
        if given:
            raise ValueError(f"minimize: {method.factory.spec.name} takes no {name}; no method of this version does")
    if not isinstance(args, tuple):
        raise TypeError(
            f"minimize: args must be a tuple of the further arguments of f, got {describe(args)}; write (x,)"
        )
    max_steps = check_int("minimize", "max_steps", max_steps)
    check_progress("minimize", progress, ("none", "lines"))
    params = jax.tree.map(_floating, start)
    check_params("minimize", params)
    if not jax.tree.leaves(params):
        raise ValueError(f"minimize: start holds no parameters, got {describe(start)}")
    tol = (
        default_tol(jnp.result_type(*[tree.real_dtype(p.dtype) for p in jax.tree.leaves(params)]))
        if tol is None
        else tol
    )
    if not isinstance(tol, Tracer) and not (np.ndim(tol) == 0 and tol >= 0):
        raise ValueError(f"minimize: tol must be a number of at least 0, got {tol!r}")

    problem = (f, bool(has_aux), arrays(method, jnp.result_type(float)), args, jnp.asarray(tol, float), key)
    if callback is None and progress == "none":
        if state is None:
            return solve_program(*problem, params, max_steps)
        return solution_of(run_program(*problem, _resumed(state, params), state.steps + max_steps))
    state = begin_program(*problem, params) if state is None else _resumed(state, params)
    return _watched(problem, state, int(max_steps), callback, progress)


def _method(method: Any) -> Any:
    """The method as a value."""
    if method is None:
        return lbfgs()
    if isinstance(method, Solver):
        return method
    if getattr(getattr(method, "spec", None), "makes", None) is Solver:
        return Solver.accept(method, "minimize", "method")  # raises: it was not called
    try:
        return GradientTransformation.accept(method, "minimize", "method")
    except TypeError as error:
        raise TypeError(f"{error}; or a solver, such as jaxopt_lite.solvers.lbfgs()") from None


def _floating(leaf: Any) -> Any:
    """A leaf of the start as an array; ints become floats."""
    if isinstance(leaf, (int, float, np.generic, np.ndarray, jax.Array)) and not isinstance(leaf, bool):
        array = jnp.asarray(leaf)
        return array.astype(float) if jnp.issubdtype(array.dtype, jnp.integer) else array
    return leaf


def _resumed(state: Any, params: Any) -> SolveState:
    """The state of an earlier solve; one that was interrupted is running again."""
    if not isinstance(state, SolveState):
        raise TypeError(f"minimize: state must be the `state` of a solution, got {describe(state)}")
    difference = structure_difference(state.params, params, "state.params", "start")
    if difference:
        raise ValueError(f"minimize: the state is not of this problem: {difference}")
    is_open = state.status == Status.INTERRUPTED
    return state._replace(status=jnp.where(is_open, Status.RUNNING, state.status).astype(jnp.int32))


def _watched(problem: tuple, state: SolveState, max_steps: int, callback: Any, progress: str) -> Solution:
    """Run in calls of some steps; print a line and call the callback after each."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((problem[2:], state))):
        raise ValueError("minimize: callback and progress run on the host, and cannot be used under jit or vmap")
    last = int(state.steps) + max_steps
    while int(state.status) == Status.RUNNING and int(state.steps) < last:
        state = run_program(*problem, state, min(int(state.steps) + _CALL, last))
        so_far = solution_of(state)
        if progress == "lines":
            print(
                f"step {int(so_far.steps)}  value {float(so_far.value):.6g}  grad_norm {float(so_far.grad_norm):.2g}",
                file=sys.stderr,
            )
        if callback is not None and callback(so_far) is True and int(state.status) == Status.RUNNING:
            state = state._replace(status=jnp.asarray(Status.INTERRUPTED, jnp.int32))
    return solution_of(state)
