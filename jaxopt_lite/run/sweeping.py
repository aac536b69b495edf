"""Driving sweeps: files, clock, signals and progress."""

import contextlib
import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxopt_lite.core.arguments import INT32_MAX as MOST
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.log.scoreboard import Scoreboard
from jaxopt_lite.report.result import SweepResult
from jaxopt_lite.run.files import SweepFolder, read_arguments
from jaxopt_lite.run.signals import interruptible
from jaxopt_lite.sweeps.engine import Engine
from jaxopt_lite.sweeps.events import (
    Advanced,
    Compiled,
    Decided,
    GroupFailed,
    Measure,
    Narrowed,
    Outcome,
    Proposed,
    Reply,
    Snapshot,
    Unread,
)
from jaxopt_lite.sweeps.ledger import Ledger
from jaxopt_lite.sweeps.member import SweepPlan
from jaxopt_lite.sweeps.policies import Policy, run_all
from jaxopt_lite.sweeps.samplers import Sampler, initial_table, sobol, trial_count
from jaxopt_lite.sweeps.space import space as make_space
from jaxopt_lite.train.plan import floating

__all__ = ["resume", "sweep"]

_CALL_SECONDS = 2.0  # of one call, about: in between there is progress, a save, or an end


def sweep(
    trial: Callable[[dict], tuple],
    space: Any,
    trials: int | None = None,
    steps: int = 1000,
    batch_size: int | None = 128,
    eval_every: int = 100,
    seeds: int = 1,
    sampler: Any = None,
    policy: Any = None,
    metric: str | None = None,
    mode: str | None = None,
    seed: int = 0,
    width: int | str | None = None,
    initial: Sequence[dict] = (),
    directory: Path | str | None = None,
    *,
    independent: bool = False,
    compute_dtype: Any = None,
    max_groups: int = 32,
    on_error: str = "raise",
    save_seconds: float | None = 60.0,
    save_calls: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: str | None = "none",
    overwrite: bool = False,
) -> SweepResult:
    """Train many configs side by side, in one compiled program for each group of equal shapes, on every device.

    Args:
        trial: trial(config) -> (task, optimizer). Float32 numbers of the config are traced, so one program serves all
            their values; what else it holds is static, and each combination of static values makes a group.
        space: a dict of distributions and constants by name, or a `space` with a constraint.
        trials: how many configs, those of `initial` included; None is all of a grid.
        steps: of a whole trial, a multiple of eval_every.
        batch_size: examples in a batch, the same ones for all trials; None takes all at each step.
        eval_every: steps between two points of a curve; rungs and intervals of policies are multiples of it.
        seeds: runs of each trial, with seeds seed, seed + 1, ...; trials are ranked by the mean over them.
        sampler: which configs; None is `sobol()`.
        policy: which trials go on; None is `run_all()`.
        metric: the watched curve; None is valid.accuracy, or else valid.loss, or train.loss without valid data.
        mode: "min" or "max"; None where the metric's name ends in loss or accuracy.
        seed: of configs, initialisation, data order and steps, at least 0; seed + seeds is at most 2**32.
        width: trials in a cohort; None is a fixed rule, "measure" times several (and results then depend, in the last
            bits, on what was fastest).
        initial: configs that go first.
        directory: where everything is kept; the same call again goes on with what is there, more `trials` extend it.
        independent: give each trial keys and a data order of its own; otherwise trials are paired.
        compute_dtype: dtype of the loss, such as "bfloat16".
        max_groups: more groups are an error that names the dimension.
        on_error: "raise", or "continue" with the other groups when `trial` raises for one.
        save_seconds: seconds between two saves; None saves at the end only, or by `save_calls`.
        save_calls: calls of a program between two saves.
        devices: on which to run; None is all of this process.
        progress: "bar", "lines", "none"; None chooses.
        overwrite: replace what an earlier sweep left in the directory.

    Returns:
        The result: best, trials, curves, and what can be made of them. Ctrl-C and SIGTERM save and end it.

    Raises:
        TypeError, ValueError: for arguments that do not fit, before anything is compiled or written; for a `trial` that
            returns something else than (task, optimizer), or whose data depend on a traced number.
        FileExistsError, PermissionError: if the directory cannot be used.

    Example:
        def trial(config):
            return digits.task(config["hidden"]), jo.adamw(config["learning_rate"])

        result = jo.sweep(
            trial, {"learning_rate": jo.log_uniform(1e-4, 1e-1), "hidden": jo.choice([32, 128])}, trials=64
        )
        result.best.config
    """
    if not callable(trial):
        raise TypeError(f"sweep: trial must be a function of a config, got {describe(trial)}")
    sampler = sobol() if sampler is None else Sampler.accept(sampler, "sweep", "sampler")
    policy = run_all() if policy is None else Policy.accept(policy, "sweep", "policy")
    space = make_space(space)
    steps, eval_every = _int("steps", steps, MOST), _int("eval_every", eval_every, MOST)
    seeds, max_groups = _int("seeds", seeds, MOST), _int("max_groups", max_groups)
    seed = _int("seed", seed, 2**32 - seeds, least=0)
    batch_size = None if batch_size is None else _int("batch_size", batch_size, MOST)
    save_calls = None if save_calls is None else _int("save_calls", save_calls)
    width = width if width is None or width == "measure" else _int("width", width, MOST)
    if steps % eval_every:
        near = max(1, round(steps / eval_every)) * eval_every
        raise ValueError(f"sweep: steps={steps} must be a multiple of eval_every={eval_every}, such as {near}")
    if mode not in (None, "min", "max"):
        raise ValueError(f"sweep: mode must be 'min' or 'max', got {mode!r}")
    if metric is not None and not isinstance(metric, str):
        raise TypeError(f"sweep: metric must be the name of a curve such as 'valid.loss', got {metric!r}")
    if metric is not None and metric.startswith("test."):
        raise ValueError(
            f"sweep: metric={metric!r} cannot choose among trials, or it would no longer be a test: test data are "
            "evaluated for the winner alone; split valid data off"
        )
    if save_seconds is not None and not (_is_number(save_seconds) and save_seconds >= 0):
        raise ValueError(f"sweep: save_seconds must be a number of at least 0, or None, got {save_seconds!r}")
    for name, value in (("independent", independent), ("overwrite", overwrite)):
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"sweep: {name} must be True or False, got {describe(value)}")
    devices = jax.local_devices() if devices is None else devices
    if isinstance(devices, str) or not devices or not all(isinstance(device, jax.Device) for device in devices):
        raise TypeError(f"sweep: devices must be a list of devices, such as jax.devices()[:1], got {devices!r}")
    if on_error not in ("raise", "continue"):
        raise ValueError(f"sweep: on_error must be 'raise' or 'continue', got {on_error!r}")
    if progress not in ("bar", "lines", "none", None):
        raise ValueError(f"sweep: progress must be 'bar', 'lines', 'none' or None, got {progress!r}")
    if directory is not None and not isinstance(directory, (str, os.PathLike)):
        raise TypeError(f"sweep: directory must be a path, got {directory!r}")
    initial_table(space, initial)
    count = trial_count(sampler, space, trials, initial)
    if count > 1 and not space.dimensions and not independent:
        raise ValueError(
            f"sweep: {count} trials would all be the same, for the space holds constants alone; give a distribution, "
            "trials=1, or more seeds"
        )

    plan = SweepPlan(
        steps, batch_size, eval_every, seeds, seed, bool(independent), floating(compute_dtype, "sweep", "compute_dtype")
    )
    arguments = {
        **{"trial": trial, "space": space, "trials": count, "steps": steps, "batch_size": batch_size},
        **{"eval_every": eval_every, "seeds": seeds, "sampler": sampler, "policy": policy, "metric": metric},
        **{"mode": mode, "seed": seed, "width": width, "initial": initial, "independent": plan.independent},
        **{"compute_dtype": plan.compute_dtype, "max_groups": max_groups, "on_error": on_error},
    }
    ledger = Ledger(space, "", True, steps, eval_every, seeds, seed, np.empty((0, len(space.dimensions))))
    engine = Engine(
        trial, ledger, plan, sampler, policy, count, initial, width, devices, max_groups,
        on_error == "continue", metric, mode,
    )  # fmt: skip
    if directory is None:
        return _drive(engine, None, None, Scoreboard(progress), resumed=False)
    with contextlib.closing(SweepFolder(Path(directory), arguments, overwrite)) as folder:
        earlier = folder.earlier()
        if earlier is not None:
            engine.roster.restore(earlier)
        saves = _Saves(save_seconds, save_calls)
        return _drive(engine, folder, saves, Scoreboard(progress), resumed=earlier is not None)


def resume(
    directory: Path | str, trial: Callable[[dict], tuple] | None = None, progress: str | None = "none"
) -> SweepResult:
    """Go on with the sweep in a directory, from the middle of its trials; one that is done is read back.

    Args:
        directory: of a sweep.
        trial: the function of the config, where it cannot be imported by its name.
        progress: "bar", "lines", "none"; None chooses.

    Returns:
        The result, the same as if the sweep had never stopped.

    Raises:
        FileNotFoundError: if there is no sweep.
        ValueError: if a function cannot be found again by its name, or the code, the data or the JAX version changed.
    """
    arguments = read_arguments(Path(directory), trial)
    return sweep(**arguments, directory=directory, progress=progress)


def _drive(engine: Engine, folder: SweepFolder | None, saves: Any, board: Scoreboard, resumed: bool) -> SweepResult:
    """Run the generator to its end, passing on what it says."""
    began = last = time.perf_counter()
    events, reply, ledger = engine.run(), None, engine.ledger
    notes = folder.warnings if folder is not None else []
    if folder is not None and resumed:
        folder.open()
        folder.say("resumed", trials=len(ledger), warnings=notes)
    for note in notes:
        board.say(note)
    quanta = 1 if folder is not None or board.shown else None  # of the first calls, until their time is known
    with interruptible() as interrupted, contextlib.closing(events), contextlib.closing(board):
        try:
            while True:
                event = events.send(reply)
                now = time.perf_counter()
                save, width = False, None
                if isinstance(event, Snapshot):
                    assert folder is not None or interrupted.is_set()
                    if folder is not None:
                        folder.save(event)
                elif isinstance(event, Measure):
                    width = _fastest(event, board)
                elif isinstance(event, Advanced):
                    if quanta is not None:
                        seconds = (now - last) * engine.plan.eval_every / event.steps
                        quanta = max(1, min(int(_CALL_SECONDS / max(seconds, 1e-6)), 2 * quanta))
                    save = saves is not None and saves.due(now)
                    board.advanced(ledger, engine.trials, len(event.trials) * event.steps * engine.plan.seeds)
                else:
                    said = _say(event, engine, folder)
                    if said:
                        board.say(said)
                    if isinstance(event, Unread):
                        notes.append(said)
                last = time.perf_counter()
                reply = Reply(save, interrupted.is_set(), quanta, width)
        except StopIteration as end:
            outcome: Outcome = end.value
    seconds = time.perf_counter() - began
    result = SweepResult.of(outcome, seconds, None if folder is None else folder.path, notes)
    if folder is None:
        return result
    try:
        snapshot = engine.roster.snapshot()
        if outcome.complete:
            folder.save(snapshot)
        folder.finish(result, snapshot.facts["groups"])
    except Exception as error:  # what was computed is not lost, whatever became of the disk
        note = f"not all of {folder.path} could be written at the end ({type(error).__name__}: {error})"
        warnings.warn(f"sweep: {note}; the result is returned", RuntimeWarning, stacklevel=3)
        result = dataclasses.replace(result, warnings=(*result.warnings, note))
    return result


def _say(event: Any, engine: Engine, folder: SweepFolder | None) -> str:
    """Note an event in the directory; returns what to tell the user."""
    match event:
        case Proposed(trials, groups):
            facts, text = {"first": trials[0], "count": len(trials), "groups": groups}, ""
            if len(trials) == engine.trials:
                text = f"{_count(len(trials), 'trial')} in {_count(groups, 'group')}, "
                text += f"{_count(engine.plan.seeds, 'seed')} each"
        case Compiled(group, width, device, trials, state, temporary):
            facts = {"group": group, "width": width, "device": device, "trials": trials}
            facts |= {"state_bytes": state, "temporary_bytes": temporary}
            text = f"{group}: {_count(trials, 'trial')}, {width} at a time on {device}; {_size(state)} of state each, "
            text += f"{_size(state * trials)} at most in all, and {_size(temporary or 0)} while it runs"
        case Decided(stopped, copies, going):
            facts = {"stopped": stopped, "copies": [copy[:3] for copy in copies], "going": going}
            text = ""
        case GroupFailed(group, trials, error):
            facts = {"group": group, "trials": trials, "error": f"{type(error).__name__}: {error}"}
            text = f"{_count(len(trials), 'trial')} failed, trial raised for {group}: {error}"
        case Unread(names, text):
            facts = {"names": names, "text": text}
        case Narrowed(group, width):
            facts, text = {"group": group, "width": width}, f"{group}: memory did not suffice, now {width} at a time"
        case _:
            raise AssertionError(event)
    if folder is not None:
        if isinstance(event, Decided):  # sampler, trial and policy were asked: no argument is wrong any more
            folder.open()
        folder.say(type(event).__name__.lower(), **facts)
    return text


def _fastest(event: Measure, board: Scoreboard) -> int:
    """Time the candidates: trials per second of one point, the best of three after one to compile."""
    rates = {}
    for width in event.widths:
        seconds = []
        for _ in range(4):
            began = time.perf_counter()
            event.run(width)
            seconds.append(time.perf_counter() - began)
        rates[width] = width / min(seconds[1:])
    best = max(rates, key=lambda width: rates[width])
    board.say(f"{event.group}: width {best} is the fastest of {', '.join(map(str, rates))}")
    return best


class _Saves:
    """When to save: by time, or by count of calls."""

    def __init__(self, seconds: float | None, calls: int | None):
        self.seconds, self.calls, self._last, self._count = seconds, calls, time.perf_counter(), 0

    def due(self, now: float) -> bool:
        self._count += 1
        by_time = self.seconds is not None and now - self._last >= self.seconds
        if by_time or (self.calls is not None and self._count >= self.calls):
            self._last, self._count = now, 0
            return True
        return False


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.3g} {unit}"
        n /= 1000
    raise AssertionError


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _int(name: str, value: Any, most: int | None = None, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"sweep: {name} must be an int of at least {least}, got {value!r}")
    if most is not None and value > most:
        why = "the last run's seed has 32 bits" if name == "seed" else "it is counted in int32"
        raise ValueError(f"sweep: {name} must be at most {most}, because {why}, got {value}")
    return int(value)
