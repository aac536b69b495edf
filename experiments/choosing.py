"""Whichever of three searches chooses among five optimizers, its winner beats adam(1e-3) on held-out digits.

Run      python -m experiments.choosing [--quick]        about 2 minutes on two CPU cores
Writes   runs/choosing/{result.json, choosing.png}
Data     scikit-learn's digits, split 60/20/20: sweeps see the validation images, the test images judge their winners
Result   test accuracy 0.975 ± 0.001 (full sweep), 0.976 ± 0.002 (successive halving), 0.976 ± 0.001 (population-based):
         means of 5 sweeps, 95 %; adam(1e-3) 0.963 ± 0.005, mean of 5 seeds. The gains are 0.012 ± 0.006, 0.013 ± 0.007
         and 0.013 ± 0.005, seed by seed

What is searched is the optimizer's kind and its numbers at once. Each sweep may spend 16,000 member-steps, a step of
one trial with one seed: 40 whole trials of 400 steps; or a population of 40; or, by successive halving, 256 trials, of
which 64 are promoted after 25 steps, and 16 after 100. The lowest validation loss chooses. Winners are trained again
with five seeds that no sweep has seen; that of population-based training is a schedule, so its lineage is replayed.
Not settled: which search is best. In test accuracy their means differ by a tenth of a point, and every interval of a
difference holds 0; so it does in validation loss, where halving is ahead of the full sweep by 0.011 ± 0.013.
Nor which optimizer: four of the five won a sweep, and the best whole trials of all five kinds reach 0.974 to 0.976.
Halving favours those that begin fast: of 80 trials that it let come to the end, two were AdaGrad's and none Lion's.
The reduced form is one sweep by each method, over two optimizers, with a quarter of the budget.
"""

import itertools
import sys

import numpy as np

import jaxopt_lite as jo
from experiments import digits, record

STEPS, BATCH_SIZE, EVAL_EVERY = 400, 128, 25
WHOLE, HALVED = 40, 256  # 256 trials to step 25, 64 to 100, 16 to 400 are 16,000 member-steps: 40 whole trials
SWEEPS, FRESH, FIRST_FRESH, WIDTH = 5, 5, 1000, 8


def around(usual):
    """Four decades of learning rates, the usual one in the middle."""
    return jo.log_uniform(usual / 100, usual * 100)


B1, B2 = jo.one_minus_log_uniform(0.5, 0.99), jo.one_minus_log_uniform(0.9, 0.9999)
KINDS = {
    "sgd": {"learning_rate": around(1e-1), "momentum": B1},
    "adagrad": {"learning_rate": around(1e-2)},
    "rmsprop": {"learning_rate": around(1e-3), "decay": B2, "momentum": B1},
    "adam": {"learning_rate": around(1e-3), "b1": B1, "b2": B2},
    "lion": {"learning_rate": around(1e-4), "b1": B1, "b2": B2, "weight_decay": jo.log_uniform(1e-5, 1.0)},
}
SPACE = jo.space({"optimizer": jo.choice(KINDS)})
FEW = jo.space(SPACE, where=lambda config: config["optimizer"]["name"] in ("sgd", "adam"))  # for --quick
RIVAL = {"optimizer": {"name": "adam", "learning_rate": 1e-3, "b1": 0.9, "b2": 0.999}}
# The policy of each method, and the steps at which it decides.
METHODS = {
    "full sweep": (None, [STEPS]),
    "successive halving": (jo.successive_halving(4, min_steps=EVAL_EVERY), [25, 100, 400]),
    "population-based": (jo.population_based(interval=50), list(range(50, STEPS + 1, 50))),
}
COLORS = dict(zip(METHODS, ("#0072B2", "#009E73", "#D55E00"), strict=True))


def trial(config):
    """The digits, and the optimizer of that name with its numbers."""
    numbers = dict(config["optimizer"])
    return digits.task(), getattr(jo, numbers.pop("name"))(**numbers)


def sweep(trials, policy, seed, space=SPACE, **given):
    """A sweep in which the validation loss decides."""
    given |= {"batch_size": BATCH_SIZE, "eval_every": EVAL_EVERY, "metric": "valid.loss"}
    return jo.sweep(trial, space, trials, STEPS, policy=policy, seed=seed, **given)


def judge(changes):
    """Test accuracy and loss with seeds that no sweep has seen, float [seeds] each.

    A lineage is replayed, so that a schedule is judged as a schedule; that of a fixed config is a single change.
    """
    first = SPACE.configs(np.array([changes[0].row]))
    metrics = sweep(1, jo.replay(changes), FIRST_FRESH, seeds=FRESH, initial=first).best.metrics
    return {name: np.asarray(metrics[f"test.{name}"], np.float64) for name in ("accuracy", "loss")}


def fixed(row):
    """The lineage of a config that stays as it is."""
    return (jo.Change(0, tuple(row.tolist()), False),)


def so_far(ledger, rungs):
    """Member-steps and the lowest validation loss so far, at each improvement, if members run one after the other.

    All of them come to a rung before any goes beyond it; a full sweep has one rung, its end.
    """
    scores = ledger.scores
    trials, points = np.nonzero(~np.isnan(scores))
    order = np.lexsort((points, trials, np.searchsorted(rungs, (points + 1) * EVAL_EVERY)))
    best = np.minimum.accumulate(scores[trials[order], points[order]])
    lower = np.append(True, best[1:] < best[:-1])
    return EVAL_EVERY * (1 + np.flatnonzero(lower)), best[lower]


def kinds_of(table):
    """The names of the optimizers in the rows of a table."""
    return SPACE.columns(table)["optimizer.name"]


def search(name, seed, quick):
    """One sweep by a method: what it cost, its winner, and how that does on the test data; and the ledger."""
    policy, rungs = METHODS[name]
    trials = (HALVED if name == "successive halving" else WHOLE) // (4 if quick else 1)
    result = sweep(trials, policy, seed, FEW if quick else SPACE, width=WIDTH)
    ledger = result.ledger
    changes = jo.lineage(ledger, result.best.number)
    steps, best = so_far(ledger, rungs)
    whole = ledger.step == STEPS
    rows = np.array([change.row for change in changes])
    return {
        "trials": trials,
        "member-steps": EVAL_EVERY * int((~np.isnan(ledger.scores)).sum()),
        "diverged": ledger.summary()["diverged"],
        "kind": kinds_of(rows[-1:])[0],
        "lineage": [{"step": c.step, **SPACE.encode(row)} for c, row in zip(changes, rows, strict=True)],
        "valid loss": result.best.score,
        "test": judge(changes),
        "so far": {"member-steps": steps, "valid loss": best},
        "whole": {  # the trials that came to the end
            "kind": kinds_of(ledger.table)[whole],
            "valid loss": ledger.last_scores()[whole],
        },
    }, ledger


def best_of_each_kind(ledgers):
    """Of all whole trials of some sweeps, the best of each optimizer, judged: {"trials", "config", "test"} by name."""
    table = np.concatenate([ledger.table for ledger in ledgers])
    scores, kinds = np.concatenate([ledger.last_scores() for ledger in ledgers]), kinds_of(table)
    found = {}
    for kind in KINDS:
        row = table[min(np.flatnonzero(kinds == kind), key=lambda i: scores[i])]
        found[kind] = {"trials": int((kinds == kind).sum()), "config": SPACE.encode(row), "test": judge(fixed(row))}
    return found


def summarise(found, rival):
    """Means and halves of 95 % intervals: over sweeps; of adam(1e-3), and of the gains over it, over fresh seeds."""
    summary = {}
    for metric in ("accuracy", "loss"):
        tested = {name: np.array([run["test"][metric] for run in runs]) for name, runs in found.items()}
        over_seeds = {f"{name} - adam(1e-3)": scores.mean(axis=0) - rival[metric] for name, scores in tested.items()}
        over_sweeps = {name: scores.mean(axis=1) for name, scores in tested.items()}
        summary[f"test {metric}"] = {**paired(over_sweeps), **intervals({"adam(1e-3)": rival[metric], **over_seeds})}
    valid = {name: np.array([run["valid loss"] for run in runs]) for name, runs in found.items()}
    return {**summary, "valid loss": paired(valid)}


def paired(values):
    """Intervals of each method and of their differences, sweep by sweep."""
    pairs = itertools.combinations(values, 2)
    return intervals({**values, **{f"{one} - {other}": values[one] - values[other] for other, one in pairs}})


def intervals(columns):
    """Mean and half of its 95 % interval by name; of a single value there is none."""
    return {
        name: record.interval(column) if len(column) > 1 else (float(column[0]), float("nan"))
        for name, column in columns.items()
    }


def main(quick=False):
    """Search by the three methods, judge the winners, draw, and check the claim."""
    directory, seeds = record.folder("choosing", quick), range(1 if quick else SWEEPS)
    searched = {name: [search(name, seed, quick) for seed in seeds] for name in METHODS}
    found = {name: [run for run, _ in runs] for name, runs in searched.items()}
    rival = judge(fixed(SPACE.table([RIVAL])[0]))
    summary = summarise(found, rival)
    kinds = {} if quick else best_of_each_kind([ledger for _, ledger in searched["full sweep"]])
    for name, runs in found.items():
        print(f"{name}: {runs[0]['trials']} trials; the winners are {', '.join(run['kind'] for run in runs)}")
    for metric, rows in summary.items():
        for name, (mean, half) in rows.items():
            print(f"{metric:13} {name:42} {mean:8.4f} ± {half:.4f}")
    for kind, row in kinds.items():
        mean, half = record.interval(row["test"]["accuracy"])
        print(f"best of {row['trials']} {kind:8} test accuracy {mean:.4f} ± {half:.4f}")
    record.write(directory, {"searches": found, "adam(1e-3)": rival, "best of each kind": kinds, "summary": summary})
    draw(found, rival, summary, directory / "choosing.png")
    accuracy = summary["test accuracy"]
    for name in METHODS:
        gain, half = accuracy[f"{name} - adam(1e-3)"]
        assert gain - (0 if quick else half) > 0, (name, gain, half)
        assert quick or abs(accuracy[name][0] - accuracy["full sweep"][0]) < 0.005, accuracy


def draw(found, rival, summary, path):
    """The search over its budget, which optimizer won, and how the winners do on the test data."""
    figure = record.figure(14, 4.4)
    left, middle, right = figure.subplots(1, 3)
    for name, runs in found.items():
        grid = np.arange(EVAL_EVERY, max(run["member-steps"] for run in runs) + 1, EVAL_EVERY)
        pairs = [run["so far"].values() for run in runs]
        curves = [best[np.searchsorted(steps, grid, side="right") - 1] for steps, best in pairs]
        left.plot(grid / 1000, np.transpose(curves), color=COLORS[name], linewidth=0.7, alpha=0.4)
        left.plot(grid / 1000, np.median(curves, axis=0), color=COLORS[name], linewidth=2, label=name)
    left.set(yscale="log", xlabel="member-steps, thousands", ylabel="lowest validation loss so far", ylim=(None, 1))
    left.set_title("The search: each sweep, and the median")
    left.legend(frameon=False)

    place, rng = {kind: i for i, kind in enumerate(KINDS)}, np.random.default_rng(0)
    for run in found["full sweep"]:
        x = [place[kind] for kind in run["whole"]["kind"]] + rng.uniform(-0.3, -0.1, len(run["whole"]["kind"]))
        middle.plot(x, run["whole"]["valid loss"], ".", color="0.7", markersize=4, zorder=1)
    for j, (name, runs) in enumerate(found.items()):
        x = [place[run["kind"]] + 0.05 + 0.12 * j for run in runs]
        y = [run["valid loss"] for run in runs]
        middle.plot(x, y, "*", color=COLORS[name], markersize=9, label=f"winners, {name}", alpha=0.8)
    middle.plot([], [], ".", color="0.7", label="all of the full sweeps")
    middle.set(yscale="log", ylabel="validation loss", ylim=(None, 60), title=f"Which optimizer: after {STEPS} steps")
    middle.set_xticks(range(len(KINDS)), KINDS)
    middle.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)

    dots = {name: [run["test"]["accuracy"].mean() for run in runs] for name, runs in found.items()}
    dots["adam(1e-3)"] = rival["accuracy"]
    for i, (name, values) in enumerate(dots.items()):
        mean, half = summary["test accuracy"][name]
        color = COLORS.get(name, "0.4")
        right.errorbar(i, mean, half, fmt="o", color=color, capsize=5, linewidth=2)
        right.plot(np.full(len(values), i + 0.15), values, "o", color=color, alpha=0.4, markersize=4)
    right.set_xticks(range(len(dots)), [name.replace(" ", "\n").replace("-b", "-\nb") for name in dots], fontsize=9)
    right.set(xlim=(-0.5, len(dots) - 0.5), ylabel="test accuracy", title="Winners, fresh seeds: means, 95 %")
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
