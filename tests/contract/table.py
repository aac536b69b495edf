"""Every public transformation, recipe, schedule and penalty, with each of its arguments away from its default.

Recipes come from `tests/recipes.py`. The numbers are chosen so that each of them matters within the six steps of `run`:
thresholds bind, every ε is large. A factory with switches has several rows. `test_table.py` fails if something public
has no row here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_lite as jo
from tests import recipes
from tests.quick import quick_jit
from tests.recipes import KEY, LINE, MATRIX, RISING, falling, growing, only_matrices

STEPS = 6
TRACED: list[str] = []  # what `compiled` was traced for


_random = np.random.default_rng(3)


def _leaves(*shape) -> dict:
    """A matrix and a vector, each with leading axes `shape`."""
    sizes = {"w": (2, 3), "b": (3,)}
    return {name: jnp.asarray(_random.normal(size=shape + size), jnp.float32) for name, size in sizes.items()}


PARAMS = _leaves()
GRADS = _leaves(STEPS)  # signs change, and norms lie on both sides of the thresholds below


def problem(name):
    """Parameters and gradients for a row; for stacks of leaves both leaves have one shape."""
    if not name.startswith("stack_leaves"):
        return PARAMS, GRADS
    return tuple({"w": tree["w"], "b": tree["w"][..., ::-1]} for tree in (PARAMS, GRADS))


def at(step: int, grads=GRADS):
    """The gradient of one step."""
    return member(grads, step)


def run(optimizer, params=PARAMS, grads=GRADS, **extra):
    """Six steps in a Python loop: all updates [STEPS, ...], the last parameters, the last state."""
    state, path = optimizer.init(params), []
    for t in range(STEPS):
        updates, state = optimizer.update(at(t, grads), state, params, **extra)
        params = jo.apply_updates(params, updates)
        path.append(updates)
    return jax.tree.map(lambda *u: jnp.stack(u), *path), params, state


def scan(optimizer, params=PARAMS, grads=GRADS):
    """The same six steps as a scan, which carries the state and so holds it to its structure, shapes and dtypes."""

    def step(carry, g):
        params, state = carry
        updates, state = optimizer.update(g, state, params)
        return (jo.apply_updates(params, updates), state), updates

    (params, state), path = jax.lax.scan(step, (params, optimizer.init(params)), grads)
    return path, params, state


@quick_jit
def compiled(optimizer, params, grads):
    """`scan` under jit: one program for each structure of optimizer and parameters, shared by all tests here."""
    TRACED.append(optimizer.factory.spec.name)
    return scan(optimizer, params, grads)


def plain(tree):
    """The tree in NumPy, each random key as the numbers within."""
    is_key = lambda x: isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), tree)


def tolerance(value) -> float:
    """How far apart two orders of the same arithmetic may end: a narrow accumulator may round to its neighbour."""
    return 2e-2 if "float16" in repr(value) else 2e-5


def assert_close(got, wanted, rtol, message=""):
    """Equal structures, dtypes and (nearly) numbers; NaN is equal to NaN."""
    got, wanted = plain(got), plain(wanted)
    assert jax.tree.structure(got) == jax.tree.structure(wanted), message
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(wanted), strict=True):
        where = f"{message} {jax.tree_util.keystr(path)}"
        assert a.dtype == b.dtype and a.shape == b.shape, f"{where}: {a.dtype}{a.shape} against {b.dtype}{b.shape}"
        same = np.allclose(a.astype(np.complex64), b.astype(np.complex64), rtol, rtol, equal_nan=True)
        assert same, f"{where}: {a} against {b}"


def family(value):
    """The value, and for each of its leaves, in order, a copy in which only that leaf is another."""
    leaves, structure = jax.tree.flatten(value)
    copies = [[*leaves[:i], _other(leaf), *leaves[i + 1 :]] for i, leaf in enumerate(leaves)]
    return [structure.unflatten(members) for members in (leaves, *copies)]


def stack(values):
    """One value whose leaves have a leading axis: a batch."""

    def stacked(*leaves):
        return jnp.stack(leaves) if isinstance(leaves[0], jax.Array) else np.asarray(leaves, np.float32)

    return jax.tree.map(stacked, *values)


def member(batch, i: int):
    """One of a batch: of its leaves, the slices at i."""
    return jax.tree.map(lambda leaf: leaf[i], batch)


def is_same_leaf(a, b) -> bool:
    """The same number or array, of the same type."""
    return type(a) is type(b) and np.array_equal(np.asarray(plain(a)), np.asarray(plain(b)))


def _other(leaf):
    """Another number that lies in every range in which the first does."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.fold_in(leaf, 1)
    return leaf * 0.6 if np.any(leaf) else leaf + 0.05


# What rows name beside the package's own: functions of a module, as users have them in theirs.


def flattening(step, exponent):
    return 1 - (step + 2) ** -exponent


def halve(updates, params):
    return jax.tree.map(lambda u: u / 2, updates)


NAMES = {
    "halve": halve,
    "flattening": flattening,
    "falling": falling,
    "growing": growing,
    "only_matrices": only_matrices,
}

RULES = {
    "identity": jo.identity(),
    "set_to_zero": jo.set_to_zero(),
    "stateless": jo.stateless(halve),
    "chain": jo.chain(jo.clip(0.5), jo.trace(0.8), jo.scale(-0.1)),
    "chain_of_chains": jo.chain(jo.chain(jo.trace(0.8), jo.scale(0.5)), jo.scale(-0.1), optax.scale(2.0)),
    # momentum
    "trace": jo.trace(0.8),
    "trace_nesterov": jo.trace(0.8, nesterov=True, accumulator_dtype="bfloat16"),
    "ema": jo.ema(0.8),
    "ema_biased": jo.ema(0.8, debias=False, accumulator_dtype="bfloat16"),
    "ema_nesterov": jo.ema(0.8, nesterov=True),
    "scale_by_sign": jo.scale_by_sign(),
    "scale_by_lion": jo.scale_by_lion(0.7, 0.8, mu_dtype="bfloat16"),
    "scale_by_lion_smooth": jo.scale_by_lion(0.7, 0.8, mode="smooth", smooth_beta=2.0),
    "scale_by_lion_refined": jo.scale_by_lion(0.7, 0.8, mode="refined"),
    # units of its own
    "scale_by_rss": jo.scale_by_rss(0.2, 0.1),
    "scale_by_rms": jo.scale_by_rms(0.8, 0.1, initial_scale=0.3),
    "scale_by_rms_torch": jo.scale_by_rms(0.8, 0.1, 0.3, eps_in_sqrt=False, bias_correction=True),
    "scale_by_stddev": jo.scale_by_stddev(0.8, 0.1, initial_scale=0.3),
    "scale_by_stddev_torch": jo.scale_by_stddev(0.8, 0.1, 0.3, eps_in_sqrt=False, bias_correction=True),
    "scale_by_adadelta": jo.scale_by_adadelta(0.8, 0.1),
    "scale_by_novograd": jo.scale_by_novograd(0.8, 0.3, 0.1, 0.2, 0.1, mu_dtype="bfloat16"),
    "scale_by_rprop": jo.scale_by_rprop(0.1, 0.7, 1.3, 0.075, 0.12),
    "scale_by_adam": jo.scale_by_adam(0.8, 0.9, 0.1, 0.2),
    "scale_by_adam_nesterov": jo.scale_by_adam(0.8, 0.9, 0.1, 0.2, mu_dtype="bfloat16", nesterov=True),
    "scale_by_adamax": jo.scale_by_adamax(0.8, 0.9, 0.1),
    "scale_by_adan": jo.scale_by_adan(0.8, 0.7, 0.9, 0.1, 0.2),
    "scale_by_amsgrad": jo.scale_by_amsgrad(0.8, 0.9, 0.1, 0.2, "bfloat16", False, False),
    "scale_by_amsgrad_torch": jo.scale_by_amsgrad(0.8, 0.9, 0.1, 0.2, form="torch"),
    "scale_by_belief": jo.scale_by_belief(0.8, 0.9, 0.1, 0.2),
    "scale_by_belief_nesterov": jo.scale_by_belief(0.8, 0.9, 0.1, 0.2, nesterov=True),
    "scale_by_radam": jo.scale_by_radam(0.8, 0.99, 0.1, 0.2, 5.5),
    "scale_by_radam_nesterov": jo.scale_by_radam(0.8, 0.99, 0.1, 0.2, 5.5, nesterov=True),
    "scale_by_yogi": jo.scale_by_yogi(0.8, 0.9, 0.1, 0.2, initial_accumulator_value=0.3),
    "scale_by_ademamix": jo.scale_by_ademamix(0.8, 0.9, 0.95, 2.0, 0.1, 0.2, mu_dtype="bfloat16"),
    "scale_by_ademamix_schedules": jo.scale_by_ademamix(0.8, 0.9, LINE, LINE, 0.1, 0.2),
    "scale_by_simplified_ademamix": jo.scale_by_simplified_ademamix(0.8, 0.9, LINE, 0.1, 0.2),
    "scale_by_adopt": jo.scale_by_adopt(0.8, 0.9, 0.5, "bfloat16", nesterov=True, use_clipping=False),
    "scale_by_adopt_clipped": jo.scale_by_adopt(0.8, 0.9, 0.5, clip_value_fn=growing),
    "scale_by_factored_rms": jo.scale_by_factored_rms(True, 0.7, 1.5, 2, 0.1),
    "scale_by_factored_rms_torch": jo.scale_by_factored_rms(True, 0.7, 0.5, 2, 0.5, form="torch"),
    "scale_by_factored_rms_not": jo.scale_by_factored_rms(False, 0.7, epsilon=None, decay_rate_fn=flattening),
    "scale_by_param_block_rms": jo.scale_by_param_block_rms(1.5),
    # rates that are measured
    "scale_by_dog": jo.scale_by_dog(0.1, 0.2),
    "scale_by_dog_distance": jo.scale_by_dog(0.1, 0.2, kind="distance"),
    "scale_by_dog_rate": jo.scale_by_dog(0.1, 0.2, kind="learning_rate"),
    "scale_by_dowg": jo.scale_by_dowg(0.3, 0.2),
    "dadapt_adamw": jo.dadapt_adamw(0.5, [0.8, 0.9], 0.1, 0.1, 0.2, use_bias_correction=False),
    "prodigy": jo.prodigy(
        jo.linear_schedule(2.0, 1.5, 5.0), [0.8, 0.9], 0.85, 0.1, 0.1, 9.5, 0.2, use_bias_correction=False
    ),
    "prodigy_safeguard": jo.prodigy(1.5, [0.8, 0.9], 0.85, 0.1, 0.01, 1.5, 0.2, safeguard_warmup=True),
    "schedule_free": jo.schedule_free(jo.sgd(LINE), RISING, 0.8, 1.5, "bfloat16", r=0.5),
    "hypergradient": jo.hypergradient(jo.trace(0.8), 0.1, 0.3),
    "hypergradient_additive": jo.hypergradient(jo.trace(0.8), 0.1, 0.01, form="additive"),
    "mechanize": jo.mechanize(jo.sgd(0.8), 0.2, 0.1, 0.3, num_betas=3),
    "cautious": jo.cautious(jo.sgd(0.1, 0.8), eps=0.7),
    # matrices
    "orthogonalize": jo.orthogonalize("polar_express", 3, 0.1, adaptive=True),
    "orthogonalize_rows": jo.orthogonalize((2.0, -1.5, 0.5), 2, 4.0, preconditioning="aol", ns_dtype="bfloat16"),
    "scale_by_shape": jo.scale_by_shape(0.3),
    "scale_by_neuron_rms": jo.scale_by_neuron_rms(0.8, 0.1, "first_out", consistent_rms=0.3),
    "as_matrices": jo.as_matrices(jo.chain(jo.orthogonalize(ns_steps=2, eps=0.1), jo.scale_by_shape()), "first_out"),
    "stack_matrices": jo.stack_matrices(jo.chain(jo.ema(0.8), jo.orthogonalize(eps=0.1)), 3),
    "scale_by_soap": jo.scale_by_soap(0.8, 0.9, 0.7, 0.1, 2.0, 5, "bfloat16", max_aspect=3.0),
    "scale_by_soap_one_side": jo.scale_by_soap(0.8, 0.9, eps=0.1, precondition_frequency=2.0, max_aspect=1.5),
    "scale_by_shampoo": jo.scale_by_shampoo(
        *(0.8, 0.1, 2.0, 2, jo.scale_by_adam(0.7, eps=0.1)), ridge=0.2, exponent=0.3, max_aspect=1.5
    ),
    "scale_by_kron": jo.scale_by_kron(
        *(0.8, 0.6, 2, "one_diag", 0.3, 2.0, 0.5, "bfloat16"), key=5, momentum_into_precond_update=False
    ),
    # factors
    "scale": jo.scale(-0.3),
    "scale_by_learning_rate": jo.scale_by_learning_rate(0.3),
    "scale_by_learning_rate_schedule": jo.scale_by_learning_rate(LINE, flip_sign=False),
    "scale_by_schedule": jo.scale_by_schedule(LINE),
    "scale_by_schedule_function": jo.scale_by_schedule(falling),
    "scale_by_trust_ratio": jo.scale_by_trust_ratio(min_norm=1.1, trust_coefficient=0.5, eps=0.2),
    "normalize_by_update_norm": jo.normalize_by_update_norm(0.5, 0.1),
    "centralize": jo.centralize(),
    # bounds
    "clip": jo.clip(0.5),
    "clip_by_global_norm": jo.clip_by_global_norm(1.5),
    "clip_by_block_rms": jo.clip_by_block_rms(0.5),
    "adaptive_grad_clip": jo.adaptive_grad_clip(0.3, 1.5),
    "adaptive_grad_clip_coordinates": jo.adaptive_grad_clip(0.3, 1.5, axis=()),
    # which leaf
    "masked": jo.masked(jo.trace(0.8), MATRIX),
    "masked_by_function": jo.masked(jo.trace(0.8), only_matrices),
    "masked_by_path": jo.masked(jo.trace(0.8), jo.by_path({"re:^b$": False}, default=True)),
    "freeze": jo.freeze(MATRIX),
    "partition": jo.partition({"a": jo.trace(0.8), "b": jo.scale_by_adam(0.7, eps=0.1)}, {"w": "a", "b": "b"}),
    "partition_by_path": jo.partition({"slow": jo.scale(0.1), "fast": jo.sgd(LINE)}, jo.by_path({"w": "slow"}, "fast")),
    # the parameters themselves
    "add_decayed_weights": jo.add_decayed_weights(0.2),
    "add_decayed_weights_masked": jo.add_decayed_weights(LINE, mask=MATRIX),
    "add_cautious_decay": jo.add_cautious_decay(0.2),
    "add_cautious_decay_masked": jo.add_cautious_decay(LINE, mask=MATRIX),
    "add_noise": jo.add_noise(0.3, 0.7, key=5),
    "add_noise_key": jo.add_noise(0.3, 0.7, key=KEY),
    "proximal_l1": jo.proximal_l1(0.3, 0.5),
    "proximal_l1_masked": jo.proximal_l1(LINE, 0.5, mask=MATRIX),
    "proximal_l2": jo.proximal_l2(0.3, 0.5),
    "proximal_l2_masked": jo.proximal_l2(LINE, 0.5, mask=MATRIX),
    "keep_params_nonnegative": jo.keep_params_nonnegative(),
    # guards and wrappers
    "zero_nans": jo.zero_nans(),
    "skip_not_finite": jo.skip_not_finite(jo.trace(0.8)),
    "skip_large_updates": jo.skip_large_updates(jo.trace(0.8), 3.5),
    "accumulate": jo.accumulate(jo.trace(0.8), steps=3),
    "ema_params": jo.ema_params(0.08),
    "ema_params_constant": jo.ema_params(0.8, debias=False),
    "tail_average": jo.tail_average(2.5),
    "latest_weights": jo.latest_weights(1.5, size=2),
    "outer_nesterov": jo.outer_nesterov(jo.sgd(0.1, momentum=0.8), 3, 0.6, 0.7),
    "lookahead": jo.lookahead(jo.sgd(0.1, momentum=0.8), 3, 0.7),
    "lookahead_reset": jo.lookahead(jo.sgd(0.1, momentum=0.8), 3, 0.7, reset_state=True),
    "stack_leaves": jo.stack_leaves(jo.chain(jo.clip_by_global_norm(1.5), jo.adamw(LINE, 0.8, eps=0.1)), 2, 8),
    "stack_leaves_lifted": jo.stack_leaves(jo.lift(optax.adam)(0.1, 0.8, eps=0.1, eps_root=0.2), elementwise=True),
    "quantize_state": jo.quantize_state(jo.adam(0.1, 0.8, eps=0.1), block_size=4, min_size=2),
    "quantize_state_off": jo.quantize_state(jo.adam(0.1, 0.8, eps=0.1), bits=32),
    "stochastic_rounding": jo.stochastic_rounding(jo.sgd(0.1, 0.8), key=5),
    "kahan_summation": jo.kahan_summation(jo.sgd(0.1, 0.8)),
    "master_weights": jo.master_weights(jo.sgd(0.1, 0.8)),
    "nested": jo.accumulate(jo.chain(jo.clip(0.3), jo.masked(jo.lookahead(jo.sgd(LINE), 2.5, 0.5), MATRIX)), 1.5),
}

# Rules that need `value`, `value_fn` or `loss_scale`: tests/contract/test_fed.py.
FED = {
    "dynamic_loss_scale": jo.dynamic_loss_scale(jo.trace(0.8), 8.0, 3.0, 0.1, 2.5, 1.5),
    "dynamic_loss_scale_least": jo.dynamic_loss_scale(jo.trace(0.8), 8.0, 3.0, 0.1, 2.5, 30.0),
    "scale_by_polyak": jo.scale_by_polyak(-0.3, 0.5, 0.2),
    "scale_by_polyak_positive": jo.scale_by_polyak(0.3, 0.07, 0.2, variant="sps+"),
    "reduce_on_plateau": jo.reduce_on_plateau(0.7, 1.5, 0.05, 0.1, 1.0, 1.5, 0.6),
    "sam": jo.sam(jo.sgd(LINE, 0.8), 0.3),
    "sam_adaptive": jo.sam(jo.sgd(0.1), 0.4, adaptive=True, eta=0.2),
    "polyak_sgd": jo.polyak_sgd(0.5, LINE, -0.3, 0.2),
    "polyak_sgd_positive": jo.polyak_sgd(0.07, 0.7, 0.3, 0.2, variant="sps+"),
}

RECIPES = {name: row.value for name, row in recipes.RECIPES.items()} | {"lifted": jo.lift(optax.fromage)(0.1, 2.5)}

TRANSFORMATIONS = RULES | RECIPES

SCHEDULES = {
    "constant": jo.constant_schedule(0.3),
    "linear": jo.linear_schedule(1.0, 0.1, 6.5, 1.5),
    "polynomial": jo.polynomial_schedule(1.0, 0.1, 1.7, 6.5, transition_begin=1.5),
    "exponential": jo.exponential_decay(1.0, 3.5, 0.7, 1.5, end_value=0.5),
    "exponential_staircase": jo.exponential_decay(1.0, 3.5, 0.7, 1.5, staircase=True),
    "cosine": jo.cosine_decay_schedule(1.0, 6.5, 0.1, 1.5),
    "piecewise_constant": jo.piecewise_constant_schedule(1.0, {3: 0.5, 6: 0.2}),
    "piecewise_linear": jo.piecewise_interpolate_schedule("linear", 1.0, {3: 0.5, 6: 0.2}),
    "piecewise_cosine": jo.piecewise_interpolate_schedule("cosine", 1.0, [[3, 0.5], [6, 0.2]]),
    "linear_onecycle": jo.linear_onecycle_schedule(9.5, 1.0, 0.4, 0.8, 10.0, 100.0),
    "cosine_onecycle": jo.cosine_onecycle_schedule(9.5, 1.0, 0.4, 10.0, 100.0),
    "triangular": jo.cyclic_triangular_schedule(0.1, 1.0, 2.5, 3.5, 0.8),
    "warmup_constant": jo.warmup_constant_schedule(0.1, 1.0, 3.5),
    "warmup_cosine": jo.warmup_cosine_decay_schedule(0.1, 1.0, 2.5, 8.5, 0.2, 1.5),
    "warmup_exponential": jo.warmup_exponential_decay_schedule(0.1, 1.0, 2.5, 3.5, 0.5, 1.5, end_value=0.6),
    "warmup_exponential_staircase": jo.warmup_exponential_decay_schedule(0.1, 1.0, 2.5, 2.5, 0.5, 1.5, staircase=True),
    "stable": jo.warmup_stable_decay_schedule(1.0, 10.5, 2.5, 3.5, 0.1, 0.2),
    "stable_linear": jo.warmup_stable_decay_schedule(1.0, 10.5, 2.5, 3.5, 0.1, 0.2, cooldown="linear"),
    "stable_power": jo.warmup_stable_decay_schedule(1.0, 10.5, 2.5, 3.5, 0.1, 0.2, cooldown="power", power=1.5),
    "relative_step": jo.relative_step_schedule(0.6),
    "relative_step_rising": jo.relative_step_schedule(jo.linear_schedule(0.1, 0.8, 5.5)),
    "inverse_sqrt": jo.inverse_sqrt_schedule(1.0, 3.5, 0.1),
    "sgdr": jo.sgdr_schedule(
        [
            {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 1.5, "decay_steps": 4.5, "end_value": 0.2},
            {"init_value": 0.2, "peak_value": 0.5, "warmup_steps": 0.5, "decay_steps": 5.5, "exponent": 1.5},
        ]
    ),
    "join": jo.join_schedules([jo.linear_schedule(0.1, 1.0, 4.5), jo.constant_schedule(0.3)], [4.5]),
    "join_three": jo.join_schedules([jo.constant_schedule(0.3), falling, jo.cosine_decay_schedule(1.0, 4.5)], [2, 5]),
}

PENALTIES = {
    "l1_penalty": jo.l1_penalty(0.3, mask=MATRIX),
    "l2_penalty": jo.l2_penalty(0.3, mask=jo.by_path({"w": True}, default=False)),
    "elastic_net_penalty": jo.elastic_net_penalty(0.3, 0.7, mask=only_matrices),
    "group_lasso_penalty": jo.group_lasso_penalty(0.3, axis=0, mask=MATRIX),
    "nuclear_norm_penalty": jo.nuclear_norm_penalty(0.3, mask=MATRIX),
}

LABELS = {
    "by_path": jo.by_path({"*/b": "plain"}, default="decayed"),
    "hidden_matrices": jo.hidden_matrices({"w": "first_out"}, default="matrix"),
}

VALUES = TRANSFORMATIONS | SCHEDULES | PENALTIES | LABELS

# Leaves that are there for another choice of a switch.
IDLE = {
    "dynamic_loss_scale": (".min_scale",),  # below 21.6, and above it in the other row
    "dynamic_loss_scale_least": (".backoff_factor", ".init_scale", ".growth_factor"),
    "scale_by_lion": (".smooth_beta",),
    "scale_by_lion_refined": (".smooth_beta",),
    "stable": (".power",),
    "stable_linear": (".power",),
    "sam": (".eta",),
    "normuon_kept": (".adam_b1", ".adam_b2", ".adam_weight_decay"),
    "muon_masked": (".adam_b1", ".adam_b2", ".adam_eps_root", ".adam_weight_decay"),
}

# Rules for which a rotation of the complex plane means nothing, and why.
NOT_ROTATED = {
    "quantize_state": "complex moments are not quantised, real ones are",
    "clip": "bounds real and imaginary part apart",
    "chain": "begins with clip",
    "nested": "begins with clip",
    "scale_by_lion_smooth": "tanh of a complex number is not a bounded direction",
    **dict.fromkeys(("scale_by_kron", "psgd_kron", "psgd_kron_key"), "the noise for its Q does not turn either"),
    "add_noise": "its noise does not turn with the gradient",
    "add_noise_key": "its noise does not turn with the gradient",
    "noisy_sgd": "its noise does not turn with the gradient",
    "noisy_sgd_key": "its noise does not turn with the gradient",
}

# Rules that round to the parameters' dtype themselves: what they return is in float32, and lands on it.
OWN_ROUNDING = {"stochastic_rounding", "kahan_summation", "master_weights"}

# Rules of an order, which complex numbers have not.
NOT_COMPLEX = {
    "keep_params_nonnegative": "keeps parameters above zero",
    "scale_by_rprop": "counts changes of sign",
    "rprop": "counts changes of sign",
}
