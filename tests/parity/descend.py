"""Runs optimizers on the common problem."""

import jax
import numpy as np

import jaxopt_lite as jo
from tests.quick import quick_jit

from . import problem


def descend(*optimizers, jit=quick_jit) -> list[np.ndarray]:
    """The trajectory [STEPS, 9] of each optimizer, all in one scan compiled by `jit`."""

    def step(carry, inputs):
        after = []
        for optimizer, (params, state) in zip(optimizers, carry, strict=True):
            updates, state = optimizer.update(problem.gradient(params, *inputs), state, params)
            after.append((jo.apply_updates(params, updates), state))
        return after, [params for params, _ in after]

    @jit
    def run(start, inputs):
        return jax.lax.scan(step, [(start, optimizer.init(start)) for optimizer in optimizers], inputs)[1]

    return [problem.flat(trajectory) for trajectory in run(problem.START, (problem.NOISE, problem.LIVE))]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The greatest difference, in units of the greatest number (but at least 1); NaN where anything is not finite."""
    assert a.dtype == b.dtype == np.float64 and a.shape == b.shape
    return float(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(b))))
