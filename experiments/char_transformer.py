"""8-bit AdamW and bfloat16 weights, rounded by chance, end within 1 % of float32 AdamW's loss on a small transformer.

Run      python -m experiments.char_transformer [--quick]          about 38 minutes on two CPU cores
Writes   runs/char_transformer/{result.json, curves.png}, and parts/*.json, from which a killed run resumes
Data     the text of experiments.characters, 5 % of it to validate and 5 % to test
Result   8-bit AdamW ends at 0.997 of AdamW's validation loss, bfloat16 weights at 1.000. Muon is far ahead, 1.315
         against AdamW's 1.526 nats, also in AdamW's time, 1.436; then SOAP, 1.414 and 1.489; schedule-free AdamW is
         level with AdamW, 1.512 and 1.531; 8 bits and bfloat16 lose in equal time, 1.565 and 1.551

A transformer of a million parameters (5 layers of width 128, contexts of 64 characters) in batches of 8 windows. AdamW,
Muon, SOAP and schedule-free AdamW are tuned by one vmapped sweep each, over the same 16 points of one space: the
learning rate, and the momentum (b1, beta), all else alike: b2 = 0.99, weight decay 0.1, a warm-up over a tenth of the
steps and then a cosine to zero; schedule-free AdamW has the warm-up alone. A trial takes 300 steps. The config with the
least validation loss trains for 1,000 steps with three seeds that no trial has seen. AdamW's config is used again with
its state in 8 bits, and with weights in bfloat16 that are rounded stochastically. Embeddings and the last layer keep
32 bits (`min_size`): in 8 bits second moments of rare characters become zero beside those of frequent ones, and of
three seeds one was not finite and two ended at 1.78 and 1.84.

Equal time is that of AdamW's 1,000 steps. The seconds of a step are measured with all methods in turns; each method
trains anew for as many steps as fit, to the nearest 50, its schedule as much shorter; schedule-free AdamW, which has
none, is looked at on its way.
Set OPENBLAS_NUM_THREADS=1: with more threads SOAP's decompositions take longer.
"""

import functools
import json
import shutil
import statistics
import sys
from typing import NamedTuple

import jax
import numpy as np

import jaxopt_lite as jo
from experiments import characters, record
from experiments.benchmarks import timing
from jaxopt_lite.log.records import write_json

WIDTH, BATCH_SIZE, FRESH = 2, 8, 1000  # wider cohorts are slower on two cores
B2, DECAY = 0.99, 0.1
SPACE = {"learning_rate": jo.log_uniform(3e-4, 3e-2), "momentum": jo.one_minus_log_uniform(0.8, 0.98)}
OPTIMIZER = "adamw(3e-3, b2=0.99, weight_decay=0.1)"


class Form(NamedTuple):
    """How much is done."""

    layers: int = 5
    width: int = 128
    heads: int = 4
    trials: int = 16
    trial_steps: int = 300
    steps: int = 1000
    every: int = 50
    seeds: int = 3
    rounds: int = 6


FULL, QUICK = Form(), Form(1, 64, 2, 2, 20, 80, 20, 2, 1)


def adamw(rate, momentum, steps):
    """AdamW with the schedule."""
    return jo.adamw(schedule(rate, steps), momentum, B2, weight_decay=DECAY)


def muon(rate, momentum, steps):
    """Muon whose steps have the size of AdamW's."""
    decays = {"weight_decay": DECAY, "adam_weight_decay": DECAY}
    return jo.muon(schedule(rate, steps), beta=momentum, adam_b1=momentum, adam_b2=B2, consistent_rms=0.2, **decays)


def soap(rate, momentum, steps):
    """SOAP with the schedule."""
    return jo.soap(schedule(rate, steps), momentum, B2, weight_decay=DECAY)


def schedule_free(rate, momentum, steps):
    """Schedule-free AdamW, with the warm-up of the others."""
    return jo.schedule_free_adamw(rate, steps // 10, momentum, B2, weight_decay=DECAY)


TUNED = {"AdamW": adamw, "Muon": muon, "SOAP": soap, "schedule-free AdamW": schedule_free}
SMALL = {  # at AdamW's config: what is put around it, and the dtype of the weights
    "8-bit AdamW": (functools.partial(jo.quantize_state, min_size=2**14), "float32"),
    "bfloat16, stochastic rounding": (jo.stochastic_rounding, "bfloat16"),
}
COLORS = dict(zip([*TUNED, *SMALL], ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"), strict=True))


def schedule(peak, steps):
    """Up over a tenth of the steps, then down to zero by a cosine."""
    return jo.warmup_cosine_decay_schedule(0.0, peak, steps // 10, steps)


def task(form=FULL, dtype="float32"):
    """The task, with weights of a dtype."""
    return characters.task(form.layers, form.width, form.heads, dtype)


def method(name, config, steps, form):
    """(task, optimizer) of a method, with the numbers that its tuning found."""
    rate, momentum = config["learning_rate"], config["momentum"]
    if name in TUNED:
        return task(form), TUNED[name](rate, momentum, steps)
    wrapper, dtype = SMALL[name]
    return task(form, dtype), wrapper(adamw(rate, momentum, steps))


def trial(config):
    """The task and AdamW for a config of a sweep."""
    return method("AdamW", config, FULL.trial_steps, FULL)


class Parts:
    """Results of parts of a run in files: a run that was killed takes over those that it finds."""

    def __init__(self, directory, settings):
        self.directory, self.settings = directory, settings
        directory.mkdir(exist_ok=True)

    def __call__(self, name, make):
        """What the part found, made now unless it was made before with the same settings."""
        path = self.directory / f"{name.replace(' ', '-').replace(',', '')}.json"
        if path.exists() and (kept := json.loads(path.read_text(encoding="utf-8")))["settings"] == self.settings:
            print(f"{name}: taken from {path}", flush=True)
            return kept["found"]
        write_json(path, {"settings": self.settings, "found": make()})
        found = json.loads(path.read_text(encoding="utf-8"))["found"]
        print(f"{name}: {found.get('line', 'done')}", flush=True)
        return found


def tune(name, form):
    """The configs of a sweep with their validation losses, and the best."""
    make = lambda config: method(name, config, form.trial_steps, form)
    rules = {"eval_every": form.trial_steps, "metric": "valid.loss", "width": WIDTH}
    result = jo.sweep(make, SPACE, form.trials, form.trial_steps, BATCH_SIZE, **rules)
    scores, best = result.curves["valid.loss"][:, 0, -1], result.best.config
    line = f"valid loss {result.best.score:.4f} with {', '.join(f'{k} {v:.3g}' for k, v in best.items())}"
    return {"best": best, "configs": [trial.config for trial in result.trials], "valid": scores, "line": line}


def train(name, config, steps, seed, form):
    """The validation loss at each point, and the test loss at the end, of one run."""
    result = jo.fit(*method(name, config, steps, form), steps, BATCH_SIZE, FRESH + seed, form.every)
    curve, test = result.history["valid.loss"], float(result.metrics["test.loss"])
    return {"steps": result.history["step"], "valid": curve, "test": test, "line": f"{curve[-1]:.4f}, test {test:.4f}"}


def train_all(part, name, config, steps, form):
    """Runs of one method with all seeds: {"steps" [points], "valid" [seeds, points], "test" [seeds]}."""
    runs = []
    for seed in range(form.seeds):
        make = functools.partial(train, name, config, steps, seed, form)
        runs.append(part(f"train {name} {steps} steps seed {seed}", make))
    return {"steps": runs[0]["steps"], **{key: np.array([run[key] for run in runs]) for key in ("valid", "test")}}


def costs(configs, form):
    """The median seconds of a training step by method, and the bytes of state and weights for each parameter.

    Methods take turns of ten steps, in each of which SOAP refreshes its basis once.
    """
    turns, found = {}, {}
    for name, config in configs.items():
        own, optimizer = method(name, config, form.steps, form)
        held, step, batch = [jo.init_state(own, optimizer)], jo.make_step(own.loss), own.train[:BATCH_SIZE]

        def turn(held=held, step=step, batch=batch):
            for _ in range(10):
                held[0], _ = step(held[0], batch)
            jax.block_until_ready(held[0])

        params = held[0].params
        count = sum(p.size for p in jax.tree.leaves(params))
        weights = sum(p.nbytes for p in jax.tree.leaves(params)) / count
        found[name] = {"parameters": count, "weights": weights, "state": jo.state_bytes(optimizer, params) / count}
        turns[name] = turn
    measured = timing.alternate(turns, form.rounds, "seconds of a step")
    return {name: row | {"seconds": statistics.median(measured[name]) / 10} for name, row in found.items()}


def at_equal_time(part, name, row, budget, form):
    """Steps that fit into the seconds of the budget, and the validation losses after them, [seeds]."""
    steps = max(1, round(budget / row["seconds"] / form.every)) * form.every
    if steps == form.steps or (steps < form.steps and name == "schedule-free AdamW"):
        return {"steps": steps, "valid": row["runs"]["valid"][:, steps // form.every - 1]}
    return {"steps": steps, "valid": train_all(part, name, row["config"], steps, form)["valid"][:, -1]}


def main(quick=False):
    """Tune, train, time, write, draw, and check the claim."""
    form, names = (QUICK, ("AdamW", *SMALL)) if quick else (FULL, (*TUNED, *SMALL))
    directory = record.folder("char_transformer", quick)
    if quick:
        shutil.rmtree(directory / "parts", ignore_errors=True)
    settings = {"text": characters.text()[0], "batch": BATCH_SIZE, "b2": B2, "decay": DECAY, **form._asdict()}
    part = Parts(directory / "parts", settings)
    tuned = {name: part(f"tune {name}", functools.partial(tune, name, form)) for name in names if name in TUNED}
    configs = {name: tuned.get(name, tuned["AdamW"])["best"] for name in names}
    runs = {name: train_all(part, name, config, form.steps, form) for name, config in configs.items()}
    cost = part("costs", lambda: costs(configs, form))
    found = {name: cost[name] | {"config": configs[name], "runs": runs[name]} for name in names}
    budget, peer = cost["AdamW"]["seconds"] * form.steps, runs["AdamW"]
    for name, row in found.items():
        row["equal time"] = at_equal_time(part, name, row, budget, form)
        row["equal steps"] = record.compared(row["runs"]["valid"][:, -1], peer["valid"][:, -1])
        row["test"] = record.compared(row["runs"]["test"], peer["test"])
    print(table(found))
    record.write(directory, {"settings": settings, "tuned": tuned, "methods": found})
    draw(found, tuned, budget, directory / "curves.png")
    shutil.rmtree(directory / "parts")  # the next run begins anew
    for name in SMALL:
        ratio = found[name]["equal steps"]["mean"] / found["AdamW"]["equal steps"]["mean"]
        print(f"{name}: {ratio:.4f} of AdamW's validation loss")
        assert ratio <= 1.01, (name, ratio)


def table(found):
    """Losses at equal steps and at equal time, seconds and bytes, as Markdown; the least loss first."""
    rows, budget = [], found["AdamW"]["seconds"]
    for name, row in sorted(found.items(), key=lambda item: item[1]["equal steps"]["mean"]):
        same, test = ("{mean:.4f} ± {half_width:.4f}".format(**row[key]) for key in ("equal steps", "test"))
        mean, half = record.interval(row["equal time"]["valid"])
        cells = [name, same, test, f"{mean:.4f} ± {half:.4f}", str(row["equal time"]["steps"])]
        rows.append([*cells, f"{row['seconds'] / budget:.2f}", f"{row['state']:.2f}", f"{row['weights']:.2f}"])
    heads = ["method", "valid loss, equal steps", "test loss", "valid loss, equal time", "steps in that time"]
    return record.table([*heads, "time of a step", "bytes of state", "of weights"], rows)


def draw(found, tuned, budget, path):
    """The tuning, and the loss against steps and against time."""
    figure = record.figure(15, 4.6)
    left, middle, right = figure.subplots(1, 3)
    for name, row in tuned.items():
        rates = [config["learning_rate"] for config in row["configs"]]
        left.plot(rates, row["valid"], "o", color=COLORS[name], markersize=4, alpha=0.8, label=name)
    least = min(np.nanmin(np.float64(row["valid"])) for row in tuned.values())
    left.set(xscale="log", xlabel="learning rate", ylim=(least - 0.05, least + 1.2))
    left.set_title("The tuning: trials, momentum varies too")
    for name, row in found.items():
        steps, curves = np.array(row["runs"]["steps"]), row["runs"]["valid"]
        style = {"color": COLORS[name], "linestyle": "--" if name in SMALL else "-", "linewidth": 1.6}
        middle.plot(steps, curves.mean(axis=0), label=name, **style)
        right.plot(steps * row["seconds"], curves.mean(axis=0), label=name, **style)
        right.plot(budget, row["equal time"]["valid"].mean(), "*", color=COLORS[name], markersize=10, zorder=3)
    right.axvline(budget, color="0.6", linewidth=0.8)
    right.plot([], [], "*", color="0.4", markersize=10, label="trained to end in AdamW's time")
    low = min(row["runs"]["valid"].mean(axis=0).min() for row in found.values())
    for axes, label, title in ((middle, "step", "At equal steps"), (right, "seconds of training", "At equal time")):
        axes.set(xlabel=label, ylim=(low - 0.05, low + 1.0))
        axes.set_title(f"{title}: means of {len(found['AdamW']['runs']['test'])} seeds")
    for axes in (left, middle, right):
        axes.set_ylabel("validation loss, nats a character")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
