"""Rates that are measured: by hand, and what nothing can be learned from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo


def steps(optimizer, grads, params):
    """The parameters after each gradient."""
    state, path = optimizer.init(params), []
    for g in grads:
        updates, state = optimizer.update(g, state, params)
        params = jo.apply_updates(params, updates)
        path.append(params)
    return path, state


def test_dog_by_hand():
    """r̄ = 0.1 (1 + 5) at first; then the distance travelled. Norms are over both leaves."""
    start = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    grads = [{"a": jnp.array([3.0]), "b": jnp.array([4.0])}, {"a": jnp.array([0.0]), "b": jnp.array([12.0])}]
    path, state = steps(jo.dog(init_step=0.1, eps=1e-30), grads, start)
    np.testing.assert_allclose(path[0]["a"], 3 - 0.6 / 5 * 3, 1e-6)
    np.testing.assert_allclose(path[1]["b"], path[0]["b"] - 0.6 / 13 * 12, 1e-6)
    np.testing.assert_allclose(state[1].max_dist, 0.6, 1e-6)


def test_dowg_by_hand():
    path, _ = steps(jo.dowg(init_estim_sq_dist=0.25, eps=1e-30), [jnp.array([2.0]), jnp.array([1.0])], jnp.array([1.0]))
    first = 0.25 / (0.5 * 2) * 2
    np.testing.assert_allclose(path[0], [1 - first], 1e-6)
    np.testing.assert_allclose(path[1], [1 - first - 0.25 / np.sqrt(0.25 * 4 + 0.25)], 1e-6)


@pytest.mark.parametrize("rule", [jo.prodigy(), jo.dadapt_adamw(), jo.dog(), jo.dowg()], ids=repr)
def test_zero_gradients_move_nothing(rule):
    path, state = steps(rule, [jnp.zeros(2)] * 2, jnp.array([1.0, -2.0]))
    assert path[-1].tolist() == [1.0, -2.0]
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(state))


def test_estimates_reach_the_distance_to_the_solution():
    """On |x - x*| with ‖x*‖ = 30 the estimate d grows from 1e-6 to the order of the distance, and not beyond it."""
    target = jnp.array([24.0, -18.0])
    for rule in (jo.prodigy(), jo.dadapt_adamw(), jo.prodigy(use_bias_correction=False)):

        def step(carry, _, rule=rule):
            w, state = carry
            updates, state = rule.update(jnp.sign(w - target), state, w)
            return (w + updates, state), None

        w = jnp.zeros(2)
        (w, state), _ = jax.lax.scan(step, (w, rule.init(w)), length=400)
        assert 1.0 < state.estim_lr < 60.0, rule
        assert jnp.linalg.norm(w - target) < 15.0, rule


def test_betas_are_two():
    for rule in (jo.prodigy, jo.dadapt_adamw):
        with pytest.raises(ValueError, match="betas must be two decays"):
            rule(betas=[0.9])
        with pytest.raises(ValueError, match=r"betas must be in \[0, 1\)"):
            rule(betas=[0.9, 1.5])
