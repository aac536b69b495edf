"""Driving a solve: one program, or calls of some steps with a callback and progress."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxopt_lite.core.method import Status
from jaxopt_lite.log.progress import Progress
from jaxopt_lite.run.arguments import check_progress
from jaxopt_lite.run.problems import Ready, is_traced, resumed
from jaxopt_lite.solve.implicit import begin_program, run_program, solve_program
from jaxopt_lite.solve.solution import Solution, solution_of

__all__ = []

CALL = 20  # steps between two calls of the callback, or two updates of the progress


def drive(who: str, ready: Ready, state: Any, callback: Callable | None, progress: str) -> Solution:
    """Solve a problem that was prepared.

    Raises:
        ValueError: if callback or progress is asked for under a trace, or the state is of another problem.
    """
    check_progress(who, progress, ("none", "auto", "bar", "lines"))
    problem, given, params = ready.problem, ready.given, ready.params
    state = None if state is None else resumed(who, ready, state)
    last = ready.max_steps if state is None else state.steps + ready.max_steps
    alone = not is_traced(given, params, state)
    if callback is None and progress == "none":
        return solve_program(problem, alone)(problem, given, params, state, last)
    if not alone:
        raise ValueError(f"{who}: callback and progress run on the host, and cannot be used under jit, grad or vmap")
    state = begin_program(problem, given, params) if state is None else state
    bar = Progress(int(last), progress, ("value", "grad_norm"))
    try:
        while int(state.status) == Status.RUNNING and int(state.steps) < int(last):
            state = run_program(problem)(problem, given, state, min(int(state.steps) + CALL, int(last)))
            so_far = solution_of(state, problem)
            bar.update(int(state.steps), {"value": float(so_far.value), "grad_norm": float(so_far.grad_norm)})
            if callback is not None and callback(so_far) is True and int(state.status) == Status.RUNNING:
                state = state._replace(status=jnp.asarray(Status.INTERRUPTED, jnp.int32))
    finally:
        bar.close()
    return solution_of(state, problem)
