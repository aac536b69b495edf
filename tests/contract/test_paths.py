"""Hyperparameters by name: every leaf has one path, every path is reached, and today's values are in the state."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from tests.contract.table import GRADS, PARAMS, TRANSFORMATIONS, VALUES, at, is_same_leaf, scan
from tests.each import for_each
from tests.recipes import LINE, MATRIX, WARMUP, falling

NAMED = {name: value for name, value in VALUES.items() if isinstance(value, (jo.GradientTransformation, jo.Schedule))}
NUMBERS = {name: value for name, value in NAMED.items() if jax.tree.leaves(value)}


@for_each(NAMED)
def test_every_leaf_has_one_path(name):
    """As many paths as leaves, and each leaf itself at one of them."""
    found = jo.hyperparameters(NAMED[name])
    leaves = jax.tree.leaves(NAMED[name])
    assert collections.Counter(map(id, found.values())) == collections.Counter(map(id, leaves))
    assert len(found) == len(leaves)


def test_paths_stay_apart_through_nested_wrappers():
    """accumulate, partition and chain may each hold the same rule again."""
    pair = jo.chain(jo.trace(0.1), jo.trace(0.2))
    optimizer = jo.chain(
        jo.trace(0.3),
        jo.accumulate(pair, 2),
        jo.accumulate(jo.chain(pair, jo.trace(0.4)), 3),
        jo.partition({"a": pair, "b": jo.accumulate(pair, 4)}, {"w": "a", "b": "b"}),
        jo.partition({"a": pair, "trace": jo.trace(0.5)}, {"w": "a", "b": "trace"}),
    )
    found = jo.hyperparameters(optimizer)
    assert len(found) == len(jax.tree.leaves(optimizer)) == 16
    for path, value in found.items():
        again = jo.hyperparameters(jo.replace(optimizer, {path: value / 2}))
        assert [p for p in found if again[p] != found[p]] == [path]
    assert {"trace.decay", "accumulate.steps", "accumulate.trace.decay", "accumulate.trace_1.decay"} <= found.keys()
    assert {"partition.a.trace_1.decay", "partition.b.accumulate.trace.decay"} <= found.keys()


@for_each(NUMBERS)
def test_every_path_can_be_replaced(name):
    """The one leaf changes, nothing else, and the structure stays: with numbers and with arrays."""
    for value in (NUMBERS[name], jo.arrays(NUMBERS[name])):
        structure = jax.tree.structure(value)
        found = jo.hyperparameters(value)
        for path, old in found.items():
            if isinstance(old, jax.Array) and jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
                continue
            changed = jo.replace(value, {path: 0.9 * old + 0.003})
            assert jax.tree.structure(changed) == structure
            again = jo.hyperparameters(changed)
            assert [p for p in found if not is_same_leaf(again[p], found[p])] == [path]
            assert jnp.result_type(again[path]) == jnp.result_type(old) and np.shape(again[path]) == np.shape(old)


def test_replace_takes_any_suffix_that_is_unique():
    optimizer = jo.chain(jo.clip(1.0), jo.adamw(WARMUP))
    for name in ("peak_value", "learning_rate.peak_value", "adamw.learning_rate.peak_value"):
        assert jo.hyperparameters(jo.replace(optimizer, {name: 1}))["adamw.learning_rate.peak_value"] == 1.0
    assert jo.replace(optimizer, {"b1": 0.5, "weight_decay": 0.2, "max_delta": 2}) == jo.chain(
        jo.clip(2.0), jo.adamw(WARMUP, b1=0.5, weight_decay=0.2)
    )
    with pytest.raises(ValueError, match=r"scale\.step_size, scale_1\.step_size"):
        jo.replace(jo.chain(jo.scale(1.0), jo.scale(2.0)), {"step_size": 3.0})
    with pytest.raises(ValueError, match="weight_decay"):
        jo.replace(optimizer, {"weight_decy": 3.0})


def test_replace_reaches_none_schedules_and_switches_and_checks_ranges():
    assert jo.replace(jo.sgd(0.1), {"momentum": 0.5}) == jo.sgd(0.1, momentum=0.5)
    assert jo.replace(jo.sgd(0.1, 0.5), {"momentum": None, "nesterov": True}) == jo.sgd(0.1, nesterov=True)
    assert jo.replace(jo.sgd(0.1), {"learning_rate": LINE}) == jo.sgd(LINE)
    assert jo.replace(jo.sgd(LINE), {"sgd.learning_rate": 0.1}) == jo.sgd(0.1)
    assert jo.replace(jo.adamw(0.1), {"mask": MATRIX, "mu_dtype": jnp.bfloat16}) == jo.adamw(
        0.1, mu_dtype="bfloat16", mask=MATRIX
    )
    with pytest.raises(ValueError, match="b1"):
        jo.replace(jo.adam(0.1), {"b1": 1.5})
    with pytest.raises(ValueError, match="warmup_steps"):
        jo.replace(jo.adam(WARMUP), {"warmup_steps": 100})


def test_replace_keeps_dtype_and_shape_of_the_array_it_replaces():
    """Else the next call would be traced anew."""
    batch = jo.replace(jo.sgd(0.1), {"learning_rate": jnp.array([0.1, 0.2])})
    changed = jo.replace(batch, {"learning_rate": 0.5})
    np.testing.assert_array_equal(changed.arguments["learning_rate"], [0.5, 0.5])
    assert jo.replace(jo.arrays(jo.sgd(0.1)), {"learning_rate": np.float64(0.5)}) == jo.arrays(jo.sgd(0.5))


def test_replace_works_while_tracing():
    @jax.jit
    def f(rate):
        optimizer = jo.replace(jo.chain(jo.clip(1.0), jo.adam(0.5)), {"learning_rate": rate})
        return optimizer.update(at(0), optimizer.init(PARAMS), PARAMS)[0]

    expected = jo.chain(jo.clip(1.0), jo.adam(0.1))
    np.testing.assert_allclose(f(0.1)["w"], expected.update(at(0), expected.init(PARAMS), PARAMS)[0]["w"], 1e-5)


# --- Today's values ---------------------------------------------------------------------------------------------------

DEEP = jo.chain(jo.clip(1.0), jo.masked(jo.lookahead(jo.chain(jo.trace(0.9), jo.adam(LINE)), 2, 0.5), MATRIX))
LABELS = {"w": "fast", "b": "slow"}
WHERE = {
    "alone": (jo.sgd(LINE), "sgd.learning_rate", 1),
    "a rule": (jo.scale_by_learning_rate(LINE), "scale_by_learning_rate.learning_rate", 1),
    "a rule with the schedule itself": (jo.scale_by_schedule(LINE), "scale_by_schedule.step_size_fn", 1),
    "chain": (jo.chain(jo.clip(1.0), jo.chain(jo.trace(0.9), jo.adamw(LINE))), "adamw.learning_rate", 1),
    "after optax": (jo.chain(optax.trace(0.9), jo.adamw(LINE), optax.scale(1.0)), "adamw.learning_rate", 1),
    "after lifted optax": (jo.chain(jo.lift(optax.adam)(0.1), jo.sgd(LINE)), "sgd.learning_rate", 1),
    "second use": (jo.adamw(0.1, weight_decay=LINE), "adamw.weight_decay", 1),
    "masked decay": (jo.adamw(0.1, weight_decay=LINE, mask=MATRIX), "adamw.weight_decay", 1),
    "two uses": (jo.adan(LINE, weight_decay=0.1, mask=MATRIX), "adan.learning_rate", 1),
    "partition": (
        jo.partition({"fast": jo.sgd(LINE), "slow": jo.sgd(1)}, LABELS),
        "partition.fast.sgd.learning_rate",
        1,
    ),
    "masked": (jo.masked(jo.sgd(LINE), MATRIX), "masked.sgd.learning_rate", 1),
    "accumulate": (jo.accumulate(jo.sgd(LINE), 2), "accumulate.sgd.learning_rate", 2),
    "lookahead": (jo.lookahead(jo.sgd(LINE), 2, 0.5), "lookahead.sgd.learning_rate", 1),
    "skip": (jo.skip_not_finite(jo.sgd(LINE)), "skip_not_finite.sgd.learning_rate", 1),
    "skip large": (jo.skip_large_updates(jo.sgd(LINE), 1e6), "skip_large_updates.sgd.learning_rate", 1),
    "deep": (jo.accumulate(DEEP, 2), "accumulate.masked.lookahead.adam.learning_rate", 2),
}


@pytest.mark.parametrize("name", WHERE)
def test_todays_value_is_what_the_next_update_uses(name):
    """A path of the schedule itself stands for those of its arguments; `every` counts the updates of one inner step."""
    optimizer, path, every = WHERE[name]
    state = optimizer.init(PARAMS)
    for t in range(5):
        found = jo.hyperparameters(optimizer, state)
        assert found[path].shape == ()
        np.testing.assert_allclose(found[path], LINE(t // every), 1e-6)
        assert not any(p.startswith(path + ".") for p in found)
        assert found.keys() - {path} == {p for p in jo.hyperparameters(optimizer) if not p.startswith(path + ".")}
        _, state = optimizer.update(at(t), state, PARAMS)


@pytest.mark.parametrize("optimizer", [jo.sgd(LINE), jo.sgd(WARMUP), jo.sgd(falling)])
def test_todays_learning_rate_is_the_size_of_todays_step(optimizer):
    state = optimizer.init(PARAMS)
    for t in range(5):
        rate = jo.hyperparameters(optimizer, state)["sgd.learning_rate"]
        updates, state = optimizer.update(at(t), state, PARAMS)
        np.testing.assert_allclose(updates["w"], -rate * at(t)["w"], 1e-6)


def test_one_schedule_in_two_places_has_two_values():
    """The schedule is one object, but it stands where steps are counted differently."""
    optimizer = jo.partition({"fast": jo.sgd(LINE), "slow": jo.accumulate(jo.sgd(LINE), 3)}, LABELS)
    state = optimizer.init(PARAMS)
    for t in range(4):
        _, state = optimizer.update(at(t), state, PARAMS)
    found = jo.hyperparameters(optimizer, state)
    np.testing.assert_allclose(found["partition.fast.sgd.learning_rate"], LINE(4), 1e-6)
    np.testing.assert_allclose(found["partition.slow.accumulate.sgd.learning_rate"], LINE(1), 1e-6)


def test_todays_values_under_jit_and_vmap():
    optimizer = jo.chain(jo.clip(1.0), jo.adamw(WARMUP))

    def rate(optimizer, params, grads):
        _, _, state = scan(optimizer, params, grads)
        return jo.hyperparameters(optimizer, state)["adamw.learning_rate"]

    batch = jax.tree.map(lambda x: jnp.stack([x, x]), jo.arrays(optimizer))
    rates = jax.jit(jax.vmap(rate, in_axes=(0, None, None)))(batch, PARAMS, GRADS)
    np.testing.assert_allclose(rates, [WARMUP(6)] * 2, 1e-6)


def test_every_row_tells_its_values_in_any_state():
    """With a state, a schedule's leaves give way to one value; whatever has no schedule is as without."""
    for name, optimizer in TRANSFORMATIONS.items():
        found = jo.hyperparameters(optimizer, optimizer.init(PARAMS))
        bare = jo.hyperparameters(optimizer)
        if "schedule(" not in repr(optimizer) and "falling" not in repr(optimizer):
            assert found.keys() == bare.keys(), name
        else:
            assert found.keys() != bare.keys(), f"{name}: no schedule of it was found in the state"
