"""What the annotation of an argument says: which arguments are leaves, and the one spelling of those that are not."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo


def nothing():
    return lambda params: (), lambda updates, state, params=None: (updates, state)


@jo.transformation
def everything(
    number: jo.Scalar,
    rate: jo.LearningRate,
    maybe: jo.Decay | None = None,
    inner: jo.GradientTransformation | None = None,
    many: Mapping[str, jo.GradientTransformation] | None = None,
    row: Sequence[jo.Schedule] = (),
    flag: bool = False,
    form: Literal["a", "b"] = "a",
    dtype: jo.Dtype | None = None,
    key: jo.Key = 0,
    anything: Any = None,
    plain: Any = 1,
):
    return nothing()


FULL = everything(
    1,
    jo.constant_schedule(2),
    maybe=0.25,
    inner=jo.clip(4),
    many={"x": jo.sgd(5), "y": jo.sgd(6)},
    row=[jo.constant_schedule(7), jo.constant_schedule(8)],
    flag=True,
    form="b",
    dtype=jnp.bfloat16,
    key=jax.random.key(9),
    anything={"a": [1, 2]},
    plain=3,
)


def test_the_annotation_alone_says_what_is_a_leaf():
    *leaves, key = jax.tree.leaves(FULL)
    assert leaves == [1, 2, 0.25, 4, 5, 6, 7, 8] and all(type(x) is float for x in leaves)
    assert jax.random.key_data(key).tolist() == [0, 9]


def test_an_argument_without_an_annotation_is_static_with_a_warning():
    """A sweep over it compiles for each number."""

    def one(learning_rate, momentum: jo.Decay = 0.9): ...
    def two(rate: jo.NonNegative, factor=2): ...
    def many(*weights, rate: jo.Scalar = 1.0): ...
    def named(rate: jo.Scalar, **rates): ...

    cases = {one: "learning_rate", two: "factor", many: "weights", named: "rates"}
    for decorate in (jo.transformation, jo.transformation(acts_on="leaf"), jo.schedule, jo.penalty, jo.solver):
        for function, name in cases.items():
            words = f"{function.__name__}: {name} has no annotation.*NonNegative.*LearningRate.*Any says"
            with pytest.warns(UserWarning, match=words) as warned:
                decorate(function)
            assert warned[0].filename == __file__
    with pytest.warns(UserWarning, match="x has no annotation"):
        kept = jo.transformation(lambda x=0.5: (lambda params: (), lambda u, s, p=None: (u, s)))(0.25)
    assert jax.tree.leaves(kept) == [] and kept.arguments["x"] == 0.25


def test_what_is_plainly_no_number_needs_no_annotation():
    """Nor do policies and samplers, whose numbers are not traced."""

    def flags(rate: jo.Scalar, nesterov=False, mode="hard", mask=None): ...
    def every(steps, factor=2): ...

    jo.transformation(flags)
    jo.policy(every)
    jo.sampler(every)


def test_none_and_static_arguments_are_no_leaves():
    assert jax.tree.leaves(everything(1, 2)) == [1, 2]
    assert everything(1, 2).arguments["key"] == 0


def test_static_arguments_have_one_spelling():
    arguments = FULL.arguments
    assert (arguments["dtype"], arguments["flag"], arguments["form"]) == ("bfloat16", True, "b")
    assert everything(1, 2, flag=np.True_, key=np.int64(3)) == everything(1, 2, flag=True, key=3)
    assert everything(1, 2, dtype=float).arguments["dtype"] == "float32"  # what JAX makes of it without x64
    assert everything(1, 2, plain=np.float32(0.5)) == everything(1, 2, plain=0.5)


def test_none_means_none_only_where_it_is_allowed():
    assert everything(1, 2, maybe=None).arguments["maybe"] is None
    with pytest.raises(TypeError, match="number must be a number, got None"):
        everything(None, 2)


def test_arguments_are_in_the_order_of_the_signature_with_defaults():
    assert list(everything(rate=2, number=1).arguments)[:3] == ["number", "rate", "maybe"]
    assert jo.adam(1e-3).arguments["b2"] == 0.999


def test_several_numbers_and_keywords_are_leaves_too():
    @jo.transformation
    def weighted(*weights: jo.Scalar, **named: jo.Scalar):
        def update(updates, state, params=None):
            return jax.tree.map(lambda g: sum(weights) * named["a"] * g, updates), state

        return lambda params: (), update

    value = weighted(1, 2, a=3)
    assert jax.tree.leaves(value) == [1, 2, 3] and repr(value) == "weighted(1.0, 2.0, a=3.0)"
    assert value.update(jnp.ones(()), ())[0] == 9


def test_plain_pairs_and_functions_are_leafless_and_go_by_identity():
    pair, rate = optax.sgd(0.1), lambda t: 0.1 * t
    assert jax.tree.leaves((jo.chain(pair), jo.sgd(rate))) == []
    assert jo.chain(pair) == jo.chain(pair) != jo.chain(optax.sgd(0.1))
    assert jo.sgd(rate) == jo.sgd(rate) != jo.sgd(lambda t: 0.1 * t)


def test_a_seed_in_an_array_is_its_key():
    """`optax.inject_hyperparams` hands all numbers over as arrays; a vmap over seeds does too."""
    params = {"w": jnp.ones(3)}

    def noise(key, rule=jo.add_noise):
        optimizer = rule(0.1, 0.5, key)
        return optimizer.update(params, optimizer.init(params), params)[0]["w"]

    keys = jax.random.key(3), jax.random.PRNGKey(3), np.asarray(jax.random.PRNGKey(3))
    for seed in (np.array(3), np.array(3, np.uint8), jnp.int32(3), jnp.uint32(3), jnp.int8(3), *keys):
        np.testing.assert_array_equal(noise(seed), noise(3))
    many = jax.jit(jax.vmap(noise))(jnp.array([3, 4]))
    np.testing.assert_allclose(many, [noise(3), noise(4)], 1e-6)
    injected = optax.inject_hyperparams(jo.add_noise)(0.1, 0.5, key=3)
    update = jax.jit(injected.update)
    np.testing.assert_allclose(update(params, injected.init(params), params)[0]["w"], noise(3), 1e-6)
    for wrong in (jnp.float32(3), jnp.array(True), jnp.array([3]), np.array([1, 2])):
        with pytest.raises(TypeError, match="add_noise: key must be a seed"):
            noise(wrong)
    for wrong in (2**32, -1, 2**63, np.int64(2**32)):  # JAX takes 32 bits of a seed: 2**32 would be 0 again
        with pytest.raises(ValueError, match=r"add_noise: key must be a seed in \[0, 2\*\*32\) or a key, got"):
            noise(wrong)


def test_a_key_of_the_old_form_is_a_leaf():
    assert jax.tree.leaves(jo.add_noise(0.1, 0.5, jax.random.PRNGKey(3)))[2].shape == (2,)
