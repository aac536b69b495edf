"""Reading and replacing by name: paths, suffixes, today's learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from jaxopt_lite.core.hyperparameters import parameters_of

SCHEDULE = jo.warmup_cosine_decay_schedule(0.0, 3e-3, 10, 100)
OPTIMIZER = jo.chain(jo.clip_by_global_norm(1.0), jo.adamw(SCHEDULE, weight_decay=1e-2))
PARAMS = {"w": jnp.ones(2)}


def names(optimizer):
    return list(jo.hyperparameters(optimizer))


def test_a_path_is_the_factory_and_the_arguments_down_to_the_leaf():
    assert names(OPTIMIZER) == [
        "clip_by_global_norm.max_norm",
        "adamw.learning_rate.init_value",
        "adamw.learning_rate.peak_value",
        "adamw.learning_rate.warmup_steps",
        "adamw.learning_rate.decay_steps",
        "adamw.learning_rate.end_value",
        "adamw.learning_rate.exponent",
        "adamw.b1",
        "adamw.b2",
        "adamw.eps",
        "adamw.eps_root",
        "adamw.weight_decay",
    ]


def test_the_values_are_the_leaves_in_their_order():
    assert list(jo.hyperparameters(OPTIMIZER).values()) == jax.tree.leaves(OPTIMIZER)


def test_where_a_chain_stands_does_not_matter():
    nested = jo.chain(jo.chain(jo.clip_by_global_norm(1.0)), jo.chain(jo.adamw(SCHEDULE, weight_decay=1e-2)))
    assert jo.hyperparameters(nested) == jo.hyperparameters(OPTIMIZER)


def test_equal_names_are_numbered():
    assert names(jo.chain(jo.scale(1), jo.scale(2), jo.scale(3))) == [
        "scale.step_size",
        "scale_1.step_size",
        "scale_2.step_size",
    ]


@pytest.mark.parametrize(
    "optimizer",
    [
        jo.accumulate(jo.chain(jo.sgd(0.1), jo.sgd(0.2)), 2),
        jo.chain(jo.accumulate(jo.sgd(0.1), 2), jo.accumulate(jo.sgd(0.1), 2), jo.sgd(0.3)),
        jo.partition({"a": jo.chain(jo.sgd(0.1), jo.sgd(0.2)), "b": jo.sgd(0.3)}, "a"),
        jo.skip_not_finite(jo.lookahead(jo.chain(jo.adam(0.1), jo.scale(0.5), jo.scale(0.5)), 3, 0.5)),
        jo.sgd(jo.join_schedules([jo.constant_schedule(0.1), SCHEDULE, jo.constant_schedule(0.2)], [5, 50])),
    ],
    ids=["accumulate", "repeated", "partition", "nested", "join"],
)
def test_every_leaf_has_a_path_of_its_own(optimizer):
    found = jo.hyperparameters(optimizer)
    assert len(found) == len(jax.tree.leaves(optimizer))
    for path in found:
        new = [6.0, 60.0] if path.endswith("boundaries") else 60.0 if "steps" in path or "period" in path else 0.75
        changed = jo.replace(optimizer, {path: new})
        assert [p for p, v in jo.hyperparameters(changed).items() if not np.array_equal(v, found[p])] == [path]


def test_partitions_name_the_label_and_wrappers_the_inner_rule():
    routed = jo.partition({"a": jo.sgd(0.1), "b": jo.accumulate(jo.adam(0.2), 4)}, "a")
    found = names(routed)
    assert found[0] == "partition.a.sgd.learning_rate"
    assert "partition.b.accumulate.adam.b1" in found and "partition.b.accumulate.steps" in found


def test_schedules_and_lifted_rules_have_paths_too():
    assert names(SCHEDULE)[1] == "peak_value"
    assert names(jo.lift(optax.contrib.muon)(0.1))[0] == "muon.learning_rate"


COSINE = jo.cosine_decay_schedule(0.1, 100)
JOINED = jo.sgd(jo.join_schedules([jo.constant_schedule(0.1), SCHEDULE], [5]))
GONE = {
    "a number": (OPTIMIZER, {"adamw.learning_rate": 0.1, "peak_value": 1.0}),
    "an array": (OPTIMIZER, {"adamw.learning_rate": jnp.float32(0.1), "warmup_steps": 5}),
    "a function": (OPTIMIZER, {"learning_rate": jnp.zeros_like, "adamw.learning_rate.peak_value": 1.0}),
    "another schedule": (OPTIMIZER, {"learning_rate": COSINE, "peak_value": 1.0}),
    "none": (jo.lookahead(jo.adamw(0.1, weight_decay=SCHEDULE), 2, 0.5), {"weight_decay": 0.0, "peak_value": 1.0}),
    "nested in a list": (JOINED, {"learning_rate": 0.1, "schedules": [COSINE, COSINE]}),
    "a shorter list": (JOINED, {"schedules": [COSINE], "boundaries": [], "schedules.1.peak_value": 1.0}),
}


@pytest.mark.parametrize("backwards", [False, True], ids=["outer first", "inner first"])
@pytest.mark.parametrize("name", GONE)
def test_a_name_that_goes_with_what_is_replaced_is_told_to_be_gone(name, backwards):
    optimizer, changes = GONE[name]
    changes = dict(reversed(changes.items())) if backwards else changes
    with pytest.raises(ValueError, match=r"replace: '.*' is gone, because '.*' becomes .*; leave '.*' out"):
        jo.replace(optimizer, changes)


def test_a_new_schedule_and_its_arguments_are_replaced_in_any_order():
    expected = jo.chain(jo.clip_by_global_norm(1.0), jo.adamw(jo.cosine_decay_schedule(0.1, 50), weight_decay=1e-2))
    assert jo.replace(OPTIMIZER, {"learning_rate": COSINE, "decay_steps": 50}) == expected
    assert jo.replace(OPTIMIZER, {"decay_steps": 50, "learning_rate": COSINE}) == expected


def test_two_names_of_one_path_are_refused():
    for names in (("b1", "adamw.b1"), ("adamw.learning_rate.peak_value", "peak_value")):
        with pytest.raises(ValueError, match=f"replace: '{names[0]}' and '{names[1]}' are both .*; give one of them"):
            jo.replace(OPTIMIZER, dict.fromkeys(names, 0.5))


# --- With a state ---------------------------------------------------------------------------------


def run(optimizer, steps):
    state = optimizer.init(PARAMS)
    for _ in range(steps):
        _, state = optimizer.update(PARAMS, state, PARAMS)
    return state


def test_with_a_state_a_schedule_is_the_value_that_the_next_update_uses():
    found = jo.hyperparameters(OPTIMIZER, run(OPTIMIZER, 5))
    np.testing.assert_allclose(found["adamw.learning_rate"], SCHEDULE(5))
    assert not any(path.startswith("adamw.learning_rate.") for path in found)
    assert found["adamw.weight_decay"] == 1e-2


@pytest.mark.parametrize(
    ("wrap", "path", "steps"),
    [
        (lambda o: jo.skip_not_finite(o), "skip_not_finite.sgd", 3),
        (lambda o: jo.lookahead(o, 2, 0.5), "lookahead.sgd", 3),
        (lambda o: jo.accumulate(o, 2), "accumulate.sgd", 1),  # the inner rule runs every second time
        (lambda o: jo.masked(o, True), "masked.sgd", 3),
        (lambda o: jo.partition({"a": jo.identity(), "b": o}, "b"), "partition.b.sgd", 3),
    ],
    ids=["skip", "lookahead", "accumulate", "masked", "partition"],
)
def test_todays_rate_is_found_inside_wrappers(wrap, path, steps):
    optimizer = wrap(jo.sgd(jo.linear_schedule(1.0, 0.0, 10)))
    found = jo.hyperparameters(optimizer, run(optimizer, 3))
    np.testing.assert_allclose(found[path + ".learning_rate"], 1 - steps / 10, rtol=1e-6)


def test_rates_and_decays_of_two_schedules_are_told_apart():
    optimizer = jo.adamw(jo.linear_schedule(1.0, 0.0, 10), weight_decay=jo.linear_schedule(0.0, 1.0, 10))
    found = jo.hyperparameters(optimizer, run(optimizer, 2))
    np.testing.assert_allclose([found["adamw.learning_rate"], found["adamw.weight_decay"]], [0.8, 0.2], rtol=1e-6)


def test_one_schedule_in_two_places_has_two_values():
    shared = jo.linear_schedule(1.0, 0.0, 10)
    optimizer = jo.chain(jo.accumulate(jo.adan(shared), 3), jo.scale_by_schedule(shared))
    found = jo.hyperparameters(optimizer, run(optimizer, 3))
    values = [found["accumulate.adan.learning_rate"], found["scale_by_schedule.step_size_fn"]]
    np.testing.assert_allclose(values, [0.9, 0.7], rtol=1e-6)


def test_todays_rate_may_be_read_inside_jit():
    optimizer = jo.sgd(jo.linear_schedule(1.0, 0.0, 10))
    rate = jax.jit(lambda o, s: jo.hyperparameters(o, s)["sgd.learning_rate"])
    np.testing.assert_allclose(rate(optimizer, run(optimizer, 4)), 0.6, rtol=1e-6)


# --- Replacing ------------------------------------------------------------------------------------


def test_a_suffix_that_matches_one_path_is_enough():
    for name in ("peak_value", "learning_rate.peak_value", "adamw.learning_rate.peak_value"):
        changed = jo.replace(OPTIMIZER, {name: 1e-3})
        assert jo.hyperparameters(changed)["adamw.learning_rate.peak_value"] == 1e-3


def test_a_suffix_ends_at_a_dot():
    with pytest.raises(ValueError, match="no hyperparameter 'decay'"):
        jo.replace(OPTIMIZER, {"decay": 0.5})  # weight_decay ends with it


def test_a_whole_path_comes_before_a_suffix():
    # "scale.step_size" is a whole path, and a suffix of "masked.scale.step_size".
    optimizer = jo.chain(jo.masked(jo.scale(1.0), True), jo.scale(2.0))
    assert jo.replace(optimizer, {"scale.step_size": 9.0}) == jo.chain(jo.masked(jo.scale(1.0), True), jo.scale(9.0))


def test_the_old_value_stays_and_the_structure_too():
    before = jax.tree.leaves(OPTIMIZER)
    changed = jo.replace(OPTIMIZER, {"peak_value": 1, "b1": 0.5})
    assert jax.tree.leaves(OPTIMIZER) == before
    assert jax.tree.structure(changed) == jax.tree.structure(OPTIMIZER)
    assert type(jo.hyperparameters(changed)["adamw.learning_rate.peak_value"]) is float


def test_changes_that_only_fit_together_are_made_together():
    changed = jo.replace(OPTIMIZER, {"warmup_steps": 200, "decay_steps": 1000})
    assert jo.hyperparameters(changed)["adamw.learning_rate.warmup_steps"] == 200


def test_none_schedules_and_static_arguments_are_within_reach():
    momentum = jo.replace(jo.sgd(0.1), {"momentum": 0.9})
    assert momentum == jo.sgd(0.1, momentum=0.9)
    assert jo.replace(momentum, {"sgd.momentum": None}) == jo.sgd(0.1)
    assert jo.replace(momentum, {"nesterov": True}) == jo.sgd(0.1, momentum=0.9, nesterov=True)
    assert jo.replace(momentum, {"learning_rate": SCHEDULE}) == jo.sgd(SCHEDULE, momentum=0.9)
    constant = jo.replace(OPTIMIZER, {"adamw.learning_rate": 0.1})
    assert constant.arguments["transforms"][1] == jo.adamw(0.1, weight_decay=1e-2)


def test_a_number_takes_dtype_and_shape_of_the_array_that_it_replaces():
    # A float put into a tree of arrays would be one more trace.
    optimizer = jo.replace(jo.arrays(jo.adam(0.1)), {"b1": 0.5})
    b1 = optimizer.arguments["b1"]
    assert b1.dtype == jnp.float32 and not b1.weak_type and b1 == 0.5
    batch = jo.replace(jo.sgd(jnp.array([0.1, 0.2], jnp.bfloat16)), {"learning_rate": 3})
    assert batch.arguments["learning_rate"].dtype == jnp.bfloat16
    assert batch.arguments["learning_rate"].tolist() == [3, 3]


def test_a_traced_number_may_replace():
    peak = jax.jit(lambda x: jo.replace(SCHEDULE, {"peak_value": x})(10))
    np.testing.assert_allclose(peak(5.0), 5)


def test_replacing_in_a_batch_asks_nothing():
    batch = jo.warmup_cosine_decay_schedule(0.0, jnp.ones(2), 10, 100)
    assert jo.replace(batch, {"end_value": 0.5}).arguments["end_value"] == 0.5


# --- As arrays, as a plain pair -------------------------------------------------------------------


def test_arrays_are_strong_float32_copies():
    rates = jnp.array([0.1, 0.2])
    optimizer = jo.arrays(jo.adam(rates))
    leaves = jax.tree.leaves(optimizer)
    assert all(x.dtype == jnp.float32 and not x.weak_type for x in leaves)
    rates.delete()  # as a loop that donates does
    assert leaves[0].tolist() == pytest.approx([0.1, 0.2])


def test_keys_stay_keys():
    (*_, key) = jax.tree.leaves(jo.arrays(jo.add_noise(0.1, 0.5, jax.random.key(3))))
    assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def test_as_a_plain_pair_an_optimizer_has_no_leaves():
    pair = jo.as_optax(jo.arrays(jo.adam(0.1)))
    assert type(pair) is optax.GradientTransformationExtraArgs
    assert all(callable(leaf) for leaf in jax.tree.leaves(pair))
    updates, _ = pair.update(PARAMS, pair.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["w"], -0.1, rtol=1e-5)


def test_parameters_of_a_value_have_the_paths_of_its_hyperparameters():
    schedule = jo.warmup_cosine_decay_schedule(0.0, 3e-3, 10, 1000)
    optimizer = jo.partition({"a": jo.chain(jo.clip(1.0), jo.adam(schedule)), "b": jo.sgd(0.1)}, lambda params: "a")
    found = parameters_of(optimizer)
    assert list(found) == list(jo.hyperparameters(optimizer))
    assert {path for path, parameter in found.items() if parameter.is_decay} == {
        "partition.a.adam.b1",
        "partition.a.adam.b2",
    }
    assert found["partition.a.adam.learning_rate.peak_value"].name == "peak_value"


def test_a_decay_is_known_by_its_annotation_and_of_a_lifted_factory_by_its_name():
    @jo.transformation
    def rule(inertia: jo.Decay, b1: jo.NonNegative):
        return optax.identity()

    decays = lambda optimizer: [path for path, known in parameters_of(optimizer).items() if known.is_decay]
    assert decays(rule(0.9, 2.0)) == ["rule.inertia"]
    assert decays(jo.sgd(0.1, momentum=0.9)) == ["sgd.momentum"]
    assert decays(jo.lift(optax.rmsprop)(1e-2, decay=0.9, momentum=0.5)) == ["rmsprop.decay", "rmsprop.momentum"]
    jo.lift(optax.ema)(1.5)  # outside [0, 1), which Optax accepts
