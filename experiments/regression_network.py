"""A network of 61 weights beats the linear fit where the truth is curved, and does not where it is nearly linear.

Run      python -m experiments.regression_network [--quick]          about 45 s on two CPU cores
Writes   runs/regression_network/{result.json, networks.png}
Data     Friedman's first function, 600 points of 10 features with noise of deviation 1; scikit-learn's diabetes data,
         442 patients of 10 features. Both split 60/20/20, ten times anew, and standardised by the training part
Result   test R² above that of least squares, mean of ten splits with its 95 % interval:
                           10-5-1 by SGD       10-10-1 by Adam
             Friedman     +0.091 ± 0.015       +0.185 ± 0.032
             diabetes     -0.017 ± 0.027       -0.026 ± 0.017

Two ReLU networks, over 100 epochs in batches of 16: 10-5-1 by plain SGD and 10-10-1 by Adam. A sweep gives each
its learning rate on the first split, by the valid loss. Then the network is trained on each split with three fresh
seeds, and the test data judge the parameters that were best on the valid data, beside the exact least-squares fit of
the same training part.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from experiments import record

EPOCHS, BATCH_SIZE, RATES, TUNING_SEEDS, SPLITS, SEEDS = 100, 16, 24, 3, 10, 3
NETWORKS = {"10-5-1 by SGD": (5, jo.sgd), "10-10-1 by Adam": (10, jo.adam)}  # hidden units, recipe
SPACE = {"learning_rate": jo.log_uniform(1e-4, 1.0)}
OPTIMIZER = "sgd(0.05)"  # for the command line


@functools.cache
def source(name):
    """(x [n, 10], y [n]) in float64."""
    if name == "diabetes":
        from sklearn.datasets import load_diabetes

        return load_diabetes(return_X_y=True)
    from sklearn.datasets import make_friedman1

    return make_friedman1(600, 10, noise=1.0, random_state=0)


def data(name, split=0):
    """(train, valid, test), each {"x": float32 [n, 10], "y": float32 [n]}, standardised by the training part."""
    x, y = source(name)
    order = np.random.default_rng(split).permutation(len(y))
    parts = np.split(order, [int(0.6 * len(y)), int(0.8 * len(y))])
    scale = lambda column: (column - column[parts[0]].mean(axis=0)) / column[parts[0]].std(axis=0)
    x, y = np.float32(scale(x)), np.float32(scale(y))
    return tuple({"x": x[part], "y": y[part]} for part in parts)


def init(key, hidden=5):
    """He initialisation of a network 10 - hidden - 1."""
    one, two = jax.random.split(key)
    return {
        "hidden": {"w": jax.random.normal(one, (10, hidden)) * (2 / 10) ** 0.5, "b": jnp.zeros(hidden)},
        "out": {"w": jax.random.normal(two, (hidden,)) * (1 / hidden) ** 0.5, "b": jnp.zeros(())},
    }


def predict(params, x):
    """ReLU and a linear unit, [n]."""
    hidden = jax.nn.relu(x @ params["hidden"]["w"] + params["hidden"]["b"][None])
    return hidden @ params["out"]["w"] + params["out"]["b"]


def loss(params, batch, key):
    """The mean squared error, in units of the variance of y: 1 - R²."""
    return jnp.mean((predict(params, batch["x"]) - batch["y"]) ** 2)


@functools.cache
def init_of(hidden):
    """`init` for a width: one function for all splits, so that it is compiled once."""
    return functools.partial(init, hidden=hidden)


def task(name="diabetes", split=0, hidden=5):
    """The task, for a network of any width."""
    return jo.Task(init_of(hidden), loss, *data(name, split))


def linear(name, split):
    """Test R² of the exact least-squares fit."""
    train, _, test = data(name, split)
    column = lambda part: np.append(part["x"], np.ones((len(part["y"]), 1)), axis=1)
    weights = np.linalg.lstsq(column(train), train["y"])[0]
    return r_squared(np.mean((column(test) @ weights - test["y"]) ** 2), test)


def r_squared(error, test):
    """1 - the mean squared error in units of the test data's own variance."""
    return 1 - np.asarray(error) / test["y"].var()


def train(name, hidden, recipe, quick):
    """Tune on the first split, then train on each: the sweep, R² [splits, seeds], the first history and the rate."""
    epoch = len(data(name)[0]["y"]) // BATCH_SIZE
    steps, tune, splits = (EPOCHS * epoch, RATES, SPLITS) if not quick else (30 * epoch, RATES // 3, 3)
    sweep = jo.sweep(
        lambda config: (task(name, 0, hidden), recipe(config["learning_rate"])),
        SPACE,
        trials=tune,
        steps=steps,
        batch_size=BATCH_SIZE,
        eval_every=epoch,
        seeds=TUNING_SEEDS,
        sampler=jo.grid(tune),
        metric="valid.loss",
    )
    rate, scores, history = float(sweep.best.config["learning_rate"]), [], None
    for split in range(splits):
        rules = {"seed": 1000, "seeds": SEEDS, "eval_every": epoch, "restore_best": True}
        result = jo.fit(task(name, split, hidden), recipe(rate), steps, BATCH_SIZE, **rules)
        scores.append(r_squared(result.metrics["test.loss"], data(name, split)[2]))
        history = history or result.history
    return {"rate": rate, "scores": np.array(scores), "history": history, "sweep": sweep, "epoch": epoch}


def main(quick=False):
    """Train, write, and check the claim."""
    directory, found = record.folder("regression_network", quick), {}
    for name in ("friedman", "diabetes"):
        found[name] = {network: train(name, *chosen, quick) for network, chosen in NETWORKS.items()}
        splits = len(next(iter(found[name].values()))["scores"])
        straight = np.array([linear(name, split) for split in range(splits)])
        found[name]["least squares"] = {"scores": straight[:, None]}
        print(f"{name}: test R², mean of {splits} splits, and what it is above least squares, with its 95 % interval")
        for network, row in found[name].items():
            row["above"] = record.interval(row["scores"].mean(axis=1) - straight)
            row["mean"] = float(row["scores"].mean())
            at = f"   learning rate {row['rate']:.2g}" if "rate" in row else ""
            print(f"  {network:16} {row['mean']:.3f}   {row['above'][0]:+.3f} ± {row['above'][1]:.3f}{at}")
    kept = ("rate", "scores", "mean", "above")
    figures = {n: {k: {f: v[f] for f in kept if f in v} for k, v in rows.items()} for n, rows in found.items()}
    record.write(directory, figures)
    draw(found, directory / "networks.png")
    for network in NETWORKS:
        gain, half = found["friedman"][network]["above"]
        assert gain - half > 0, (network, gain, half)
        gain, half = found["diabetes"][network]["above"]
        assert gain + (0 if quick else half) < 0.03, (network, gain, half)


def draw(found, path):
    """For each data set: the rates that were tried, the learning curves, and the scores of every split."""
    figure = record.figure(14, 7.6)
    for row, (name, rivals) in zip(figure.subplots(2, 3), found.items(), strict=True):
        rates, curves, scores = row
        for i, network in enumerate(NETWORKS):
            sweep, history = rivals[network]["sweep"], rivals[network]["history"]
            x = [trial.config["learning_rate"] for trial in sweep.trials]
            rates.plot(x, [trial.score for trial in sweep.trials], ".-", color=f"C{i}", label=network)
            rates.axvline(rivals[network]["rate"], color=f"C{i}", linestyle="--", linewidth=0.8)
            epochs = history["step"] / rivals[network]["epoch"]
            curves.plot(epochs, history["train.loss"].mean(axis=0), color=f"C{i}", linewidth=1, linestyle="--")
            curves.plot(epochs, history["valid.loss"].mean(axis=0), color=f"C{i}", label=network)
        for i, network in enumerate([*NETWORKS, "least squares"]):
            values = rivals[network]["scores"].mean(axis=1)
            scores.plot(np.full(len(values), i), values, ".", color="0.6")
            scores.errorbar(i, *map(np.array, record.interval(values)), fmt="o", color=f"C{i}", capsize=5)
        scores.plot([rivals[n]["scores"].mean(axis=1) for n in rivals], color="0.85", linewidth=0.8, zorder=0)
        rates.set(xscale="log", ylim=(0, 1.2), xlabel="learning rate", ylabel="valid loss after the last epoch")
        rates.set_title(f"{name}: sweep of the rate", fontsize=10)
        curves.set(yscale="log", xlabel="epoch", ylabel="loss")
        curves.set_title(f"{name}: train (dashed) and valid", fontsize=10)
        scores.set_xticks(range(3), [*NETWORKS, "least squares"])
        scores.set(xlim=(-0.5, 2.5), ylabel="test R²")
        scores.set_title(f"{name}: each split, and the mean with its 95 % interval", fontsize=10)
        rates.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
