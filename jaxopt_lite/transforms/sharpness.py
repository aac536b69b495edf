"""Sharpness-aware minimization: the gradient where the loss around the parameters is highest.

    sam         g(w + ρ g / ‖g‖)                             Foret et al., 2021, arXiv:2010.01412
    adaptive    g(w + ρ T² g / ‖T g‖),  T = |w| + η          Kwon et al., 2021, arXiv:2102.11600

A step takes two gradients at one batch. The second one is that of `value_fn`, the loss of the batch as a function of
the parameters, which `fit`, sweeps, `make_step` and `minimize` give; it is made within the compiled step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.method import Objective
from jaxopt_lite.core.numbers import NonNegative
from jaxopt_lite.core.transformation import GradientTransformation, transformation

__all__ = ["sam"]


class SamState(NamedTuple):
    """The state of the inner rule."""

    inner_state: Any


@transformation(acts_on="tree")
def sam(inner: GradientTransformation, rho: NonNegative = 0.05, *, adaptive: bool = False, eta: NonNegative = 0.01):
    """The inner rule with the gradient at w + ρ g / ‖g‖, the worst point at the distance ρ to first order.

    Put it around all other rules: it has to see all parameters, and the gradient of `value_fn` itself. Outside the
    loops of this package, `update(grads, state, params, value_fn=lambda p: loss(p, batch, key))`. Parameters of 16 bits
    are moved in float32. A model's state, such as the means of a batch norm, is that at the parameters themselves.

    Args:
        inner: the rule, a whole optimizer.
        rho: ρ, the distance, at least 0; 0 is the inner rule. With `adaptive` about ten times as large.
        adaptive: measure the distance in units of T = |w| + η for each coordinate, so that it does not depend on the
            scale of the parameters.
        eta: η, at least 0; of the adaptive form alone.

    Raises:
        ValueError: if update is called without params or value_fn, or the rule does not see all parameters.

    Reference: Foret, Kleiner, Mobahi & Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving
        Generalization", 2021, arXiv:2010.01412, Algorithm 1; Kwon, Kim, Park & Choi, "ASAM", 2021, arXiv:2102.11600,
        Eq. (7).
    """

    def update(grads, state, params=None, *, value_fn: Any = None, **extra):
        checks.require(params, "params", "sam")
        checks.require(value_fn, "value_fn", "sam")
        _check_whole(params)
        units = jax.tree.map(lambda w: jnp.abs(w) + eta if adaptive else jnp.ones_like(jnp.abs(w)), params)
        scaled = jax.tree.map(jnp.multiply, units, grads)
        norm = tree.global_norm(scaled)
        distance = jnp.where(norm == 0, 0, rho / jnp.where(norm == 0, 1, norm))
        worst = jax.tree.map(lambda w, t, s: w + distance.astype(t.dtype) * t * s, params, units, scaled)
        _, _, there = Objective(value_fn).value_and_grad(worst)
        extra = {**extra, "value_fn": value_fn} | ({"grad": there} if "grad" in extra else {})
        updates, inner_state = inner.update(there, state.inner_state, params, **extra)
        return updates, SamState(inner_state)

    return lambda params: SamState(inner.init(params)), update


def _check_whole(params: Any) -> None:
    is_hidden = lambda x: isinstance(x, optax.MaskedNode)
    if any(map(is_hidden, jax.tree.leaves(params, is_leaf=is_hidden))):
        raise ValueError("sam must see all parameters: put it around masked and partition, sam(partition(...))")
