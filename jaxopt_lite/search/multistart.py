"""Many local solves from points that fill the box."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.method import Info, Objective, Solver, solver
from jaxopt_lite.core.numbers import Fraction
from jaxopt_lite.core.vectors import to_vector
from jaxopt_lite.search.lanes import Finish, Lanes, Local, best_of, check_local, idle_lanes
from jaxopt_lite.search.points import draw
from jaxopt_lite.search.population import Best, none_yet, region_of, report, status_of
from jaxopt_lite.solvers.bounded import lbfgsb

__all__ = ["multistart"]

LBFGSB = lbfgsb()


class MultistartState(NamedTuple):
    """The state."""

    lanes: Lanes
    start: jax.Array  # [n]
    best: Best  # its aux is a pair of the objective's and the gradient
    finish: Finish
    used: jax.Array  # int32, starting points that have been given out
    count: jax.Array  # int32, steps


@solver(box=True, random=True)
def multistart(
    local: Solver = LBFGSB,
    replaced: Fraction = 0.25,
    *,
    points: Literal["sobol", "halton", "random"] = "sobol",
    starts: int = 64,
    lanes: int = 16,
    local_steps: int = 200,
    period: int | None = None,
):
    """Local solves from many points of the box; the start is the first of them. The best point is returned.

    `lanes` solves run side by side, and each step is one step of each of them. A lane whose solve has ended takes the
    next point. It ends when all points are used and all solves have ended, with the status of the best solve.

    With a `period`, solves that do not look promising are given up: every so many steps the worst share of the solves
    that have taken at least as many steps begin again at fresh points, as long as there are some. That costs
    about half of the evaluations for each point with a period of 4 and half of the solves; it misses a minimum that
    only slow solves find.

    Args:
        local: the solver for each point, such as `jo.solvers.lbfgsb()`; it must minimize within bounds. Local solves
            end by their own tests with the tolerance of the call.
        replaced: the share of the solves that is replaced, in [0, 1], rounded down; the best one is kept. Unused
            without a period.
        points: "sobol", "halton" or "random". Sobol points fill the box most evenly, Halton's less so in more than ten
            dimensions or so. The sequences are shifted at random by the key.
        starts: the number of points, at least 1; for Sobol points best a power of two. As many
            are needed as the box has basins; where those of low minima lie together, `basin_hopping` needs fewer.
        lanes: the number of solves side by side, at least 1.
        local_steps: the steps of one solve, at least 1; one that has not ended then ends as MAX_STEPS.
        period: steps after which the worst solves are replaced, at least 1; None never replaces one.

    Raises:
        ValueError: if local takes no bounds or does not minimize, a count is less than 1, or points is something else.

    Reference: Rinnooy Kan & Timmer, "Stochastic Global Optimization Methods, Part I", 1987; Sobol', "On the
        Distribution of Points in a Cube", 1967; Halton, "On the Efficiency of Certain Quasi-Random Sequences", 1960.
    """
    check_local("multistart", local)
    for name, value in (("starts", starts), ("lanes", lanes), ("local_steps", local_steps)):
        check_int("multistart", name, value)
    check_int("multistart", "period", period, none=True)
    width = min(lanes, starts)

    def init(objective: Objective, params: Any) -> MultistartState:
        idle, finish = idle_lanes(local, objective, params, width)
        zero = jnp.zeros([], jnp.int32)
        best = none_yet(objective, params)
        best = best._replace(aux=(best.aux, params))
        return MultistartState(idle, to_vector(params), best, finish, zero, zero)

    def step(objective: Objective, params: Any, state: MultistartState) -> tuple[Any, MultistartState, Info]:
        region = region_of("multistart", objective, params)
        solves = Local(local, objective, params, local_steps)
        free = ~state.lanes.running
        if period is not None:
            is_time = (state.count % period == 0) & (state.used < starts)
            free |= is_time & _worst(state.lanes, replaced, period)
        index = state.used + jnp.cumsum(free, dtype=jnp.int32) - 1
        takes = free & (index < starts)
        fractions = draw(points, objective.key, index, starts, region.lower)
        fresh = jnp.where((index == 0)[:, None], state.start[None], region.at(fractions))
        running, finish, evaluations = solves.advance(solves.restart(state.lanes, takes, fresh, index), state.finish)
        best = best_of(state.best, running)
        used = state.used + jnp.sum(takes, dtype=jnp.int32)
        ended = (used >= starts) & ~jnp.any(running.running)
        status = status_of(best, ended, finish.status)
        aux, grads = best.aux
        here, info = report(params, best._replace(aux=aux), evaluations, status, grads)
        return here, MultistartState(running, state.start, best, finish, used, state.count + 1), info

    return init, step


def _worst(lanes: Lanes, share: Any, least: int) -> jax.Array:
    """The worst share of the solves that run and have taken at least so many steps, bool [k]; never the best one."""
    old = lanes.running & (lanes.steps >= least)
    order = jnp.argsort(jnp.where(old, -lanes.values, jnp.inf))
    rank = jnp.zeros_like(lanes.steps).at[order].set(jnp.arange(len(order), dtype=jnp.int32))
    size = jnp.sum(old)
    return old & (rank < jnp.minimum(jnp.floor(share * size), size - 1))
