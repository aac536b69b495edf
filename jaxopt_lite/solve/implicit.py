"""Solutions as functions of the numbers of their problem: derivatives by the implicit function theorem.

A solution x(θ) satisfies G(x, θ) = 0: the gradient, the residuals of equations, or g(x) - x of a fixed point. So

    ∂G/∂x dx = -∂G/∂θ dθ          Blondel et al., 2022, arXiv:2105.15183, Eq. (2)

The linear system is solved by conjugate gradients where it is symmetric and positive semi-definite, else by the
pseudo-inverse, or for many unknowns by LSMR, both of which need only products with the matrix. Parameters on a bound
move with the bound, and the others by the rows of the system that are left. With constraints x stands for parameters
and multipliers.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.compiler import many_scalars
from jaxopt_lite.core.method import Objective, Solver
from jaxopt_lite.core.vectors import from_vector, to_vector
from jaxopt_lite.solve.problem import Given, Problem, objective_of
from jaxopt_lite.solve.solution import MINIMA, Solution, SolveState, begin, run, run_unrolled, solution_of, step
from jaxopt_lite.solvers.krylov import cg, lsmr

__all__ = ["implicit_tangent", "solve", "zero_tangents"]

DENSE = 300  # the largest number of unknowns for which the matrix of a system that is not symmetric is formed
KRYLOV_STEPS = 10  # products with the matrix, in multiples of the number of unknowns


def solve(problem: Problem, given: Given, start: Any, state: SolveState | None, max_steps: Any) -> Solution:
    """Solve a problem from a start, or from the state of an earlier solve, within a trace.

    The solution is differentiable with respect to args, captured arrays and bounds, in the problem's way.
    """
    if problem.differentiate == "unrolled":
        objective = objective_of(problem, given)
        state = begin(given.method, objective, start) if state is None else state
        state = run_unrolled(given.method, objective, state, max_steps, problem.unrolled_steps)
        return solution_of(state, problem)
    fixed, start, state = jax.tree.map(jax.lax.stop_gradient, (given, start, state))
    objective = objective_of(problem, fixed)
    state = begin(fixed.method, objective, start) if state is None else state
    return differentiable(problem, given, solution_of(run(fixed.method, objective, state, max_steps), problem))


def differentiable(problem: Problem, given: Given, solution: Solution) -> Solution:
    """A solution, however it was found, as a function of the numbers of its problem."""
    return solution if problem.differentiate == "none" else _implicit(problem, given, solution)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _implicit(problem: Problem, given: Given, solution: Solution) -> Solution:
    del problem, given
    return solution


@_implicit.defjvp
def _(problem, primals, tangents):
    given, tangent = primals[0], tangents[0]
    solution = _implicit(problem, *primals)
    params, is_equation = solution.params, problem.kind in ("root", "fixed_point", "bracket")
    own = given.method.optimality if isinstance(given.method, Solver) else None
    is_gradient = own is None and not is_equation

    def optimality(x, numbers):  # G
        here = _with(given, numbers)
        objective = objective_of(problem, here)
        if own is not None:
            return to_vector(here.method.optimality(objective, x))
        return to_vector(objective.residual(x)[0] if is_equation else objective.value_and_grad(x)[2])

    numbers, d_numbers = _numbers(given, own is not None), _numbers(tangent, own is not None)
    moved, d_multipliers = _moved_bounds(params, given, tangent) if is_gradient else None, None
    if problem.is_constrained:
        d_params, d_multipliers = _constrained_tangent(problem, given, solution, numbers, d_numbers, moved)
    else:
        d_params = implicit_tangent(optimality, params, numbers, d_numbers, moved, symmetric=is_gradient)

    def measured(x, numbers):
        here = _with(given, numbers)
        objective = objective_of(problem, here)
        value, aux = objective.value(x)
        if isinstance(here.method, Solver) and here.method.penalty is not None:
            value = value + here.method.penalty(objective, x)
        return (value, None, aux) if problem.kind in MINIMA else (value, *aux)

    d_value, d_residuals, d_aux = jax.jvp(measured, (params, numbers), (d_params, d_numbers))[1]
    zeros = zero_tangents(solution)
    return solution, Solution(
        *(d_params, d_value, d_aux, d_residuals, zeros.grad_norm, zeros.status, zeros.steps, zeros.evaluations),
        *(zeros.state, zeros.factor, zeros.variance, d_multipliers, zeros.violation),
    )


def _numbers(given: Given, all_of_them: bool) -> dict[str, Any]:
    """What a solution depends on; with `all_of_them` also the method's numbers and the bounds."""
    names = ("captured", "args", "f_scale", "constraints", *(("method", "lower", "upper") if all_of_them else ()))
    return {name: getattr(given, name) for name in names}


def _with(given: Given, numbers: dict[str, Any]) -> Given:
    return given._replace(**numbers)


def _moved_bounds(params: Any, given: Given, tangent: Given) -> tuple[jax.Array, jax.Array] | None:
    """Which parameters stand on a bound, and the tangents of these bounds, as vectors."""
    if given.lower is None:
        return None
    x, low, high = to_vector(params), to_vector(given.lower), to_vector(given.upper)
    d_low, d_high = to_vector(tangent.lower), to_vector(tangent.upper)
    on = (x <= low) | (x >= high)
    return on, jnp.where(on, jnp.where(x <= low, d_low, d_high), 0)


def _constrained_tangent(
    problem: Problem, given: Given, solution: Solution, numbers: Any, tangent: Any, moved: Any
) -> tuple[Any, Any]:
    """The tangents of params and multipliers, by the conditions of first order for the active constraints.

    ∇f - Σ λᵢ ∇cᵢ = 0,    cᵢ = its bound where active,    λᵢ = 0 elsewhere
    """
    constraints: Any = objective_of(problem, given).constraints
    interval = constraints(solution.params)
    multipliers = to_vector(solution.multipliers)
    active = jax.lax.stop_gradient((multipliers != 0) | (interval.lower == interval.upper))
    is_upper = jax.lax.stop_gradient(multipliers < 0)

    def optimality(point, numbers):
        params, multipliers = point[0], to_vector(point[1])
        objective = objective_of(problem, _with(given, numbers))
        constraints: Any = objective.constraints

        def lagrangian(params):
            c = constraints(params).values
            return objective.value(params)[0] - jnp.sum(jnp.where(active, multipliers * c, 0))

        values, lower, upper = constraints(params)
        bound = jnp.where(active, jnp.where(is_upper, upper, lower), 0)
        grads = Objective(lagrangian).value_and_grad(params)[2]
        return to_vector((grads, jnp.where(active, bound - values, -multipliers)))

    point = solution.params, solution.multipliers
    if moved is not None:
        moved = tuple(jnp.concatenate([a, jnp.zeros(multipliers.size, a.dtype)]) for a in moved)
    return implicit_tangent(optimality, point, numbers, tangent, moved, symmetric=False)


def implicit_tangent(
    optimality: Callable, params: Any, numbers: Any, tangent: Any, moved: Any = None, *, symmetric: bool
) -> Any:
    """The tangent of params with G(params, numbers) = 0, a tree like params.

    Args:
        optimality: G, (params, numbers) -> a vector [n] for n parameters.
        params: the solution.
        numbers: a pytree.
        tangent: of the numbers.
        moved: None, or the parameters that do not obey G but move as told: bools [n], and their tangents [n].
        symmetric: whether ∂G/∂params is symmetric and positive semi-definite.
    """
    x = to_vector(params)
    fixed, d_fixed = (jnp.zeros(x.shape, bool), jnp.zeros_like(x)) if moved is None else moved
    at = lambda x: optimality(from_vector(x, params), numbers)
    if symmetric:
        matvec = lambda v: jax.jvp(at, (x,), (v,))[1]
    else:
        # Linearized once: the steps of LSMR do not evaluate G again. And what the product does not depend on is not
        # among its constants, where JAX's rule for second derivatives stumbles over it (0.10.2: a symbolic zero).
        matvec = jax.linearize(at, x)[1]
    right = -jax.jvp(lambda numbers: optimality(params, numbers), (numbers,), (tangent,))[1]
    free = lambda v: jnp.where(fixed, 0, v)
    if moved is not None:
        right = right - matvec(d_fixed)

    def operator(v):
        return jnp.where(fixed, v, matvec(free(v)))

    if symmetric:
        operator_or_free = lambda v: jnp.where(fixed, v, free(matvec(free(v))))
        return from_vector(_solve_symmetric(operator_or_free, free(right)) + d_fixed, params)
    return from_vector(_solve_square(operator, free(right)) + d_fixed, params)


def _solve_symmetric(matvec: Callable, b: jax.Array) -> jax.Array:
    tol, steps = jnp.finfo(b.dtype).eps, KRYLOV_STEPS * max(b.size, 10)
    inverse = lambda matvec, b: cg(matvec, b, tol=tol, max_steps=steps)
    return jax.lax.custom_linear_solve(matvec, b, inverse, symmetric=True)


def _solve_square(matvec: Callable, b: jax.Array) -> jax.Array:
    tol, steps = jnp.finfo(b.dtype).eps, KRYLOV_STEPS * max(b.size, 10)

    def inverse(matvec, b):
        if b.size <= DENSE:
            matrix = jax.vmap(matvec, out_axes=1)(jnp.eye(b.size, dtype=b.dtype))
            return jnp.linalg.pinv(matrix, rtol=10 * b.size * tol) @ b
        transposed = jax.linear_transpose(matvec, b)
        return lsmr(matvec, lambda u: transposed(u)[0], b, b, tol=tol, max_steps=steps)

    return jax.lax.custom_linear_solve(matvec, b, inverse, inverse)


def zero_tangents(primals: Any) -> Any:
    """Tangents of zero for a pytree: of the leaf's dtype for floats, of JAX's float0 for others."""

    def zero(x):
        is_float = jnp.issubdtype(x.dtype, jnp.inexact)
        return jnp.zeros_like(x) if is_float else np.zeros(x.shape, jax.dtypes.float0)

    return jax.tree.map(zero, primals)


def solve_program(problem: Problem, alone: bool) -> Callable[..., Solution]:
    """`solve` as a program, compiled once for each problem, method and shapes.

    Args:
        problem: what it is called with.
        alone: whether it is called outside of all traces, where the compiler takes options.
    """
    return _program(solve, alone, _is_tiny(problem))


@functools.partial(jax.jit, static_argnums=0)
def begin_program(problem: Problem, given: Given, start: Any) -> SolveState:
    """`begin` as a program, compiled once for each problem, method and shapes."""
    return begin(given.method, objective_of(problem, given), start)


def _run(problem: Problem, given: Given, state: SolveState, max_steps: Any) -> SolveState:
    return run(given.method, objective_of(problem, given), state, max_steps)


def run_program(problem: Problem) -> Callable[..., SolveState]:
    """`run` as a program, as `solve_program`, to be called outside of all traces."""
    return _program(_run, True, _is_tiny(problem))


@functools.partial(jax.jit, static_argnums=0)
def step_program(problem: Problem, given: Given, state: SolveState, max_steps: Any) -> SolveState:
    """`step` as a program, traced once for batches of all widths."""
    return step(given.method, objective_of(problem, given), state, max_steps)


def _is_tiny(problem: Problem) -> bool:
    return all(function.is_tiny for function in (problem.function, *(c.function for c in problem.constraints)))


@functools.cache
def _program(function: Callable, alone: bool, is_tiny: bool) -> Callable:
    return jax.jit(function, static_argnums=0, compiler_options=many_scalars(is_tiny) if alone else None)
