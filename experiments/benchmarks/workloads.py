"""Small workloads of many kinds, to compare optimizers on: models from the experiments, each with validation data.

Each is a task whose `valid.loss` is to come down, and a budget of steps. None was chosen for what an optimizer does on
it. The data of those that the experiments split into two parts only are split again here, so that none sees test data.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from experiments import classical_models, digits, generative, mnist, regression_network

__all__ = ["WORKLOADS", "Workload"]

POINTS = 50  # of a curve


@dataclasses.dataclass(frozen=True)
class Workload:
    """A task and its budget.

    Attributes:
        what: model and data, in words.
        task: makes the task; each call gives the same functions, so that a program is compiled once.
        steps: the budget, a multiple of `POINTS`.
        batch_size: examples in a batch; None takes all at each step.
    """

    what: str
    task: Callable[[], jo.Task]
    steps: int
    batch_size: int | None

    @property
    def eval_every(self) -> int:
        """Steps between two points of a curve."""
        return self.steps // POINTS


def part(data, share=0.75):
    """(train, valid) of data that come in random order."""
    n = round(share * len(jax.tree.leaves(data)[0]))
    return jax.tree.map(lambda column: column[:n], data), jax.tree.map(lambda column: column[n:], data)


@functools.cache
def tumours(kind):
    """A linear classifier of breast tumours, with a small penalty."""
    margin_loss = classical_models.MARGIN_LOSSES[kind]
    data_loss = lambda p, batch, key: margin_loss(batch["label"] * classical_models.score(p, batch["x"])).mean()
    loss = jo.regularized(data_loss, jo.l2_penalty(1e-3))
    return jo.Task(lambda key: {"w": jnp.zeros(30), "b": jnp.zeros(())}, loss, *part(classical_models.tumours()[0]))


@functools.cache
def linear():
    """Least squares on the diabetes data, whose columns are nearly dependent."""
    score = lambda p, x: x @ p["w"] + p["b"]
    loss = lambda p, batch, key: jnp.mean((score(p, batch["x"]) - batch["y"]) ** 2)
    train, valid, _ = regression_network.data("diabetes")
    return jo.Task(lambda key: {"w": jnp.zeros(10), "b": jnp.zeros(())}, loss, train, valid)


@functools.cache
def sunspots():
    """The sunspots of a year from those of the nine years before it, by a network of 16 hidden units."""
    year, number, before = classical_models.sunspots()
    known = year < classical_models.KNOWN
    scale = lambda x: np.float32((x - number[known].mean()) / number[known].std())
    data = {"x": scale(before[known]), "y": scale(number[known])}

    def init(key):
        w = jax.random.normal(key, (classical_models.LAGS, 16)) * (2 / classical_models.LAGS) ** 0.5
        return {"hidden": {"w": w, "b": jnp.zeros(16)}, "out": {"w": jnp.zeros(16), "b": jnp.zeros(())}}

    return jo.Task(init, regression_network.loss, *part(data))


@functools.cache
def centres():
    """Ten centres among the digits, from ten of them."""
    train, valid, _ = digits.data()
    some = lambda key: {"centres": jax.random.choice(key, jnp.asarray(train["image"]), (10,), replace=False)}
    return jo.Task(some, classical_models.cluster_loss, train["image"], valid["image"])


@functools.cache
def autoencoder():
    """Digits through eight numbers and back: 64 - 64 - 8 - 64 - 64."""
    train, valid, _ = digits.data()

    def init(key):
        one, two = jax.random.split(key)
        return {"encoder": generative.network(one, (64, 64, 8)), "decoder": generative.network(two, (8, 64, 64))}

    def loss(params, batch, key):
        rebuilt = generative.apply(params["decoder"], generative.apply(params["encoder"], batch["image"]))
        return jnp.mean((rebuilt - batch["image"]) ** 2)

    return jo.Task(init, loss, train, valid)


@functools.cache
def valley():
    """Rosenbrock's function in ten dimensions from a random start; what is watched is its logarithm to base ten."""
    value = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    evaluate = lambda x, data: {"loss": jnp.log10(value(x) + 1e-6)}
    start = lambda key: jax.random.uniform(key, (10,), minval=-1.5, maxval=1.5)
    return jo.Task(start, lambda x, batch, key: value(x), valid=jnp.zeros(1), evaluate=evaluate)


WORKLOADS = {
    "least squares": Workload("linear model, diabetes", linear, 500, 16),
    "logistic": Workload("logistic regression, breast cancer", lambda: tumours("logistic"), 500, 32),
    "SVM": Workload("linear SVM, breast cancer", lambda: tumours("SVM"), 500, 32),
    "K-means": Workload("10 centres, digits", centres, 500, 128),
    "sunspots": Workload("network 9-16-1, yearly sunspots", sunspots, 1000, 16),
    "diabetes": Workload("network 10-10-1, diabetes", lambda: regression_network.task("diabetes", 0, 10), 500, 16),
    "friedman": Workload("network 10-5-1, Friedman's function", lambda: regression_network.task("friedman"), 1000, 16),
    "digits": Workload("network 64-128-10, digits", digits.task, 500, 128),
    "mnist": Workload("network 784-128-10, MNIST", mnist.task, 500, 128),
    "autoencoder": Workload("network 64-64-8-64-64, digits", autoencoder, 1000, 64),
    "valley": Workload("log₁₀ of Rosenbrock's function of 10 variables", valley, 2000, None),
}
