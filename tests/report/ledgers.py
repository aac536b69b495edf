"""Ledgers made by hand."""

import numpy as np

from jaxopt_lite.sweeps.distributions import (
    choice,
    int_uniform,
    log_int_uniform,
    log_uniform,
    normal,
    one_minus_log_uniform,
    uniform,
)
from jaxopt_lite.sweeps.ledger import Ledger
from jaxopt_lite.sweeps.samplers import sobol
from jaxopt_lite.sweeps.space import space

SMALL = {"learning_rate": log_uniform(1e-4, 1e-1), "b1": uniform(0.8, 0.99), "activation": choice(["relu", "tanh"])}
SPEC = {
    "optimizer": choice(
        {
            "adam": {"learning_rate": log_uniform(1e-4, 1e-1), "b1": one_minus_log_uniform(0.5, 0.999)},
            "sgd": {"learning_rate": log_uniform(1e-3, 1.0), "nesterov": choice([True, False])},
        }
    ),
    "width": log_int_uniform(16, 1024),
    "depth": int_uniform(1, 6, traced=True),
    "noise": normal(0.0, 1.0),
    "batch": choice([32, 64], traced=True),
    "layers": choice([[8, 8], None, "wide"]),
    "seed": 3,
}


def ledger(trials, spec=None, points=3, whole=3, seeds=2, metric="valid.accuracy", highest=True):
    """Trials of which each did `points` points of 10 steps out of `whole`; the metric is about their number."""
    made = Ledger(
        space=space(SMALL if spec is None else spec),
        metric=metric,
        highest=highest,
        steps=10 * whole,
        eval_every=10,
        seeds=seeds,
        seed=0,
    )
    made.extend(made.space.from_unit(sobol().ask(made.space, 0, 0, trials)))
    if points:
        curve = np.arange(trials)[None, :, None] + 0.1 * np.arange(points)[:, None, None] + 0.01 * np.arange(seeds)
        rows = {metric: curve.astype(np.float32), "train.loss": -curve.astype(np.float32)}
        made.record(np.arange(trials), rows, np.ones((points, trials), bool))
    return made
