"""Running a method on an objective until it ends: a compiled loop over `advance`, and the solution that it returns.

A solver ends by its own status. A transformation has no status, so the loop tests the gradient, and keeps the
parameters at which it was measured.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Objective, Solver, Status, advance

__all__ = ["Solution", "SolveState", "begin", "run", "solution_of"]


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
    data_fields=["params", "value", "aux", "grad_norm", "status", "steps", "evaluations", "state"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, repr=False)
class Solution:
    """The result of a solve. Under vmap every leaf has a leading axis.

    Attributes:
        params: the solution, or the last point.
        value: the objective there, a scalar.
        aux: what the objective returned beside it, None without `has_aux`.
        grad_norm: the norm of the gradient there, a scalar.
        status: int32, a `Status`.
        steps: int32, steps of the method.
        evaluations: int32, evaluations of the objective.
        state: for `minimize(..., state=solution.state)`, which resumes the solve.
    """

    params: Any
    value: Any
    aux: Any
    grad_norm: Any
    status: Any
    steps: Any
    evaluations: Any
    state: SolveState

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

    def __repr__(self) -> str:
        if isinstance(self.status, Tracer) or np.ndim(self.status):
            return f"Solution(of shape {np.shape(self.status)})"
        name = Status(int(self.status)).name.lower()
        return (
            f"Solution({name}, value {float(self.value):.6g}, grad_norm {float(self.grad_norm):.2g}, "
            f"{int(self.steps)} steps, {int(self.evaluations)} evaluations)"
        )


def begin(method: Any, objective: Objective, params: Any) -> SolveState:
    """The initial state of a solve. The objective is not evaluated."""
    params = jax.tree.map(jnp.asarray, params)
    method_state = method.init(objective, params) if isinstance(method, Solver) else method.init(params)
    shapes = jax.eval_shape(functools.partial(advance, method, objective), params, method_state)[2]
    info = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    zero, count = jnp.zeros([], info.value.dtype), jnp.zeros([], jnp.int32)
    return SolveState(params, method_state, params, info, zero, count, count, count)


def run(method: Any, objective: Objective, state: SolveState, max_steps: Any) -> SolveState:
    """Advance until the solve ends, or has taken `max_steps` steps in all (then its status is still RUNNING)."""

    def is_running(state):
        return (state.status == Status.RUNNING) & (state.steps < max_steps)

    def step(state):
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

    return jax.lax.while_loop(is_running, step, state)


def solution_of(state: SolveState) -> Solution:
    """The solution that a state holds; its status is MAX_STEPS if the solve has not ended."""
    info = state.info
    return Solution(
        state.measured,
        info.value,
        info.aux,
        tree.global_norm(info.grads),
        jnp.where(state.status == Status.RUNNING, Status.MAX_STEPS, state.status).astype(jnp.int32),
        state.steps,
        state.evaluations,
        state,
    )


@functools.partial(jax.jit, static_argnames=("f", "has_aux"))
def begin_program(f: Callable, has_aux: bool, method: Any, args: tuple, tol: Any, key: Any, params: Any) -> SolveState:
    """`begin`, compiled once for each function object, static part and shapes."""
    return begin(method, _objective(f, has_aux, args, tol, key), params)


@functools.partial(jax.jit, static_argnames=("f", "has_aux"))
def run_program(
    f: Callable, has_aux: bool, method: Any, args: tuple, tol: Any, key: Any, state: SolveState, max_steps: Any
) -> SolveState:
    """`run`, compiled once for each function object, static part and shapes; the rest is traced."""
    return run(method, _objective(f, has_aux, args, tol, key), state, max_steps)


@functools.partial(jax.jit, static_argnames=("f", "has_aux"))
def solve_program(
    f: Callable, has_aux: bool, method: Any, args: tuple, tol: Any, key: Any, params: Any, max_steps: Any
) -> Solution:
    """A whole solve as one program."""
    objective = _objective(f, has_aux, args, tol, key)
    return solution_of(run(method, objective, begin(method, objective, params), max_steps))


def _objective(f, has_aux, args, tol, key):
    return Objective(lambda params: f(params, *args), has_aux=has_aux, tol=tol, key=key)
