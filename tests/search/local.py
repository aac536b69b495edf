"""A local solver that compiles in no time, for tests of what holds local solvers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Status, solver
from jaxopt_lite.solvers.box import box_of, clip


class State(NamedTuple):
    t: jax.Array
    value: jax.Array
    aux: Any
    grads: Any


@solver(bounds=True)
def projected():
    """Projected gradient steps, longer after a success and shorter after a failure. The first step evaluates."""

    def init(objective, params):
        value, aux = jax.eval_shape(objective.value, params)
        zeros = lambda like: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        return State(jnp.zeros(()), jnp.full((), jnp.inf, value.dtype), zeros(aux), zeros(params))

    def step(objective, params, state):
        moves = jax.tree.map(lambda x, g: x - (state.t * g).astype(x.dtype), params, state.grads)
        trial = clip(moves, box_of(objective, params))
        value, aux, grads = objective.value_and_grad(trial)
        first, lower = jnp.isinf(state.value), value < state.value
        here = (trial, value, aux, grads)
        new, value, aux, grads = tree.where(lower, here, (params, state.value, state.aux, state.grads))
        t = jnp.where(first, 1e-2, jnp.where(lower, 1.5, 0.4) * state.t).astype(state.t.dtype)
        size = t * tree.global_norm(grads)
        status = jnp.where(size < 1e-6, Status.CONVERGED_STEP, Status.RUNNING)
        status = jnp.where(first & ~lower, Status.NON_FINITE, status)
        status = jnp.where(value == -jnp.inf, Status.UNBOUNDED, status).astype(jnp.int32)
        updates = jax.tree.map(jnp.subtract, new, params)
        return new, State(t, value, aux, grads), Info(value, aux, grads, updates, status, jnp.int32(1))

    return init, step
