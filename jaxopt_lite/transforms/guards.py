"""Rules that keep bad gradients from the inner rule.

    zero_nans               NaN becomes 0, coordinate by coordinate
    skip_not_finite         a step with NaN or infinity anywhere is skipped
    skip_large_updates      a step with a norm above a bound is skipped

A skipped step changes nothing: the parameters, the moments and the count of the inner rule stay the same.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core.numbers import Positive
from jaxopt_lite.core.transformation import GradientTransformation, transformation

__all__ = ["skip_large_updates", "skip_not_finite", "zero_nans"]


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
