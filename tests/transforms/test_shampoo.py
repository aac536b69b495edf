"""Shampoo by its laws: where it is Adagrad, blocks, grafting, and roots that lanes of a vmap compute together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.quick import quick_jit

RANDOM = np.random.default_rng(0)
SHAPES = {"w": (5, 3), "t": (2, 3, 4), "b": (4,), "s": (), "none": (0, 3)}
GRADS = {name: jnp.asarray(RANDOM.normal(size=(4, *shape)), jnp.float32) for name, shape in SHAPES.items()}


def at(t, tree):
    return jax.tree.map(lambda g: g[t], tree)


def path(rule, grads=GRADS):
    """All updates of a run, and its last state."""

    def step(state, g):
        updates, state = rule.update(g, state)
        return state, updates

    return jax.lax.scan(step, rule.init(at(0, grads)), grads)[::-1]


def assert_same(got, wanted, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol), got, wanted)


def test_where_it_is_adagrad():
    """In blocks of one value, for all gradients; as a whole, for diagonal ones. With an average it is RMSProp."""
    ones = [jo.scale_by_shampoo(b2, 1e-2, 1.0, 1, ridge=0.0) for b2 in (None, 0.8)]
    same = [jo.scale_by_rss(0.0, 1e-2), jo.scale_by_rms(0.8, 1e-2, bias_correction=True)]
    diagonal = {"w": jnp.asarray([np.diag(row) for row in RANDOM.normal(size=(4, 3))], jnp.float32)}
    whole = jo.scale_by_shampoo(None, 1e-2, 1.0, ridge=0.0)
    found = quick_jit(lambda: [[path(rule)[0] for rule in rules] for rules in (ones, same)])()
    for got, wanted in zip(*found, strict=True):
        assert_same(got, wanted)
    got, wanted = quick_jit(lambda g: (path(whole, g)[0], path(same[0], g)[0]))(diagonal)
    assert_same(got, wanted, 1e-4)


def test_it_turns_with_the_space_and_a_block_is_a_leaf_of_its_own(x64):
    """In the first step it is U Vᵀ of G = U Σ Vᵀ; blocks are those of other leaves."""
    left, right = (jnp.asarray(np.linalg.qr(RANDOM.normal(size=(n, n)))[0]) for n in (4, 3))
    g = jnp.asarray(RANDOM.normal(size=(4, 6, 5)))
    turned, blocks = g[:, :4, :3], {"a": g[:, :3, :3], "b": g[:, 3:, :3], "c": g[:, :3, 3:], "d": g[:, 3:, 3:]}
    rule = jo.scale_by_shampoo(0.8, 1e-9, 2.0, ridge=0.0)
    cut = jo.scale_by_shampoo(0.8, 1e-9, 2.0, 3, ridge=0.0)

    @quick_jit
    def found(turned, g, blocks):
        return path(rule, turned)[0], path(rule, left @ turned @ right)[0], path(cut, g), path(rule, blocks)[0]

    own, other, (parts, state), apart = found(turned, g, blocks)
    u, _, v = np.linalg.svd(turned[0], full_matrices=False)
    np.testing.assert_allclose(own[0], u @ v, atol=1e-6)
    np.testing.assert_allclose(other, left @ own @ right, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        parts, np.concatenate([np.concatenate([apart[k] for k in r], 2) for r in ("ac", "bd")], 1)
    )
    assert state.factors.left.shape == (2, 2, 3, 3) == state.roots.right.shape


def test_a_graft_gives_the_length_and_moves_vectors():
    adam = jo.scale_by_adam(0.8, 0.9)
    rule = jo.scale_by_shampoo(0.9, graft=adam, precondition_frequency=2.0, max_aspect=1.3)
    zero = jax.tree.map(jnp.zeros_like, at(0, GRADS))

    @quick_jit
    def found(grads):
        (own, state), (lengths, _) = path(rule, grads), path(adam, grads)
        return own, lengths, rule.update(zero, rule.init(zero))[0], state

    own, lengths, still, state = found(GRADS)
    norm = lambda x: np.sqrt(np.sum(np.square(x), axis=(-2, -1)))
    for name in ("w", "t"):
        np.testing.assert_allclose(norm(own[name]), norm(lengths[name]), rtol=1e-5)
        assert not np.allclose(own[name], lengths[name], rtol=0.1)
    assert_same({k: own[k] for k in "bs"}, {k: lengths[k] for k in "bs"})
    assert not any(np.any(u) for u in jax.tree.leaves(still))
    assert state.factors["w"].left is None and state.factors["t"].right is None
    assert jo.shampoo(0.1).inner == jo.shampoo(0.1, graft=GRAFTS[0]).inner
    assert jo.shampoo(0.1, b2=None).inner == jo.shampoo(0.1, b2=None, graft=GRAFTS[1]).inner


GRAFTS = jo.scale_by_rms(0.999, eps_in_sqrt=False, bias_correction=True), jo.scale_by_rss(0.0)


def test_roots_are_computed_where_a_lane_needs_them():
    """Lanes with other frequencies are those of a loop; the decompositions stay a branch, one batch for a stack."""
    grads = {name: GRADS["w"] for name in "xyz"}
    run = lambda every: path(jo.stack_matrices(jo.scale_by_shampoo(0.9, 1e-3, every, 5)), grads)[0]
    every = jnp.array([1.0, 3.0])
    batch, one = quick_jit(jax.vmap(run)), quick_jit(run)
    assert_same(batch(every), jax.tree.map(lambda *u: jnp.stack(u), *[one(n) for n in every]), 1e-4)
    text = str(jax.make_jaxpr(jax.vmap(run))(every))
    assert text.count("cond[") == 1 and text.count("eigh[") == 2, "one branch, and L and R of all three leaves in it"


def test_bad_arguments_are_named():
    for given, words in (({"block_size": 0}, "block_size must be an int"), ({"max_aspect": 1}, "max_aspect must be")):
        with pytest.raises(ValueError, match=words):
            jo.scale_by_shampoo(**given).init(None)
    with pytest.raises(ValueError, match="stack_matrices: the inner rule contains scale_by_trust_ratio"):
        jo.shampoo(0.1, graft=jo.scale_by_trust_ratio()).init({"w": jnp.zeros((2, 2))})
