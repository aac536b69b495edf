"""A 128-unit ReLU network learns handwritten digits to a test accuracy of at least 0.97, mean of 5 seeds.

Run      jaxopt-lite train experiments.digits --seeds 5 --directory runs/digits       about 10 s on two CPU cores
         python -m experiments.digits [--quick]                                      the same, and checks the claim
Writes   runs/digits/{metrics.jsonl, summary.json, curves.png}
Data     scikit-learn's digits: 1,797 real images of 8 x 8 pixels, split 60/20/20 by class
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_lite as jo
from experiments import record

HIDDEN = 128
OPTIMIZER = "adam(1e-3)"
STEPS, BATCH_SIZE, SEEDS = 2000, 128, 5
CLAIM = 0.97
# What a sweep of `trial` searches; "hidden" may be a choice.
SPACE = {
    "learning_rate": jo.log_uniform(1e-4, 1e-1),
    "b1": jo.uniform(0.8, 0.99),
    "weight_decay": jo.log_uniform(1e-5, 1.0),
}


@functools.cache
def data():
    """(train, valid, test), each {"image": float32 [n, 64] in [0, 1], "label": int32 [n]}; always the same split."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return split(images / 16, labels)


def split(images, labels):
    """(train, valid, test): 60, 20 and 20 % of each class."""
    from sklearn.model_selection import train_test_split

    halve = functools.partial(train_test_split, random_state=0)
    train_x, rest_x, train_y, rest_y = halve(images, labels, test_size=0.4, stratify=labels)
    valid_x, test_x, valid_y, test_y = halve(rest_x, rest_y, test_size=0.5, stratify=rest_y)
    sets = ((train_x, train_y), (valid_x, valid_y), (test_x, test_y))
    return tuple({"image": np.float32(x), "label": np.int32(y)} for x, y in sets)


def init(key, hidden=HIDDEN, pixels=64):
    """He initialisation of a network pixels - hidden - 10."""
    one, two = jax.random.split(key)
    return {
        "hidden": {"w": jax.random.normal(one, (pixels, hidden)) * (2 / pixels) ** 0.5, "b": jnp.zeros(hidden)},
        "out": {"w": jax.random.normal(two, (hidden, 10)) * (2 / hidden) ** 0.5, "b": jnp.zeros(10)},
    }


def logits(params, image):
    """ReLU and a linear layer."""
    hidden = jax.nn.relu(image @ params["hidden"]["w"] + params["hidden"]["b"][None])
    return hidden @ params["out"]["w"] + params["out"]["b"][None]


def loss(params, batch, key):
    """Softmax cross-entropy, mean over the batch."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits(params, batch["image"]), batch["label"]).mean()


def evaluate(params, data):
    """Cross-entropy and accuracy."""
    hits = jnp.argmax(logits(params, data["image"]), axis=-1) == data["label"]
    return {"loss": loss(params, data, None), "accuracy": hits.mean()}


@functools.cache  # the same task each time, so that its programs are compiled once
def task(hidden=HIDDEN):
    """The task, for a network of any width."""
    train, valid, test = data()
    return jo.Task(functools.partial(init, hidden=hidden), loss, train, valid, test, evaluate)


def trial(config):
    """The task and AdamW for a config of a sweep; what the config leaves out has its default."""
    return task(config.get("hidden", HIDDEN)), adamw(config)


def adamw(config):
    """AdamW with the config's numbers."""
    return jo.adamw(**{name: config[name] for name in ("learning_rate", "b1", "b2", "weight_decay") if name in config})


def main(quick=False):
    """Train side by side, and check the claim."""
    optimizer, directory = jo.parse(OPTIMIZER), record.folder("digits", quick)
    steps, seeds = (STEPS // 2, 2) if quick else (STEPS, SEEDS)
    result = jo.fit(
        task(), optimizer, steps, BATCH_SIZE, seeds=seeds, directory=directory, overwrite=True, progress="auto"
    )
    accuracy = result.metrics["test.accuracy"]
    print(f"{optimizer}: test accuracy {accuracy.mean():.4f} ± {accuracy.std(ddof=1):.4f} over {seeds} seeds")
    assert accuracy.mean() >= CLAIM, accuracy


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
