"""An optimizer is a value: printed, read, compared, hashed, copied, pickled, and rebuilt without questions."""

import copy
import inspect
import pickle
from operator import eq, ne
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from tests.contract.table import NAMES, PARAMS, VALUES, at, family, halve
from tests.each import for_each
from tests.recipes import KEY, only_matrices

# Random keys as leaves, and pairs that are Optax's own.
UNSPELLABLE = {"add_noise_key", "noisy_sgd_key", "psgd_kron_key", "chain_of_chains"}


def is_same(a, b) -> bool:
    """Equal in both directions, of one type, hash and structure."""
    return a == b and b == a and not ne(a, b) and type(a) is type(b) and hash(a) == hash(b)


# --- Round trips ------------------------------------------------------------------------------------------------------


@for_each([name for name in VALUES if name not in UNSPELLABLE])
def test_text_reads_back_as_the_value(name):
    value = VALUES[name]
    for text in (repr(value), jo.spell(value), jo.spell(value, defaults=True)):
        assert is_same(jo.parse(text, names=NAMES), value), text


@for_each([name for name in VALUES if name != "chain_of_chains"])
def test_pickling_gives_the_value_back(name):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert is_same(pickle.loads(pickle.dumps(VALUES[name], protocol)), VALUES[name])


@for_each(VALUES)
def test_copies_and_rebuilt_trees_are_the_value(name):
    value = VALUES[name]
    assert is_same(copy.copy(value), value)
    assert is_same(copy.deepcopy(value), value)
    assert is_same(jax.tree.map(lambda leaf: leaf, value), value)
    leaves, structure = jax.tree.flatten(value)
    assert structure.num_leaves == len(leaves) and is_same(structure.unflatten(leaves), value)
    assert is_same(type(value).remember(value.factory, dict(value.arguments)), value)


@for_each(VALUES)
def test_values_that_differ_in_one_leaf_are_not_equal_but_of_one_structure(name):
    value, *others = family(VALUES[name])
    for other in others:
        assert ne(value, other) and not eq(value, other)
        assert jax.tree.structure(value) == jax.tree.structure(other) and hash(value) == hash(other)


def test_no_two_rows_are_equal():
    assert len(set(VALUES.values())) == len(VALUES)


def test_arrays_print_and_read_back_with_their_dtype():
    for array in (jnp.float32(0.1), jnp.array([0.1, 1e-30, 3]), jnp.bfloat16(0.1)):
        value = jo.replace(jo.sgd(0.1), {"learning_rate": array})
        again = jo.parse(repr(value))
        assert again == value
        assert again.arguments["learning_rate"].dtype == array.dtype


@hypothesis.given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_every_number_reads_back_to_the_last_digit(number):
    for value in (jo.scale(number), jo.scale(number / 3), jo.scale(jnp.float32(number))):
        assert is_same(jo.parse(repr(value)), value)


def test_a_batch_in_numpy_prints_and_reads_back():
    value = jo.sgd(np.array([0.1, 1 / 3]))
    assert is_same(jo.parse(repr(value)), value)


@for_each(VALUES)
def test_arrays_and_their_text_give_the_same_arrays_back(name):
    value = jo.arrays(VALUES[name])
    assert jax.tree.structure(value) == jax.tree.structure(VALUES[name])
    for leaf, number in zip(jax.tree.leaves(value), jax.tree.leaves(VALUES[name]), strict=True):
        assert isinstance(leaf, jax.Array) and not getattr(leaf, "weak_type", False)
        assert leaf is not number
    if name not in UNSPELLABLE:
        assert is_same(jo.parse(repr(value), names=NAMES), value)


def test_keys_of_the_old_kind_stay_whole_numbers():
    old, new = jax.random.PRNGKey(3), jax.random.key(3)
    first = [
        optimizer.update(at(0), optimizer.init(PARAMS))[0]
        for key in (old, new)
        for optimizer in (jo.add_noise(1, 1, key), jo.arrays(jo.add_noise(1, 1, key)))
    ]
    assert all(update["w"].tolist() == first[0]["w"].tolist() for update in first)


def test_the_saved_form_writes_every_argument():
    for name, value in VALUES.items():
        spec = value.factory.spec
        if name in UNSPELLABLE or spec.name in ("chain", "lift"):
            continue
        text = jo.spell(value, defaults=True)
        optional = [name for name, p in spec.parameters.items() if p.default is not inspect.Parameter.empty]
        assert all(f"{argument}=" in text for argument in optional)


# --- Equality ---------------------------------------------------------------------------------------------------------


def test_equality_asks_for_factory_arguments_and_types():
    adam = jo.adam(1e-3)
    assert is_same(adam, jo.adam(0.001))
    assert is_same(jo.adam(1e-3, 0.9), jo.adam(learning_rate=1e-3, b1=0.9)), "how it was called does not matter"
    for other in (jo.adam(2e-3), jo.adamw(1e-3), jo.nadam(1e-3), adam.inner, jo.adam(jnp.float32(1e-3)), 1e-3, None):
        assert ne(adam, other) and not eq(adam, other) and ne(other, adam)
    pair = tuple(adam)
    assert ne(adam, pair) and not eq(adam, pair), "a pair of the same closures is no value"
    assert jo.as_optax(adam) != adam


def test_equality_always_returns_a_bool():
    values = [jo.adam(1e-3), jo.arrays(jo.adam(1e-3)), jo.adam(np.array([1e-3, 2e-3])), jo.constant_schedule(1.0)]
    for a in values:
        for b in (*values, object(), np.ones(2), jnp.ones(2), (1, 2)):
            assert eq(a, b) is (a is b)
            assert ne(a, b) is (a is not b)


def test_not_a_number_is_equal_to_itself():
    unknown = jax.tree.map(lambda _: float("nan"), jo.adam(1e-3))
    again = jax.tree.map(lambda _: float("nan") * 1, jo.adam(1e-3))
    assert is_same(unknown, again) and unknown != jo.adam(1e-3)
    assert is_same(jax.tree.map(jnp.float32, unknown), jax.tree.map(jnp.float32, again))


def test_arrays_are_equal_by_type_dtype_shape_and_bytes():
    rates = [jnp.array([0.1, 0.2]), np.array([0.1, 0.2]), np.array([0.1, 0.2], np.float32), jnp.array([[0.1, 0.2]])]
    values = [jo.replace(jo.sgd(0.1), {"learning_rate": rate}) for rate in rates]
    for i, a in enumerate(values):
        assert is_same(a, jo.replace(jo.sgd(0.1), {"learning_rate": rates[i] + 0}))
        assert all(a != b for j, b in enumerate(values) if i != j)
    zero, minus = (jax.tree.map(lambda _, z=z: jnp.float32(z), jo.sgd(0.1)) for z in (0.0, -0.0))
    assert zero != minus


def test_keys_are_equal_by_their_numbers():
    assert is_same(jo.add_noise(1, 1, jax.random.key(3)), jo.add_noise(1, 1, KEY))
    assert jo.add_noise(1, 1, jax.random.key(4)) != jo.add_noise(1, 1, KEY)
    assert jo.add_noise(1, 1, 3) != jo.add_noise(1, 1, KEY)


def test_tracers_are_equal_by_identity():
    """Comparing their numbers would raise inside the caches of JAX, and end a later call that has no part in it."""
    seen = []

    @jax.jit
    def f(x, y):
        seen.append((jo.adam(x) == jo.adam(x), jo.adam(x) != jo.adam(y), jo.adam(x) != jo.adam(x * 1)))
        seen.append((hash(jo.adam(x)) == hash(jo.adam(y)), jo.adam(x) != jo.adam(1.0), jo.adam(1.0) != jo.adam(x)))
        return x

    f(1.0, 1.0)
    assert seen == [(True,) * 3] * 2


def test_a_deleted_array_can_still_be_compared():
    """JAX compares values of donated states in its caches."""
    alive = jo.sgd(jnp.float32(0.1))
    dead = jo.sgd(jnp.float32(0.1))
    dead.arguments["learning_rate"].delete()
    assert dead == dead and dead != alive and hash(dead) == hash(alive)


@jo.transformation
def static_rule(flag: Any = None):
    return lambda params: (), lambda updates, state, params=None: (updates, state)


def test_static_arguments_are_compared_by_type_and_value():
    distinct = [1, 1.0, True, "1", None, (1,), [1], {"1": 1}, {1: 1}, (1.0,), {"a": [1, 2]}, {"a": (1, 2)}]
    distinct += [np.ones(2), np.ones(2, np.float32), jnp.ones(2), jo.adam(1.0), halve, only_matrices]
    values = [static_rule(flag) for flag in distinct]
    for i, a in enumerate(values):
        assert is_same(a, static_rule(copy.copy(distinct[i])))
        assert [a == b for b in values] == [i == j for j in range(len(values))]
        assert jax.tree.leaves(a) == []


def test_arguments_that_change_later_are_copied():
    """A value is hashed when it is made, and must stay what it was."""
    mask, weights, rates = {"w": [True, False]}, np.ones(2), np.ones(2)
    values = [make(given) for make, given in ((static_rule, mask), (static_rule, weights), (jo.sgd, rates))]
    before = [repr(value) for value in values]
    mask["w"][0], weights[:], rates[:] = False, 0, 0
    assert [repr(value) for value in values] == before
    assert values == [static_rule({"w": [True, False]}), static_rule(np.ones(2)), jo.sgd(np.ones(2))]


def test_dtypes_are_one_however_they_are_written():
    values = [jo.trace(0.9, accumulator_dtype=d) for d in ("bfloat16", jnp.bfloat16, jnp.dtype("bfloat16"))]
    assert len(set(values)) == 1


# --- The pytree -------------------------------------------------------------------------------------------------------


@for_each(VALUES)
def test_unflattening_asks_nothing(name):
    """JAX puts all sorts of things where the numbers were: axes, shapes, gradients, nothing at all."""
    value = VALUES[name]
    leaves, structure = jax.tree.flatten(value)
    for make in (object, lambda: None, lambda: "text", lambda: -1.0, lambda: jnp.ones((2, 3)), lambda: float("nan")):
        marks = [make() for _ in leaves]
        odd = structure.unflatten(marks)
        found = jax.tree.leaves(odd, is_leaf=lambda x: x is None)
        assert len(found) == len(marks) and all(map(lambda a, b: a is b, found, marks))
        assert odd == odd
        hash(odd), repr(odd), copy.copy(odd)
        if make is not object:
            assert jax.tree.structure(odd, is_leaf=lambda x: x is None) == structure


def test_unflattening_runs_no_code_of_the_author():
    calls = []

    @jo.transformation
    def counted(rate: jo.NonNegative):
        calls.append(rate)
        return lambda params: (), lambda updates, state, params=None: (updates, state)

    value = counted(1.0)
    built = len(calls)
    for _ in range(3):
        value = jax.tree.map(lambda leaf: leaf * 2, value)
        copy.deepcopy(value), hash(value), repr(value), value == counted(1.0)
    assert len(calls) <= built + 3, "only the three that were called anew"


@for_each(VALUES)
def test_keys_of_the_tree_are_the_names_of_arguments(name):
    value = VALUES[name]
    for path, _ in jax.tree_util.tree_leaves_with_path(value):
        assert path[0].name in value.factory.spec.parameters


def test_a_value_is_the_pair_that_optax_expects():
    adam = jo.adam(1e-3)
    init, update = adam
    assert isinstance(adam, optax.GradientTransformationExtraArgs) and isinstance(adam, tuple)
    assert adam.init is init and adam.update is update and len(adam) == 2
    changed = adam._replace(init=lambda params: ())
    assert type(changed) is optax.GradientTransformationExtraArgs and changed.update is update
    assert type(adam._make((init, update))) is optax.GradientTransformationExtraArgs
    with pytest.raises(TypeError, match="subclassed"):
        type("Mine", (jo.GradientTransformation,), {})


def test_no_argument_hides_behind_a_method_of_tuple():
    for value in VALUES.values():
        assert not {"count", "index", "init", "update"} & set(value.factory.spec.parameters)
