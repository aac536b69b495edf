"""Running a method on an objective until it ends: a loop over `advance`, and the solution that it returns.

A solver ends by its own status. A transformation has no status, so the loop tests the gradient, and keeps the
parameters at which it was measured.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Objective, Solver, Status, advance
from jaxopt_lite.solve.problem import Problem, multipliers_of
from jaxopt_lite.solvers.linear_model import covariance

__all__ = ["Solution", "SolveState", "begin", "run", "run_unrolled", "solution_of"]

MINIMA = ("minimize", "quadratic_program")  # the kinds of problems without residuals


class SolveState(NamedTuple):
    """Everything needed to resume a solve: the next parameters, the state of the method, and the last measurements.

    Attributes:
        params: the current parameters; for a transformation those after its last update, not yet evaluated.
        method_state: of the method.
        measured: the parameters that `info` is of.
        info: of the last step.
        first_norm: of the gradient at the start, a scalar.
        steps: int32.
        evaluations: int32.
        status: int32.
    """

    params: Any
    method_state: Any
    measured: Any
    info: Info
    first_norm: jax.Array
    steps: jax.Array
    evaluations: jax.Array
    status: jax.Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        *("params", "value", "aux", "residuals", "grad_norm", "status", "steps", "evaluations", "state"),
        *("factor", "variance", "multipliers", "violation"),
    ],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, repr=False)
class Solution:
    """The result of a solve. Under vmap every leaf has a leading axis.

    Attributes:
        params: the solution, or the best point found.
        value: the objective there, a scalar: of residuals r half the sum of ρ(|rᵢ|²).
        aux: what the function returned beside it, None without `has_aux`.
        residuals: of least squares and equations the residuals there, of a fixed point g(x) - x; else None.
        grad_norm: the norm of the gradient there, a scalar; of equations and fixed points that of the residuals.
        status: int32, a `Status`.
        steps: int32, steps of the method.
        evaluations: int32, evaluations of the function.
        state: for `minimize(..., state=solution.state)` and its likes, which resume the solve.
        factor: R [n, n] of J = QR at the solution of a dense method of least squares, else None.
        variance: σ² of `covariance`, a scalar: 2 value / (m - n), or 1 where the errors are known; else None.
        multipliers: λ of the constraints, with ∇f = Σ λᵢ ∇cᵢ in the parameters that stand on no bound: positive where
            a constraint holds c up (c >= 0, or its lower bound), negative at an upper bound, zero where it is not
            active. λᵢ is the derivative of the value with respect to that bound. For each of `constraints` a tree like
            what its function returns; of a quadratic program a vector [m]; else None.
        violation: the largest distance of a constraint from where it must be, a scalar; None without constraints.
    """

    params: Any
    value: Any
    aux: Any
    residuals: Any
    grad_norm: Any
    status: Any
    steps: Any
    evaluations: Any
    state: SolveState
    factor: Any = None
    variance: Any = None
    multipliers: Any = None
    violation: Any = None

    @property
    def converged(self) -> Any:
        """Whether a test of convergence was met: a bool, or an array of bools for a batch or a traced solve."""
        good = jnp.isin(self.status, jnp.array([s for s in Status if s.converged]))
        return good if isinstance(good, Tracer) or np.ndim(good) else bool(good)

    @property
    def message(self) -> Any:
        """The status in a sentence, with advice; for a batch a list of them."""
        if isinstance(self.status, Tracer):
            raise TypeError("solution.message is text, which a traced solution cannot have; use solution.status")
        codes = np.asarray(self.status)
        return Status(int(codes)).message if codes.ndim == 0 else [Status(int(code)).message for code in codes.ravel()]

    @property
    def covariance(self) -> jax.Array:
        """Of the parameters of a fit, [n, n] in the order of their leaves: σ² (JᵀJ)⁻¹, to first order.

        It is infinite for parameters that the data do not determine, and σ² is infinite without more residuals than
        parameters. It is not differentiated.

        Raises:
            ValueError: if the method keeps no Jacobian.
        """
        if self.factor is None:
            raise ValueError(
                "solution.covariance needs the Jacobian, which only dense methods of least squares keep, such as "
                "least_squares(..., method=jo.solvers.levenberg_marquardt())"
            )
        variance = jnp.asarray(self.variance)[..., None, None]
        inverse = jnp.vectorize(covariance, signature="(n,n)->(n,n)")(self.factor)
        return jnp.where(inverse == 0, 0, variance * inverse)

    def __repr__(self) -> str:
        if isinstance(self.status, Tracer) or np.ndim(self.status):
            return f"Solution(of shape {np.shape(self.status)})"
        name = Status(int(self.status)).name.lower()
        return (
            f"Solution({name}, value {float(self.value):.6g}, grad_norm {float(self.grad_norm):.2g}, "
            f"{int(self.steps)} steps, {int(self.evaluations)} evaluations)"
        )


def begin(method: Any, objective: Objective, params: Any) -> SolveState:
    """The initial state of a solve. The objective is not evaluated; a start outside the bounds is moved to them."""
    params = jax.tree.map(jnp.asarray, params)
    status = jnp.zeros([], jnp.int32)
    if objective.lower is not None:
        params = jax.tree.map(jnp.clip, params, objective.lower, objective.upper)
        crossed = jax.tree.map(lambda low, high: ~jnp.all(low <= high), objective.lower, objective.upper)
        infeasible = jnp.any(jnp.stack(jax.tree.leaves(crossed)))
        status = jnp.where(infeasible, jnp.int32(Status.INFEASIBLE), status)
        if isinstance(method, Solver) and method.needs_box:
            is_box = tree.all_finite((objective.lower, objective.upper))
            status = jnp.where(is_box, status, jnp.int32(Status.NON_FINITE))
    method_state = method.init(objective, params) if isinstance(method, Solver) else method.init(params)
    shapes = jax.eval_shape(functools.partial(advance, method, objective), params, method_state)[2]
    info = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    zero, count = jnp.zeros([], info.value.dtype), jnp.zeros([], jnp.int32)
    return SolveState(params, method_state, params, info, zero, count, count, status)


def run(method: Any, objective: Objective, state: SolveState, max_steps: Any) -> SolveState:
    """Advance until the solve ends, or has taken `max_steps` steps in all (then its status is still RUNNING)."""
    one = functools.partial(_step, method, objective)
    return jax.lax.while_loop(lambda state: is_running(state, max_steps), one, state)


def run_unrolled(method: Any, objective: Objective, state: SolveState, max_steps: Any, length: int) -> SolveState:
    """`run` as a scan of a known length, which can be differentiated in reverse; it stores every step."""

    return jax.lax.scan(lambda state, _: (step(method, objective, state, max_steps), None), state, None, length)[0]


def step(method: Any, objective: Objective, state: SolveState, max_steps: Any) -> SolveState:
    """One step of a solve that runs; one that has ended stays as it is."""
    one = functools.partial(_step, method, objective)
    return jax.lax.cond(is_running(state, max_steps), one, lambda state: state, state)


def is_running(state: SolveState, max_steps: Any) -> jax.Array:
    """Whether a solve has neither ended nor taken `max_steps` steps in all."""
    return (state.status == Status.RUNNING) & (state.steps < max_steps)


def _step(method: Any, objective: Objective, state: SolveState) -> SolveState:
    params, method_state, info = advance(method, objective, state.params, state.method_state)
    norm = tree.global_norm(info.grads).astype(info.value.dtype)
    first_norm = jnp.where(state.evaluations == 0, norm, state.first_norm)
    status, measured = info.status, params
    if not isinstance(method, Solver):
        measured = state.params
        finite = jnp.isfinite(info.value) & jnp.isfinite(norm)
        status = jnp.where(objective.converged(norm, info.value, first_norm), Status.CONVERGED_GRADIENT, status)
        status = jnp.where(finite, status, Status.NON_FINITE).astype(jnp.int32)
    return SolveState(
        *(params, tree.keep_dtypes(method_state, state.method_state), measured, info, first_norm),
        *(state.steps + 1, state.evaluations + info.evaluations, status),
    )


def solution_of(state: SolveState, problem: Problem | None = None) -> Solution:
    """The solution that a state holds; its status is MAX_STEPS if the solve has not ended.

    Args:
        state: of the solve.
        problem: what is solved; None stands for a minimization without constraints.
    """
    info, is_least = state.info, problem is None or problem.kind in MINIMA
    residuals, aux = (None, info.aux) if is_least else info.aux
    multipliers = violation = None
    if problem is not None and problem.is_constrained:
        multipliers = multipliers_of(problem, state.method_state.multipliers)
        violation = state.method_state.violation
    factor = getattr(getattr(state.method_state, "model", None), "factor", None)
    variance = None
    if factor is not None:
        free = sum(r.size * (1 + jnp.iscomplexobj(r)) for r in jax.tree.leaves(residuals)) - factor.shape[-1]
        variance = 2 * info.value / free if free > 0 else jnp.full_like(info.value, jnp.inf)
    return Solution(
        *(state.measured, info.value, aux, residuals, tree.global_norm(info.grads)),
        jnp.where(state.status == Status.RUNNING, jnp.int32(Status.MAX_STEPS), state.status),
        *(state.steps, state.evaluations, state, factor, variance, multipliers, violation),
    )
