"""Checkpoints every 100 steps cost at most 3 % of a run's time, trackers at most 2 %.

Run      python -m experiments.benchmarks.keeping [--quick]       about 10 minutes on two CPU cores, 1 with --quick
Writes   experiments/benchmarks/results/keeping-BACKEND.json      (keeping-BACKEND-quick.json with --quick)

A run is `fit` of the character transformer of `experiments.char_transformer`, about a million parameters, with AdamW,
500 steps and a point every 100, from the call to the result, without evaluation, which would hide what is kept. `ratio`
is its time in units of the first of its case, in the same round, the median over rounds; that run's own ratio `again`
is the noise. Checkpoints are of parameters, both moments and the rest of the run, written by a thread beside the steps;
the time to write the last one, at the end, is counted. With trackers, a point comes every 10 steps. `directory` writes
the history, the summary, and the picture, which alone takes a second.
"""

import itertools
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax

import jaxopt_lite as jo
from experiments import char_transformer
from experiments.benchmarks import timing

STEPS, EVERY, ROUNDS, QUICK = 500, 100, 5, (40, 20, 1)
COLUMNS = {"case": "<18s", "contender": "<32s", "seconds": ">8.2f", "ratio": ">6.3f", "target": "<24s"}


def measure(steps: int, every: int, rounds: int, form) -> list[dict]:
    """Rows for checkpoints and for trackers."""
    task, optimizer, number = char_transformer.task(form), jo.adamw(1e-3), itertools.count()
    blind = jo.Task(task.init, task.loss, task.train)  # evaluation would hide what is kept

    with tempfile.TemporaryDirectory() as home:

        def run(every, **more):
            jax.block_until_ready(jo.fit(blind, optimizer, steps, 8, eval_every=every, **more).params)

        def folder():
            return Path(home) / str(next(number))

        often = max(1, every // 10)
        trackers = lambda: [jo.trackers.tensorboard(folder()), jo.trackers.csv(folder() / "metrics.csv")]
        kept = lambda every: run(every, directory=folder(), save_seconds=None)
        cases = {
            "checkpoints": {
                "without checkpoints": lambda: kept(every),
                "without checkpoints, again": lambda: kept(every),
                "checkpoints": lambda: run(every, directory=folder(), save_seconds=None, save_steps=every),
            },
            "trackers": {
                "nothing kept": lambda: run(often),
                "TensorBoard and CSV": lambda: run(often, trackers=trackers()),
                "directory": lambda: kept(often),
            },
        }
        most = {"checkpoints": 1.03, "TensorBoard and CSV": 1.02}
        rows = []
        for case, contenders in cases.items():
            seconds = timing.alternate(contenders, rounds, case)
            for name in contenders:
                ratio = timing.ratio(seconds, name, next(iter(contenders)))
                row = {"case": case, "contender": name, "seconds": statistics.median(seconds[name]), "ratio": ratio}
                rows.append(row | {"target": timing.verdict(ratio, most[name]) if name in most else ""})
    return rows


def cases(quick: bool) -> Iterator[list[dict]]:
    """The rows of all cases; the quick ones are of a small model and few steps."""
    yield measure(
        *(QUICK if quick else (STEPS, EVERY, ROUNDS)), char_transformer.QUICK if quick else char_transformer.FULL
    )


def main() -> None:
    """Time every case, print the table, write the JSON."""
    timing.command(__doc__, "keeping", COLUMNS, cases)


if __name__ == "__main__":
    main()
