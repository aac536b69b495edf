"""Many solves of one problem in one program: `vmap` over starts, and gathering the lanes that have not ended.

A step of a solver is one evaluation, so lanes wait for no other lane's line search. A batch still runs until its last
lane ends. Gathering moves the unfinished lanes into a batch of a quarter of the width as soon as they fit there, so
fewer evaluations are made for lanes that have ended; each width is a loop of its own in the program.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.solve.implicit import begin_program, differentiable, solve, step_program
from jaxopt_lite.solve.problem import Given, Problem
from jaxopt_lite.solve.solution import Solution, SolveState, is_running, solution_of

__all__ = []

SHRINK, LEAST = 4, 8  # how much narrower the next batch is, and lanes of the narrowest; halves compile for longer


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
        """The numbers of some lanes, or of all for None."""
        leaves, structure = jax.tree.flatten(given.args)
        args = [_at(leaf, axis, lanes) for leaf, axis in zip(leaves, self.args, strict=True)]
        lower, upper = (_at(bound, self.bounds, lanes) for bound in (given.lower, given.upper))
        key = _at(given.key, self.key, lanes)
        return given._replace(args=structure.unflatten(args), lower=lower, upper=upper, key=key)


def _at(tree: Any, axis: int | None, lanes: Any) -> Any:
    return tree if axis is None or lanes is None else jax.tree.map(lambda x: x[lanes], tree)


def solve_batch(
    problem: Problem, axes: Axes, gather: bool, given: Given, starts: Any, max_steps: Any, lanes: Any = None
) -> Solution:
    """`solve` for some lanes, or for all of them, as one program."""
    given, starts = axes.at(given, lanes), _at(starts, 0, lanes)
    if not gather:
        one = lambda given, start: solve(problem, given, start, None, max_steps)
        return jax.vmap(one, in_axes=(axes.of(given), 0))(given, starts)
    fixed, starts = jax.tree.map(jax.lax.stop_gradient, (given, starts))
    states = begin_batch(problem, axes, fixed, starts)[1]
    found = solutions_of(run_batch(problem, axes, gather, fixed, states, max_steps, max_steps)[0], problem)
    return jax.vmap(functools.partial(differentiable, problem), in_axes=(axes.of(given), 0))(given, found)


def begin_batch(problem: Problem, axes: Axes, given: Given, starts: Any, lanes: Any = None) -> tuple[Given, SolveState]:
    """The numbers and the initial states of some lanes, or of all."""
    given, starts = axes.at(given, lanes), _at(starts, 0, lanes)
    one = lambda given, start: begin_program(problem, given, start)
    return given, jax.vmap(one, in_axes=(axes.of(given), 0))(given, starts)


def run_batch(
    problem: Problem, axes: Axes, gather: bool, given: Given, states: SolveState, more: Any, last: Any
) -> tuple[SolveState, jax.Array]:
    """Advance all lanes that run by up to `more` steps each.

    Args:
        problem: the static part.
        axes: of the numbers.
        gather: whether to narrow the batch as soon as the lanes that run fit into the next one.
        given: of all lanes.
        states: of all lanes.
        more: the number of steps, traced.
        last: the number of steps of a whole solve, traced.

    Returns:
        The states of all lanes, and for each whether it is still running.
    """
    ends = jnp.minimum(states.steps + more, last)
    if not gather:
        states = _run_until(problem, axes, given, states, ends, 0)
        return states, is_running(states, last)
    sizes = widths(len(ends))
    for width, narrower in zip(sizes, [*sizes[1:], 0], strict=True):
        lanes = jnp.argsort(~is_running(states, ends))[:width]  # stable: those that run come first
        some = axes.at(given, lanes), _at(states, 0, lanes), ends[lanes]
        moved = _run_until(problem, axes, *some, narrower)
        states = jax.tree.map(lambda old, new, lanes=lanes: old.at[lanes].set(new), states, moved)
    return states, is_running(states, last)


def _run_until(problem: Problem, axes: Axes, given: Given, states: SolveState, ends: Any, least: int) -> SolveState:
    """Advance lanes until at most `least` of them run."""
    step = jax.vmap(functools.partial(step_program, problem), in_axes=(axes.of(given), 0, 0))
    is_wide = lambda states: jnp.sum(is_running(states, ends)) > least
    return jax.lax.while_loop(is_wide, lambda states: step(given, states, ends), states)


def widths(n: int) -> list[int]:
    """The widths of the batches in which n lanes are solved by gathering."""
    found = [n]
    while found[-1] // SHRINK >= LEAST:
        found.append(found[-1] // SHRINK)
    return found


def solutions_of(states: SolveState, problem: Problem) -> Solution:
    """The solutions of all lanes."""
    return jax.vmap(lambda state: solution_of(state, problem))(states)


def divided(n: int, parts: int) -> np.ndarray:
    """The lanes of parts of equal width, int32 [parts, width]; the last one is repeated to fill up the last part."""
    return np.minimum(np.arange(parts * -(-n // parts), dtype=np.int32), n - 1).reshape(parts, -1)


@functools.partial(jax.jit, static_argnums=0)
def joined(n: int, solutions: list[Solution]) -> Solution:
    """The solutions of n lanes from those of their parts."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:n], *solutions)
