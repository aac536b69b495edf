"""Recipes of Adam with other averages: AdEMAMix, its simplified form, ADOPT, and Adafactor, which factors its own."""

from collections.abc import Callable
from typing import Literal

import jax

from jaxopt_lite.core.numbers import Count, Decay, NonNegative, Positive
from jaxopt_lite.core.parameters import Dtype, Mask
from jaxopt_lite.core.recipe import recipe
from jaxopt_lite.core.schedule import DecayOrSchedule, LearningRate, NonNegativeOrSchedule
from jaxopt_lite.core.transformation import chain
from jaxopt_lite.transforms.clipping import clip_by_block_rms
from jaxopt_lite.transforms.decay import add_decayed_weights
from jaxopt_lite.transforms.factored import scale_by_factored_rms, scale_by_param_block_rms
from jaxopt_lite.transforms.mixtures import (
    scale_by_ademamix,
    scale_by_adopt,
    scale_by_simplified_ademamix,
)
from jaxopt_lite.transforms.momentum import ema
from jaxopt_lite.transforms.scaling import scale, scale_by_learning_rate

__all__ = ["adafactor", "ademamix", "adopt", "simplified_ademamix"]


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


@recipe(scale_by_factored_rms, add_decayed_weights, scale_by_learning_rate)
def adafactor(
    learning_rate: LearningRate | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: NonNegative = 0.8,
    decay_offset: Count = 0.0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Positive | None = 1.0,
    momentum: Decay | None = None,
    dtype_momentum: Dtype = "float32",
    weight_decay_rate: NonNegativeOrSchedule | None = None,
    eps: NonNegative | None = 1e-30,
    factored: bool = True,
    weight_decay_mask: Mask = None,
    *,
    form: Literal["optax", "torch"] = "optax",
):
    """Adam without momentum and with factored second moments, its steps clipped and in units of the parameters.

    The defaults are Optax's. Those of the paper are `adafactor(relative_step_schedule(1e-2), 0)`, and PyTorch's are
    `adafactor(relative_step_schedule(1e-2), 0, eps=None, form="torch")` (Shazeer & Stern, 2018, arXiv:1804.04235).

    Args:
        learning_rate: η, a number or a schedule; None is 1.
        decay_offset: steps that are not counted in t, at least 0.
        multiply_by_parameter_scale: multiply the steps of a leaf by max(rms(w), 1e-3).
        clipping_threshold: the largest root mean square of a leaf's step before η, above 0; None for no clipping.
        momentum: decay of an average of the steps, in [0, 1); None for none.
        dtype_momentum: dtype of that average in the state.
        weight_decay_rate: λ, added as λ w to the step after η, which is not in it; a number or a schedule, None for no
            decay. PyTorch's decay is η λ.
        eps: ε of the second moments, at least 0; None is the machine epsilon of the dtype.
        weight_decay_mask: which leaves decay: a tree of bools in the structure of params (or a prefix of it), or a
            function of params. None decays all.
    """
    rules = [scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps, form=form)]
    if clipping_threshold is not None:
        rules.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        rules.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        rules.append(scale_by_param_block_rms())
    if momentum is not None:
        rules.append(ema(momentum, debias=False, accumulator_dtype=dtype_momentum))
    if weight_decay_rate is not None:
        rules.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return chain(*rules, scale(-1.0))
