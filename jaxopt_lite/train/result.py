"""The result of a run of `fit`: parameters, history, status and message."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_lite.core.method import Status
from jaxopt_lite.core.programs import Program
from jaxopt_lite.train.calls import fetched
from jaxopt_lite.train.plan import Plan
from jaxopt_lite.train.point import RUNNING, STATUSES, Monitor, Rules, Run
from jaxopt_lite.train.state import TrainState
from jaxopt_lite.train.task import Task
from jaxopt_lite.transforms.schedule_free import eval_params

__all__ = ["Result"]


class Row(NamedTuple):
    """A row of the history; all arrays have shape (), or [seeds].

    Attributes:
        step: the largest number of steps that any of the runs has done.
        values: float32 by name; NaN for a run that had ended before.
        status: int32, indices into `STATUSES`.
        measured: bool, whether the run had not ended before.
    """

    step: int
    values: dict[str, np.ndarray]
    status: np.ndarray
    measured: np.ndarray


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """The result of a run. With `seeds`, arrays have a leading axis [seeds], and status and steps are lists.

    Attributes:
        params: the last parameters, or those of the best point where `restore_best` was asked for; of a schedule-free
            optimizer the average that is evaluated, see `eval_params`.
        model_state: the model's state that belongs to params, None for tasks that have none.
        state: the last state; `fit(..., state=result.state)` resumes from it.
        history: "step" int [points], and float32 [points] (or [seeds, points]) for each measured name. train.* are
            means over the steps of a point; learning_rate, grad_norm and update_norm are those of its last step.
        status: why it ended: max_steps, target, patience, min_grad_norm, non_finite, interrupted or out_of_data; for a
            solver also a `Status` in lower case, such as converged_gradient.
        steps: number of steps done, those before a resumed state included.
        metrics: floats by name (float32 [seeds] with `seeds`): what was measured at the point that params are of, and
            test.*, evaluated with them. Where the best point was asked for and no point was finite, params are the
            first ones, valid.* are evaluated with them, and what only a step measures is NaN.
        message: the status in a sentence, with advice.
    """

    params: Any
    model_state: Any
    state: TrainState
    history: dict[str, np.ndarray]
    status: Any
    steps: Any
    metrics: dict[str, Any]
    message: str

    def __repr__(self) -> str:
        many = isinstance(self.status, list)
        ended = f"{len(self.status)} runs: {', '.join(sorted(set(self.status)))}" if many else self.status
        names = [name for name in self.metrics if name.startswith(("train.", "valid.", "test."))]
        measured = [f"{'mean ' * many}{name} {np.mean(self.metrics[name]):.5g}" for name in names]
        return f"Result({', '.join([ended, f'{np.max(self.steps)} steps', *measured])})"


_MESSAGES = {
    # What a solver advises about `tol` is for `minimize`.
    **{status.name.lower(): status.message.partition(". ")[0] + "." for status in Status},
    "max_steps": "All steps were done.",
    "target": "The target was reached.",
    "patience": "{metric} has not improved for {patience} points{best}.",
    "min_grad_norm": "The gradient's norm fell to min_grad_norm.",
    "non_finite": "The loss or a parameter is no longer finite: lower the learning rate, warm it up, clip the gradient "
    "(clip_by_global_norm), or leave bad steps out (skip_not_finite); if the loss rose from the first step on, look at "
    "the gradient's sign; jax.config.update('jax_debug_nans', True) finds the operation.",
    "interrupted": "The run was interrupted; what was measured so far is here.",
    "out_of_data": "The iterator of batches ended before the last step; give one that begins again at its end.",
}


def _message(names: list[str], **facts: Any) -> str:
    """The messages of the runs' statuses, each with the number of runs that it is about where they differ."""
    counts, of = {name: names.count(name) for name in names}, len(names)
    return " ".join(f"{n} of {of}: " * (n < of) + _MESSAGES[name].format(**facts) for name, n in counts.items())


def _best(monitor: Monitor, metric: str) -> str:
    """The part of a message about the best point of a run."""
    if monitor.best_step < 0:
        return "; none of its values was finite"
    return f"; its best was {float(monitor.row[metric]):.5g}, at step {int(monitor.best_step)}"


def _no_finite_point(unjudged: np.ndarray) -> str:
    """The sentence of a message about runs that have no finite point, where the best one was asked for."""
    if not unjudged.any():
        return ""
    of = "" if unjudged.all() else f"{unjudged.sum()} of {unjudged.size}: "
    return f" {of}No point was finite, so params are those that the run began with."


def judged_alone(state: TrainState) -> TrainState:
    """A state whose params are evaluated as they are: without the optimizer's state, which may hold an average."""
    return state._replace(opt_state=())


def score_program(rules: Rules, state: Any, data: Any, many: bool) -> Program:
    """The program that evaluates states, or states of that shape, on data."""
    return Program(jax.vmap(rules.score, in_axes=(0, None)) if many else rules.score, (state, data))


def result_of(
    task: Task, plan: Plan, rules: Rules, run: Run, rows: list[Row], how: int, test: Program | None
) -> Result:
    """The result of a run; those of its seeds that have not ended by themselves get the status `how`.

    `test` is the program of the test data, None where it is not traced yet.
    """
    monitor, state = run.monitor, run.state
    assert monitor is not None
    codes = np.where(np.asarray(monitor.status) == RUNNING, how, np.asarray(monitor.status))
    many, names = codes.ndim > 0, [STATUSES[code] for code in np.atleast_1d(codes)]
    history = {"step": np.array([row.step for row in rows])}
    for name in rows[0].values:
        history[name] = np.stack([row.values[name] for row in rows], axis=-1)

    last = np.sum([row.measured for row in rows], axis=0) - 1  # the last point before the run ended
    columns = [(name, column) for name, column in history.items() if name != "step"]
    metrics = {name: np.take_along_axis(column, last[..., None], axis=-1)[..., 0] for name, column in columns}
    to_evaluate = jax.vmap(eval_params) if many else eval_params
    params, model_state = to_evaluate(state.opt_state, state.params), state.model_state
    unjudged = np.zeros(codes.shape, bool)
    if plan.restore_best:
        params, model_state = monitor.kept
        unjudged = np.asarray(monitor.best_step) < 0
        metrics = {name: np.where(unjudged, metrics[name], np.asarray(monitor.row[name])) for name, _ in columns}
    chosen = judged_alone(state)._replace(params=params, model_state=model_state)
    if unjudged.any():
        first = {}
        if task.valid is not None:
            scores = score_program(rules, chosen, task.valid, many)(chosen, task.valid)
            first = {f"valid.{name}": value for name, value in scores.items()}
        metrics = {name: np.where(unjudged, first.get(name, np.float32(np.nan)), x) for name, x in metrics.items()}
    untested = ""
    if task.test is not None:
        try:
            test = test or score_program(rules, chosen, task.test, many)
            scores = fetched(test(chosen, task.test))
            metrics |= {f"test.{name}": x for name, x in scores.items()}
        except jax.errors.JaxRuntimeError as error:  # most often for lack of memory; the run must not be lost
            untested = f" test could not be evaluated: {error!s:.200}"
    metric, _ = rules.watch(rows[0].values)
    best = "" if many else _best(monitor, metric)
    return Result(
        params=params,
        model_state=model_state,
        state=state._replace(monitor=monitor if plan.decides else None),
        history=history,
        status=names if many else names[0],
        steps=np.asarray(state.step).tolist(),
        metrics={name: np.asarray(value) if many else float(value) for name, value in metrics.items()},
        message=_message(names, metric=metric, patience=plan.patience, best=best)
        + _no_finite_point(unjudged)
        + untested,
    )
