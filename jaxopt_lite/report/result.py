"""The result of a sweep, and its exports."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lite.report import exports
from jaxopt_lite.report.analysis import (
    earlier_best,
    edges,
    ended,
    failures,
    importance,
    last_measured,
    last_values,
    over_seeds,
    settings,
)
from jaxopt_lite.report.overview import plot_sweep
from jaxopt_lite.sweeps.engine import Outcome
from jaxopt_lite.sweeps.ledger import STATUSES, Ledger
from jaxopt_lite.sweeps.space import Space

__all__ = ["Best", "SweepResult", "Trial"]


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One config and its outcome.

    Attributes:
        number: its index, from 0.
        config: as the trial function was given it; after population-based training, as it was at the end.
        score: the watched metric at its last point, mean over seeds; NaN if it has none.
        stderr: standard error of that mean; NaN with one seed.
        status: finished, stopped, diverged or failed; running where the sweep was interrupted before it had ended.
        steps: steps done.
        metrics: every curve at its last point, float32 [seeds] by name.
        error: why it failed, None if it did not.
    """

    number: int
    config: dict[str, Any]
    score: float
    stderr: float
    status: str
    steps: int
    metrics: dict[str, np.ndarray]
    error: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Best(Trial):
    """The best trial. `metrics` has test.* too, which was evaluated for it alone.

    Attributes:
        params: its parameters, with a leading axis of seeds.
        model_state: its model's state, likewise; None for tasks that have none.
    """

    params: Any = None
    model_state: Any = None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SweepResult:
    """The result of a sweep.

    Attributes:
        ledger: everything recorded about the trials, including the lineage of population-based training.
        best: the best trial; None if the sweep was interrupted, or no trial has a score.
        status: finished or interrupted.
        message: the status in a sentence, with the number of trials of each status.
        warnings: the optimum on an edge of its range or better at an earlier step, and the like, a sentence each.
        seconds: the wall-clock time of this call.
        directory: where the sweep is saved, or None.
    """

    ledger: Ledger
    best: Best | None
    status: str
    message: str
    warnings: tuple[str, ...]
    seconds: float
    directory: Path | None

    @classmethod
    def of(cls, outcome: Outcome, seconds: float, directory: Path | None, notes: list[str]) -> "SweepResult":
        """The result of an outcome of the engine."""
        ledger, best = outcome.ledger, None
        warnings = [*notes, *failures(ledger)]
        if outcome.best is not None:
            trial = _trials(ledger, np.array([outcome.best.number]))[0]
            facts = {field.name: getattr(trial, field.name) for field in dataclasses.fields(Trial)}
            facts["metrics"] = {**trial.metrics, **outcome.best.test}
            best = Best(**facts, params=outcome.best.params, model_state=outcome.best.model_state)
            warnings += edges(ledger, best.number) + earlier_best(ledger, best.number)
        counts = ", ".join(f"{n} {ended(name)}" for name, n in ledger.summary().items() if n)
        done = "All trials were run" if outcome.complete else "The sweep was interrupted; the same call resumes it"
        message = f"{done}: {counts or 'none'}." + ("" if best or not outcome.complete else " None has a score.")
        status = "finished" if outcome.complete else "interrupted"
        return cls(ledger, best, status, message, tuple(warnings), seconds, directory)

    @functools.cached_property
    def trials(self) -> list[Trial]:
        """All trials, in the order of their numbers."""
        return _trials(self.ledger, np.arange(len(self.ledger)))

    @property
    def curves(self) -> dict[str, np.ndarray]:
        """Every curve by name, float32 [trials, seeds, points]; NaN where not run."""
        return self.ledger.curves

    @property
    def steps(self) -> np.ndarray:
        """The steps at which the points of the curves lie, int [points]."""
        return np.arange(1, self.ledger.points + 1) * self.ledger.eval_every

    @property
    def metric(self) -> str:
        """The watched metric."""
        return self.ledger.metric

    @property
    def mode(self) -> str:
        """Whether its lowest or its highest value is the best: "min" or "max"."""
        return "max" if self.ledger.highest else "min"

    @property
    def space(self) -> Space:
        """What was searched."""
        return self.ledger.space

    def top(self, k: int = 10) -> list[Trial]:
        """The best trials, the best first: those that came further before others."""
        return _trials(self.ledger, self.ledger.ranking()[:k])

    @functools.cached_property
    def importance(self) -> dict[str, float]:
        """The share of the variance of the trials' ranks that each hyperparameter explains by itself, by flat name.

        The greatest comes first. NaN where fewer than 8 trials have it, or all of them are equal.
        """
        return importance(self.ledger)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each trial: number, status, steps, score, stderr, config, values, error.

        Raises:
            ImportError: if pandas is not installed (extra `tables`).
        """
        return exports.to_dataframe(self.ledger)

    def plot(self, path: Path | str, top: int = 20) -> Path:
        """Draw the sweep: its history, the best trials, each hyperparameter, curves, importance. See `plot_sweep`.

        Args:
            path: the file to write; its suffix sets the format.
            top: the number of best trials whose lines are drawn through all hyperparameters.

        Raises:
            ImportError: if matplotlib is not installed (extra `plots`).
            ValueError: if top is below 1, or there are no trials.
        """
        return plot_sweep(self.ledger, path, top)

    def to_optuna(self, storage: Any = None, name: str = "sweep") -> Any:
        """An Optuna study with all trials that have ended; in a storage it can be seen in Optuna's dashboard.

        Stopped trials are pruned ones, diverged and failed ones have failed. A study's trials have consecutive numbers;
        those of the sweep, the status, the seeds' scores and the copies of population-based training are among their
        user attributes.

        Args:
            storage: where to keep the study, such as "sqlite:///sweep.db"; None is memory.
            name: of the study.

        Raises:
            ImportError: if Optuna is not installed (extra `optuna`).
            ValueError: if the storage has a study of that name.
        """
        return exports.to_optuna(self.ledger, storage, name)

    def to_tensorboard(self, directory: Path | str, top: int = 20) -> Path:
        """Write the best trials for TensorBoard's HParams, each trial a session group of its seeds.

        Args:
            directory: where to write; a folder for each trial, with one for each seed.
            top: the number of trials to write.

        Returns:
            The directory.

        Raises:
            ImportError: if TensorBoard is not installed (extra `tensorboard`).
            FileExistsError: if the directory holds event files.
            ValueError: if top is below 1.
        """
        return exports.to_tensorboard(self.ledger, directory, top)

    def summary(self, top: int = 5) -> str:
        """The best trials as a table, the message and the warnings, as text."""
        table = [("trial", self.metric, "steps", "status", "config")]
        for trial in self.top(top):
            score = f"{trial.score:.5g}" + (f" ± {trial.stderr:.2g}" if np.isfinite(trial.stderr) else "")
            config = ", ".join(f"{name}={text}" for name, text in settings(self.ledger, trial.number).items())
            table.append((str(trial.number), score, str(trial.steps), ended(trial.status), config))
        widths = [max(len(row[i]) for row in table) for i in range(4)]
        lines = ["  ".join([*(cell.rjust(w) for cell, w in zip(row, widths)), row[-1]]) for row in table]
        tested = [] if self.best is None else [n for n in self.best.metrics if n.startswith("test.")]
        if self.best is not None and tested:
            shown = ", ".join(f"{name} {over_seeds(self.best.metrics[name])[0]:.4g}" for name in tested)
            lines.append(f"best trial {self.best.number} on the test data: {shown}")
        return "\n".join([*lines, self.message, *(f"note: {warning}" for warning in self.warnings)])

    def __repr__(self) -> str:
        best = "none" if self.best is None else f"{self.best.score:.5g} (trial {self.best.number})"
        return f"SweepResult({self.status}, {len(self.ledger)} trials, best {self.metric} {best})"


def _trials(ledger: Ledger, numbers: np.ndarray) -> list[Trial]:
    score, stderr = last_measured(ledger)
    values = last_values(ledger)
    configs = ledger.space.configs(ledger.table[numbers]) if len(numbers) else []
    return [
        Trial(
            number=number,
            config=config,
            score=float(score[number]),
            stderr=float(stderr[number]),
            status=STATUSES[ledger.status[number]],
            steps=int(ledger.step[number]),
            metrics={name: column[number] for name, column in values.items()},
            error=ledger.errors.get(number),
        )
        for number, config in zip(numbers.tolist(), configs, strict=True)
    ]
