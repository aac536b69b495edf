import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo

from .rollout import GRADS, PARAMS, scalars, updates

B1, B2, EPS, ROOT = 0.8, 0.9, 0.1, 0.2  # far from their defaults, so that each of them shows
G = (1.0, -2.0, 0.5)


def moments(grads, b1=B1, b2=B2):
    """(t, g, m, v) after each gradient, not corrected."""
    m = v = 0.0
    for t, g in enumerate(grads, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        yield t, g, m, v


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)


def test_adam_by_hand():
    expected = [m / (1 - B1**t) / (np.sqrt(v / (1 - B2**t) + ROOT) + EPS) for t, g, m, v in moments(G)]
    close(scalars(jo.scale_by_adam(B1, B2, EPS, ROOT), *G), expected)


def test_nadam_by_hand():
    expected = [
        (B1 * m / (1 - B1 ** (t + 1)) + (1 - B1) * g / (1 - B1**t)) / (np.sqrt(v / (1 - B2**t)) + EPS)
        for t, g, m, v in moments(G)
    ]
    close(scalars(jo.scale_by_adam(B1, B2, EPS, nesterov=True), *G), expected)


@pytest.mark.parametrize("form", ["optax", "torch"])
@pytest.mark.parametrize("correct_mu", [True, False])
@pytest.mark.parametrize("correct_nu", [True, False])
def test_amsgrad_by_hand(form, correct_mu, correct_nu):
    grads, largest, expected = (3.0, -1.0, 0.5), 0.0, []
    for t, _, m, v in moments(grads):
        m_hat = m / (1 - B1**t) if correct_mu else m
        correction = 1 - B2**t if correct_nu else 1
        # Optax takes the largest of the corrected averages, PyTorch corrects the largest of the averages.
        largest = max(largest, v / correction if form == "optax" else v)
        expected.append(m_hat / (np.sqrt((largest if form == "optax" else largest / correction) + ROOT) + EPS))
    rule = jo.scale_by_amsgrad(B1, B2, EPS, ROOT, None, correct_mu, correct_nu, form=form)
    close(scalars(rule, *grads), expected)


def test_amsgrad_s_denominator_never_shrinks():
    # After one large gradient Adam forgets, and makes steps of full length again; AMSGrad does not.
    grads = [100.0] + [1.0] * 25
    adam, amsgrad = (scalars(rule, *grads) for rule in (jo.scale_by_adam(0, 0.5), jo.scale_by_amsgrad(0, 0.5)))
    assert adam[-1] > 0.99 and max(amsgrad[1:]) < 0.011


def test_adamax_by_hand():
    u, expected = 0.0, []
    for t, g, m, _ in moments(G):
        u = max(0.5 * u, abs(g) + EPS)
        expected.append(m / (1 - B1**t) / u)
    close(scalars(jo.scale_by_adamax(B1, 0.5, EPS), *G), expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_adabelief_by_hand(nesterov):
    m, s, expected = 0.0, 0.0, []
    for t, g in enumerate(G, 1):
        m = B1 * m + (1 - B1) * g
        s = B2 * s + (1 - B2) * (g - m) ** 2 + ROOT
        m_hat = B1 * m / (1 - B1 ** (t + 1)) + (1 - B1) * g / (1 - B1**t) if nesterov else m / (1 - B1**t)
        expected.append(m_hat / (np.sqrt(s / (1 - B2**t)) + EPS))
    close(scalars(jo.scale_by_belief(B1, B2, EPS, ROOT, nesterov=nesterov), *G), expected)


def test_adabelief_takes_long_steps_where_gradients_come_as_expected():
    steady, surprising = [1.0] * 20, [1.0, -1.0] * 10
    rule = jo.scale_by_belief(0.9, 0.9, eps=1e-3)
    assert scalars(rule, *steady)[-1] > 2 > 1 > abs(scalars(rule, *surprising)[-1])


def test_yogi_by_hand():
    m, v, expected = 0.0, 0.3, []
    for t, g in enumerate(G, 1):
        m = B1 * m + (1 - B1) * g
        v = v - (1 - B2) * np.sign(v - g * g) * g * g
        expected.append(m / (1 - B1**t) / (np.sqrt(v / (1 - B2**t) + ROOT) + EPS))
    close(scalars(jo.scale_by_yogi(B1, B2, EPS, ROOT, initial_accumulator_value=0.3), *G), expected)


def test_yogi_s_scale_falls_by_sums_where_adam_s_falls_by_factors():
    # From gradients of 10 to gradients of 0.1: Adam's v halves each step, Yogi's falls by half of g² = 0.005.
    grads = [10.0] * 10 + [0.1] * 10
    adam, yogi = (scalars(rule, *grads)[-1] for rule in (jo.scale_by_adam(0, 0.5, 0), jo.scale_by_yogi(0, 0.5, 0)))
    assert yogi < 0.02 < 0.3 < adam


def rectified(t, b2, threshold=5.0):
    limit = 2 / (1 - b2) - 1
    rho = limit - 2 * t * b2**t / (1 - b2**t)
    if rho < threshold:
        return None
    return np.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))


@pytest.mark.parametrize("threshold", [5.0, 6.0])
@pytest.mark.parametrize("nesterov", [False, True])
def test_radam_by_hand(threshold, nesterov):
    grads, expected, plain = [1.0, -2.0, 0.5, 1.5, -0.3, 0.7, 1.1, 2.0], [], 0
    for t, g, m, v in moments(grads, B1, 0.95):
        m_hat = B1 * m / (1 - B1 ** (t + 1)) + (1 - B1) * g / (1 - B1**t) if nesterov else m / (1 - B1**t)
        r = rectified(t, 0.95, threshold)
        plain += r is None
        expected.append(m_hat if r is None else r * m_hat / (np.sqrt(v / (1 - 0.95**t) + ROOT) + EPS))
    assert plain == {5.0: 5, 6.0: 6}[threshold]
    close(scalars(jo.scale_by_radam(B1, 0.95, EPS, ROOT, threshold, nesterov=nesterov), *grads), expected)


@pytest.mark.parametrize("b2", [0.0, 0.5, 0.6])
def test_radam_of_a_short_memory_is_plain_momentum(b2):
    # Its average is never long enough. At 0.6 the rectification that is not used divides by zero.
    rule = jo.scale_by_radam(B1, b2)
    close(scalars(rule, *G), scalars(jo.ema(B1), *G))
    slope = jax.grad(lambda g: updates(rule, [g, -g, g], jnp.zeros(()))[0][-1])(1.0)
    close(slope, scalars(jo.ema(B1), 1, -1, 1)[-1])


def test_adan_by_its_paper():
    # Algorithm 1, whose β are one minus these; the first difference is zero.
    b1, b2, b3, m, d, n, before, expected = 0.9, 0.7, 0.8, 0.0, 0.0, 0.0, None, []
    for t, g in enumerate(G, 1):
        difference = 0.0 if before is None else g - before
        m = b1 * m + (1 - b1) * g
        d = b2 * d + (1 - b2) * difference
        n = b3 * n + (1 - b3) * (g + b2 * difference) ** 2
        step = m / (1 - b1**t) + b2 * d / (1 - b2**t)
        expected.append(step / (np.sqrt(n / (1 - b3**t) + ROOT) + EPS))
        before = g
    close(scalars(jo.scale_by_adan(b1, b2, b3, EPS, ROOT), *G), expected)


# --- Laws -----------------------------------------------------------------------------------------

EXACT = [
    jo.scale_by_adam(0.8, 0.9, 0.0),
    jo.scale_by_amsgrad(0.8, 0.9, 0.0),
    jo.scale_by_amsgrad(0.8, 0.9, 0.0, form="torch"),
    jo.scale_by_adamax(0.8, 0.9, 0.0),
    jo.scale_by_adan(0.8, 0.7, 0.9, 0.0, 0.0),
]


def name(rule):
    return rule.factory.__name__


@pytest.mark.parametrize("rule", EXACT, ids=name)
def test_the_first_step_is_the_sign(rule):
    close(scalars(rule, -3e-4)[:1] + scalars(rule, 70.0)[:1], [-1, 1])


@pytest.mark.parametrize("rule", [*EXACT, jo.scale_by_belief(0.8, 0.9, 0.0, 0.0)], ids=name)
def test_without_epsilon_the_unit_of_the_loss_does_not_matter(rule):
    small, large = (scalars(rule, *np.multiply(c, G)) for c in (1e-4, 1e4))
    np.testing.assert_allclose(small, large, rtol=1e-4)


@pytest.mark.parametrize("rule", EXACT, ids=name)
def test_a_steady_gradient_makes_steps_of_length_one(rule):
    close(scalars(rule, *[-0.3] * 20), -1)


def test_without_memory_adam_is_the_sign():
    close(scalars(jo.scale_by_adam(0.0, 0.0, 0.0), *G), np.sign(G))


def test_a_large_epsilon_makes_adam_averaged_momentum():
    close(np.multiply(1e6, scalars(jo.scale_by_adam(B1, B2, eps=1e6), *G)), scalars(jo.ema(B1), *G))


@pytest.mark.parametrize(
    "rule",
    [
        *(jo.scale_by_adam(), jo.scale_by_adam(nesterov=True), jo.scale_by_amsgrad(), jo.scale_by_adamax()),
        *(jo.scale_by_belief(), jo.scale_by_yogi(), jo.scale_by_radam(), jo.scale_by_adan()),
    ],
    ids=name,
)
def test_no_gradient_no_step_and_no_gradient_is_hidden(rule):
    (*_, last), _ = updates(rule, GRADS)
    assert last["w"][2] == 0  # never got a gradient
    assert scalars(rule, 0.0, 0.0) == [0, 0]
    assert np.isnan(scalars(rule, 1.0, np.nan)[1])


@pytest.mark.parametrize("factory", [jo.scale_by_adam, jo.scale_by_amsgrad])
def test_the_mean_is_stored_in_the_dtype_that_was_asked_for(factory):
    found, state = updates(factory(mu_dtype="bfloat16"), GRADS, PARAMS)
    assert state.mu["w"].dtype == jnp.bfloat16 and state.nu["w"].dtype == found[0]["w"].dtype == jnp.float32


@pytest.mark.parametrize("rule", EXACT, ids=name)
def test_complex_gradients_are_measured_by_their_absolute_value(rule):
    (found,), state = updates(rule, [jnp.array([3 + 4j])], jnp.ones(1, complex))
    np.testing.assert_allclose(found, [0.6 + 0.8j], rtol=1e-5)
    assert (state.n if hasattr(state, "n") else state.nu).dtype == jnp.float32
