"""Run a rule over a few gradients, one update after the other."""

import jax
import jax.numpy as jnp

import jaxopt_lite as jo

# Signs change, sizes differ, and one coordinate never gets a gradient.
GRADS = (
    {"w": jnp.array([0.5, -4.0, 0.0]), "b": jnp.array(-1.0)},
    {"w": jnp.array([-2.0, -1.0, 0.0]), "b": jnp.array(3.0)},
    {"w": jnp.array([1.0, 0.25, 0.0]), "b": jnp.array(0.5)},
)
PARAMS = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array(-0.5)}


def updates(rule, grads, params=None):
    """The update for each gradient, the parameters staying where they are, and the last state."""
    params = jax.tree.map(jnp.zeros_like, grads[0]) if params is None else params
    state, found, step = rule.init(params), [], _step(rule)
    for g in grads:
        update, state = step(g, state, params)
        found.append(update)
    return found, state


def descend(optimizer, grads=GRADS, params=PARAMS):
    """The parameters after applying the update for each gradient, and the last state."""
    state, step = optimizer.init(params), _step(optimizer)
    for g in grads:
        update, state = step(g, state, params)
        params = jo.apply_updates(params, update)
    return params, state


def _step(rule):
    """Rules with a `cond` are compiled: outside of jit each call of one compiles its branches anew."""
    return jax.jit(rule.update) if any(name in repr(rule) for name in ("skip_", "accumulate")) else rule.update


def scalars(rule, *grads, params=0.0):
    """The updates of one coordinate, as Python floats."""
    found, _ = updates(rule, [jnp.array(float(g)) for g in grads], jnp.array(float(params)))
    return [float(update) for update in found]
