"""Rules that act on the parameters themselves: decay, shrinkage, noise, constraints.

add_decayed_weights     u + λ w                              before the learning rate; Loshchilov & Hutter, 2019
add_cautious_decay      u + λ 1[u w ≥ 0] w                   only where the update shrinks w; Chen et al., 2025
proximal_l1             w ← sgn(w) max(|w| - ηλ, 0)          after the step: soft threshold, exact zeros
proximal_l2             w ← w / (1 + ηλ)                     after the step: never overshoots zero
add_noise               u + 𝒩(0, η / tᵞ)                     Neelakantan et al., 2015, arXiv:1511.06807
keep_params_nonnegative w ← max(w, 0)                        after the step
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.numbers import NonNegative
from jaxopt_lite.core.parameters import Key, Mask
from jaxopt_lite.core.schedule import LearningRate, NonNegativeOrSchedule, Schedule
from jaxopt_lite.core.transformation import stateless, transformation
from jaxopt_lite.transforms.routing import masked

__all__ = [
    "add_cautious_decay",
    "add_decayed_weights",
    "add_noise",
    "keep_params_nonnegative",
    "proximal_l1",
    "proximal_l2",
]


class ScheduledState(NamedTuple):
    """The step that a rule with a schedule has reached."""

    count: Any


@transformation(acts_on="coordinate")
def add_decayed_weights(weight_decay: NonNegativeOrSchedule = 0.0, mask: Mask = None):
    """u + λ w: decoupled weight decay if it comes after a preconditioner, an L2 penalty if it comes first.

    Args:
        weight_decay: λ, factor of the parameters w, at least 0 and finite; a number or a schedule.
        mask: which leaves decay: a tree of bools in the structure of params or a prefix of it, or a function of params
            that returns one; None means all. See `by_path`.

    Raises:
        ValueError: if update is called without params.

    Reference: Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019, arXiv:1711.05101, Algorithm 2.
    """
    if mask is not None:
        return masked(add_decayed_weights(weight_decay), mask)
    return _decayed("add_decayed_weights", weight_decay, jnp.add)


@transformation(acts_on="coordinate")
def add_cautious_decay(weight_decay: NonNegativeOrSchedule = 0.0, mask: Mask = None):
    """u + λ w where u and w have the same sign or one is zero, else u: no decay against the direction of the step.

    In contrast to `add_decayed_weights` it does not move the minimum: where weights would grow, they grow unhindered.
    Put it between a preconditioner and the learning rate, where u still has the sign of the gradient; in the place of
    AdamW's decay: `chain(scale_by_adam(), add_cautious_decay(0.1), scale_by_learning_rate(1e-3))`.

    Args:
        weight_decay: λ, factor of the parameters w, at least 0 and finite; a number or a schedule.
        mask: the leaves that decay, as for `add_decayed_weights`; None means all.

    Raises:
        ValueError: if update is called without params.

    Reference: Chen et al., "Cautious Weight Decay", 2025, arXiv:2510.12402, Algorithm 1.
    """
    if mask is not None:
        return masked(add_cautious_decay(weight_decay), mask)
    shrinks = lambda u, w: jnp.real(jnp.conj(u) * w) >= 0
    return _decayed("add_cautious_decay", weight_decay, lambda u, decay: u + jnp.where(shrinks(u, decay), decay, 0))


def _decayed(who: str, weight_decay: Any, add: Any) -> tuple:
    """The pair (init, update) whose updates are add(u, λ w)."""
    scheduled = isinstance(weight_decay, Schedule)

    def init(params):
        return ScheduledState(jnp.zeros([], jnp.int32)) if scheduled else optax.EmptyState()

    def update(updates, state, params=None, **extra):
        checks.require(params, "params", who)
        decay = weight_decay(state.count) if scheduled else weight_decay
        state = ScheduledState(optax.safe_increment(state.count)) if scheduled else state
        return jax.tree.map(add, updates, tree.scale(decay, params)), state

    return init, update


@transformation(acts_on="coordinate")
def proximal_l1(learning_rate: LearningRate, penalty: NonNegative, mask: Mask = None):
    """w ← sgn(w) max(|w| - ηλ, 0) after the step: the soft threshold, which makes exact zeros.

    Put it last in a chain, with the learning rate of the step: proximal gradient descent for a loss plus λ‖w‖₁. For a
    loss of all examples at once `jaxopt_lite.solvers.proximal_gradient(l1_penalty(λ))` finds the minimum itself.

    Args:
        learning_rate: η, at least 0 and finite; a number or a schedule.
        penalty: λ, at least 0.
        mask: the leaves to shrink, as in `add_decayed_weights`; None means all.

    Reference: Daubechies et al., "An Iterative Thresholding Algorithm", 2004; Parikh & Boyd, "Proximal Algorithms",
        2014, Section 6.5.2.
    """

    if mask is not None:
        return masked(proximal_l1(learning_rate, penalty), mask)

    def shrink(w, eta):
        size = jnp.abs(w)
        left = jnp.maximum(size - eta * penalty, 0)
        return w * jnp.where(size > 0, left / jnp.where(size > 0, size, 1), 0)

    return _proximal("proximal_l1", learning_rate, shrink)


@transformation(acts_on="coordinate")
def proximal_l2(learning_rate: LearningRate, penalty: NonNegative, mask: Mask = None):
    """w ← w / (1 + ηλ) after the step: weight decay as a proximal step, which never overshoots zero.

    Put it last in a chain, with the learning rate of the step.

    Args:
        learning_rate: η, at least 0 and finite; a number or a schedule.
        penalty: λ, at least 0.
        mask: the leaves to shrink, as in `add_decayed_weights`; None means all.

    Reference: Xie et al., "Adan", 2022, arXiv:2208.06677, Algorithm 1, line 7.
    """
    if mask is not None:
        return masked(proximal_l2(learning_rate, penalty), mask)
    return _proximal("proximal_l2", learning_rate, lambda w, eta: w / (1 + eta * penalty))


def _proximal(who: str, learning_rate: Any, prox: Any) -> tuple:
    """The pair (init, update) whose new parameters are prox(w + u, η)."""
    scheduled = isinstance(learning_rate, Schedule)

    def init(params):
        return ScheduledState(jnp.zeros([], jnp.int32)) if scheduled else optax.EmptyState()

    def update(updates, state, params=None, **extra):
        checks.require(params, "params", who)
        eta = learning_rate(state.count) if scheduled else learning_rate
        state = ScheduledState(optax.safe_increment(state.count)) if scheduled else state
        return jax.tree.map(lambda u, w: prox(w + u, eta) - w, updates, params), state

    return init, update


@transformation
def add_noise(eta: NonNegative, gamma: NonNegative, key: Key = 0):
    """u + 𝒩(0, η / tᵞ), with t = 1 at the first update.

    Args:
        eta: η, the variance of the first step's noise, at least 0.
        gamma: γ, the power with which it falls, at least 0.
        key: a seed (static) or a key (a leaf). `init` copies it into the state; where a run makes the state (`fit`,
            `init_state`, `sweep`) its seed is mixed in, so that each seed has noise of its own.

    Reference: Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks", 2015,
        arXiv:1511.06807, Eq. (1).
    """

    def init(params):
        start = jnp.copy(key) if isinstance(key, jax.Array) else jax.random.key(key)  # a buffer of its own
        return optax.AddNoiseState(count=jnp.zeros([], jnp.int32), rng_key=start)

    def update(updates, state, params=None, **extra):
        t = optax.safe_increment(state.count)
        rng_key, now = jax.random.split(state.rng_key)
        noise = optax.tree.random_like(now, updates, jax.random.normal)
        deviation = jnp.sqrt(eta / t**gamma)
        updates = jax.tree.map(lambda u, n: u + deviation.astype(u.real.dtype) * n, updates, noise)
        return updates, optax.AddNoiseState(count=jnp.asarray(t), rng_key=rng_key)

    return init, update


@transformation(acts_on="coordinate")
def keep_params_nonnegative():
    """w ← max(w, 0) after the step. Put it last in a chain; params must be real.

    Raises:
        ValueError: if update is called without params.
    """
    return stateless(_to_nonnegative)


def _to_nonnegative(updates, params):
    checks.require(params, "params", "keep_params_nonnegative")
    if any(map(jnp.iscomplexobj, jax.tree.leaves(params))):
        raise TypeError("keep_params_nonnegative: params must be real, got complex numbers, which have no order")
    return jax.tree.map(lambda u, w: jnp.where(w + u < 0, -w, u), updates, params)
