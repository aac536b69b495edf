"""Penalties on parameters, as values. Losses themselves are those of `optax.losses`.

    l1_penalty              λ Σ |w|
    l2_penalty              λ/2 Σ |w|²                  its gradient is that of `add_decayed_weights(λ)` before a rule
    elastic_net_penalty     λ (ρ Σ |w| + (1 - ρ)/2 Σ |w|²)      Zou & Hastie, 2005
    group_lasso_penalty     λ Σ_g √d_g ‖w_g‖                    Yuan & Lin, 2006
    nuclear_norm_penalty    λ Σ σᵢ(W)                           Fazel, Hindi & Boyd, 2001

A penalty is a pytree of its hyperparameters, like an optimizer: its strength can be swept and differentiated. With its
proximal operator, the w that minimizes penalty(w) + ‖w - v‖² / (2 t), it can be minimized without its gradient, which
gives exact zeros: see `jaxopt_lite.solvers.proximal_gradient`.

    l1      v - clip(v, -tλ, tλ); complex: v max(1 - tλ / |v|, 0)
    l2      v / (1 + tλ)
    elastic net     that of l1 with λρ, then that of l2 with λ (1 - ρ)
    group lasso     v_g max(1 - tλ√d_g / ‖v_g‖, 0)
    nuclear norm    that of l1 on the singular values
"""

from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.checks import check_like
from jaxopt_lite.core.numbers import Fraction, NonNegative
from jaxopt_lite.core.parameters import Mask
from jaxopt_lite.core.values import Value, register, remember_calls

__all__ = [
    "Penalty",
    "elastic_net_penalty",
    "group_lasso_penalty",
    "l1_penalty",
    "l2_penalty",
    "nuclear_norm_penalty",
    "penalty",
    "regularized",
]

P = ParamSpec("P")


@register
class Penalty(Value):
    """A function params -> scalar that is also a pytree of its hyperparameters."""

    noun = "a penalty"
    traced = True

    def __call__(self, params: Any) -> jax.Array:
        """The penalty of the parameters, a scalar."""
        with jax.numpy_dtype_promotion("standard"):  # the same promotion as inside a rule
            return self._functions[0](params)

    @property
    def has_prox(self) -> bool:
        """Whether its proximal operator is known."""
        return self._functions[1] is not None

    def prox(self, params: Any, step: Any) -> Any:
        """The w that minimizes penalty(w) + ‖w - params‖² / (2 step), a tree like params.

        Args:
            params: a tree of floating or complex arrays.
            step: a scalar of at least 0; at 0 it is the nearest point at which the penalty is finite.

        Raises:
            TypeError: if its proximal operator is not known.
            ValueError: if its proximal operator returns no tree like params.
        """
        prox = self._functions[1]
        if prox is None:
            raise TypeError(
                f"{self!r} has no proximal operator; a factory of penalties that returns a pair (value, prox) has one"
            )
        with jax.numpy_dtype_promotion("standard"):
            result = prox(params, step)
        check_like(f"{self.factory.spec.name}: its proximal operator", result, params)
        return tree.cast_like(result, params)

    @property
    def _functions(self) -> tuple[Callable, Callable | None]:
        return self.built if isinstance(self.built, tuple) else (self.built, None)


def penalty(function: Callable[P, Any]) -> Callable[P, Penalty]:
    """Make a factory of penalties.

    Args:
        function: the function to decorate. It returns a function params -> scalar, or a pair of that and its proximal
            operator (params, step) -> params, see `Penalty.prox`, which takes a step of 0 too; its arguments that are
            annotated with a number type are leaves.
    """
    return remember_calls(function, Penalty)


@penalty
def l1_penalty(strength: NonNegative, mask: Mask = None):
    """λ Σ |w|: pulls towards zero with constant force.

    Added to a loss it leaves small numbers where zeros should be. For exact zeros minimize with
    `jaxopt_lite.solvers.proximal_gradient(l1_penalty(...))`, or in training put `proximal_l1` last in the chain.

    Args:
        strength: λ, at least 0.
        mask: the leaves to penalise: a tree of bools, or a function of params that returns one, such as
            `by_path({"*/w": True}, default=False)`; None means all.
    """
    prox = lambda params, step: _map(lambda w: _shrink(w, step * strength), params, mask)
    return lambda params: strength * _sum(_abs, params, mask), prox


@penalty
def l2_penalty(strength: NonNegative, mask: Mask = None):
    """λ/2 Σ |w|²: pulls towards zero with a force in proportion to w.

    Args:
        strength: λ, at least 0.
        mask: the leaves to penalise, as in `l1_penalty`.
    """
    prox = lambda params, step: _map(lambda w: w / (1 + step * strength), params, mask)
    return lambda params: strength / 2 * _sum(tree.abs_sq, params, mask), prox


@penalty
def elastic_net_penalty(strength: NonNegative, l1_ratio: Fraction = 0.5, mask: Mask = None):
    """λ (ρ Σ |w| + (1 - ρ)/2 Σ |w|²).

    Args:
        strength: λ, at least 0.
        l1_ratio: ρ, the share of the first term, in [0, 1].
        mask: the leaves to penalise, as in `l1_penalty`.

    Reference: Zou & Hastie, "Regularization and Variable Selection via the Elastic Net", 2005.
    """

    def value(params):
        l1, l2 = _sum(_abs, params, mask), _sum(tree.abs_sq, params, mask)
        return strength * (l1_ratio * l1 + (1 - l1_ratio) / 2 * l2)

    def prox(params, step):
        shrink = lambda w: _shrink(w, step * strength * l1_ratio) / (1 + step * strength * (1 - l1_ratio))
        return _map(shrink, params, mask)

    return value, prox


@penalty
def group_lasso_penalty(strength: NonNegative, axis: int | tuple[int, ...] | None = None, mask: Mask = None):
    """λ Σ √d ‖w_g‖ over groups of d numbers: the numbers of a group are zero together, or none of them is.

    The factor √d is the one of Yuan & Lin; without it, as in scikit-learn's MultiTaskLasso, the strength is λ / √d.

    Args:
        strength: λ, at least 0.
        axis: the axis, or axes, along which the numbers of one group lie, an int or a tuple of ints: of weights
            [features, outputs] each feature is a group with -1. None makes each leaf one group.
        mask: the leaves to penalise, as in `l1_penalty`.

    Raises:
        TypeError: if axis is neither an int, a tuple of ints nor None.

    Reference: Yuan & Lin, "Model Selection and Estimation in Regression with Grouped Variables", 2006, Eq. (2.1).
    """
    axes = (axis,) if isinstance(axis, int) else axis
    if axes is not None and not (
        isinstance(axes, tuple) and axes and all(isinstance(a, int) and not isinstance(a, bool) for a in axes)
    ):
        raise TypeError(f"group_lasso_penalty: axis must be an int, a tuple of ints or None, got {axis!r}")

    def norms(w):  # ‖w_g‖, and √d
        if axes is not None and not all(-w.ndim <= a < w.ndim for a in axes):
            raise ValueError(
                f"group_lasso_penalty: axis is {axis!r}, but a leaf has shape {w.shape}; leave it out by a mask"
            )
        norm = tree.safe_sqrt(jnp.sum(tree.abs_sq(w), axis=axes, keepdims=True))
        return norm, (w.size / max(norm.size, 1)) ** 0.5

    def weighted(w):
        norm, root = norms(w)
        return root * norm

    def prox(params, step):
        def shrink(w):
            norm, root = norms(w)
            return _shorten(w, norm, step * strength * root)

        return _map(shrink, params, mask)

    return lambda params: strength * _sum(weighted, params, mask), prox


@penalty
def nuclear_norm_penalty(strength: NonNegative, mask: Mask = None):
    """λ Σ σᵢ(W), the sum of the singular values of matrices: pulls towards matrices of low rank.

    Leaves are matrices in their last two axes, or stacks of them. Its gradient is U Vᴴ over the singular values above
    rounding. Value and proximal operator are a singular value decomposition each.

    Args:
        strength: λ, at least 0.
        mask: the leaves to penalise, as in `l1_penalty`; it must leave out vectors and scalars.

    Reference: Fazel, Hindi & Boyd, "A Rank Minimization Heuristic with Application to Minimum Order System
        Approximation", 2001; its proximal operator: Cai, Candès & Shen, "A Singular Value Thresholding Algorithm for
        Matrix Completion", 2010, arXiv:0810.3286, Theorem 2.1.
    """

    def matrix(w):
        if w.ndim < 2:
            raise ValueError(
                f"nuclear_norm_penalty: a leaf has shape {w.shape}, which is no matrix; leave it out by a mask"
            )
        return w

    prox = lambda params, step: _map(lambda w: _shrink_singular(matrix(w), step * strength), params, mask)
    return lambda params: strength * _sum(lambda w: _nuclear_norm(matrix(w)), params, mask), prox


def regularized(loss: Callable, *penalties: Callable[[Any], Any]) -> Callable:
    """loss(params, ...) plus penalties of params.

    Args:
        loss: a function whose first argument is params, and which returns a scalar or a pair (scalar, aux).
        penalties: functions params -> scalar.

    Returns:
        A function like `loss`. If aux is a dict, it gains the sum of the penalties as "penalty" and the bare loss as
        "unregularized_loss".

    Raises:
        TypeError: if a penalty was given that was not called, such as `l2_penalty`, or no penalty was given.
    """
    if not callable(loss):
        raise TypeError(f"regularized: loss must be a function of params and more, got {loss!r}")
    if not penalties:
        raise TypeError("regularized needs at least one penalty, such as l2_penalty(1e-4), got none")
    for p in penalties:
        if not callable(p) or hasattr(p, "spec"):
            raise TypeError(f"regularized: a penalty must be a function of params, as l2_penalty(1e-4) is, got {p!r}")

    def with_penalties(params, *args, **kwargs):
        result = loss(params, *args, **kwargs)
        value, aux = result if isinstance(result, tuple) else (result, None)
        with jax.numpy_dtype_promotion("standard"):  # the loss may be of 16 bits
            extra = sum(p(params) for p in penalties)
            total = value + extra
        if not isinstance(result, tuple):
            return total
        if isinstance(aux, dict):
            aux = {**aux, "penalty": extra, "unregularized_loss": value}
        return total, aux

    return with_penalties


def _abs(w: jax.Array) -> jax.Array:
    """|w|, with derivative 0 at 0: JAX's is 1, which would push zeros away."""
    zero = w == 0
    return jnp.where(zero, 0, jnp.abs(jnp.where(zero, 1, w)))


def _sum(f: Callable, params: Any, mask: Any) -> jax.Array:
    chosen = tree.spread_mask(True if mask is None else mask, params, "penalty", "mask")
    sums = jax.tree.map(lambda keep, w: jnp.sum(f(w)) if keep else jnp.zeros(()), chosen, tree.widen(params))
    return sum(jax.tree.leaves(sums), start=jnp.zeros(()))


def _map(f: Callable, params: Any, mask: Any) -> Any:
    chosen = tree.spread_mask(True if mask is None else mask, params, "penalty", "mask")
    return jax.tree.map(lambda keep, w: f(w) if keep else w, chosen, tree.widen(params))


def _shrink(w: jax.Array, t: Any) -> jax.Array:
    """w, nearer to zero by t, and zero within t of it; w itself for t = 0."""
    return _shorten(w, tree.safe_sqrt(tree.abs_sq(w)), t) if jnp.iscomplexobj(w) else w - jnp.clip(w, -t, t)


def _shorten(w: jax.Array, length: jax.Array, t: Any) -> jax.Array:
    """w max(1 - t / length, 0), w itself for t = 0."""
    outside = length > t
    return w * jnp.where(outside, 1 - t / jnp.where(outside, length, 1), jnp.where(t == 0, 1, 0))


@jax.custom_jvp
def _nuclear_norm(w: jax.Array) -> jax.Array:
    return jnp.sum(jnp.linalg.svd(w, compute_uv=False))


@_nuclear_norm.defjvp
def _(primals, tangents):
    (w,), (dw,) = primals, tangents
    u, s, vh = jnp.linalg.svd(w, full_matrices=False)
    above = s > max(w.shape[-2:]) * jnp.finfo(s.dtype).eps * jnp.max(s, axis=-1, keepdims=True, initial=0)
    slope = jnp.matmul(u * above[..., None, :], vh)
    return jnp.sum(s), jnp.sum(jnp.real(jnp.conj(slope) * dw))


@jax.custom_jvp
def _shrink_singular(w: jax.Array, t: Any) -> jax.Array:
    """U max(S - t, 0) Vᴴ for W = U S Vᴴ; W itself for t = 0."""
    u, s, vh = jnp.linalg.svd(w, full_matrices=False)
    return jnp.where(t == 0, w, jnp.matmul(u * jnp.maximum(s - t, 0)[..., None, :], vh))


@_shrink_singular.defjvp
def _(primals, tangents):
    # With M = Uᴴ dW V: (fᵢ - fⱼ) / (σᵢ - σⱼ) for f(σ) = max(σ - t, 0) times the Hermitian part of M, plus
    # (fᵢ + fⱼ) / (σᵢ + σⱼ) times the rest. Where both σ are above t or neither is, the first is 1 or 0: no division, so
    # equal singular values do no harm, as they do in the derivative of the decomposition itself.
    (w, t), (dw, dt) = primals, tangents
    u, s, vh = jnp.linalg.svd(w, full_matrices=False)
    uh, v = jnp.conj(jnp.swapaxes(u, -1, -2)), jnp.conj(jnp.swapaxes(vh, -1, -2))
    above, f = s > t, jnp.maximum(s - t, 0)
    rows, columns = (lambda x: x[..., :, None]), (lambda x: x[..., None, :])
    ratio = lambda a, b: jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))
    mixed = rows(above) != columns(above)
    differences = ratio(jnp.abs(rows(f) - columns(f)), jnp.abs(rows(s) - columns(s)))
    differences = jnp.where(mixed, differences, (rows(above) & columns(above)).astype(s.dtype))
    sums = ratio(rows(f) + columns(f), rows(s) + columns(s))
    m = uh @ dw @ v
    mh = jnp.conj(jnp.swapaxes(m, -1, -2))
    inside = u @ (differences * (m + mh) / 2 + sums * (m - mh) / 2) @ vh
    share = ratio(f, s)  # for what dW has outside of the spaces of U and V, where W is not square
    outside = u * columns(share) @ (uh @ dw - m @ vh) + (dw @ v - u @ m) * columns(share) @ vh
    change = inside + outside - dt * (u * columns(above)) @ vh
    return _shrink_singular(w, t), jnp.where(t == 0, dw, change)
