"""A problem to be solved: what it is, which is static and the key of the compiled program, and its numbers.

The user's function stands in it as text, see `core.traced`, so two problems of equal text share one program.
"""

import dataclasses
from typing import Any, NamedTuple

import jax

from jaxopt_lite.core.method import Objective
from jaxopt_lite.core.traced import Function
from jaxopt_lite.solvers.robust import rho

__all__ = ["Given", "Problem", "objective_of"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """The static part of a problem.

    Attributes:
        kind: what is solved: "minimize", "least_squares", "root", "fixed_point" or "bracket".
        function: f, residual, or the map of a fixed point: (params, *args) -> a tree, or (tree, aux).
        has_aux: whether it returns a pair.
        loss: of least squares, a name or a function.
        differentiate: how the solution is differentiated: "implicit", "unrolled" or "none".
        unrolled_steps: the number of steps of an unrolled solve, else 0.
    """

    kind: str
    function: Function
    has_aux: bool
    loss: Any = "linear"
    differentiate: str = "implicit"
    unrolled_steps: int = 0


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
    """

    method: Any
    captured: Any
    args: tuple
    lower: Any
    upper: Any
    tol: Any
    f_scale: Any
    key: Any


def objective_of(problem: Problem, given: Given) -> Objective:
    """The objective of a problem, within a trace."""

    def function(params):
        return problem.function(given.captured, params, *given.args)

    def step(params):  # g(x) - x
        result = function(params)
        image, aux = result if problem.has_aux else (result, None)
        return jax.tree.map(lambda g, x: g.astype(x.dtype) - x, image, params), aux

    common: Any = {"tol": given.tol, "lower": given.lower, "upper": given.upper, "key": given.key}
    if problem.kind == "minimize":
        return Objective(function, has_aux=problem.has_aux, **common)
    if problem.kind == "fixed_point":
        return Objective(residual=step, has_aux=True, **common)
    return Objective(residual=function, rho=rho(problem.loss, given.f_scale), has_aux=problem.has_aux, **common)
