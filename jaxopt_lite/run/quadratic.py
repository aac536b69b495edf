"""`quadratic_program`: a quadratic objective under linear constraints."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite.core.numbers import describe
from jaxopt_lite.run.arguments import cross
from jaxopt_lite.run.minimizing import Differentiate, Progress
from jaxopt_lite.run.problems import check_arrays, floating, prepare
from jaxopt_lite.run.solving import drive
from jaxopt_lite.solve.solution import Solution, SolveState
from jaxopt_lite.solvers import osqp

__all__ = ["quadratic_program"]

OSQP = osqp()


def quadratic_program(
    P: Any,
    q: Any,
    A: Any = None,
    lower: Any = None,
    upper: Any = None,
    method: Any = None,
    start: Any = None,
    tol: float | None = None,
    max_steps: int = 400,
    state: SolveState | None = None,
    callback: Callable[[Solution], bool | None] | None = None,
    progress: Progress = "none",
    differentiate: Differentiate = "implicit",
) -> Solution:
    """Minimize ½ x·P x + q·x with lower <= A x <= upper.

    Equal bounds make equalities; an infinite one means no bound. Compiled, vmapped and differentiated as `minimize` is,
    with respect to all five arrays: a thousand programs are `vmap` of this function over them.

    Args:
        P: [n, n], positive semi-definite; of another matrix the symmetric part (P + Pᵀ) / 2 counts. Zeros make a linear
            program. With a negative eigenvalue the status is NOT_CONVEX.
        q: [n].
        A: [m, n]; None is the identity, so that lower and upper bound x.
        lower: [m], or a number; None is minus infinity.
        upper: [m], or a number; None is infinity.
        method: a solver of quadratic programs, `jo.solvers.osqp()`.
        start: x to begin with, [n]; None is zeros.
        tol: relative tolerance, see the method. None is ε^(2/3) of the dtype: 2e-5 for float32, 4e-11 for float64.
        max_steps: the largest number of steps of this call, at least 1; see the method.
        state: as for `minimize`.
        callback: as for `minimize`.
        progress: as for `minimize`.
        differentiate: as for `minimize`.

    Returns:
        A `Solution`: params [n], value, multipliers [m], violation, status. With λ the multipliers, P x + q = Aᵀλ:
        positive where the lower bound holds, negative at the upper one. OSQP's own y is -λ.

    Raises:
        TypeError: for what is no array of real numbers.
        ValueError: for shapes that do not fit, NaN, bounds that cross, a method of another kind of problem, or a state
            of another problem.

    >>> solution = quadratic_program([[2.0, 0.0], [0.0, 2.0]], [-2.0, -5.0], A=[[1.0, 1.0]], lower=1.0, upper=1.0)
    >>> [round(float(x), 3) for x in solution.params]
    [-0.25, 1.25]
    """
    who = "quadratic_program"
    q = _array(who, "q", q, 1)
    n = len(q)
    P = _array(who, "P", P, 2)
    A = jnp.eye(n) if A is None else _array(who, "A", A, 2)
    for name, array, shape in (("P", P, (n, n)), ("A", A, (len(A), n))):
        if array.shape != shape:
            raise ValueError(f"{who}: {name} must have the shape {shape} for q of {n} numbers, got {array.shape}")
    low, high = (_bound(who, *given, len(A)) for given in (("lower", lower, -jnp.inf), ("upper", upper, jnp.inf)))
    dtype = jnp.result_type(P, q, A, low, high) if lower is not None or upper is not None else jnp.result_type(P, q, A)
    P, q, A, low, high = (x.astype(dtype) for x in (P, q, A, low, high))
    for name, array in (("P", P), ("q", q), ("A", A)):
        if not isinstance(array, Tracer) and not np.all(np.isfinite(array)):
            raise ValueError(f"{who}: {name} must be finite")
    if cross(low, high):
        raise ValueError(f"{who}: lower must not exceed upper, and neither may be NaN")
    x = floating(who, jnp.zeros_like(q) if start is None else start)
    if jnp.shape(x) != (n,):
        raise ValueError(f"{who}: start must have the shape {(n,)}, got {jnp.shape(x)}")
    ready = prepare(
        *(who, "quadratic_program", _value, x.astype(dtype), method, OSQP),
        **dict(args=(P, q, A, low, high), bounds=None, tol=tol, max_steps=max_steps, has_aux=False, key=None),
        differentiate=differentiate,
    )
    return drive(who, ready, state, callback, progress)


def _value(x, P, q, A, lower, upper):
    return x @ (P @ x) / 2 + q @ x


def _array(who: str, name: str, given: Any, ndim: int) -> Any:
    check_arrays(who, name, given)
    array = floating(who, jnp.asarray(given))
    if array.ndim != ndim or jnp.iscomplexobj(array):
        what = "a vector" if ndim == 1 else "a matrix"
        raise ValueError(f"{who}: {name} must be {what} of real numbers, got {describe(array)}")
    return array


def _bound(who: str, name: str, given: Any, infinite: float, m: int) -> Any:
    if given is None:
        return jnp.full(m, infinite)
    check_arrays(who, name, given)
    array = floating(who, jnp.asarray(given))
    if array.shape not in ((), (m,)):
        raise ValueError(f"{who}: {name} must be a number or have the shape {(m,)}, got {array.shape}")
    return jnp.broadcast_to(array, (m,))
