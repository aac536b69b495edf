"""Many solves of one problem in one program: `vmap` over starts, and gathering the lanes that have not ended.

A step of a solver is one evaluation, so lanes wait for no other lane's line search. A batch still runs until its last
lane ends. Gathering moves the unfinished lanes into a batch of half the width, as often as they fit there, so fewer
evaluations are made for lanes that have ended; each width is a program of its own.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.method import Status
from jaxopt_lite.solve.implicit import begin_program, run_program, solve
from jaxopt_lite.solve.problem import Given, Problem
from jaxopt_lite.solve.solution import Solution, SolveState, solution_of

__all__ = []


class Axes(NamedTuple):
    """Which numbers of a problem differ from lane to lane: for each leaf 0 or None, hashable."""

    args: tuple
    bounds: int | None
    key: int | None

    def of(self, given: Given) -> Given:
        """As `in_axes` for the numbers of a problem."""
        args = jax.tree.unflatten(jax.tree.structure(given.args), self.args)
        bounds = None if given.lower is None else self.bounds
        return Given(None, None, args, bounds, bounds, None, None, None if given.key is None else self.key, None)


@functools.partial(jax.jit, static_argnums=(0, 1))
def solve_batch(problem: Problem, axes: Axes, given: Given, starts: Any, max_steps: Any) -> Solution:
    """`solve` for each lane, as one program."""
    one = lambda given, start: solve(problem, given, start, None, max_steps)
    return jax.vmap(one, in_axes=(axes.of(given), 0))(given, starts)


@functools.partial(jax.jit, static_argnums=(0, 1))
def begin_batch(problem: Problem, axes: Axes, given: Given, starts: Any) -> SolveState:
    """The initial states of all lanes."""
    one = lambda given, start: begin_program(problem, given, start)
    return jax.vmap(one, in_axes=(axes.of(given), 0))(given, starts)


@functools.partial(jax.jit, static_argnums=(0, 1))
def run_lanes(
    problem: Problem, axes: Axes, given: Given, states: SolveState, lanes: jax.Array, more: Any, last: Any
) -> tuple[SolveState, jax.Array]:
    """Advance some lanes by up to `more` steps each.

    Args:
        problem: the static part.
        axes: of the numbers.
        given: of all lanes.
        states: of all lanes.
        lanes: int32 [width], the lanes to advance; one may stand there twice.
        more: the number of steps, traced.
        last: the number of steps of a whole solve, traced.

    Returns:
        The states of all lanes, and for each whether it is still running.
    """
    pick = lambda tree, axis: jax.tree.map(lambda x: x[lanes], tree) if axis == 0 else tree
    in_axes = axes.of(given)
    args = [pick(*pair) for pair in zip(jax.tree.leaves(given.args), axes.args, strict=True)]
    some = given._replace(
        args=jax.tree.unflatten(jax.tree.structure(given.args), args),
        lower=pick(given.lower, in_axes.lower),
        upper=pick(given.upper, in_axes.upper),
        key=pick(given.key, in_axes.key),
    )
    one = lambda given, state: run_program(problem, False)(problem, given, state, jnp.minimum(state.steps + more, last))
    moved = jax.vmap(one, in_axes=(in_axes, 0))(some, pick(states, 0))
    states = jax.tree.map(lambda old, new: old.at[lanes].set(new), states, moved)
    return states, (states.status == Status.RUNNING) & (states.steps < last)


def narrowed(running: np.ndarray, width: int, least: int) -> np.ndarray:
    """The lanes of the next round: all that run, filled up to half the width as often as they fit there.

    Filling repeats a lane that runs: it is advanced twice, to the same numbers.
    """
    lanes = np.flatnonzero(running).astype(np.int32)
    while width > least and len(lanes) <= width // 2:
        width //= 2
    return np.concatenate([lanes, np.full(width - len(lanes), lanes[0], np.int32)])


def solutions_of(states: SolveState, problem: Problem) -> Solution:
    """The solutions of all lanes."""
    return jax.vmap(lambda state: solution_of(state, problem))(states)
