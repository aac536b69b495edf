"""Adafactor's rules: second moments of matrices as a row times a column, and steps in units of the parameters.

    factored    g / √v̂,  v̂ᵢⱼ = rᵢ cⱼ / mean(r)      with r, c averages over the rows' and the columns' |g|²
    block rms   u max(rms(w), ε)                    steps in proportion to the parameters

Shazeer & Stern, 2018, arXiv:1804.04235. The decay of step t is 1 - t^-c, which needs no correction of a start at zero.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.layout import factored_axes
from jaxopt_lite.core.numbers import Count, NonNegative
from jaxopt_lite.core.transformation import transformation
from jaxopt_lite.tree import abs_sq, safe_sqrt

__all__ = ["scale_by_factored_rms", "scale_by_param_block_rms"]


@transformation(acts_on="leaf")
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: NonNegative = 0.8,
    step_offset: Count = 0.0,
    min_dim_size_to_factor: int = 128,
    epsilon: NonNegative | None = 1e-30,
    decay_rate_fn: Callable[[Any, Any], Any] | None = None,
    *,
    form: Literal["optax", "torch"] = "optax",
):
    """g / √v̂, where v̂ of a matrix [m, n] is made of m + n numbers: the means of |g|² over its rows and its columns.

    Args:
        factored: factor leaves of two and more axes; if false, each coordinate has a v of its own.
        decay_rate: c, at least 0: the decay of step t is 1 - t^-c.
        step_offset: steps that are not counted in t, at least 0: those of a run that is continued on other data.
        min_dim_size_to_factor: the least size of both axes of what is factored; 0 factors all.
        epsilon: ε, at least 0. Added to |g|²; in the form "torch" v̂ is at least ε², and its divisor mean(r) at least ε.
            None is the machine epsilon of the dtype.
        decay_rate_fn: the decay as a function of t - 1 and c; None is 1 - t^-c.
        form: "optax" factors the two largest axes of a leaf and adds ε to |g|²; "torch" factors the last two axes and
            bounds v̂, as PyTorch does.

    Reference: Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
        arXiv:1804.04235, Algorithms 4 and 5.
    """
    check_int("scale_by_factored_rms", "min_dim_size_to_factor", min_dim_size_to_factor, 0)

    def axes_of(p):
        """The axis over which the column averages, and that over which the row does; None for no factors."""
        shape = np.shape(p)
        if not factored or len(shape) < 2:
            return None
        axes = factored_axes(shape) if form == "optax" else (len(shape) - 2, len(shape) - 1)
        return axes if min(shape[a] for a in axes) >= max(min_dim_size_to_factor, 1) else None

    def init(params):
        def leaf(p):
            dtype, axes = tree.real_dtype(tree.dtype_of(p)), axes_of(p)
            if axes is None:
                return jnp.zeros(1, dtype), jnp.zeros(1, dtype), tree.real_full_like(p, 0)
            c, r = (_zeros_without(p, a, dtype) for a in axes)
            return r, c, jnp.zeros(1, dtype)

        return optax.FactoredState(jnp.zeros([], jnp.int32), *tree.map_leaves(leaf, 3, params))

    def update(grads, state, params=None, **extra):
        t = jnp.maximum(state.count - step_offset + 1, 1).astype(jnp.result_type(float))
        beta = 1 - tree.power(t, -decay_rate) if decay_rate_fn is None else decay_rate_fn(t - 1, decay_rate)

        def leaf(g, r, c, v):
            axes, info = axes_of(g), jnp.finfo(g.dtype)
            eps = info.eps if epsilon is None else epsilon
            square = abs_sq(g) + eps if form == "optax" else abs_sq(g)
            if axes is None:
                v = beta * v + (1 - beta) * square
                root = safe_sqrt(v)
            else:
                column_axis, row_axis = axes
                r = beta * r + (1 - beta) * jnp.mean(square, row_axis)
                c = beta * c + (1 - beta) * jnp.mean(square, column_axis)
                r_whole = jnp.expand_dims(r, row_axis)
                mean = jnp.mean(r_whole, column_axis, keepdims=True)
                mean = jnp.maximum(mean, eps) if form == "torch" else mean
                # Roots before the division: squares of ε = 1e-30, as its derivative has them, are zero in float32.
                scale = safe_sqrt(r_whole) / safe_sqrt(jnp.where(mean == 0, 1, mean))
                root = scale * jnp.expand_dims(safe_sqrt(c), column_axis)
            if form == "torch":
                root = jnp.maximum(root, jnp.maximum(eps, info.tiny**0.5))
            return jnp.where(root == 0, 0, g / jnp.where(root == 0, 1, root)), r, c, v

        updates, *factors = tree.map_leaves(leaf, 4, grads, state.v_row, state.v_col, state.v)
        return updates, optax.FactoredState(optax.safe_increment(state.count), *factors)

    return init, update


@transformation(acts_on="leaf")
def scale_by_param_block_rms(min_scale: NonNegative = 1e-3):
    """u max(rms(w), ε) for each leaf: a rate of 0.01 moves parameters by about a hundredth of their size.

    Args:
        min_scale: ε, the least scale, at least 0: parameters that start at zero have to leave it.

    Raises:
        ValueError: if update is called without params.

    Reference: Shazeer & Stern, "Adafactor", 2018, arXiv:1804.04235, Section 8.
    """

    def leaf(u, w):
        return u * jnp.maximum(safe_sqrt(jnp.mean(abs_sq(w))), min_scale)

    def update(updates, state, params=None, **extra):
        checks.require(params, "params", "scale_by_param_block_rms")
        return jax.tree.map(leaf, updates, params), state

    return lambda params: optax.EmptyState(), update


def _zeros_without(p: Any, axis: int, dtype: Any) -> jax.Array:
    """Zeros of the shape and sharding of p without one axis."""
    return jnp.zeros_like(jax.eval_shape(lambda x: jnp.sum(x, axis), p), dtype=dtype)
