"""The boundary of the outermost value, chains, and the small transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}
GRADS = {"w": jnp.array([0.5, 4.0]), "b": jnp.array(-1.0)}


def update(optimizer, grads=GRADS, params=PARAMS, **extra):
    return optimizer.update(grads, optimizer.init(params), params, **extra)


def spy():
    """A rule that remembers the dtypes that it is given, and the extra arguments."""
    seen = []

    @jo.transformation
    def rule():
        def init(params):
            seen.append(("init", params.dtype.name))
            return jnp.zeros_like(params)

        def update(updates, state, params=None, **extra):
            seen.append(("update", updates.dtype.name, state.dtype.name, params.dtype.name, tuple(extra)))
            return updates, state + updates

        return init, update

    return rule(), seen


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_rule_sees_float32_and_the_caller_the_dtypes_that_were_given(dtype):
    rule, seen = spy()
    half = jnp.ones(2, dtype)
    updates, state = update(rule, half, half)
    assert set(seen) == {("init", "float32"), ("update", "float32", "float32", "float32", ())}
    assert updates.dtype == dtype and state.dtype == jnp.float32


def test_inside_a_chain_nothing_is_narrowed():
    # 1 + 1e-3 is 1 in bfloat16: narrowed in between, the two rules would return 0.
    @jo.transformation
    def add(number: jo.Scalar):
        return jo.stateless(lambda updates, params: jax.tree.map(lambda u: u + number, updates))

    one = jnp.ones(2, jnp.bfloat16)
    updates, _ = update(jo.chain(add(1e-3), add(-1.0)), one, one)
    np.testing.assert_allclose(updates.astype(jnp.float32), 1e-3, rtol=1e-2)


def test_wide_gradients_and_narrow_parameters_may_be_mixed():
    rule, _ = spy()
    updates, _ = update(rule, jnp.ones(2), jnp.ones(2, jnp.bfloat16))
    assert updates.dtype == jnp.float32
    updates, _ = update(rule, jnp.ones(2, jnp.float16), jnp.ones(2))
    assert updates.dtype == jnp.float32


def test_a_state_keeps_the_dtypes_of_init():
    optimizer = jo.adam(0.1, mu_dtype="bfloat16")
    state = optimizer.init(PARAMS)
    for _ in range(3):
        _, new = optimizer.update(GRADS, state, PARAMS)
        assert jax.tree.map(lambda x: x.dtype, new) == jax.tree.map(lambda x: x.dtype, state)
        state = new
    assert state[0].mu["w"].dtype == jnp.bfloat16 and state[0].nu["w"].dtype == jnp.float32


def test_inside_optax_the_first_of_ours_is_the_boundary():
    rule, seen = spy()
    half = jnp.ones(2, jnp.float16)
    pair = optax.chain(optax.identity(), rule)
    updates, _ = pair.update(half, pair.init(half), half)
    assert seen[-1] == ("update", "float32", "float32", "float32", ()) and updates.dtype == jnp.float16


def test_extra_arguments_pass_through_chains_and_wrappers():
    rule, seen = spy()
    grads = jnp.ones(2)
    for optimizer in (jo.chain(jo.clip(1.0), rule), jo.skip_not_finite(rule), jo.accumulate(rule, 1)):
        update(optimizer, grads, grads, value=1.0, loss_scale=2.0)
        assert seen[-1][-1] == ("value", "loss_scale")


def test_a_rule_gets_just_the_extra_arguments_that_it_names():
    got = []

    @jo.transformation
    def rule():
        def update(updates, state, params=None, value=None):
            got.append(value)
            return updates, state

        return lambda params: (), update

    update(jo.chain(rule(), jo.identity()), value=7.0, other=8.0)
    assert got == [7.0]


# --- Small transformations ------------------------------------------------------------------------


def test_a_chain_applies_from_left_to_right():
    updates, state = update(jo.chain(jo.clip(1.0), jo.scale(-2.0)))
    assert updates["w"].tolist() == [-1.0, -2.0] and updates["b"] == 2
    assert state == (optax.EmptyState(), optax.EmptyState())


def test_the_state_of_a_chain_is_the_tuple_of_states():
    first, second = jo.trace(0.5), jo.scale_by_adam()
    state = jo.chain(first, second).init(PARAMS)
    assert jax.tree.structure(state) == jax.tree.structure((first.init(PARAMS), second.init(PARAMS)))


def test_identity_and_zero():
    assert update(jo.identity())[0] is not None
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), update(jo.identity())[0], GRADS))
    assert not any(x.any() for x in jax.tree.leaves(update(jo.set_to_zero())[0]))


def test_zero_is_zero_also_where_the_gradient_is_not_finite():
    assert update(jo.set_to_zero(), jnp.array([jnp.nan, jnp.inf]), jnp.ones(2))[0].tolist() == [0, 0]


def test_stateless_sees_updates_and_params():
    updates, _ = update(jo.stateless(lambda u, p: jax.tree.map(jnp.multiply, u, p)))
    assert updates["w"].tolist() == [0.5, -8.0] and updates["b"] == -3


def test_applying_updates_adds_in_the_wider_dtype_and_keeps_that_of_params():
    # Narrowed first, the update would be 2⁻⁸, half of what 1 can be moved by in bfloat16, and round to nothing.
    new = jo.apply_updates(jnp.ones(2, jnp.bfloat16), jnp.full(2, 2**-8 + 2**-17, jnp.float32))
    assert new.dtype == jnp.bfloat16 and new.tolist() == [1 + 2**-7] * 2
    assert jo.apply_updates(jnp.ones(2), jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32
    assert jo.apply_updates({"x": 1.0}, {"x": jnp.array(0.5)})["x"] == 1.5


def test_nones_stay_where_they_are():
    params = {"w": jnp.ones(2), "none": None}
    updates, _ = update(jo.adam(0.1), params, params)
    assert updates["none"] is None and jo.apply_updates(params, updates)["none"] is None


def test_parameters_of_any_shape_of_tree():
    for params in (jnp.ones(()), [jnp.ones(2)], (jnp.ones(2), {"a": [jnp.ones((1, 2))]}), np.ones(3, np.float32), 2.0):
        updates, _ = update(jo.adam(0.1), params, params)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        for u, p in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
            assert np.shape(u) == np.shape(p)
            np.testing.assert_allclose(u, -0.1, rtol=1e-5)
