"""Tiny tasks that several tests train, and a way to count traces."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo

_rng = np.random.default_rng(0)
_X = _rng.normal(size=(24, 4)).astype(np.float32)
_Y = (_X @ np.array([1.0, -2.0, 3.0, 0.5]) + 0.1 * _rng.normal(size=24)).astype(np.float32)

# 14 examples in batches of 4: three batches an epoch, and two examples are left out of each.
TRAIN, VALID, TEST = ({"x": _X[rows], "y": _Y[rows]} for rows in (slice(14), slice(14, 19), slice(19, 24)))


def init(key):
    return {"w": 0.1 * jax.random.normal(key, (4,)), "b": jnp.zeros(())}


def loss(params, batch, key):
    return jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2)


LINEAR = jo.Task(init, loss, TRAIN)


def falling(params, batch, key):
    """Gradient 1: with sgd(1.0), w is minus the number of steps, and the loss of step t is 1 - t."""
    return params["w"]


def scores(params, data):
    """`loss` is best at w = -3; `accuracy` grows with each step."""
    return {"loss": jnp.abs(params["w"] + 3), "accuracy": -params["w"] / 10}


RAMP = jo.Task(lambda key: {"w": 0.0}, falling, None, np.zeros((1, 1)), None, scores)


def running_mean(params, model_state, batch, key):
    """A loss with a model state: the mean of x, averaged over steps."""
    mean = 0.9 * model_state["mean"] + 0.1 * batch["x"].mean(axis=0)
    value = jnp.mean(((batch["x"] - mean[None]) @ params["w"] + params["b"] - batch["y"]) ** 2)
    return value, ({"first": mean[0]}, {"mean": mean})


STATEFUL = jo.Task(lambda key: (init(key), {"mean": jnp.zeros(4)}), running_mean, TRAIN, stateful=True)


def noisy(params, batch, key):
    """A loss that makes its own data from the key."""
    return jnp.mean((params["w"][None] - jax.random.normal(key, (8, 4)) - 1) ** 2)


ON_POLICY = jo.Task(lambda key: {"w": jnp.zeros(4)}, noisy)


def counted(function):
    """The function, and a list that grows with each call of it, that is, with each trace."""
    calls = []

    def counting(*args):
        calls.append(1)
        return function(*args)

    return counting, calls


def compiles():
    """A list that grows with each compilation."""
    found = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, duration, **facts: found.append(name) if name.endswith("backend_compile_duration") else None
    )
    return found


def assert_same(one, other, **tolerance):
    """Equal trees of arrays: bit for bit, or within a tolerance."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(jnp.result_type(a), jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        if tolerance:
            np.testing.assert_allclose(a, b, **tolerance)
        else:
            np.testing.assert_array_equal(a, b)
