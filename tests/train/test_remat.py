"""A loss that is computed again in the backward pass: the same numbers, and less that is kept for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.train.remat import POLICIES, recomputing
from jaxopt_lite.train.step import StepParts
from jaxopt_lite.train.task import loss_of
from tests.quick import quick_jit
from tests.train.tasks import LINEAR, STATEFUL, TRAIN, assert_same

LAYERS, WIDTH, EXAMPLES = 8, 16, 256
WEIGHTS = jax.random.normal(jax.random.key(0), (LAYERS, WIDTH, WIDTH)) / 4
X = jax.random.normal(jax.random.key(1), (EXAMPLES, WIDTH))
LAYER = X.nbytes  # bytes of what passes from layer to layer


def layer(x, w):
    """A residual block whose gradient needs many results."""
    h = x - x.mean(axis=-1, keepdims=True)
    h = h * jax.lax.rsqrt((h**2).mean(axis=-1, keepdims=True) + 1e-3)
    return x + jax.nn.gelu(h @ w)


def with_dropout(x, w, key):
    return layer(x, w) * jax.random.bernoulli(key, 0.9, x.shape)


def scanned(weights, batch, key):
    keys = jax.random.split(key, LAYERS)
    body = lambda x, layer: (with_dropout(x, *layer), None)
    return jnp.mean(jax.lax.scan(body, batch, (weights, keys))[0] ** 2)


def unrolled(weights, batch, key):
    for w, own in zip(weights, jax.random.split(key, LAYERS), strict=True):
        batch = with_dropout(batch, w, own)
    return jnp.mean(batch**2), {"last": batch[0, 0]}


@jax.jit
def jitted(weights, batch, key):
    """A model that is one operation of the loss."""
    return unrolled(weights, batch, key)


def kept(loss, weights) -> int:
    """Bytes that the backward pass of a loss is handed by the forward pass, whatever the compiler does then."""
    pull = lambda weights: jax.vjp(lambda w: loss(w, None, X, jax.random.key(2))[0], weights)[1]
    return sum(leaf.size * 4 for leaf in jax.tree.leaves(jax.eval_shape(pull, weights)) if leaf.ndim)


@pytest.mark.parametrize("loss, weights", [(scanned, WEIGHTS), (jitted, list(WEIGHTS))])
def test_the_gradient_is_the_same_and_needs_less(loss, weights):
    task = jo.Task(lambda key: weights, loss)
    arguments = weights, None, X, jax.random.key(2)
    forms = loss_of(task), recomputing(loss_of(task), "nothing_saveable")
    plain, again = (quick_jit(jax.value_and_grad(form, has_aux=True))(*arguments) for form in forms)
    assert_same(again, plain, rtol=1e-5, atol=1e-6)

    whole = kept(loss_of(task), weights)
    found = {policy: kept(recomputing(loss_of(task), policy), weights) for policy in POLICIES}
    size = WEIGHTS.nbytes + LAYERS * LAYER
    assert whole > 5 * size
    assert found["nothing_saveable"] < 1.5 * size < found["dots_saveable"] < 2.5 * size


def test_the_compiled_program_needs_less_memory():
    """Where the layers are a scan. On CPU, XLA merges what is computed twice if there is no loop around it."""
    task = jo.Task(lambda key: WEIGHTS, scanned)
    state = jo.init_state(task, jo.sgd(0.1))
    memory = [
        jo.make_step(task, **settings).lower(state, X).compile().memory_analysis().temp_size_in_bytes
        for settings in ({}, {"remat": True})
    ]
    assert memory[1] < 0.35 * memory[0]


def test_seeds_pieces_and_16_bits_are_computed_again():
    states = jax.vmap(lambda seed: jo.init_state(STATEFUL, jo.sgd(0.1), seed))(jnp.arange(2))
    batch = jax.tree.map(lambda x: x[:5], STATEFUL.train)

    def found(policy):
        parts = StepParts(STATEFUL, "bfloat16", 2, policy)
        of_one = lambda state: parts.objective(state, batch).value_and_grad(state.params)
        return quick_jit(jax.vmap(of_one))(states)

    assert_same(found("dots_saveable"), found(None), rtol=1e-2)


def test_what_is_not_an_array_of_floats_passes():
    """Ints, keys, constants, a custom derivative, results that are arguments or not used, a print."""

    @jax.custom_vjp
    def halved(x):
        return x / 2

    halved.defvjp(lambda x: (x / 2, None), lambda _, g: (g,))  # not the derivative

    def odd(params, batch, key):
        index = jnp.argmax(jax.lax.top_k(batch, 4)[0])
        key, other = jax.random.split(key)
        jax.debug.callback(lambda: None)
        scale = jnp.where(index == 0, 2.0, 1.0) * jnp.asarray(TRAIN["x"][0, 0])
        return halved(params * scale) + jax.random.uniform(other), {"params": params, "one": 1.0, "index": index}

    arguments = jnp.float32(3), None, jnp.arange(5.0), jax.random.key(0)
    loss = loss_of(jo.Task(lambda key: 0.0, odd))
    plain, again = (jax.value_and_grad(f, has_aux=True)(*arguments) for f in (loss, recomputing(loss, POLICIES[0])))
    assert_same(again, plain, rtol=1e-6)
    np.testing.assert_allclose(again[1], 2 * TRAIN["x"][0, 0], rtol=1e-6)


@pytest.mark.parametrize(
    "call, words",
    [
        (
            functools.partial(jo.fit, LINEAR, jo.sgd(0.1), 2, 4, remat="all"),
            "fit: remat must be True, False, or one of",
        ),
        (functools.partial(jo.make_step, LINEAR, remat=None), "make_step: remat must be True, .* got None"),
        (
            functools.partial(jo.fit, LINEAR, jo.solvers.lbfgs(), 2, None, remat=True),
            "remat='nothing_saveable': lbfgs is a solver",
        ),
    ],
)
def test_what_is_no_policy_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
