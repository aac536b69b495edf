"""Local solves side by side: what the hybrids of global search and a local solver share.

Each lane holds one solve by the local solver. All of them take a step together, one evaluation of f each; a lane whose
solve has ended stays as it is until it is given another point.
"""

import copy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Objective, Solver, Status
from jaxopt_lite.core.vectors import from_vector, to_vector
from jaxopt_lite.search.population import Best, better, evaluate, none_yet

__all__ = ["Finish", "Lanes", "Local", "Outcome", "best_of", "check_local", "idle_lanes", "refine"]

LANE_KEYS = 0x7FFF_FFFF  # folded into the key, for what the local solvers draw


class Lanes(NamedTuple):
    """Local solves."""

    points: jax.Array  # [k, n]
    values: jax.Array  # [k], infinite before the first evaluation, and where f is NaN
    aux: Any  # of the points, with a leading axis [k]
    grads: Any  # trees like params, with a leading axis [k]
    states: Any  # of the local solver, with a leading axis [k]
    status: jax.Array  # int32 [k]
    steps: jax.Array  # int32 [k], of the solve in the lane
    serial: jax.Array  # int32 [k], the number of the solve, by which it has a key of its own

    @property
    def running(self) -> jax.Array:
        """Whether the solve of a lane has not ended, bool [k]."""
        return self.status == Status.RUNNING


class Finish(NamedTuple):
    """The best of the local solves that have ended."""

    value: jax.Array  # a scalar, infinite before the first one has ended
    status: jax.Array  # int32


class Outcome(NamedTuple):
    """What a step of the lanes gave."""

    lanes: Lanes
    finish: Finish
    evaluations: jax.Array  # int32


def check_local(who: str, local: Solver) -> None:
    """Raise unless a local solver minimizes within bounds.

    Raises:
        ValueError: if it does not.
    """
    name = local.factory.spec.name
    if local.solves != "minimize":
        raise ValueError(f"{who}: local must minimize, but {name} is for another kind of problem; use solvers.lbfgsb()")
    if not local.takes_bounds:
        raise ValueError(f"{who}: local must take bounds, but {name} takes none; use solvers.lbfgsb()")


class Local:
    """A local solver of an objective whose parameters are like `params`.

    Args:
        solver: the local solver.
        objective: what is minimized.
        params: a tree that says how a point is a tree.
        limit: the steps of one solve; one that has not ended then ends with MAX_STEPS.
    """

    def __init__(self, solver: Solver, objective: Objective, params: Any, limit: Any):
        self.solver, self.objective, self.params, self.limit = solver, objective, params, limit

    def begin(self, points: jax.Array, serial: jax.Array) -> Lanes:
        """Solves that begin at points [k, n]; their numbers are `serial` [k]."""
        k = len(points)
        best = none_yet(self.objective, self.params)
        repeat = lambda a: jnp.broadcast_to(a, (k, *jnp.shape(a)))
        states = jax.vmap(lambda x, i: self.solver.init(self._objective(i), from_vector(x, self.params)))
        grads = jax.tree.map(lambda p: repeat(jnp.full_like(p, jnp.nan)), self.params)
        count = jnp.zeros(k, jnp.int32)
        values, aux = repeat(best.value), jax.tree.map(repeat, best.aux)
        return Lanes(points, values, aux, grads, states(points, serial), count, count, serial)

    def restart(self, lanes: Lanes, which: jax.Array, points: jax.Array, serial: jax.Array) -> Lanes:
        """New solves from points [k, n] in those lanes for which `which` [k] is true."""
        return _where(which, self.begin(points, serial), lanes)

    def advance(self, lanes: Lanes, finish: Finish) -> Outcome:
        """One step of each solve that has not ended."""

        def step(point, state, serial):
            here, state, info = self.solver.step(self._objective(serial), from_vector(point, self.params), state)
            value = jnp.where(jnp.isnan(info.value), jnp.inf, info.value)
            return (to_vector(here), value, info.aux, info.grads, state, info.status), info.evaluations

        running = lanes.running
        stepped, evaluations = jax.vmap(step)(lanes.points, lanes.states, lanes.serial)
        points, values, aux, grads, states, status = stepped
        steps = lanes.steps + 1
        status = jnp.where((status == Status.RUNNING) & (steps >= self.limit), Status.MAX_STEPS, status)
        new = Lanes(points, values, aux, grads, states, status.astype(jnp.int32), steps, lanes.serial)
        lanes = _where(running, tree.keep_dtypes(new, lanes), lanes)
        ends = running & ~lanes.running
        i = jnp.argmin(jnp.where(ends, lanes.values, jnp.inf))
        is_first = finish.status == Status.RUNNING
        is_better = ends[i] & (is_first | (lanes.values[i] < finish.value))
        finish = tree.where(is_better, Finish(lanes.values[i], lanes.status[i]), finish)
        return Outcome(lanes, finish, jnp.sum(jnp.where(running, evaluations, 0)))

    def _objective(self, serial: jax.Array) -> Objective:
        """The objective with a key for the solve of a number."""
        objective = copy.copy(self.objective)
        if self.solver.needs_key:
            objective.key = jax.random.fold_in(jax.random.fold_in(self.objective.key, LANE_KEYS), serial)
        return objective


def idle_lanes(solver: Solver, objective: Objective, params: Any, k: int) -> tuple[Lanes, Finish]:
    """Lanes that wait for a point, and that nothing has ended yet."""
    x = to_vector(params)
    lanes = Local(solver, objective, params, 1).begin(jnp.broadcast_to(x, (k, x.size)), jnp.zeros(k, jnp.int32))
    lanes = lanes._replace(status=jnp.full(k, Status.MAX_STEPS, jnp.int32))
    return lanes, Finish(jnp.full([], jnp.inf, lanes.values.dtype), jnp.zeros([], jnp.int32))


def best_of(best: Best, lanes: Lanes) -> Best:
    """The best of what is known and of the lanes. Its `aux` is a pair of the objective's aux and the gradient."""
    return better(best, lanes.points, lanes.values, (lanes.aux, lanes.grads))


def refine(
    local: Any, objective: Objective, params: Any, points: jax.Array, steps: int, serial: jax.Array
) -> tuple[jax.Array, jax.Array, Any, jax.Array]:
    """Points [k, n] after some local steps each: points, their values [k], their aux [k, ...], and evaluations made.

    Args:
        local: a solver; None evaluates the points as they are.
        objective: what is minimized.
        params: a tree that says how a point is a tree.
        points: [k, n].
        steps: local steps, a number that is known.
        serial: int32, the number of the first solve.
    """
    if local is None:
        return points, *evaluate(objective, params, points), jnp.int32(len(points))
    solves = Local(local, objective, params, steps)
    lanes = solves.begin(points, serial + jnp.arange(len(points), dtype=jnp.int32))
    nothing = Finish(lanes.values[0], jnp.int32(0))

    def step(lanes, _):
        lanes, _, evaluations = solves.advance(lanes, nothing)
        return lanes, evaluations

    lanes, evaluations = jax.lax.scan(step, lanes, None, length=steps)
    return lanes.points, lanes.values, lanes.aux, jnp.sum(evaluations)


def _where(which: jax.Array, yes: Any, no: Any) -> Any:
    """Select lanes by `which`, bool [k]."""
    return jax.tree.map(lambda a, b: jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b), yes, no)
