"""Adam and its variants: a mean gradient, divided by an estimate of the size of each coordinate.

    adam        m̂ / (√v̂ + ε)                             Kingma & Ba, 2015, arXiv:1412.6980
    nadam       (β₁ m̂' + (1 - β₁) ĝ) / (√v̂ + ε)          Dozat, 2016
    amsgrad     m̂ / (√max v̂ + ε)                         Reddi et al., 2018, arXiv:1904.09237
    adamax      m̂ / u,  u = max(β₂ u, |g| + ε)           Kingma & Ba, 2015, Section 7.1
    belief      as adam, v an average of (g - m)²        Zhuang et al., 2020, arXiv:2010.07468
    yogi        as adam, v -= (1 - β₂) sgn(v - g²) g²    Zaheer et al., 2018
    radam       as adam, rectified                       Liu et al., 2020, arXiv:1908.03265
    adan        (m̂ + β₂ d̂) / (√n̂ + ε)                    Xie et al., 2022, arXiv:2208.06677

where m, v are averages of g and |g|², d and n those of Adan's; a hat marks the division by 1 - βᵗ that removes the bias
towards the start at zero. The code multiplies by the scalar 1 / (1 - βᵗ) instead, because with several leaves of one
shape XLA's division is slower and rounds differently.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core.numbers import Decay, NonNegative, concrete
from jaxopt_lite.core.parameters import Dtype
from jaxopt_lite.core.transformation import transformation
from jaxopt_lite.tree import abs_sq, bias_correction, power, safe_sqrt

__all__ = [
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_amsgrad",
    "scale_by_belief",
    "scale_by_radam",
    "scale_by_yogi",
]


@transformation(acts_on="coordinate")
def scale_by_adam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: Dtype | None = None,
    *,
    nesterov: bool = False,
):
    """m̂ / (√v̂ + ε): the mean gradient, in units of its own root mean square.

    Args:
        b1: β₁, decay of the mean gradient m, in [0, 1).
        b2: β₂, decay of the mean square v, in [0, 1).
        eps: ε, added to the root in the denominator, at least 0.
        eps_root: added to v̂ inside the root, at least 0.
        mu_dtype: dtype of m in the state; None means that of the parameters, at least float32.
        nesterov: as NAdam, use β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ) in place of m̂.

    Reference: Kingma & Ba, "Adam", 2015, arXiv:1412.6980, Algorithm 1; Dozat, "Incorporating Nesterov Momentum into
        Adam", 2016.
    """

    def update(grads, state, params=None, **extra):
        t = optax.safe_increment(state.count)
        m_hat, correction = _m_hat(b1, t, nesterov), bias_correction(b2, t)

        def leaf(g, m, v):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs_sq(g)
            v_hat = v * correction
            return m_hat(m, g) / (safe_sqrt(v_hat + eps_root) + eps), m, v

        updates, mu, nu = tree.map_leaves(leaf, 3, grads, state.mu, state.nu)
        return updates, optax.ScaleByAdamState(count=t, mu=mu, nu=nu)

    return lambda params: _init_adam(params, mu_dtype), update


@transformation(acts_on="coordinate")
def scale_by_amsgrad(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: Dtype | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    form: Literal["optax", "torch"] = "optax",
):
    """m̂ / (√max v̂ + ε): Adam whose denominator never shrinks.

    Args:
        b1: β₁, decay of the mean gradient m, in [0, 1).
        b2: β₂, decay of the mean square v, in [0, 1).
        eps: ε, added to the root in the denominator, at least 0.
        eps_root: added to v̂ inside the root, at least 0.
        mu_dtype: dtype of m in the state; None means that of the parameters, at least float32.
        bias_correction_mu: divide m by 1 - β₁ᵗ.
        bias_correction_nu: divide v by 1 - β₂ᵗ.
        form: "optax" takes the maximum of the corrected v; "torch" corrects the maximum of v, as PyTorch does.

    Reference: Reddi et al., "On the Convergence of Adam and Beyond", 2018, arXiv:1904.09237, Algorithm 2.
    """

    def init(params):
        nu_max = jax.tree.map(lambda p: tree.real_full_like(p, 0), params)
        return optax.ScaleByAmsgradState(*_init_adam(params, mu_dtype), nu_max=nu_max)

    def update(grads, state, params=None, **extra):
        t = optax.safe_increment(state.count)
        correction_mu = bias_correction(b1, t) if bias_correction_mu else 1
        correction_nu = bias_correction(b2, t) if bias_correction_nu else 1

        def leaf(g, m, v, largest):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs_sq(g)
            if form == "optax":
                largest = v_hat = jnp.maximum(largest, v * correction_nu)
            else:
                largest = jnp.maximum(largest, v)
                v_hat = largest * correction_nu
            return m * correction_mu / (safe_sqrt(v_hat + eps_root) + eps), m, v, largest

        updates, mu, nu, nu_max = tree.map_leaves(leaf, 4, grads, state.mu, state.nu, state.nu_max)
        return updates, optax.ScaleByAmsgradState(count=t, mu=mu, nu=nu, nu_max=nu_max)

    return init, update


@transformation(acts_on="coordinate")
def scale_by_adamax(b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8):
    """m̂ / u with u = max(β₂ u, |g| + ε): Adam with the infinity norm.

    Args:
        b1: β₁, decay of the mean gradient m, in [0, 1).
        b2: β₂, decay of the largest gradient u, in [0, 1).
        eps: ε, at least 0.

    Reference: Kingma & Ba, "Adam", 2015, arXiv:1412.6980, Algorithm 2.
    """

    def update(grads, state, params=None, **extra):
        t = optax.safe_increment(state.count)
        correction = bias_correction(b1, t)

        def leaf(g, m, u):
            m = b1 * m + (1 - b1) * g
            u = jnp.maximum(b2 * u, jnp.abs(g) + eps)
            return m * correction / u, m, u

        updates, mu, nu = tree.map_leaves(leaf, 3, grads, state.mu, state.nu)
        return updates, optax.ScaleByAdamState(count=t, mu=mu, nu=nu)

    return _init_adam, update


@transformation(acts_on="coordinate")
def scale_by_belief(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
):
    """Adam with v an average of |g - m|²: small steps where gradients surprise, large ones where they do not.

    Args:
        b1: β₁, decay of the mean gradient m, in [0, 1).
        b2: β₂, decay of v, the mean square of g - m, in [0, 1).
        eps: ε, added to the root in the denominator, at least 0.
        eps_root: added to v at every step, at least 0.
        nesterov: use NAdam's combination of m̂ and the gradient, as in `scale_by_adam`.

    Reference: Zhuang et al., "AdaBelief", 2020, arXiv:2010.07468, Algorithm 2.
    """

    def update(grads, state, params=None, **extra):
        t = optax.safe_increment(state.count)
        m_hat, correction = _m_hat(b1, t, nesterov), bias_correction(b2, t)

        def leaf(g, m, v):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs_sq(g - m) + eps_root
            v_hat = v * correction
            return m_hat(m, g) / (safe_sqrt(v_hat) + eps), m, v

        updates, mu, nu = tree.map_leaves(leaf, 3, grads, state.mu, state.nu)
        return updates, optax.ScaleByBeliefState(count=t, mu=mu, nu=nu)

    return lambda params: optax.ScaleByBeliefState(*_init_adam(params)), update


@transformation(acts_on="coordinate")
def scale_by_yogi(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    eps_root: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 1e-6,
):
    """Adam with v -= (1 - β₂) sgn(v - |g|²) |g|²: the scale grows additively, not multiplicatively.

    Args:
        b1: β₁, decay of the mean gradient m, in [0, 1).
        b2: β₂, decay of the mean square v, in [0, 1).
        eps: ε, added to the root in the denominator, at least 0.
        eps_root: added to v̂ inside the root, at least 0.
        initial_accumulator_value: first value of v, at least 0. Optax begins m with it too: see `docs/differences.md`.

    Reference: Zaheer et al., "Adaptive Methods for Nonconvex Optimization", 2018, Algorithm 2.
    """

    def init(params):
        nu = jax.tree.map(lambda p: tree.real_full_like(p, initial_accumulator_value), params)
        return _init_adam(params)._replace(nu=nu)

    def update(grads, state, params=None, **extra):
        t = optax.safe_increment(state.count)
        correction_mu, correction_nu = bias_correction(b1, t), bias_correction(b2, t)

        def leaf(g, m, v):
            m = b1 * m + (1 - b1) * g
            v = v - (1 - b2) * jnp.sign(v - abs_sq(g)) * abs_sq(g)
            return m * correction_mu / (safe_sqrt(v * correction_nu + eps_root) + eps), m, v

        updates, mu, nu = tree.map_leaves(leaf, 3, grads, state.mu, state.nu)
        return updates, optax.ScaleByAdamState(count=t, mu=mu, nu=nu)

    return init, update


@transformation(acts_on="coordinate")
def scale_by_radam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: NonNegative = 5.0,
    *,
    nesterov: bool = False,
):
    """Adam times the rectification r(ρ), and plain momentum while ρ is below the threshold.

    Args:
        b1: β₁, decay of the mean gradient m, in [0, 1).
        b2: β₂, decay of the mean square v, in [0, 1).
        eps: ε, added to the root in the denominator, at least 0.
        eps_root: added to v̂ inside the root, at least 0.
        threshold: length ρ of the simple moving average from which the variance is tractable; at least 4.
        nesterov: use NAdam's combination of m̂ and the gradient, as in `scale_by_adam`.

    Raises:
        ValueError: if the threshold is below 4.

    Reference: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020, arXiv:1908.03265,
        Algorithm 2.
    """

    if concrete(threshold) and threshold < 4:
        raise ValueError(f"scale_by_radam: threshold must be at least 4, got {threshold}")

    def update(grads, state, params=None, **extra):
        t = optax.safe_increment(state.count)
        rho_inf = 2 / (1 - b2) - 1
        m_hat, correction = _m_hat(b1, t, nesterov), bias_correction(b2, t)
        rho = rho_inf - 2 * t * power(b2, t) * correction
        tractable = rho >= threshold
        # Where ρ is not tractable, 5 and 6 keep the root, the quotient and their derivatives finite.
        long, limit = jnp.where(tractable, rho, 5.0), jnp.where(tractable, rho_inf, 6.0)
        r = safe_sqrt(((long - 4) * (long - 2) * limit) / ((limit - 4) * (limit - 2) * long))

        def leaf(g, m, v):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs_sq(g)
            plain = m_hat(m, g)
            rectified = r * plain / (safe_sqrt(v * correction + eps_root) + eps)
            return jnp.where(tractable, rectified, plain), m, v

        updates, mu, nu = tree.map_leaves(leaf, 3, grads, state.mu, state.nu)
        return updates, optax.ScaleByAdamState(count=t, mu=mu, nu=nu)

    return _init_adam, update


@transformation(acts_on="coordinate")
def scale_by_adan(
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
):
    """(m̂ + β₂ d̂) / (√n̂ + ε): Adam with an average d of gradient differences, and n of |g + β₂ (g - g₋)|².

    Args:
        b1: β₁, decay of the mean gradient m, in [0, 1).
        b2: β₂, decay of d, the mean difference of successive gradients, and its weight, in [0, 1). Optax weighs it with
            1 - β₂: see `docs/differences.md`.
        b3: β₃, decay of the mean square n, in [0, 1).
        eps: ε, added to the root in the denominator, at least 0.
        eps_root: added to n̂ inside the root, at least 0.

    Reference: Xie et al., "Adan", 2022, arXiv:2208.06677, Algorithm 1, whose β are one minus these.
    """

    def init(params):
        m, v, g = (jax.tree.map(jnp.zeros_like, params) for _ in range(3))
        n = jax.tree.map(lambda p: tree.real_full_like(p, 0), params)
        return optax.ScaleByAdanState(m=m, v=v, n=n, g=g, t=jnp.zeros([], jnp.int32))

    def update(grads, state, params=None, **extra):
        t = optax.safe_increment(state.t)
        correction_m, correction_d, correction_n = (bias_correction(b, t) for b in (b1, b2, b3))

        def leaf(g, m, d, n, g_before):
            difference = jnp.where(state.t == 0, 0, g - g_before)
            m = b1 * m + (1 - b1) * g
            d = b2 * d + (1 - b2) * difference
            n = b3 * n + (1 - b3) * abs_sq(g + b2 * difference)
            step = m * correction_m + b2 * d * correction_d
            return step / (safe_sqrt(n * correction_n + eps_root) + eps), m, d, n

        updates, m, v, n = tree.map_leaves(leaf, 4, grads, state.m, state.v, state.n, state.g)
        return updates, optax.ScaleByAdanState(m=m, v=v, n=n, g=grads, t=t)

    return init, update


def _init_adam(params, mu_dtype=None):
    mu = jax.tree.map(lambda p: tree.zeros_like(p, mu_dtype), params)
    nu = jax.tree.map(lambda p: tree.real_full_like(p, 0), params)
    return optax.ScaleByAdamState(count=jnp.zeros([], jnp.int32), mu=mu, nu=nu)


def _m_hat(b1, t, nesterov):
    """m̂ as a function of m and g; with `nesterov`, Dozat's combination of the next m̂ and ĝ."""
    now = bias_correction(b1, t)
    if not nesterov:
        return lambda m, g: m * now
    following = bias_correction(b1, t + 1)
    return lambda m, g: b1 * m * following + (1 - b1) * g * now
