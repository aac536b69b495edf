"""Simulated annealing: random moves, of which those that raise f are accepted less often as a temperature falls.

accept with probability min(1, exp(-(f(x') - f(x)) / T))      Metropolis et al., 1953; Kirkpatrick et al., 1983
T = T₀ rᵏᐟᴷ at step k of K
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.method import Info, Objective, Solver, Status, solver
from jaxopt_lite.core.numbers import Fraction, NonNegative, PositiveCount
from jaxopt_lite.core.vectors import to_vector
from jaxopt_lite.search.lanes import check_local, refine
from jaxopt_lite.search.population import Best, better, none_yet, region_of, report, scattered, status_of

__all__ = ["simulated_annealing"]

TARGET = 0.25  # the share of the moves to be accepted
GAIN = 0.1  # of the logarithm of the size of a move, for one that was accepted
LEAST, MOST = 1e-9, 0.5  # the size of a move, in units of the edges of the box
LAST = 0.9  # the share of the schedule after which the best value should no longer change


class AnnealingState(NamedTuple):
    """The state of k chains."""

    points: jax.Array  # [k, n]
    values: jax.Array  # [k]
    sizes: jax.Array  # [k], of the moves
    spread: jax.Array  # of the values of the first points, a scalar
    late: jax.Array  # the best value at the beginning of the last tenth of the schedule
    best: Best
    count: jax.Array  # int32, steps


@solver(box=True, random=True)
def simulated_annealing(
    temperature: NonNegative = 1.0,
    final: Fraction = 1e-6,
    steps: PositiveCount = 1000,
    size: Fraction = 0.25,
    local: Solver | None = None,  # pyright: ignore[reportGeneralTypeIssues]
    *,
    chains: int = 16,
    local_steps: int = 5,
):
    """Several chains of Gaussian moves under a falling temperature; with a local solver, of moves and local steps.

    The first points are the start and random ones; T₀ is `temperature` times the median distance of their values from
    the median, so neither an offset nor a factor of f changes the course. From each chain's point a Gaussian move, of
    one size for all coordinates in units of the edges and reflected into the box, gives a trial point. The size grows
    by 10% with each move that is accepted, and shrinks otherwise so that a quarter of the moves is accepted.

    With `local`, each trial point takes `local_steps` steps of that solver before it is judged, and the chain continues
    from where they end. That uses gradients, and is far better on smooth functions with many minima.

    It ends with the schedule: converged by value if in the last tenth of the steps the best value fell by no more than
    max(tol, final) times the spread of the first values, and a chain ends within as much of it, else as MAX_STEPS: then
    give more `steps`. With one chain the spread is 0, and no rise is accepted.

    Args:
        temperature: the first temperature in units of the spread of the first values, at least 0; 0 accepts no rise.
        final: r, the last temperature relative to the first, in [0, 1].
        steps: K, the length of the schedule, above 0; `max_steps` should be no less.
        size: the first size of the moves, in [0, 1], in units of the edges of the box; later between 1e-9 and 0.5.
        local: a solver that minimizes within bounds, such as `jo.solvers.lbfgsb()`, or None.
        chains: the number of chains, at least 1; a few long chains are better with `local`.
        local_steps: steps of the local solver for each trial point, at least 1; unused without one. The first step of
            most solvers evaluates the point itself.

    Raises:
        ValueError: if local takes no bounds or does not minimize, or a count is less than 1.

    Reference: Kirkpatrick, Gelatt & Vecchi, "Optimization by Simulated Annealing", 1983; Martin, Otto & Felten,
        "Large-Step Markov Chains for the Traveling Salesman Problem", 1991, for local steps before the judgement.
    """
    if local is not None:
        check_local("simulated_annealing", local)
    check_int("simulated_annealing", "chains", chains)
    check_int("simulated_annealing", "local_steps", local_steps)

    def init(objective: Objective, params: Any) -> AnnealingState:
        x, best = to_vector(params), none_yet(objective, params)
        points = jnp.broadcast_to(x, (chains, x.size))
        values, zero = jnp.full(chains, jnp.inf, best.value.dtype), jnp.zeros_like(best.value)
        sizes = jnp.full(chains, size, x.dtype)
        return AnnealingState(points, values, sizes, zero, best.value, best, jnp.zeros([], jnp.int32))

    def step(objective: Objective, params: Any, state: AnnealingState) -> tuple[Any, AnnealingState, Info]:
        region = region_of("simulated_annealing", objective, params)
        k, n = state.points.shape
        keys = jax.random.split(jax.random.fold_in(objective.key, state.count), 3)
        is_first = state.count == 0

        moves = jax.random.normal(keys[0], (k, n), state.points.dtype)
        near = region.reflect(state.points + state.sizes[:, None] * moves * region.width[None])
        trials = jnp.where(is_first, scattered(keys[1], region, state.points[0], k), near)
        points, values, aux, evaluations = refine(local, objective, params, trials, local_steps, state.count * k)
        best = better(state.best, points, values, aux)

        spread = jnp.where(is_first, _spread(values), state.spread)
        heat = spread * temperature * final ** (state.count / steps)
        chance = -jnp.log(jax.random.uniform(keys[2], (k,), values.dtype, minval=jnp.finfo(values.dtype).tiny))
        accepted = (values <= state.values) | (values - state.values <= heat * chance)
        factor = jnp.exp(GAIN * jnp.where(accepted, 1, -TARGET / (1 - TARGET)))
        sizes = jnp.where(is_first, state.sizes, jnp.clip(state.sizes * factor, LEAST, MOST))

        late = jnp.where(state.count < LAST * steps, best.value, state.late)
        points = jnp.where(accepted[:, None], points, state.points)
        values = jnp.where(accepted, values, state.values)
        # The best value has not changed for long, and is that of a chain: not of a point that all have left.
        allowed = jnp.maximum(objective.tol, final) * spread
        level = (late - best.value <= allowed) & (jnp.min(values) - best.value <= allowed)
        as_what = jnp.where(level, Status.CONVERGED_VALUE, Status.MAX_STEPS)
        here, info = report(params, best, evaluations, status_of(best, state.count + 1 >= steps, as_what))
        new = AnnealingState(points, values, sizes, spread, late, best, state.count + 1)
        return here, tree.keep_dtypes(new, state), info

    return init, step


def _spread(values: jax.Array) -> jax.Array:
    """The median distance of the finite values from their median; 0 if no value is finite."""
    finite = jnp.isfinite(values)
    middle = jnp.nanmedian(jnp.where(finite, values, jnp.nan))
    spread = jnp.nanmedian(jnp.where(finite, jnp.abs(values - middle), jnp.nan))
    return jnp.where(jnp.any(finite), spread, 0)
