"""Optax's factories as factories of values: what becomes a leaf, and that lifting again gives the same.

That every optimizer of Optax lifts is in tests/parity; what is refused is in tests/test_errors.py.
"""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo

PARAMS = {"w": jnp.ones((2, 2))}


def leaves(value):
    return jax.tree.leaves(value)


def first_update(optimizer):
    return optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)[0]["w"]


def test_lifting_again_gives_the_same_factory_however_it_is_asked():
    lifted = jo.lift(optax.sgd)
    assert lifted is jo.lift(optax.sgd, ()) is jo.lift(optax.sgd, traced=[]) is jo.lift(lifted)
    assert jo.lift(optax.sgd, static=["nesterov", "momentum"]) is jo.lift(optax.sgd, ("momentum", "nesterov"))
    assert jo.lift(optax.sgd, static="momentum") is jo.lift(optax.sgd, static=["momentum"])
    assert jax.tree.structure(jo.lift(optax.sgd)(0.1)) == jax.tree.structure(lifted(0.2))


def test_our_own_factories_are_lifted_already():
    assert jo.lift(jo.sgd) is jo.sgd


def test_floats_and_arrays_are_leaves_and_the_rest_is_not():
    value = jo.lift(optax.adamw)(np.float32(0.5), jnp.float32(0.25), mask=None, nesterov=True, mu_dtype="bfloat16")
    assert leaves(value) == [0.5, 0.25, 0.999, 1e-8, 0.0, 1e-4]


def test_ints_are_leaves_where_optax_annotates_a_float():
    assert leaves(jo.lift(optax.sgd)(1)) == [1.0]
    momentum = jo.lift(optax.sgd)(0.1, 0)  # annotated as an array-like, whose ints are floats too
    assert leaves(momentum) == [0.1, 0.0] and type(leaves(momentum)[1]) is float


def test_loop_lengths_stay_ints():
    muon = jo.lift(optax.contrib.muon)(0.1)
    assert muon.arguments["ns_steps"] == 5 and type(muon.arguments["ns_steps"]) is int


def test_static_and_traced_override():
    def rule(rate: float, steps: int):
        assert isinstance(steps, int | float | jax.Array)
        return optax.sgd(rate * steps)

    assert leaves(jo.lift(rule)(0.5, 3)) == [0.5]
    assert leaves(jo.lift(rule, traced=["steps"])(0.5, 3)) == [0.5, 3.0]
    assert leaves(jo.lift(rule, static=["rate"], traced=["steps"])(0.5, 3)) == [3.0]
    np.testing.assert_allclose(jax.jit(first_update)(jo.lift(rule, traced=["steps"])(0.5, 3)), -1.5)


def test_schedules_and_transformations_inside_are_subtrees():
    rate = jo.linear_schedule(1.0, 0.0, 10)
    assert leaves(jo.lift(optax.sgd)(rate)) == [1.0, 0.0, 10.0, 0.0]
    wrapped = jo.lift(optax.lookahead)(jo.sgd(0.1), 3, 0.5)
    assert leaves(wrapped) == [0.1, 3.0, 0.5]


def test_plain_schedules_and_pairs_inside_are_static_by_identity():
    rate, pair = optax.linear_schedule(1.0, 0.0, 10), optax.sgd(0.1)
    assert leaves(jo.lift(optax.sgd)(rate)) == []
    assert leaves(jo.lift(optax.lookahead)(pair, 3, 0.5)) == [3.0, 0.5]
    assert jo.lift(optax.sgd)(rate) == jo.lift(optax.sgd)(rate)


def test_a_factory_without_a_name_has_optax_s_name():
    nadam = jo.lift(optax.nadam)  # a functools.partial
    assert isinstance(optax.nadam, functools.partial) and nadam.spec.name == "nadam"
    assert jo.parse(repr(nadam(0.1))) == nadam(0.1)


def test_lifted_values_survive_pickling_with_their_overrides():
    value = jo.lift(optax.sgd, static=["momentum"])(0.1, 0.9)
    assert pickle.loads(pickle.dumps(value)) == value and leaves(value) == [0.1]


def test_a_traced_rate_gives_the_numbers_of_a_constant():
    for factory in (optax.sgd, optax.adamw, optax.lion, optax.contrib.muon):
        lifted = jo.lift(factory)
        np.testing.assert_allclose(jax.jit(first_update)(lifted(0.1)), first_update(factory(0.1)), rtol=1e-4)


def test_extra_arguments_reach_a_lifted_rule():
    optimizer = jo.chain(jo.clip(10.0), jo.lift(optax.scale_by_polyak)(max_learning_rate=100.0))
    updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, value=2.0, unknown=None)
    np.testing.assert_allclose(updates["w"], 2.0 / 4)  # value / ‖g‖²


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_lifted_rules_are_computed_in_float32(dtype):
    small = {"w": jnp.full((2, 2), 1e-4, dtype)}
    optimizer = jo.lift(optax.adam)(jnp.float32(1e-3))
    updates, state = optimizer.update(small, optimizer.init(small), small)
    assert updates["w"].dtype == dtype and state[0].nu["w"].dtype == jnp.float32
    np.testing.assert_allclose(updates["w"].astype(jnp.float32), -1e-3, rtol=1e-2)
