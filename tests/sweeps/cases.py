"""A space with everything in it, and what the tests of sweeps share."""

import numpy as np

import jaxopt_lite as jo
from jaxopt_lite.sweeps import distributions
from jaxopt_lite.sweeps.distributions import choice, int_uniform, log_int_uniform, log_uniform, normal, uniform
from jaxopt_lite.sweeps.space import space

NAMES = {name: getattr(distributions, name) for name in distributions.__all__ if name != "Distribution"}
NAMES |= {"space": space}


def narrow(config):
    return bool(config["hidden"] * config["depth"] <= 128)


NESTED = {
    "adam": {"b1": uniform(0.8, 0.99), "nesterov": True},
    "sgd": {"momentum": uniform(0.0, 0.9), "cool": choice({"step": {"factor": uniform(0.1, 0.9)}, "none": {}})},
}
SPEC = {
    "learning_rate": log_uniform(1e-4, 1e-1),
    "hidden": choice([32, 128]),
    "model": {"depth": int_uniform(1, 4), "width": log_int_uniform(16, 1024, traced=True), "activation": "relu"},
    "rule": choice(NESTED),
    "optimizer": choice([jo.adam(1e-3), jo.adam(1e-2), jo.sgd(0.1)]),
    "shift": normal(0.0, 1.0),
    "dropout": 0.1,
    "layers": [32, 32],
    "nothing": None,
}
SPACE = space(SPEC)


def sample(s, n, seed=0):
    return s.from_unit(np.random.default_rng(seed).random((n, len(s.dimensions))))
