"""A problem to be solved: what it is, which is static and the key of the compiled program, and its numbers.

The user's function stands in it as text, see `core.traced`, so two problems of equal text share one program.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite.core.method import Interval, Objective, Quadratic
from jaxopt_lite.core.traced import Function
from jaxopt_lite.core.vectors import from_vector, to_vector
from jaxopt_lite.solvers.robust import rho

__all__ = ["Bounded", "Constraint", "Given", "Problem", "multipliers_of", "objective_of"]


@dataclasses.dataclass(frozen=True)
class Constraint:
    """The static part of constraints.

    Attributes:
        kind: "eq" (c = 0), "ineq" (c >= 0) or "interval" (lower <= c <= upper).
        function: c, (params, *args) -> a tree of real arrays.
    """

    kind: str
    function: Function

    @property
    def zeros(self) -> Any:
        """A tree of zeros like the result of c."""
        leaves = [jnp.zeros(v.aval.shape, v.aval.dtype) for v in self.function.jaxpr.outvars]
        return jax.tree.unflatten(self.function.structures[1], leaves)


class Bounded(NamedTuple):
    """The numbers of constraints.

    Attributes:
        captured: the arrays that the function captured.
        args: its further arguments.
        lower: of "interval" the lower bounds [m], else None.
        upper: of "interval" the upper bounds [m], else None.
    """

    captured: Any
    args: tuple
    lower: Any = None
    upper: Any = None


@dataclasses.dataclass(frozen=True)
class Problem:
    """The static part of a problem.

    Attributes:
        kind: what is solved: "minimize", "least_squares", "root", "fixed_point", "bracket" or "quadratic_program".
        function: f, residual, or the map of a fixed point: (params, *args) -> a tree, or (tree, aux).
        has_aux: whether it returns a pair.
        loss: of least squares, a name or a function.
        differentiate: how the solution is differentiated: "implicit", "unrolled" or "none".
        unrolled_steps: the number of steps of an unrolled solve, else 0.
        constraints: each a `Constraint`.
    """

    kind: str
    function: Function
    has_aux: bool
    loss: Any = "linear"
    differentiate: str = "implicit"
    unrolled_steps: int = 0
    constraints: tuple[Constraint, ...] = ()

    @property
    def is_constrained(self) -> bool:
        """Whether its solutions have multipliers."""
        return bool(self.constraints) or self.kind == "quadratic_program"


class Given(NamedTuple):
    """The numbers of a problem, all traced.

    Attributes:
        method: a solver or a transformation.
        captured: the arrays that the function captured.
        args: its further arguments.
        lower: lower bounds, a tree like params, or None.
        upper: upper bounds, likewise.
        tol: the tolerance.
        f_scale: the residual from which on a robust loss grows slower than the square.
        key: a random key or None.
        constraints: for each of the problem's constraints a `Bounded`.
    """

    method: Any
    captured: Any
    args: tuple
    lower: Any
    upper: Any
    tol: Any
    f_scale: Any
    key: Any
    constraints: Any = ()


def objective_of(problem: Problem, given: Given) -> Objective:
    """The objective of a problem, within a trace."""

    def function(params):
        return problem.function(given.captured, params, *given.args)

    def step(params):  # g(x) - x
        result = function(params)
        image, aux = result if problem.has_aux else (result, None)
        return jax.tree.map(lambda g, x: g.astype(x.dtype) - x, image, params), aux

    common: Any = {"tol": given.tol, "lower": given.lower, "upper": given.upper, "key": given.key}
    if problem.kind == "quadratic_program":
        p, q, a, lower, upper = given.args
        parts = Quadratic((p + p.T) / 2, q, a, lower, upper)
        interval = lambda x: Interval(a @ x, lower, upper)
        return Objective(function, constraints=interval, quadratic=parts, **common)
    if problem.constraints:
        common["constraints"] = lambda params: _interval(problem, given, params)
    if problem.kind == "minimize":
        return Objective(function, has_aux=problem.has_aux, **common)
    if problem.kind == "fixed_point":
        return Objective(residual=step, has_aux=True, **common)
    return Objective(residual=function, rho=rho(problem.loss, given.f_scale), has_aux=problem.has_aux, **common)


def _interval(problem: Problem, given: Given, params: Any) -> Interval:
    """All constraints as one `Interval`."""
    parts = []
    for constraint, numbers in zip(problem.constraints, given.constraints, strict=True):
        c = to_vector(constraint.function(numbers.captured, params, *numbers.args))
        lower, upper = jnp.zeros_like(c), jnp.full_like(c, 0 if constraint.kind == "eq" else jnp.inf)
        if constraint.kind == "interval":
            lower, upper = (jnp.broadcast_to(b, c.shape).astype(c.dtype) for b in (numbers.lower, numbers.upper))
        parts.append(Interval(c, lower, upper))
    return Interval(*(jnp.concatenate(vectors) for vectors in zip(*parts, strict=True)))


def multipliers_of(problem: Problem, vector: jax.Array | None) -> Any:
    """The multipliers from their vector: for each constraint a tree like its values; of a quadratic program itself."""
    if vector is None or not problem.constraints:
        return vector
    trees, start = [], 0
    for like in (constraint.zeros for constraint in problem.constraints):
        size = sum(leaf.size for leaf in jax.tree.leaves(like))
        trees.append(from_vector(vector[start : start + size], like))
        start += size
    return tuple(trees)
