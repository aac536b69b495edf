"""`fit`: drives the training loop, and owns files, clock, signals and progress."""

import contextlib
import dataclasses
import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lite.core.arguments import check_bool
from jaxopt_lite.core.text import spell
from jaxopt_lite.log.progress import Progress
from jaxopt_lite.log.records import JsonLines, hold, versions, write_json
from jaxopt_lite.report.curves import plot_history
from jaxopt_lite.run.arguments import check_path, check_progress
from jaxopt_lite.run.signals import interruptible
from jaxopt_lite.train.loop import Point, Reply, training
from jaxopt_lite.train.plan import Plan
from jaxopt_lite.train.point import Run
from jaxopt_lite.train.result import Result
from jaxopt_lite.train.state import TrainState, accept_method, steps_done
from jaxopt_lite.train.task import Task

__all__ = ["fit"]


def fit(
    task: Task,
    optimizer: Any,
    steps: int = 2000,
    batch_size: int | None = 128,
    seed: int = 0,
    eval_every: int = 200,
    directory: Path | str | None = None,
    target: float | None = None,
    patience: int | None = None,
    min_grad_norm: float | None = None,
    restore_best: bool = False,
    params: Any = None,
    callbacks: Sequence[Callable[[Point], Any]] = (),
    *,
    metric: str | None = None,
    mode: str | None = None,
    seeds: int | None = None,
    state: TrainState | Run | None = None,
    compute_dtype: Any = None,
    accumulate: int = 1,
    eval_batch_size: int | None = None,
    remat: bool | str = False,
    progress: str | None = "auto",
    overwrite: bool = False,
) -> Result:
    """Train, in compiled stretches of steps with the data on the device.

    Args:
        task: what is to be learned.
        optimizer: a transformation of this package or of Optax, or a solver (with `batch_size=None`: it needs all
            examples at each step, and no model state); None with `state`.
        steps: number of steps, at least 1; with `state`, steps in addition to those already done.
        batch_size: examples in a batch, drawn without replacement; None takes all at each step (batch descent), 1 is
            single-sample descent. An iterator's batches are taken as they come.
        seed: of initialisation, data order and the steps' keys, an int in [0, 2**32).
        eval_every: steps between two points of the history, at least 1; at each, `valid` is evaluated and the stopping
            rules are applied.
        directory: where metrics.jsonl, summary.json and curves.png go; None writes nothing.
        target: stop when the watched metric reaches it, a finite float32.
        patience: stop after this many points without improvement of the watched metric, at least 1.
        min_grad_norm: stop when the norm of a point's last gradient is at most this, at least 0.
        restore_best: return the parameters of the best point, by the watched metric, instead of the last.
        params: parameters to begin with, in place of `task.init`'s.
        callbacks: functions of each `Point`, which then holds the state (the next steps use up its memory: copy what
            you keep); one that returns True stops the run.
        metric: the watched metric; None is valid.accuracy, or else valid.loss, or train.loss without valid data.
        mode: whether its lowest or its highest value is the best, "min" or "max"; None is "min" for names that end in
            loss and "max" for those that end in accuracy; it must be given for others.
        seeds: train this many runs side by side, at least 1, with seeds seed, seed + 1, ...; all results get a leading
            axis [seeds]. None trains one run, without the axis.
        state: resume from this state of an earlier run, with its optimizer, seed, parameters and what its stopping
            rules remember: patience, the best point and its parameters, if the watched metric is the same.
        compute_dtype: floating dtype of the loss, such as "bfloat16"; parameters and optimizer keep theirs.
            float16 needs `dynamic_loss_scale` around the optimizer.
        accumulate: work each batch in this many pieces, one after the other, at least 1, so that the memory of the
            loss is that of a piece. The step sees the means over the whole batch, weighted by examples where the last
            piece is smaller. The model's state is passed from piece to piece, and each has a key of its own. Where
            batch is None, the loss makes its own data this many times. Not for solvers.
        eval_batch_size: evaluate valid and test data in pieces of this many examples, at least 1, the last one smaller
            where they do not divide the data; means are weighted by examples, see `Task` for other scores. None
            evaluates them whole.
        remat: compute results of the loss again in its backward pass instead of keeping them, for the price of one more
            forward pass: True, or what is kept beside the results that pass from layer to layer, "dots_saveable" (of
            matrix products) or "dots_with_no_batch_dims_saveable" (except those of batches of matrices). The layers of
            a scan are taken one by one; other operations are cut where few bytes pass, which saves no memory on CPU.
            Not for solvers.
        progress: "auto" (a bar on a terminal or in a notebook, else nothing), "bar", "lines" or "none".
        overwrite: replace what an earlier run left in the directory.

    Returns:
        The result: params, state, history, status, steps, metrics (test.* too) and a message. A run also ends when the
        loss or a parameter is not finite, and, cleanly, with Ctrl-C or SIGTERM.

    Raises:
        TypeError, ValueError: for arguments of a wrong type, out of range, or that do not fit together (for types of
            numbers and strings a `WrongTypeError`, which is both); nothing has been written then.
        OSError: if the directory holds a run (FileExistsError), or cannot be written. What cannot be written
            after the first point is left out with a warning, so that no steps are lost.
    """
    plan = Plan(
        steps, batch_size, eval_every, target, patience, min_grad_norm, restore_best, metric, mode, compute_dtype,
        accumulate, eval_batch_size, remat,
    )  # fmt: skip
    progress = check_progress("fit", progress)
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise TypeError(f"fit: callbacks must be a list of functions of a Point, got {callbacks!r}")
    path = check_path("fit", "directory", directory)
    overwrite = check_bool("fit", "overwrite", overwrite)
    folder = None if path is None else _Folder(path, overwrite)
    events = training(task, optimizer, plan, seed, seeds, params, state, ahead=not callbacks)
    resumed = state.state if isinstance(state, Run) else state
    first = int(steps_done("fit", resumed).max()) if isinstance(resumed, TrainState) else 0
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        stack.callback(folder.close if folder is not None else lambda: None)
        interrupted = stack.enter_context(interruptible())
        stack.enter_context(contextlib.closing(events))
        result = _drive(events, folder, callbacks, Progress(first + steps, progress), interrupted)
        if folder is not None:
            folder.finish(optimizer, plan, seed, seeds, result, time.perf_counter() - began)
    return result


def _drive(events, folder, callbacks, progress, interrupted) -> Result:
    """Run the generator to its end, passing on its points."""
    try:
        point = next(events)
        while True:
            if folder is not None:
                folder.add(point)
            progress.update(point.step, point.metrics)
            stop = any([_is_true(callback(point)) for callback in callbacks])
            point = events.send(Reply(stop=stop or interrupted.is_set()))
    except StopIteration as end:
        return end.value
    finally:
        progress.close()


def _is_true(answer: Any) -> bool:
    """Whether a callback returned True, a bool or bools of all runs; other values do not stop a run."""
    is_bool = isinstance(answer, bool) or getattr(answer, "dtype", None) == np.bool_
    return is_bool and bool(np.all(answer))


class InUse(FileExistsError):
    """Another run writes to the directory."""


class _Folder:
    """A run's directory. It is made when the first point comes, so that a bad argument leaves nothing behind.

    The run holds metrics.jsonl locked, so that no other one writes there meanwhile.
    """

    FILES = ("metrics.jsonl", "summary.json", "curves.png")

    def __init__(self, path: Path, overwrite: bool):
        self.path = path.absolute()  # a callback may change the working directory
        self._rows: Any = None
        self._begun, self._given_up = False, set()
        present = [name for name in self.FILES if (path / name).exists()]
        exists = next(p for p in (path, *self.path.parents) if p.exists())
        if not exists.is_dir():
            raise FileExistsError(f"fit: directory {path} cannot be made, {exists} is a file")
        if not os.access(exists, os.W_OK):
            raise PermissionError(f"fit: directory {path} cannot be written, for lack of permission in {exists}")
        if (path / "sweep.json").exists():
            raise FileExistsError(
                f"fit: {path} holds a sweep (sweep.json), which a run does not replace; give another directory"
            )
        if present and not overwrite:
            raise FileExistsError(f"fit: {path} holds a run already ({present[0]}); give another, or overwrite=True")
        if "metrics.jsonl" in present:
            self._hold()
        self._found = bool(present)

    def add(self, point: Point) -> None:
        if "metrics.jsonl" in self._given_up:
            return
        with self._tried("metrics.jsonl"):
            if not self._begun:
                self._begin()
            self._rows.write({"step": point.step, **point.metrics})

    def _begin(self) -> None:
        """Remove what an earlier run left, once this one has something to write."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self._rows is None:
            self._hold()
        assert self._rows is not None
        if self._found:
            self._rows.clear()
        elif self._rows.file.tell():  # at its end, as it was opened to append
            raise InUse(f"fit: another run began in {self.path} meanwhile; give another directory")
        for name in self.FILES[1:]:
            (self.path / name).unlink(missing_ok=True)
        self._begun = True

    def _hold(self) -> None:
        rows = JsonLines(self.path / "metrics.jsonl", append=True)
        if not hold(rows.file):
            rows.close()
            raise InUse(
                f"fit: another process, or another call in this one, runs in {self.path}; wait for its end, stop it, "
                "or give another directory"
            )
        self._rows = rows

    def close(self) -> None:
        with self._tried("metrics.jsonl"):
            if self._rows is not None:
                self._rows.close()

    @contextlib.contextmanager
    def _tried(self, name: str) -> Iterator[None]:
        """Turn an error in writing a file into a warning, once for each file, so that the steps done are not lost."""
        try:
            yield
        except InUse:
            raise
        except Exception as error:
            if name not in self._given_up:
                self._given_up.add(name)
                why = f"could not be written ({type(error).__name__}: {error}); the run is not changed by it"
                warnings.warn(f"fit: {self.path / name} {why}", stacklevel=5)

    def finish(self, optimizer, plan: Plan, seed: int, seeds: int | None, result: Result, seconds: float) -> None:
        rule = result.state.optimizer if optimizer is None else optimizer
        rule = accept_method("fit", rule)
        with self._tried("summary.json"):
            summary = {
                "optimizer": spell(rule, defaults=True),
                **dataclasses.asdict(plan),
                "seed": seed,
                "seeds": seeds,
                "status": result.status,
                "message": result.message,
                "steps_done": result.steps,
                "seconds": round(seconds, 3),
                "metrics": result.metrics,
                "versions": versions(),
            }
            write_json(self.path / "summary.json", summary)
        with self._tried("curves.png"):
            if importlib.util.find_spec("matplotlib"):
                plot_history(result.history, self.path / "curves.png", title=repr(rule))
