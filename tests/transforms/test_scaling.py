import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo

from .rollout import GRADS, scalars, updates


def test_a_factor():
    assert scalars(jo.scale(-0.5), 3, -4) == [-1.5, 2]
    z, _ = jo.scale(-0.5).update(jnp.array([2j]), jo.scale(-0.5).init(jnp.ones(1, complex)))
    assert z == -1j


def test_the_learning_rate_turns_the_gradient_downhill():
    assert scalars(jo.scale_by_learning_rate(0.5), 3) == [-1.5]
    assert scalars(jo.scale_by_learning_rate(0.5, flip_sign=False), 3) == [1.5]
    assert scalars(jo.scale_by_learning_rate(0.0), 3) == [0]


def test_a_schedule_begins_at_step_zero_and_goes_on():
    line = jo.linear_schedule(1.0, 0.0, 4)
    np.testing.assert_allclose(scalars(jo.scale_by_schedule(line), 2, 2, 2), [2, 1.5, 1], rtol=1e-6)
    np.testing.assert_allclose(scalars(jo.scale_by_learning_rate(line), 2, 2, 2), [-2, -1.5, -1], rtol=1e-6)
    ascending = jo.scale_by_learning_rate(line, flip_sign=False)
    np.testing.assert_allclose(scalars(ascending, 2, 2, 2), [2, 1.5, 1], rtol=1e-6)


def trust(rule, u, w):
    return np.asarray(rule.update({"x": jnp.array(u)}, rule.init({"x": jnp.array(w)}), {"x": jnp.array(w)})[0]["x"])


def test_trust_is_the_length_of_the_weights_over_that_of_the_step():
    u, w = np.array([3.0, 4.0]), np.array([0.0, -2.0])
    np.testing.assert_allclose(trust(jo.scale_by_trust_ratio(), u, w), u * 2 / 5, rtol=1e-6)
    np.testing.assert_allclose(trust(jo.scale_by_trust_ratio(trust_coefficient=0.1), u, w), u * 0.1 * 2 / 5, rtol=1e-6)
    np.testing.assert_allclose(trust(jo.scale_by_trust_ratio(eps=0.5), u, w), u * 2 / 5.5, rtol=1e-6)
    np.testing.assert_allclose(trust(jo.scale_by_trust_ratio(min_norm=3.0), u, w), u * 3 / 5, rtol=1e-6)
    np.testing.assert_allclose(trust(jo.scale_by_trust_ratio(min_norm=10.0), u, w), u, rtol=1e-6)


@pytest.mark.parametrize(("u", "w"), [([3.0, 4.0], [0.0, 0.0]), ([0.0, 0.0], [1.0, 2.0])])
def test_without_weights_or_step_there_is_no_ratio(u, w):
    assert trust(jo.scale_by_trust_ratio(trust_coefficient=0.1), u, w).tolist() == u


def test_each_leaf_has_its_own_ratio():
    rule = jo.scale_by_trust_ratio()
    params = {"a": jnp.array([2.0]), "b": jnp.array([8.0])}
    grads = {"a": jnp.array([1.0]), "b": jnp.array([-0.5])}
    found, _ = rule.update(grads, rule.init(params), params)
    assert found["a"] == 2 and found["b"] == -8


def test_after_a_trust_ratio_the_unit_of_the_loss_does_not_matter():
    small, large = (trust(jo.scale_by_trust_ratio(), c * np.array([3.0, 4.0]), [1.0, -2.0]) for c in (1e-6, 1e6))
    np.testing.assert_allclose(small, large, rtol=1e-5)


def test_normalized_over_all_leaves_together():
    (found,), _ = updates(jo.normalize_by_update_norm(scale_factor=2.0, eps=0.5), GRADS[:1])
    norm = np.sqrt(0.25 + 16 + 1)
    jax.tree.map(lambda a, g: np.testing.assert_allclose(a, 2 * g / (norm + 0.5), rtol=1e-6), found, GRADS[0])


@pytest.mark.parametrize("size", [1e-15, 1.0, 1e30])
def test_whatever_was_its_length_it_is_one_afterwards(size):
    found = scalars(jo.normalize_by_update_norm(eps=0.0), -size)
    np.testing.assert_allclose(found, -1, rtol=1e-6)


def test_normalizing_nothing_gives_nothing():
    assert scalars(jo.normalize_by_update_norm(), 0) == [0]


def test_centralized_over_all_axes_but_the_first():
    matrix, kernel = jnp.array([[1.0, 3.0], [2.0, 8.0]]), jnp.arange(8.0).reshape(2, 2, 2)
    (found,), _ = updates(jo.centralize(), [{"m": matrix, "k": kernel, "b": jnp.array([1.0, 3.0])}])
    assert found["m"].tolist() == [[-1, 1], [-3, 3]]
    assert found["k"][1].tolist() == [[-1.5, -0.5], [0.5, 1.5]]
    assert found["b"].tolist() == [1, 3]
