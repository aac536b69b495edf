import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo

from .rollout import GRADS, PARAMS, descend, scalars, updates

MASK = {"w": True, "b": False}


def test_decay_adds_the_weights():
    np.testing.assert_allclose(scalars(jo.add_decayed_weights(0.1), 3.0, params=-2.0), [3 - 0.2], rtol=1e-6)


def test_cautious_decay_is_decay_where_the_update_shrinks_the_weight():
    w, u = {"w": jnp.array([2.0, 2.0, -2.0, 2.0, 0.0])}, {"w": jnp.array([0.5, -0.5, -0.5, 0.0, 1.0])}
    rule = jo.add_cautious_decay(jo.linear_schedule(0.1, 0.0, 2))
    first, state = rule.update(u, rule.init(w), w)
    np.testing.assert_allclose(first["w"], [0.7, -0.5, -0.7, 0.2, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rule.update(u, state, w)[0]["w"], [0.6, -0.5, -0.6, 0.1, 1.0], rtol=1e-6)
    only = jo.add_cautious_decay(0.1, {"w": False})
    assert np.array_equal(only.update(u, only.init(w), w)[0]["w"], u["w"])
    with pytest.raises(ValueError, match="add_cautious_decay needs params"):
        rule.update(u, state)


def test_decay_of_plain_python_numbers():
    for rule in (jo.adamw, jo.lion):
        optimizer = rule(0.1, weight_decay=0.5)
        updates, _ = optimizer.update({"w": 1.0}, optimizer.init({"w": 2.0}), {"w": 2.0})
        np.testing.assert_allclose(updates["w"], -0.1 * (1 + 0.5 * 2), 1e-5)


def test_decay_by_a_schedule_counts_its_own_steps():
    rule = jo.add_decayed_weights(jo.linear_schedule(0.4, 0.0, 4))
    np.testing.assert_allclose(scalars(rule, 0, 0, 0, params=2.0), [0.8, 0.6, 0.4], rtol=1e-6)


@pytest.mark.parametrize(
    "mask", [MASK, lambda params: MASK, jo.by_path({"w": True}, default=False)], ids=["tree", "function", "paths"]
)
@pytest.mark.parametrize("decay", [0.1, jo.constant_schedule(0.1)], ids=["number", "schedule"])
def test_only_what_the_mask_names_decays(mask, decay):
    (found,), _ = updates(jo.add_decayed_weights(decay, mask), GRADS[:1], PARAMS)
    np.testing.assert_allclose(found["w"], GRADS[0]["w"] + 0.1 * PARAMS["w"], rtol=1e-6)
    np.testing.assert_array_equal(found["b"], GRADS[0]["b"])


@pytest.mark.parametrize("rule", [jo.proximal_l1, jo.proximal_l2])
def test_a_proximal_mask_too(rule):
    shrunk, _ = descend(jo.chain(jo.sgd(0.1), rule(0.1, 2.0, mask=MASK)), GRADS[:1])
    plain, _ = descend(jo.sgd(0.1), GRADS[:1])
    assert (abs(shrunk["w"]) < abs(plain["w"])).all() and shrunk["b"] == plain["b"]


def test_decay_by_hand_of_complex_weights():
    rule = jo.add_decayed_weights(0.5)
    w = jnp.array([2 - 4j])
    assert rule.update(jnp.array([1j]), rule.init(w), w)[0] == 1 - 1j


def test_the_soft_threshold_by_hand():
    # w + u = 1.0, -0.25, 0.15, -0.3 shrink by 0.1 * 2 = 0.2.
    rule, w, u = jo.proximal_l1(0.1, 2.0), jnp.array([0.5, -0.75, 0.15, -0.2]), jnp.array([0.5, 0.5, 0.0, -0.1])
    new = jo.apply_updates(w, rule.update(u, rule.init(w), w)[0])
    np.testing.assert_allclose(new, [0.8, -0.05, 0, -0.1], atol=1e-7)
    assert new[2] == 0  # exactly


def test_proximal_gradient_descent_finds_exact_zeros():
    # ½‖w - a‖² + λ‖w‖₁ is smallest at the soft threshold of a.
    a = jnp.array([3.0, -0.5, 0.9, -2.0])
    optimizer = jo.chain(jo.sgd(0.5), jo.proximal_l1(0.5, 1.0))
    w, state = jnp.ones(4), optimizer.init(jnp.ones(4))
    for _ in range(40):
        update, state = optimizer.update(w - a, state, w)
        w = jo.apply_updates(w, update)
    np.testing.assert_allclose(w, [2, 0, 0, -1], atol=1e-5)
    assert w[1] == 0 and w[2] == 0


def test_the_threshold_follows_the_learning_rate():
    rule = jo.proximal_l1(jo.linear_schedule(1.0, 0.0, 4), 0.4)
    np.testing.assert_allclose(scalars(rule, 0, 0, 0, params=2.0), [-0.4, -0.3, -0.2], rtol=1e-5)
    rule = jo.proximal_l2(jo.linear_schedule(1.0, 0.0, 4), 1.0)
    np.testing.assert_allclose(scalars(rule, 0, 0, params=2.0), [2 / 2 - 2, 2 / 1.75 - 2], rtol=1e-5)


def test_the_proximal_step_of_l2_never_overshoots_zero():
    new = 2.0 + 0.5 + scalars(jo.proximal_l2(0.1, 2.0), 0.5, params=2.0)[0] - 0.5
    np.testing.assert_allclose(new, 2.5 / 1.2, rtol=1e-6)
    huge = 2.0 + scalars(jo.proximal_l2(1.0, 1e6), 0.0, params=2.0)[0]
    assert 0 <= huge < 1e-5


def test_complex_weights_shrink_towards_zero_in_their_direction():
    rule, w = jo.proximal_l1(1.0, 1.0), jnp.array([3 + 4j, 0.3j])
    new = jo.apply_updates(w, rule.update(jnp.zeros_like(w), rule.init(w), w)[0])
    np.testing.assert_allclose(new, [2.4 + 3.2j, 0], atol=1e-6)


def test_a_weight_that_is_zero_has_a_slope():
    rule = jo.proximal_l1(0.1, 0.1)
    slope = jax.grad(lambda w: rule.update(jnp.zeros(2), rule.init(w), w)[0].sum())(jnp.zeros(2))
    assert jnp.isfinite(slope).all()


def test_noise_has_the_variance_that_it_says_and_anneals():
    rule, zeros = jo.add_noise(eta=0.3, gamma=0.8, key=3), jnp.zeros(20_000)
    state, found = rule.init(zeros), []
    for _ in range(4):
        noise, state = rule.update(zeros, state)
        found.append(float(jnp.var(noise)))
        assert abs(noise.mean()) < 0.02
    np.testing.assert_allclose(found, 0.3 / np.arange(1, 5) ** 0.8, rtol=0.05)


def test_noise_is_a_function_of_its_key_and_differs_from_leaf_to_leaf_and_step_to_step():
    zeros = [{"a": jnp.zeros(3), "b": jnp.zeros(3)}] * 2
    first, again, other, keyed = (
        updates(jo.add_noise(0.1, 0.5, key), zeros)[0] for key in (0, 0, 1, jax.random.key(0))
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    jax.tree.map(np.testing.assert_array_equal, first, keyed)
    assert (first[0]["a"] != other[0]["a"]).all() and (first[0]["a"] != first[1]["a"]).all()
    assert (first[0]["a"] != first[0]["b"]).all()


def test_no_noise_at_variance_zero():
    assert scalars(jo.add_noise(0.0, 0.5), 3) == [3]


def test_weights_stay_nonnegative():
    optimizer = jo.chain(jo.sgd(1.0), jo.keep_params_nonnegative())
    params, _ = descend(optimizer, [jnp.array([3.0, -2.0, 1.0])], jnp.array([1.0, 0.0, 1.0]))
    assert params.tolist() == [0, 2, 0]
    params, _ = descend(optimizer, [jnp.zeros(2)], jnp.array([-1.0, 1.0]))
    assert params.tolist() == [0, 1]
