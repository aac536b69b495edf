"""What `fit` tells its trackers of a run."""

import dataclasses
import functools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxopt_lite.core.hyperparameters import hyperparameters
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.text import spell
from jaxopt_lite.log.records import plain, versions
from jaxopt_lite.log.relay import Relay
from jaxopt_lite.log.trackers import Tracker
from jaxopt_lite.train.plan import Plan
from jaxopt_lite.train.result import Result
from jaxopt_lite.train.state import accept_method
from jaxopt_lite.train.task import Task

__all__ = []


def check_trackers(who: str, trackers: Any) -> Sequence[Tracker]:
    """A list of objects that have the methods of `Tracker`.

    Raises:
        TypeError: if it is something else.
    """
    if not isinstance(trackers, Sequence) or isinstance(trackers, str):
        raise TypeError(f"{who}: trackers must be a list of trackers, got {describe(trackers):.80}")
    for tracker in trackers:
        has_methods = all(callable(getattr(tracker, name, None)) for name in ("begin", "log", "end"))
        if isinstance(tracker, type) or not has_methods:
            raise TypeError(
                f"{who}: trackers must be objects with the methods begin, log and end, such as trackers.csv(path); got "
                f"{tracker!r:.80}"
            )
    return trackers


def relay_of(
    trackers: Sequence[Tracker],
    optimizer: Any,
    plan: Plan,
    seed: int,
    seeds: int | None,
    first: int,
    interrupted: threading.Event,
) -> Relay:
    """The relay to the trackers of a run.

    Args:
        trackers: of the run.
        optimizer: as the caller gave it, or that of the state to resume from.
        plan: of the run.
        seed: as the caller gave it.
        seeds: number of runs side by side, or None.
        first: the number of steps done before.
        interrupted: set by a signal.
    """
    return Relay(trackers, functools.partial(_about, optimizer, plan, seed, seeds, first), seed, interrupted)


def _about(optimizer: Any, plan: Plan, seed: int, seeds: int | None, first: int) -> dict[str, Any]:
    """What a tracker's `begin` takes."""
    rule = accept_method("fit", optimizer)
    return plain(
        {
            "optimizer": spell(rule, defaults=True),
            "hyperparameters": {path: np.asarray(value) for path, value in hyperparameters(rule).items()},
            "plan": dataclasses.asdict(plan),
            "seed": seed,
            "seeds": seeds,
            "step": first,
            "versions": versions(),
        }
    )


def summary_of(result: Result, seconds: float) -> dict[str, Any]:
    """What a tracker's `end` takes."""
    facts = {"status": result.status, "message": result.message, "steps": result.steps, "seconds": round(seconds, 3)}
    return {**plain(facts), "metrics": result.metrics}


def examples_of_step(task: Task, plan: Plan, seeds: int | None) -> int:
    """The examples that all runs see in a step; 0 where that is not known: of an iterator, or without data."""
    rows = task.rows if isinstance(task, Task) else None
    return 0 if rows is None else (plan.batch_size or rows) * (seeds or 1)
