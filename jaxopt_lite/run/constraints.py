"""Constraints as users write them, SciPy's dicts and objects, checked and made part of a problem."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.traced import traced
from jaxopt_lite.core.vectors import to_vector
from jaxopt_lite.run.arguments import cross
from jaxopt_lite.solve.problem import Bounded, Constraint

__all__ = []

FORM = '{"type": "eq" or "ineq", "fun": c, "args": ()}'


def as_constraints(who: str, constraints: Any, params: Any) -> tuple[tuple[Constraint, ...], tuple[Bounded, ...]]:
    """The static parts and the numbers of constraints.

    Args:
        who: the entry point.
        constraints: None, a constraint or a sequence of them, as `minimize` takes them.
        params: the start.

    Raises:
        TypeError: for what is no constraint, or a function that returns other than real floating numbers.
        ValueError: for a wrong type or key of a dict, or bounds that cross or do not fit.
    """
    if constraints is None:
        return (), ()
    if not isinstance(constraints, (tuple, list)):
        constraints = (constraints,)
    made = [_made(who, f"constraints[{i}]", one, params) for i, one in enumerate(constraints)]
    return tuple(static for static, _ in made), tuple(numbers for _, numbers in made)


def _made(who: str, name: str, given: Any, params: Any) -> tuple[Constraint, Bounded]:
    if isinstance(given, dict):
        kind, function, args, bounds = *_parts(who, name, given), None
    elif hasattr(given, "lb") and hasattr(given, "ub") and (hasattr(given, "fun") or hasattr(given, "A")):
        kind, bounds = "interval", (given.lb, given.ub)
        function, args = (given.fun, ()) if hasattr(given, "fun") else (_linear, (_dense(given.A),))
    else:
        raise TypeError(f"{who}: {name} must be a dict {FORM}, or SciPy's NonlinearConstraint, got {describe(given)}")
    if not callable(function):
        raise TypeError(f"{who}: {name}: fun must be a function (params, *args), got {describe(function)}")
    try:
        text, captured = traced(function, params, *args)
    except Exception as error:
        error.add_note(f"{who}: while tracing the function of {name}")
        raise
    constraint = Constraint(kind, text)
    leaves = jax.tree.leaves(constraint.zeros)
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        got = ", ".join(f"dtype {leaf.dtype}" for leaf in leaves) or "nothing"
        raise TypeError(f"{who}: the function of {name} must return real floating numbers, got {got}")
    size = to_vector(constraint.zeros).size
    if size == 0:
        raise ValueError(f"{who}: the function of {name} returns no numbers; leave the constraint out")
    lower, upper = (None, None) if bounds is None else _interval(who, name, bounds, size)
    return constraint, Bounded(captured, args, lower, upper)


def _parts(who: str, name: str, given: dict) -> tuple[str, Any, tuple]:
    """Kind, function and args of a dict."""
    derivatives = {"jac", "hess"} & set(given)
    if derivatives:
        raise ValueError(
            f"{who}: {name}: leave out {sorted(derivatives)[0]!r}; JAX takes the derivatives of fun itself"
        )
    unknown, missing = sorted(set(given) - {"type", "fun", "args"}, key=str), {"type", "fun"} - set(given)
    if unknown or missing:
        fault = f"the unknown key {unknown[0]!r}" if unknown else f"no key {sorted(missing)[0]!r}"
        raise ValueError(f"{who}: {name} must be a dict {FORM}, got one with {fault}")
    kind, args = given["type"], given.get("args", ())
    if kind not in ("eq", "ineq"):
        raise ValueError(f'{who}: {name}: type must be "eq" (fun = 0) or "ineq" (fun >= 0), got {kind!r}')
    if not isinstance(args, tuple):
        raise TypeError(f"{who}: {name}: args must be a tuple of the further arguments, got {describe(args)}")
    return kind, given["fun"], args


def _interval(who: str, name: str, bounds: tuple, size: int) -> tuple[Any, Any]:
    arrays = []
    for side, bound in zip(("lb", "ub"), bounds, strict=True):
        array = jnp.asarray(bound, float)
        if array.shape not in ((), (1,), (size,)):
            raise ValueError(f"{who}: {name}: {side} has shape {array.shape}, for a function of {size} numbers")
        arrays.append(jnp.broadcast_to(jnp.ravel(array), (size,)) if array.size == size else jnp.full(size, array))
    lower, upper = arrays
    if cross(lower, upper):
        raise ValueError(f"{who}: {name}: lb must not exceed ub, and neither may be NaN")
    return lower, upper


def _linear(params: Any, a: Any) -> jax.Array:
    return a @ to_vector(params)


def _dense(a: Any) -> jax.Array:
    dense = a.toarray() if hasattr(a, "toarray") else a
    array = jnp.asarray(dense, float)
    return array[None] if array.ndim == 1 else array
