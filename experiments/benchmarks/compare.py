"""Optimizers compared on eleven small workloads: steps and time to a target, equal tuning, fresh seeds, intervals.

Run      python -m experiments.benchmarks.compare [--quick] [WORKLOAD ...]       about 20 minutes on two CPU cores
Writes   experiments/benchmarks/results/compare-BACKEND.json        (compare-BACKEND-quick.json with --quick)
Then     python -m experiments.benchmarks.comparison                makes docs/comparison.md and its picture

The protocol, the same for every optimizer and workload, written down before anything was run:

1.  Tuning. 32 configs from Sobol's sequence, one seed: the learning rate, log-uniform from 1e-4 to 10, and what else
    the table `CONTENDERS` lists. All have the budget of steps of the workload and a constant learning rate.
2.  The target is the validation loss that has come down from the start all but a twentieth of the way to the least one
    that any optimizer saw in tuning.
3.  The config that reaches the target in the fewest steps is chosen; where none does, the one with the least loss.
4.  Judging. The chosen config runs from 10 seeds that tuning has not seen, paired: seed i is the same start and the
    same batches for every optimizer. What counts is the step of the first of 50 points that is at the target.
5.  Time is these steps times the seconds of a step, the median of runs in which the optimizers take turns.
6.  Pairs are compared seed by seed on each workload (`verdicts.pairs`), and all together by performance profiles.
"""

import argparse
import re
import statistics
import time
from typing import Any

import jax
import numpy as np

import jaxopt_lite as jo
from experiments.benchmarks import timing, verdicts
from experiments.benchmarks.workloads import WORKLOADS, Workload

DECAY = jo.one_minus_log_uniform
MOMENTUM, SQUARES = DECAY(0.5, 0.99), DECAY(0.9, 0.999)
BOTH = {"b1": MOMENTUM, "b2": SQUARES}
INNER = re.compile(r"hidden/w|encoder/\d/w|decoder/0/w")


def hidden(params: Any) -> Any:
    """The labels of Muon on the workloads: all matrices of networks but that of the last layer; the rest is AdamW's."""
    path = lambda keys: jax.tree_util.keystr(keys, simple=True, separator="/")
    label = lambda keys, p: "matrix" if np.ndim(p) == 2 and INNER.fullmatch(path(keys)) else "adam"
    return jax.tree_util.tree_map_with_path(label, params)


def muon(learning_rate: float, momentum: float, b2: float) -> jo.GradientTransformation:
    """Muon with steps of AdamW's size and one momentum in both; where nothing is a hidden matrix, it is AdamW."""
    adam = {"adam_b1": momentum, "adam_b2": b2}
    return jo.muon(learning_rate, beta=momentum, consistent_rms=0.2, labels=hidden, **adam)


CONTENDERS = {  # recipe, and what is tuned besides the learning rate
    "SGD": (jo.sgd, {}),
    "heavy ball": (jo.sgd, {"momentum": MOMENTUM}),
    "Nesterov": (lambda **config: jo.sgd(nesterov=True, **config), {"momentum": MOMENTUM}),
    "Adagrad": (jo.adagrad, {"initial_accumulator_value": jo.log_uniform(1e-4, 1.0)}),
    "RMSProp": (jo.rmsprop, {"decay": DECAY(0.8, 0.999)}),
    "Adam": (jo.adam, BOTH),
    "AdamW": (jo.adamw, {**BOTH, "weight_decay": jo.log_uniform(1e-5, 1.0)}),
    "NAdam": (jo.nadam, BOTH),
    "AdaBelief": (jo.adabelief, BOTH),
    "Lion": (jo.lion, BOTH),
    "Muon": (muon, {"momentum": MOMENTUM, "b2": SQUARES}),
    "SOAP": (lambda **config: jo.soap(weight_decay=0.0, **config), BOTH),
    "schedule-free SGD": (jo.schedule_free_sgd, {"b1": MOMENTUM}),
    "schedule-free AdamW": (jo.schedule_free_adamw, BOTH),
    "Prodigy": (lambda learning_rate, b1, b2: jo.prodigy(learning_rate, (b1, b2)), BOTH),  # the rate multiplies its own
    "AdEMAMix": (jo.ademamix, {**BOTH, "b3": DECAY(0.99, 0.9999)}),
    "ADOPT": (jo.adopt, BOTH),
    "cautious Adam": (lambda **config: jo.cautious(jo.adam(**config)), BOTH),
}
RATES = jo.log_uniform(1e-4, 10.0)
TRIALS, SEEDS, FRESH, ROUNDS = 32, 10, 1000, 3
METRIC = "valid.loss"


def tune(workload: Workload, name: str, trials: int) -> jo.SweepResult:
    """One optimizer's share of the tuning."""
    recipe, others = CONTENDERS[name]
    return jo.sweep(
        lambda config: (workload.task(), recipe(**config)),
        {"learning_rate": RATES, **others},
        trials,
        workload.steps,
        workload.batch_size,
        eval_every=workload.eval_every,
        metric=METRIC,
        mode="min",
    )


def start_of(workload: Workload) -> float:
    """The validation loss before the first step, mean of five seeds."""
    task = workload.task()
    measure = task.evaluate or (lambda params, data: {"loss": task.loss(params, data, jax.random.key(0))})
    losses = [measure(jo.init_state(task, jo.sgd(0.0), seed).params, task.valid)["loss"] for seed in range(5)]
    return float(np.mean(losses))


def choose(sweep: jo.SweepResult, target: float) -> dict[str, float]:
    """The config that came to the target first; where several did, or none, the one with the least loss."""
    curves = sweep.curves[METRIC][:, 0]
    least = np.nan_to_num(curves, nan=np.inf).min(axis=1)
    order = np.lexsort((least, verdicts.to_target(sweep.steps, curves, target)))
    return {name: float(value) for name, value in sweep.trials[order[0]].config.items()}


def judge(workload: Workload, chosen: dict[str, dict], target: float, seeds: int, rounds: int) -> dict[str, dict]:
    """Steps and seconds to the target of every optimizer, [seeds] each."""
    runs, turns = {}, {}
    for name, config in chosen.items():
        rule = CONTENDERS[name][0](**config)

        def turn(name=name, optimizer=rule):
            rules = {"eval_every": workload.eval_every, "seed": FRESH, "seeds": seeds, "metric": METRIC}
            runs[name] = jo.fit(workload.task(), optimizer, workload.steps, workload.batch_size, **rules)

        turns[name] = turn
    seconds = timing.alternate(turns, rounds, workload.what)
    rows = {}
    for name in chosen:
        run = runs[name]
        steps = verdicts.to_target(run.history["step"], run.history[METRIC], target)
        one = statistics.median(seconds[name]) / (workload.steps * seeds)
        rows[name] = {"config": chosen[name], "steps": steps, "seconds_a_step": one, "seconds": one * steps}
    return rows


def compare(name: str, trials: int, seeds: int, rounds: int) -> dict:
    """All optimizers on one workload."""
    workload, sweeps = WORKLOADS[name], {}
    for optimizer in CONTENDERS:
        timing.progress(f"{name}: tuning {optimizer}")
        sweeps[optimizer] = tune(workload, optimizer, trials)
    start = start_of(workload)
    best = {optimizer: float(np.nanmin(sweep.curves[METRIC])) for optimizer, sweep in sweeps.items()}
    target = verdicts.at_target(min(best.values()), start)
    chosen = {optimizer: choose(sweep, target) for optimizer, sweep in sweeps.items()}
    rows = judge(workload, chosen, target, seeds, rounds)
    for optimizer, row in rows.items():
        reached = int(np.isfinite(row["steps"]).sum())
        print(f"{name:14}{optimizer:20}{np.median(row['steps']):>8,.0f} steps   {reached} of {seeds} seeds", flush=True)
    about = {"what": workload.what, "budget": workload.steps, "batch_size": workload.batch_size}
    return {**about, "start": start, "best": best, "target": target, "rows": rows}


def main() -> None:
    """Compare on the workloads named, or on all, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer trials and seeds")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.workloads) - set(WORKLOADS))
    if unknown:
        parser.error(f"there is no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    trials, seeds, rounds = (8, 3, 1) if arguments.quick else (TRIALS, SEEDS, ROUNDS)
    began, found = time.perf_counter(), {}
    for name in arguments.workloads or WORKLOADS:
        found[name] = compare(name, trials, seeds, rounds)
        if not arguments.workloads:  # after each, so that an interrupted run leaves what it measured
            path = timing.write("compare", arguments.quick, {"trials": trials, "seeds": seeds, "workloads": found})
            print(f"wrote {path} after {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
