import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo

from .rollout import GRADS, PARAMS, scalars, updates


def test_the_heavy_ball_by_hand():
    np.testing.assert_allclose(scalars(jo.trace(0.8), 1, -2, 0.5), [1, 0.8 - 2, 0.8 * (0.8 - 2) + 0.5], rtol=1e-6)


def test_nesterov_looks_ahead_along_the_velocity():
    velocity = scalars(jo.trace(0.8), 1, -2, 0.5)
    ahead = [g + 0.8 * v for g, v in zip((1, -2, 0.5), velocity, strict=True)]
    np.testing.assert_allclose(scalars(jo.trace(0.8, nesterov=True), 1, -2, 0.5), ahead, rtol=1e-6)


def test_without_friction_a_constant_gradient_grows_to_its_geometric_series():
    np.testing.assert_allclose(scalars(jo.trace(0.5), *[3.0] * 30)[-1], 3 / (1 - 0.5), rtol=1e-6)


def test_a_decay_of_zero_is_no_memory():
    for rule in (jo.trace(0.0), jo.trace(0.0, nesterov=True), jo.ema(0.0), jo.ema(0.0, debias=False)):
        found, _ = updates(rule, GRADS)
        jax.tree.map(np.testing.assert_array_equal, found, list(GRADS))


def test_the_average_by_hand():
    v1, v2 = 0.2 * 1, 0.8 * 0.2 * 1 + 0.2 * -2
    np.testing.assert_allclose(scalars(jo.ema(0.8, debias=False), 1, -2), [v1, v2], rtol=1e-6)
    np.testing.assert_allclose(scalars(jo.ema(0.8), 1, -2), [v1 / 0.2, v2 / (1 - 0.8**2)], rtol=1e-6)


def test_a_debiased_average_of_a_constant_is_the_constant_from_the_first_step_on():
    np.testing.assert_allclose(scalars(jo.ema(0.999), *[3.0] * 5), 3.0, rtol=1e-4)  # 1 - βᵗ loses digits


def test_averaged_and_summed_momentum_are_the_same_path_at_another_pace():
    averaged, summed = scalars(jo.ema(0.8, debias=False), 1, -2, 0.5), scalars(jo.trace(0.8), 1, -2, 0.5)
    np.testing.assert_allclose(averaged, np.multiply(0.2, summed), rtol=1e-6)


@pytest.mark.parametrize(
    "rule",
    [
        jo.trace(0.9, accumulator_dtype="bfloat16"),
        jo.ema(0.9, accumulator_dtype="bfloat16"),
        jo.scale_by_lion(mu_dtype="bfloat16"),
    ],
    ids=lambda rule: rule.factory.__name__,
)
def test_the_velocity_is_stored_in_the_dtype_that_was_asked_for(rule):
    found, state = updates(rule, GRADS)
    velocity = getattr(state, "trace", None) or getattr(state, "ema", None) or state.mu
    assert {x.dtype.name for x in jax.tree.leaves(velocity)} == {"bfloat16"}
    assert {x.dtype.name for x in jax.tree.leaves(found)} == {"float32"}


def test_signs():
    assert scalars(jo.scale_by_sign(), 3, -1e-30, 0) == [1, -1, 0]
    z, _ = jo.scale_by_sign().update(jnp.array([3 + 4j, 0]), jo.scale_by_sign().init(jnp.zeros(2, complex)))
    np.testing.assert_allclose(z, [0.6 + 0.8j, 0], rtol=1e-6)


def test_lion_by_hand():
    # Two weights: b1 of the momentum in the step, b2 of the momentum in itself.
    assert scalars(jo.scale_by_lion(b1=0.9, b2=0.99), 1, -0.5) == [1, -1]  # 0.9 (0.01) - 0.1 (0.5) < 0
    assert scalars(jo.scale_by_lion(b1=0.9, b2=0.5), 1, -0.5) == [1, 1]  # 0.9 (0.5) - 0.1 (0.5) > 0
    assert scalars(jo.scale_by_lion(b1=0.1, b2=0.5), 1, -0.5) == [1, -1]  # 0.1 (0.5) - 0.9 (0.5) < 0


def test_the_softer_forms_of_lion():
    combined = [0.1 * 1, 0.9 * 0.5 * 1 + 0.1 * -30]
    smooth = scalars(jo.scale_by_lion(0.9, 0.5, mode="smooth", smooth_beta=2.0), 1, -30)
    np.testing.assert_allclose(smooth, np.tanh(np.multiply(2, combined)), rtol=1e-6)
    refined = scalars(jo.scale_by_lion(0.9, 0.5, mode="refined"), 1, -30)
    np.testing.assert_allclose(refined, [combined[0], -1], rtol=1e-6)


@pytest.mark.parametrize("rule", [jo.scale_by_sign(), jo.scale_by_lion()], ids=str)
def test_only_the_direction_of_the_gradient_counts(rule):
    small, large = (updates(rule, jax.tree.map(lambda g, c=c: c * g, GRADS), PARAMS)[0] for c in (1e-6, 1e6))
    jax.tree.map(np.testing.assert_array_equal, small, large)
