"""Optimizers as values, for everything that JAX differentiates.

    import jaxopt_lite as jo

Every public name is here, flat, and has this one import path. See docs/ for a tour.
"""

from jaxopt_lite import search, solvers, trackers
from jaxopt_lite.checkpoint.saving import load, save
from jaxopt_lite.core.carrying import carry_state
from jaxopt_lite.core.hyperparameters import arrays, as_optax, hyperparameters, replace
from jaxopt_lite.core.layout import Part, Parts, Place, View, state_bytes, state_layout
from jaxopt_lite.core.lifting import lift
from jaxopt_lite.core.method import Info, Objective, Solver, Status, advance, solver
from jaxopt_lite.core.numbers import (
    Count,
    Decay,
    Fraction,
    NonNegative,
    Positive,
    PositiveCount,
    Rate,
    Scalar,
    Table,
    Vector,
)
from jaxopt_lite.core.parameters import Arrays, Dtype, Key, Mask
from jaxopt_lite.core.schedule import (
    DecayOrSchedule,
    LearningRate,
    NonNegativeOrSchedule,
    Schedule,
    Scheduled,
    schedule,
)
from jaxopt_lite.core.text import parse, spell
from jaxopt_lite.core.transformation import (
    GradientTransformation,
    apply_updates,
    chain,
    identity,
    set_to_zero,
    stateless,
    transformation,
)
from jaxopt_lite.core.values import Value
from jaxopt_lite.log.trackers import Tracker
from jaxopt_lite.losses import (
    Penalty,
    elastic_net_penalty,
    group_lasso_penalty,
    l1_penalty,
    l2_penalty,
    nuclear_norm_penalty,
    penalty,
    regularized,
)
from jaxopt_lite.optimizers.automatic import dog, dowg, polyak_sgd, schedule_free_adamw, schedule_free_sgd
from jaxopt_lite.optimizers.first_order import (
    adabelief,
    adadelta,
    adagrad,
    adam,
    adamax,
    adamw,
    adan,
    amsgrad,
    lamb,
    lars,
    lion,
    nadam,
    nadamw,
    noisy_sgd,
    novograd,
    radam,
    rmsprop,
    rprop,
    sgd,
    signum,
    yogi,
)
from jaxopt_lite.optimizers.matrices import muon, normuon, psgd_kron, shampoo, soap
from jaxopt_lite.optimizers.mixtures import adafactor, ademamix, adopt, simplified_ademamix
from jaxopt_lite.problems.bbob import TestProblem, bbob
from jaxopt_lite.report.curves import plot_history
from jaxopt_lite.report.overview import plot_sweep
from jaxopt_lite.report.result import Best, SweepResult, Trial
from jaxopt_lite.run.batches import minimize_batch
from jaxopt_lite.run.checkpoints import Checkpoint, checkpoints
from jaxopt_lite.run.equations import fixed_point, root
from jaxopt_lite.run.fitting import curve_fit, least_squares
from jaxopt_lite.run.minimizing import minimize
from jaxopt_lite.run.quadratic import quadratic_program
from jaxopt_lite.run.sweeping import resume, sweep
from jaxopt_lite.run.training import fit
from jaxopt_lite.schedules.phases import (
    inverse_sqrt_schedule,
    join_schedules,
    relative_step_schedule,
    sgdr_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
    warmup_stable_decay_schedule,
)
from jaxopt_lite.schedules.shapes import (
    constant_schedule,
    cosine_decay_schedule,
    cosine_onecycle_schedule,
    cyclic_triangular_schedule,
    exponential_decay,
    linear_onecycle_schedule,
    linear_schedule,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
    polynomial_schedule,
)
from jaxopt_lite.solve.custom import custom_fixed_point, custom_root
from jaxopt_lite.solve.solution import Solution, SolveState
from jaxopt_lite.sweeps.adaptive import cma_es, tpe
from jaxopt_lite.sweeps.distributions import (
    Distribution,
    choice,
    int_uniform,
    log_int_uniform,
    log_uniform,
    normal,
    one_minus_log_uniform,
    uniform,
)
from jaxopt_lite.sweeps.ledger import Copy, Ledger
from jaxopt_lite.sweeps.policies import Decision, Policy, median_stopping, policy, run_all, successive_halving
from jaxopt_lite.sweeps.population import Change, lineage, population_based, replay
from jaxopt_lite.sweeps.samplers import Sampler, grid, halton, random, sampler, sobol
from jaxopt_lite.sweeps.space import Space, space, space_of
from jaxopt_lite.train.data import batch_order
from jaxopt_lite.train.loop import Pause, Point, Reply, Snapshot, training
from jaxopt_lite.train.plan import Plan
from jaxopt_lite.train.point import Run
from jaxopt_lite.train.result import Result
from jaxopt_lite.train.state import TrainState, init_state
from jaxopt_lite.train.step import make_step
from jaxopt_lite.train.task import Task
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
from jaxopt_lite.transforms.clipping import adaptive_grad_clip, clip, clip_by_block_rms, clip_by_global_norm
from jaxopt_lite.transforms.decay import (
    add_cautious_decay,
    add_decayed_weights,
    add_noise,
    keep_params_nonnegative,
    proximal_l1,
    proximal_l2,
)
from jaxopt_lite.transforms.distance import dadapt_adamw, prodigy, scale_by_dog, scale_by_dowg
from jaxopt_lite.transforms.eigenbases import scale_by_soap
from jaxopt_lite.transforms.factored import scale_by_factored_rms, scale_by_param_block_rms
from jaxopt_lite.transforms.feedback import hypergradient, mechanize, reduce_on_plateau, scale_by_polyak
from jaxopt_lite.transforms.guards import dynamic_loss_scale, skip_large_updates, skip_not_finite, zero_nans
from jaxopt_lite.transforms.hidden import hidden_matrices
from jaxopt_lite.transforms.kron import scale_by_kron
from jaxopt_lite.transforms.matrices import as_matrices, orthogonalize, scale_by_neuron_rms, scale_by_shape
from jaxopt_lite.transforms.mixtures import cautious, scale_by_ademamix, scale_by_adopt, scale_by_simplified_ademamix
from jaxopt_lite.transforms.momentum import ema, scale_by_lion, scale_by_sign, trace
from jaxopt_lite.transforms.quantization import quantize_state
from jaxopt_lite.transforms.rounding import kahan_summation, master_weights, stochastic_rounding
from jaxopt_lite.transforms.routing import by_path, freeze, groups, masked, partition, routing_table
from jaxopt_lite.transforms.scaling import (
    centralize,
    normalize_by_update_norm,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
    scale_by_trust_ratio,
)
from jaxopt_lite.transforms.schedule_free import eval_params, schedule_free
from jaxopt_lite.transforms.shampoo import scale_by_shampoo
from jaxopt_lite.transforms.sharpness import sam
from jaxopt_lite.transforms.stacking import stack_leaves, stack_matrices
from jaxopt_lite.transforms.wrappers import (
    accumulate,
    averaged_params,
    ema_params,
    latest_weights,
    lookahead,
    outer_nesterov,
    tail_average,
)

__version__ = "0.1.0"

__all__ = [
    "Arrays",
    "Best",
    "Change",
    "Checkpoint",
    "Copy",
    "Count",
    "Decay",
    "DecayOrSchedule",
    "Decision",
    "Distribution",
    "Dtype",
    "Fraction",
    "GradientTransformation",
    "Info",
    "Key",
    "LearningRate",
    "Ledger",
    "Mask",
    "NonNegative",
    "NonNegativeOrSchedule",
    "Objective",
    "Part",
    "Parts",
    "Pause",
    "Penalty",
    "Place",
    "Plan",
    "Point",
    "Policy",
    "Positive",
    "PositiveCount",
    "Rate",
    "Reply",
    "Result",
    "Run",
    "Sampler",
    "Scalar",
    "Schedule",
    "Scheduled",
    "Snapshot",
    "Solution",
    "SolveState",
    "Solver",
    "Space",
    "Status",
    "SweepResult",
    "Table",
    "Task",
    "TestProblem",
    "Tracker",
    "TrainState",
    "Trial",
    "Value",
    "Vector",
    "View",
    "accumulate",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adan",
    "adaptive_grad_clip",
    "add_cautious_decay",
    "add_decayed_weights",
    "add_noise",
    "ademamix",
    "adopt",
    "advance",
    "amsgrad",
    "apply_updates",
    "arrays",
    "as_matrices",
    "as_optax",
    "averaged_params",
    "batch_order",
    "bbob",
    "by_path",
    "carry_state",
    "cautious",
    "centralize",
    "chain",
    "checkpoints",
    "choice",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "cma_es",
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "curve_fit",
    "custom_fixed_point",
    "custom_root",
    "cyclic_triangular_schedule",
    "dadapt_adamw",
    "dog",
    "dowg",
    "dynamic_loss_scale",
    "elastic_net_penalty",
    "ema",
    "ema_params",
    "eval_params",
    "exponential_decay",
    "fit",
    "fixed_point",
    "freeze",
    "grid",
    "group_lasso_penalty",
    "groups",
    "halton",
    "hidden_matrices",
    "hypergradient",
    "hyperparameters",
    "identity",
    "init_state",
    "int_uniform",
    "inverse_sqrt_schedule",
    "join_schedules",
    "kahan_summation",
    "keep_params_nonnegative",
    "l1_penalty",
    "l2_penalty",
    "lamb",
    "lars",
    "latest_weights",
    "least_squares",
    "lift",
    "lineage",
    "linear_onecycle_schedule",
    "linear_schedule",
    "lion",
    "load",
    "log_int_uniform",
    "log_uniform",
    "lookahead",
    "make_step",
    "masked",
    "master_weights",
    "mechanize",
    "median_stopping",
    "minimize",
    "minimize_batch",
    "muon",
    "nadam",
    "nadamw",
    "noisy_sgd",
    "normal",
    "normalize_by_update_norm",
    "normuon",
    "novograd",
    "nuclear_norm_penalty",
    "one_minus_log_uniform",
    "orthogonalize",
    "outer_nesterov",
    "parse",
    "partition",
    "penalty",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "plot_history",
    "plot_sweep",
    "policy",
    "polyak_sgd",
    "polynomial_schedule",
    "population_based",
    "prodigy",
    "proximal_l1",
    "proximal_l2",
    "psgd_kron",
    "quadratic_program",
    "quantize_state",
    "radam",
    "random",
    "reduce_on_plateau",
    "regularized",
    "relative_step_schedule",
    "replace",
    "replay",
    "resume",
    "rmsprop",
    "root",
    "routing_table",
    "rprop",
    "run_all",
    "sam",
    "sampler",
    "save",
    "scale",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_belief",
    "scale_by_dog",
    "scale_by_dowg",
    "scale_by_factored_rms",
    "scale_by_kron",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_neuron_rms",
    "scale_by_novograd",
    "scale_by_param_block_rms",
    "scale_by_polyak",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_shape",
    "scale_by_shampoo",
    "scale_by_sign",
    "scale_by_simplified_ademamix",
    "scale_by_soap",
    "scale_by_stddev",
    "scale_by_trust_ratio",
    "scale_by_yogi",
    "schedule",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "search",
    "set_to_zero",
    "sgd",
    "sgdr_schedule",
    "shampoo",
    "signum",
    "simplified_ademamix",
    "skip_large_updates",
    "skip_not_finite",
    "soap",
    "sobol",
    "solver",
    "solvers",
    "space",
    "space_of",
    "spell",
    "stack_leaves",
    "stack_matrices",
    "state_bytes",
    "state_layout",
    "stateless",
    "stochastic_rounding",
    "successive_halving",
    "sweep",
    "tail_average",
    "tpe",
    "trace",
    "trackers",
    "training",
    "transformation",
    "uniform",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "warmup_stable_decay_schedule",
    "yogi",
    "zero_nans",
]


def __getattr__(name: str) -> object:
    if name == "gp":
        raise AttributeError("gp was removed in 0.2; use tpe() or cma_es()")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
