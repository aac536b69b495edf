"""Implicit derivatives for solvers of others, from the equation that their solutions satisfy."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.traced import traced
from jaxopt_lite.core.vectors import to_vector
from jaxopt_lite.solve.implicit import implicit_tangent, zero_tangents

__all__ = ["custom_fixed_point", "custom_root"]


def custom_root(
    equation: Callable, *, has_aux: bool = False, symmetric: bool = False
) -> Callable[[Callable], Callable]:
    """Give a solver that satisfies equation(params, *args) = 0 derivatives by the implicit function theorem.

    A decorator of solve(start, *args) -> params. The decorated function is differentiable with respect to args,
    forward, in reverse and to higher order, however it computes; its derivative with respect to the start is zero.
    What the equation closes over is differentiated too; the solver must take what is differentiated from its
    arguments. The solver may be anything; one that needs concrete numbers, such as SciPy's, runs outside `jit` only.

    Args:
        equation: G, (params, *args) -> a tree of as many numbers as params: zero at a solution. The gradient of the
            objective, for a minimum.
        has_aux: whether the solver returns (params, anything); what is beside params has derivatives of zero.
        symmetric: whether ∂G/∂params is symmetric and positive semi-definite, as of a minimum: then the linear systems
            are solved by conjugate gradients, else by LSMR.

    Raises:
        TypeError: if the equation or the solver is not callable.

    Reference: Blondel et al., "Efficient and Modular Implicit Differentiation", 2022, arXiv:2105.15183, Eq. (2).

    >>> @custom_root(lambda x, a: x**2 - a)
    ... def square_root(start, a):
    ...     return jnp.sqrt(a)
    >>> float(jax.grad(square_root, argnums=1)(1.0, 4.0))
    0.25
    """
    return _decorator("custom_root", equation, lambda result, params: result, has_aux, symmetric)


def custom_fixed_point(g: Callable, *, has_aux: bool = False) -> Callable[[Callable], Callable]:
    """Give a solver that satisfies g(params, *args) = params derivatives by the implicit function theorem.

    Args:
        g: the map, (params, *args) -> a tree like params.
        has_aux: as for `custom_root`.

    Raises:
        TypeError: if the map or the solver is not callable.

    Reference: as for `custom_root`.

    >>> @custom_fixed_point(lambda x, a: (x + a / x) / 2)
    ... def square_root(start, a):
    ...     return jnp.sqrt(a)
    >>> float(jax.grad(square_root, argnums=1)(1.0, 4.0))
    0.25
    """
    minus = lambda result, params: jax.tree.map(jnp.subtract, result, params)
    return _decorator("custom_fixed_point", g, minus, has_aux, False)


def _decorator(who: str, function: Any, optimality: Callable, has_aux: bool, symmetric: bool) -> Callable:
    if not callable(function):
        raise TypeError(f"{who} takes a function (params, *args), got {describe(function)}")

    def decorate(solver: Callable) -> Callable:
        if not callable(solver):
            raise TypeError(f"{who} decorates a function (start, *args), got {describe(solver)}")

        @functools.wraps(solver)
        def solve(start, *args):
            text, captured = traced(function, start, *args)

            @jax.custom_jvp
            def run(start, args, captured):
                return solver(start, *args)

            @run.defjvp
            def rule(primals, tangents):
                result = run(*primals)
                params = result[0] if has_aux else result

                def equation(x, numbers):
                    args, captured = numbers
                    value = text(captured, x, *args)
                    return to_vector(optimality(value, x))

                tangent = implicit_tangent(equation, params, primals[1:], tangents[1:], symmetric=symmetric)
                return result, (tangent, zero_tangents(result[1])) if has_aux else tangent

            return run(jax.tree.map(jnp.asarray, start), args, captured)

        return solve

    return decorate
