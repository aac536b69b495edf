"""Tuned alike, most recipes end within a point of test accuracy of the best; they differ in how forgiving they are.

Run      python -m experiments.recipes [--quick]          about 15 minutes on two CPU cores
Writes   runs/recipes/{result.json, recipes.png}
Data     the digits of experiments.digits and the 5,000 images of experiments.mnist, 60/20/20
Result   within a point of the best: 19 of 23 recipes on digits (best 0.980), 14 of 23 on MNIST (0.943); Rprop, which
         is for whole batches, is last on both

Every recipe of the library trains the network with 128 hidden units at each of 25 learning rates from 1e-5 to 10, its
other arguments at their defaults: one sweep each, from the same parameters and on the same batches. The rate with the
least cross-entropy on the validation images is trained again with 10 fresh seeds, and the test images judge it. A rate
is good if it ends within one point of validation accuracy of the recipe's best; how many decades are good says how
finely a recipe must be tuned.
"""

import sys

import numpy as np

import jaxopt_lite as jo
from experiments import digits, mnist, record

RECIPES = {
    "SGD": jo.sgd,
    "heavy ball": lambda rate: jo.sgd(rate, momentum=0.9),
    "Nesterov": lambda rate: jo.sgd(rate, momentum=0.9, nesterov=True),
    "noisy SGD": jo.noisy_sgd,
    "signum": jo.signum,
    "Adagrad": jo.adagrad,
    "Adadelta": jo.adadelta,
    "RMSProp": jo.rmsprop,
    "Adam": jo.adam,
    "AdamW": jo.adamw,
    "NAdam": jo.nadam,
    "NAdamW": jo.nadamw,
    "Adamax": jo.adamax,
    "AMSGrad": jo.amsgrad,
    "AdaBelief": jo.adabelief,
    "Yogi": jo.yogi,
    "RAdam": jo.radam,
    "Lion": jo.lion,
    "LAMB": jo.lamb,
    "LARS": jo.lars,
    "NovoGrad": jo.novograd,
    "Adan": jo.adan,
    "Rprop": jo.rprop,
}
LARGEST, SMALLEST, RATES = 10.0, 1e-5, 25  # four to a decade
STEPS, BATCH_SIZE, SEEDS, FRESH = 500, 128, 10, 1000
TASKS = {"digits": digits.task, "mnist": mnist.task}
SOME = ("SGD", "heavy ball", "Adagrad", "RMSProp", "Adam", "Lion")  # in the quick form


def tune(task, recipe, rates):
    """The learning rates, and for each the cross-entropy and accuracy on the validation images; NaN if it diverged."""
    space = {"learning_rate": jo.log_uniform(SMALLEST, LARGEST)}
    trial = lambda config: (task(), recipe(config["learning_rate"]))
    rules = {"steps": STEPS, "batch_size": BATCH_SIZE, "eval_every": STEPS, "sampler": jo.grid(rates)}
    result = jo.sweep(trial, space, metric="valid.loss", **rules)
    tried = np.array([trial.config["learning_rate"] for trial in result.trials])
    return tried, *(result.curves[f"valid.{name}"][:, 0, -1] for name in ("loss", "accuracy"))


def judge(task, optimizer, seeds):
    """Test accuracy of runs that no choice has seen, [seeds]."""
    result = jo.fit(task(), optimizer, STEPS, BATCH_SIZE, seed=FRESH, seeds=seeds, eval_every=STEPS)
    return result.metrics["test.accuracy"]


def compare(name, recipes, rates, seeds):
    """A row of figures for each recipe, the best first."""
    rows = {}
    for recipe in recipes:
        tried, loss, accuracy = tune(TASKS[name], RECIPES[recipe], rates)
        rate = float(tried[np.nanargmin(loss)])
        scores = judge(TASKS[name], RECIPES[recipe](rate), seeds)
        mean, half = record.interval(scores)
        good = np.sum(accuracy >= np.nanmax(accuracy) - 0.01) * np.log10(LARGEST / SMALLEST) / (rates - 1)
        rows[recipe] = {"rate": rate, "mean": mean, "half": half, "good_decades": float(good)}
        rows[recipe] |= {"scores": scores, "rates": tried, "valid_loss": loss, "valid_accuracy": accuracy}
        words = f"test accuracy {mean:.4f} ± {half:.4f}   good over {good:.2f} decades"
        print(f"{name:7} {recipe:11} rate {rate:8.2g}   {words}", flush=True)
    return dict(sorted(rows.items(), key=lambda row: -row[1]["mean"]))


def draw(found, path):
    """The validation accuracy at each rate, and the test accuracy at the tuned one."""
    figure = record.figure(13, 0.5 + 0.27 * sum(map(len, found.values())))
    grid = figure.subplots(len(found), 2, squeeze=False, width_ratios=(2.2, 1))
    for (name, rows), (plane, line) in zip(found.items(), grid, strict=True):
        places = np.arange(len(rows))
        tried = next(iter(rows.values()))["rates"]
        accuracy = np.stack([row["valid_accuracy"] for row in rows.values()])
        step = (tried[-1] / tried[0]) ** (0.5 / (len(tried) - 1))
        edges = np.append(tried / step, tried[-1] * step)
        mesh = plane.pcolormesh(edges, np.arange(len(rows) + 1) - 0.5, accuracy, vmin=0.5, vmax=1, cmap="viridis")
        plane.plot([row["rate"] for row in rows.values()], places, "o", color="white", markeredgecolor="black")
        plane.set(xscale="log", xlabel="learning rate", title=f"{name}: validation accuracy; the dot is chosen")
        figure.colorbar(mesh, ax=plane, pad=0.01, extend="min")
        means, halves = ([row[key] for row in rows.values()] for key in ("mean", "half"))
        line.errorbar(means, places, xerr=halves, fmt="o", color="#0072B2", capsize=2, markersize=4)
        line.axvline(max(means) - 0.01, color="0.6", linewidth=0.8, linestyle="--")
        line.set(xlabel="test accuracy, 95 % interval", title="chosen by validation, fresh seeds")
        line.grid(alpha=0.25, axis="x")
        for axes in (plane, line):
            axes.set_yticks(places, list(rows))
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


def main(quick=False):
    """Tune and judge them all, write, and check the claim."""
    names, recipes, rates, seeds = (("digits",), SOME, 13, 4) if quick else (tuple(TASKS), tuple(RECIPES), RATES, SEEDS)
    found = {name: compare(name, recipes, rates, seeds) for name in names}
    directory = record.folder("recipes", quick)
    record.write(directory, {"steps": STEPS, "seeds": seeds, **found})
    draw(found, directory / "recipes.png")
    for name, rows in found.items():
        best = next(iter(rows.values()))["mean"]
        near = [recipe for recipe, row in rows.items() if row["mean"] >= best - 0.01]
        print(f"{name}: {len(near)} of {len(rows)} within a point of the best, {best:.4f}")
        assert len(near) > len(rows) / 2, near


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
