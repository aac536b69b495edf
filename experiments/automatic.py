"""Of one budget of steps, Prodigy in one run and population-based training do as well as a sweep of AdamW's rate.

Run      python -m experiments.automatic [--quick]          about 3 minutes on two CPU cores
Writes   runs/automatic/{result.json, automatic.png}
Data     scikit-learn's digits by a network 64-128-10, and Friedman's first function by a network 10-10-1, 60/20/20
Result   gains over the sweep of AdamW's rate, of 10 seeds with 95 % intervals:
                                     digits, accuracy         Friedman, R²
             Prodigy                 +0.001 ± 0.004           +0.016 ± 0.019
             population-based        +0.001 ± 0.004           +0.018 ± 0.010
             Mechanic of AdamW       -0.010 ± 0.004           +0.018 ± 0.015
             DoWG                    -0.356 ± 0.151           +0.016 ± 0.016
             hypergradient of Adam   +0.001 ± 0.004           -0.055 ± 0.022
             AdamW at 0.001          -0.000 ± 0.005           -0.049 ± 0.022
             which optimizer         -0.009 ± 0.009           -0.043 ± 0.063

Each method may take 4,000 gradient steps in all, in batches of 32. A sweep has eight trials of 500 steps, or as many
members in a population; what it returns is the trial with the least validation loss at its end. A method that finds its
rate, or that has a usual one, spends the budget in one run, and returns the point with the least validation loss. All
rates are constant but for what the methods themselves do. The test data judge; seeds are paired.

What loses: DoWG, whose steps grow on the digits until all but a few hidden units are dead; hypergradients on Friedman's
function, where their rates fall to nearly zero while the network could still learn; usual rates there, a tenth of what
sweeps choose or less; and the sweep over which optimizer: eight trials are but two for each of four optimizers. DoG is
without the average of its iterates that its authors ask for. After an eighth of the steps, which is what one trial
has, Prodigy and D-Adaptation are near their end already, and the others are not.
"""

import sys

import numpy as np

import jaxopt_lite as jo
from experiments import digits, record, regression_network

BUDGET, TRIALS, BATCH_SIZE, EVAL_EVERY, SEEDS, WIDTH = 4000, 8, 32, 50, 10, 8
ONE_RUN = {  # the whole budget in one run; none has a number that was chosen for these data
    "Prodigy": jo.prodigy(),
    "D-Adaptation": jo.dadapt_adamw(),
    "DoG": jo.dog(),
    "DoWG": jo.dowg(),
    "Mechanic of SGD": jo.mechanize(jo.sgd(1.0)),
    "Mechanic of AdamW": jo.mechanize(jo.adamw(1.0)),
    "hypergradient of SGD": jo.hypergradient(jo.identity(), 1e-2, 0.02),
    "hypergradient of Adam": jo.hypergradient(jo.scale_by_adam(), 1e-3, 0.02),
    "AdamW at 0.001": jo.adamw(1e-3),
    "SGD at 0.01": jo.sgd(1e-2),
}


def around(usual):
    """Four decades of learning rates, the usual one in the middle."""
    return jo.log_uniform(usual / 100, usual * 100)


KINDS = {
    "sgd": {"learning_rate": around(1e-1), "momentum": 0.9},
    "adagrad": {"learning_rate": around(1e-2)},
    "adamw": {"learning_rate": around(1e-3)},
    "lion": {"learning_rate": around(1e-4)},
}
WHICH, ADAMW = {"optimizer": jo.choice(KINDS)}, {"optimizer": jo.choice({"adamw": KINDS["adamw"]})}
SEARCHES = {  # the budget in eight trials: space and policy
    "sweep of AdamW's rate": (ADAMW, None),
    "sweep over which optimizer": (WHICH, None),
    "population-based, AdamW": (ADAMW, jo.population_based(interval=EVAL_EVERY)),
}
PEER, FIXED = "sweep of AdamW's rate", ("AdamW at 0.001", "SGD at 0.01")
FEW = ("Prodigy", "AdamW at 0.001", PEER, "population-based, AdamW")  # for --quick
TASKS = {  # the task, and the score of test metrics, [seeds]: the accuracy, or R² of a standardised target
    "digits": (digits.task, lambda metrics: np.float64(metrics["test.accuracy"])),
    "Friedman": (
        lambda: regression_network.task("friedman", 0, 10),
        lambda metrics: 1 - np.float64(metrics["test.loss"]),
    ),
}
METRICS, SHOWN = {"digits": "accuracy", "Friedman": "R²"}, {"digits": 0.1, "Friedman": 0.3}  # the axis of the picture
COLORS = {"search": "#0072B2", "free": "#D55E00", "fixed": "0.4"}
LABELS = {
    "search": "eight trials or members",
    "free": "one run, which finds its rate",
    "fixed": "one run at a usual rate",
}


def one_run(task, optimizer, steps, seeds):
    """Test metrics of a run at the point that was best on the validation data, [seeds] each."""
    rules = {"eval_every": EVAL_EVERY, "seeds": seeds, "metric": "valid.loss", "restore_best": True}
    return jo.fit(task, optimizer, steps, BATCH_SIZE, **rules).metrics


def search(task, space, policy, seed, budget):
    """Test metrics of the best of eight trials, [1] each, and the winner's kind."""

    def trial(config):
        numbers = dict(config["optimizer"])
        return task, getattr(jo, numbers.pop("name"))(**numbers)

    rules = {"eval_every": EVAL_EVERY, "seed": seed, "metric": "valid.loss", "width": WIDTH}
    best = jo.sweep(trial, space, TRIALS, budget // TRIALS, BATCH_SIZE, policy=policy, **rules).best
    return best.metrics, best.config["optimizer"]["name"]


def compare(name, methods, budget, seeds):
    """By method: scores with the whole budget, and of those in one run also with an eighth of it; winners' kinds."""
    make, score = TASKS[name]
    found = {}
    for method in methods:
        if method in ONE_RUN:
            short, whole = (score(one_run(make(), ONE_RUN[method], n, seeds)) for n in (budget // TRIALS, budget))
            found[method] = {"scores": whole, "short": short}
            continue
        space, policy = SEARCHES[method]
        runs = [search(make(), space, policy, seed, budget) for seed in range(seeds)]
        scores = np.concatenate([score(metrics) for metrics, _ in runs])
        found[method] = {"scores": scores, "winners": [kind for _, kind in runs]}
    for method, row in found.items():
        row |= record.compared(row["scores"], found[PEER]["scores"])
        short = (
            "" if "short" not in row else "   after an eighth {:.4f} ± {:.4f}".format(*record.interval(row["short"]))
        )
        words = "{mean:.4f} ± {half_width:.4f}   {difference:+.4f} ± {difference_half_width:.4f}".format(**row)
        print(f"{name:9} {method:27} {words}{short}", flush=True)
    return found


def main(quick=False):
    """Give the budget to each method on each task, judge, draw, and check the claim."""
    budget, seeds, names = (BUDGET // 2, 2, FEW) if quick else (BUDGET, SEEDS, (*ONE_RUN, *SEARCHES))
    found = {name: compare(name, names, budget, seeds) for name in (("Friedman",) if quick else TASKS)}
    directory = record.folder("automatic", quick)
    record.write(directory, {"budget": budget, "trials": TRIALS, "tasks": found})
    draw(found, directory / "automatic.png")
    for name, rows in found.items():
        for method in ("Prodigy", "population-based, AdamW"):
            gain = rows[method]["difference"]
            print(f"{name}: {method} {gain:+.4f} over the {PEER}")
            assert gain > (-0.1 if quick else -0.005), (name, method, gain)


def draw(found, path):
    """The score of each method on each task, with its interval; the best at the top."""
    figure = record.figure(14, 0.9 + 0.34 * len(next(iter(found.values()))))
    for axes, (name, rows) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        order = sorted(rows, key=lambda method: -rows[method]["mean"])
        for place, method in enumerate(order):
            row, kind = rows[method], "search" if method in SEARCHES else "fixed" if method in FIXED else "free"
            axes.errorbar(row["mean"], place, xerr=row["half_width"], fmt="o", color=COLORS[kind], capsize=3)
            if "short" in row:
                axes.plot(np.mean(row["short"]), place, "o", color=COLORS[kind], markerfacecolor="none", markersize=5)
        for kind, label in LABELS.items():
            axes.plot([], [], "o", color=COLORS[kind], label=label)
        axes.plot([], [], "o", color="0.4", markerfacecolor="none", markersize=5, label="after an eighth of the steps")
        low, high = (rows[order[0]]["mean"] + SHOWN[name] * part for part in (-1, 1 / 12))
        for place, method in enumerate(order):
            if rows[method]["mean"] < low:
                axes.text(low, place, f" ← {rows[method]['mean']:.2f} ± {rows[method]['half_width']:.2f}", va="center")
        axes.set(xlim=(low, high), xlabel=f"test {METRICS[name]}")
        axes.set_title(f"{name}: mean of {len(rows[PEER]['scores'])} seeds, 95 % interval")
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.grid(alpha=0.25, axis="x")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
