"""Orthogonalization, layouts, routing by names, stacks, and SOAP by its laws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.core.execution import any_lane, in_turn
from tests.quick import quick_jit

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


def once(rule, tree):
    return rule.update(tree, rule.init(tree))[0]


def test_singular_values_come_near_one():
    """And singular vectors stay; coefficients of Polar Express do it for values of 1e-3 already."""
    u, _, v = np.linalg.svd(np.asarray(normal(6, 4)), full_matrices=False)
    g = {"w": jnp.asarray(u @ np.diag([1.0, 0.3, 0.1, 0.03]) @ v, jnp.float32)}
    for coefficients, steps, low, high in (
        ("standard", 5, 0.65, 1.25),
        ("dion", 5, 0.65, 1.25),
        ("polar_express", 8, 0.999, 1.001),
        ((1.5, -0.5, 0.0), 30, 0.999, 1.001),
    ):
        got = np.asarray(once(jo.orthogonalize(coefficients, steps), g)["w"])
        own = np.diag(u.T @ got @ v.T)
        assert low <= own.min() and own.max() <= high, coefficients
        np.testing.assert_allclose(u @ np.diag(own) @ v, got, atol=1e-5)
    narrow = once(jo.orthogonalize(ns_dtype="bfloat16"), g)["w"]
    assert narrow.dtype == jnp.float32 and np.abs(narrow - once(jo.orthogonalize(), g)["w"]).max() < 0.05
    row = once(jo.orthogonalize("polar_express", 8), {"b": jnp.array([3.0, 4.0])})["b"]
    np.testing.assert_allclose(row, [0.6, 0.8], rtol=1e-3)


def test_layouts_are_those_of_the_matrix():
    kernel = normal(3, 2, 5)
    rule = jo.chain(jo.orthogonalize(), jo.scale_by_shape())
    flat = lambda g: once(rule, {"w": g})["w"]
    layouts: dict[Any, jax.Array] = {
        "matrix": jnp.stack([flat(k) for k in kernel]),
        "last_out": flat(kernel.reshape(6, 5)).reshape(3, 2, 5),
        "first_in": flat(kernel.reshape(3, 10)).reshape(3, 2, 5),
        "first_out": flat(kernel.reshape(3, 10).T).T.reshape(3, 2, 5),
    }
    for axes, wanted in layouts.items():
        got = once(jo.as_matrices(rule, axes), {"w": kernel})["w"]
        np.testing.assert_allclose(got, wanted, atol=1e-5, err_msg=axes)
    with pytest.raises(ValueError, match="must have no state"):
        jo.as_matrices(jo.ema(0.9), "matrix").init({"w": kernel})


def test_neurons_are_evened_out_and_the_norm_is_kept(x64):
    """By hand at the first step, where v is (1 - β) times a neuron's mean square: all neurons have one norm."""
    o = {"w": jnp.asarray(RANDOM.normal(size=(3, 2, 5))), "b": jnp.array([3.0, -4.0]), "z": jnp.zeros((2, 3))}
    inputs: dict[Any, Any] = {"matrix": 1, "last_out": (0, 1), "first_in": 0, "first_out": (1, 2)}
    rule = jo.scale_by_neuron_rms(0.8, 0.1)
    rules = [[jo.scale_by_neuron_rms(0.8, 1e-30, axes, consistent_rms=r) for r in (0.3, None)] for axes in inputs]

    @quick_jit
    def found(o):
        second = rule.update(o, rule.update(o, rule.init(o))[1])[1]
        return [[once(rule, o) for rule in pair] for pair in rules], second

    updates, state = jax.tree.map(np.asarray, found(o))
    for (axes, own), (got, kept) in zip(inputs.items(), updates, strict=True):
        sizes = np.sqrt(np.mean(np.square(got["w"]), axis=own))
        np.testing.assert_allclose(sizes, 0.3, rtol=1e-6, err_msg=axes)
        np.testing.assert_allclose(got["b"], [0.3, -0.3], rtol=1e-6)
        assert not got["z"].any()
        whole = (1, 2) if axes == "matrix" else (0, 1, 2)
        np.testing.assert_allclose(*(np.sum(np.square(x["w"]), axis=whole) for x in (kept, o)), rtol=1e-6)
        ratio = kept["w"] / got["w"]
        np.testing.assert_allclose(np.ptp(np.log(ratio), axis=whole), 0, atol=1e-6)
    assert state.nu["w"].shape == (3, 1, 5) and state.nu["b"].shape == (2,)
    np.testing.assert_allclose(state.nu["w"], (1 - 0.8**2) * np.mean(np.square(o["w"]), axis=1, keepdims=True))


def test_stacks_are_the_rule_leaf_by_leaf():
    leaves = {f"w{i}": normal(3, 2) for i in range(5)} | {"b": normal(2), "t": normal(2, 3, 2)}
    rule = jo.chain(jo.ema(0.9), jo.orthogonalize(), jo.scale_by_shape())
    stacked = jo.stack_matrices(rule, 3)
    for name, got in once(stacked, leaves).items():
        np.testing.assert_allclose(got, once(rule, leaves)[name], atol=1e-6, err_msg=name)
    places = jax.tree.leaves(jo.state_layout(stacked, leaves), is_leaf=lambda x: hasattr(x, "axes"))
    assert sorted(len(p.params) for p in places if p.params) == [1, 1, 1, 2, 2]  # as `stack_leaves` divides five
    assert all(p.axes == ("stack", 0, 1) for p in places if len(p.params) > 1)
    for refused, named in ((jo.chain(jo.lamb(0.1)), "scale_by_trust_ratio"), (jo.freeze({"b": True}), "freeze")):
        with pytest.raises(ValueError, match=named):
            jo.stack_matrices(refused)


TRANSFORMER = {
    "embed/embedding": ((9, 4), "adam"),
    "block_0/MultiHeadAttention_0/q_proj/kernel": ((4, 4), "matrix"),
    "block_0/attn/out/weight": ((4, 4), "first_out"),
    "block_0/attn/out/bias": ((4,), "adam"),
    "block_0/LayerNorm_0/scale": ((2, 4), "adam"),
    "block_0/experts/up": ((3, 4, 8), "matrix"),
    "layers/0/w": ((4, 4), "matrix"),
    "conv_1/kernel": ((3, 3, 2, 4), "last_out"),
    "conv_1/weight": ((4, 2, 3, 3), "first_out"),
    "lm_head/kernel": ((4, 9), "adam"),
}


def test_names_decide_or_the_rule_asks():
    params = {name: jnp.zeros(shape) for name, (shape, _) in TRANSFORMER.items()}
    assert jo.hidden_matrices()(params) == {name: label for name, (_, label) in TRANSFORMER.items()}
    table = jo.routing_table(jo.muon(0.02), params)
    assert "conv_1/kernel" in table and "last_out" in table
    jo.muon(0.02).init(params)
    alone = {"layers": [{"w": jnp.zeros((4, 4))}] * 2, "b": jnp.zeros((2, 3))}
    with pytest.raises(
        ValueError, match=r"layers/0/w, layers/1/w\. .*labels=hidden_matrices\(\{'layers/1/w': \"adam\""
    ):
        jo.muon(0.02).init(alone)
    known = jo.hidden_matrices({"layers/1/*": "adam"}, default="matrix")
    assert known(alone) == {"layers": [{"w": "matrix"}, {"w": "adam"}], "b": "adam"}
    with pytest.raises(ValueError, match="axes are in and out: attn/kernel"):
        jo.hidden_matrices()({"attn/kernel": jnp.zeros((2, 3, 4))})
    with pytest.raises(ValueError, match="'none' matches no leaf"):
        jo.hidden_matrices({"none": "adam"})(alone)
    with pytest.raises(ValueError, match="the label 'dense'"):
        jo.muon(0.02, labels={"w": "dense"}).init({"w": jnp.zeros((2, 2))})


def test_bad_arguments_are_named():
    for make, words in (
        (lambda: jo.orthogonalize("jordan"), "ns_coeffs must be one of 'standard'"),
        (lambda: jo.orthogonalize((1.0, 2.0)), "ns_coeffs must be a triple"),
        (lambda: jo.orthogonalize(ns_steps=0), "ns_steps must be an int of at least 1, got 0"),
        (lambda: jo.stack_matrices(jo.ema(0.9), 1), "size must be an int of at least 2"),
        (lambda: jo.scale_by_soap(max_precondition_dim=-1), "max_precondition_dim"),
        (lambda: jo.scale_by_soap(max_aspect=1.0), "max_aspect must be above 1"),
    ):
        with pytest.raises(ValueError, match=words):
            make()(None)


def descend(optimizer, params, steps=7):
    """Parameters [steps] of a run on a quadratic function with noise, and the last state."""

    def step(carry, key):
        params, state = carry
        noise = jax.tree.map(lambda p: jax.random.normal(key, p.shape, p.dtype), params)
        grads = jax.tree.map(lambda p, n: jnp.cumsum(p, axis=0) + n, params, noise)
        updates, state = optimizer.update(grads, state, params)
        params = jo.apply_updates(params, updates)
        return (params, state), (updates, grads)

    return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(jax.random.key(2), steps))


def test_soap_without_bases_is_adam_a_step_later(x64):
    params = {"w": jnp.ones((3, 5)), "b": jnp.ones(3)}
    soap = jo.scale_by_soap(0.8, 0.9, eps=1e-3, max_precondition_dim=0)
    _, (updates, grads) = quick_jit(lambda p: descend(jo.chain(soap, jo.scale(-0.1)), p))(params)
    adam = jo.adam(0.1, 0.8, 0.9, 1e-3)
    state = adam.init(params)
    assert not np.any(updates["w"][0])
    for t in range(1, 7):
        wanted, state = adam.update(jax.tree.map(lambda g, t=t: g[t], grads), state)
        np.testing.assert_allclose(updates["w"][t], wanted["w"], rtol=1e-10)
        np.testing.assert_allclose(updates["b"][t], wanted["b"], rtol=1e-10)


def test_soap_of_diagonal_gradients_is_adam_whatever_the_order_of_the_basis(x64):
    """The bases are axes, which change places when their eigenvalues do: m and v follow them."""
    sizes = np.array([[1.0, 0.1]] + [[0.3, 2.0]] * 4 + [[9.0, 1.0]] * 4)
    grads = jnp.asarray([np.diag(row) for row in sizes])
    rule, adam = jo.scale_by_soap(0.8, 0.9, 0.5, 1e-3, precondition_frequency=2.0), jo.scale_by_adam(0.8, 0.9, 1e-3)

    @quick_jit
    def paths(grads):
        def step(state, g):
            updates, state = rule.update(g, state)
            return state, (updates, state.bases.left)

        return jax.lax.scan(step, rule.init(grads[0]), grads)[1]

    got, bases = paths(grads)
    state = adam.init(grads[0])
    for t in range(1, len(grads)):
        wanted, state = adam.update(grads[t], state)
        np.testing.assert_allclose(got[t], wanted, atol=1e-10)
    first = {int(np.argmax(np.abs(q[:, 0]))) for q in bases}
    assert first == {0, 1}, "the order must change"


def test_soap_turns_with_the_space_and_chooses_sides(x64):
    """Turned gradients give turned updates: bases are of the gradient, not of the coordinates."""
    soap = jo.scale_by_soap(0.8, 0.9, eps=1e-3, precondition_frequency=2.0)
    left, right = (jnp.asarray(np.linalg.qr(RANDOM.normal(size=(n, n)))[0]) for n in (4, 3))
    grads = jnp.asarray(RANDOM.normal(size=(6, 4, 3)))

    @quick_jit
    def path(grads):
        step = lambda state, g: soap.update(g, state)[::-1]
        return jax.lax.scan(step, soap.init(grads[0]), grads)

    state, updates = path(grads)
    np.testing.assert_allclose(path(left @ grads @ right)[1], left @ updates @ right, atol=1e-8)
    for q, a in zip(state.bases, state.factors, strict=True):
        np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=1e-12)
        assert np.all(np.linalg.eigvalsh(a) > 0)
    sides = lambda *shape: [x is not None for x in soap.init(jnp.zeros(shape)).bases]
    assert sides(4, 16) == [True, False] and sides(16, 4) == [False, True] and sides(4, 15) == [True, True]
    assert sides(5) == [False, False] and soap.init(jnp.zeros((2, 4, 15))).bases.right.shape == (2, 15, 15)


def test_a_basis_is_refreshed_where_a_lane_needs_it():
    """Lanes with other frequencies are those of a loop, and the refresh stays a branch under vmap."""
    soap = lambda every: jo.soap(0.1, eps=0.1, precondition_frequency=every)
    run = lambda every: descend(soap(every), {"w": jnp.ones((3, 2))})[1][0]["w"]
    every = jnp.array([2.0, 3.0])
    batch, one = quick_jit(jax.vmap(run))(every), quick_jit(run)
    np.testing.assert_allclose(batch, jnp.stack([one(n) for n in every]), atol=1e-4)
    assert "cond" in str(
        jax.make_jaxpr(jax.vmap(lambda c: jax.lax.cond(any_lane(c), jnp.sin, jnp.cos, 1.0)))(every > 2)
    )


def test_in_turn_depends_on_the_result_before_it():
    both = jax.jit(lambda x, y: in_turn(jnp.exp, [x, y]))
    infinite, one = jnp.array([jnp.inf]), jnp.array([1.0])
    assert "select" in both.lower(infinite, one).as_text()
    assert both(infinite, one)[1] == jnp.exp(one) == both(jnp.array([jnp.nan]), one)[1]
