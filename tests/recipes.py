"""The one table of recipes: each called with its arguments away from their defaults, and what that call chains.

The contract, the comparison with Optax and the tests of recipes all take their rows from here. The numbers are chosen
so that each of them matters within the six steps of `tests.contract.table.run`: thresholds bind, every ε is large. A
recipe with switches has several rows. `test_optimizers.py` fails if a public recipe has no row here,
`contract/test_table.py` if one of its arguments keeps its default in all rows.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxopt_lite as jo
from jaxopt_lite import chain, scale_by_learning_rate


class Recipe(NamedTuple):
    """A recipe and the chain that it stands for, arguments written out, in the order of the updates."""

    value: jo.GradientTransformation
    chain: jo.GradientTransformation


# Functions of a module, as users have them in theirs.


def falling(count):
    return 0.1 / (1 + count)


def growing(count):
    return 0.5 + count


def only_matrices(params):
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


KEY = jax.random.key(3)
MATRIX = {"w": True, "b": False}
VECTOR = {"w": False, "b": True}
WARMUP = jo.warmup_cosine_decay_schedule(0.02, 0.1, warmup_steps=1.5, decay_steps=5.5, end_value=0.01, exponent=1.5)
LINE = jo.linear_schedule(0.1, 0.02, transition_steps=5.0, transition_begin=1.0)
OFTEN = jo.linear_schedule(1.0, 0.4, transition_steps=5.0, transition_begin=1.0)
RISING = jo.warmup_constant_schedule(0.1 / 4.0, 0.1, 3.0)
MUON = {"w": "first_out", "b": "adam"}
BY_PATH = jo.by_path({"w": True}, False)

# The arguments that many of the rows below share.
ADAM = {"b1": 0.8, "b2": 0.9, "eps": 0.1, "eps_root": 0.2}
NARROW = {"mu_dtype": "bfloat16"}
KRON: Any = {"memory_save_mode": "one_diag", "precond_lr": 0.9, "precond_init_scale": 2.0}
RMS = {"decay": 0.8, "eps": 0.1, "initial_scale": 0.3}
TORCH_RMS = {"eps_in_sqrt": False, "bias_correction": True}
RATE = scale_by_learning_rate(0.1)

RECIPES = {
    "sgd": Recipe(jo.sgd(0.1), chain(jo.identity(), RATE)),
    "sgd_momentum": Recipe(
        jo.sgd(0.1, 0.8, nesterov=True, accumulator_dtype="bfloat16"),
        chain(jo.trace(0.8, nesterov=True, accumulator_dtype="bfloat16"), RATE),
    ),
    "sgd_function": Recipe(jo.sgd(falling, 0.8), chain(jo.trace(0.8), scale_by_learning_rate(falling))),
    "noisy_sgd": Recipe(jo.noisy_sgd(0.1, 0.3, 0.7, key=5), chain(jo.add_noise(0.3, 0.7, key=5), RATE)),
    "noisy_sgd_key": Recipe(
        jo.noisy_sgd(LINE, 0.3, 0.7, key=KEY), chain(jo.add_noise(0.3, 0.7, key=KEY), scale_by_learning_rate(LINE))
    ),
    "signum": Recipe(
        jo.signum(0.1, 0.7, accumulator_dtype="bfloat16"),
        chain(jo.ema(0.7, debias=False, accumulator_dtype="bfloat16"), jo.scale_by_sign(), RATE),
    ),
    "adagrad": Recipe(jo.adagrad(0.1, 0.2, 0.1), chain(jo.scale_by_rss(initial_accumulator_value=0.2, eps=0.1), RATE)),
    "adadelta": Recipe(
        jo.adadelta(0.5, 0.8, 0.1, LINE, weight_decay_mask=MATRIX),
        chain(
            jo.add_decayed_weights(LINE, mask=MATRIX),
            jo.scale_by_adadelta(rho=0.8, eps=0.1),
            scale_by_learning_rate(0.5),
        ),
    ),
    "rmsprop": Recipe(
        jo.rmsprop(0.1, 0.8, 0.1, 0.3, False, False, 0.7, nesterov=True, bias_correction=True),
        chain(jo.scale_by_rms(**RMS, **TORCH_RMS), RATE, jo.trace(0.7, nesterov=True)),
    ),
    "rmsprop_centered": Recipe(
        jo.rmsprop(LINE, 0.8, 0.1, 0.3, False, centered=True, bias_correction=True),
        chain(jo.scale_by_stddev(**RMS, **TORCH_RMS), scale_by_learning_rate(LINE), jo.identity()),
    ),
    "adam": Recipe(jo.adam(0.1, 0.8, 0.9, 0.1, 0.2), chain(jo.scale_by_adam(**ADAM), RATE)),
    "adam_nesterov": Recipe(
        jo.adam(WARMUP, 0.8, 0.9, 0.1, 0.2, mu_dtype="bfloat16", nesterov=True),
        chain(jo.scale_by_adam(**ADAM, **NARROW, nesterov=True), scale_by_learning_rate(WARMUP)),
    ),
    "adamw": Recipe(
        jo.adamw(WARMUP, 0.8, 0.9, 0.1, 0.2, weight_decay=0.1),
        chain(jo.scale_by_adam(**ADAM), jo.add_decayed_weights(0.1), scale_by_learning_rate(WARMUP)),
    ),
    "adamw_masked": Recipe(
        jo.adamw(0.1, 0.8, 0.9, 0.1, 0.2, "bfloat16", weight_decay=LINE, mask=BY_PATH, nesterov=True),
        chain(
            jo.scale_by_adam(**ADAM, **NARROW, nesterov=True),
            jo.add_decayed_weights(LINE, mask=BY_PATH),
            RATE,
        ),
    ),
    "nadam": Recipe(
        jo.nadam(0.1, 0.8, 0.9, 0.1, 0.2, mu_dtype="bfloat16"), jo.adam(0.1, **ADAM, **NARROW, nesterov=True)
    ),
    "nadamw": Recipe(
        jo.nadamw(0.1, 0.8, 0.9, 0.1, 0.2, "bfloat16", 0.1, mask=only_matrices),
        jo.adamw(0.1, **ADAM, **NARROW, weight_decay=0.1, mask=only_matrices, nesterov=True),
    ),
    "adamax": Recipe(
        jo.adamax(LINE, 0.8, 0.9, 0.1), chain(jo.scale_by_adamax(0.8, 0.9, eps=0.1), scale_by_learning_rate(LINE))
    ),
    "amsgrad": Recipe(
        jo.amsgrad(0.1, 0.8, 0.9, 0.1, 0.2, "bfloat16", False, False),
        chain(jo.scale_by_amsgrad(**ADAM, **NARROW, bias_correction_mu=False, bias_correction_nu=False), RATE),
    ),
    "amsgrad_torch": Recipe(
        jo.amsgrad(0.1, 0.8, 0.9, 0.1, 0.2, form="torch"), chain(jo.scale_by_amsgrad(**ADAM, form="torch"), RATE)
    ),
    "adabelief": Recipe(
        jo.adabelief(0.1, 0.8, 0.9, 0.1, 0.2, nesterov=True), chain(jo.scale_by_belief(**ADAM, nesterov=True), RATE)
    ),
    "yogi": Recipe(jo.yogi(0.1, 0.8, 0.9, 0.1), chain(jo.scale_by_yogi(b1=0.8, b2=0.9, eps=0.1), RATE)),
    "radam": Recipe(
        jo.radam(0.1, 0.8, 0.99, 0.1, 0.2, 5.5, nesterov=True),
        chain(jo.scale_by_radam(0.8, 0.99, eps=0.1, eps_root=0.2, threshold=5.5, nesterov=True), RATE),
    ),
    "lion": Recipe(
        jo.lion(0.1, 0.7, 0.8, "bfloat16", 0.1, mask=MATRIX),
        chain(jo.scale_by_lion(b1=0.7, b2=0.8, **NARROW), jo.add_decayed_weights(0.1, mask=MATRIX), RATE),
    ),
    "lamb": Recipe(
        jo.lamb(0.1, 0.8, 0.9, 0.1, 0.2, 0.1, mask=MATRIX),
        chain(jo.scale_by_adam(**ADAM), jo.add_decayed_weights(0.1, mask=MATRIX), jo.scale_by_trust_ratio(), RATE),
    ),
    "lars": Recipe(
        jo.lars(0.1, 0.2, MATRIX, 0.5, 0.2, VECTOR, 0.8, nesterov=True),
        chain(
            jo.add_decayed_weights(0.2, mask=MATRIX),
            jo.masked(jo.scale_by_trust_ratio(trust_coefficient=0.5, eps=0.2), VECTOR),
            RATE,
            jo.trace(0.8, nesterov=True),
        ),
    ),
    "novograd": Recipe(
        jo.novograd(0.1, 0.8, 0.3, 0.1, 0.2, 0.1),
        chain(jo.scale_by_novograd(b1=0.8, b2=0.3, eps=0.1, eps_root=0.2, weight_decay=0.1), RATE),
    ),
    "adan": Recipe(
        jo.adan(WARMUP, 0.8, 0.7, 0.9, 0.1, 0.2, 0.3, mask=MATRIX),
        chain(
            jo.scale_by_adan(b1=0.8, b2=0.7, b3=0.9, eps=0.1, eps_root=0.2),
            scale_by_learning_rate(WARMUP),
            jo.proximal_l2(WARMUP, 0.3, mask=MATRIX),
        ),
    ),
    "rprop": Recipe(
        jo.rprop(0.1, 0.7, 1.3, 0.075, 0.12),
        chain(
            jo.scale_by_rprop(0.1, eta_minus=0.7, eta_plus=1.3, min_step_size=0.075, max_step_size=0.12),
            jo.scale(-1.0),
        ),
    ),
    "ademamix": Recipe(
        jo.ademamix(0.1, 0.8, 0.9, 0.95, 2.0, 0.1, 0.2, "bfloat16", 0.1, mask=MATRIX),
        chain(
            jo.scale_by_ademamix(b3=0.95, alpha=2.0, **ADAM, **NARROW), jo.add_decayed_weights(0.1, mask=MATRIX), RATE
        ),
    ),
    "simplified_ademamix": Recipe(
        jo.simplified_ademamix(0.1, 0.8, 0.9, 2.0, 0.1, 0.2, 0.1, mask=MATRIX),
        chain(jo.scale_by_simplified_ademamix(alpha=2.0, **ADAM), jo.add_decayed_weights(0.1, mask=MATRIX), RATE),
    ),
    "adopt": Recipe(
        jo.adopt(0.1, 0.8, 0.9, 0.5, "bfloat16", nesterov=True, use_clipping=False),
        chain(jo.scale_by_adopt(0.8, 0.9, 0.5, **NARROW, nesterov=True, use_clipping=False), RATE),
    ),
    "adopt_clipped": Recipe(
        jo.adopt(0.1, 0.8, 0.9, 0.5, clip_value_fn=growing),
        chain(jo.scale_by_adopt(0.8, 0.9, 0.5, clip_value_fn=growing), RATE),
    ),
    "dog": Recipe(
        jo.dog(0.1, 0.1, 0.2, 0.3, MATRIX, kind="distance"),
        chain(jo.add_decayed_weights(0.3, mask=MATRIX), jo.scale_by_dog(0.1, 0.2, kind="distance"), RATE),
    ),
    "dowg": Recipe(
        jo.dowg(0.1, 0.3, 0.2, 0.3, MATRIX),
        chain(jo.add_decayed_weights(0.3, mask=MATRIX), jo.scale_by_dowg(0.3, 0.2), RATE),
    ),
    "schedule_free_sgd": Recipe(
        jo.schedule_free_sgd(0.1, 4.0, 0.8, 0.2, 1.5, "bfloat16", r=0.5),
        jo.schedule_free(
            chain(jo.add_decayed_weights(0.2), scale_by_learning_rate(RISING)), RISING, 0.8, 1.5, "bfloat16", r=0.5
        ),
    ),
    "schedule_free_adamw": Recipe(
        jo.schedule_free_adamw(0.1, 4.0, 0.8, 0.9, 0.1, 0.2, 1.5, "bfloat16", r=0.5),
        jo.schedule_free(
            chain(
                jo.scale_by_rms(decay=0.9, eps=0.1, eps_in_sqrt=False, bias_correction=True),
                jo.add_decayed_weights(0.2),
                scale_by_learning_rate(RISING),
            ),
            *(RISING, 0.8, 1.5, "bfloat16"),
            r=0.5,
        ),
    ),
    "muon": Recipe(
        jo.muon(
            *(0.1, (2.0, -1.5, 0.5), 2, 0.8, 0.1, 0.2, None, "bfloat16"),
            nesterov=False,
            adaptive=True,
            preconditioning="aol",
            adam_b1=0.7,
            adam_b2=0.9,
            adam_eps_root=0.2,
            adam_weight_decay=0.3,
            adam_learning_rate=LINE,
            consistent_rms=0.3,
            labels=MUON,
            debias=False,
            ns_dtype="bfloat16",
        ),
        jo.partition(
            {
                axes: chain(
                    jo.ema(0.8, False, "bfloat16"),
                    jo.as_matrices(
                        jo.stack_matrices(
                            chain(
                                jo.orthogonalize(
                                    *((2.0, -1.5, 0.5), 2, 0.1),
                                    preconditioning="aol",
                                    adaptive=True,
                                    ns_dtype="bfloat16",
                                ),
                                jo.scale_by_shape(0.3),
                            )
                        ),
                        axes,
                    ),
                    jo.add_decayed_weights(0.2),
                    RATE,
                )
                for axes in ("matrix", "last_out", "first_in", "first_out")
            }
            | {"adam": jo.adamw(LINE, 0.7, 0.9, 0.1, 0.2, "bfloat16", 0.3)},
            MUON,
        ),
    ),
    "muon_masked": Recipe(
        jo.muon(0.1, eps=0.1, weight_decay=0.2, weight_decay_mask=MATRIX, labels="matrix"),
        jo.partition(
            {
                axes: chain(
                    jo.ema(0.95, nesterov=True),
                    jo.as_matrices(
                        jo.stack_matrices(chain(jo.orthogonalize(eps=0.1), jo.scale_by_shape())),
                        axes,
                    ),
                    jo.add_decayed_weights(0.2, mask=MATRIX),
                    RATE,
                )
                for axes in ("matrix", "last_out", "first_in", "first_out")
            }
            | {"adam": jo.adamw(0.1, eps=0.1, weight_decay=0.0, nesterov=True)},
            "matrix",
        ),
    ),
    "normuon": Recipe(
        jo.normuon(
            *(0.1, (2.0, -1.5, 0.5), 2, 0.8, 0.7, 0.1, 0.2, None, "bfloat16"),
            nesterov=False,
            adam_b1=0.7,
            adam_b2=0.9,
            adam_weight_decay=0.3,
            adam_learning_rate=LINE,
            consistent_rms=0.3,
            labels=MUON,
            ns_dtype="bfloat16",
        ),
        jo.partition(
            {
                axes: chain(
                    jo.ema(0.8, True, "bfloat16"),
                    jo.as_matrices(
                        jo.stack_matrices(jo.orthogonalize((2.0, -1.5, 0.5), 2, 0.1, ns_dtype="bfloat16")), axes
                    ),
                    jo.scale_by_neuron_rms(0.7, 0.1, axes, consistent_rms=0.3),
                    jo.add_decayed_weights(0.2),
                    RATE,
                )
                for axes in ("matrix", "last_out", "first_in", "first_out")
            }
            | {"adam": jo.adamw(LINE, 0.7, 0.9, 0.1, 0.0, "bfloat16", 0.3)},
            MUON,
        ),
    ),
    "normuon_kept": Recipe(
        jo.normuon(
            0.1, eps=0.1, weight_decay=0.2, weight_decay_mask=MATRIX, consistent_rms=None, labels="matrix", debias=False
        ),
        jo.partition(
            {
                axes: chain(
                    jo.ema(0.95, False, nesterov=True),
                    jo.as_matrices(
                        jo.stack_matrices(chain(jo.orthogonalize(eps=0.1), jo.scale_by_shape())),
                        axes,
                    ),
                    jo.scale_by_neuron_rms(eps=0.1, axes=axes, consistent_rms=None),
                    jo.add_decayed_weights(0.2, mask=MATRIX),
                    RATE,
                )
                for axes in ("matrix", "last_out", "first_in", "first_out")
            }
            | {"adam": jo.adamw(0.1, eps=0.1, weight_decay=0.0, nesterov=True)},
            "matrix",
        ),
    ),
    "soap": Recipe(
        jo.soap(0.1, 0.8, 0.9, 0.7, 0.1, 0.2, MATRIX, 2.0, 2, "bfloat16", max_aspect=3.0),
        chain(
            jo.stack_matrices(jo.scale_by_soap(0.8, 0.9, 0.7, 0.1, 2.0, 2, "bfloat16", max_aspect=3.0)),
            jo.add_decayed_weights(0.2, mask=MATRIX),
            RATE,
        ),
    ),
    "adafactor": Recipe(
        jo.adafactor(
            *(0.1, 2, 0.7, 1.5, False, 0.5, 0.8, "bfloat16", 0.2, 0.1),
            weight_decay_mask=MATRIX,
        ),
        chain(
            jo.scale_by_factored_rms(True, 0.7, 1.5, 2, 0.1),
            jo.clip_by_block_rms(0.5),
            scale_by_learning_rate(0.1, flip_sign=False),
            jo.ema(0.8, debias=False, accumulator_dtype="bfloat16"),
            jo.add_decayed_weights(0.2, mask=MATRIX),
            jo.scale(-1.0),
        ),
    ),
    "adafactor_torch": Recipe(
        jo.adafactor(jo.relative_step_schedule(0.5), 2, eps=0.1, weight_decay_rate=LINE, form="torch"),
        chain(
            jo.scale_by_factored_rms(True, 0.8, 0, 2, 0.1, form="torch"),
            jo.clip_by_block_rms(1.0),
            scale_by_learning_rate(jo.relative_step_schedule(0.5), flip_sign=False),
            jo.scale_by_param_block_rms(),
            jo.add_decayed_weights(LINE),
            jo.scale(-1.0),
        ),
    ),
    "adafactor_whole": Recipe(
        jo.adafactor(min_dim_size_to_factor=2, clipping_threshold=None, factored=False, eps=0.1),
        chain(
            jo.scale_by_factored_rms(False, min_dim_size_to_factor=2, epsilon=0.1),
            jo.scale_by_param_block_rms(),
            jo.scale(-1.0),
        ),
    ),
    "psgd_kron": Recipe(
        jo.psgd_kron(
            0.1, 0.8, 0.2, MATRIX, 0.6, 2, None, 0.3, 2.0, 0.5, "bfloat16", momentum_into_precond_update=False
        ),
        chain(
            jo.stack_matrices(
                jo.scale_by_kron(0.8, 0.6, 2, None, 0.3, 2.0, 0.5, "bfloat16", momentum_into_precond_update=False)
            ),
            jo.add_decayed_weights(0.2, mask=MATRIX),
            RATE,
        ),
    ),
    "psgd_kron_key": Recipe(
        jo.psgd_kron(LINE, 0.8, 0.2, MATRIX, OFTEN, **KRON, max_rms=None, key=KEY),
        chain(
            jo.stack_matrices(jo.scale_by_kron(0.8, OFTEN, **KRON, max_rms=None, key=KEY)),
            jo.add_decayed_weights(0.2, mask=MATRIX),
            scale_by_learning_rate(LINE),
        ),
    ),
    "shampoo": Recipe(
        jo.shampoo(
            *(0.1, 0.8, 0.7, 0.1, 0.2, MATRIX, 2.0, 2, jo.scale_by_sign(), "bfloat16"),
            nesterov=True,
            ridge=0.3,
            exponent=0.4,
        ),
        chain(
            jo.stack_matrices(jo.scale_by_shampoo(0.7, 0.1, 2.0, 2, jo.scale_by_sign(), ridge=0.3, exponent=0.4)),
            jo.ema(0.8, accumulator_dtype="bfloat16", nesterov=True),
            jo.add_decayed_weights(0.2, mask=MATRIX),
            RATE,
        ),
    ),
    "shampoo_sum": Recipe(
        jo.shampoo(0.1, 0.8, None, 0.1, 0.2, precondition_frequency=2.0, ridge=0.3, max_aspect=1.2),
        chain(
            jo.stack_matrices(
                jo.scale_by_shampoo(None, 0.1, 2.0, graft=jo.scale_by_rss(0.0), ridge=0.3, max_aspect=1.2)
            ),
            jo.ema(0.8),
            jo.add_decayed_weights(0.2),
            RATE,
        ),
    ),
}
