"""In a sweep, too, each seed has noise of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from jaxopt_lite.sweeps.configs import split
from jaxopt_lite.sweeps.program import RESET, Group, SweepPlan
from jaxopt_lite.sweeps.space import space
from jaxopt_lite.train.state import first_state

TASK = jo.Task(lambda key: {"w": jnp.zeros(3)}, lambda params, batch, key: 0.0 * params["w"].sum())
RULE = jo.chain(jo.add_noise(0.1, 0.5), jo.lift(optax.add_noise)(0.1, 0.5, 0))


def noises(**given):
    """The parameters of the best of two trials after two steps, which are the noise alone, [seeds, 3]."""

    def trial(config):
        return TASK, jo.chain(RULE, jo.sgd(config["rate"]))

    space = {"rate": jo.uniform(1.0, 1.0 + 1e-6)}
    swept = jo.sweep(trial, space, trials=2, steps=2, eval_every=1, metric="train.loss", mode="min", **given)
    return np.asarray(swept.best.params["w"])


@pytest.mark.parametrize("independent", [False, True])
def test_each_seed_of_a_sweep_has_noise_of_its_own(independent):
    given = {"seeds": 2, "independent": independent}
    first, again, other = noises(**given), noises(**given), noises(seed=2, **given)
    assert len(np.unique([first, other])) == 12
    np.testing.assert_array_equal(first, again)
    if not independent:
        alone = jo.fit(TASK, jo.chain(RULE, jo.sgd(1.0)), 2, eval_every=1, seed=1)
        np.testing.assert_allclose(first[1], alone.params["w"], rtol=1e-4)


def test_an_optimizer_whose_state_is_made_anew_has_the_noise_of_its_seed():
    sampled = space({"rate": jo.uniform(0.0, 1.0)})
    static, numbers = split(sampled.configs(sampled.from_unit(np.array([[0.5]])))[0])
    group = Group(lambda config: (TASK, RULE), static, numbers, SweepPlan(2, None, 1))
    for seed in range(2):
        state = first_state(TASK, RULE, jax.random.key(seed))
        first = state._replace(optimizer=None, key=None, step=None)
        again = group._refresh(TASK, RULE, RESET, first, jax.random.key(seed))
        keys = [jax.random.key_data(rows.opt_state[0].rng_key) for rows in (first, again)]
        np.testing.assert_array_equal(*keys)
