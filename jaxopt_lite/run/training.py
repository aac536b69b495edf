"""`fit`: drives the training loop, and owns files, clock, signals and progress."""

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lite.core.arguments import check_bool, check_int
from jaxopt_lite.log.progress import Progress
from jaxopt_lite.log.trackers import Tracker
from jaxopt_lite.run.arguments import check_path, check_progress
from jaxopt_lite.run.profiling import Profiler, check_window
from jaxopt_lite.run.run_folder import RunFolder, template_of
from jaxopt_lite.run.saves import Saves
from jaxopt_lite.run.signals import interruptible
from jaxopt_lite.run.tracking import check_trackers, examples_of_step, relay_of, summary_of
from jaxopt_lite.train.loop import Pause, Point, Reply, Snapshot, check_arguments, training
from jaxopt_lite.train.plan import Plan
from jaxopt_lite.train.point import Run
from jaxopt_lite.train.result import Result
from jaxopt_lite.train.state import TrainState, accept_method, steps_done
from jaxopt_lite.train.task import Task

__all__ = ["fit"]

_LONG = 0.5  # seconds of a point for which the device need not work ahead


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
    trackers: Sequence[Tracker] = (),
    progress: str | None = "auto",
    overwrite: bool = False,
    save_seconds: float | None = 60.0,
    save_steps: int | None = None,
    keep: int = 2,
    prefetch: int = 2,
    profile: tuple[int, int] | None = None,
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
        directory: where the history (metrics.jsonl and metrics.csv), the summary, the picture and checkpoints go. The
            same call resumes the run that it finds there, with more `steps` if they were raised, and returns the result
            of one that has ended. None writes nothing.
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
        trackers: what takes the metrics of each point, in threads of their own: `jo.trackers.tensorboard(...)`, `csv`,
            `mlflow`, `wandb`, `console`, or any `Tracker`. One that fails costs a warning, never the run.
        progress: "auto" (a bar on a terminal or in a notebook, else nothing), "bar", "lines" on standard error, "log"
            (lines to the logger "jaxopt_lite" of the module logging), or "none".
        overwrite: replace what an earlier run left in the directory.
        save_seconds: seconds between two checkpoints, at least 0. They are taken at points, written in the background,
            and once more at the end. None for both this and save_steps keeps none, and needs no Orbax.
        save_steps: steps between two checkpoints, at least 1.
        keep: how many of the latest checkpoints to keep, at least 1; the one with the best metric is kept too.
        prefetch: how many stacks of an iterator's batches (32 MiB at most each, or one batch) a thread makes ahead of
            the device, at least 0, which makes them between the steps. Results do not depend on it.
        profile: (first, last): write a trace of the steps after the first `first`, up to `last`, to directory/profile;
            0 <= first < last, counted as in the history.

    Returns:
        The result: params, state, history, status, steps, metrics (test.* too) and a message. A run also ends when the
        loss or a parameter is not finite, and, cleanly, with Ctrl-C or SIGTERM, with a checkpoint after the point
            under way.

    Raises:
        TypeError, ValueError: for arguments of a wrong type, out of range, or that do not fit together (for types of
            numbers and strings a `WrongTypeError`, which is both); nothing has been written then.
        ValueError: if the directory holds another run: the message has what differs.
        OSError: if the directory is in use, holds a run that cannot be resumed, or cannot be written. What cannot be
            written after the first point is left out with a warning, so that no steps are lost.
    """
    plan = Plan(
        steps, batch_size, eval_every, target, patience, min_grad_norm, restore_best, metric, mode, compute_dtype,
        accumulate, eval_batch_size, remat,
    )  # fmt: skip
    progress = check_progress("fit", progress)
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise TypeError(f"fit: callbacks must be a list of functions of a Point, got {callbacks!r}")
    trackers = check_trackers("fit", trackers)
    path = check_path("fit", "directory", directory)
    overwrite = check_bool("fit", "overwrite", overwrite)
    saves = Saves("fit", save_seconds, save_steps, "save_steps")
    keep = check_int("fit", "keep", keep)
    prefetch, window = check_int("fit", "prefetch", prefetch, 0), check_window(profile, path)
    began, snapshot = time.perf_counter(), None
    with contextlib.ExitStack() as stack:
        folder = None
        if path is not None:
            folder = stack.enter_context(RunFolder(path, overwrite, saves.ever, keep))
            snapshot = _earlier(folder, task, optimizer, plan, seed, seeds, params, state)
        resumed = state.state if isinstance(state, Run) else state
        first = int(steps_done("fit", resumed).max()) if isinstance(resumed, TrainState) else 0
        profiler = Profiler(window, (path or Path()) / "profile", folder.open if folder is not None else lambda: None)
        events = training(
            task, optimizer, plan, seed, seeds, params, None if snapshot else state,
            ahead=not callbacks, snapshot=snapshot, save_last=folder is not None and saves.ever, prefetch=prefetch,
            pauses=profiler.pauses,
        )  # fmt: skip
        interrupted = stack.enter_context(interruptible())
        done = first if snapshot is None else snapshot.rows[-1].step
        rule = resumed.optimizer if optimizer is None and isinstance(resumed, TrainState) else optimizer
        relay = stack.enter_context(relay_of(trackers, rule, plan, seed, seeds, done, interrupted))
        stack.enter_context(contextlib.closing(events))
        stack.enter_context(contextlib.closing(profiler))
        profiler.reached(done)
        shown = Progress(first + steps, progress, examples=examples_of_step(task, plan, seeds))
        result = _drive(events, done, folder, saves, relay, callbacks, shown, interrupted, profiler)
        seconds = time.perf_counter() - began
        if folder is not None:
            folder.finish(result, seconds)
        relay.end(summary_of(result, seconds))
    return result


def _earlier(folder, task, optimizer, plan, seed, seeds, params, state) -> Snapshot | None:
    """The checkpoint that the run resumes from, if there is one."""
    check_arguments(task, plan, seed, seeds)
    before = state.state if isinstance(state, Run) else state
    method = accept_method("fit", before.optimizer if optimizer is None and before is not None else optimizer)
    folder.describe(task, method, plan, seed, seeds, params if state is None else state)
    snapshot = folder.earlier(lambda: template_of(task, method, seeds, params, before))
    for text in folder.warnings:
        warnings.warn(f"fit: {folder.path}: {text}", stacklevel=3)
    return snapshot


def _drive(events, step, folder, saves, relay, callbacks, progress, interrupted, profiler) -> Result:
    """Run the generator to its end, passing on its points; `step` steps were done before."""
    last, reply = time.perf_counter(), None
    try:
        while True:
            event = events.send(reply)
            if isinstance(event, Pause):
                profiler.reached(event.step)
                reply = None
                continue
            if isinstance(event, Snapshot):
                if folder is not None:
                    folder.save(event)
                reply = None
                continue
            if folder is not None:
                folder.add(event)
            relay.log(event.step, event.metrics)
            progress.update(event.step, event.metrics)
            stop = any([_is_true(callback(event)) for callback in callbacks])
            now = time.perf_counter()
            due = folder is not None and saves.ever and saves.due(now, event.step - step)
            reply = Reply(due, stop or interrupted.is_set(), now - last > _LONG)
            last, step = now, event.step
    except StopIteration as end:
        return end.value
    finally:
        progress.close()


def _is_true(answer: Any) -> bool:
    """Whether a callback returned True, a bool or bools of all runs; other values do not stop a run."""
    is_bool = isinstance(answer, bool) or getattr(answer, "dtype", None) == np.bool_
    return is_bool and bool(np.all(answer))
