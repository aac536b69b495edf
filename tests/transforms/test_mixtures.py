"""AdEMAMix, ADOPT and cautious updates: limits in which they are known rules, and steps by hand."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from tests.transforms.rollout import GRADS, descend


def test_ademamix_without_its_slow_average_is_adam():
    ours, _ = descend(jo.ademamix(0.1, alpha=0.0), GRADS)
    adam, _ = descend(jo.adam(0.1), GRADS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, adam)


def test_simplified_ademamix_is_adam_without_momentum_at_zero_decay():
    ours, _ = descend(jo.simplified_ademamix(0.1, b1=0.0, b2=0.999), GRADS)
    adam, _ = descend(jo.adam(0.1, b1=0.0), GRADS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, adam)


def test_adopt_by_hand():
    """The first step measures, the second divides by the first gradient's size, with a bound of 1."""
    optimizer = jo.adopt(0.1, b1=0.5, b2=0.75)
    params, state, path = jnp.array([1.0]), optimizer.init(jnp.array([1.0])), []
    for g in (2.0, 1.0, 8.0):
        updates, state = optimizer.update(jnp.array([g]), state, params)
        path.append(float(updates[0]))
    v = 0.75 * 4 + 0.25 * 1
    m = 0.5 * (1 / 2)
    bounded = min(8 / v**0.5, 2**0.25)
    np.testing.assert_allclose(path, [0, -0.1 * m, -0.1 * (0.5 * m + 0.5 * bounded)], rtol=1e-6)


def test_cautious_updates_by_hand():
    """Momentum against the gradient is left out, and the rest is scaled by the share that is left."""
    optimizer = jo.cautious(jo.sgd(0.5, momentum=0.9))
    params = jnp.zeros(4)
    state = optimizer.init(params)
    _, state = optimizer.update(jnp.array([1.0, 1.0, 1.0, 1.0]), state, params)
    updates, _ = optimizer.update(jnp.array([1.0, -0.5, 1.0, 1.0]), state, params)
    np.testing.assert_allclose(updates, np.array([-0.95, 0, -0.95, -0.95]) / 0.75, rtol=1e-6)


def test_a_cautious_rule_that_agrees_everywhere_is_the_rule():
    ours, _ = descend(jo.cautious(jo.sgd(0.1)), GRADS)
    sgd, _ = descend(jo.sgd(0.1), GRADS)
    assert np.array_equal(ours["b"], sgd["b"])  # of "w" one coordinate has no gradient, which counts as left out
