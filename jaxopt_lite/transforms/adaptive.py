"""Rules that divide each coordinate, or each leaf, by an estimate of its own scale. `adam.py` has Adam's variants.

    rss         g / √(Σ g² + ε)                          Duchi et al., 2011 (Adagrad)
    rms         g / √(v + ε)  or  g / (√v + ε)           Hinton, lecture 6e, 2012
    stddev      g / √(v - m² + ε)                        Graves, 2013, arXiv:1308.0850
    adadelta    g √(e + ε) / √(v + ε)                    Zeiler, 2012, arXiv:1212.5701
    novograd    m = β₁ m + g / (√v + ε) + λ w            Ginsburg et al., 2019, arXiv:1905.11286; v a number per leaf
    rprop       sgn(g) times a step size per coordinate  Riedmiller & Braun, 1993

where m, v, e are averages of g, |g|² and of the squares of past updates.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.numbers import Decay, NonNegative, Positive, concrete
from jaxopt_lite.core.parameters import Dtype
from jaxopt_lite.core.transformation import transformation
from jaxopt_lite.tree import abs_sq, safe_sqrt

__all__ = [
    "scale_by_adadelta",
    "scale_by_novograd",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_stddev",
]


class ScaleByRmsWithCountState(NamedTuple):
    """The state of `scale_by_rms` with bias correction."""

    count: Any
    nu: Any


class ScaleByRStdDevWithCountState(NamedTuple):
    """The state of `scale_by_stddev` with bias correction."""

    count: Any
    mu: Any
    nu: Any


@transformation(acts_on="coordinate")
def scale_by_rss(initial_accumulator_value: NonNegative = 0.1, eps: NonNegative = 1e-7):
    """g / √(Σ g² + ε): in units of the root of the sum of all squares so far; 0 where that sum is 0.

    Args:
        initial_accumulator_value: first value of the sum of squares, at least 0.
        eps: ε, added to the sum inside the root, at least 0.

    Reference: Duchi et al., "Adaptive Subgradient Methods", 2011.
    """

    def init(params):
        return optax.ScaleByRssState(jax.tree.map(lambda p: tree.real_full_like(p, initial_accumulator_value), params))

    def update(grads, state, params=None, **extra):
        def leaf(g, s):
            s = s + abs_sq(g)
            zero = s == 0
            return jnp.where(zero, 0, g / jnp.sqrt(jnp.where(zero, 1, s + eps))), s

        updates, s = tree.map_leaves(leaf, 2, grads, state.sum_of_squares)
        return updates, optax.ScaleByRssState(s)

    return init, update


@transformation(acts_on="coordinate")
def scale_by_rms(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
):
    """g / √(v + ε): in units of its own root mean square.

    Args:
        decay: decay of the mean square v, in [0, 1).
        eps: ε, added to v or to its root (see `eps_in_sqrt`), at least 0.
        initial_scale: first value of v, at least 0.
        eps_in_sqrt: √(v + ε) if true (Optax, TensorFlow), √v + ε if false (PyTorch).
        bias_correction: divide v by 1 - decayᵗ.

    Reference: Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012.
    """

    def init(params):
        nu = jax.tree.map(lambda p: tree.real_full_like(p, initial_scale), params)
        if bias_correction:
            return ScaleByRmsWithCountState(count=jnp.zeros([], jnp.int32), nu=nu)
        return optax.ScaleByRmsState(nu=nu)

    def update(grads, state, params=None, **extra):
        t, correction = _count(state, decay, bias_correction)

        def leaf(g, v):
            v = decay * v + (1 - decay) * abs_sq(g)
            return g / _root(v / correction, eps, eps_in_sqrt), v

        updates, nu = tree.map_leaves(leaf, 2, grads, state.nu)
        if bias_correction:
            return updates, ScaleByRmsWithCountState(count=t, nu=nu)
        return updates, optax.ScaleByRmsState(nu=nu)

    return init, update


@transformation(acts_on="coordinate")
def scale_by_stddev(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
):
    """g / √(v - |m|² + ε): in units of its own standard deviation (centred RMSProp).

    Args:
        decay: decay of the mean m and the mean square v, in [0, 1).
        eps: ε, added to v or to its root (see `eps_in_sqrt`), at least 0.
        initial_scale: first value of v, at least 0.
        eps_in_sqrt: √(v - |m|² + ε) if true, √(v - |m|²) + ε if false (PyTorch).
        bias_correction: divide m and v by 1 - decayᵗ.

    Reference: Graves, "Generating Sequences With Recurrent Neural Networks", 2013, arXiv:1308.0850, Eq. (38)-(45).
    """

    def init(params):
        mu = jax.tree.map(jnp.zeros_like, params)
        nu = jax.tree.map(lambda p: tree.real_full_like(p, initial_scale), params)
        if bias_correction:
            return ScaleByRStdDevWithCountState(count=jnp.zeros([], jnp.int32), mu=mu, nu=nu)
        return optax.ScaleByRStdDevState(mu=mu, nu=nu)

    def update(grads, state, params=None, **extra):
        t, correction = _count(state, decay, bias_correction)

        def leaf(g, m, v):
            m = decay * m + (1 - decay) * g
            v = decay * v + (1 - decay) * abs_sq(g)
            # Rounding can bring the variance of a constant gradient below zero, where the root is not a number.
            variance = jnp.maximum(v / correction - abs_sq(m / correction), 0)
            return g / _root(variance, eps, eps_in_sqrt), m, v

        updates, mu, nu = tree.map_leaves(leaf, 3, grads, state.mu, state.nu)
        if bias_correction:
            return updates, ScaleByRStdDevWithCountState(count=t, mu=mu, nu=nu)
        return updates, optax.ScaleByRStdDevState(mu=mu, nu=nu)

    return init, update


@transformation(acts_on="coordinate")
def scale_by_adadelta(rho: Decay = 0.9, eps: NonNegative = 1e-6):
    """g √(e + ε) / √(v + ε): gradients in units of their size, times the size of past updates.

    Args:
        rho: decay of both averages, of squared gradients and of squared updates, in [0, 1).
        eps: ε, added to both inside the roots, at least 0.

    Reference: Zeiler, "ADADELTA", 2012, arXiv:1212.5701, Algorithm 1.
    """

    def init(params):
        zeros = [jax.tree.map(lambda p: tree.real_full_like(p, 0), params) for _ in range(2)]
        return optax.ScaleByAdaDeltaState(e_g=zeros[0], e_x=zeros[1])

    def update(grads, state, params=None, **extra):
        def leaf(g, v, e):
            v = rho * v + (1 - rho) * abs_sq(g)
            u = safe_sqrt(e + eps) / safe_sqrt(v + eps) * g
            return u, v, rho * e + (1 - rho) * abs_sq(u)

        updates, e_g, e_x = tree.map_leaves(leaf, 3, grads, state.e_g, state.e_x)
        return updates, optax.ScaleByAdaDeltaState(e_g=e_g, e_x=e_x)

    return init, update


@transformation(acts_on="leaf")
def scale_by_novograd(
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mu_dtype: Dtype | None = None,
):
    """m = β₁ m + g / (√v + ε) + λ w, with v an average of ‖g‖², one number for each leaf.

    Args:
        b1: β₁, decay of the momentum m, in [0, 1).
        b2: β₂, decay of v, in [0, 1); the first v is the first ‖g‖².
        eps: ε, added to the root in the denominator, at least 0.
        eps_root: added to v inside the root, at least 0.
        weight_decay: λ, weight of the parameter w in m, at least 0.
        mu_dtype: dtype of m in the state; None means that of the parameters, at least float32.

    Raises:
        ValueError: if update is called without params.

    Reference: Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments", 2019, arXiv:1905.11286,
        Algorithm 1.
    """

    def init(params):
        mu = jax.tree.map(lambda p: tree.zeros_like(p, mu_dtype), params)
        nu = jax.tree.map(lambda p: jnp.zeros([], tree.real_dtype(tree.dtype_of(p))), params)
        return optax.ScaleByNovogradState(count=jnp.zeros([], jnp.int32), mu=mu, nu=nu)

    def update(grads, state, params=None, **extra):
        checks.require(params, "params", "scale_by_novograd")

        def leaf(g, w, m, v):
            norm_sq = jnp.sum(abs_sq(g))
            v = jnp.where(state.count == 0, norm_sq, b2 * v + (1 - b2) * norm_sq)
            m = b1 * m + g / (safe_sqrt(v + eps_root) + eps) + weight_decay * w
            return m, m, v

        updates, mu, nu = tree.map_leaves(leaf, 3, grads, params, state.mu, state.nu)
        return updates, optax.ScaleByNovogradState(count=optax.safe_increment(state.count), mu=mu, nu=nu)

    return init, update


@transformation(acts_on="coordinate")
def scale_by_rprop(
    learning_rate: NonNegative,
    eta_minus: Positive = 0.5,
    eta_plus: Positive = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: NonNegative = 50.0,
):
    """sgn(g) times a step size per coordinate, which grows while signs agree and shrinks when they change.

    Args:
        learning_rate: the first step size of every coordinate, at least 0; a number.
        eta_minus: factor after a change of sign (that step is not taken), above 0, at most 1.
        eta_plus: factor after a repeated sign, at least 1.
        min_step_size: lower bound of the step sizes, at least 0.
        max_step_size: upper bound of the step sizes, at least `min_step_size`.

    Raises:
        ValueError: if the bounds, or the factors, are the wrong way round.

    Reference: Riedmiller & Braun, "A Direct Adaptive Method for Faster Backpropagation Learning", 1993.
    """

    if concrete(eta_minus, eta_plus) and not eta_minus <= 1 <= eta_plus:
        raise ValueError(f"scale_by_rprop: eta_minus <= 1 <= eta_plus must hold, got {eta_minus} and {eta_plus}")
    if concrete(min_step_size, max_step_size) and min_step_size > max_step_size:
        raise ValueError(
            f"scale_by_rprop: min_step_size must be at most max_step_size, got {min_step_size} and {max_step_size}"
        )

    def init(params):
        steps = jax.tree.map(lambda p: jnp.full_like(p, learning_rate), params)
        return optax.ScaleByRpropState(step_sizes=steps, prev_updates=jax.tree.map(jnp.zeros_like, params))

    def update(grads, state, params=None, **extra):
        def leaf(g, step, before):
            agreement = jnp.sign(g) * jnp.sign(before)
            changed = jnp.clip(step * jnp.where(agreement > 0, eta_plus, eta_minus), min_step_size, max_step_size)
            step = jnp.where(agreement == 0, step, changed)
            u = jnp.where(agreement < 0, 0, step * jnp.sign(g))
            return u, step, u

        updates, steps, before = tree.map_leaves(leaf, 3, grads, state.step_sizes, state.prev_updates)
        return updates, optax.ScaleByRpropState(step_sizes=steps, prev_updates=before)

    return init, update


def _count(state, decay, bias_correction):
    """The step and 1 - decayᵗ, where a rule that may correct its bias does so."""
    if not bias_correction:
        return None, 1
    t = optax.safe_increment(state.count)
    return t, 1 - tree.power(decay, t)


def _root(v, eps, eps_in_sqrt):
    return safe_sqrt(v + eps) if eps_in_sqrt else safe_sqrt(v) + eps
