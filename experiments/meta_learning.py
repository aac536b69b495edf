"""A start that is learned for five steps pays; learning their rates as well makes up for most of a bad guess.

Run      python -m experiments.meta_learning [--quick]          about 2 minutes on two CPU cores
Writes   runs/meta_learning/{result.json, sinusoids.png}
Data     sinusoids, amplitude in [0.1, 5], phase in [0, π], drawn anew for each step; ten points of each are seen
Result   mean squared error on unseen points of unseen sinusoids after the five steps: mean of 5 seeds, 95 % interval
             one start for all, its best rate           2.77 ± 0.18
             rate of the five steps, at first           0.01            0.1
             learned start, the rate is kept            0.77 ± 0.07     2.52 ± 0.43
             learned start and rates                    0.75 ± 0.11     1.05 ± 0.19
             difference of the two, seed by seed        0.02 ± 0.13     1.47 ± 0.32

A network 1-40-40-1 takes five steps of gradient descent on the points that it sees, as in Finn et al.,
"Model-agnostic meta-learning", 2017, arXiv:1703.03400. Learned are the network before the five steps and, where
it says "and rates", a learning rate for each of them (Antoniou et al., 2018, arXiv:1810.09502). An optimizer is a
value, so it is a part of the parameters like the network: `jo.fit` differentiates the steps with respect to both.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from experiments import record

SEEN, INNER_STEPS, HIDDEN = 10, 5, 40
RATES = (0.01, 0.1)  # of the five steps at first: that of Finn et al., and one too large
TASKS, HELD_OUT, STEPS, SEEDS = 25, 500, 1500, 5
COLORS = {"one start": "0.35", "learned start": "C0", "learned start and rates": "C1"}


@jo.schedule
def per_step(values: jo.Vector):
    """A learning rate for each step; after the last, the last."""
    return lambda t: jnp.asarray(values)[jnp.clip(t.astype(jnp.int32), 0, len(values) - 1)]


def sinusoids(key, tasks):
    """{"x": [tasks, 2 * SEEN, 1], "y": the same}: the first half of each is seen, the second is asked for."""
    amplitude, phase, x = jax.random.split(key, 3)
    amplitude = jax.random.uniform(amplitude, (tasks, 1, 1), minval=0.1, maxval=5.0)
    phase = jax.random.uniform(phase, (tasks, 1, 1), maxval=jnp.pi)
    x = jax.random.uniform(x, (tasks, 2 * SEEN, 1), minval=-5.0, maxval=5.0)
    return {"x": x, "y": amplitude * jnp.sin(x - phase)}


def network(key):
    """He initialisation of 1 - 40 - 40 - 1."""
    sizes = [(1, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 1)]
    keys = jax.random.split(key, len(sizes))
    normals = [jax.random.normal(k, size) * (2 / size[0]) ** 0.5 for k, size in zip(keys, sizes)]
    return [{"w": w, "b": jnp.zeros(w.shape[1])} for w in normals]


def predict(net, x):
    """The network's answer, [n, 1]."""
    x = x / 5  # in [-1, 1]
    for layer in net[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"][None])
    return x @ net[-1]["w"] + net[-1]["b"][None]


def error(net, x, y):
    """Mean squared error."""
    return jnp.mean((predict(net, x) - y) ** 2)


def adapt(params, x, y, steps=INNER_STEPS):
    """The networks before and after each step on what is seen, stacked: steps + 1 of them."""
    optimizer = params["optimizer"]

    def step(carry, _):
        net, state = carry
        updates, state = optimizer.update(jax.grad(error)(net, x, y), state, net)
        return (jo.apply_updates(net, updates), state), net

    (net, _), before = jax.lax.scan(step, (params["net"], optimizer.init(params["net"])), length=steps)
    return jax.tree.map(lambda old, new: jnp.concatenate([old, new[None]]), before, net)


def errors(params, data, steps=INNER_STEPS):
    """The mean error on what is asked for before and after each step, [steps + 1]."""

    def one(x, y):
        nets = adapt(params, x[:SEEN], y[:SEEN], steps)
        return jax.vmap(lambda net: error(net, x[SEEN:], y[SEEN:]))(nets)

    return jax.vmap(one)(data["x"], data["y"]).mean(axis=0)


def one_start(params, batch, key):
    """The error before the first step: no learning to learn."""
    return errors(params, sinusoids(key, TASKS), steps=0)[0]


def start_and_rates(params, batch, key):
    """The error after the last step; its gradient goes through all five, to the network and to the optimizer."""
    return errors(params, sinusoids(key, TASKS))[-1]


def start(params, batch, key):
    """The same, but the optimizer is kept: MAML."""
    return start_and_rates({**params, "optimizer": jax.lax.stop_gradient(params["optimizer"])}, batch, key)


def learn(loss, rate, steps, seeds):
    """{"net", "optimizer"} after learning with a loss, side by side for all seeds; the loss draws its own data."""

    def init(key):
        return {"net": network(key), "optimizer": jo.arrays(jo.sgd(per_step([rate] * INNER_STEPS)))}

    learner = jo.chain(jo.clip_by_global_norm(10.0), jo.adam(jo.cosine_decay_schedule(1e-3, steps)))
    return jo.fit(jo.Task(init, loss), learner, steps, None, eval_every=steps, seeds=seeds).params


@jax.jit
def with_best_rate(params, data):
    """The parameters with the one rate for all steps that has the least error on some data."""
    rates = jnp.geomspace(1e-3, 0.3, 16)
    optimizers = jax.vmap(lambda rate: jo.sgd(per_step(jnp.full(INNER_STEPS, rate))))(rates)
    found = jax.vmap(lambda optimizer: errors({**params, "optimizer": optimizer}, data)[-1])(optimizers)
    return {**params, "optimizer": jax.tree.map(lambda leaf: leaf[jnp.nanargmin(found)], optimizers)}


@jax.jit
def judge(params, data):
    """Errors before and after each step, [seeds, 6]."""
    return jax.vmap(lambda one: errors(one, data))(params)


def rates_of(params):
    """The learning rates of the five steps, [seeds, 5]."""
    return np.asarray(jo.hyperparameters(params["optimizer"])["sgd.learning_rate.values"])


def main(quick=False):
    """Learn in three ways, judge on sinusoids that none has seen, draw, and check the claim."""
    steps, seeds = (200, 2) if quick else (STEPS, SEEDS)
    valid, test = (sinusoids(jax.random.key(seed), HELD_OUT) for seed in (1001, 1002))
    plain = learn(one_start, 0.0, steps, seeds)
    learned = {("one start", "best"): jax.vmap(lambda params: with_best_rate(params, valid))(plain)}
    for rate in RATES:
        learned["learned start", rate] = learn(start, rate, steps, seeds)
        learned["learned start and rates", rate] = learn(start_and_rates, rate, steps, seeds)
    curves = {key: np.asarray(judge(params, test)) for key, params in learned.items()}
    after = {key: curve[:, -1] for key, curve in curves.items()}
    gains = {rate: after["learned start", rate] - after["learned start and rates", rate] for rate in RATES}
    figures = {}
    for (name, rate), params in learned.items():
        mean, half = record.interval(after[name, rate])
        rates = rates_of(params)
        print(f"{name:24} rate {rate!s:6} error {mean:.2f} ± {half:.2f}   rates {rates.mean(axis=0).round(3)}")
        row = {"errors": after[name, rate], "mean": mean, "half": half, "curves": curves[name, rate], "rates": rates}
        figures[f"{name}, {rate}"] = row
    for rate, gain in gains.items():
        figures[f"gain by learning the rates, {rate}"] = mean, half = record.interval(gain)
        print(f"learning the rates, {rate} at first, takes {mean:.2f} ± {half:.2f} off")
    directory = record.folder("meta_learning", quick)
    record.write(directory, figures)
    draw(learned, curves, test, directory / "sinusoids.png")
    low, large = RATES
    assert after["learned start", low].mean() < after["one start", "best"].mean() / (1 if quick else 2), after
    mean, half = record.interval(gains[large])
    assert mean - (0 if quick else half) > 0, gains


def draw(learned, curves, test, path):
    """A sinusoid fitted from two starts, the errors over the steps, and the learned rates."""
    figure = record.figure(15, 4)
    one, other, error, rates = figure.subplots(1, 4)
    tall = int(jnp.argmax(jnp.abs(test["y"]).max(axis=(1, 2))))
    sinusoid = {name: values[tall] for name, values in test.items()}
    for axes, key in ((one, ("one start", "best")), (other, ("learned start and rates", RATES[0]))):
        draw_fit(axes, jax.tree.map(lambda leaf: leaf[0], learned[key]), sinusoid, COLORS[key[0]])
        axes.set_title(key[0], fontsize=10)
    lines = {"best": "-", RATES[0]: "-", RATES[1]: "--"}
    for (name, rate), curve in curves.items():
        error.plot(curve.mean(axis=0), lines[rate], color=COLORS[name], label=f"{name}, rate {rate}")
        error.fill_between(range(curve.shape[1]), curve.min(axis=0), curve.max(axis=0), color=COLORS[name], alpha=0.15)
    error.set(xlabel="steps on ten points", ylim=(0, 6.5))
    error.set_title("error on unseen points: mean, range of seeds", fontsize=10)
    for rate in RATES:
        found = rates_of(learned["learned start and rates", rate])
        step = np.arange(INNER_STEPS) + 1
        rates.plot(step, found.T, "C1" + lines[rate], alpha=0.3, linewidth=0.8)
        rates.plot(step, found.mean(axis=0), "C1o" + lines[rate], label=f"learned, {rate} at first")
        rates.axhline(rate, color="C0", linestyle=lines[rate], linewidth=0.8, label=f"kept, {rate}")
    rates.set(xlabel="step", yscale="log", xticks=step, ylim=(0.005, 0.5))
    rates.set_title("learning rates of the five steps", fontsize=10)
    for axes in (one, other, error, rates):
        axes.legend(frameon=False, fontsize=7.5, loc="upper left", ncols=1 if axes is error else 2)
    figure.savefig(path, dpi=120)


def draw_fit(axes, params, sinusoid, color):
    """The network before and after each step, darker with each step; the points that it sees and those it does not."""
    x, y = sinusoid["x"], sinusoid["y"]
    line = jnp.linspace(-5, 5, 200)[:, None]
    answers = jax.vmap(predict, in_axes=(0, None))(adapt(params, x[:SEEN], y[:SEEN]), line)
    for step, answer in enumerate(answers):
        label = {0: "before", INNER_STEPS: f"after {INNER_STEPS} steps"}.get(step)
        shade = (step + 1) / (INNER_STEPS + 1)
        axes.plot(line[:, 0], answer[:, 0], color=color, alpha=shade, linewidth=1 + shade, label=label)
    axes.plot(x[SEEN:, 0], y[SEEN:, 0], "o", color="white", markeredgecolor="black", markersize=5, label="asked for")
    axes.plot(x[:SEEN, 0], y[:SEEN, 0], "o", color="black", markersize=5, label="seen")
    axes.set(xlabel="x", ylim=(-7, 8))


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
