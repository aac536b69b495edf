"""Rules that bound the gradient.

clip                    each coordinate into [-δ, δ]
clip_by_global_norm     u min(1, c / ‖u‖) over all leaves              Pascanu et al., 2012, arXiv:1211.5063
clip_by_block_rms       u / max(1, rms(u) / c) for each leaf           Shazeer & Stern, 2018, arXiv:1804.04235
adaptive_grad_clip      ‖uᵢ‖ at most λ max(‖wᵢ‖, ε) for each unit i    Brock et al., 2021, arXiv:2102.06171
"""

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.numbers import NonNegative, Positive
from jaxopt_lite.core.transformation import transformation
from jaxopt_lite.tree import abs_sq, safe_sqrt

__all__ = ["adaptive_grad_clip", "clip", "clip_by_block_rms", "clip_by_global_norm"]


@transformation(acts_on="coordinate")
def clip(max_delta: NonNegative):
    """Each coordinate into [-δ, δ]; real and imaginary parts apart.

    Args:
        max_delta: δ, at least 0.
    """

    def leaf(u):
        if jnp.iscomplexobj(u):
            return jax.lax.complex(leaf(jnp.real(u)), leaf(jnp.imag(u)))
        return jnp.clip(u, -max_delta, max_delta)

    def update(updates, state, params=None, **extra):
        return jax.tree.map(leaf, updates), state

    return lambda params: optax.EmptyState(), update


@transformation(acts_on="coordinate")
def clip_by_global_norm(max_norm: NonNegative):
    """u min(1, c / ‖u‖): scale all leaves together so that their norm is at most c.

    If the norm is not finite, every coordinate of the update becomes NaN. `skip_not_finite` skips such steps.

    Args:
        max_norm: c, at least 0.

    Reference: Pascanu et al., "On the Difficulty of Training Recurrent Neural Networks", 2012, arXiv:1211.5063,
        Algorithm 1.
    """

    def update(updates, state, params=None, **extra):
        first, second = _clipping_factors(tree.global_norm(updates), max_norm)
        return tree.scale(second, tree.scale(first, updates)), state

    return lambda params: optax.EmptyState(), update


@tree.inlined
def _clipping_factors(norm, max_norm):
    """Two factors whose product is min(1, c / ‖u‖).

    For the largest norms a single factor would be denormal, which XLA flushes to zero. As scalars they fuse
    into the next operation, so clipping costs no copy of the gradient.
    """
    over = ~(norm <= max_norm)  # also where the norm is NaN
    safe = jnp.where(over, norm, 1)
    huge = safe > jnp.sqrt(jnp.finfo(safe.dtype).max)
    half = jnp.where(huge, 1 / jnp.sqrt(safe), 1)
    whole = jnp.where(huge, max_norm / jnp.sqrt(safe), max_norm / safe)
    is_finite = jnp.isfinite(norm)
    return jnp.where(over, half, 1), jnp.where(is_finite, jnp.where(over, whole, 1), jnp.nan)


@transformation(acts_on="leaf")
def clip_by_block_rms(threshold: Positive):
    """u / max(1, rms(u) / c) for each leaf.

    Args:
        threshold: c, the largest root mean square of a leaf, above 0.

    Reference: Shazeer & Stern, "Adafactor", 2018, arXiv:1804.04235, Section 6.
    """

    def leaf(u):
        return u / jnp.maximum(1, safe_sqrt(jnp.mean(abs_sq(u))) / threshold)

    def update(updates, state, params=None, **extra):
        return jax.tree.map(leaf, updates), state

    return lambda params: optax.EmptyState(), update


@transformation(acts_on="leaf")
def adaptive_grad_clip(clipping: NonNegative, eps: NonNegative = 1e-3, axis: int | tuple[int, ...] | None = None):
    """Clip each unit's gradient to λ times the norm of the unit's weights.

    Args:
        clipping: λ, at least 0.
        eps: ε, lower bound of the weights' norm, at least 0.
        axis: the axes over which a unit's norm runs. None: all of a vector's, the first of a matrix's, all but the last
            of a convolution's.

    Raises:
        ValueError: if update is called without params, or for leaves of more than five axes without `axis`.

    Reference: Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", 2021,
        arXiv:2102.06171, Eq. (3).
    """

    def update(updates, state, params=None, **extra):
        checks.require(params, "params", "adaptive_grad_clip")

        def leaf(u, w):
            largest = clipping * jnp.maximum(_unit_norm(w, axis), eps)
            norm = _unit_norm(u, axis)
            return jnp.where(norm < largest, u, u * (largest / jnp.maximum(norm, 1e-6)))

        return jax.tree.map(leaf, updates, params), state

    return lambda params: optax.EmptyState(), update


def _unit_norm(x, axis):
    if axis is None:
        if jnp.squeeze(x).ndim <= 1:
            axis = tuple(range(x.ndim))
        elif x.ndim <= 3:
            axis = (0,)
        elif x.ndim <= 5:
            axis = tuple(range(x.ndim - 1))
        else:
            raise ValueError(
                f"adaptive_grad_clip: a leaf of shape {x.shape} has no default axes of a unit; give them by axis="
            )
    return safe_sqrt(jnp.sum(abs_sq(x), axis=axis, keepdims=True))
