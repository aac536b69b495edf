"""Recipes whose learning rate is measured on the way, or whose schedule is an average."""

from typing import Literal

from jaxopt_lite.core.numbers import Count, Decay, NonNegative, Positive, Scalar
from jaxopt_lite.core.parameters import Dtype, Mask
from jaxopt_lite.core.recipe import recipe
from jaxopt_lite.core.schedule import LearningRate, NonNegativeOrSchedule
from jaxopt_lite.core.transformation import chain, identity
from jaxopt_lite.transforms.adaptive import scale_by_rms
from jaxopt_lite.transforms.decay import add_decayed_weights
from jaxopt_lite.transforms.distance import scale_by_dog, scale_by_dowg
from jaxopt_lite.transforms.feedback import scale_by_polyak
from jaxopt_lite.transforms.scaling import scale_by_learning_rate
from jaxopt_lite.transforms.schedule_free import schedule_free, warmed_up

__all__ = ["dog", "dowg", "polyak_sgd", "schedule_free_adamw", "schedule_free_sgd"]


@recipe(scale_by_dog, add_decayed_weights, scale_by_learning_rate)
def dog(
    learning_rate: LearningRate = 1.0,
    init_step: Positive = 1e-6,
    eps: Positive = 1e-8,
    weight_decay: NonNegativeOrSchedule | None = None,
    mask: Mask = None,
    *,
    kind: Literal["distance", "learning_rate", "heuristic"] = "heuristic",
):
    """Gradient descent whose rate is the distance travelled over the gradients seen (Ivgi et al., 2023).

    Args:
        learning_rate: multiplies the rate that is found, at least 0 and finite; a number or a schedule. Leave it at 1.
        weight_decay: added to the gradient as λ w, at least 0; None for none.
    """
    decay = identity() if weight_decay is None else add_decayed_weights(weight_decay, mask)
    return chain(decay, scale_by_dog(init_step, eps, kind=kind), scale_by_learning_rate(learning_rate))


@recipe(scale_by_dowg, add_decayed_weights, scale_by_learning_rate)
def dowg(
    learning_rate: LearningRate = 1.0,
    init_estim_sq_dist: Positive | None = None,
    eps: Positive = 1e-4,
    weight_decay: NonNegativeOrSchedule | None = None,
    mask: Mask = None,
):
    """As `dog`, with later gradients weighing more (Khaled et al., 2023, arXiv:2305.16284).

    Args:
        learning_rate: multiplies the rate that is found, at least 0 and finite; a number or a schedule. Leave it at 1.
        weight_decay: added to the gradient as λ w, at least 0; None for none.
    """
    decay = identity() if weight_decay is None else add_decayed_weights(weight_decay, mask)
    return chain(decay, scale_by_dowg(init_estim_sq_dist, eps), scale_by_learning_rate(learning_rate))


@recipe(scale_by_polyak)
def polyak_sgd(
    max_learning_rate: NonNegative = 1.0,
    scaling: LearningRate = 1.0,
    f_min: Scalar = 0.0,
    eps: NonNegative = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
):
    """Gradient descent by Polyak's step: `scale_by_polyak` (Loizou et al., 2020, arXiv:2002.10542).

    Args:
        scaling: multiplies the step, at least 0 and finite; a number or a schedule.
    """
    return chain(scale_by_polyak(f_min, max_learning_rate, eps, variant), scale_by_learning_rate(scaling))


@recipe(schedule_free)
def schedule_free_sgd(
    learning_rate: Positive = 1.0,
    warmup_steps: Count | None = None,
    b1: Decay = 0.9,
    weight_decay: NonNegative | None = None,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: Dtype | None = None,
    *,
    r: NonNegative = 0.0,
):
    """Gradient descent without a schedule: `schedule_free` around it (Defazio et al., 2024, arXiv:2405.15682).

    Args:
        learning_rate: the rate after the warm-up, above 0.
        warmup_steps: steps over which the rate rises linearly, at least 0: the k-th has k / warmup_steps of it. None
            for none.
        weight_decay: λ, added to the gradient as λ y, at least 0; None for none.
    """
    rate = warmed_up(learning_rate, warmup_steps)
    decay = identity() if weight_decay is None else add_decayed_weights(weight_decay)
    inner = chain(decay, scale_by_learning_rate(rate))
    return schedule_free(inner, rate, b1, weight_lr_power, state_dtype, r=r)


@recipe(schedule_free)
def schedule_free_adamw(
    learning_rate: Positive = 0.0025,
    warmup_steps: Count | None = None,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: Dtype | None = None,
    *,
    r: NonNegative = 0.0,
):
    """AdamW without momentum and without a schedule: `schedule_free` around it (Defazio et al., 2024).

    Args:
        learning_rate: the rate after the warm-up, above 0.
        warmup_steps: steps over which the rate rises linearly, at least 0: the k-th has k / warmup_steps of it. None
            for none.
        b2: β₂, decay of the mean square v, in [0, 1).
        eps: ε, added to the root in the denominator, at least 0.
        weight_decay: λ, decoupled, of the parameters y, at least 0.
    """
    rate = warmed_up(learning_rate, warmup_steps)
    inner = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(rate),
    )
    return schedule_free(inner, rate, b1, weight_lr_power, state_dtype, r=r)
