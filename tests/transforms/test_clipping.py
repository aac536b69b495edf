import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite import tree

from .rollout import scalars


def clipped(rule, grads, params=None):
    params = jax.tree.map(jnp.ones_like, grads) if params is None else params
    return rule.update(grads, rule.init(params), params)[0]


def test_each_coordinate_into_an_interval():
    assert clipped(jo.clip(1.5), jnp.array([-9.0, -1.5, 0.0, 1.0, jnp.inf])).tolist() == [-1.5, -1.5, 0, 1, 1.5]
    assert clipped(jo.clip(0.0), jnp.array([-9.0, 2.0])).tolist() == [0, 0]
    assert clipped(jo.clip(1.0), jnp.array([3 - 0.5j])).tolist() == [1 - 0.5j]
    assert np.isnan(scalars(jo.clip(1.0), np.nan))


@pytest.mark.parametrize("size", [1e-36, 1e-30, 1e-3, 0.99, 1.0])
def test_a_short_gradient_is_left_alone_to_the_last_bit(size):
    grads = {"a": jnp.array([0.6 * size]), "b": jnp.array([0.0, -0.8 * size])}
    jax.tree.map(np.testing.assert_array_equal, clipped(jo.clip_by_global_norm(1.01), grads), grads)


@pytest.mark.parametrize("max_norm", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("size", [2e4, 1e19, 1e30, 2e38])
def test_a_long_gradient_keeps_its_direction_and_gets_the_length(size, max_norm):
    grads = {"a": jnp.array([0.6 * size]), "b": jnp.array([0.0, -0.8 * size])}
    for run in (lambda f: f, jax.jit):  # compiled, a division by 2e38 became a product with a denormal number
        found = run(lambda grads: clipped(jo.clip_by_global_norm(max_norm), grads))(grads)
        np.testing.assert_allclose(found["a"], [0.6 * max_norm], rtol=1e-5)
        np.testing.assert_allclose(found["b"], [0, -0.8 * max_norm], rtol=1e-5)


def test_a_tiny_bound_for_a_tiny_gradient():
    # Both are squares that underflow: the norm must take its other form.
    found = clipped(jo.clip_by_global_norm(1e-31), jnp.array([0.6e-30, -0.8e-30]))
    np.testing.assert_allclose(found, [0.6e-31, -0.8e-31], rtol=1e-5)


def test_nothing_is_clipped_to_nothing():
    for bound in (0.0, 1.0):
        assert clipped(jo.clip_by_global_norm(bound), jnp.zeros(3)).tolist() == [0] * 3
    assert clipped(jo.clip_by_global_norm(0.0), jnp.array([3.0, 4.0])).tolist() == [0, 0]
    assert clipped(jo.clip_by_global_norm(1.0), {}) == {}


def test_a_bound_of_infinity_never_clips():
    assert clipped(jo.clip_by_global_norm(jnp.inf), jnp.array([3e20, 4e20])).tolist() == pytest.approx([3e20, 4e20])


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_bad_coordinate_spoils_the_whole_step_so_that_it_is_seen(bad):
    found = clipped(jo.clip_by_global_norm(1.0), {"a": jnp.ones(2), "b": jnp.array([bad, 0.0])})
    assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("size", [0.0, 1e-30, 0.5, 3.0, 1e30])
def test_clipping_has_a_slope_everywhere(size):
    def first(c, g):
        rule = jo.clip_by_global_norm(c)
        return rule.update(g, rule.init(g), None)[0][0]

    by_bound, by_gradient = jax.grad(first, argnums=(0, 1))(1.0, jnp.array([size, 0.0]))
    np.testing.assert_allclose(by_bound, 1.0 if size > 1 else 0.0, rtol=1e-6)
    np.testing.assert_allclose(by_gradient, [1.0 if size <= 1 else 0.0, 0.0], atol=1e-6)


def test_complex_leaves_count_with_their_absolute_value():
    found = clipped(jo.clip_by_global_norm(1.3), {"z": jnp.array([3 + 4j]), "x": jnp.array(12.0)})
    np.testing.assert_allclose(found["z"], [0.3 + 0.4j], rtol=1e-6)
    np.testing.assert_allclose(found["x"], 1.2, rtol=1e-6)


def test_half_precision_gradients_whose_squares_overflow():
    found = clipped(jo.clip_by_global_norm(1.0), jnp.full(4, 300.0, jnp.float16))
    assert found.tolist() == [0.5] * 4 and found.dtype == jnp.float16


def test_each_leaf_down_to_a_root_mean_square():
    grads = {"long": jnp.array([6.0, 8.0]), "short": jnp.array([0.6, 0.8]), "zero": jnp.zeros(2)}
    found = clipped(jo.clip_by_block_rms(2.0), grads)
    np.testing.assert_allclose(found["long"], np.array([6, 8]) / (np.sqrt(50) / 2), rtol=1e-6)
    np.testing.assert_array_equal(found["short"], grads["short"])
    assert not found["zero"].any()


# --- Adaptive: a unit's gradient against the unit's weights ---------------------------------------


def lengths(x, axis):
    return np.sqrt(np.sum(np.square(x), axis=axis, keepdims=True))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((), ()), ((4,), (0,)), ((1, 4), (0, 1)), ((3, 4), (0,)), ((2, 3, 4), (0,)), ((2, 2, 3, 4), (0, 1, 2))],
    ids=str,
)
def test_what_is_a_unit_of_a_leaf(shape, axis):
    rng = np.random.default_rng(0)
    w, u = rng.normal(size=shape), 10 * rng.normal(size=shape)
    found = clipped(jo.adaptive_grad_clip(0.1, 1e-3), jnp.array(u), jnp.array(w))
    np.testing.assert_allclose(found, u * 0.1 * lengths(w, axis) / lengths(u, axis), rtol=1e-4)


def test_units_may_be_given_as_axes():
    rng = np.random.default_rng(1)
    w, u = rng.normal(size=(3, 4)), 10 * rng.normal(size=(3, 4))
    for axis in (1, (0, 1)):
        found = clipped(jo.adaptive_grad_clip(0.1, axis=axis), jnp.array(u), jnp.array(w))
        np.testing.assert_allclose(found, u * 0.1 * lengths(w, axis) / lengths(u, axis), rtol=1e-4)


def test_only_the_units_that_are_too_long_are_clipped():
    w, u = jnp.ones((2, 2)), jnp.array([[0.01, 30.0], [0.01, 40.0]])
    found = clipped(jo.adaptive_grad_clip(0.1), u, w)
    np.testing.assert_allclose(found[:, 0], [0.01, 0.01])
    np.testing.assert_allclose(found[:, 1], np.array([0.6, 0.8]) * 0.1 * np.sqrt(2), rtol=1e-5)


def test_weights_of_zero_can_still_move():
    found = clipped(jo.adaptive_grad_clip(0.5, eps=0.1), jnp.array([3.0, 4.0]), jnp.zeros(2))
    np.testing.assert_allclose(tree.global_norm(found), 0.5 * 0.1, rtol=1e-6)


def test_six_axes_need_a_word():
    leaf = jnp.ones((1,) * 6).repeat(2, axis=0).repeat(2, axis=1)
    with pytest.raises(ValueError, match="give them by axis="):
        clipped(jo.adaptive_grad_clip(0.1), leaf)
    assert clipped(jo.adaptive_grad_clip(0.1, axis=(0, 1)), leaf).shape == leaf.shape
