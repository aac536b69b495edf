"""Recipes: optimizers by their names in the literature, each a chain of rules.

The formulas are in `transforms`. A recipe is a value whose hyperparameters are its arguments; `recipe.inner` is the
chain. Names, arguments, order and defaults are Optax's; the exceptions are listed in `docs/differences.md`.

`@recipe(rules)` takes the description of each argument from the docstrings of the rules that the recipe chains, so
`help(jo.adamw)` shows them; a recipe describes here only the arguments that have another name in its rules.
"""

from typing import Literal

from jaxopt_lite.core.numbers import Decay, NonNegative, Positive
from jaxopt_lite.core.parameters import Dtype, Key, Mask
from jaxopt_lite.core.recipe import recipe
from jaxopt_lite.core.schedule import LearningRate, NonNegativeOrSchedule
from jaxopt_lite.core.transformation import chain, identity
from jaxopt_lite.transforms.adam import (
    scale_by_adam,
    scale_by_adamax,
    scale_by_adan,
    scale_by_amsgrad,
    scale_by_belief,
    scale_by_radam,
    scale_by_yogi,
)
from jaxopt_lite.transforms.adaptive import (
    scale_by_adadelta,
    scale_by_novograd,
    scale_by_rms,
    scale_by_rprop,
    scale_by_rss,
    scale_by_stddev,
)
from jaxopt_lite.transforms.decay import add_decayed_weights, add_noise, proximal_l2
from jaxopt_lite.transforms.momentum import ema, scale_by_lion, scale_by_sign, trace
from jaxopt_lite.transforms.routing import masked
from jaxopt_lite.transforms.scaling import scale, scale_by_learning_rate, scale_by_trust_ratio

__all__ = [
    "adabelief",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adan",
    "amsgrad",
    "lamb",
    "lars",
    "lion",
    "nadam",
    "nadamw",
    "noisy_sgd",
    "novograd",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
    "signum",
    "yogi",
]


@recipe(trace, scale_by_learning_rate)
def sgd(
    learning_rate: LearningRate,
    momentum: Decay | None = None,
    nesterov: bool = False,
    accumulator_dtype: Dtype | None = None,
):
    """Gradient descent, optionally with heavy-ball or Nesterov momentum: `trace`.

    Args:
        momentum: μ, decay of the velocity v, in [0, 1); None for plain gradient descent.
    """
    rule = identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype)
    return chain(rule, scale_by_learning_rate(learning_rate))


@recipe(add_noise, scale_by_learning_rate)
def noisy_sgd(learning_rate: LearningRate, eta: NonNegative = 0.01, gamma: NonNegative = 0.55, key: Key = 0):
    """Gradient descent with annealed Gaussian noise: `add_noise`."""
    return chain(add_noise(eta, gamma, key), scale_by_learning_rate(learning_rate))


@recipe(ema, scale_by_learning_rate)
def signum(learning_rate: LearningRate, beta: Decay = 0.9, accumulator_dtype: Dtype | None = None):
    """The sign of the averaged gradient: `ema`, `scale_by_sign` (Bernstein et al., 2018, arXiv:1802.04434).

    Args:
        beta: β, decay of the average gradient, in [0, 1).
    """
    return chain(
        ema(beta, debias=False, accumulator_dtype=accumulator_dtype),
        scale_by_sign(),
        scale_by_learning_rate(learning_rate),
    )


@recipe(scale_by_rss, scale_by_learning_rate)
def adagrad(learning_rate: LearningRate, initial_accumulator_value: NonNegative = 0.1, eps: NonNegative = 1e-7):
    """In units of the root of all squares so far: `scale_by_rss` (Duchi et al., 2011)."""
    return chain(scale_by_rss(initial_accumulator_value, eps), scale_by_learning_rate(learning_rate))


@recipe(add_decayed_weights, scale_by_adadelta, scale_by_learning_rate)
def adadelta(
    learning_rate: LearningRate = 1.0,
    rho: Decay = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegativeOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
):
    """Gradients in units of their size, times the size of past updates: `scale_by_adadelta` (Zeiler, 2012).

    Args:
        weight_decay_mask: the leaves that decay, as `mask` in `add_decayed_weights`; None means all.
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(learning_rate),
    )


@recipe(scale_by_rms, scale_by_learning_rate, trace)
def rmsprop(
    learning_rate: LearningRate,
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Decay | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
):
    """In units of the root mean square, `scale_by_rms`, or, centred, of the standard deviation, `scale_by_stddev`.

    Momentum acts on the scaled steps (Hinton, 2012; Graves, 2013).

    Args:
        centered: divide by the standard deviation in place of the root mean square.
        momentum: μ, decay of the velocity of the scaled steps, in [0, 1); None for none.
    """
    rule = scale_by_stddev if centered else scale_by_rms
    return chain(
        rule(decay, eps, initial_scale, eps_in_sqrt, bias_correction),
        scale_by_learning_rate(learning_rate),
        identity() if momentum is None else trace(momentum, nesterov),
    )


@recipe(scale_by_adam, scale_by_learning_rate)
def adam(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: Dtype | None = None,
    *,
    nesterov: bool = False,
):
    """`scale_by_adam` (Kingma & Ba, 2015, arXiv:1412.6980)."""
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov), scale_by_learning_rate(learning_rate)
    )


@recipe(scale_by_adam, add_decayed_weights, scale_by_learning_rate)
def adamw(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: Dtype | None = None,
    weight_decay: NonNegativeOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = False,
):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019, arXiv:1711.05101)."""
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@recipe(scale_by_adam, scale_by_learning_rate)
def nadam(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: Dtype | None = None,
):
    """Adam with Nesterov's look-ahead (Dozat, 2016)."""
    return adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=True)


@recipe(scale_by_adam, add_decayed_weights, scale_by_learning_rate)
def nadamw(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: Dtype | None = None,
    weight_decay: NonNegativeOrSchedule = 1e-4,
    mask: Mask = None,
):
    """NAdam with decoupled weight decay."""
    return adamw(learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, nesterov=True)


@recipe(scale_by_adamax, scale_by_learning_rate)
def adamax(learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8):
    """Adam with the infinity norm: `scale_by_adamax` (Kingma & Ba, 2015, Section 7.1)."""
    return chain(scale_by_adamax(b1, b2, eps), scale_by_learning_rate(learning_rate))


@recipe(scale_by_amsgrad, scale_by_learning_rate)
def amsgrad(
    learning_rate: LearningRate,
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
    """Adam whose denominator never shrinks: `scale_by_amsgrad` (Reddi et al., 2018, arXiv:1904.09237)."""
    return chain(
        scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu, form=form),
        scale_by_learning_rate(learning_rate),
    )


@recipe(scale_by_belief, scale_by_learning_rate)
def adabelief(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
):
    """Adam that trusts gradients that were expected: `scale_by_belief` (Zhuang et al., 2020, arXiv:2010.07468)."""
    return chain(scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov), scale_by_learning_rate(learning_rate))


@recipe(scale_by_yogi, scale_by_learning_rate)
def yogi(learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-3):
    """Adam whose scale grows additively: `scale_by_yogi` (Zaheer et al., 2018)."""
    return chain(scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))


@recipe(scale_by_radam, scale_by_learning_rate)
def radam(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: NonNegative = 5.0,
    *,
    nesterov: bool = False,
):
    """Rectified Adam: `scale_by_radam` (Liu et al., 2020, arXiv:1908.03265)."""
    return chain(
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov), scale_by_learning_rate(learning_rate)
    )


@recipe(scale_by_lion, add_decayed_weights, scale_by_learning_rate)
def lion(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: Dtype | None = None,
    weight_decay: NonNegativeOrSchedule = 1e-3,
    mask: Mask = None,
):
    """The sign of an interpolated momentum, with decoupled decay: `scale_by_lion` (Chen et al., 2023)."""
    return chain(
        scale_by_lion(b1, b2, mu_dtype), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )


@recipe(scale_by_adam, add_decayed_weights, scale_by_learning_rate)
def lamb(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegativeOrSchedule = 0.0,
    mask: Mask = None,
):
    """AdamW with a trust ratio for each leaf (You et al., 2020, arXiv:1904.00962, Algorithm 2)."""
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )


@recipe(add_decayed_weights, scale_by_trust_ratio, scale_by_learning_rate, trace)
def lars(
    learning_rate: LearningRate,
    weight_decay: NonNegativeOrSchedule = 0.0,
    weight_decay_mask: Mask = True,
    trust_coefficient: Positive = 0.001,
    eps: NonNegative = 0.0,
    trust_ratio_mask: Mask = True,
    momentum: Decay = 0.9,
    nesterov: bool = False,
):
    """Momentum on steps with a trust ratio for each leaf (You et al., 2017, arXiv:1708.03888, Algorithm 1).

    Args:
        weight_decay_mask: the leaves that decay, as `mask` in `add_decayed_weights`; True means all.
        trust_ratio_mask: the leaves whose update is scaled by their trust ratio, given in the same way; True means all.
        momentum: μ, decay of the velocity, in [0, 1).
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps), trust_ratio_mask),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )


@recipe(scale_by_novograd, scale_by_learning_rate)
def novograd(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
):
    """Gradients in units of their norm for each leaf, then momentum: `scale_by_novograd` (Ginsburg et al., 2019)."""
    return chain(scale_by_novograd(b1, b2, eps, eps_root, weight_decay), scale_by_learning_rate(learning_rate))


@recipe(scale_by_adan, scale_by_learning_rate, proximal_l2)
def adan(
    learning_rate: LearningRate,
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Mask = None,
):
    """Adam with an average of gradient differences, and proximal weight decay: `scale_by_adan` (Xie et al., 2022).

    Args:
        weight_decay: λ of `proximal_l2`, at least 0.
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root),
        scale_by_learning_rate(learning_rate),
        proximal_l2(learning_rate, weight_decay, mask),
    )


@recipe(scale_by_rprop)
def rprop(
    learning_rate: NonNegative,
    eta_minus: Positive = 0.5,
    eta_plus: Positive = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: NonNegative = 50.0,
):
    """A step size for each coordinate, by the sign of its gradient: `scale_by_rprop` (Riedmiller & Braun, 1993)."""
    return chain(scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size), scale(-1.0))
