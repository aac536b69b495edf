"""Sweep on as many devices as this process has, and print a hash of all that was computed."""

import hashlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from jaxopt_lite.sweeps.policies import successive_halving
from jaxopt_lite.sweeps.population import population_based
from tests.sweeps import small


def network(config):
    """784-256-10 on made-up images: its products are large enough to be split among threads."""
    rng = np.random.default_rng(0)
    images = {"x": rng.random((256, 784), np.float32), "y": rng.integers(0, 10, 256).astype(np.int32)}

    def init(key):
        one, two = jax.random.split(key)
        return {"w": jax.random.normal(one, (784, 256)) * 0.05, "v": jax.random.normal(two, (256, 10)) * 0.1}

    def loss(params, batch, key):
        scores = jax.nn.log_softmax(jax.nn.relu(batch["x"] @ params["w"]) @ params["v"])
        return -jnp.mean(jnp.take_along_axis(scores, batch["y"][:, None], axis=1))

    return jo.Task(init, loss, images, images), jo.adamw(config["learning_rate"])


def main(devices):
    found = hashlib.sha256()
    devices = jax.local_devices()[:devices]
    large = {"trial": network, "spec": {"learning_rate": jo.log_uniform(1e-4, 1e-2)}, "seeds": 1, "batch_size": 64}
    for given in (
        {"trials": 20, "policy": successive_halving(2)},
        {"trials": 12, "policy": population_based(interval=4)},
        {"trials": 8, "steps": 6, "width": 2, **large},
    ):
        outcome, _, _ = small.drive(small.engine(devices=devices, **given))
        for leaf in jax.tree.leaves((outcome.ledger.saved(), outcome.best.params)):
            found.update(np.asarray(leaf).tobytes())
    print(len(devices), found.hexdigest())


if __name__ == "__main__":
    main(int(sys.argv[1]))
