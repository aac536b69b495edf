"""Rules that keep bad gradients from the inner rule.

    zero_nans               NaN becomes 0, coordinate by coordinate
    skip_not_finite         a step with NaN or infinity anywhere is skipped
    skip_large_updates      a step with a norm above a bound is skipped
    dynamic_loss_scale      g / s, of a loss times s; s falls where g is not finite     Micikevicius et al., 2018

A skipped step changes nothing: the parameters, the moments and the count of the inner rule stay the same.
"""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.loss_scale import DynamicLossScaleState, unscaled
from jaxopt_lite.core.numbers import Number, Positive, PositiveCount, Range
from jaxopt_lite.core.transformation import GradientTransformation, transformation

__all__ = ["dynamic_loss_scale", "skip_large_updates", "skip_not_finite", "zero_nans"]

Growth = Annotated[Number, Range(low=1.0, open_high=True)]
Share = Annotated[Number, Range(low=0.0, high=1.0, open_low=True, open_high=True)]


class SkipState(NamedTuple):
    """The number of skipped steps (int32), whether the last one was skipped (bool), and the inner state."""

    skipped: jax.Array
    last_skipped: jax.Array
    inner_state: Any


@transformation(acts_on="coordinate")
def zero_nans():
    """NaN becomes 0, coordinate by coordinate. Which leaves had one is in the state's `found_nan`."""

    def init(params):
        return optax.ZeroNansState(jax.tree.map(lambda p: jnp.array(False), params))

    def update(updates, state, params=None, **extra):
        found = jax.tree.map(lambda u: jnp.any(jnp.isnan(u)), updates)
        return jax.tree.map(lambda u: jnp.where(jnp.isnan(u), 0, u), updates), optax.ZeroNansState(found)

    return init, update


@transformation(acts_on="coordinate")
def skip_not_finite(inner: GradientTransformation):
    """Skip each step whose gradient is not finite everywhere.

    Args:
        inner: the transformation that sees only finite gradients.
    """
    return _skip(inner, lambda updates: ~tree.all_finite(updates))


@transformation(acts_on="coordinate")
def skip_large_updates(inner: GradientTransformation, max_norm: Positive):
    """Skip each step whose gradient has a global norm above a bound, or one that is not finite.

    Args:
        inner: the transformation that sees only the other gradients.
        max_norm: the largest norm that is let through, above 0.
    """
    return _skip(inner, lambda updates: ~(tree.global_norm(updates) <= max_norm))


def _skip(inner, is_bad):
    def init(params):
        return SkipState(jnp.zeros([], jnp.int32), jnp.array(False), inner.init(params))

    def update(updates, state, params=None, **extra):
        bad = is_bad(updates)
        updates, inner_state = tree.cond_update(~bad, inner, updates, state.inner_state, params, extra)
        return updates, SkipState(state.skipped + bad, bad, inner_state)

    return init, update


@transformation(acts_on="coordinate")
def dynamic_loss_scale(
    inner: GradientTransformation,
    init_scale: Positive = 2.0**16,
    growth_factor: Growth = 2.0,
    backoff_factor: Share = 0.5,
    growth_interval: PositiveCount = 2000.0,
    min_scale: Positive = 1.0,
):
    """Scale the loss for gradients in float16, by a factor s that adapts. Put it around the whole optimizer.

    The gradient g of s times the loss reaches the inner rule as g / s, in float32. Where g is not finite, the step is
    skipped (the parameters and the inner state stay as they are) and s falls; after some good steps in a row it rises.

    `fit`, `make_step`, sweeps and `minimize` find s in the state and multiply the loss by it before they differentiate.
    A loop of your own multiplies the loss by `state.scale` and gives that number to
    `update(grads, state, params, loss_scale=state.scale)`; without it the update is refused, because nobody can see in
    a gradient whether it was scaled. Skipped steps are counted in `state.skipped`.

    Args:
        inner: the optimizer, which sees the gradient of the loss as it is. Norms are clipped there.
        init_scale: s at first, above 0; a power of two divides without rounding.
        growth_factor: by which s rises, at least 1.
        backoff_factor: by which s falls, in (0, 1).
        growth_interval: steps without a gradient that is not finite after which s rises, above 0.
        min_scale: the least s, above 0.

    Raises:
        ValueError: if update is called without loss_scale, or, by a training step, if another rule is around it.

    Reference: Micikevicius et al., "Mixed Precision Training", 2018, arXiv:1710.03740, Section 3.2; the rule for the
        scale and its defaults are those of PyTorch's GradScaler.
    """

    def init(params):
        scale = jnp.array(init_scale, jnp.float32)
        return DynamicLossScaleState(scale, jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32), inner.init(params))

    def update(grads, state, params=None, *, loss_scale=None, **extra):
        checks.require(loss_scale, "loss_scale", "dynamic_loss_scale")
        grads = unscaled(grads, jnp.asarray(loss_scale, jnp.float32))
        good = tree.all_finite(grads)
        updates, inner_state = tree.cond_update(good, inner, grads, state.inner_state, params, extra)
        steps = jnp.where(good, state.good_steps + 1, 0)
        rises, risen = steps >= growth_interval, state.scale * growth_factor
        scale = jnp.where(rises & jnp.isfinite(risen), risen, state.scale)
        scale = jnp.where(good, scale, jnp.maximum(state.scale * backoff_factor, min_scale))
        return updates, DynamicLossScaleState(
            scale.astype(jnp.float32), jnp.where(rises, 0, steps), state.skipped + ~good, inner_state
        )

    return init, update
