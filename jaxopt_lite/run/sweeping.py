"""`sweep` and `resume`: drive the engine, and own files, clock, signals and progress."""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxopt_lite.core.arguments import INT32_MAX, check_bool, check_choice, check_int
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.log.scoreboard import Scoreboard
from jaxopt_lite.report.result import SweepResult
from jaxopt_lite.run.arguments import check_path, check_progress
from jaxopt_lite.run.saves import Saves
from jaxopt_lite.run.signals import interruptible
from jaxopt_lite.run.sweep_folder import SINCE, SweepFolder, read_arguments
from jaxopt_lite.sweeps.engine import Advanced, Engine, Happened, Outcome, Reply
from jaxopt_lite.sweeps.groups import Groups, Snapshot
from jaxopt_lite.sweeps.ledger import Ledger
from jaxopt_lite.sweeps.policies import Policy, run_all
from jaxopt_lite.sweeps.program import STOPPING, SweepPlan
from jaxopt_lite.sweeps.samplers import Sampler, initial_table, sobol, trial_count
from jaxopt_lite.sweeps.space import space as make_space

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
    width: int | None = None,
    initial: Sequence[dict] = (),
    directory: Path | str | None = None,
    *,
    independent: bool = False,
    compute_dtype: Any = None,
    accumulate: int = 1,
    eval_batch_size: int | None = None,
    remat: bool | str = False,
    max_groups: int = 32,
    on_error: str = "raise",
    save_seconds: float | None = 60.0,
    save_calls: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: str | None = "auto",
    overwrite: bool = False,
) -> SweepResult:
    """Train many configs side by side, in one compiled program for each group of equal shapes, on every device.

    Args:
        trial: trial(config) -> (task, optimizer). Float32 numbers of the config are traced, so one program serves all
            their values; what else it holds is static, and each combination of static values makes a group.
        space: a dict of distributions and constants by name, or a `space` with a constraint.
        trials: how many configs, at least 1, those of `initial` included; None is all of a grid.
        steps: of a whole trial, a multiple of eval_every.
        batch_size: examples in a batch, the same ones for all trials; None takes all at each step, as a solver needs.
        eval_every: steps between two points of a curve; rungs and intervals of policies are multiples of it.
        seeds: runs of each trial, at least 1, with seeds seed, seed + 1, ...; trials are ranked by the mean over them.
        sampler: which configs; None is `sobol()`.
        policy: which trials are promoted, and how far; None is `run_all()`.
        metric: the watched curve; None is valid.accuracy, or else valid.loss, or train.loss without valid data.
        mode: "min" or "max"; None where the metric's name ends in loss or accuracy.
        seed: of configs, initialisation, data order and steps, at least 0; seed + seeds is at most 2**32.
        width: trials in a cohort, at least 1; None chooses it by a fixed rule.
        initial: configs that are tried first.
        directory: where everything is saved; the same call again resumes what is there, and more `trials` extend it.
        independent: give each trial keys and a data order of its own; otherwise trials are paired.
        compute_dtype: floating dtype of the loss, such as "bfloat16"; None computes in the dtypes of the trial.
        accumulate: in how many pieces, at least 1, each batch is worked, one after the other; see `fit`.
        eval_batch_size: examples in a piece of the data that are evaluated, at least 1; see `fit`. None takes them
            whole.
        remat: whether, or by what policy, results are computed again instead of kept for the gradient; see `fit`.
        max_groups: more groups than this are an error that names the dimension, at least 1.
        on_error: "raise", or "continue" with the others where `trial` raises for a group, or a rule refuses the numbers
            of a trial.
        save_seconds: seconds between two saves, at least 0; None saves at the end only, or by `save_calls`.
        save_calls: calls of a program between two saves, at least 1; None does not count them.
        devices: on which to run; None is all devices of this process.
        progress: "auto" (a bar on a terminal or in a notebook, else nothing), "bar", "lines" or "none".
        overwrite: replace what an earlier sweep left in the directory.

    Returns:
        The result: best, trials, curves, and pictures and tables of them. Ctrl-C and SIGTERM save and end the sweep,
        and the result so far is returned.

    Raises:
        TypeError, ValueError: for arguments of a wrong type or out of range, before anything is compiled or written;
            for a `trial` that returns something else than (task, optimizer), whose data depend on a traced number, or
            whose numbers a rule refuses; for a directory that holds another sweep.
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
    plan = SweepPlan(
        steps, batch_size, eval_every, metric=metric, mode=mode, compute_dtype=compute_dtype,
        accumulate=accumulate, eval_batch_size=eval_batch_size, remat=remat,
        seeds=seeds, seed=seed, independent=independent,
    )  # fmt: skip
    width = check_int("sweep", "width", width, 1, INT32_MAX, none=True)
    max_groups = check_int("sweep", "max_groups", max_groups)
    saves = Saves("sweep", save_seconds, save_calls, "save_calls")
    check_choice("sweep", "on_error", on_error, ("raise", "continue"))
    check_bool("sweep", "overwrite", overwrite)
    path = check_path("sweep", "directory", directory)
    devices = jax.local_devices() if devices is None else devices
    if not isinstance(devices, Sequence) or not devices or not all(isinstance(d, jax.Device) for d in devices):
        raise TypeError(f"sweep: devices must be a list of devices, such as jax.devices()[:1], got {devices!r}")
    progress = check_progress("sweep", progress)
    initial_table(space, initial)  # raises what is wrong with them
    count = trial_count(sampler, space, trials, initial)
    if count > 1 and not space.dimensions and not independent:
        raise ValueError(
            f"sweep: {count} trials would all be the same, for the space holds constants alone; give a distribution, "
            "trials=1, or more seeds"
        )

    groups = Groups(trial, Ledger.empty(space, plan), plan, devices, width, keep_on=on_error == "continue")
    engine = Engine(groups, sampler, policy, count, initial, max_groups)
    if path is None:
        return _drive(engine, None, None, Scoreboard(progress), resumed=False)
    arguments = {"trial": trial, "space": space, "trials": count, "sampler": sampler, "policy": policy, "width": width}
    arguments |= {"initial": initial, "max_groups": max_groups, "on_error": on_error}
    arguments |= {name: value for name, value in dataclasses.asdict(plan).items() if name not in STOPPING}
    arguments = {name: value for name, value in arguments.items() if SINCE.get(name, ...) != value}
    with contextlib.closing(SweepFolder(path, arguments, overwrite)) as folder:
        earlier = folder.earlier()
        if earlier is not None:
            engine.groups.restore(earlier)
        return _drive(engine, folder, saves, Scoreboard(progress), resumed=earlier is not None)


def resume(
    directory: Path | str, trial: Callable[[dict], tuple] | None = None, progress: str | None = "auto"
) -> SweepResult:
    """Resume the sweep in a directory, from the middle of its trials; one that has finished is read back.

    Args:
        directory: of a sweep.
        trial: the function of the config; None imports it by its name.
        progress: "auto" (a bar on a terminal or in a notebook, else nothing), "bar", "lines" or "none".

    Returns:
        The result, the same as if the sweep had never stopped.

    Raises:
        FileNotFoundError: if there is no sweep.
        ValueError: if a function cannot be found again by its name, or the code, the data or the JAX version changed.
    """
    arguments = read_arguments(Path(directory), trial)
    return sweep(**arguments, directory=directory, progress=progress)


def _drive(engine: Engine, folder: SweepFolder | None, saves: Any, board: Scoreboard, resumed: bool) -> SweepResult:
    """Run the generator to its end, passing on its events."""
    began = last = time.perf_counter()
    events, reply, ledger = engine.run(), None, engine.ledger
    notes = folder.warnings if folder is not None else []
    if folder is not None and resumed:
        folder.open()
        folder.log("resumed", trials=len(ledger), warnings=notes)
    for note in notes:
        board.print(note)
    points = 1 if folder is not None or board.shown else None  # of the first calls, until their time is known
    with interruptible() as interrupted, contextlib.closing(events), contextlib.closing(board):
        try:
            while True:
                event = events.send(reply)
                now, save = time.perf_counter(), False
                if isinstance(event, Snapshot) and folder is not None:
                    folder.save(event)
                elif isinstance(event, Advanced):
                    if points is not None:
                        seconds = (now - last) * ledger.eval_every / event.steps
                        points = max(1, min(int(_CALL_SECONDS / max(seconds, 1e-6)), 2 * points))
                    save = saves is not None and saves.due(now)
                    board.advanced(ledger, engine.trials, len(event.trials) * event.steps * ledger.seeds)
                elif isinstance(event, Happened):
                    if folder is not None:
                        if event.what == "decided":
                            folder.open()  # sampler, trial and policy have returned: no argument is wrong any more
                        folder.log(event.what, **event.facts)
                    if text := _text(event, engine):
                        board.print(text)
                    if event.what == "unread":
                        notes.append(text)
                last = time.perf_counter()
                reply = Reply(save, interrupted.is_set(), points)
        except StopIteration as end:
            outcome: Outcome = end.value
    result = SweepResult.of(outcome, time.perf_counter() - began, None if folder is None else folder.path, notes)
    if folder is None:
        return result
    try:
        if outcome.complete:
            folder.save(engine.groups.snapshot())
        folder.finish(result, engine.groups.facts())
    except Exception as error:  # such as a full disk: the result must not be lost
        note = f"not all of {folder.path} could be written at the end ({type(error).__name__}: {error})"
        warnings.warn(f"sweep: {note}; the result is returned", RuntimeWarning, stacklevel=3)
        result = dataclasses.replace(result, warnings=(*result.warnings, note))
    return result


def _text(event: Happened, engine: Engine) -> str:
    """The line to print for an event, or an empty string."""
    facts = event.facts
    match event.what:
        case "proposed" if facts["count"] == engine.trials:
            trials, groups = _count(facts["count"], "trial"), _count(facts["groups"], "group")
            return f"{trials} in {groups}, {_count(engine.ledger.seeds, 'seed')} each"
        case "compiled":
            state, trials = facts["state_bytes"], facts["trials"]
            return (
                f"{facts['group']}: {_count(trials, 'trial')}, {facts['width']} at a time on {facts['device']}; "
                f"{_size(state)} of state each, {_size(state * trials)} at most in all, and "
                f"{_size(facts['temporary_bytes'] or 0)} while it runs"
            )
        case "groupfailed":
            failed = _count(len(facts["trials"]), "trial")
            return f"{failed} failed, trial raised for {facts['group']}: {facts['error']}"
        case "narrowed":
            return f"{facts['group']}: memory did not suffice, now {facts['width']} at a time"
        case "unread":
            return facts["text"]
    return ""


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.3g} {unit}"
        n /= 1000
    raise AssertionError
