"""Recipes of Adam with other averages: AdEMAMix, its simplified form, and ADOPT."""

from collections.abc import Callable

import jax

from jaxopt_lite.core.numbers import Decay, NonNegative, Positive
from jaxopt_lite.core.parameters import Dtype, Mask
from jaxopt_lite.core.recipe import recipe
from jaxopt_lite.core.schedule import DecayOrSchedule, LearningRate, NonNegativeOrSchedule
from jaxopt_lite.core.transformation import chain
from jaxopt_lite.transforms.decay import add_decayed_weights
from jaxopt_lite.transforms.mixtures import (
    scale_by_ademamix,
    scale_by_adopt,
    scale_by_simplified_ademamix,
)
from jaxopt_lite.transforms.scaling import scale_by_learning_rate

__all__ = ["ademamix", "adopt", "simplified_ademamix"]


@recipe(scale_by_ademamix, add_decayed_weights, scale_by_learning_rate)
def ademamix(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: DecayOrSchedule = 0.9999,
    alpha: NonNegativeOrSchedule = 5.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: Dtype | None = None,
    weight_decay: NonNegativeOrSchedule = 0.0,
    mask: Mask = None,
):
    """Adam with a second, slow mean gradient, and decoupled decay (Pagliardini et al., 2024, arXiv:2409.03137)."""
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@recipe(scale_by_simplified_ademamix, add_decayed_weights, scale_by_learning_rate)
def simplified_ademamix(
    learning_rate: LearningRate,
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: NonNegativeOrSchedule = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegativeOrSchedule = 0.0,
    mask: Mask = None,
):
    """AdEMAMix with one momentum and the gradient beside it (Morwani et al., 2025, arXiv:2502.02431)."""
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@recipe(scale_by_adopt, scale_by_learning_rate)
def adopt(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: Positive = 1e-6,
    mu_dtype: Dtype | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], jax.Array] | None = None,
):
    """Adam that divides before it averages, by the mean square of earlier steps: `scale_by_adopt`."""
    rule = scale_by_adopt(
        b1, b2, eps, mu_dtype, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn
    )
    return chain(rule, scale_by_learning_rate(learning_rate))
