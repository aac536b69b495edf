"""What is known of the trials of a sweep: columns of NumPy arrays, one row for each trial.

It is all that policies and samplers see, and, with the pools of states, all that is saved.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxopt_lite.sweeps.space import Space

__all__ = ["Copy", "Ledger"]

STATUSES = ("running", "finished", "stopped", "diverged", "failed")
RUNNING, FINISHED, STOPPED, DIVERGED, FAILED = range(len(STATUSES))
COLUMNS = ("table", "proposed", "batch", "bracket", "step", "target", "status")


class Copy(NamedTuple):
    """A PBT exploit step: `trial` takes over the state of `source` at `step`, with the hyperparameters `row`."""

    trial: int
    source: int
    step: int
    row: np.ndarray  # its row of the table from then on, float64 [d]
    reset: bool  # whether the optimizer's state was made anew


@dataclasses.dataclass(eq=False)
class Ledger:
    """The trials of a sweep. Arrays have a row for each trial, in the order of their numbers.

    Attributes:
        space: what is searched.
        metric: the curve that is looked at, such as "valid.accuracy".
        highest: whether its highest value is the best.
        steps: length of a whole trial.
        eval_every: steps between two points of a curve.
        seeds: runs of each trial.
        seed: of the sweep.
        table: the configs as numbers of the space, float64 [n, d]; `space.configs(table)` makes configs of it.
        proposed: the configs as they were proposed, before any was copied, float64 [n, d].
        batch: which of the sampler's batches the trial came with, int [n].
        bracket: for policies that divide the trials, else 0, int [n].
        step: steps done, int [n].
        target: step to which the policy lets it run, int [n]. It waits where target equals step.
        status: index into `STATUSES`, int [n].
        curves: float32 [n, seeds, points] by name, a point each eval_every steps, NaN where not run.
        lineage: what was copied from whom, in order.
        errors: messages of failed trials.
        decays: flat names of the traced dimensions that reach a decay of the optimizer in `trial`.
    """

    space: Space
    metric: str
    highest: bool
    steps: int
    eval_every: int
    seeds: int
    seed: int
    curves: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    lineage: list[Copy] = dataclasses.field(default_factory=list)
    errors: dict[int, str] = dataclasses.field(default_factory=dict)
    decays: frozenset[str] = frozenset()

    def __post_init__(self):
        # Empty, so sharing is harmless: `extend` and `restore` replace them.
        self.table = self.proposed = np.empty((0, len(self.space.dimensions)))
        self.batch = self.bracket = self.step = self.target = np.empty(0, np.int32)
        self.status = np.empty(0, np.int8)

    @classmethod
    def empty(cls, space: Space, plan: Any) -> "Ledger":
        """The ledger of a sweep before its first trial; `plan` has steps, eval_every, seeds and seed."""
        return cls(space, "", True, plan.steps, plan.eval_every, plan.seeds, plan.seed)

    def __len__(self) -> int:
        return len(self.step)

    @property
    def points(self) -> int:
        """Points of a whole curve."""
        return self.steps // self.eval_every

    @property
    def running(self) -> np.ndarray:
        """Which trials have not ended, bool [n]."""
        return self.status == RUNNING

    @property
    def pending(self) -> np.ndarray:
        """Which trials have steps to do before the policy is asked again, bool [n]."""
        return self.running & (self.step < self.target)

    @property
    def scores(self) -> np.ndarray:
        """The metric's mean over seeds at each point, float64 [n, points]: lower is better, infinite is the worst.

        A mean that is infinite in either direction is the worst, and so is each from the point on at which a trial
        diverged. It is NaN where not run, and where the mean is NaN.
        """
        with np.errstate(invalid="ignore"):  # infinite minus infinite
            scores = self.measured.mean(axis=1)
        scores *= -1 if self.highest else 1
        bad = (self.status == DIVERGED)[:, None] & (np.arange(1, self.points + 1) >= self._done()[:, None])
        scores[bad | np.isinf(scores)] = np.inf
        return scores

    @property
    def measured(self) -> np.ndarray:
        """The metric as it is, float64 [n, seeds, points]."""
        return np.asarray(self.curves.get(self.metric, self._blank(len(self))), np.float64)

    def score_at(self, step: int) -> np.ndarray:
        """Scores after a number of steps, float64 [n]: lower is better, NaN where not run.

        They are infinite, and the worst, for failed trials and wherever the metric was not finite.

        Raises:
            ValueError: if the step is no multiple of eval_every between eval_every and steps.
        """
        if step % self.eval_every or not self.eval_every <= step <= self.steps:
            raise ValueError(f"score_at: step must be a multiple of {self.eval_every} up to {self.steps}, got {step}")
        scores = self.scores[:, step // self.eval_every - 1]
        unknown = (self.step >= step) & np.isnan(scores)
        return np.where((self.status == FAILED) | unknown, np.inf, scores)

    def last_scores(self) -> np.ndarray:
        """Each trial's score at its last point, float64 [n]: as `scores`, and NaN for failed trials."""
        scores = self.scores[np.arange(len(self)), self._done() - 1]
        return np.where((self.status == FAILED) | (self._done() == 0), np.nan, scores)

    def ranks(self) -> np.ndarray:
        """What trials are ranked by, float64 [n, 3], the first column first: all that look for the best ask here.

        class   0 with a finite score at the last point, 1 without, 2 diverged or failed
        -step   those that came further are before others
        score   at the last point
        """
        scores = np.nan_to_num(self.last_scores(), nan=np.inf, posinf=np.inf)
        kind = np.where(np.isin(self.status, (DIVERGED, FAILED)), 2, np.isinf(scores))
        return np.stack([kind, -self.step, scores], axis=1).astype(np.float64)

    def ranking(self) -> np.ndarray:
        """Trials from the best to the worst, int [n]: those with a finite score first, diverged and failed ones last.

        Among these, trials that came further are before others, then the score decides, then the number.
        """
        return np.lexsort((np.arange(len(self)), *self.ranks().T[::-1]))

    def ranked(self) -> np.ndarray:
        """The trials of `ranking` that have a finite score, int [m]; the first one is the best."""
        return self.ranking()[: int(np.sum(self.ranks()[:, 0] == 0))]

    def extend(self, table: np.ndarray) -> np.ndarray:
        """Add trials, which wait at step 0; returns their numbers."""
        first, n = len(self), len(table)
        new = {"table": table, "proposed": table, "batch": np.full(n, self.batch.max(initial=-1) + 1)}
        for name in COLUMNS:
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.asarray(new.get(name, np.zeros(n)), column.dtype)]))
        for name, curve in self.curves.items():
            self.curves[name] = np.concatenate([curve, self._blank(n)])
        return np.arange(first, first + n)

    def record(self, trials: np.ndarray, rows: dict[str, np.ndarray], finite: np.ndarray) -> None:
        """Write what was measured, and cut trials off at the first point at which a seed was not finite.

        Args:
            trials: their numbers, int [m].
            rows: float32 [points, m, seeds] by name, from each trial's step on.
            finite: bool [points, m], of all seeds.
        """
        n = len(finite)
        first_bad = np.where(finite.all(axis=0), n, np.argmin(finite, axis=0))  # points before it are good
        kept = np.minimum(first_bad + 1, n)
        point, which = np.nonzero(np.arange(n)[:, None] < kept)
        at = self._done()[trials[which]] + point
        for name, values in rows.items():
            self.curves.setdefault(name, self._blank(len(self)))[trials[which], :, at] = values[point, which]
        self.step[trials] += (kept * self.eval_every).astype(np.int32)
        self.status[trials[self.step[trials] == self.steps]] = FINISHED
        self.status[trials[first_bad < n]] = DIVERGED

    def copy(self, event: Copy) -> None:
        """Let a trial exploit another one's state. Its curves keep what it did before."""
        self.table[event.trial], self.status[event.trial] = event.row, RUNNING
        self.step[event.trial] = self.target[event.trial] = event.step
        self.lineage.append(event)

    def summary(self) -> dict[str, int]:
        """How many trials there are of each status."""
        return {name: int(np.sum(self.status == code)) for code, name in enumerate(STATUSES)}

    def saved(self) -> dict[str, Any]:
        """The arrays that are saved."""
        at = np.array([(c.trial, c.source, c.step, c.reset) for c in self.lineage], np.int32).reshape(-1, 4)
        rows = np.array([c.row for c in self.lineage], np.float64).reshape(len(at), self.table.shape[1])
        columns = {name: getattr(self, name) for name in COLUMNS}
        return {**columns, "curves": dict(self.curves), "lineage": {"at": at, "rows": rows}}

    def restore(self, saved: dict[str, Any], errors: dict[int, str]) -> None:
        """Take back what `saved` gave; arrays are copied."""
        for name in COLUMNS:
            setattr(self, name, np.array(saved[name], getattr(self, name).dtype))
        self.curves = {name: np.array(curve, np.float32) for name, curve in saved["curves"].items()}
        events = zip(saved["lineage"]["at"].tolist(), np.array(saved["lineage"]["rows"], np.float64), strict=True)
        self.lineage = [Copy(trial, source, step, row, bool(reset)) for (trial, source, step, reset), row in events]
        self.errors = dict(errors)

    def _done(self) -> np.ndarray:
        """Points measured, int [n]."""
        return self.step // self.eval_every

    def _blank(self, n: int) -> np.ndarray:
        return np.full((n, self.seeds, self.points), np.nan, np.float32)
