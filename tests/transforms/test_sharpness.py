"""SAM by hand and by law, and in every loop that has the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jaxopt_lite as jo

CURVATURE = jnp.array([1.0, 4.0])


def quadratic(w, batch=None, key=None):
    return 0.5 * jnp.sum(CURVATURE * w**2)


def gradient_of(optimizer, w, value_fn=quadratic):
    """The gradient that the inner rule saw: it is plain descent with the rate 1."""
    updates, _ = optimizer.update(jax.grad(value_fn)(w), optimizer.init(w), w, value_fn=value_fn)
    return -updates


def test_a_step_by_hand():
    """g = [3, 4], so the worst point is w + 0.5 [0.6, 0.8]; with units T = [3, 2], T g = [9, 8] and T² g = [27, 16]."""
    w = jnp.array([3.0, 1.0])
    np.testing.assert_allclose(gradient_of(jo.sam(jo.sgd(1.0), 0.5), w), [3.3, 4 * 1.4], rtol=1e-6)
    w, norm = jnp.array([3.0, -1.0]), np.sqrt(12.0**2 + 8.0**2)  # T = |w| + 1 = [4, 2], g = [3, -4], T g = [12, -8]
    there = np.array([3 + 0.5 * 4 * 12 / norm, -1 - 0.5 * 2 * 8 / norm])
    adaptive = jo.sam(jo.sgd(1.0), 0.5, adaptive=True, eta=1.0)
    np.testing.assert_allclose(gradient_of(adaptive, w), np.asarray(CURVATURE) * there, rtol=1e-6)


def test_laws():
    """ρ = 0 is the inner rule; nothing is divided by a gradient of zero; units cancel in the adaptive form."""
    w, inner = jnp.array([3.0, -1.0]), jo.adamw(0.1)
    updates, _ = inner.update(jax.grad(quadratic)(w), inner.init(w), w)
    np.testing.assert_array_equal(-gradient_of(jo.sam(inner, 0.0), w), updates)
    assert (gradient_of(jo.sam(jo.sgd(1.0)), jnp.zeros(2)) == 0).all()

    unit = jnp.array([100.0, 0.01])  # of each coordinate: the loss of w / unit is the same loss in other units
    rescaled = lambda x: quadratic(x / unit)
    for optimizer, same in (
        (jo.sam(jo.sgd(1.0), 0.3, adaptive=True, eta=0.0), True),
        (jo.sam(jo.sgd(1.0), 0.3), False),
    ):
        found = gradient_of(optimizer, unit * w, rescaled) * unit
        assert np.allclose(found, gradient_of(optimizer, w), rtol=1e-5) == same


def test_of_complex_parameters_the_direction_is_that_of_ascent():
    f = lambda w: jnp.sum(jnp.abs(w) ** 2)
    w = jnp.array([3.0 + 4.0j])
    updates, _ = jo.sam(jo.sgd(1.0), 0.5).update(2 * w, jo.sam(jo.sgd(1.0)).init(w), w, value_fn=f)
    np.testing.assert_allclose(updates, -2 * w * 1.1, rtol=1e-6)


DATA = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)


def noisy(w, batch, key):
    """A loss of which batch and key matter."""
    return jnp.mean(jnp.cosh(batch @ w - 1.0)) + jnp.sum(jnp.sin(w)) * (jax.random.key_data(key)[-1] % 7)


def test_fit_takes_both_gradients_at_one_batch_with_one_key():
    """The steps written out, in `fit`, against a sweep over ρ."""
    rho, task = 0.2, jo.Task(lambda key: jnp.array([0.3, -0.2]), noisy, train=DATA)

    @jo.transformation
    def written_out():
        def update(grads, state, params=None, *, value_fn, **extra):
            worst = params + rho * grads / jnp.linalg.norm(grads)
            return -0.1 * jax.grad(value_fn)(worst), state

        return lambda params: (), update

    settings = dict(steps=6, eval_every=3, batch_size=8)
    wanted = jo.fit(task, written_out(), **settings).metrics["train.loss"]
    trial = lambda config: (task, jo.sam(jo.sgd(0.1), config["rho"]))
    swept = jo.sweep(trial, {"rho": jo.choice([0.0, rho])}, sampler=jo.grid(), metric="train.loss", **settings)
    losses = {t.config["rho"]: t.metrics["train.loss"] for t in swept.trials}
    assert len(losses) == 2 and losses[rho] == pytest.approx(wanted, rel=1e-5) != losses[0.0]


def test_parameters_of_16_bits_stay_so():
    w, optimizer = jnp.array([0.3, -0.2], jnp.bfloat16), jo.sam(jo.adamw(0.1))
    step = lambda g, s, w: optimizer.update(g, s, w, value_fn=quadratic)
    updates, state = jax.eval_shape(step, w, optimizer.init(w), w)
    assert updates.dtype == jnp.bfloat16 and state.inner_state[0].mu.dtype == jnp.float32


def test_minimize_gives_the_function():
    w, rho = np.array([3.0, -1.0]), 0.3
    found = jo.minimize(quadratic, jnp.asarray(w), jo.sam(jo.sgd(0.1), rho), max_steps=5).params
    for _ in range(4):  # the fifth step only evaluates
        g = np.asarray(CURVATURE) * w
        w = w - 0.1 * np.asarray(CURVATURE) * (w + rho * g / np.linalg.norm(g))
    np.testing.assert_allclose(found, w, rtol=1e-5)


def test_what_cannot_work_is_refused():
    w = {"a": jnp.ones(2), "b": jnp.ones(2)}
    hidden = jo.masked(jo.sam(jo.sgd(0.1)), {"a": True, "b": False})
    with pytest.raises(ValueError, match=r"sam must see all parameters: put it around"):
        hidden.update(w, hidden.init(w), w, value_fn=lambda p: 0.0)
    with pytest.raises(ValueError, match="sam needs value_fn, got None"):
        jo.sam(jo.sgd(0.1)).update(w, jo.sam(jo.sgd(0.1)).init(w), w)
    with pytest.raises(ValueError, match="rho must be at least 0"):
        jo.sam(jo.sgd(0.1), -0.1)
    with pytest.raises(ValueError, match="the inner rule contains sam"):
        jo.stack_leaves(jo.sam(jo.sgd(0.1)))


def test_those_of_optax_that_want_the_loss_are_given_it():
    """Sophia, and SAM with both steps in one: lifted, `minimize` gives them what they call by other names."""
    w = jnp.array([3.0, 1.0])
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.5))
    theirs = jo.lift(optax.contrib.sam)(jo.sgd(0.1), adversary, opaque_mode=True)
    ends = [jo.minimize(quadratic, w, o, max_steps=4).params for o in (theirs, jo.sam(jo.sgd(0.1), 0.5))]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-5)
    sophia = jo.lift(optax.contrib.sophia)(0.2, gamma=1.0, update_interval=1)
    assert quadratic(jo.minimize(quadratic, w, sophia, max_steps=60).params) < 0.1
