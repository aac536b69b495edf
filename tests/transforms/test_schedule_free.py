"""Schedule-free learning: what is averaged, and that `fit` and sweeps evaluate the average."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.transforms.rollout import GRADS, PARAMS


def by_the_paper(gamma, beta, grads, z):
    """x, y and z after each gradient, of one number: Eqs. (3) to (5) with equal weights."""
    x = y = z
    for t, g in enumerate(grads, 1):
        z = z - gamma * g
        x = (1 - 1 / t) * x + z / t
        y = (1 - beta) * z + beta * x
    return x, y, z


def test_three_steps_by_the_paper():
    optimizer, params = jo.schedule_free_sgd(0.1, b1=0.75), jnp.array(2.0)
    state = optimizer.init(params)
    for g in (1.0, -3.0, 0.5):
        updates, state = optimizer.update(jnp.array(g), state, params)
        params = params + updates
    x, y, z = by_the_paper(0.1, 0.75, (1.0, -3.0, 0.5), 2.0)
    np.testing.assert_allclose([jo.eval_params(state, params), params, state.z], [x, y, z], rtol=1e-6)


def test_the_first_step_of_a_warm_up_is_not_zero():
    """The k-th step has k / 4 of the rate, then all of it."""
    optimizer, z = jo.schedule_free_sgd(0.4, 4), []
    params, state = jnp.array(0.0), optimizer.init(jnp.array(0.0))
    for _ in range(6):
        _, state = optimizer.update(jnp.array(1.0), state, params)
        z.append(float(state.z))
    np.testing.assert_allclose(-np.diff([0.0, *z]), [0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rtol=1e-5)


def test_without_an_average_params_are_what_is_evaluated():
    state = jo.adam(0.1).init(PARAMS)
    assert jo.eval_params(state, PARAMS) is PARAMS
    two = jo.chain(jo.schedule_free_sgd(0.1), jo.schedule_free_sgd(0.1))
    with pytest.raises(ValueError, match="it holds 2"):
        jo.eval_params(two.init(PARAMS), PARAMS)


def test_the_average_is_found_inside_chains_and_stacks():
    inner = jo.schedule_free_sgd(0.1)
    for optimizer in (jo.chain(jo.clip(1.0), inner), jo.stack_leaves(inner)):
        state = optimizer.init(PARAMS)
        updates, state = optimizer.update(GRADS[0], state, PARAMS)
        params = jo.apply_updates(PARAMS, updates)
        found = jo.eval_params(state, params)
        assert jax.tree.structure(found) == jax.tree.structure(PARAMS)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_fit_and_sweeps_evaluate_the_average():
    """Along a noisy valley the average is far nearer to the minimum than the parameters that are trained."""
    noise = jax.random.normal(jax.random.key(1), (64, 2))
    task = jo.Task(
        init=lambda key: jnp.array([1.0, -2.0]),
        loss=lambda w, batch, key: jnp.sum(w**2) / 2 + jnp.sum(w * batch.mean(0)),
        train=noise - noise.mean(0, keepdims=True),
        valid=jnp.zeros((1, 2)),
        test=jnp.zeros((1, 2)),
        evaluate=lambda w, data: {"distance": jnp.linalg.norm(w)},
    )
    optimizer = jo.schedule_free_sgd(0.5)
    for restore_best in (False, True):
        result = jo.fit(
            task,
            optimizer,
            steps=40,
            batch_size=4,
            eval_every=20,
            restore_best=restore_best,
            metric="valid.distance",
            mode="min",
        )
        averages = jo.eval_params(result.state.opt_state, result.state.params)
        at = jnp.linalg.norm(result.params)
        np.testing.assert_allclose([result.metrics["valid.distance"], result.metrics["test.distance"]], [at, at], 1e-6)
        np.testing.assert_allclose(result.history["valid.distance"][-1], jnp.linalg.norm(averages), 1e-5)
    seeds = jo.fit(task, optimizer, steps=40, batch_size=4, eval_every=40, seeds=2)
    np.testing.assert_allclose(seeds.metrics["test.distance"], jnp.linalg.norm(seeds.params, axis=-1), 1e-5)

    swept = jo.sweep(
        *(lambda config: (task, jo.schedule_free_sgd(config["rate"])), {"rate": jo.uniform(0.3, 0.5)}),
        **dict(trials=2, steps=40, batch_size=4, eval_every=20, metric="valid.distance", mode="min"),
    )
    best = swept.best
    np.testing.assert_allclose(best.score, jnp.linalg.norm(best.params[0]), 1e-5)
    np.testing.assert_allclose(best.metrics["test.distance"], best.score, 1e-5)
