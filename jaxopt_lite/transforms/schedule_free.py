"""Schedule-free learning: an average of the iterates in the place of a schedule that falls.

    y = (1 - β) z + β x          where the gradient is measured; the parameters
    z ← z + u(∇f(y))             the steps of the inner rule
    x ← (1 - c) x + c z          their average, for evaluation: `eval_params(state, params)`
    c = w / Σ w,  w = t^r γ^p    γ is the largest learning rate so far

Defazio, Yang, Mehta, Mishchenko, Khaled & Cutkosky, "The Road Less Scheduled", 2024, arXiv:2405.15682.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.layout import through_views
from jaxopt_lite.core.numbers import Decay, NonNegative, concrete
from jaxopt_lite.core.parameters import Dtype
from jaxopt_lite.core.schedule import LearningRate
from jaxopt_lite.core.transformation import GradientTransformation, transformation
from jaxopt_lite.schedules.phases import warmup_constant_schedule
from jaxopt_lite.transforms.mixtures import at

__all__ = ["eval_params", "schedule_free"]


class ScheduleFreeState(NamedTuple):
    """β and Σ w (scalars), steps done (int32, from 1 on, as in Optax), γ, the state of the inner rule, and z."""

    b1: jax.Array
    weight_sum: jax.Array
    step_count: Any
    max_lr: jax.Array
    base_optimizer_state: Any
    z: Any


@transformation(acts_on="coordinate")
def schedule_free(
    base_optimizer: GradientTransformation,
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: Dtype | None = None,
    *,
    r: NonNegative = 0.0,
):
    """The steps of an optimizer without momentum, averaged; gradients are measured between the average and the steps.

    `fit` and sweeps evaluate the average by themselves.

    Args:
        base_optimizer: the inner rule, with its learning rate and without momentum.
        learning_rate: that rate once more, for the weights of the average, at least 0; a number or a schedule that
            warms up and does not fall.
        b1: β, the share of the average in the parameters, in [0, 1), above 0.
        weight_lr_power: p, the power of the learning rate in a step's weight, at least 0.
        state_dtype: dtype of z; None means that of the parameters, at least float32.
        r: the power of the step in a step's weight, at least 0.

    Raises:
        ValueError: if update is called without params.

    Reference: Defazio et al., "The Road Less Scheduled", 2024, arXiv:2405.15682, Eqs. (3) to (5), and (8) for weights.
    """

    def init(params):
        zero = jnp.zeros([], jnp.result_type(float))
        z = jax.tree.map(lambda p: tree.copy(p) if state_dtype is None else _narrow(p, state_dtype), params)
        first = jnp.ones([], jnp.int32)
        return ScheduleFreeState(
            *(jnp.array(b1, zero.dtype), zero, first, jnp.zeros_like(zero), base_optimizer.init(params), z)
        )

    def update(grads, state, params=None, **extra):
        checks.require(params, "params", "schedule_free")
        t = state.step_count
        gamma = jnp.maximum(state.max_lr, at(learning_rate, t - 1)).astype(state.max_lr.dtype)
        weight = t**r * gamma**weight_lr_power
        total = state.weight_sum + weight
        c = jnp.where(total == 0, 0, weight / jnp.where(total == 0, 1, total))
        steps, inner_state = base_optimizer.update(grads, state.base_optimizer_state, params, **extra)

        def leaf(y, z, u):  # of y = (1 - β) z + β x after x and z have moved, with x eliminated
            return c * (z - y) + (1 - b1 * (1 - c)) * u, z + u

        updates, z = tree.map_leaves(leaf, 2, params, state.z, steps)
        z = tree.cast_like(z, state.z)
        return updates, ScheduleFreeState(state.b1, total, optax.safe_increment(t), gamma, inner_state, z)

    return init, update


def _narrow(p: jax.Array, dtype: Any) -> jax.Array:
    """A copy in another dtype; complex numbers stay as they are."""
    return tree.copy(p) if jnp.iscomplexobj(p) else tree.cast(tree.copy(p), dtype)


def eval_params(state: Any, params: Any) -> Any:
    """The parameters to evaluate and to keep: the average of a schedule-free method, else `params` themselves.

    `fit` and sweeps evaluate and return these.

    Args:
        state: of any optimizer.
        params: the parameters that are trained.

    Returns:
        A tree like params, in its dtypes.

    Raises:
        ValueError: if the state holds more than one.
    """
    if not is_averaged(state):
        return params
    spread = lambda own: jax.tree.map(lambda z: jnp.broadcast_to(own.b1, z.shape), own.z)
    z, b1 = (through_views(state, ScheduleFreeState, slot) for slot in (lambda own: own.z, spread))
    if len(z) > 1:
        raise ValueError(f"eval_params: the state must hold one method that averages, it holds {len(z)}")

    def average(y, z, b):  # x, of y = (1 - β) z + β x
        return y if isinstance(z, optax.MaskedNode) else (y - (1 - b) * z) / b

    return tree.cast_like(jax.tree.map(average, params, z[0], b1[0]), params)


def is_averaged(state: Any) -> bool:
    """Whether the parameters to evaluate are others than those that are trained."""
    return bool(through_views(state, ScheduleFreeState, lambda own: own.z))


def warmed_up(learning_rate: Any, warmup_steps: Any) -> Any:
    """The learning rate, or a schedule whose k-th step has min(1, k / warmup_steps) of it, as in the authors' code."""
    if warmup_steps is None:
        return learning_rate
    steps = max(warmup_steps, 1) if concrete(warmup_steps) else jnp.maximum(warmup_steps, 1)
    return warmup_constant_schedule(learning_rate / steps, learning_rate, steps - 1)
