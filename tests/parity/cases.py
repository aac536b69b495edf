"""Who is compared with whom: a peer's rule with its arguments, and the expression that should be the same rule here.

`ours` has Optax's argument names and defaults. Where a hyperparameter is not written in either, the two defaults are
claimed to be equal. ε = 1e-30 stands for none: too small to be seen beside any other number here, yet not 0 / 0 at a
coordinate without gradients.

Left out, because no arguments make the two rules one:

    PyTorch SGD, dampening d         its buffer starts at g₁, not (1 - d) g₁, so it is neither `trace` nor `ema`
    PyTorch Adagrad, eps             √v + ε there, √(v + ε) here: compared with its ε = 0 and ours moved into the start
    PyTorch Adagrad, lr_decay        a schedule of 1 / (1 + d t), not a part of the rule
    PyTorch NAdam, momentum_decay    a schedule of b1, with no counterpart; at 1e6 it is constant, and so compared
    PyTorch RAdam, eps               added to √v before the correction: a different ε at each step; compared at 1e-30
    PyTorch Rprop, lr > max step     clamped at the first step there, from the first product of gradients on here
    PyTorch ASGD                     a schedule without text: compared in test_torch.py
    PyTorch Muon                     iterates in bfloat16; the authors' is compared, without its casts
    Yogi's ε                         added to √v before the correction in the authors' code; compared at 1e-30, and with
                                     a start of v so small that it does not matter that Optax starts m there as well
    LARS with weight decay, paper    ‖g‖ + β‖w‖ below, we (Optax, SimCLR) have ‖g + βw‖
    LAMB of BERT and ALBERT          no bias corrections
    RAdam's authors' code            no step at all while it is not rectified
"""

from dataclasses import dataclass

from . import matrices
from .automatic import PACKAGES


@dataclass(frozen=True)
class Case:
    id: str
    peer: str  # "torch": a class of torch.optim; "authors": a function of authors.py; "packages": module:class
    rule: str
    arguments: dict
    ours: str
    note: str = ""


# (id, class of torch.optim, its arguments, ours, note)
TORCH = [
    ("sgd", "SGD", {"lr": 0.01}, "sgd(0.01)"),
    ("sgd_momentum", "SGD", {"lr": 0.01, "momentum": 0.9}, "sgd(0.01, momentum=0.9)"),
    ("sgd_nesterov", "SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}, "sgd(0.01, momentum=0.9, nesterov=True)"),
    (
        "sgd_nesterov_light",
        "SGD",
        {"lr": 0.02, "momentum": 0.35, "nesterov": True},
        "sgd(0.02, momentum=0.35, nesterov=True)",
    ),
    ("sgd_l2", "SGD", {"lr": 0.01, "weight_decay": 0.3}, "chain(add_decayed_weights(0.3), sgd(0.01))"),
    (
        "sgd_l2_momentum",
        "SGD",
        {"lr": 0.01, "momentum": 0.8, "weight_decay": 0.3},
        "chain(add_decayed_weights(0.3), sgd(0.01, momentum=0.8))",
    ),
    ("adam", "Adam", {"lr": 0.001}, "adam(0.001)"),
    ("adam_lr", "Adam", {"lr": 0.1}, "adam(0.1)"),
    ("adam_betas", "Adam", {"lr": 0.02, "betas": (0.7, 0.95)}, "adam(0.02, b1=0.7, b2=0.95)"),
    ("adam_b1_zero", "Adam", {"lr": 0.02, "betas": (0.0, 0.9)}, "adam(0.02, b1=0.0, b2=0.9)"),
    ("adam_eps", "Adam", {"lr": 0.02, "eps": 1e-2}, "adam(0.02, eps=1e-2)"),
    (
        "adam_betas_eps",
        "Adam",
        {"lr": 0.01, "betas": (0.8, 0.97), "eps": 1e-3},
        "adam(0.01, b1=0.8, b2=0.97, eps=1e-3)",
    ),
    ("adam_l2", "Adam", {"lr": 0.02, "weight_decay": 0.1}, "chain(add_decayed_weights(0.1), adam(0.02))"),
    ("adamw", "AdamW", {"lr": 0.001}, "adamw(0.001, weight_decay=1e-2)", "PyTorch's default is 1e-2"),
    ("adamw_light", "AdamW", {"lr": 0.05, "weight_decay": 1e-4}, "adamw(0.05)", "Optax's default is 1e-4"),
    ("adamw_heavy", "AdamW", {"lr": 0.05, "weight_decay": 0.5}, "adamw(0.05, weight_decay=0.5)"),
    (
        "adamw_all",
        "AdamW",
        {"lr": 0.03, "betas": (0.85, 0.98), "eps": 1e-2, "weight_decay": 0.1},
        "adamw(0.03, b1=0.85, b2=0.98, eps=1e-2, weight_decay=0.1)",
    ),
    ("amsgrad", "Adam", {"lr": 0.01, "amsgrad": True}, 'amsgrad(0.01, form="torch")'),
    (
        "amsgrad_betas",
        "Adam",
        {"lr": 0.02, "betas": (0.6, 0.8), "amsgrad": True},
        'amsgrad(0.02, b1=0.6, b2=0.8, form="torch")',
    ),
    (
        "amsgrad_eps",
        "Adam",
        {"lr": 0.02, "betas": (0.9, 0.9), "eps": 1e-2, "amsgrad": True},
        'amsgrad(0.02, b2=0.9, eps=1e-2, form="torch")',
    ),
    (
        "amsgrad_l2",
        "Adam",
        {"lr": 0.02, "betas": (0.9, 0.9), "weight_decay": 0.1, "amsgrad": True},
        'chain(add_decayed_weights(0.1), amsgrad(0.02, b2=0.9, form="torch"))',
    ),
    (
        "amsgrad_decoupled",
        "AdamW",
        {"lr": 0.02, "betas": (0.9, 0.85), "weight_decay": 0.1, "amsgrad": True},
        'chain(scale_by_amsgrad(b2=0.85, form="torch"), add_decayed_weights(0.1), scale_by_learning_rate(0.02))',
    ),
    (
        "rmsprop",
        "RMSprop",
        {"lr": 0.01},
        "rmsprop(0.01, decay=0.99, eps_in_sqrt=False)",
        "PyTorch's default decay is 0.99, and its ε stands outside the root",
    ),
    ("rmsprop_decay", "RMSprop", {"lr": 0.01, "alpha": 0.9}, "rmsprop(0.01, eps_in_sqrt=False)"),
    (
        "rmsprop_eps",
        "RMSprop",
        {"lr": 0.02, "alpha": 0.8, "eps": 1e-2},
        "rmsprop(0.02, decay=0.8, eps=1e-2, eps_in_sqrt=False)",
    ),
    (
        "rmsprop_momentum",
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "momentum": 0.7},
        "rmsprop(0.01, eps_in_sqrt=False, momentum=0.7)",
    ),
    (
        "rmsprop_centered",
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "centered": True},
        "rmsprop(0.01, eps_in_sqrt=False, centered=True)",
    ),
    (
        "rmsprop_centered_all",
        "RMSprop",
        {"lr": 0.01, "alpha": 0.95, "eps": 1e-3, "centered": True, "momentum": 0.5},
        "rmsprop(0.01, decay=0.95, eps=1e-3, initial_scale=0.0, eps_in_sqrt=False, centered=True, momentum=0.5)",
    ),
    (
        "rmsprop_l2",
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "weight_decay": 0.1},
        "chain(add_decayed_weights(0.1), rmsprop(0.01, eps_in_sqrt=False))",
    ),
    ("adadelta", "Adadelta", {"lr": 1.0}, "adadelta(1.0)"),
    ("adadelta_rho", "Adadelta", {"lr": 1.0, "rho": 0.7}, "adadelta(1.0, rho=0.7)"),
    ("adadelta_eps", "Adadelta", {"lr": 0.3, "rho": 0.95, "eps": 1e-2}, "adadelta(0.3, rho=0.95, eps=1e-2)"),
    (
        "adadelta_l2",
        "Adadelta",
        {"lr": 1.0, "weight_decay": 0.1},
        "adadelta(1.0, weight_decay=0.1)",
        "adadelta alone has decay as an argument, and it is of the L2 kind",
    ),
    (
        "adadelta_l2_chain",
        "Adadelta",
        {"lr": 1.0, "eps": 1e-4, "weight_decay": 0.2},
        "chain(add_decayed_weights(0.2), adadelta(1.0, eps=1e-4))",
    ),
    ("adamax", "Adamax", {"lr": 0.002}, "adamax(0.002)"),
    ("adamax_betas", "Adamax", {"lr": 0.02, "betas": (0.7, 0.9)}, "adamax(0.02, b1=0.7, b2=0.9)"),
    ("adamax_eps", "Adamax", {"lr": 0.02, "eps": 1e-2}, "adamax(0.02, eps=1e-2)"),
    ("adamax_l2", "Adamax", {"lr": 0.02, "weight_decay": 0.1}, "chain(add_decayed_weights(0.1), adamax(0.02))"),
    (
        "adagrad",
        "Adagrad",
        {"lr": 0.1, "initial_accumulator_value": 0.1, "eps": 0.0},
        "adagrad(0.1, eps=0.0)",
        "Optax's default start is 0.1",
    ),
    (
        "adagrad_start_eps",
        "Adagrad",
        {"lr": 0.1, "initial_accumulator_value": 0.201, "eps": 0.0},
        "adagrad(0.1, initial_accumulator_value=0.2, eps=1e-3)",
        "ε under the root is a part of the start: 0.2 + 1e-3",
    ),
    (
        "adagrad_from_zero",
        "Adagrad",
        {"lr": 0.3, "initial_accumulator_value": 1e-30, "eps": 0.0},
        "adagrad(0.3, initial_accumulator_value=0.0, eps=1e-30)",
    ),
    (
        "adagrad_l2",
        "Adagrad",
        {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 0.0, "weight_decay": 0.1},
        "chain(add_decayed_weights(0.1), adagrad(0.1, initial_accumulator_value=0.5, eps=0.0))",
    ),
    ("rprop", "Rprop", {"lr": 0.01}, "rprop(0.01)"),
    ("rprop_etas", "Rprop", {"lr": 0.01, "etas": (0.3, 1.5)}, "rprop(0.01, eta_minus=0.3, eta_plus=1.5)"),
    (
        "rprop_bounds",
        "Rprop",
        {"lr": 0.01, "step_sizes": (4e-3, 0.03)},
        "rprop(0.01, min_step_size=4e-3, max_step_size=0.03)",
    ),
    ("nadam", "NAdam", {"lr": 0.002, "momentum_decay": 1e6}, "nadam(0.002)"),
    (
        "nadam_all",
        "NAdam",
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-2, "momentum_decay": 1e6},
        "nadam(0.02, b1=0.8, b2=0.95, eps=1e-2)",
    ),
    (
        "nadam_l2",
        "NAdam",
        {"lr": 0.02, "weight_decay": 0.1, "momentum_decay": 1e6},
        "chain(add_decayed_weights(0.1), nadam(0.02))",
    ),
    (
        "nadamw",
        "NAdam",
        {"lr": 0.02, "weight_decay": 0.1, "momentum_decay": 1e6, "decoupled_weight_decay": True},
        "nadamw(0.02, weight_decay=0.1)",
    ),
    ("radam", "RAdam", {"lr": 0.001, "eps": 1e-30}, "radam(0.001, eps=1e-30)"),
    ("radam_betas", "RAdam", {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-30}, "radam(0.02, b1=0.7, b2=0.9, eps=1e-30)"),
    (
        "radam_never",
        "RAdam",
        {"lr": 0.02, "betas": (0.9, 0.5), "eps": 1e-30},
        "radam(0.02, b2=0.5, eps=1e-30)",
        "ρ never reaches 5: the mean gradient alone",
    ),
    (
        "radam_l2",
        "RAdam",
        {"lr": 0.02, "betas": (0.9, 0.95), "eps": 1e-30, "weight_decay": 0.1},
        "chain(add_decayed_weights(0.1), radam(0.02, b2=0.95, eps=1e-30))",
    ),
    (
        "radam_decoupled",
        "RAdam",
        {"lr": 0.02, "betas": (0.9, 0.95), "eps": 1e-30, "weight_decay": 0.1, "decoupled_weight_decay": True},
        "chain(scale_by_radam(b2=0.95, eps=1e-30), add_decayed_weights(0.1), scale_by_learning_rate(0.02))",
    ),
    (
        "adafactor",
        "Adafactor",
        {},
        "adafactor(relative_step_schedule(1e-2), 0, eps=None, form='torch')",
        "its lr is an upper bound of 1 / √t",
    ),
    (
        "adafactor_all",
        "Adafactor",
        {"lr": 0.5, "beta2_decay": -0.6, "eps": (1e-2, 1e-3), "d": 2.0, "weight_decay": 0.1},
        "adafactor(relative_step_schedule(0.5), 0, 0.6, clipping_threshold=2.0, weight_decay_rate=0.05, eps=1e-2,"
        " form='torch')",
        "PyTorch's decay is lr * weight_decay",
    ),
]

# (id, function of authors.py, its arguments, ours, note)
AUTHORS = [
    ("adan", "adan", {"lr": 0.01}, "adan(0.01, eps_root=0.0)", "the authors have no ε under the root"),
    (
        "adan_betas",
        "adan",
        {"lr": 0.02, "b1": 0.9, "b2": 0.7, "b3": 0.95},
        "adan(0.02, b1=0.9, b2=0.7, b3=0.95, eps_root=0.0)",
    ),
    ("adan_eps", "adan", {"lr": 0.02, "eps": 1e-2}, "adan(0.02, eps=1e-2, eps_root=0.0)"),
    (
        "adan_decay",
        "adan",
        {"lr": 0.02, "weight_decay": 0.2},
        "adan(0.02, eps_root=0.0, weight_decay=0.2)",
        "the proximal form, the authors' default",
    ),
    (
        "adan_decay_decoupled",
        "adan",
        {"lr": 0.02, "weight_decay": 0.2, "proximal": False},
        "chain(scale_by_adan(), add_decayed_weights(0.2), scale_by_learning_rate(0.02))",
        "the authors' no_prox=True, and the form of decay that Optax's adan has",
    ),
    ("scale_by_adan", "adan", {"lr": 0.02, "b2": 0.8}, "chain(scale_by_adan(b2=0.8), scale_by_learning_rate(0.02))"),
    ("lion", "lion", {"lr": 0.003}, "lion(0.003, weight_decay=0.0)", "the authors' default decay is 0"),
    ("lion_decay", "lion", {"lr": 0.01, "weight_decay": 1e-3}, "lion(0.01)", "Optax's default is 1e-3"),
    (
        "lion_all",
        "lion",
        {"lr": 0.01, "b1": 0.8, "b2": 0.95, "weight_decay": 0.3},
        "lion(0.01, b1=0.8, b2=0.95, weight_decay=0.3)",
    ),
    ("signum", "signum", {"lr": 0.01}, "signum(0.01)"),
    ("signum_beta", "signum", {"lr": 0.01, "b": 0.6}, "signum(0.01, beta=0.6)"),
    (
        "yogi",
        "yogi",
        {"lr": 0.02, "eps": 1e-30},
        "chain(scale_by_yogi(eps=1e-30), scale_by_learning_rate(0.02))",
    ),
    (
        "yogi_betas",
        "yogi",
        {"lr": 0.02, "b1": 0.7, "b2": 0.9, "eps": 1e-30, "initial": 1e-2},
        "chain(scale_by_yogi(b1=0.7, b2=0.9, eps=1e-30, initial_accumulator_value=1e-2), scale_by_learning_rate(0.02))",
    ),
    ("adabelief", "adabelief", {"lr": 0.01}, "adabelief(0.01)"),
    (
        "adabelief_all",
        "adabelief",
        {"lr": 0.02, "b1": 0.8, "b2": 0.95, "eps": 1e-3},
        "adabelief(0.02, b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-3)",
        "the paper has one ε for both places",
    ),
    (
        "adabelief_decay",
        "adabelief",
        {"lr": 0.02, "weight_decay": 0.1},
        "chain(scale_by_belief(), add_decayed_weights(0.1), scale_by_learning_rate(0.02))",
    ),
    (
        "novograd",
        "novograd",
        {"lr": 0.01},
        "novograd(0.01, b1=0.95, b2=0.98, eps=1e-8)",
        "the authors' defaults; Optax's are 0.9, 0.25, 1e-6",
    ),
    (
        "novograd_all",
        "novograd",
        {"lr": 0.01, "b1": 0.8, "b2": 0.25, "eps": 0.1, "weight_decay": 0.1},
        "novograd(0.01, b1=0.8, eps=0.1, weight_decay=0.1)",
    ),
    (
        "novograd_eps_in_root",
        "novograd",
        {"lr": 0.01, "b1": 0.9, "b2": 0.5, "eps": 0.1, "eps_in_root": True},
        "novograd(0.01, b2=0.5, eps=1e-30, eps_root=0.1)",
    ),
    ("lamb", "lamb", {"lr": 0.01}, "lamb(0.01)"),
    ("lamb_decay", "lamb", {"lr": 0.01, "weight_decay": 0.3}, "lamb(0.01, weight_decay=0.3)"),
    (
        "lamb_all",
        "lamb",
        {"lr": 0.02, "b1": 0.8, "b2": 0.9, "eps": 1e-2, "weight_decay": 0.1},
        "lamb(0.02, b1=0.8, b2=0.9, eps=1e-2, weight_decay=0.1)",
    ),
    ("lars", "lars", {"lr": 1.0, "norm_of_sum": False}, "lars(1.0)", "without decay the two are one"),
    (
        "lars_trust",
        "lars",
        {"lr": 1.0, "momentum": 0.7, "trust": 0.02, "norm_of_sum": False},
        "lars(1.0, trust_coefficient=0.02, momentum=0.7)",
    ),
    ("lars_decay", "lars", {"lr": 5.0, "weight_decay": 0.3}, "lars(5.0, weight_decay=0.3)"),
    (
        "lars_nesterov",
        "lars",
        {"lr": 1.0, "momentum": 0.6, "weight_decay": 0.1, "trust": 0.01, "nesterov": True},
        "lars(1.0, weight_decay=0.1, trust_coefficient=0.01, momentum=0.6, nesterov=True)",
    ),
    (
        "amsgrad_paper",
        "amsgrad",
        {"lr": 0.02, "b1": 0.8, "b2": 0.9, "eps": 1e-3},
        "amsgrad(0.02, b1=0.8, b2=0.9, eps=1e-3, bias_correction_mu=False, bias_correction_nu=False)",
    ),
    ("adopt_clipped", "adopt", {"lr": 0.01, "b2": 0.95}, "adopt(0.01, b2=0.95)"),
    ("adopt_all", "adopt", {"lr": 0.02, "b1": 0.8, "b2": 0.9, "eps": 1e-2}, "adopt(0.02, 0.8, 0.9, 1e-2)"),
    (
        "simplified_ademamix",
        "simplified_ademamix",
        {"lr": 0.001, "b1": 0.9, "b2": 0.9, "alpha": 2.0, "eps": 1e-3, "weight_decay": 0.1},
        "simplified_ademamix(0.001, 0.9, 0.9, 2.0, 1e-3, weight_decay=0.1)",
    ),
    ("radam_paper", "radam", {"lr": 0.02, "b2": 0.95}, "radam(0.02, b2=0.95, eps=1e-30, threshold=4.0)"),
    (
        "muon",
        "muon",
        {"lr": 0.02, "nesterov": False, "weight_decay": 0.1, "eps": 1e-3, "adam_eps": 1e-3},
        "muon(0.02, eps=1e-3, weight_decay=0.1, nesterov=False, adam_b2=0.95, adam_weight_decay=0.1,"
        " labels={'b': 'adam', 's': 'adam', 'w': 'first_out'}, debias=False)",
        "the authors' b2 is 0.95, and their momentum not corrected for its start",
    ),
    (
        "muon_nesterov",
        "muon",
        {"lr": 0.02, "beta": 0.9},
        "partition({'m': chain(ema(0.9, False, nesterov=True), as_matrices(chain(orthogonalize(eps=1e-7),"
        " scale_by_shape()), 'first_out'), scale_by_learning_rate(0.02)), 'a': adam(0.02, 0.9, 0.95, 1e-10)},"
        " {'b': 'a', 's': 'a', 'w': 'm'})",
        "the authors' Adam has no Nesterov momentum where their Muon has",
    ),
]

TABLES = (
    ("torch", TORCH),
    ("authors", AUTHORS + matrices.AUTHORS),
    ("packages", PACKAGES + matrices.PACKAGES),
)
CASES = [Case(name, peer, *rest) for peer, rows in TABLES for name, *rest in rows]
