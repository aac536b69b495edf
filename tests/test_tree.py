"""Arithmetic on pytrees: precision, norms at the ends of the range, derivatives at zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_lite import tree

MIXED = {"h": jnp.ones(2, jnp.float16), "b": jnp.ones(2, jnp.bfloat16), "f": jnp.ones(2), "c": jnp.ones(2, complex)}


def dtypes(t):
    return {k: v.dtype.name for k, v in t.items()}


def test_only_floats_of_fewer_than_32_bits_are_widened():
    widened = tree.widen({**MIXED, "i": jnp.ones(2, jnp.int8), "none": None})
    assert widened.pop("none") is None
    assert dtypes(widened) == {"h": "float32", "b": "float32", "f": "float32", "c": "complex64", "i": "int8"}


def test_widening_leaves_python_numbers_and_wide_arrays_as_they_are():
    given = {"x": 1.0, "f": jnp.ones(2)}
    assert tree.widen(given)["x"] is given["x"] and tree.widen(given)["f"] is given["f"]


def test_float64_stays(x64):
    wide = jnp.ones(2, jnp.float64)
    assert tree.widen(wide).dtype == tree.global_norm(wide).dtype == jnp.float64
    assert tree.compute_dtype(jnp.float64) == jnp.float64


def test_casting_takes_dtypes_and_real_parts_from_the_other_tree():
    wide = {k: jnp.full(2, 1.5 + 2j if k == "c" else 1.5) for k in MIXED}
    assert dtypes(tree.cast_like(wide, MIXED)) == dtypes(MIXED)
    real = tree.cast_like(jnp.array([1 + 2j]), jnp.ones(1))
    assert real.dtype == jnp.float32 and real == 1.0


def test_a_state_keeps_its_floats_and_lets_its_counts_be():
    old = (jnp.zeros([], jnp.int32), jnp.zeros(2, jnp.bfloat16), jnp.array(False))
    new = tree.keep_dtypes((jnp.ones([], jnp.int16), jnp.ones(2), jnp.array(True)), old)
    assert [x.dtype.name for x in new] == ["int16", "bfloat16", "bool"]


def test_kept_dtypes_are_strong():
    # A weak type in a scan's carry is a second trace, or an error.
    assert not tree.keep_dtypes(jnp.asarray(1.0), jnp.ones(())).weak_type


def test_map_leaves_returns_as_many_trees_as_the_function_results():
    sums, products = tree.map_leaves(lambda a, b: (a + b, a * b), 2, {"x": 2, "y": [3]}, {"x": 4, "y": [5]})
    assert sums == {"x": 6, "y": [8]} and products == {"x": 8, "y": [15]}


def test_scaling_keeps_the_dtype_of_the_tree():
    scaled = tree.scale(jnp.float32(0.5), MIXED)
    assert dtypes(scaled) == dtypes(MIXED)
    assert all((x == 0.5).all() for x in jax.tree.leaves(scaled))


def test_where_lets_no_nan_through_from_the_other_side():
    chosen = tree.where(jnp.array(True), {"x": jnp.ones(2)}, {"x": jnp.full(2, jnp.nan)})
    assert (chosen["x"] == 1).all()


def test_squares_are_real():
    z = jnp.array([3 + 4j])
    assert tree.abs_sq(z) == 25 and tree.abs_sq(z).dtype == jnp.float32
    assert tree.abs_sq(jnp.array(-3.0)) == 9
    assert tree.real_full_like(z, 2).dtype == jnp.float32


def test_the_safe_root_has_derivative_zero_at_zero():
    np.testing.assert_allclose(tree.safe_sqrt(jnp.array([0.0, 4.0])), [0, 2])
    slopes = jax.vmap(jax.grad(tree.safe_sqrt))(jnp.array([0.0, 4.0]))
    np.testing.assert_allclose(slopes, [0, 0.25])


def test_the_safe_root_hides_no_bad_number():
    assert tree.safe_sqrt(jnp.array(jnp.inf)) == jnp.inf
    assert jnp.isnan(tree.safe_sqrt(jnp.array(jnp.nan))) and tree.safe_sqrt(jnp.array(-1.0)) == 0


@pytest.mark.parametrize("size", [0.0, 1e-36, 1e-30, 1e-20, 1.0, 1e20, 1e30, 2e38])
def test_the_norm_is_right_over_the_whole_range(size):
    leaves = {"a": jnp.array([0.6 * size]), "b": jnp.array([[0.0, -0.8 * size]])}
    for norm in (tree.global_norm, jax.jit(tree.global_norm)):
        np.testing.assert_allclose(norm(leaves), size, rtol=1e-6)


def test_the_norm_of_leaves_of_any_dtype_is_at_least_float32():
    # 300² overflows float16, and bfloat16 has 8 bits: a sum of 1000 ones would stop at 256.
    half = tree.global_norm({"x": jnp.full(4, 300.0, jnp.float16)})
    assert half.dtype == jnp.float32 and half == 600
    np.testing.assert_allclose(tree.global_norm(jnp.ones(1000, jnp.bfloat16)), 1000**0.5, rtol=1e-6)
    assert tree.global_norm({"z": jnp.array([3 + 4j]), "x": jnp.array(12.0)}) == 13


@pytest.mark.usefixtures("x64")
def test_the_norm_of_leaves_of_float32_and_float64_is_right():
    for value in (0.0, 1e-30, 1e30):
        tree_of_both = {"a": jnp.full(2, value, jnp.float32), "b": jnp.full(2, value, jnp.float64)}
        np.testing.assert_allclose(tree.global_norm(tree_of_both), 2 * value, 1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30])
def test_the_norm_of_constants_is_right_when_compiled(value):
    """XLA combines the factors of known numbers, and their product would overflow."""
    norm = jax.jit(lambda: tree.global_norm({"a": jnp.full(4, value), "b": jnp.full(0, 1j)}))()
    np.testing.assert_allclose(norm, 2 * value, 1e-6)


@pytest.mark.parametrize("nothing", [{}, None, {"x": jnp.zeros((0, 3))}, {"x": jnp.zeros(3)}])
def test_nothing_has_norm_zero(nothing):
    assert tree.global_norm(nothing) == 0


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_bad_coordinate_spoils_the_norm(bad):
    assert not jnp.isfinite(tree.global_norm({"a": jnp.ones(3), "b": jnp.array([0.0, bad])}))
    assert not tree.all_finite({"a": jnp.ones(3), "b": jnp.array([0.0, bad])})


def test_all_finite_of_the_largest_numbers_and_of_nothing():
    assert tree.all_finite({"a": jnp.array([3e38, -3e38])}) and tree.all_finite({})


@pytest.mark.parametrize("batched", [False, True], ids=["alone", "vmap"])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e30])
def test_the_gradient_of_the_norm_is_the_direction(size, batched):
    # Under vmap the cond becomes a select, and both forms are differentiated.
    direction = jnp.array([0.6, 0.0, -0.8])
    slope = jax.grad(lambda x: tree.global_norm({"x": x}))
    found = jax.vmap(slope)(size * direction[None])[0] if batched else slope(size * direction)
    np.testing.assert_allclose(found, direction if size else jnp.zeros(3), rtol=1e-6)


def test_paths_join_keys_indices_and_fields_with_slashes():
    params = {"layers": [{"w": 1.0}], "state": optax.TraceState(trace={"b": 2.0})}
    assert jax.tree.leaves(tree.paths(params)) == ["layers/0/w", "state/trace/b"]
    assert tree.paths(1.0) == ""


def test_a_prefix_is_spread_over_its_branches():
    params = {"a": {"w": 1.0, "b": 2.0}, "c": 3.0}
    assert tree.spread({"a": "x", "c": "y"}, params, "f", "labels") == {"a": {"w": "x", "b": "x"}, "c": "y"}
    assert tree.spread(True, params, "f", "mask") == {"a": {"w": True, "b": True}, "c": True}
    assert tree.spread(lambda p: jax.tree.map(lambda x: x > 1, p), params, "f", "mask")["c"] is True


def test_where_a_leaf_is_any_label_stands():
    params = {"a": {"w": 1.0, "b": 2.0}, "c": 3.0}
    labels = {"a": {"w": None, "b": ("x", 1)}, "c": [0]}
    assert tree.spread(labels, params, "f", "labels") == labels
    spread = tree.spread({"a": ("x", 1), "c": None}, params, "f", "labels", is_leaf=lambda x: x in [("x", 1), None])
    assert spread == {"a": {"w": ("x", 1), "b": ("x", 1)}, "c": None}
    with pytest.raises(ValueError, match=r"no leaf or branch for labels\['a'\]\[0\]"):
        tree.spread({"a": ("x", 1), "c": 0}, params, "f", "labels")


@pytest.mark.parametrize("runs", [True, False])
def test_an_update_that_does_not_run_changes_nothing(runs):
    inner = optax.trace(0.5)
    grads, params = jnp.ones(2), jnp.zeros(2)
    updates, state = tree.cond_update(jnp.array(runs), inner, grads, inner.init(params), params, {})
    assert (updates == runs).all() and (state.trace == runs).all()


def test_an_update_that_does_not_run_is_not_computed():
    ran = []
    counting = optax.GradientTransformation(
        lambda params: (), lambda u, s, params=None: (jax.debug.callback(lambda: ran.append(1)) or u, s)
    )
    for runs in (True, False, False):
        tree.cond_update(jnp.array(runs), counting, jnp.ones(2), (), None, {})
    jax.effects_barrier()
    assert len(ran) == 1
