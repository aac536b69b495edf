"""Rules that multiply: by a number, a schedule, or a ratio of norms.

scale                   c u
scale_by_learning_rate  -η u, with η a number or a schedule η(t)
trust ratio             u ‖w‖ / ‖u‖ for each leaf         You et al., 2017, arXiv:1708.03888; 2020, arXiv:1904.00962
normalize               c u / ‖u‖ over all leaves
centralize              u minus its mean over all axes but the first    Yong et al., 2020, arXiv:2004.01461
"""

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.numbers import NonNegative, Positive, Scalar
from jaxopt_lite.core.schedule import LearningRate, Schedule
from jaxopt_lite.core.transformation import transformation
from jaxopt_lite.tree import abs_sq, safe_sqrt

__all__ = [
    "centralize",
    "normalize_by_update_norm",
    "scale",
    "scale_by_learning_rate",
    "scale_by_schedule",
    "scale_by_trust_ratio",
]


@transformation(acts_on="coordinate")
def scale(step_size: Scalar):
    """c u.

    Args:
        step_size: c; negative to descend.
    """

    def update(updates, state, params=None, **extra):
        return tree.scale(step_size, updates), state

    return lambda params: optax.EmptyState(), update


@transformation(acts_on="coordinate")
def scale_by_schedule(step_size_fn: Schedule):
    """c(t) u, with t = 0 at the first update.

    Args:
        step_size_fn: c, a schedule or any function of the step; negative to descend.
    """

    def update(updates, state, params=None, **extra):
        count = optax.safe_increment(state.count)
        return tree.scale(step_size_fn(state.count), updates), optax.ScaleByScheduleState(count)

    return lambda params: optax.ScaleByScheduleState(jnp.zeros([], jnp.int32)), update


@transformation(acts_on="coordinate")
def scale_by_learning_rate(learning_rate: LearningRate, *, flip_sign: bool = True):
    """-η u: the only rule that changes the sign, from ascent to descent.

    Args:
        learning_rate: η, at least 0 and finite; a number or a schedule.
        flip_sign: multiply by -η if true, by η if false.
    """
    sign = -1 if flip_sign else 1
    scheduled = isinstance(learning_rate, Schedule)

    def init(params):
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32)) if scheduled else optax.EmptyState()

    def update(updates, state, params=None, **extra):
        if not scheduled:
            return tree.scale(sign * learning_rate, updates), state
        eta = learning_rate(state.count)
        return tree.scale(sign * eta, updates), optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return init, update


@transformation(acts_on="leaf")
def scale_by_trust_ratio(min_norm: NonNegative = 0.0, trust_coefficient: Positive = 1.0, eps: NonNegative = 0.0):
    """u c ‖w‖ / (‖u‖ + ε) for each leaf; u itself where either norm is 0.

    Args:
        min_norm: lower bound of both norms, at least 0.
        trust_coefficient: c, factor of the ratio, above 0.
        eps: ε, added to ‖u‖, at least 0.

    Raises:
        ValueError: if update is called without params.

    Reference: You et al., "Large Batch Optimization for Deep Learning", 2020, arXiv:1904.00962, Algorithm 2.
    """

    def update(updates, state, params=None, **extra):
        checks.require(params, "params", "scale_by_trust_ratio")

        def leaf(u, w):
            w_norm, u_norm = (jnp.maximum(safe_sqrt(jnp.sum(abs_sq(x))), min_norm) for x in (w, u))
            either_zero = (w_norm == 0) | (u_norm == 0)
            ratio = trust_coefficient * w_norm / jnp.where(either_zero, 1, u_norm + eps)
            return u * jnp.where(either_zero, 1, ratio)

        return jax.tree.map(leaf, updates, params), state

    return lambda params: optax.EmptyState(), update


@transformation(acts_on="coordinate")
def normalize_by_update_norm(scale_factor: Positive = 1.0, eps: NonNegative = 1e-6):
    """c u / (‖u‖ + ε), the norm over all leaves.

    Args:
        scale_factor: c, above 0.
        eps: ε, at least 0.
    """

    def update(updates, state, params=None, **extra):
        return tree.scale(scale_factor / (tree.global_norm(updates) + eps), updates), state

    return lambda params: optax.EmptyState(), update


@transformation(acts_on="leaf")
def centralize():
    """u minus its mean over all axes but the first; leaves of fewer than two axes are unchanged.

    Reference: Yong et al., "Gradient Centralization", 2020, arXiv:2004.01461, Eq. (1).
    """

    def leaf(u):
        return u - jnp.mean(u, axis=tuple(range(1, u.ndim)), keepdims=True) if u.ndim > 1 else u

    def update(updates, state, params=None, **extra):
        return jax.tree.map(leaf, updates), state

    return lambda params: optax.EmptyState(), update
