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

    def at(self, given: Given, lanes: Any) -> Given:
        """The numbers of some lanes."""
        leaves, structure = jax.tree.flatten(given.args)
        args = [_at(leaf, axis, lanes) for leaf, axis in zip(leaves, self.args, strict=True)]
        lower, upper = (_at(bound, self.bounds, lanes) for bound in (given.lower, given.upper))
        key = _at(given.key, self.key, lanes)
        return given._replace(args=structure.unflatten(args), lower=lower, upper=upper, key=key)


def _at(tree: Any, axis: int | None, lanes: Any) -> Any:
    return tree if axis is None else jax.tree.map(lambda x: x[lanes], tree)


@functools.partial(jax.jit, static_argnums=(0, 1))
def solve_batch(problem: Problem, axes: Axes, given: Given, starts: Any, max_steps: Any) -> Solution:
    """`solve` for each lane, as one program."""
    one = lambda given, start: solve(problem, given, start, None, max_steps)
    return jax.vmap(one, in_axes=(axes.of(given), 0))(given, starts)


@functools.partial(jax.jit, static_argnums=(0, 3))
def divided(axes: Axes, given: Given, starts: Any, parts: int) -> list[tuple[Given, Any]]:
    """The numbers and starts of parts of equal width; the last lane is repeated to fill up the last part."""
    n = len(jax.tree.leaves(starts)[0])
    lanes = np.minimum(np.arange(parts * -(-n // parts)), n - 1).reshape(parts, -1)
    return [(axes.at(given, some), _at(starts, 0, some)) for some in lanes]


@functools.partial(jax.jit, static_argnums=0)
def joined(n: int, solutions: list[Solution]) -> Solution:
    """The solutions of n lanes from those of their parts."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:n], *solutions)


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
    one = lambda given, state: run_program(problem, False)(problem, given, state, jnp.minimum(state.steps + more, last))
    moved = jax.vmap(one, in_axes=(axes.of(given), 0))(axes.at(given, lanes), _at(states, 0, lanes))
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
