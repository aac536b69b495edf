"""Rules that average gradients over time, or keep only their direction.

trace       v = μ v + g                      heavy ball; Polyak, 1964
nesterov    g + μ v                          Nesterov, 1983, in the form of Sutskever et al., 2013
ema         v = β v + (1 - β) g              averaged form; the same path with a (1 - β) times smaller step; with
                                             `nesterov` β v + (1 - β) g
sign        sgn(g)                           Bernstein et al., 2018, arXiv:1802.04434
lion        sgn(β₁ m + (1 - β₁) g)           Chen et al., 2023, arXiv:2302.06675
"""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core.numbers import Decay, NonNegative
from jaxopt_lite.core.parameters import Dtype
from jaxopt_lite.core.transformation import transformation

__all__ = ["ema", "scale_by_lion", "scale_by_sign", "trace"]


@transformation(acts_on="coordinate")
def trace(decay: Decay, nesterov: bool = False, accumulator_dtype: Dtype | None = None):
    """v = μ v + g: the heavy ball. With `nesterov`, the update is g + μ v.

    Args:
        decay: μ, decay of the velocity v, in [0, 1).
        nesterov: Nesterov momentum, g + μ v in place of v.
        accumulator_dtype: dtype of v in the state; None means that of the parameters, at least float32.

    Reference: Polyak, 1964; Sutskever et al., "On the Importance of Initialization and Momentum", 2013.
    """

    def init(params):
        return optax.TraceState(trace=jax.tree.map(lambda p: tree.zeros_like(p, accumulator_dtype), params))

    def update(grads, state, params=None, **extra):
        def leaf(g, v):
            v = decay * v + g
            return (g + decay * v if nesterov else v), v

        updates, v = tree.map_leaves(leaf, 2, grads, state.trace)
        return updates, optax.TraceState(trace=v)

    return init, update


@transformation(acts_on="coordinate")
def ema(decay: Decay, debias: bool = True, accumulator_dtype: Dtype | None = None, *, nesterov: bool = False):
    """v = β v + (1 - β) g: the exponential moving average of gradients.

    With `nesterov`, the update is β v + (1 - β) g of the new v.

    Args:
        decay: β, decay of the average v, in [0, 1).
        debias: divide by 1 - βᵗ, which removes the pull of the start at zero.
        accumulator_dtype: dtype of v in the state; None means that of the parameters, at least float32.
        nesterov: Nesterov momentum, in the form of Dozat, 2016: with `debias` v is divided by 1 - β^(t+1) and g by
            1 - βᵗ.
    """

    def init(params):
        zeros = jax.tree.map(lambda p: tree.zeros_like(p, accumulator_dtype), params)
        return optax.EmaState(count=jnp.zeros([], jnp.int32), ema=zeros)

    def update(grads, state, params=None, **extra):
        t = optax.safe_increment(state.count)
        correction = 1 - tree.power(decay, t) if debias else 1
        next_correction = 1 - tree.power(decay, t + 1) if debias and nesterov else 1

        def leaf(g, v):
            v = decay * v + (1 - decay) * g
            return (decay * v / next_correction + (1 - decay) * g / correction if nesterov else v / correction), v

        updates, v = tree.map_leaves(leaf, 2, grads, state.ema)
        return updates, optax.EmaState(count=t, ema=v)

    return init, update


@transformation(acts_on="coordinate")
def scale_by_sign():
    """sgn(g): the sign of each coordinate (0 at 0; g / |g| for complex g).

    Reference: Bernstein et al., "signSGD", 2018, arXiv:1802.04434.
    """

    def update(grads, state, params=None, **extra):
        return jax.tree.map(jnp.sign, grads), state

    return lambda params: optax.EmptyState(), update


@transformation(acts_on="coordinate")
def scale_by_lion(
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: Dtype | None = None,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: NonNegative = 1.0,
):
    """sgn(β₁ m + (1 - β₁) g), then m = β₂ m + (1 - β₂) g: the sign of an interpolated momentum.

    Args:
        b1: β₁, weight of the momentum in the update, in [0, 1).
        b2: β₂, decay of the momentum, in [0, 1).
        mu_dtype: dtype of m in the state; None means that of the parameters, at least float32.
        mode: "hard" is the sign; "smooth" is tanh(smooth_beta x); "refined" is x clipped to its sign outside (-1, 1).
        smooth_beta: steepness of the smooth form.

    Reference: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, arXiv:2302.06675, Algorithm 2.
    """
    directions = {
        "hard": jnp.sign,
        "smooth": lambda x: jnp.tanh(smooth_beta * x),
        "refined": lambda x: jnp.where(jnp.abs(x) < 1.0, x, jnp.sign(x)),
    }
    direction = directions[mode]

    def init(params):
        mu = jax.tree.map(lambda p: tree.zeros_like(p, mu_dtype), params)
        return optax.ScaleByLionState(count=jnp.zeros([], jnp.int32), mu=mu)

    def update(grads, state, params=None, **extra):
        def leaf(g, m):
            return direction((1 - b1) * g + b1 * m), b2 * m + (1 - b2) * g

        updates, mu = tree.map_leaves(leaf, 2, grads, state.mu)
        return updates, optax.ScaleByLionState(count=optax.safe_increment(state.count), mu=mu)

    return init, update
