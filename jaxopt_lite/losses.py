"""Penalties on parameters, as values. Losses themselves are those of `optax.losses`.

    l1_penalty              λ Σ |w|
    l2_penalty              λ/2 Σ |w|²                  its gradient is that of `add_decayed_weights(λ)` before a rule
    elastic_net_penalty     λ (ρ Σ |w| + (1 - ρ)/2 Σ |w|²)      Zou & Hastie, 2005

A penalty is a pytree of its hyperparameters, like an optimizer: its strength can be swept and differentiated.
"""

from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.numbers import Fraction, NonNegative
from jaxopt_lite.core.parameters import Mask
from jaxopt_lite.core.values import Value, register, remember_calls

__all__ = ["Penalty", "elastic_net_penalty", "l1_penalty", "l2_penalty", "penalty", "regularized"]

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
        """The w that minimizes penalty(w) + ‖w - params‖² / (2 step), a tree like params; `step` is a scalar above 0.

        Raises:
            TypeError: if its proximal operator is not known.
        """
        prox = self._functions[1]
        if prox is None:
            raise TypeError(
                f"{self!r} has no proximal operator; a factory of penalties that returns a pair (value, prox) has one"
            )
        return tree.cast_like(prox(params, step), params)

    @property
    def _functions(self) -> tuple[Callable, Callable | None]:
        return self.built if isinstance(self.built, tuple) else (self.built, None)


def penalty(function: Callable[P, Any]) -> Callable[P, Penalty]:
    """Make a factory of penalties.

    Args:
        function: the function to decorate. It returns a function params -> scalar, or a pair of that and its proximal
            operator (params, step) -> params, see `Penalty.prox`; its arguments that are annotated with a number type
            are leaves.
    """
    return remember_calls(function, Penalty)


@penalty
def l1_penalty(strength: NonNegative, mask: Mask = None):
    """λ Σ |w|: pulls towards zero with constant force. For exact zeros use `proximal_l1`.

    Args:
        strength: λ, at least 0.
        mask: the leaves to penalise: a tree of bools, or a function of params that returns one, such as
            `by_path({"*/w": True}, default=False)`; None means all.
    """
    return lambda params: strength * _sum(_abs, params, mask)


@penalty
def l2_penalty(strength: NonNegative, mask: Mask = None):
    """λ/2 Σ |w|²: pulls towards zero with a force in proportion to w.

    Args:
        strength: λ, at least 0.
        mask: the leaves to penalise, as in `l1_penalty`.
    """
    return lambda params: strength / 2 * _sum(tree.abs_sq, params, mask)


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

    return value


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
