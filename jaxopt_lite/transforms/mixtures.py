"""Adam with other averages of the gradient, or another order of its steps.

    ademamix               (m̂₁ + α m₂) / (√v̂ + ε)                 Pagliardini et al., 2024, arXiv:2409.03137
    simplified ademamix    (m + α g) / (√v̂ + ε),  m = β₁ m + g     Morwani et al., 2025, arXiv:2502.02431
    adopt                  m = β₁ m + (1 - β₁) g / max(√v, ε)      Taniguchi et al., 2024, arXiv:2411.02853
    cautious               u where u g > 0, else 0, rescaled       Liang et al., 2024, arXiv:2411.16085

where m are averages of g and v is one of g². A hat marks the division by 1 - βᵗ. ADOPT divides by the v of the step
before, so that g and its divisor are independent, and averages afterwards.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core.numbers import Decay, NonNegative, Positive
from jaxopt_lite.core.parameters import Dtype
from jaxopt_lite.core.schedule import DecayOrSchedule, NonNegativeOrSchedule, Schedule
from jaxopt_lite.core.transformation import GradientTransformation, transformation
from jaxopt_lite.tree import abs_sq, bias_correction, safe_sqrt

__all__ = ["cautious", "scale_by_ademamix", "scale_by_adopt", "scale_by_simplified_ademamix"]


class AdemamixState(NamedTuple):
    """Steps done (int32, twice as in Optax), the fast and the slow mean gradient, and the mean square."""

    count: Any
    count_m2: Any
    m1: Any
    m2: Any
    nu: Any


class SimplifiedAdemamixState(NamedTuple):
    """Steps done (int32), the momentum and the mean square."""

    t: Any
    m: Any
    n: Any


@transformation(acts_on="coordinate")
def scale_by_ademamix(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: DecayOrSchedule = 0.9999,
    alpha: NonNegativeOrSchedule = 6.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: Dtype | None = None,
):
    """(m̂₁ + α m₂) / (√v̂ + ε): Adam with a second mean gradient that remembers ten thousand steps.

    Args:
        b1: β₁, decay of the fast mean gradient m₁, in [0, 1).
        b2: β₂, decay of the mean square v, in [0, 1).
        b3: β₃, decay of the slow mean gradient m₂, in [0, 1), or a schedule; the paper lets it rise from β₁.
        alpha: α, weight of m₂, at least 0, or a schedule; the paper lets it rise from 0.
        eps: ε, added to the root in the denominator, at least 0.
        eps_root: added to v̂ inside the root, at least 0.
        mu_dtype: dtype of m₁ and m₂ in the state; None means that of the parameters, at least float32.

    Reference: Pagliardini, Ablin & Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024, arXiv:2409.03137,
        Eq. (AdEMAMix).
    """

    def init(params):
        zeros = lambda: jax.tree.map(lambda p: tree.zeros_like(p, mu_dtype), params)
        nu = jax.tree.map(lambda p: tree.real_full_like(p, 0), params)
        return AdemamixState(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32), zeros(), zeros(), nu)

    def update(grads, state, params=None, **extra):
        t = optax.safe_increment(state.count)
        slow, weight = (at(x, state.count_m2) for x in (b3, alpha))
        correction_1, correction_2 = bias_correction(b1, t), bias_correction(b2, t)

        def leaf(g, m1, m2, v):
            m1 = b1 * m1 + (1 - b1) * g
            m2 = slow * m2 + (1 - slow) * g
            v = b2 * v + (1 - b2) * abs_sq(g)
            return (m1 * correction_1 + weight * m2) / (safe_sqrt(v * correction_2 + eps_root) + eps), m1, m2, v

        updates, m1, m2, nu = tree.map_leaves(leaf, 4, grads, state.m1, state.m2, state.nu)
        return updates, AdemamixState(t, optax.safe_increment(state.count_m2), m1, m2, nu)

    return init, update


@transformation(acts_on="coordinate")
def scale_by_simplified_ademamix(
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: NonNegativeOrSchedule = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
):
    """(m + α g) / (√v̂ + ε) with m = β₁ m + g: one momentum, and the gradient itself beside it.

    m is a sum and not a mean, so rates are 1 - β₁ times those of Adam.

    Args:
        b1: β₁, decay of the momentum m, in [0, 1).
        b2: β₂, decay of the mean square v, in [0, 1).
        alpha: α, weight of the gradient, at least 0, or a schedule.
        eps: ε, added to the root in the denominator, at least 0.
        eps_root: added to v̂ inside the root, at least 0.

    Reference: Morwani et al., "Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD Variants",
        2025, arXiv:2502.02431, Section 5.
    """

    def init(params):
        m = jax.tree.map(jnp.zeros_like, params)
        return SimplifiedAdemamixState(
            jnp.zeros([], jnp.int32), m, jax.tree.map(lambda p: tree.real_full_like(p, 0), params)
        )

    def update(grads, state, params=None, **extra):
        t = optax.safe_increment(state.t)
        weight, correction = at(alpha, state.t), bias_correction(b2, t)

        def leaf(g, m, v):
            m = b1 * m + g
            v = b2 * v + (1 - b2) * abs_sq(g)
            return (m + weight * g) / (safe_sqrt(v * correction + eps_root) + eps), m, v

        updates, m, n = tree.map_leaves(leaf, 3, grads, state.m, state.n)
        return updates, SimplifiedAdemamixState(t, m, n)

    return init, update


@transformation(acts_on="coordinate")
def scale_by_adopt(
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: Positive = 1e-6,
    mu_dtype: Dtype | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], jax.Array] | None = None,
):
    """m = β₁ m + (1 - β₁) g / max(√v, ε) with the v of the step before: Adam that converges with any β₂.

    The first step only measures v.

    Args:
        b1: β₁, decay of m, in [0, 1).
        b2: β₂, decay of the mean square v, in [0, 1).
        eps: ε, the least divisor, above 0.
        mu_dtype: dtype of m in the state; None means that of the parameters, at least float32.
        nesterov: take β₁ m + (1 - β₁) g / max(√v, ε) once more, as the update.
        use_clipping: bound the normalised gradient.
        clip_value_fn: that bound, a function of the number t of steps before this one; None is t^¼.

    Reference: Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any β₂ with the Optimal Rate", 2024,
        arXiv:2411.02853, Algorithm 2.
    """

    def init(params):
        mu = jax.tree.map(lambda p: tree.zeros_like(p, mu_dtype), params)
        nu = jax.tree.map(lambda p: tree.real_full_like(p, 0), params)
        return optax.ScaleByAdamState(count=jnp.zeros([], jnp.int32), mu=mu, nu=nu)

    def update(grads, state, params=None, **extra):
        is_first = state.count == 0
        t = state.count.astype(jnp.result_type(float))
        bound = t**0.25 if clip_value_fn is None else clip_value_fn(t)

        def leaf(g, m, v):
            normal = g / jnp.maximum(safe_sqrt(v), eps)
            if use_clipping:  # by modulus: the same as by value for real gradients
                size = jnp.abs(normal)
                normal = jnp.where(size > bound, normal * (bound / jnp.where(size > bound, size, 1)), normal)
            new_m = b1 * m + (1 - b1) * normal
            u = b1 * new_m + (1 - b1) * normal if nesterov else new_m
            v = jnp.where(is_first, abs_sq(g), b2 * v + (1 - b2) * abs_sq(g))
            return jnp.where(is_first, 0, u), jnp.where(is_first, m, new_m), v

        updates, mu, nu = tree.map_leaves(leaf, 3, grads, state.mu, state.nu)
        return updates, optax.ScaleByAdamState(count=optax.safe_increment(state.count), mu=mu, nu=nu)

    return init, update


class CautiousState(NamedTuple):
    """The state of the inner rule."""

    inner_state: Any


@transformation(acts_on="leaf")
def cautious(inner: GradientTransformation, eps: Positive = 1e-3):
    """The updates of the inner rule where they do not oppose the gradient: u g < 0, else 0.

    What is left of a leaf is divided by the share of its coordinates that is left, so that its mean size stays. Put it
    around a whole optimizer, whose updates descend.

    Args:
        inner: the rule.
        eps: the least share, above 0.

    Reference: Liang, Chen, Liu, Liu & Liu, "Cautious Optimizers: Improving Training with One Line of Code", 2024,
        arXiv:2411.16085, Algorithm 1; the share as in their code.
    """

    def update(grads, state, params=None, **extra):
        updates, inner_state = inner.update(grads, state.inner_state, params, **extra)

        def leaf(g, u):
            agrees = jnp.real(jnp.conj(u) * g) < 0
            share = jnp.mean(agrees, dtype=u.real.dtype)
            return jnp.where(agrees, u / jnp.maximum(share, eps).astype(u.real.dtype), 0)

        return jax.tree.map(leaf, grads, updates), CautiousState(inner_state)

    return lambda params: CautiousState(inner.init(params)), update


def at(number: Any, count: jax.Array) -> Any:
    """A number, or the value of a schedule after `count` steps."""
    return number(count) if isinstance(number, Schedule) else number
