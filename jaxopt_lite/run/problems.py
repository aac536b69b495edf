"""The arguments of `minimize`, `least_squares`, `root` and their likes, checked and made a problem."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite import tree
from jaxopt_lite.core.arguments import WrongTypeError, check_bool, check_choice, check_int
from jaxopt_lite.core.checks import check_params, leaf_difference, structure_difference
from jaxopt_lite.core.execution import is_tracing
from jaxopt_lite.core.hyperparameters import arrays
from jaxopt_lite.core.method import Solver, Status, default_tol
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.traced import traced
from jaxopt_lite.core.transformation import GradientTransformation
from jaxopt_lite.run.arguments import cross
from jaxopt_lite.run.constraints import as_constraints
from jaxopt_lite.solve.implicit import begin_program
from jaxopt_lite.solve.problem import Given, Problem
from jaxopt_lite.solve.solution import SolveState
from jaxopt_lite.solvers import augmented_lagrangian
from jaxopt_lite.solvers.robust import LOSSES

__all__ = []

DIFFERENTIATE = ("implicit", "unrolled", "none")
ENTRY = {
    "minimize": "minimize",
    "least_squares": "least_squares",
    "root": "root",
    "fixed_point": "fixed_point",
    "bracket": "root(..., bracket=(low, high))",
    "quadratic_program": "quadratic_program",
}
FUNCTION = {"minimize": "f", "least_squares": "residual", "root": "f", "bracket": "f", "fixed_point": "g"}
TAKES = {  # the kinds of solvers that solve a kind of problem
    "minimize": ("minimize",),
    "least_squares": ("least_squares", "minimize"),
    "root": ("root",),
    "fixed_point": ("fixed_point", "root"),
    "bracket": ("bracket",),
    "quadratic_program": ("quadratic_program",),
}


@dataclasses.dataclass(frozen=True)
class Ready:
    """What a solve is made of: its static part, its numbers, the start, and the number of steps of this call."""

    problem: Problem
    given: Given
    params: Any
    max_steps: int


def prepare(
    who: str,
    kind: str,
    function: Any,
    start: Any,
    method: Any,
    default: Solver,
    *,
    args: Any,
    bounds: Any,
    tol: Any,
    max_steps: Any,
    has_aux: Any,
    key: Any,
    differentiate: Any,
    loss: Any = "linear",
    f_scale: Any = 1.0,
    constraints: Any = None,
) -> Ready:
    """Check the arguments of an entry point.

    Raises:
        TypeError: for a function, method or leaf of a wrong type.
        ValueError: for a method of another kind of problem, bounds that do not fit, or numbers out of range.
    """
    if not callable(function):
        raise TypeError(f"{who}: {FUNCTION[kind]} must be a function (params, *args), got {describe(function)}")
    if not isinstance(args, tuple):
        raise TypeError(f"{who}: args must be a tuple of the further arguments, got {describe(args)}; write (x,)")
    check_arrays(who, "args", args)
    method = accept(who, kind, method, default)
    max_steps = check_int(who, "max_steps", max_steps)
    params = floating(who, start)
    lower, upper = as_bounds(who, bounds, params) if kind != "bracket" else bounds
    if kind != "bracket":
        check_bounds(who, method, lower, upper)
    static, limits = as_constraints(who, constraints, params)
    method = taking_constraints(who, method) if static else method
    check_key(who, method, key)
    if not isinstance(tol, Tracer) and tol is not None and not (np.ndim(tol) == 0 and tol >= 0):
        raise ValueError(f"{who}: tol must be a number of at least 0, got {tol!r}")
    if tol is None:
        tol = (
            0.0
            if kind == "bracket"
            else default_tol(jnp.result_type(*[tree.real_dtype(p.dtype) for p in jax.tree.leaves(params)]))
        )
    if not callable(loss):
        check_choice(who, "loss", loss, tuple(LOSSES))
    if not isinstance(f_scale, Tracer) and not (np.ndim(f_scale) == 0 and f_scale > 0):
        raise ValueError(f"{who}: f_scale must be a number above 0, got {f_scale!r}")
    differentiate = check_choice(who, "differentiate", differentiate, DIFFERENTIATE)

    text, captured = traced(function, params, *args)
    check_bool(who, "has_aux", has_aux)
    check_result(who, kind, text, has_aux, params)
    unrolled = max_steps if differentiate == "unrolled" else 0
    problem = Problem(kind, text, has_aux, loss, differentiate, unrolled, static)
    dtype = jnp.result_type(float)
    if all(isinstance(x, float) for x in jax.tree.leaves((method, tol, f_scale))):  # sooner made than JAX's arrays
        method, tol, f_scale = jax.tree.map(lambda x: np.asarray(x, dtype), (method, tol, f_scale))
    else:
        method, tol, f_scale = arrays(method, dtype), jnp.asarray(tol, dtype), jnp.asarray(f_scale, dtype)
    given = Given(method, captured, args, lower, upper, tol, f_scale, key, limits)
    return Ready(problem, given, params, max_steps)


def accept(who: str, kind: str, method: Any, default: Solver) -> Any:
    """The method as a value that solves problems of a kind."""
    if method is None:
        return default
    if isinstance(method, Solver) or getattr(getattr(method, "spec", None), "makes", None) is Solver:
        method = Solver.accept(method, who, "method")
        if method.solves not in TAKES[kind]:
            name = method.factory.spec.name
            raise ValueError(f"{who}: {name} is a method of {ENTRY[method.solves]}; use {default!r}, or call that")
        return method
    try:
        method = GradientTransformation.accept(method, who, "method")
    except TypeError as error:
        raise TypeError(f"{error}; or a solver, such as jo.{default!r}") from None
    if "minimize" not in TAKES[kind]:
        raise ValueError(f"{who}: a transformation minimizes and does not solve equations; use jo.{default!r}")
    return method


def taking_constraints(who: str, method: Any) -> Solver:
    """The method if it takes constraints, else an augmented Lagrangian method that holds it."""
    if not isinstance(method, Solver):
        name = method.factory.spec.name if hasattr(method, "factory") else describe(method)
        raise ValueError(f"{who}: {name} takes no constraints; use jo.solvers.augmented_lagrangian()")
    return method if method.takes_constraints else augmented_lagrangian(method)


def check_bounds(who: str, method: Any, lower: Any, upper: Any) -> None:
    """Raise unless a method takes the bounds that are given, and has those that it needs."""
    is_solver = isinstance(method, Solver)
    name = method.factory.spec.name if hasattr(method, "factory") else describe(method)
    if lower is not None and not (is_solver and method.takes_bounds):
        remedy = {"least_squares": "levenberg_marquardt"}.get(who, "lbfgsb")
        raise ValueError(f"{who}: {name} takes no bounds; use jo.solvers.{remedy}(), or map the parameters")
    if not (is_solver and method.needs_box):
        return
    if lower is None:
        raise ValueError(f"{who}: {name} searches a box; give bounds=(lower, upper)")
    for side, bounds in (("lower", lower), ("upper", upper)):
        for path, bound in jax.tree_util.tree_leaves_with_path(bounds):
            if not isinstance(bound, Tracer) and not np.all(np.isfinite(bound)):
                raise ValueError(
                    f"{who}: {name} searches a box, but the {side} bound{jax.tree_util.keystr(path)} is not finite; "
                    "give finite bounds, or map the parameters"
                )


def check_key(who: str, method: Any, key: Any) -> None:
    """Raise if a method draws random numbers and has no key, or what is given is no key."""
    if key is None:
        if isinstance(method, Solver) and method.needs_key:
            raise ValueError(f"{who}: {method.factory.spec.name} draws random numbers; give key=jax.random.key(0)")
        return
    is_raw = isinstance(key, jax.Array) and key.dtype == np.uint32 and key.ndim == 1
    if not (is_raw or tree.is_random_key(key) and key.ndim == 0):
        raise TypeError(f"{who}: key must be one random key, such as jax.random.key(0), got {describe(key)}")


def floating(who: str, start: Any) -> Any:
    """The start as strong floating arrays: ints become floats, 16-bit floats become float32."""

    def array(leaf):
        if isinstance(leaf, (int, float, complex, np.generic, np.ndarray, jax.Array)) and not isinstance(leaf, bool):
            leaf = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
            leaf = leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf
            return tree.cast(leaf, tree.compute_dtype(leaf.dtype))
        return leaf

    params = jax.tree.map(array, start)
    check_params(who, params)
    if not jax.tree.leaves(params):
        raise ValueError(f"{who}: start holds no parameters, got {describe(start)}")
    return params


def check_arrays(who: str, name: str, given: Any) -> None:
    """Raise a TypeError that names the first leaf that is neither a number nor an array."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(given):
        if not isinstance(leaf, (bool, int, float, complex, np.generic, np.ndarray, jax.Array)) or (
            isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind in "OSU"
        ):
            raise TypeError(
                f"{who}: {name}{jax.tree_util.keystr(path)} must be a number or an array, got {describe(leaf)}; the "
                "function may close over other things"
            )


def as_bounds(who: str, bounds: Any, params: Any) -> tuple[Any, Any]:
    """Lower and upper bounds as trees of arrays like params, or (None, None)."""
    if bounds is None:
        return None, None
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise ValueError(f"{who}: bounds must be one pair (lower, upper) for all parameters, got {describe(bounds)}")
    lower, upper = (
        _bound(who, name, bound, params, infinite)
        for name, bound, infinite in zip(("lower", "upper"), bounds, (-np.inf, np.inf), strict=True)
    )
    for (path, low), high in zip(jax.tree_util.tree_leaves_with_path(lower), jax.tree.leaves(upper), strict=True):
        if cross(low, high):
            raise ValueError(f"{who}: the lower bound{jax.tree_util.keystr(path)} must not exceed the upper one")
    return lower, upper


def _bound(who: str, name: str, bound: Any, params: Any, infinite: float) -> Any:
    leaves, structure = jax.tree.flatten(params)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    if bound is None or (np.ndim(bound) == 0 and not isinstance(bound, (dict, list, tuple))):
        bounds = [bound] * len(leaves)
    else:
        try:
            bounds = structure.flatten_up_to(bound)
        except (ValueError, TypeError):
            difference = structure_difference(bound, params, f"the {name} bound", "start")
            raise ValueError(f"{who}: bounds must be trees like the start, but {difference}") from None
    filled = []
    for path, leaf, given in zip(paths, leaves, bounds, strict=True):
        if jnp.iscomplexobj(leaf):
            raise ValueError(f"{who}: start{path} is complex, which has no bounds")
        given = infinite if given is None else given
        if not isinstance(given, (int, float, np.generic, np.ndarray, jax.Array)) or isinstance(given, bool):
            raise TypeError(f"{who}: the {name} bound{path} must be a number or an array, got {describe(given)}")
        if np.shape(given) not in ((), leaf.shape):
            raise ValueError(
                f"{who}: the {name} bound{path} has shape {np.shape(given)}, start{path} has shape {leaf.shape}"
            )
        filled.append(jnp.broadcast_to(jnp.asarray(given, leaf.dtype), leaf.shape))
    return structure.unflatten(filled)


def check_result(who: str, kind: str, function: Any, has_aux: bool, params: Any) -> None:
    """Raise unless the function returns what a problem of a kind needs."""
    result = jax.tree.unflatten(function.structures[1], [v.aval for v in function.jaxpr.outvars])
    if has_aux:
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(f"{who}: with has_aux=True the function must return a pair, got {_described(result)}")
        result = result[0]
    got, leaves = _described(result), jax.tree.leaves(result)
    is_pair = isinstance(result, tuple) and len(result) == 2 and not has_aux
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves):
        raise TypeError(f"{who}: the function must return floating numbers, got {got}{is_pair * _AUX}")
    if kind == "minimize":
        if len(leaves) != 1 or leaves[0].shape != () or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
            raise TypeError(
                f"{who}: the function must return a real scalar, got {got}; sum or average it, use jo.least_squares "
                f"for residuals, or jax.vmap or jo.minimize_batch for many starts{is_pair * _AUX}"
            )
    elif kind == "fixed_point":
        difference = structure_difference(result, params, "g(params)", "params")
        for leaf, param in zip(leaves, jax.tree.leaves(params), strict=not difference):
            if leaf.shape != param.shape:
                difference = difference or f"g(params) has a leaf of shape {leaf.shape} for one of shape {param.shape}"
            if jnp.iscomplexobj(leaf) and not jnp.iscomplexobj(param):
                difference = difference or "g(params) has a complex leaf for a real one; start from a complex number"
        if difference:
            raise ValueError(f"{who}: g must return a tree like params: {difference}{is_pair * _AUX}")
    elif kind in ("root", "bracket"):
        equations, unknowns = (
            sum(x.size * (1 + jnp.iscomplexobj(x)) for x in jax.tree.leaves(t)) for t in (result, params)
        )
        if equations != unknowns or (kind == "bracket" and unknowns != 1):
            wanted = "one equation in one unknown" if kind == "bracket" else "as many equations as unknowns"
            raise ValueError(
                f"{who}: needs {wanted}, got {equations} equations and {unknowns} unknowns; jo.least_squares takes any "
                f"number, jax.vmap many problems{is_pair * _AUX}"
            )


_AUX = "; give has_aux=True where it returns a pair (result, aux)"


def _described(result: Any) -> str:
    leaves = jax.tree.leaves(result)
    shapes = ", ".join(f"shape {x.shape} and dtype {x.dtype}" for x in leaves[:3])
    return shapes if len(leaves) == 1 else f"{len(leaves)} arrays ({shapes}{', ...' * (len(leaves) > 3)})"


def resumed(who: str, ready: Ready, state: Any) -> SolveState:
    """The state of an earlier solve, checked; one that was interrupted is running again."""
    if not isinstance(state, SolveState):
        raise WrongTypeError(f"{who}: state must be the `state` of a solution, got {describe(state)}")
    expected = jax.eval_shape(lambda: begin_program(ready.problem, ready.given, ready.params))
    difference = structure_difference(state, expected, "state", "a new solve")
    difference = difference or leaf_difference(state, expected, "state", "a new solve")
    if difference:
        raise ValueError(f"{who}: the state is not of this problem and method: {difference}")
    is_open = state.status == Status.INTERRUPTED
    return state._replace(status=jnp.where(is_open, jnp.int32(Status.RUNNING), state.status))


def is_given(constraints: Any) -> bool:
    """Whether there are any constraints."""
    return constraints is not None and not (isinstance(constraints, (tuple, list)) and len(constraints) == 0)


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is traced, or what is computed of them would be."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees)) or is_tracing()
