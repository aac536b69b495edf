"""Recipes that work on matrices as such: Muon, NorMuon, SOAP, Shampoo and PSGD Kron."""

from typing import Any, Literal

from jaxopt_lite.core.numbers import Decay, NonNegative, Positive, PositiveCount
from jaxopt_lite.core.parameters import Dtype, Key, Mask
from jaxopt_lite.core.recipe import recipe
from jaxopt_lite.core.schedule import LearningRate, NonNegativeOrSchedule
from jaxopt_lite.core.transformation import GradientTransformation, chain
from jaxopt_lite.optimizers.first_order import adamw
from jaxopt_lite.transforms.adaptive import scale_by_rms, scale_by_rss
from jaxopt_lite.transforms.decay import add_decayed_weights
from jaxopt_lite.transforms.eigenbases import scale_by_soap
from jaxopt_lite.transforms.hidden import hidden_matrices
from jaxopt_lite.transforms.kron import scale_by_kron
from jaxopt_lite.transforms.matrices import AXES, as_matrices, orthogonalize, scale_by_neuron_rms, scale_by_shape
from jaxopt_lite.transforms.momentum import ema
from jaxopt_lite.transforms.routing import partition
from jaxopt_lite.transforms.scaling import scale_by_learning_rate
from jaxopt_lite.transforms.shampoo import scale_by_shampoo
from jaxopt_lite.transforms.stacking import stack_matrices

__all__ = ["muon", "normuon", "psgd_kron", "shampoo", "soap"]


@recipe(orthogonalize, scale_by_shape, scale_by_learning_rate)
def muon(
    learning_rate: LearningRate,
    ns_coeffs: Any = "standard",
    ns_steps: int = 5,
    beta: Decay = 0.95,
    eps: Positive = 1e-8,
    weight_decay: NonNegativeOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: Dtype | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Literal["frobenius", "spectral", "aol", "schatten"] = "frobenius",
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: NonNegativeOrSchedule = 0.0,
    adam_learning_rate: LearningRate | None = None,
    consistent_rms: NonNegative | None = None,
    labels: Mask = None,
    debias: bool = True,
    ns_dtype: Dtype | None = None,
):
    """Momentum, orthogonalized, for hidden matrices; Nesterov's AdamW for all other leaves (Jordan et al., 2024).

    `routing_table(muon(...), params)` shows which leaf gets what.

    Args:
        beta: decay of the momentum, in [0, 1).
        eps: ε of both rules, above 0.
        weight_decay: λ of the matrices, decoupled, at least 0; a number or a schedule.
        weight_decay_mask: which of the matrices decay: a tree of bools in the structure of params (or a prefix of it),
            or a function of params. None decays all.
        mu_dtype: dtype of the momentum and of AdamW's mean in the state; None means that of the parameters, at least
            float32.
        nesterov: Nesterov momentum, in both rules.
        adam_b1: AdamW's decay of the mean gradient, in [0, 1).
        adam_b2: AdamW's decay of the mean square, in [0, 1).
        adam_eps_root: AdamW's second ε, added under the root, at least 0.
        adam_weight_decay: AdamW's λ, at least 0; a number or a schedule.
        adam_learning_rate: AdamW's learning rate; None means the same as for the matrices.
        labels: "adam" or a word of `as_matrices` for each leaf: a tree of labels (or a prefix of it), or a function of
            params. None is `hidden_matrices()`, which goes by names and asks where they say nothing.
            A leaf of fewer than two axes that is not "adam" is a matrix of one row.
        debias: correct the momentum for its start at zero, as Optax does; False is the authors' code.

    Raises:
        ValueError: when used, if the names of leaves do not determine their labels, or for another label.
    """

    def hidden(axes):
        direction = stack_matrices(
            chain(
                orthogonalize(
                    *(ns_coeffs, ns_steps, eps), preconditioning=preconditioning, adaptive=adaptive, ns_dtype=ns_dtype
                ),
                scale_by_shape(consistent_rms),
            )
        )
        return chain(
            ema(beta, debias, mu_dtype, nesterov=nesterov),
            as_matrices(direction, axes),
            add_decayed_weights(weight_decay, weight_decay_mask),
            scale_by_learning_rate(learning_rate),
        )

    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    adam = adamw(rate, adam_b1, adam_b2, eps, adam_eps_root, mu_dtype, adam_weight_decay, nesterov=nesterov)
    routes = {axes: hidden(axes) for axes in AXES} | {"adam": adam}
    return partition(routes, hidden_matrices() if labels is None else labels)


@recipe(orthogonalize, scale_by_neuron_rms, scale_by_learning_rate)
def normuon(
    learning_rate: LearningRate,
    ns_coeffs: Any = "standard",
    ns_steps: int = 5,
    beta: Decay = 0.95,
    b2: Decay = 0.95,
    eps: Positive = 1e-8,
    weight_decay: NonNegativeOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: Dtype | None = None,
    *,
    nesterov: bool = True,
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_weight_decay: NonNegativeOrSchedule = 0.0,
    adam_learning_rate: LearningRate | None = None,
    consistent_rms: NonNegative | None = 0.2,
    labels: Mask = None,
    debias: bool = True,
    ns_dtype: Dtype | None = None,
):
    """Muon with a mean square for each neuron after orthogonalization (Li et al., 2025), and AdamW for other leaves.

    Args:
        beta: decay of the momentum, in [0, 1).
        eps: ε of all three rules, above 0.
        weight_decay: λ of the matrices, decoupled, at least 0; a number or a schedule.
        weight_decay_mask: which of the matrices decay, as for `muon`.
        mu_dtype: dtype of the momentum and of AdamW's mean in the state; None means that of the parameters, at least
            float32.
        nesterov: Nesterov momentum, in Muon's part and in AdamW.
        adam_b1: AdamW's decay of the mean gradient, in [0, 1).
        adam_b2: AdamW's decay of the mean square, in [0, 1).
        adam_weight_decay: AdamW's λ, at least 0; a number or a schedule.
        adam_learning_rate: AdamW's learning rate; None means the same as for the matrices.
        consistent_rms: r, the root mean square of the matrices' updates, at least 0; at 0.2 learning rates are those of
            AdamW. None is the authors' code: √max(1, out / in) times the norm of the orthogonalized matrix.
        labels: as for `muon`.
        debias: correct the momentum for its start at zero; it matters with `nesterov` only.

    Raises:
        ValueError: when used, if the names of leaves do not determine their labels, or for another label.
    """

    def hidden(axes):
        direction = orthogonalize(ns_coeffs, ns_steps, eps, ns_dtype=ns_dtype)
        direction = chain(direction, scale_by_shape()) if consistent_rms is None else direction
        return chain(
            ema(beta, debias, mu_dtype, nesterov=nesterov),
            as_matrices(stack_matrices(direction), axes),
            scale_by_neuron_rms(b2, eps, axes, consistent_rms=consistent_rms),
            add_decayed_weights(weight_decay, weight_decay_mask),
            scale_by_learning_rate(learning_rate),
        )

    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    adam = adamw(rate, adam_b1, adam_b2, eps, 0.0, mu_dtype, adam_weight_decay, nesterov=nesterov)
    routes = {axes: hidden(axes) for axes in AXES} | {"adam": adam}
    return partition(routes, hidden_matrices() if labels is None else labels)


@recipe(scale_by_soap, add_decayed_weights, scale_by_learning_rate)
def soap(
    learning_rate: LearningRate = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegativeOrSchedule = 0.01,
    mask: Mask = None,
    precondition_frequency: PositiveCount = 10.0,
    max_precondition_dim: int = 10_000,
    mu_dtype: Dtype | None = None,
    *,
    max_aspect: float = 4.0,
):
    """Adam in the eigenbases of Shampoo, with decoupled decay: `scale_by_soap`, leaves of one shape in stacks."""
    rule = scale_by_soap(
        *(b1, b2, shampoo_beta, eps, precondition_frequency, max_precondition_dim, mu_dtype), max_aspect=max_aspect
    )
    return chain(stack_matrices(rule), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate))


@recipe(scale_by_shampoo, add_decayed_weights, scale_by_learning_rate)
def shampoo(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay | None = 0.999,
    eps: NonNegative = 1e-12,
    weight_decay: NonNegativeOrSchedule = 0.0,
    mask: Mask = None,
    precondition_frequency: PositiveCount = 10.0,
    block_size: int = 1024,
    graft: GradientTransformation | None = None,  # pyright: ignore[reportGeneralTypeIssues]
    mu_dtype: Dtype | None = None,
    *,
    nesterov: bool = False,
    ridge: NonNegative = 1e-6,
    exponent: Positive | None = None,
    max_aspect: float | None = None,
):
    """Shampoo with grafting, momentum after it, and decoupled decay: `scale_by_shampoo`, leaves of one shape in stacks.

    Args:
        b1: decay of the mean of the preconditioned gradients, in [0, 1).
        graft: a rule such as `scale_by_adam()`. Each matrix of the update gets the norm which this rule's update has.
            None is RMSProp of the same b2, corrected for its start at zero, or Adagrad where b2 is None. For Shampoo's
            own norm chain `scale_by_shampoo` yourself.
        mu_dtype: dtype of the mean in the state; None means that of the parameters, at least float32.
        nesterov: Nesterov momentum.
    """
    if graft is None:
        graft = scale_by_rss(0.0) if b2 is None else scale_by_rms(b2, eps_in_sqrt=False, bias_correction=True)
    rule = scale_by_shampoo(
        *(b2, eps, precondition_frequency, block_size, graft), ridge=ridge, exponent=exponent, max_aspect=max_aspect
    )
    return chain(
        stack_matrices(rule),
        ema(b1, accumulator_dtype=mu_dtype, nesterov=nesterov),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@recipe(scale_by_kron, add_decayed_weights, scale_by_learning_rate)
def psgd_kron(
    learning_rate: LearningRate = 3e-4,
    b1: Decay = 0.9,
    weight_decay: NonNegativeOrSchedule = 0.0,
    mask: Mask = None,
    update_probability: NonNegativeOrSchedule | None = None,
    max_size_triangular: int = 8192,
    memory_save_mode: Literal["smart_one_diag", "one_diag", "all_diag"] | None = None,
    precond_lr: NonNegative = 0.1,
    precond_init_scale: Positive = 1.0,
    max_rms: Positive | None = 1.1,
    mu_dtype: Dtype | None = None,
    key: Key = 0,
    *,
    momentum_into_precond_update: bool = True,
):
    """PSGD with Kronecker-factored preconditioners and decoupled decay: `scale_by_kron`, leaves of one shape in stacks.

    Its learning rate is about a third of Adam's. The authors decay matrices alone: `mask` says so.
    """
    rule = scale_by_kron(
        *(b1, update_probability, max_size_triangular, memory_save_mode, precond_lr, precond_init_scale, max_rms),
        *(mu_dtype, key),
        momentum_into_precond_update=momentum_into_precond_update,
    )
    return chain(stack_matrices(rule), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate))
