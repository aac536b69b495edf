"""What a tracker is, and what it is told of a run."""

from typing import Any, Protocol

import numpy as np

__all__ = ["Tracker"]


class Tracker(Protocol):
    """Takes the metrics of a run: any object with these three methods, for `fit(..., trackers=[...])`.

    They are called in this order in a thread of the tracker's own: `begin` once, when the first point has come, `log`
    for each point, and `end` once. A tracker that raises an error costs a warning and is called no more.
    """

    def begin(self, about: dict[str, Any]) -> None:
        """A run begins, or resumes.

        Args:
            about: strings, numbers, None, lists and dicts of them: "optimizer", its text with all arguments;
                "hyperparameters", its numbers by path (lists where seeds have their own); "plan", the arguments of
                `Plan`; "seed"; "seeds", or None; "step", the steps done before, 0 for a new run; "versions".
        """
        ...

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """A point has come.

        Args:
            step: the number of steps done.
            metrics: floats by name; they may be NaN or infinite. With `seeds`, "train.loss" is the mean over the seeds
                that have a number, and "seed-3/train.loss" the value of seed 3, up to the first point at which all of
                its values are NaN.
        """
        ...

    def end(self, summary: dict[str, Any]) -> None:
        """The run has ended.

        Args:
            summary: "status" (a list with `seeds`), "message", "steps" (a list with `seeds`), "seconds", and
                "metrics", floats by names as those of `log`, test.* too. For a run that an error ended, or a second
                Ctrl-C: "status" alone, "failed" or "interrupted", and the error's text as "message".
        """
        ...


class Spread:
    """Metrics of shape () or [seeds] as floats: the mean, and each seed by itself; see `Tracker.log`.

    Args:
        seed: of the first run.
    """

    def __init__(self, seed: int):
        self._seed, self._ended = seed, frozenset()

    def __call__(self, metrics: dict[str, Any]) -> dict[str, float]:
        """The floats by name, the means first."""
        values = {name: np.asarray(value, float) for name, value in metrics.items()}
        means = {name: _mean(value) for name, value in values.items()}
        columns = {name: value for name, value in values.items() if value.ndim}
        several = range(max((len(value) for value in columns.values()), default=0))
        each = {
            f"seed-{self._seed + i}/{name}": float(value[i])
            for i in several
            if i not in self._ended
            for name, value in columns.items()
        }
        self._ended |= {i for i in several if all(np.isnan(value[i]) for value in columns.values())}
        return {**means, **each}


def _mean(value: np.ndarray) -> float:
    """The mean of what is a number; NaN where nothing is."""
    known = value[~np.isnan(value)]
    return float(known.mean()) if known.size else float("nan")


def outcome(summary: dict[str, Any]) -> str:
    """How a run ended: "finished", "interrupted", or "failed" (with `seeds`, where all of them did)."""
    statuses = summary["status"] if isinstance(summary["status"], list) else [summary["status"]]
    if all(status in ("failed", "non_finite") for status in statuses):
        return "failed"
    return "interrupted" if "interrupted" in statuses else "finished"
