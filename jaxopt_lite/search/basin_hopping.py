"""Steps from one local minimum to another."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.method import Info, Objective, Solver, solver
from jaxopt_lite.core.numbers import Fraction, NonNegative, PositiveCount
from jaxopt_lite.core.vectors import to_vector
from jaxopt_lite.search.lanes import Finish, Lanes, Local, best_of, check_local, idle_lanes
from jaxopt_lite.search.population import Best, none_yet, region_of, report, status_of
from jaxopt_lite.solvers.bounded import lbfgsb

__all__ = ["basin_hopping"]

LBFGSB = lbfgsb()
TARGET = 0.5  # the share of the hops to be accepted
FACTOR = 0.9  # the step after a hop that was not accepted
LEAST, MOST = 1e-4, 0.5  # the step, in units of the edges of the box
DECAY = 0.9  # of the mean difference between minima


class BasinHoppingState(NamedTuple):
    """The state of k chains."""

    lanes: Lanes
    points: jax.Array  # [k, n], the minima at which the chains stand
    values: jax.Array  # [k]
    sizes: jax.Array  # [k], the step of each chain
    difference: jax.Array  # the mean difference between the values of successive minima, a scalar; NaN at first
    hops: jax.Array  # int32 [k], local solves that were begun
    best: Best  # its aux is a pair of the objective's and the gradient
    finish: Finish
    count: jax.Array  # int32, steps


@solver(box=True, random=True)
def basin_hopping(
    local: Solver = LBFGSB,
    step: Fraction = 0.1,
    temperature: NonNegative = 0.5,
    hops: PositiveCount = 50,
    *,
    chains: int = 4,
    local_steps: int = 200,
):
    """A random walk over local minima: perturb the point, minimize locally, accept by the rule of Metropolis.

    Every coordinate moves by a uniform number in [-step, step] times the edge of the box, reflected into the box. A
    minimum that is higher by Δ is accepted with probability exp(-Δ / T). T is the temperature times the mean |Δ| of
    recent hops, so an offset or a factor of f changes nothing; the literature's T is in the units of f. A chain's step
    grows by 10% or so when a hop is accepted and shrinks by 10% when it is not, towards half of the hops accepted;
    hops back to the same minimum count as accepted.

    The first chain begins at the start, the others at random points. All chains take a local step together; it ends
    when each has made `hops` local solves, with the status of the best one.

    Args:
        local: the solver, such as `jo.solvers.lbfgsb()`; it must minimize within bounds. Local solves end by their own
            tests with the tolerance of the call.
        step: the first step, in [0, 1], in units of the edges of the box; later between 1e-4 and 0.5.
        temperature: at least 0; 0 accepts no minimum that is higher.
        hops: local solves of each chain, above 0; each takes some ten steps of `max_steps`.
        chains: the number of chains, at least 1.
        local_steps: the steps of one local solve, at least 1.

    Raises:
        ValueError: if local takes no bounds or does not minimize, or a count is less than 1.

    Reference: Wales & Doye, "Global Optimization by Basin-Hopping and the Lowest Energy Structures of Lennard-Jones
        Clusters Containing up to 110 Atoms", 1997.
    """
    check_local("basin_hopping", local)
    check_int("basin_hopping", "chains", chains)
    check_int("basin_hopping", "local_steps", local_steps)

    def init(objective: Objective, params: Any) -> BasinHoppingState:
        lanes, finish = idle_lanes(local, objective, params, chains)
        x, best = to_vector(params), none_yet(objective, params)
        best = best._replace(aux=(best.aux, params))
        sizes, count = jnp.full(chains, step, x.dtype), jnp.zeros([], jnp.int32)
        none = jnp.full([], jnp.nan, lanes.values.dtype)
        hopped = jnp.zeros(chains, jnp.int32)
        return BasinHoppingState(lanes, lanes.points, lanes.values, sizes, none, hopped, best, finish, count)

    def advance(objective: Objective, params: Any, state: BasinHoppingState) -> tuple[Any, BasinHoppingState, Info]:
        region = region_of("basin_hopping", objective, params)
        solves = Local(local, objective, params, local_steps)
        k, n = state.points.shape
        keys = jax.random.split(jax.random.fold_in(objective.key, state.count), 3)

        # The minima that were found since the last step
        lanes, found = state.lanes, ~state.lanes.running
        is_hop = found & (state.hops >= 2) & (state.hops < hops + 1)
        change = lanes.values - state.values
        known = is_hop & jnp.isfinite(change)
        mean = jnp.sum(jnp.where(known, jnp.abs(change), 0)) / jnp.maximum(jnp.sum(known), 1)
        smooth = jnp.where(jnp.isnan(state.difference), mean, DECAY * state.difference + (1 - DECAY) * mean)
        difference = jnp.where(jnp.any(known), smooth, state.difference)
        heat = temperature * jnp.where(jnp.isnan(difference), 0, difference)
        chance = -jnp.log(jax.random.uniform(keys[0], (k,), change.dtype, minval=jnp.finfo(change.dtype).tiny))
        accepted = found & ((lanes.values <= state.values) | (change <= heat * chance))
        points = jnp.where(accepted[:, None], lanes.points, state.points)
        values = jnp.where(accepted, lanes.values, state.values)
        growth = jnp.where(accepted, FACTOR ** (-TARGET / (1 - TARGET)), FACTOR)
        sizes = jnp.where(is_hop, jnp.clip(state.sizes * growth, LEAST, MOST), state.sizes)

        # The next hops
        moves = jax.random.uniform(keys[1], (k, n), points.dtype, minval=-1, maxval=1)
        hopped = region.reflect(points + sizes[:, None] * moves * region.width[None])
        anywhere = region.at(jax.random.uniform(keys[2], (k, n), points.dtype))
        first = jnp.where((jnp.arange(k) == 0)[:, None], points, anywhere)
        to = jnp.where((state.hops == 0)[:, None], first, hopped)
        begins = found & (state.hops < hops)
        serial = state.hops * k + jnp.arange(k, dtype=jnp.int32)
        lanes, finish, evaluations = solves.advance(solves.restart(lanes, begins, to, serial), state.finish)
        done = state.hops + begins.astype(jnp.int32)

        best = best_of(state.best, lanes)
        ended = ~jnp.any(lanes.running) & jnp.all(done >= hops)
        status = status_of(best, ended, finish.status)
        aux, grads = best.aux
        here, info = report(params, best._replace(aux=aux), evaluations, status, grads)
        new = BasinHoppingState(lanes, points, values, sizes, difference, done, best, finish, state.count + 1)
        return here, tree.keep_dtypes(new, state), info

    return init, advance
