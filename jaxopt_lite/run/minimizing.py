"""`minimize`: a scalar function of a pytree, by any method."""

from collections.abc import Callable
from typing import Any, Literal

import jax

from jaxopt_lite.run.problems import is_given, prepare
from jaxopt_lite.run.solving import drive
from jaxopt_lite.solve.solution import Solution, SolveState
from jaxopt_lite.solvers import lbfgs, lbfgsb

__all__ = ["minimize"]

Progress = Literal["none", "auto", "bar", "lines"]
Differentiate = Literal["implicit", "unrolled", "none"]

LBFGS, LBFGSB = lbfgs(), lbfgsb()


def minimize(
    f: Callable[..., Any],
    start: Any,
    method: Any = None,
    args: tuple = (),
    bounds: Any = None,
    constraints: Any = (),
    tol: float | None = None,
    max_steps: int = 1000,
    has_aux: bool = False,
    key: jax.Array | None = None,
    state: SolveState | None = None,
    callback: Callable[[Solution], bool | None] | None = None,
    progress: Progress = "none",
    differentiate: Differentiate = "implicit",
) -> Solution:
    """Minimize f(params, *args) from a start.

    f is traced once for each function object and compiled once for each text of its trace: other args, tolerances,
    starts and numbers of the method do not compile again. A function made anew is traced anew, and a global that a
    known function reads is not looked at again: give data through `args`. May be used under `jit`, `vmap` (over
    starts, args, bounds and the method's numbers), `grad`, `jvp` and `hessian` (with respect to args, bounds and what
    f closes over).

    Args:
        f: the objective, (params, *args) -> a real scalar, or (scalar, aux) with `has_aux`.
        start: parameters to begin with, a pytree of numbers or arrays; ints are made floats, 16-bit floats float32. A
            start outside the bounds is moved to the nearest point within.
        method: a solver, such as `jo.solvers.lbfgs()`, the default (with bounds `jo.solvers.lbfgsb()`, with
            constraints `jo.solvers.augmented_lagrangian()`), or a transformation, such as `jo.adamw(1e-2)`.
        args: further arguments of f, pytrees of numbers and arrays.
        bounds: a pair (lower, upper) of trees like the start, or of numbers for all parameters; None or infinity means
            no bound. Only for solvers that take bounds.
        constraints: a dict {"type": "eq" or "ineq", "fun": c, "args": ()} as SciPy has it, or a sequence of them:
            c(params, *args), a tree of real arrays, must be 0, or at least 0. `args` are those of c alone, and c may
            close over arrays. SciPy's LinearConstraint and NonlinearConstraint are taken too, without their
            derivatives. A method that takes no constraints is wrapped, `augmented_lagrangian(method)`.
        tol: tolerance: converged where ‖g‖ = 0 or ‖g‖ <= tol min(‖g₀‖, max(1, |f|)), with bounds for the projected
            gradient; some solvers ask for more, see there. None is ε^(2/3) of the parameters' dtype: 2e-5 for float32,
            4e-11 for float64.
        max_steps: the largest number of steps of this call, at least 1.
        has_aux: whether f returns a pair.
        key: a random key, for methods that draw numbers.
        state: `solution.state` of an earlier solve, to be resumed; of `start` only the structure is used then.
        callback: called with the solution so far every 20 steps; ends the solve where it returns True. Not under jit.
        progress: "bar" (on a terminal or in a notebook, else lines), "lines", "auto" (a bar where it can be drawn, else
            nothing) or "none", on stderr. Not under jit.
        differentiate: "implicit" (at the solution, by the implicit function theorem: forward, reverse and higher
            order), "unrolled" (through every step, which reverse mode stores) or "none" (the solution is a constant).

    Returns:
        A `Solution`: params, value, aux, grad_norm, status, message, converged, steps, evaluations, state; with
            constraints also multipliers and violation.

    Raises:
        TypeError: if f is not callable or returns no real scalar, method is not a method, or start holds leaves that
            are not numbers.
        ValueError: for bounds that cross or that the method does not take, constraints of another form, a method of
            another kind of problem, a state of another problem, or numbers out of range.
    """
    ready = prepare(
        *("minimize", "minimize", f, start, method, LBFGS if bounds is None and not is_given(constraints) else LBFGSB),
        **dict(args=args, bounds=bounds, tol=tol, max_steps=max_steps, has_aux=has_aux, key=key),
        **dict(differentiate=differentiate, constraints=constraints),
    )
    return drive("minimize", ready, state, callback, progress)
