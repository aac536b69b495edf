"""Rules that need the value, its function or the loss's scale: the contract of the others, with them at each step."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from tests.contract.table import FED, GRADS, PARAMS, assert_close, at, family, stack
from tests.contract.test_compiled import check_members
from tests.quick import quick_jit

# Pairs whose means are 1, 0.86, 0.9, 1, 1, 1.
VALUES = jnp.array([1.1, 0.9, 0.9, 0.82, 0.95, 0.85, 1.0, 1.0, 1.2, 0.8, 1.0, 1.0])


def bowl(params):
    return sum(jnp.sum(jnp.cosh(p)) for p in jax.tree.leaves(params))


TWICE = jax.tree.map(lambda g: jnp.concatenate([g, g]), GRADS)


def fed(optimizer, value):
    """What the rule needs: the value, or a scale of the loss, zero at one step for a gradient that is not finite."""
    is_scale = optimizer.factory is jo.dynamic_loss_scale
    return {"loss_scale": jnp.where(value > 0.81, value, 0)} if is_scale else {"value": value, "value_fn": bowl}


def scan(optimizer, params=PARAMS, grads=TWICE, values=VALUES):
    def step(carry, inputs):
        g, value = inputs
        updates, state = optimizer.update(g, carry[1], carry[0], **fed(optimizer, value))
        return (jo.apply_updates(carry[0], updates), state), updates

    (params, state), path = jax.lax.scan(step, (params, optimizer.init(params)), (grads, values))
    return path, params, state


def run(optimizer, values=VALUES):
    params, state, path = PARAMS, optimizer.init(PARAMS), []
    for t, value in enumerate(values):
        updates, state = optimizer.update(at(t % 6), state, params, **fed(optimizer, value))
        params = jo.apply_updates(params, updates)
        path.append(updates)
    return jax.tree.map(lambda *u: jnp.stack(u), *path), params, state


@pytest.mark.parametrize("name", FED)
def test_fed_rules_keep_the_contract(name):
    """jit equals no jit, a batch over every leaf equals a loop, each leaf matters; text, pickle, a clear error."""
    optimizer = FED[name]
    assert jo.parse(repr(optimizer)) == optimizer == pickle.loads(pickle.dumps(optimizer))
    compiled, members = quick_jit(scan), family(optimizer)
    loop = [compiled(member) for member in members]
    assert_close(loop[0], run(optimizer), 2e-5, "jit against no jit")
    check_members(name, optimizer, loop, quick_jit(jax.vmap(scan))(stack(members)))
    with pytest.raises(ValueError, match=r"needs (value|value_fn|loss_scale), got None"):
        optimizer.update(at(0), optimizer.init(PARAMS), PARAMS)


def test_against_optax():
    values = [1.0, 0.9, 0.91, 0.9, 0.5, 0.6, 0.55, 0.7, 0.4, 0.4, 0.41, 0.4]
    plateau = dict(factor=0.5, patience=2, rtol=0.01, cooldown=1, accumulation_size=1, min_scale=0.2)
    pairs = [
        (jo.reduce_on_plateau(**plateau), optax.contrib.reduce_on_plateau(**plateau)),
        (jo.polyak_sgd(0.3, f_min=0.2), optax.polyak_sgd(0.3, f_min=0.2)),
        (jo.polyak_sgd(0.3, f_min=0.6, variant="sps+"), optax.polyak_sgd(0.3, f_min=0.6, variant="sps+")),
    ]
    for ours, theirs in pairs:
        mine, other = ours.init(PARAMS), theirs.init(PARAMS)
        for t, value in enumerate(values):
            g = at(t % 6)
            a, mine = ours.update(g, mine, PARAMS, value=value)
            b, other = theirs.update(g, other, PARAMS, value=jnp.float32(value))
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, b)


def test_fit_feeds_the_value():
    task = jo.Task(lambda key: jnp.array([3.0, -1.0]), lambda w, batch, key: jnp.sum(w**2))
    polyak = jo.fit(task, jo.polyak_sgd(), steps=30, eval_every=10)
    assert polyak.metrics["train.loss"] < 1e-4
    stuck = jo.chain(jo.sgd(0.0), jo.reduce_on_plateau(0.5, 2))
    assert jo.fit(task, stuck, steps=9, eval_every=9).state.opt_state[1].scale < 0.1


def test_hypergradients_by_hand():
    """The rate grows along a slope, and shrinks when the gradient turns."""
    for form, rates in (("additive", [0.1, 0.5, 0.1]), ("multiplicative", [0.1, 0.12, 0.096])):
        optimizer = jo.hypergradient(jo.identity(), 0.1, 0.1 if form == "additive" else 0.2, form=form)
        state = optimizer.init(jnp.zeros(1))
        for g, rate in zip((2.0, 2.0, -2.0), rates, strict=True):
            updates, state = optimizer.update(jnp.array([g]), state, jnp.zeros(1))
            np.testing.assert_allclose(updates, [-rate * g], rtol=1e-5)


def test_bad_tolerances():
    with pytest.raises(ValueError, match="rtol or atol must be above 0"):
        jo.reduce_on_plateau(rtol=0.0)
    with pytest.raises(ValueError, match=r"factor must be in \(0, 1\)"):
        jo.reduce_on_plateau(1.0)
