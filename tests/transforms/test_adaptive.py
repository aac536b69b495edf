import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo

from .rollout import GRADS, PARAMS, scalars, updates


def test_adagrad_by_hand():
    s1, s2 = 0.3 + 1, 0.3 + 1 + 4
    expected = [1 / np.sqrt(s1 + 0.5), -2 / np.sqrt(s2 + 0.5)]
    np.testing.assert_allclose(scalars(jo.scale_by_rss(0.3, eps=0.5), 1, -2), expected, rtol=1e-6)


def test_adagrad_s_steps_shrink_like_one_over_the_root_of_time():
    steps = np.arange(1, 6)
    np.testing.assert_allclose(scalars(jo.scale_by_rss(0.0, 0.0), *[7.0] * 5), 1 / np.sqrt(steps), rtol=1e-6)


def test_adagrad_of_no_gradient_yet_is_zero():
    assert scalars(jo.scale_by_rss(0.0, 0.0), 0, 0) == [0, 0]


@pytest.mark.parametrize(
    "rule",
    [jo.scale_by_rss(0.0), jo.scale_by_rms(), jo.scale_by_stddev(), jo.scale_by_adadelta(), jo.scale_by_novograd()],
    ids=lambda rule: rule.factory.__name__,
)
def test_no_rule_hides_a_gradient_that_is_not_a_number(rule):
    assert np.isnan(scalars(rule, 1, np.nan)[1]) and np.isnan(scalars(rule, np.nan)[0])


def test_rmsprop_with_epsilon_inside_and_outside_of_the_root():
    v1 = 0.8 * 0.5 + 0.2 * 1
    v2 = 0.8 * v1 + 0.2 * 4
    inside = [1 / np.sqrt(v1 + 0.1), -2 / np.sqrt(v2 + 0.1)]
    outside = [1 / (np.sqrt(v1) + 0.1), -2 / (np.sqrt(v2) + 0.1)]
    np.testing.assert_allclose(scalars(jo.scale_by_rms(0.8, 0.1, 0.5), 1, -2), inside, rtol=1e-6)
    np.testing.assert_allclose(scalars(jo.scale_by_rms(0.8, 0.1, 0.5, eps_in_sqrt=False), 1, -2), outside, rtol=1e-6)


def test_rmsprop_corrected_for_its_start_begins_with_the_sign():
    for rule in (jo.scale_by_rms(0.9, 0.0, bias_correction=True), jo.scale_by_rms(0.0, 0.0)):
        np.testing.assert_allclose(scalars(rule, -3.0)[0], -1, rtol=1e-6)
    v2 = (0.8 * 0.2 * 1 + 0.2 * 4) / (1 - 0.8**2)
    corrected = scalars(jo.scale_by_rms(0.8, 0.1, bias_correction=True), 1, -2)
    np.testing.assert_allclose(corrected, [1 / np.sqrt(1.1), -2 / np.sqrt(v2 + 0.1)], rtol=1e-6)


def moments(decay, start, *grads):
    m, v = 0.0, start
    for g in grads:
        m, v = decay * m + (1 - decay) * g, decay * v + (1 - decay) * g * g
    return m, v


def test_centred_rmsprop_divides_by_the_standard_deviation():
    m, v = moments(0.8, 0.5, 1, -2)
    inside = scalars(jo.scale_by_stddev(0.8, 0.1, 0.5), 1, -2)[1]
    outside = scalars(jo.scale_by_stddev(0.8, 0.1, 0.5, eps_in_sqrt=False), 1, -2)[1]
    np.testing.assert_allclose(inside, -2 / np.sqrt(v - m**2 + 0.1), rtol=1e-6)
    np.testing.assert_allclose(outside, -2 / (np.sqrt(v - m**2) + 0.1), rtol=1e-6)


def test_centred_rmsprop_corrected_for_its_start():
    m, v = (x / (1 - 0.8**2) for x in moments(0.8, 0.0, 1, -2))
    corrected = scalars(jo.scale_by_stddev(0.8, 0.1, bias_correction=True), 1, -2)[1]
    np.testing.assert_allclose(corrected, -2 / np.sqrt(v - m**2 + 0.1), rtol=1e-6)


def test_a_constant_gradient_has_no_variance_and_rounding_makes_it_no_less():
    # Here v - m² is rounded to -1e-8: the root would not be a number.
    for g in (0.1, 0.3, 0.7, 1e3):
        found = scalars(jo.scale_by_stddev(0.9, 1e-4, bias_correction=True), *[g] * 20)
        assert np.isfinite(found).all() and min(found) > 0


def test_adadelta_by_hand():
    v, e, expected = 0.0, 0.0, []
    for g in (1, -2, 0.5):
        v = 0.8 * v + 0.2 * g * g
        expected.append(np.sqrt(e + 0.1) / np.sqrt(v + 0.1) * g)
        e = 0.8 * e + 0.2 * expected[-1] ** 2
    np.testing.assert_allclose(scalars(jo.scale_by_adadelta(0.8, 0.1), 1, -2, 0.5), expected, rtol=1e-6)


def test_novograd_by_hand():
    g1, g2, w = np.array([3.0, 4.0]), np.array([-1.0, 2.0]), np.array([1.0, -1.0])
    rule = jo.scale_by_novograd(b1=0.8, b2=0.6, eps=0.1, eps_root=0.5, weight_decay=0.3)
    m1 = g1 / (np.sqrt(25 + 0.5) + 0.1) + 0.3 * w  # v begins at the first ‖g‖²
    m2 = 0.8 * m1 + g2 / (np.sqrt(0.6 * 25 + 0.4 * 5 + 0.5) + 0.1) + 0.3 * w
    found, state = updates(rule, [jnp.array(g1), jnp.array(g2)], jnp.array(w))
    np.testing.assert_allclose(found, [m1, m2], rtol=1e-6)
    assert state.nu.shape == () and state.count == 2


def test_novograd_stores_its_mean_in_the_dtype_that_was_asked_for():
    _, state = updates(jo.scale_by_novograd(mu_dtype="bfloat16"), GRADS, PARAMS)
    assert state.mu["w"].dtype == jnp.bfloat16 and state.nu["w"].dtype == jnp.float32


def test_rprop_by_hand():
    # The sign stays: longer. It changes: shorter, and no step. After that there is no sign to compare with.
    rule = jo.scale_by_rprop(0.1, eta_minus=0.5, eta_plus=1.2)
    np.testing.assert_allclose(scalars(rule, 3, 1, -9, -2, -2), [0.1, 0.12, 0, -0.06, -0.072], rtol=1e-6)


def test_rprop_s_steps_stay_within_their_bounds():
    rule = jo.scale_by_rprop(0.1, 0.5, 2.0, min_step_size=0.04, max_step_size=0.3)
    assert max(scalars(rule, 1, 1, 1, 1)) == pytest.approx(0.3)
    np.testing.assert_allclose(scalars(rule, 1, -1, 1, -1, 1, -1, 1)[::2], [0.1, 0.05, 0.04, 0.04], rtol=1e-6)


def test_rprop_waits_where_there_is_no_gradient():
    np.testing.assert_allclose(scalars(jo.scale_by_rprop(0.1), 1, 0, 1, 1), [0.1, 0, 0.1, 0.12], rtol=1e-6)


@pytest.mark.parametrize(
    "rule",
    [
        jo.scale_by_rss(0.0, 0.0),
        jo.scale_by_rms(0.8, 0.0),
        jo.scale_by_stddev(0.8, 0.0),
        jo.scale_by_novograd(0.8, 0.6, 0.0),
        jo.scale_by_rprop(0.1),
    ],
    ids=lambda rule: rule.factory.__name__,
)
def test_without_epsilon_the_unit_of_the_loss_does_not_matter(rule):
    grads = jax.tree.map(lambda g: g[:2] if g.ndim else g, GRADS)  # without the coordinate that is always zero
    small, large = (updates(rule, jax.tree.map(lambda g, c=c: c * g, grads))[0] for c in (1e-3, 1e3))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), small, large)


def test_second_moments_of_complex_gradients_are_those_of_the_absolute_value():
    z = jnp.array([3 + 4j])
    for rule, size in ((jo.scale_by_rss(0.0, 0.0), 5), (jo.scale_by_rms(0.0, 0.0), 5), (jo.scale_by_novograd(0, 0), 5)):
        (found,), _ = updates(rule, [z], jnp.ones(1, complex))
        np.testing.assert_allclose(found, (3 + 4j) / size, rtol=1e-6)
