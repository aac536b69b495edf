"""Fifty steps in float64 against Optax: same name, same arguments, same numbers.

A row is text, recipes are those of `tests/recipes.py`. `jo.parse` reads it here; read as Python with Optax's names it
makes the peer. Schedules inside a row have float steps: a state counts in int32, and Optax's int32 / int is float32
whatever the precision of the parameters.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from jaxopt_lite import optimizers
from tests.contract.table import flattening
from tests.recipes import MATRIX, falling
from tests.recipes import RECIPES as TABLE

from . import problem
from .cases import CASES
from .descend import descend, distance

# Rows of the table of recipes that Optax does not have, or not as we do.
OURS_ALONE = {
    "amsgrad_torch": "Optax has no `form`",
    "noisy_sgd_key": "a key in an array has no text",
    "yogi": "see DIFFERENT",
    "adan": "see DIFFERENT",
    "rprop": "see DIFFERENT",
    "adopt_clipped": "a function of ours",
    "dog": "Optax has kind and init_step as a pair",
    "muon": "Optax has no labels; see test_muon_is_that_of_optax",
    "muon_masked": "likewise",
    "soap": "Optax has none",
    "normuon": "likewise",
    "normuon_kept": "likewise",
    "shampoo": "likewise",
    "shampoo_sum": "likewise",
    "psgd_kron": "likewise",
    "psgd_kron_key": "likewise",
    "adafactor": "Optax computes its decay in float32; see test_adafactor_is_that_of_optax",
    "adafactor_torch": "Optax has no `form`",
    "adafactor_whole": "as adafactor",
    "schedule_free_sgd": "Optax has no `r`; see DIFFERENT",
    "schedule_free_adamw": "Optax has no `r`; see DIFFERENT",
}

# Other switches of recipes, beside the rows of the table.
VARIANTS = [
    "adagrad(0.1, initial_accumulator_value=0.0)",
    "rmsprop(0.01)",
    "rmsprop(0.02, decay=0.8, eps=1e-2, initial_scale=0.5, momentum=0.6, nesterov=True)",
    "rmsprop(0.02, decay=0.8, eps=1e-2, bias_correction=True)",
    "rmsprop(0.02, decay=0.8, eps=1e-2, initial_scale=0.5, centered=True, momentum=0.6)",
    "rmsprop(0.02, decay=0.8, eps=1e-2, eps_in_sqrt=False, centered=True)",
    "rmsprop(0.02, decay=0.8, eps=1.0, centered=True, bias_correction=True)",
    "amsgrad(0.02, b1=0.8, b2=0.85, eps=1e-3, eps_root=1e-2)",
    "amsgrad(0.02, b1=0.8, b2=0.85, bias_correction_mu=False)",
    "amsgrad(0.02, b1=0.8, b2=0.85, bias_correction_nu=False)",
    "adabelief(0.02, b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-2)",
    "radam(0.02, b1=0.8, b2=0.95, eps=1e-2, eps_root=1e-3)",
    "nadamw(0.02, b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-2, weight_decay=0.3)",
    "lion(0.01, b1=0.8, b2=0.95, weight_decay=0.3)",
    "lamb(0.02, b1=0.8, b2=0.95, eps=1e-2, eps_root=1e-3, weight_decay=0.3)",
    "lars(1.0, weight_decay=0.3, trust_coefficient=0.02, eps=0.5, momentum=0.7, nesterov=True)",
    "adopt(0.02, b1=0.8, b2=0.95, eps=1e-3)",
    "schedule_free_sgd(0.03, b1=0.8, weight_decay=0.2, weight_lr_power=1.5)",
    "schedule_free_adamw(0.05, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.3)",
    "mechanize(sgd(0.8), weight_decay=0.2, eps=1e-3, s_init=1e-2, num_betas=3)",
    "prodigy(0.7, [0.8, 0.95], 0.9, 1e-3, 1e-3, 1.5, 0.2)",
    "dadapt_adamw(0.6, [0.8, 0.95], 1e-3, 1e-3, 0.2)",
]

# Each is followed by a step of SGD.
TRANSFORMATIONS = [
    "identity()",
    "set_to_zero()",
    "scale(-0.3)",
    "scale_by_schedule(polynomial_schedule(1.0, 0.2, 2.0, 30.0))",
    "scale_by_learning_rate(0.3, flip_sign=False)",
    "trace(0.8)",
    "trace(0.8, nesterov=True)",
    "ema(0.8)",
    "ema(0.8, debias=False)",
    "scale_by_sign()",
    "scale_by_rss(initial_accumulator_value=0.3, eps=1e-2)",
    "scale_by_rms(decay=0.8, eps=1e-2, initial_scale=0.5)",
    "scale_by_rms(decay=0.8, eps=1e-2, eps_in_sqrt=False, bias_correction=True)",
    "scale_by_stddev(decay=0.8, eps=1e-2, initial_scale=0.5)",
    "scale_by_stddev(decay=0.8, eps=1e-2, eps_in_sqrt=False)",
    "scale_by_stddev(decay=0.8, eps=1.0, bias_correction=True)",
    "scale_by_adadelta(rho=0.8, eps=1e-3)",
    "scale_by_adam(b1=0.8, b2=0.95, eps=1e-2, eps_root=1e-3)",
    "scale_by_adam(b1=0.8, b2=0.95, eps=1e-2, nesterov=True)",
    "scale_by_amsgrad(b1=0.8, b2=0.85, eps=1e-2, eps_root=1e-3)",
    "scale_by_amsgrad(b1=0.8, b2=0.85, bias_correction_mu=False, bias_correction_nu=False)",
    "scale_by_adamax(b1=0.8, b2=0.95, eps=1e-2)",
    "scale_by_belief(b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-2, nesterov=True)",
    "scale_by_yogi(b1=0.8, b2=0.95, eps=1e-2, eps_root=1e-3, initial_accumulator_value=1e-30)",
    "scale_by_radam(b1=0.8, b2=0.95, eps=1e-2, eps_root=1e-3, threshold=6.0)",
    "scale_by_lion(b1=0.8, b2=0.95)",
    "scale_by_lion(b1=0.8, b2=0.95, mode='smooth', smooth_beta=3.0)",
    "scale_by_lion(b1=0.8, b2=0.95, mode='refined')",
    "scale_by_novograd(b1=0.8, b2=0.6, eps=0.1, eps_root=0.2, weight_decay=0.3)",
    "scale_by_factored_rms(True, 0.7, 0, 2, 1e-2, flattening)",
    "scale_by_factored_rms(False, epsilon=1e-2, decay_rate_fn=flattening)",
    "scale_by_param_block_rms(0.5)",
    "scale_by_trust_ratio(min_norm=0.5, trust_coefficient=0.3, eps=0.1)",
    "centralize()",
    "normalize_by_update_norm(scale_factor=3.0, eps=0.5)",
    "clip(0.5)",
    "clip_by_global_norm(2.0)",
    "clip_by_block_rms(0.5)",
    "adaptive_grad_clip(0.3, eps=0.6)",
    "add_decayed_weights(0.3)",
    "add_decayed_weights(linear_schedule(0.3, 0.0, 30.0))",
    "add_decayed_weights(0.3, mask={'b': False, 's': True, 'w': True})",
    "add_noise(0.3, 0.8, 7)",
    "zero_nans()",
    "masked(clip(0.5), {'b': False, 's': True, 'w': True})",
    "partition({'x': scale(0.3), 'y': scale_by_adam()}, {'b': 'y', 's': 'x', 'w': 'y'})",
    "freeze({'b': True, 's': False, 'w': False})",
]
SGD = "scale_by_learning_rate(0.01)"
CHAINS = [
    *(f"chain({text}, {SGD})" for text in TRANSFORMATIONS),
    f"chain({SGD}, keep_params_nonnegative())",
    f"chain(clip_by_global_norm(5.0), scale_by_adam(), add_decayed_weights(0.1), {SGD})",
]

# The same name with another meaning here, and what differs. The rules have their golden in cases.py.
DIFFERENT = [
    ("adan(0.02)", "weighs the difference of gradients by 1 - b2, not b2: its pull request 1715"),
    (
        "chain(scale_by_yogi(initial_accumulator_value=1e-2), scale_by_learning_rate(0.02))",
        "the mean of gradients begins at initial_accumulator_value, not at zero",
    ),
    ("schedule_free_sgd(0.03, 7)", "the weights of its average are a step ahead of the warm-up"),
    ("rprop(0.01)", "every update comes one step late, and the first is zero: its pull request 1725"),
    ("sgd(linear_onecycle_schedule(50, 0.05))", "turns at step 42 instead of 0.85 · 50 = 42.5"),
]

# Finite here. There, where a compiler fuses multiplication and subtraction, a rounding error below zero meets a root.
SAFER = [
    ("rmsprop(0.02, eps_in_sqrt=False, centered=True, bias_correction=True)", "g² - g² at the first step"),
    ("sgd(polynomial_schedule(0.05, 0.01, 2.5, 20))", "1 - 20 · (1 / 20) at the end"),
]

SCHEDULES = [
    "constant_schedule(0.3)",
    "linear_schedule(0.1, 0.9, 20)",
    "linear_schedule(0.1, 0.9, 20, transition_begin=7)",
    "polynomial_schedule(0.9, 0.1, 2.5, 16, transition_begin=7)",
    "polynomial_schedule(0.1, 0.9, 3.0, 20, transition_begin=7)",
    "cosine_decay_schedule(0.3, 40)",
    "cosine_decay_schedule(0.3, 40, alpha=0.1, exponent=1.7)",
    "exponential_decay(0.3, 12, 0.6)",
    "exponential_decay(0.3, 12, 0.6, transition_begin=5, staircase=True)",
    "exponential_decay(0.3, 12, 0.6, transition_begin=5, end_value=0.1)",
    "exponential_decay(0.3, 12, 1.3, end_value=0.7)",
    "piecewise_constant_schedule(0.3)",
    "piecewise_constant_schedule(0.3, {10: 0.5, 25: 3.0})",
    "piecewise_interpolate_schedule('linear', 0.3, {10: 0.5, 25: 3.0})",
    "piecewise_interpolate_schedule('cosine', 0.3, {10: 0.5, 25: 3.0})",
    "linear_onecycle_schedule(40, 0.3)",
    "linear_onecycle_schedule(50, 0.3, pct_start=0.32, pct_final=0.78, div_factor=10.0, final_div_factor=100.0)",
    "cosine_onecycle_schedule(50, 0.3)",
    "cosine_onecycle_schedule(50, 0.3, pct_start=0.32, div_factor=10.0, final_div_factor=100.0)",
    "warmup_constant_schedule(0.01, 0.3, 10)",
    "warmup_cosine_decay_schedule(0.01, 0.3, 10, 50)",
    "warmup_cosine_decay_schedule(0.01, 0.3, 10, 50, end_value=0.02, exponent=1.3)",
    "warmup_exponential_decay_schedule(0.01, 0.3, 10, 12, 0.6)",
    "warmup_exponential_decay_schedule(0.01, 0.3, 10, 12, 0.6, transition_begin=5, staircase=True, end_value=0.1)",
    "sgdr_schedule([{'init_value': 0.01, 'peak_value': 0.3, 'warmup_steps': 5, 'decay_steps': 20},"
    " {'init_value': 0.02, 'peak_value': 0.2, 'warmup_steps': 8, 'decay_steps': 30, 'end_value': 0.01}])",
    "join_schedules([linear_schedule(0.0, 0.3, 9), cosine_decay_schedule(0.3, 20), constant_schedule(0.05)], [9, 35])",
]


NAMES = {"falling": falling, "flattening": flattening}  # what rows name beside the package's own


def theirs(text: str):
    return eval(text, {**vars(optax.contrib), **vars(optax), **NAMES})  # our own rows, not input


def in_float64(recipe: jo.GradientTransformation) -> str:
    """The text of a recipe of the table for this problem: moments stay wide, and masks say what they do with "s"."""
    spec, changed = recipe.factory.spec, {}
    for name, given in recipe.arguments.items():
        if spec.parameters[name].is_dtype and given is not None:
            changed[name] = None
        elif spec.parameters[name].is_mask and not isinstance(given, bool | None):
            tree = given if isinstance(given, dict) else MATRIX
            changed[name] = {**tree, "s": tree["w"]}
    return repr(jo.replace(recipe, {f"{spec.name}.{name}": value for name, value in changed.items()}))


RECIPES = {name: in_float64(row.value) for name, row in TABLE.items() if name not in OURS_ALONE}


def whole(value) -> str:
    """The whole text as the name of its test: pytest by itself shortens long ones to their number."""
    return str(value)


@pytest.mark.parametrize("text", [*RECIPES.values(), *VARIANTS, *CHAINS], ids=whole)
def test_same_trajectory(text, x64):
    ours, peer = descend(jo.parse(text, names=NAMES), theirs(text))
    assert distance(ours, peer) <= 1e-12


MUON = {"beta": 0.8, "weight_decay": 0.2, "adam_b1": 0.7, "adam_b2": 0.95, "adam_weight_decay": 0.3, "eps": 1e-3}
MUON_VARIANTS = [
    {},
    {**MUON, "consistent_rms": 0.2, "nesterov": False, "adam_learning_rate": 0.05},
    {**MUON, "ns_coeffs": "dion", "adaptive": True},
    {**MUON, "ns_coeffs": (2.0, -1.5, 0.5), "ns_steps": 3, "preconditioning": "aol"},
    {**MUON, "preconditioning": "schatten"},
    {**MUON, "preconditioning": "spectral", "adam_eps_root": 1e-3},
]


def test_muon_is_that_of_optax(x64):
    """Every matrix is Muon's there, whatever its name."""
    every = jo.hidden_matrices(default="matrix")
    ours = [jo.muon(0.02, **given, labels=every) for given in MUON_VARIANTS]
    peers = [optax.contrib.muon(0.02, **given) for given in MUON_VARIANTS]
    found = descend(*ours, *peers)
    for own, peer, given in zip(found, found[len(ours) :], MUON_VARIANTS, strict=False):
        assert distance(own, peer) <= 1e-12, given


# Nearly the same: rows of the page with their reason.
ROUNDED = [
    ("adafactor(0.1)", "its decay is in float32"),
    ("adafactor(0.1, 0)", "its decay is in float32"),
]

ADAFACTOR_VARIANTS = [
    {"learning_rate": 0.1},
    {"min_dim_size_to_factor": 2, "clipping_threshold": None, "weight_decay_rate": 0.1},
    {"learning_rate": 0.1, "min_dim_size_to_factor": 0, "decay_rate": 0.7, "multiply_by_parameter_scale": False}
    | {"clipping_threshold": 0.5, "momentum": 0.8, "weight_decay_rate": 0.2, "eps": 0.1, "dtype_momentum": "float64"},
]


def test_adafactor_is_that_of_optax(x64):
    """Its decay 1 - t^-0.8 is in float32 there: the same in float64 with another decay, and nearly the same with it."""

    def theirs(learning_rate=None, momentum=None, weight_decay_rate=None, **given):
        decay = lambda step, exponent: 1 - (jnp.asarray(step, float) + 1) ** -exponent
        rms = optax.scale_by_factored_rms(
            min_dim_size_to_factor=given.get("min_dim_size_to_factor", 128),
            decay_rate=given.get("decay_rate", 0.8),
            epsilon=given.get("eps", 1e-30),
            decay_rate_fn=decay,
        )
        clip = given.get("clipping_threshold", 1.0)
        parts = [
            rms,
            clip and optax.clip_by_block_rms(clip),
            learning_rate and optax.scale(learning_rate),
            given.get("multiply_by_parameter_scale", True) and optax.scale_by_param_block_rms(),
            momentum and optax.ema(momentum, debias=False),
            weight_decay_rate and optax.add_decayed_weights(weight_decay_rate),
        ]
        return optax.chain(*filter(None, parts), optax.scale(-1))

    make = [jo.adafactor, theirs, optax.adafactor]
    found = iter(descend(*(factory(**given) for given in ADAFACTOR_VARIANTS for factory in make)))
    for given in ADAFACTOR_VARIANTS:
        ours, exact, peer = (next(found) for _ in make)
        assert distance(ours, exact) <= 1e-12, given
        assert distance(ours, peer) <= 1e-5, given


def test_every_recipe_has_a_peer():
    """Optax above, or in cases.py PyTorch or the authors; of yogi the rule, without Optax's start of its mean."""
    with_optax = {row.value.factory.spec.name for name, row in TABLE.items() if name not in OURS_ALONE}
    texts = " ".join(case.ours for case in CASES)
    alone = [
        name for name in set(optimizers.__all__) - {"polyak_sgd"} if not re.search(rf"\b(scale_by_)?{name}\(", texts)
    ]
    assert not set(alone) - with_optax, "add a case to cases.py"


@pytest.mark.parametrize(("text", "reason"), DIFFERENT, ids=[text for text, _ in DIFFERENT])
def test_still_different(text, reason, x64):
    """When Optax is mended the row moves up, and out of docs/differences.md."""
    assert distance(*descend(jo.parse(text), theirs(text))) > 1e-6, reason


@pytest.mark.parametrize(("text", "reason"), SAFER, ids=[text for text, _ in SAFER])
def test_finite(text, reason, x64):
    (ours,) = descend(jo.parse(text), jit=jax.jit)
    assert np.isfinite(ours).all(), reason


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_adaptive_clip_along_an_axis(axis, x64):
    """A leaf with two axes, as `axis` is the same for all leaves."""
    params, (noise, live) = {"w": problem.START["w"]}, problem.at_step(0)
    grads = {"w": jnp.asarray(problem.gradient(params, noise, live)["w"])}
    text = f"adaptive_grad_clip(0.3, eps=1e-2, axis={axis})"
    a, b = (o.update(grads, o.init(params), params)[0]["w"] for o in (jo.parse(text), theirs(text)))
    assert distance(np.asarray(a), np.asarray(b)) <= 1e-12


def test_zero_nans(x64):
    params = {"w": jnp.array([1.0, 2.0, 3.0]), "s": jnp.array(1.0)}
    grads = {"w": jnp.array([1.0, jnp.nan, -jnp.inf]), "s": jnp.array(jnp.nan)}
    (a, state_a), (b, state_b) = (o.update(grads, o.init(params), params) for o in (jo.zero_nans(), optax.zero_nans()))
    jax.tree.map(np.testing.assert_array_equal, (a, state_a.found_nan), (b, state_b.found_nan))


@pytest.mark.parametrize("text", SCHEDULES, ids=whole)
def test_same_schedule(text, x64):
    ours, peer = jo.parse(text), theirs(text)
    counts = jnp.arange(61, dtype=jnp.int64)  # with the int32 of a state, Optax divides int32 by int: float32
    a, b = jax.jit(jax.vmap(lambda t: (jnp.asarray(ours(t), float), jnp.asarray(peer(t), float))))(counts)
    assert distance(np.asarray(a), np.asarray(b)) <= 1e-12
