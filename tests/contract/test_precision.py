"""Every mix of precisions: computed in at least float32, returned no narrower than params, stored as `init` chose."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.contract.table import (
    GRADS,
    NOT_COMPLEX,
    NOT_ROTATED,
    OWN_ROUNDING,
    PARAMS,
    RECIPES,
    TRANSFORMATIONS,
    assert_close,
    at,
    compiled,
    plain,
    problem,
    scan,
    tolerance,
)
from tests.each import for_each

FLOATS = ("float16", "bfloat16", "float32")


def cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x).astype(dtype), tree)


def wider(a, b):
    """The wider dtype; of float16 and bfloat16, neither of which holds the other, float32."""
    return jnp.promote_types(a, b)


def dtypes(tree):
    return jax.tree.map(lambda x: x.dtype, tree)


@for_each(TRANSFORMATIONS)
def test_every_mix_of_dtypes_is_legal(name):
    """The update has the wider dtype of gradient and parameter, the new parameters theirs, and the state its own."""
    optimizer = TRANSFORMATIONS[name]

    start, slopes = problem(name)

    def step(params, grads):
        state = optimizer.init(params)
        updates, new_state = optimizer.update(grads, state, params)
        return updates, state, new_state, jo.apply_updates(params, updates)

    for params_dtype, grads_dtype in itertools.product(FLOATS, FLOATS):
        params, grads = cast(start, params_dtype), cast(at(0, slopes), grads_dtype)
        updates, state, new_state, new_params = jax.eval_shape(step, params, grads)
        wanted = jnp.dtype("float32") if name in OWN_ROUNDING else wider(params_dtype, grads_dtype)
        assert set(jax.tree.leaves(dtypes(updates))) == {wanted}
        assert dtypes(new_params) == dtypes(params)
        assert dtypes(new_state) == dtypes(state), f"{params_dtype} params, {grads_dtype} grads"
        asked_for = {jnp.dtype("bfloat16")} if "bfloat16" in repr(optimizer) else set()
        asked_for |= {jnp.dtype(params_dtype)} if name in OWN_ROUNDING else set()
        narrow = {d for d in jax.tree.leaves(dtypes(state)) if d in (jnp.float16, jnp.bfloat16)}
        assert narrow <= asked_for, "moments are stored in float32 unless asked"


@for_each(RECIPES)
def test_a_scan_carries_narrow_params_with_wide_gradients_and_traced_numbers(name):
    """The carry keeps its dtypes also where every hyperparameter is a strong float32 array."""

    optimizer = jo.arrays(RECIPES[name])
    for params_dtype, grads_dtype in (("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "float16")):
        params, grads = cast(PARAMS, params_dtype), cast(GRADS, grads_dtype)
        path, new_params, _ = jax.eval_shape(scan, optimizer, params, grads)
        assert set(jax.tree.leaves(dtypes(path))) == {wider(params_dtype, grads_dtype)}
        assert dtypes(new_params) == dtypes(params)


def test_without_params_an_update_has_the_gradients_dtype():
    for dtype in FLOATS:
        grads = jnp.ones(3, dtype)
        assert jo.adam(0.1).update(grads, jo.adam(0.1).init(grads))[0].dtype == grads.dtype


@for_each([name for name in TRANSFORMATIONS if name not in OWN_ROUNDING])
def test_narrow_arithmetic_is_that_of_float32(name):
    """Updates of 16-bit trees are those of the same numbers in float32, rounded once."""
    optimizer = TRANSFORMATIONS[name]
    params, grads = cast(PARAMS, "bfloat16"), cast(at(0), "float16")
    narrow, _ = optimizer.update(grads, optimizer.init(params), params)
    params, grads = cast(params, "float32"), cast(grads, "float32")
    wide, _ = optimizer.update(grads, optimizer.init(params), params)
    assert_close(narrow, wide, 1e-6)


@for_each(TRANSFORMATIONS)
def test_leaves_of_any_shape_keep_it(name):
    """Scalars, vectors, kernels of convolutions and empty leaves, alone and in nests, where no label is in the way."""
    optimizer = TRANSFORMATIONS[name]
    leaf = lambda *shape: jnp.ones(shape)
    params = {"w": (leaf(2, 3), [leaf(3, 3, 2, 4)]), "b": {"scalar": leaf(), "one": leaf(1), "empty": leaf(0, 2)}}
    if "by_path" in repr(optimizer):
        params = {"w": leaf(3, 3, 2, 4), "b": leaf()}
    state = jax.eval_shape(optimizer.init, params)
    updates, new_state = jax.eval_shape(optimizer.update, params, state, params)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert shapes(updates) == shapes(params) and shapes(new_state) == shapes(state)


# --- What 16 bits did to others ---------------------------------------------------------------------------------------


def first_update(optimizer, grads, params=None):
    params = jax.tree.map(jnp.zeros_like, grads) if params is None else params
    return optimizer.update(grads, optimizer.init(params), params)[0]


def test_clipping_large_float16_gradients_gives_a_unit_norm():
    """The squares of 300 are infinite in float16."""
    for optimizer in (jo.clip_by_global_norm(1.0), jo.chain(jo.clip_by_global_norm(jnp.float32(1.0)), jo.identity())):
        update = first_update(optimizer, jnp.full(100, 300, jnp.float16))
        assert update.dtype == jnp.float16
        np.testing.assert_allclose(np.linalg.norm(np.asarray(update, np.float64)), 1, 1e-3)


def test_adam_of_small_float16_gradients_is_a_step_of_the_learning_rate():
    """Their squares, and the default ε, are zero in float16."""
    for optimizer in (jo.adam(1e-2), jo.arrays(jo.adam(1e-2)), jo.adamw(1e-2)):
        update = first_update(optimizer, jnp.full(3, 1e-4, jnp.float16))
        np.testing.assert_allclose(np.asarray(update, np.float32), -1e-2, 2e-3)


def test_traced_decays_are_not_rounded_to_the_params_dtype():
    """0.999 is 1 in bfloat16, and 1 - b2 would be 0."""
    params, grads = jnp.ones(3, jnp.bfloat16), jnp.full(3, 0.5, jnp.bfloat16)

    @jax.jit
    def moments(b2):
        optimizer = jo.adamw(0.1, b2=b2)
        state = optimizer.init(params)
        for _ in range(3):
            updates, state = optimizer.update(grads, state, params)
        return updates, state[0].nu

    updates, nu = moments(0.999)
    assert nu.dtype == jnp.float32
    np.testing.assert_allclose(nu, 0.25 * (1 - 0.999**3), 1e-4)
    np.testing.assert_allclose(np.asarray(updates, np.float32), -0.1, 1e-2)


def test_weight_decay_is_not_lost_beside_a_narrow_gradient():
    """1 + 1e-3 is 1 in bfloat16: the sum is made in float32 and rounded at the end, when it is small."""
    optimizer = jo.chain(jo.scale(0.0), jo.add_decayed_weights(1e-3), jo.scale_by_learning_rate(1.0))
    update = first_update(optimizer, jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.float32))
    np.testing.assert_allclose(np.asarray(update, np.float32), -1e-3, 5e-3)


def steps(optimizer, params, grads, n=4):
    state = optimizer.init(params)
    for _ in range(n):
        updates, state = optimizer.update(grads, state, params)
        params = jo.apply_updates(params, updates)
    return params, state


def test_narrow_gradients_break_no_promise_to_wide_params():
    """bfloat16 gradients for float32 parameters: what a rule does to the parameters is done in float32."""
    w = jnp.array([0.1234567, -0.7654321, 3.3333333], jnp.float32)
    zero, one = jnp.zeros(3, jnp.bfloat16), jnp.ones(3, jnp.bfloat16)
    for optimizer in (jo.adamw(1e-3, weight_decay=1e-3), jo.lion(1e-3, weight_decay=1e-3), jo.lamb(1e-6)):
        beside = first_update(optimizer, one, w) - first_update(optimizer, one.astype(jnp.float32), w)
        np.testing.assert_array_equal(beside, 0)
    decayed, _ = steps(jo.adamw(1e-3, weight_decay=1e-3), w, zero, n=1)
    np.testing.assert_allclose(decayed - w, -1e-6 * w, atol=6e-8)

    assert (steps(jo.chain(jo.sgd(1.0), jo.keep_params_nonnegative()), w, one)[0] == 0).all()
    assert (steps(jo.chain(jo.sgd(0.1), jo.proximal_l1(0.1, 40.0)), w, zero)[0] == 0).all()
    kept, state = steps(jo.lookahead(jo.sgd(0.01), 2, 0.5), w, one)
    np.testing.assert_array_equal(kept, state.slow)
    kept, state = steps(jo.chain(jo.sgd(0.01), jo.ema_params(0.0, debias=False)), w, one)
    np.testing.assert_allclose(kept, jo.averaged_params(state), 1e-7)
    for inner in (jo.skip_not_finite, lambda inner: jo.accumulate(inner, 1), lambda inner: jo.masked(inner, True)):
        shrunk, _ = steps(inner(jo.proximal_l2(1.0, 1e-4)), w, zero, n=1)
        np.testing.assert_allclose(shrunk, w / (1 + 1e-4), 1e-7)


@pytest.mark.usefixtures("x64")
def test_float32_gradients_break_no_promise_to_float64_params():
    w, zero = jnp.array([0.1234567, -0.7654321]), jnp.zeros(2, jnp.float32)
    for wrapper in (jo.identity, lambda: jo.skip_not_finite(jo.identity())):
        optimizer = jo.chain(wrapper(), jo.skip_not_finite(jo.chain(jo.add_decayed_weights(1e-9), jo.scale(-1.0))))
        np.testing.assert_allclose(steps(optimizer, w, zero, n=1)[0] / w - 1, -1e-9, rtol=1e-6)


def test_apply_updates_sums_in_the_wider_dtype_also_for_weak_params():
    """A weakly typed float32 array meets bfloat16 in bfloat16 in JAX's own sums."""
    weak = jnp.asarray(1.001)
    assert weak.weak_type and weak.dtype == jnp.float32
    for p, u, want in (
        (weak, jnp.bfloat16(0.5), 1.501),
        (1.001, jnp.bfloat16(0.5), 1.501),
        (jnp.float32(1.001), jnp.float16(0.5), 1.501),
    ):
        new = jo.apply_updates({"p": p}, {"p": u})["p"]
        assert new.dtype == jnp.float32
        np.testing.assert_allclose(new, want, 1e-7)
    narrow = jo.apply_updates(jnp.bfloat16(256), jnp.float32(1.5))  # the sum 257.5 is rounded once
    assert narrow.dtype == jnp.bfloat16 and narrow == 258


@pytest.mark.usefixtures("x64")
def test_float64_stays_float64():
    """With x64 on, nothing falls back to float32 on the way, whatever the numbers are."""
    for name, optimizer in RECIPES.items():
        if "bfloat16" in repr(optimizer) or name == "lifted":
            continue
        optimizer = jo.arrays(optimizer, dtype="float64")
        params, grads = cast(PARAMS, "float64"), cast(GRADS, "float64")
        found = jax.eval_shape(lambda o, p=params, g=grads: scan(o, p, g), optimizer)
        floats = {d for d in jax.tree.leaves(dtypes(found)) if jnp.issubdtype(d, jnp.floating)}
        assert floats == {jnp.dtype("float64")}, name


# --- Complex numbers --------------------------------------------------------------------------------------------------


turn = np.complex64(np.exp(0.7j))


def turned(tree):
    return jax.tree.map(lambda x: turn * x.astype(jnp.complex64), tree)


@pytest.mark.parametrize("name", [n for n in TRANSFORMATIONS if n not in NOT_ROTATED | NOT_COMPLEX])
def test_a_rotation_of_the_complex_plane_rotates_the_updates(name):
    """Second moments are of |g|², not of g²; and a real accumulator dtype is not for complex moments."""
    optimizer, here = TRANSFORMATIONS[name], problem(name)
    path, params, state = compiled(optimizer, *map(turned, here))
    assert_close((path, params), turned(compiled(optimizer, *here)[:2]), tolerance(optimizer))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(plain(state)))


@pytest.mark.parametrize("name", NOT_ROTATED)
def test_rules_that_do_not_rotate_take_complex_leaves_all_the_same(name):
    optimizer = TRANSFORMATIONS[name]
    path, real = compiled(optimizer, turned(PARAMS), turned(GRADS))[0], compiled(optimizer, PARAMS, GRADS)[0]
    assert all(u.dtype == jnp.complex64 and np.isfinite(u).all() for u in jax.tree.leaves(path))
    assert not np.allclose(path["w"], turn * real["w"], 1e-3), "it does rotate: take it out of the list"


@for_each(NOT_COMPLEX)
def test_rules_of_an_order_refuse_complex_leaves(name):
    optimizer = TRANSFORMATIONS[name]
    with pytest.raises((TypeError, ValueError), match=r"[Cc]omplex"):
        first_update(optimizer, turned(at(0)), turned(PARAMS))
