"""Gradients in float16: a loss that is multiplied before it is differentiated, by a factor that adapts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from experiments import digits
from tests.train.tasks import LINEAR, assert_same, init, loss


def faint(params, batch, key):
    """Its gradient, 1e-8, is zero in float16, whose least number is 6e-8."""
    return 1e-4 * jnp.sum(params["w"] * batch[0])


FAINT, TINY = jo.Task(lambda key: {"w": jnp.ones(3)}, faint, 1e-4 * np.ones((4, 3))), 1e-8 * 3**0.5


def stepped(task, optimizer, batch, **settings):
    return jo.make_step(task, **settings)(jo.init_state(task, optimizer), batch)


def test_float16_with_a_scale_trains_digits_as_float32_does():
    settings = {"steps": 150, "batch_size": 64, "eval_every": 150}
    plain = jo.fit(digits.task(32), jo.adam(5e-3), **settings)
    half = jo.fit(digits.task(32), jo.dynamic_loss_scale(jo.adam(5e-3)), **settings, compute_dtype="float16")
    assert plain.metrics["test.accuracy"] > 0.95
    assert abs(half.metrics["test.accuracy"] - plain.metrics["test.accuracy"]) <= 0.01
    # 2^16 is not finite in float16, and the loss is float16 where the cast of its gradient is.
    state = half.state.opt_state
    assert (state.scale, state.skipped, state.good_steps) == (2**15, 1, 149)
    assert half.history["loss_scale"].tolist() == [2**15]


def test_gradients_that_float16_cannot_hold():
    for optimizer, norm in ((jo.sgd(1.0), 0), (jo.dynamic_loss_scale(jo.sgd(1.0), 2.0**15), TINY)):
        for pieces in (1, 2):
            _, metrics = stepped(FAINT, optimizer, FAINT.train, compute_dtype="float16", accumulate=pieces)
            np.testing.assert_allclose([metrics["grad_norm"], metrics["update_norm"]], norm, rtol=2e-3)
            np.testing.assert_allclose(metrics["loss"], 3e-8, atol=6e-8)


def test_a_sweep_and_seeds_scale_the_loss():
    settings = {"steps": 2, "batch_size": None, "eval_every": 2, "seeds": 2, "compute_dtype": "float16"}
    rule = lambda scale: jo.dynamic_loss_scale(jo.sgd(1e6), scale)
    space = {"scale": jo.uniform(2.0**13, 2.0**15)}  # traced
    swept = jo.sweep(lambda config: (FAINT, rule(config["scale"])), space, 2, **settings)
    np.testing.assert_allclose(1 - swept.best.params["w"], 0.02, rtol=2e-3)
    trained = jo.fit(FAINT, rule(2.0**15), **settings)
    np.testing.assert_allclose(trained.history["grad_norm"], TINY, rtol=2e-3)
    np.testing.assert_allclose(trained.history["update_norm"], 1e6 * TINY, rtol=2e-3)


def test_where_gradients_are_exact_a_scale_changes_nothing():
    """Powers of two do not round: the inner rule sees gradient, value, and value_fn of the loss itself."""
    inner = jo.chain(jo.clip_by_global_norm(0.1), jo.polyak_sgd(0.5), jo.add_decayed_weights(0.1), jo.ema_params(0.9))
    batch = jax.tree.map(lambda x: x[:4], LINEAR.train)
    plain, metrics = stepped(LINEAR, inner, batch)
    scaled, others = stepped(LINEAR, jo.dynamic_loss_scale(inner), batch)
    assert_same(scaled.params, plain.params, rtol=1e-6)
    assert_same({name: others[name] for name in metrics}, metrics, rtol=1e-6)
    f = lambda w: jnp.sum((w - 3) ** 2)
    solved, other = (
        jo.minimize(f, jnp.zeros(2), jo.dynamic_loss_scale(jo.sgd(0.1)) if s else jo.sgd(0.1)) for s in (0, 1)
    )
    assert_same((other.params, other.grad_norm), (solved.params, solved.grad_norm), rtol=1e-6)


def test_the_scale_by_hand():
    rule = jo.dynamic_loss_scale(jo.trace(0.5), 8.0, growth_interval=2, min_scale=3.0)
    params, good, bad = jnp.ones(2), jnp.array([8.0, 16.0]), jnp.array([jnp.inf, 1.0])
    state, seen = rule.init(params), []
    for g in (good, good, bad, good, bad, bad, bad):
        before = state
        updates, state = rule.update(g, state, params, loss_scale=8.0)  # what it is told counts
        seen.append((float(state.scale), int(state.good_steps), int(state.skipped)))
        if g is bad:
            assert not updates.any()
            assert_same(state.inner_state, before.inner_state)
    assert seen == [(8, 1, 0), (16, 0, 0), (8, 0, 1), (8, 1, 1), (4, 0, 2), (3, 0, 3), (3, 0, 4)]
    np.testing.assert_allclose(state.inner_state.trace, jnp.array([1.75, 3.5]))
    largest = jo.dynamic_loss_scale(jo.identity(), 2.0**127, growth_interval=1)
    assert largest.update(good, largest.init(params), loss_scale=1.0)[1].scale == 2.0**127


@pytest.mark.parametrize(
    "wrap",
    [
        lambda rule: jo.chain(jo.clip_by_global_norm(1.0), rule),
        lambda rule: jo.accumulate(rule, 4),
        lambda rule: jo.dynamic_loss_scale(rule),
        lambda rule: jo.masked(rule, True),
        lambda rule: jo.stack_leaves(rule),
    ],
)
def test_a_rule_around_the_scale_is_refused(wrap):
    optimizer = wrap(jo.dynamic_loss_scale(jo.sgd(0.1)))
    with pytest.raises(
        ValueError, match=r"dynamic_loss_scale must be the outermost rule.*write dynamic_loss_scale\(ch"
    ):
        stepped(LINEAR, optimizer, jax.tree.map(lambda x: x[:4], LINEAR.train))


def test_a_gradient_of_unknown_scale_is_refused():
    rule = jo.dynamic_loss_scale(jo.sgd(0.1))
    params = init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"needs loss_scale, got None; call update\(grads.*loss_scale=\.\.\.\)"):
        rule.update(jax.grad(loss)(params, LINEAR.train, None), rule.init(params), params)
    with pytest.raises(ValueError, match="growth_factor"):
        jo.dynamic_loss_scale(jo.sgd(0.1), growth_factor=0.5)
