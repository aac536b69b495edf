"""Transformations around transformations: when the inner rule runs, and what is averaged.

accumulate       the mean gradient of k micro-batches, then one step of the inner rule
ema_params       an average of the parameters beside them       Polyak & Juditsky, 1992
tail_average     the mean of the parameters of all steps since one
latest_weights   the mean of the last k snapshots               Kaddour, 2022, arXiv:2209.14981
lookahead        slow weights that follow the fast ones         Zhang et al., 2019, arXiv:1907.08610
outer_nesterov   slow weights with momentum of their own        Douillard et al., 2023, arXiv:2311.08105
"""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.layout import through_views
from jaxopt_lite.core.numbers import Count, Decay, Fraction, NonNegative, Number, Range
from jaxopt_lite.core.transformation import GradientTransformation, transformation

__all__ = [
    "accumulate",
    "averaged_params",
    "ema_params",
    "latest_weights",
    "lookahead",
    "outer_nesterov",
    "tail_average",
]

Period = Annotated[Number, Range(low=1.0, open_high=True)]


class AccumulateState(NamedTuple):
    """Micro-batches seen and kept in this round, rounds done (int32), the mean so far, and the inner state."""

    mini_step: jax.Array
    kept: jax.Array
    gradient_step: jax.Array
    acc_grads: Any
    inner_state: Any


class EmaParamsState(NamedTuple):
    """The average of the parameters (at least float32) and the number of steps in it."""

    count: Any
    ema: Any

    @property
    def average(self) -> Any:
        return self.ema


class TailAverageState(NamedTuple):
    """Steps done (int32), and the mean of the parameters since the first one that counts."""

    count: Any
    average: Any


class LatestWeightsState(NamedTuple):
    """Steps done (int32), snapshots taken (int32), and the last of them, the newest first."""

    count: Any
    taken: jax.Array
    weights: tuple

    @property
    def average(self) -> Any:
        """The mean of the snapshots; before the first one the initial parameters."""
        there = jnp.clip(self.taken, 1, len(self.weights))
        total = lambda *leaves: sum(jnp.where(i < there, w, 0) for i, w in enumerate(leaves)) / there
        return jax.tree.map(total, *self.weights)


class OuterNesterovState(NamedTuple):
    """Steps since the slow weights moved (int32), the slow weights, their momentum, and the state of the inner rule."""

    steps_since_sync: jax.Array
    slow: Any
    trace: Any
    inner_state: Any


class LookaheadState(NamedTuple):
    """Steps since the slow weights moved, the slow weights, and the state of the fast rule."""

    steps_since_sync: jax.Array
    slow: Any
    inner_state: Any


@transformation(acts_on="coordinate")
def accumulate(inner: GradientTransformation, steps: Period):
    """The mean gradient of k micro-batches, then one step of the inner rule; zero updates in between.

    A micro-batch whose gradient is not finite is left out of the mean. If all k are, the inner rule does not run.

    Args:
        inner: runs once in k updates.
        steps: k, at least 1; may be traced.
    """

    def init(params):
        a, b, c = (jnp.zeros([], jnp.int32) for _ in range(3))  # three buffers, so that the state can be donated
        return AccumulateState(a, b, c, jax.tree.map(jnp.zeros_like, params), inner.init(params))

    def update(grads, state, params=None, **extra):
        good = tree.all_finite(grads)
        kept = state.kept + good
        share = 1 / jnp.maximum(kept, 1)
        # a running mean, so that k large gradients do not overflow
        mean = jax.tree.map(lambda a, g: jnp.where(good, a + (g - a) * share, a), state.acc_grads, grads)
        last = state.mini_step + 1 >= steps
        runs = last & (kept > 0)
        updates, inner_state = tree.cond_update(runs, inner, mean, state.inner_state, params, extra)
        return updates, AccumulateState(
            mini_step=jnp.where(last, 0, state.mini_step + 1),
            kept=jnp.where(last, 0, kept),
            gradient_step=state.gradient_step + runs,
            acc_grads=jax.tree.map(lambda a: jnp.where(last, 0, a), mean),
            inner_state=inner_state,
        )

    return init, update


@transformation(acts_on="coordinate")
def ema_params(decay: Decay, debias: bool = True):
    """Keep an exponential moving average of the parameters; updates pass through. Put it last in a chain.

    `averaged_params(state)` gives the average.

    Args:
        decay: share of the old average that stays at each step, in [0, 1).
        debias: let the decay begin at 0 and rise as (1 + t) / (10 + t), so that the initial parameters have little
            weight.

    Raises:
        ValueError: if update is called without params.

    Reference: Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the rising decay is
        that of TensorFlow's ExponentialMovingAverage.
    """

    def init(params):
        return EmaParamsState(jnp.zeros([], jnp.int32), jax.tree.map(tree.copy, params))

    def update(updates, state, params=None, **extra):
        checks.require(params, "params", "ema_params")
        t = state.count
        rate = jnp.minimum(decay, (1 + t) / (10 + t)) if debias else decay
        average = jax.tree.map(lambda a, w, u: a + (1 - rate) * (w + u - a), state.ema, params, updates)
        return updates, EmaParamsState(optax.safe_increment(t), average)

    return init, update


@transformation(acts_on="coordinate")
def tail_average(start: Count = 0):
    """Keep the mean of the parameters after each step since `start`; updates pass through. Put it last in a chain.

    `averaged_params(state)` gives the mean. With `start=0` it is the average of Polyak and Ruppert.

    Args:
        start: the first step whose parameters count, at least 0; before it the mean is the parameters themselves.

    Raises:
        ValueError: if update is called without params.

    Reference: Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
    """

    def init(params):
        return TailAverageState(jnp.zeros([], jnp.int32), jax.tree.map(tree.copy, params))

    def update(updates, state, params=None, **extra):
        checks.require(params, "params", "tail_average")
        number = jnp.maximum(state.count - start, 0) + 1
        average = jax.tree.map(lambda a, w, u: a + (w + u - a) / number, state.average, params, updates)
        return updates, TailAverageState(optax.safe_increment(state.count), average)

    return init, update


@transformation(acts_on="coordinate")
def latest_weights(every: Period, size: int = 4):
    """Keep the parameters of every k-th step, the last few of them; updates pass through. Put it last in a chain.

    `averaged_params(state)` gives their mean.

    Args:
        every: steps between two snapshots, at least 1.
        size: the number of snapshots kept, at least 1; the state is as many times as large as the parameters.

    Raises:
        ValueError: if size is less than 1, or update is called without params.

    Reference: Kaddour, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging",
        2022, arXiv:2209.14981.
    """
    check_int("latest_weights", "size", size)

    def init(params):
        zero = jnp.zeros([], jnp.int32)
        return LatestWeightsState(zero, jnp.copy(zero), tuple(jax.tree.map(tree.copy, params) for _ in range(size)))

    def update(updates, state, params=None, **extra):
        checks.require(params, "params", "latest_weights")
        t = optax.safe_increment(state.count)
        takes = jnp.mod(t, every) < 1
        now = jax.tree.map(jnp.add, params, updates)
        weights = tree.where(takes, (now, *state.weights[:-1]), state.weights)
        return updates, LatestWeightsState(t, state.taken + takes, weights)

    return init, update


AVERAGES = (EmaParamsState, TailAverageState, LatestWeightsState)


def averaged_params(state: Any, params: Any = None) -> Any:
    """The average that `ema_params`, `tail_average` or `latest_weights` keeps, anywhere in an optimizer's state.

    Args:
        state: the state of an optimizer that contains one of them once.
        params: where given, the average is cast to the dtypes of this tree.

    Raises:
        ValueError: if there is no such average in the state, or more than one.
    """
    found = [x for kind in AVERAGES for x in through_views(state, kind, lambda own: own.average)]
    if len(found) != 1:
        remedy = (
            "give the part of the state that holds just one" if found else "chain ema_params(...) after the optimizer"
        )
        raise ValueError(f"averaged_params: the state must hold one ema_params, it holds {len(found)}; {remedy}")
    return found[0] if params is None else tree.cast_like(found[0], params)


@transformation(acts_on="coordinate")
def lookahead(
    fast_optimizer: GradientTransformation,
    sync_period: Period,
    slow_step_size: Fraction,
    reset_state: bool = False,
):
    """Every k steps of the fast rule the slow weights move a share α towards the fast ones, which continue from there.

    The slow weights are kept in the state, so params are plain params (Optax wants them in pairs).

    Args:
        fast_optimizer: the inner rule.
        sync_period: k, at least 1.
        slow_step_size: α, in [0, 1].
        reset_state: reset the inner rule's state at each synchronisation.

    Raises:
        ValueError: if update is called without params.

    Reference: Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019, arXiv:1907.08610, Algorithm 1.
    """

    def init(params):
        slow = jax.tree.map(tree.copy, params)
        return LookaheadState(jnp.zeros([], jnp.int32), slow, fast_optimizer.init(params))

    def update(updates, state, params=None, **extra):
        checks.require(params, "params", "lookahead")
        updates, fast_state = fast_optimizer.update(updates, state.inner_state, params, **extra)
        sync = state.steps_since_sync + 1 >= sync_period
        slow = jax.tree.map(
            lambda s, w, u: jnp.where(sync, s + slow_step_size * (w + u - s), s), state.slow, params, updates
        )
        updates = jax.tree.map(lambda s, w, u: jnp.where(sync, s - w, u), slow, params, updates)
        if reset_state:
            fresh = fast_optimizer.init(jax.tree.map(jnp.add, params, updates))
            fast_state = tree.where(sync, fresh, fast_state)
        return updates, LookaheadState(jnp.where(sync, 0, state.steps_since_sync + 1), slow, fast_state)

    return init, update


@transformation(acts_on="coordinate")
def outer_nesterov(
    inner: GradientTransformation, sync_period: Period, learning_rate: NonNegative = 0.7, momentum: Decay = 0.9
):
    """Every k steps of the inner rule the slow weights take a step of Nesterov's momentum along what it has travelled.

    With Δ what the k steps took away, v = μ v + Δ, and the slow weights become s - η (Δ + μ v); the inner rule
    continues from there. With η = 1 and μ = 0 it is the inner rule.

    Args:
        inner: the inner rule, with its learning rate.
        sync_period: k, at least 1; hundreds.
        learning_rate: η, of the slow weights, at least 0.
        momentum: μ, in [0, 1).

    Raises:
        ValueError: if update is called without params.

    Reference: Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models", 2023,
        arXiv:2311.08105, Algorithm 1, with one worker.
    """

    def init(params):
        slow, zeros = jax.tree.map(tree.copy, params), jax.tree.map(jnp.zeros_like, params)
        return OuterNesterovState(jnp.zeros([], jnp.int32), slow, zeros, inner.init(params))

    def update(updates, state, params=None, **extra):
        checks.require(params, "params", "outer_nesterov")
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra)
        sync = state.steps_since_sync + 1 >= sync_period

        def leaf(s, v, w, u):
            delta = s - (w + u)
            v = jnp.where(sync, momentum * v + delta, v)
            s = jnp.where(sync, s - learning_rate * (delta + momentum * v), s)
            return jnp.where(sync, s - w, u), s, v

        updates, slow, trace = tree.map_leaves(leaf, 3, state.slow, state.trace, params, updates)
        steps = jnp.where(sync, 0, state.steps_since_sync + 1)
        return updates, OuterNesterovState(steps, slow, trace, inner_state)

    return init, update
