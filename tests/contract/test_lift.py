"""All of Optax: each of its transformations is either a value through `lift`, or in a table with the reason why not.

An export that is new in Optax is in neither, and fails here.
"""

import importlib
import inspect
import pickle
import typing
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jaxopt_lite as jo
from tests.contract.table import GRADS, PARAMS, assert_close, at, scan, stack
from tests.each import for_each
from tests.quick import quick_jit
from tests.recipes import only_matrices


def always(step):
    return step >= 0


def total(updates, *args):
    return optax.tree.norm(updates)


def sum_of_both(updates, params):
    return jax.tree.map(jnp.add, updates, params)


def sum_of_leaves(update, param):
    return update + param


def bowl(params):
    return sum(jnp.sum(jnp.cosh(p)) for p in jax.tree.leaves(params))


def rows_by_columns(updates):
    return jax.tree.map(lambda u: optax.contrib.MuonDimensionNumbers(), updates)


FUNCTIONS = (always, total, sum_of_both, sum_of_leaves, rows_by_columns, only_matrices)
NAMES = {function.__name__: function for function in FUNCTIONS}

HUTCHINSON = "lift(optax.contrib.hutchinson_estimator_diag_hessian)()"

# What each is given, as text. Numbers are away from their defaults where nothing is lost by it.
LIFTED = {
    "optax.adabelief": "0.1, b1=0.8",
    "optax.adadelta": "0.1, weight_decay=0.1",
    "optax.adafactor": "0.1",
    "optax.adagrad": "0.1, eps=0.01",
    "optax.adam": "0.1, b2=0.9, nesterov=True",
    "optax.adamax": "0.1",
    "optax.adamaxw": "0.1, weight_decay=0.1",
    "optax.adamw": "0.1, mask=only_matrices",
    "optax.adan": "0.1, weight_decay=0.1",
    "optax.adaptive_grad_clip": "0.1",
    "optax.add_decayed_weights": "0.1",
    "optax.add_noise": "0.1, 0.5, key=3",
    "optax.amsgrad": "0.1",
    "optax.apply_every": "2",
    "optax.apply_if_finite": "sgd(0.1), 3",
    "optax.centralize": "",
    "optax.chain": "sgd(0.1), lift(optax.clip)(0.2)",
    "optax.clip": "0.1",
    "optax.clip_by_block_rms": "0.1",
    "optax.clip_by_global_norm": "0.1",
    "optax.conditionally_mask": "sgd(0.1), always",
    "optax.conditionally_transform": "sgd(0.1), always",
    "optax.ema": "0.8",
    "optax.flatten": "adam(0.1)",
    "optax.freeze": "only_matrices",
    "optax.fromage": "0.1",
    "optax.identity": "",
    "optax.keep_params_nonnegative": "",
    "optax.lamb": "0.1",
    "optax.lars": "0.1",
    "optax.lion": "0.1",
    "optax.masked": "sgd(0.1), {'w': True, 'b': False}",
    "optax.nadam": "0.1",
    "optax.nadamw": "0.1",
    "optax.noisy_sgd": "0.1, key=3",
    "optax.normalize_by_update_norm": "0.5",
    "optax.novograd": "0.1",
    "optax.optimistic_adam_v2": "0.1, alpha=0.8",
    "optax.optimistic_gradient_descent": "0.1",
    "optax.partition": "{'a': sgd(0.1), 'b': adam(0.1)}, {'w': 'a', 'b': 'b'}",
    "optax.polyak_sgd": "0.1",
    "optax.radam": "0.1",
    "optax.rmsprop": "0.1, momentum=0.8",
    "optax.rprop": "0.1",
    "optax.scale": "0.1",
    "optax.scale_by_adadelta": "0.8",
    "optax.scale_by_adam": "0.8",
    "optax.scale_by_adamax": "0.8",
    "optax.scale_by_adan": "0.8",
    "optax.scale_by_amsgrad": "0.8",
    "optax.scale_by_belief": "0.8",
    "optax.scale_by_distance_over_gradients": "0.1",
    "optax.scale_by_factored_rms": "",
    "optax.scale_by_lbfgs": "3",
    "optax.scale_by_learning_rate": "0.1",
    "optax.scale_by_lion": "0.8",
    "optax.scale_by_novograd": "0.8",
    "optax.scale_by_optimistic_gradient": "0.8",
    "optax.scale_by_param_block_norm": "0.1",
    "optax.scale_by_param_block_rms": "0.1",
    "optax.scale_by_polyak": "0.1",
    "optax.scale_by_radam": "0.8",
    "optax.scale_by_rms": "0.8",
    "optax.scale_by_rprop": "0.1",
    "optax.scale_by_rss": "0.2",
    "optax.scale_by_schedule": "linear_schedule(0.1, 0.2, 5)",
    "optax.scale_by_sign": "",
    "optax.scale_by_sm3": "0.8",
    "optax.scale_by_stddev": "0.8",
    "optax.scale_by_trust_ratio": "0.1",
    "optax.scale_by_yogi": "0.8",
    "optax.selective_transform": "sgd(0.1), freeze_mask=only_matrices",
    "optax.set_to_zero": "",
    "optax.sgd": "cosine_decay_schedule(0.1, 10), momentum=0.8",
    "optax.sign_sgd": "0.1",
    "optax.signum": "0.1",
    "optax.sm3": "0.1",
    "optax.snapshot": "'norm', total",
    "optax.stateless": "sum_of_both",
    "optax.stateless_with_tree_map": "sum_of_leaves",
    "optax.trace": "0.8",
    "optax.with_extra_args_support": "sgd(0.1)",
    "optax.yogi": "0.1",
    "optax.zero_nans": "",
    "optax.contrib.acprop": "0.1",
    "optax.contrib.ademamix": "0.1",
    "optax.contrib.adopt": "0.1",
    "optax.contrib.cocob": "0.1",
    "optax.contrib.dadapt_adamw": "0.1",
    "optax.contrib.dog": "0.1",
    "optax.contrib.dowg": "0.1",
    "optax.contrib.galore": "0.1, rank=2",
    "optax.contrib.madgrad": "0.1",
    "optax.contrib.mechanize": "sgd(0.1)",
    "optax.contrib.momo": "0.1",
    "optax.contrib.momo_adam": "0.1",
    "optax.contrib.muon": "0.1",
    "optax.contrib.normalize": "",
    "optax.contrib.prodigy": "0.1",
    "optax.contrib.reduce_on_plateau": "0.5, patience=3",
    "optax.contrib.sam": "sgd(0.1), sgd(0.05)",
    "optax.contrib.scale_by_acprop": "0.8",
    "optax.contrib.scale_by_ademamix": "0.8",
    "optax.contrib.scale_by_adopt": "0.8",
    "optax.contrib.scale_by_cocob": "50.0",
    "optax.contrib.scale_by_galore": "2",
    "optax.contrib.scale_by_madgrad": "0.1",
    "optax.contrib.scale_by_muon": "weight_dimension_numbers=rows_by_columns",
    "optax.contrib.scale_by_simplified_ademamix": "0.8",
    "optax.contrib.schedule_free": "sgd(0.1), 0.1",
    "optax.contrib.schedule_free_adamw": "0.1",
    "optax.contrib.schedule_free_sgd": "0.1",
    "optax.contrib.simplified_ademamix": "0.1",
    "optax.contrib.sophia": "0.1, hessian_diagonal_fn=" + HUTCHINSON,
    "optax.contrib.hutchinson_estimator_diag_hessian": "",
    "optax.contrib.split_real_and_imaginary": "sgd(0.1)",
}


OBJECTIVE = "needs the objective in update: a solver's work"
EXAMPLES = "takes a gradient for each example, not one in the shape of params"
DEPRECATED = "a deprecated alias of what is in optax.contrib"
NOT_LIFTED = {
    "optax.lbfgs": OBJECTIVE,
    "optax.scale_by_backtracking_linesearch": OBJECTIVE,
    "optax.scale_by_zoom_linesearch": OBJECTIVE,
    "optax.contrib.differentially_private_aggregate": EXAMPLES,
    "optax.contrib.dpsgd": EXAMPLES,
    "optax.differentially_private_aggregate": DEPRECATED,
    "optax.dpsgd": DEPRECATED,
    "optax.multi_transform": "another name of optax.partition",
    "optax.optimistic_adam": "a deprecated form of optimistic_adam_v2",
    "optax.measure_with_ema": "returns a measurement, not an update",
    "optax.lookahead": "wants parameters in pairs; ours keeps the slow ones in its state",
    "optax.named_chain": "takes pairs of a name and a transformation; a chain's paths have names already",
    "optax.inject_hyperparams": "makes hyperparameters of a factory's arguments, as `lift` does",
    "optax.inject_stateful_hyperparams": "makes hyperparameters of a factory's arguments, as `lift` does",
    "optax.monitor": "takes functions that measure, by name, in a dict",
}

# Functions without an annotation of what they return, that are no factories of transformations.
OTHERS = {
    "optax.bias_correction",
    "optax.matrix_inverse_pth_root",
    "optax.sigmoid_binary_cross_entropy",
    "optax.update_infinity_moment",
    "optax.update_moment",
    "optax.update_moment_per_elem_norm",
    "optax.contrib.schedule_free_eval_params",
}

MATRICES = {"optax.contrib.scale_by_muon"}  # for matrices alone
VALUE = {"optax.polyak_sgd", "optax.scale_by_polyak"} | {f"optax.contrib.{n}" for n in ("momo", "momo_adam")}
VALUE |= {"optax.contrib.reduce_on_plateau"}  # these ask for the loss
LOSS = {"optax.contrib.sophia", "optax.contrib.hutchinson_estimator_diag_hessian"}  # these, for it as a function
UNPICKLED = {"optax.contrib.adopt", "optax.contrib.scale_by_adopt"}  # a default of theirs is a lambda


def exports():
    """All public functions of Optax by name that return a transformation, or do not say what they return."""
    for module in (optax, optax.contrib):
        for name in sorted({*vars(module), *getattr(module, "__all__", ())}):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is deprecated
                function = getattr(module, name)
            if name.startswith("_") or not callable(function) or isinstance(function, type):
                continue
            if typing.get_origin(function) is not None or inspect.getmodule(function) is typing:
                continue  # types such as Callable[...]
            returns = inspect.signature(function).return_annotation
            if returns is inspect.Signature.empty or "GradientTransformation" in str(returns):
                yield f"{module.__name__}.{name}"


def test_every_export_of_optax_is_in_one_table():
    known = [*LIFTED, *NOT_LIFTED, *OTHERS]
    assert len(known) == len(set(known))
    found = set(exports())
    new = found - set(known)
    assert not new, f"new in Optax: {sorted(new)}; lift them, or say in NOT_LIFTED why not"
    if optax.__version__ == "0.2.8":  # another version may have dropped some
        assert set(known) == found


def resolve(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name, None)


@pytest.mark.parametrize("path", LIFTED)
def test_lifted_is_optax(path):
    """Init and an update, every number a tracer, are those of Optax with constants; text, pickle and hash hold."""
    if resolve(path) is None:
        pytest.skip(f"this Optax has no {path}")
    optimizer = jo.parse(f"lift({path})({LIFTED[path]})", names=NAMES)
    params, grads = ({"w": tree["w"]} if path in MATRICES else tree for tree in (PARAMS, at(0)))

    extra = {"value": jnp.float32(0.5)} if path in VALUE else {"value_fn": bowl} if path in LOSS else {}

    def first(pair):
        return pair.update(grads, pair.init(params), params, **extra)

    pair = optimizer.factory.spec.call(optimizer.arguments)
    with jax.numpy_rank_promotion("allow"):  # some of Optax's own code needs it
        traced, plain = quick_jit(lambda traced: (first(traced), first(pair)))(jo.arrays(optimizer))
    assert_close(traced, plain, 1e-4)
    assert all(np.isfinite(u).all() for u in jax.tree.leaves(traced[0]))
    for text in (repr(optimizer), jo.spell(optimizer, defaults=True)):
        assert jo.parse(text, names=NAMES) == optimizer, text
    assert hash(jo.arrays(optimizer)) == hash(optimizer)


@for_each([path for path in LIFTED if path not in VALUE | MATRICES | LOSS])
def test_a_batch_of_what_is_lifted_trains_narrow_parameters(path):
    """Of Optax's own rules most change a dtype in a scan when their numbers are arrays and parameters are bfloat16."""
    if resolve(path) is None:  # another Optax
        return
    optimizer = jo.parse(f"lift({path})({LIFTED[path]})", names=NAMES)
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    batch = stack([optimizer, optimizer])
    with jax.numpy_rank_promotion("allow"):
        _, new, _ = jax.eval_shape(jax.vmap(lambda one: scan(one, params, GRADS), axis_size=2), batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype("bfloat16")}


@for_each([path for path in LIFTED if path not in UNPICKLED])
def test_what_is_lifted_can_be_pickled(path):
    """Also Optax's partials, which are known by their public names alone."""
    if resolve(path) is None:  # another Optax
        return
    optimizer = jo.parse(f"lift({path})({LIFTED[path]})", names=NAMES)
    assert pickle.loads(pickle.dumps(optimizer)) == optimizer


def test_random_keys_are_leaves():
    key = jax.random.key(3)
    for factory in (optax.add_noise, optax.noisy_sgd):
        optimizer = jo.lift(factory)(0.1, 0.5, key=key)
        assert any(leaf is key for leaf in jax.tree.leaves(optimizer))
        updates, _ = jax.jit(lambda o: o.update(at(0), o.init(PARAMS), PARAMS))(optimizer)
        pair = factory(0.1, 0.5, key=key)
        assert_close(updates, pair.update(at(0), pair.init(PARAMS), PARAMS)[0], 1e-5)


def test_lifting_says_which_arguments_are_numbers():
    """Floats and arrays are leaves, whole numbers where Optax takes a fraction too; `static` and `traced` override."""
    assert len(jax.tree.leaves(jo.lift(optax.adam)(1, b1=0))) == 5
    assert len(jax.tree.leaves(jo.lift(optax.adam, static=["b1"])(0.1, b1=0.5))) == 4
    assert len(jax.tree.leaves(jo.lift(optax.contrib.galore)(0.1, rank=2))) == 3
    assert len(jax.tree.leaves(jo.lift(optax.contrib.galore, traced=["update_proj_gap"])(0.1))) == 4
    for factory in (jo.lift(optax.adam, static=["b1"]), jo.lift(optax.contrib.galore, traced="update_proj_gap")):
        value = factory(0.1)
        assert jo.parse(repr(value)) == value and pickle.loads(pickle.dumps(value)) == value
    with pytest.raises(TypeError, match="b9"):
        jo.lift(optax.adam, static=["b9"])


def test_lifting_twice_gives_one_factory():
    assert jo.lift(optax.adam) is jo.lift(optax.adam, ()) is jo.lift(optax.adam, static=[], traced=[])
    assert jo.lift(jo.adam) is jo.adam
    assert jax.tree.structure(jo.lift(optax.adam)(0.1)) == jax.tree.structure(jo.lift(optax.adam, ())(0.2))


def test_a_factory_of_ones_own_is_lifted_and_pickled_by_name():
    value = jo.lift(home_made)(0.1, steps=3)
    assert pickle.loads(pickle.dumps(value)) == value
    assert jo.parse(repr(value), names={"home_made": home_made}) == value
    assert jax.tree.leaves(value) == [0.1]


def home_made(rate: float, steps: int = 2):
    """A plain Optax pair."""
    return optax.sgd(rate * steps)
