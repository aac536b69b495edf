"""Penalties are their formulas, on the leaves they are meant for, and their strengths are numbers like any other."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo

W = {"a": {"w": jnp.array([[1.0, -2.0]]), "b": jnp.array([3.0])}, "c": jnp.array(-0.5)}
L1, SQUARES = 6.5, 14.25  # Σ |w| and Σ |w|²

VALUES = {
    "l1": (jo.l1_penalty(0.1), 0.1 * L1, jnp.sign),
    "l2": (jo.l2_penalty(0.1), 0.05 * SQUARES, lambda w: w),
    "elastic net": (jo.elastic_net_penalty(0.1, 0.25), 0.1 * (0.25 * L1 + 0.375 * SQUARES), None),
}


@pytest.mark.parametrize("penalty, value, slope", VALUES.values(), ids=VALUES)
def test_a_penalty_is_its_formula(penalty, value, slope):
    slope = slope or (lambda w: 0.25 * jnp.sign(w) + 0.75 * w)
    np.testing.assert_allclose(penalty(W), value, rtol=1e-6)
    for grad, w in zip(jax.tree.leaves(jax.grad(penalty)(W)), jax.tree.leaves(W), strict=True):
        np.testing.assert_allclose(grad, 0.1 * slope(w), rtol=1e-6)


def test_the_elastic_net_lies_between_its_ends():
    np.testing.assert_allclose(jo.elastic_net_penalty(0.3, 1.0)(W), jo.l1_penalty(0.3)(W), rtol=1e-6)
    np.testing.assert_allclose(jo.elastic_net_penalty(0.3, 0.0)(W), jo.l2_penalty(0.3)(W), rtol=1e-6)


def test_the_gradient_of_l2_is_weight_decay():
    decayed, _ = jo.add_decayed_weights(0.1).update(
        jax.tree.map(jnp.zeros_like, W), jo.add_decayed_weights(0.1).init(W), W
    )
    assert jax.tree.all(jax.tree.map(np.allclose, jax.grad(jo.l2_penalty(0.1))(W), decayed))


def test_gradients_at_zero_are_zero():
    for penalty, _, _ in VALUES.values():
        assert jax.grad(penalty)({"w": jnp.zeros(3)})["w"].tolist() == [0, 0, 0]
        assert jax.grad(penalty)({"w": jnp.zeros(1, complex)})["w"] == 0


@pytest.mark.parametrize(
    "mask",
    [
        {"a": {"w": True, "b": False}, "c": False},
        lambda params: {"a": {"w": True, "b": False}, "c": False},
        jo.by_path({"*/w": True}, default=False),
    ],
    ids=["tree", "function", "paths"],
)
def test_a_mask_chooses_leaves(mask):
    np.testing.assert_allclose(jo.l1_penalty(0.1, mask)(W), 0.3, rtol=1e-6)
    np.testing.assert_allclose(jo.l2_penalty(0.1, mask=mask)(W), 0.25, rtol=1e-6)
    np.testing.assert_allclose(jo.elastic_net_penalty(0.1, 0.5, mask)(W), 0.15 + 0.125, rtol=1e-6)
    grads = jax.grad(jo.l2_penalty(0.1, mask))(W)
    assert grads["c"] == 0 and grads["a"]["b"] == 0 and (grads["a"]["w"] != 0).all()


class Module(eqx.Module):
    w: Any
    b: Any

    def __call__(self, *args):
        return True


def test_a_mask_that_can_be_called_is_a_tree():
    params = Module(jnp.array([1.0, -2.0]), jnp.array(3.0))
    for penalty, expected in ((jo.l1_penalty, 3), (jo.l2_penalty, 2.5), (jo.elastic_net_penalty, 2.75)):
        np.testing.assert_allclose(penalty(1.0, mask=Module(True, False))(params), expected, rtol=1e-6)
        np.testing.assert_allclose(penalty(1.0, mask=jo.by_path({"w": True}, False))(params), expected, rtol=1e-6)


def test_a_mask_of_anything_but_bools_is_refused():
    for mask in ({"a": 1, "c": 0}, {"a": "yes", "c": False}, lambda p: jax.tree.map(lambda w: w > 0, p)):
        with pytest.raises(TypeError, match=r"penalty: mask.* must be True or False, got"):
            jo.l1_penalty(0.1, mask)(W)


def test_a_mask_may_be_a_prefix_or_choose_nothing():
    np.testing.assert_allclose(jo.l1_penalty(0.1, {"a": True, "c": False})(W), 0.6, rtol=1e-6)
    assert jo.l1_penalty(0.1, False)(W) == 0


def test_a_mask_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match="penalty: mask does not fit"):
        jo.l1_penalty(0.1, {"x": True})(W)


def test_complex_and_coarse_parameters_are_penalised_exactly():
    np.testing.assert_allclose(jo.l2_penalty(2.0)(jnp.array([3 + 4j])), 25)
    np.testing.assert_allclose(jo.l1_penalty(2.0)(jnp.array([3 + 4j])), 10)
    coarse = jnp.ones(301, jnp.bfloat16)  # there is no 301 in bfloat16
    assert jo.l1_penalty(1.0)(coarse) == 301 and jo.l1_penalty(1.0)(coarse).dtype == jnp.float32
    assert jax.grad(jo.l1_penalty(1.0))(coarse).dtype == jnp.bfloat16


def test_a_penalty_is_a_value():
    penalty = jo.elastic_net_penalty(0.1, l1_ratio=0.3)
    assert repr(penalty) == "elastic_net_penalty(0.1, l1_ratio=0.3)"
    assert jo.parse(repr(penalty)) == penalty and jax.tree.leaves(penalty) == [0.1, 0.3]


def test_strengths_are_swept_and_differentiated():
    strengths = jnp.array([0.0, 0.1, 1.0])
    swept = jax.vmap(lambda strength: jo.l2_penalty(strength)(W))(strengths)
    np.testing.assert_allclose(swept, strengths * SQUARES / 2, rtol=1e-6)
    batch = jo.l2_penalty(strengths)
    np.testing.assert_allclose(jax.vmap(lambda penalty: penalty(W))(batch), swept)
    np.testing.assert_allclose(jax.grad(lambda penalty: penalty(W))(jo.l1_penalty(0.1)).arguments["strength"], L1)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: jo.l1_penalty(-0.1), "strength must be at least 0, got -0.1"),
        (lambda: jo.l2_penalty("0.1"), "strength must be a number, got the string '0.1'"),
        (lambda: jo.elastic_net_penalty(0.1, 1.5), r"l1_ratio must be in \[0, 1\], got 1.5"),
        (lambda: jo.regularized(loss), r"at least one penalty, such as l2_penalty\(1e-4\)"),
        (lambda: jo.regularized(loss, jo.l2_penalty), r"a penalty must be a function of params, as l2_penalty\(1e-4\)"),
        (lambda: jo.regularized(loss, 1e-4), "a penalty must be a function of params, .* got 0.0001"),
        (lambda: jo.regularized(jo.l2_penalty(0.1)(W), jo.l1_penalty(0.1)), "loss must be a function"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def loss(params, batch, key=None):
    return jnp.sum((params["c"] - batch) ** 2)


def test_a_regularized_loss_is_the_sum():
    whole = jo.regularized(loss, jo.l1_penalty(0.1), jo.l2_penalty(0.2), lambda params: 1.0)
    extra = 0.1 * L1 + 0.1 * SQUARES + 1
    np.testing.assert_allclose(whole(W, 1.5), 4 + extra, rtol=1e-6)
    np.testing.assert_allclose(whole(W, batch=1.5, key=None), 4 + extra, rtol=1e-6)


def test_a_loss_of_16_bits_is_regularized_in_float32_under_strict_promotion_too():
    with jax.numpy_dtype_promotion("strict"):
        loss = jo.regularized(lambda w: jnp.bfloat16(1.5), jo.l2_penalty(0.1))(jnp.full(3, 0.1, jnp.bfloat16))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 1.5 + 0.05 * 3 * 0.1**2, 1e-3)


def test_a_dict_of_metrics_gains_the_parts():
    whole = jo.regularized(lambda params, batch: (loss(params, batch), {"n": 1}), jo.l1_penalty(0.1))
    value, aux = whole(W, 1.5)
    np.testing.assert_allclose([value, aux["penalty"], aux["unregularized_loss"]], [4.65, 0.65, 4], rtol=1e-6)
    assert aux["n"] == 1


def test_any_other_aux_stays():
    whole = jo.regularized(lambda params, batch: (loss(params, batch), ("x", batch)), jo.l1_penalty(0.1))
    assert whole(W, 1.5)[1] == ("x", 1.5)


def test_a_penalised_task_trains_to_its_minimum_for_each_strength():
    """The minimum of (c - 1.5)² + λ/2 c² is 3 / (2 + λ)."""

    def trained(strength):
        task = jo.Task(lambda key: {"c": 0.0}, jo.regularized(lambda p, b, k: loss(p, 1.5), jo.l2_penalty(strength)))
        state = jo.init_state(task, jo.sgd(0.2))
        step = jo.make_step(task)
        return jax.lax.fori_loop(0, 60, lambda i, state: step(state, None)[0], state).params["c"]

    strengths = jnp.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(jax.vmap(trained)(strengths), 3 / (2 + strengths), rtol=1e-5)


PROX = {
    "l1": jo.l1_penalty(0.7),
    "l2": jo.l2_penalty(0.7),
    "elastic net": jo.elastic_net_penalty(0.7, 0.3),
    "groups": jo.group_lasso_penalty(0.4, -1),
    "leaves as groups": jo.group_lasso_penalty(0.4),
    "nuclear norm": jo.nuclear_norm_penalty(0.7),
    "masked": jo.l1_penalty(0.7, {"w": True, "z": False}),
}


@pytest.mark.usefixtures("x64")
def test_a_proximal_operator_minimizes_what_defines_it():
    rng = np.random.default_rng(0)
    draw = lambda: {"w": rng.normal(size=(4, 3)), "z": rng.normal(size=(2, 2)) + 1j * rng.normal(size=(2, 2))}
    square = lambda tree: sum(jnp.sum(jnp.abs(x) ** 2) for x in jax.tree.leaves(tree))
    minus = lambda a, b: jax.tree.map(jnp.subtract, a, b)
    v, u, t = draw(), draw(), 0.8
    away = [jax.tree.map(lambda d, s=s: 10.0**-s * d, draw()) for s in range(4) for _ in range(4)]
    for name, penalty in PROX.items():
        defined = jax.jit(lambda w, penalty=penalty: penalty(w) + square(minus(w, v)) / (2 * t))
        prox = jax.jit(penalty.prox)
        w = prox(v, t)
        for d in away:  # it is strongly convex, with 1 / t
            there = defined(jax.tree.map(jnp.add, w, d))
            assert there >= defined(w) + square(d) / (2 * t) - 1e-12, name
        assert square(minus(prox(u, t), w)) <= square(minus(u, v)) and penalty.has_prox  # nonexpansive
        assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), prox(v, 0.0), v)), name
    # Moreau: v - prox(v) is the projection on the ball of the dual norm.
    rest = minus(v, jo.l1_penalty(0.7).prox(v, t))
    np.testing.assert_allclose(rest["w"], np.clip(v["w"], -0.56, 0.56), 1e-12)
    singular = np.linalg.svd(minus(v, jo.nuclear_norm_penalty(0.7).prox(v, t))["w"], compute_uv=False)
    np.testing.assert_allclose(singular, np.minimum(np.linalg.svd(v["w"], compute_uv=False), 0.56), 1e-12)
    lengths = np.linalg.norm(minus(v, jo.group_lasso_penalty(0.4, -1).prox(v, t))["w"], axis=1)
    np.testing.assert_allclose(lengths, np.minimum(np.linalg.norm(v["w"], axis=1), 0.32 * 3**0.5), 1e-12)


@pytest.mark.usefixtures("x64")
def test_the_nuclear_norm_has_finite_derivatives_at_equal_and_zero_singular_values():
    rng = np.random.default_rng(0)
    q, r = np.linalg.qr(rng.normal(size=(4, 3)))[0], np.linalg.qr(rng.normal(size=(3, 3)))[0]
    penalty, d, h = jo.nuclear_norm_penalty(1.0), rng.normal(size=(4, 3)), 1e-6
    slope = jax.jit(lambda w, t: jax.jvp(penalty.prox, (w, t), (d, 0.3)))
    for values in ([2.0, 2.0, 0.0], [3.0, 0.5, 0.5], [3.0, 2.0, 0.0], [0.0, 0.0, 0.0]):
        w = q @ np.diag(values) @ r
        found, change = slope(w, 1.0)
        differences = (penalty.prox(w + h * d, 1 + 0.3 * h) - penalty.prox(w - h * d, 1 - 0.3 * h)) / (2 * h)
        np.testing.assert_allclose(change, differences, 1e-5, 1e-5)
        assert np.linalg.matrix_rank(found) == sum(np.array(values) > 1)
        np.testing.assert_allclose(penalty(w), sum(values), 1e-12)
        above = np.array(values) > 0
        np.testing.assert_allclose(jax.grad(penalty)(w), (q[:, above] @ r[above]), atol=1e-7)


def test_penalties_of_groups_are_their_formulas_and_refuse_what_they_cannot_group():
    w = {"w": jnp.array([[3.0, 4.0], [0.0, 0.0]]), "b": jnp.array([0.0, 2.0])}
    np.testing.assert_allclose(jo.group_lasso_penalty(0.1, 0)(w), 0.1 * (2**0.5 * (3 + 4) + 2**0.5 * 2), 1e-6)
    np.testing.assert_allclose(jo.group_lasso_penalty(0.1)(w), 0.1 * (2 * 5 + 2**0.5 * 2), 1e-6)
    for grad in jax.tree.leaves(jax.grad(jo.group_lasso_penalty(0.1, -1, {"w": True, "b": False}))(w)):
        assert np.isfinite(grad).all()
    with pytest.raises(TypeError, match=r"axis must be an int, a tuple of ints or None, got 1\.5"):
        jo.group_lasso_penalty(0.1, 1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"axis is 1, but a leaf has shape \(2,\)"):
        jo.group_lasso_penalty(0.1, 1)(w)
    with pytest.raises(ValueError, match=r"shape \(2,\), which is no matrix; leave it out by a mask"):
        jo.nuclear_norm_penalty(0.1)(w)
    with pytest.raises(TypeError, match="has no proximal operator"):
        jo.penalty(lambda: jnp.sum)().prox(w, 1.0)
