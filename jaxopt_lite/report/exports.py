"""Sweeps in other formats: CSV, NumPy's npz, pandas, Optuna's studies, TensorBoard's HParams."""

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lite.log.tensorboard import EventFile, ending, scalar
from jaxopt_lite.report.analysis import columns, label, last_measured, last_values, over_seeds
from jaxopt_lite.sweeps.configs import plain, printed
from jaxopt_lite.sweeps.ledger import DIVERGED, FAILED, FINISHED, STATUSES, STOPPED, Ledger

__all__ = []


def write_trials(ledger: Ledger, path: Path) -> None:
    """Write a CSV with a row for each trial; a cell is empty where there is no value. Lists are written as JSON."""
    table = _with_errors(ledger)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*map(_cells, table.values()), strict=True))


def _with_errors(ledger: Ledger) -> dict[str, np.ndarray]:
    """The ledger's columns, and why trials failed: None for those that did not."""
    errors = [ledger.errors.get(number) for number in range(len(ledger))]
    return {**columns(ledger), "error": np.array(errors, object)}


def _cells(column: np.ndarray) -> list[Any]:
    if column.dtype.kind == "f":  # the shortest digits that parse to the same number
        return ["" if text == "nan" else text for text in column.astype(str).tolist()]
    return [json.dumps(plain(cell)) if isinstance(cell, list) else cell for cell in column.tolist()]


def write_curves(ledger: Ledger, path: Path) -> None:
    """Write the curves, float32 [trials, seeds, points] by name, and `step`, int [points]."""
    steps = np.arange(1, ledger.points + 1) * ledger.eval_every
    with path.open("wb") as file:
        arrays: dict[str, Any] = {"step": steps, **ledger.curves}
        np.savez_compressed(file, **arrays)


def to_dataframe(ledger: Ledger) -> Any:
    """A pandas DataFrame with a row for each trial."""
    try:
        import pandas
    except ImportError:
        raise ImportError("to_dataframe needs pandas: pip install 'jaxopt-lite[tables]'") from None
    return pandas.DataFrame(_with_errors(ledger))


def to_optuna(ledger: Ledger, storage: Any, name: str) -> Any:
    """An Optuna study: trials that were stopped are pruned ones, diverged and failed ones have failed.

    Left out are trials that have not ended. A finished trial whose metric is not finite has failed, for Optuna.

    Raises:
        ImportError: if Optuna is not installed.
        ValueError: if the storage has a study of that name.
    """
    try:
        import optuna
    except ImportError:
        raise ImportError("to_optuna needs Optuna: pip install 'jaxopt-lite[optuna]'") from None
    trials = list(_optuna_trials(ledger, optuna))
    direction = "maximize" if ledger.highest else "minimize"
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(study_name=name, storage=storage, direction=direction)
        study.set_user_attr("metric", ledger.metric)
        study.add_trials(trials)
    except optuna.exceptions.DuplicatedStudyError:
        raise ValueError(f"to_optuna: the storage has a study named {name!r}; give another name=") from None
    finally:
        optuna.logging.set_verbosity(verbosity)
    return study


def _optuna_trials(ledger: Ledger, optuna: Any) -> Iterator[Any]:
    states = optuna.trial.TrialState
    known = {FINISHED: states.COMPLETE, STOPPED: states.PRUNED, DIVERGED: states.FAIL, FAILED: states.FAIL}
    distributions = {d.name: _distribution(d.axis, optuna.distributions) for d in ledger.space.dimensions}
    curves, _ = over_seeds(np.swapaxes(ledger.measured, 1, 2))  # [trials, points]
    scores, errors = last_measured(ledger)
    seeds = last_values(ledger).get(ledger.metric, np.empty((len(ledger), 0)))
    copies: dict[int, list] = {}
    for event in ledger.lineage:
        copies.setdefault(event.trial, []).append({"step": event.step, "source": event.source})
    for number in np.flatnonzero(~ledger.running).tolist():
        row = ledger.table[number]
        params = {
            d.name: _param(d.axis, x, distributions[d.name])
            for d, x in zip(ledger.space.dimensions, row, strict=True)
            if not np.isnan(x)
        }
        state = known[int(ledger.status[number])]
        has_score = np.isfinite(scores[number])
        if state is states.COMPLETE and not has_score:
            state = states.FAIL
        about = {
            "number": number,
            "status": STATUSES[ledger.status[number]],
            "steps": int(ledger.step[number]),
            "seeds": [_number(x) for x in seeds[number]],
            "stderr": _number(errors[number]),
        }
        about |= {"copies": copies[number]} if number in copies else {}
        about |= {"error": ledger.errors[number]} if number in ledger.errors else {}
        yield optuna.trial.create_trial(
            state=state,
            value=float(scores[number]) if has_score and state is not states.FAIL else None,
            params=params,
            distributions={name: distributions[name] for name in params},
            intermediate_values={
                (i + 1) * ledger.eval_every: float(score)
                for i, score in enumerate(curves[number])
                if np.isfinite(score)
            },
            user_attrs=about,
        )


def _distribution(axis: Any, kinds: Any) -> Any:
    if axis.kind == "choice":
        return kinds.CategoricalDistribution(_options(axis))
    if axis.kind == "int":
        return kinds.IntDistribution(axis.low, axis.high, log=axis.log)
    return kinds.FloatDistribution(float(axis.low), float(axis.high), log=axis.log)


def _param(axis: Any, number: float, distribution: Any) -> Any:
    if axis.kind == "choice":
        return distribution.choices[int(number)]
    # Rounding to the shortest digits may leave the range.
    return min(max(axis.value(number), distribution.low), distribution.high)


def _options(axis: Any) -> list[Any]:
    """Options as Optuna and TensorBoard take them: numbers, bools or strings where all are, else all as text."""
    options = [printed(option) for option in axis.options]
    alike = any(all(isinstance(option, kind) for option in options) for kind in (bool, str)) or all(
        isinstance(option, int | float) and not isinstance(option, bool) for option in options
    )
    for written in (options if alike else [], [label(option) for option in options]):
        if len(set(written)) == len(options):
            return written
    return [repr(option) for option in options]  # the number 1, the number 1.0 and the string "1" differ


def _number(value: Any) -> float | None:
    """A number as JSON has it, None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def to_tensorboard(ledger: Ledger, directory: Path | str, top: int) -> Path:
    """Event files for TensorBoard's HParams, DIRECTORY/trial-NUMBER/seed-SEED, a trial's seeds in one session group.

    Raises:
        ImportError: if TensorBoard is not installed.
        FileExistsError: if the directory holds event files.
        ValueError: if top is below 1.
    """
    try:
        from tensorboard.plugins.hparams import summary_v2 as hparams
    except ImportError:
        raise ImportError("to_tensorboard needs TensorBoard: pip install 'jaxopt-lite[tensorboard]'") from None
    directory, now = Path(directory), time.time()
    if top < 1:
        raise ValueError(f"to_tensorboard: top must be at least 1, got {top}")
    if next(directory.rglob("events.out.tfevents.*"), None):
        raise FileExistsError(f"to_tensorboard: {directory} holds event files; give another directory")
    dimensions = [hparams.HParam(d.name, _domain(d.axis, hparams)) for d in ledger.space.dimensions]
    metrics = [hparams.Metric(name) for name in [ledger.metric, *sorted({*ledger.curves} - {ledger.metric})]]
    _write_events(directory, now, [(0, hparams.hparams_config_pb(dimensions, metrics, now))])
    for number in [n for n in ledger.ranking().tolist() if ledger.step[n]][:top]:
        params = {
            d.name: _options(d.axis)[int(x)] if d.axis.kind == "choice" else d.axis.value(x)
            for d, x in zip(ledger.space.dimensions, ledger.table[number], strict=True)
            if not np.isnan(x)
        }
        lost = ledger.status[number] in (DIVERGED, FAILED)
        status = "STATUS_FAILURE" if lost else "STATUS_RUNNING" if ledger.running[number] else "STATUS_SUCCESS"
        steps = int(ledger.step[number])
        for s in range(ledger.seeds):
            events = [(0, hparams.hparams_pb(params, trial_id=f"trial-{number}", start_time_secs=now))]
            for name, curve in ledger.curves.items():
                values = curve[number, s, : steps // ledger.eval_every].tolist()
                events += [((i + 1) * ledger.eval_every, scalar(name, value)) for i, value in enumerate(values)]
            events.append((steps, ending(status, now)))
            _write_events(directory / f"trial-{number}" / f"seed-{ledger.seed + s}", now, events)
    return directory


def _domain(axis: Any, hparams: Any) -> Any:
    if axis.kind == "choice":
        options = _options(axis)
        return hparams.Discrete([float(o) for o in options] if any(isinstance(o, float) for o in options) else options)
    return hparams.IntInterval(axis.low, axis.high) if axis.kind == "int" else hparams.RealInterval(axis.low, axis.high)


def _write_events(directory: Path, now: float, events: list[tuple[int, Any]]) -> None:
    """One event file."""
    file = EventFile(directory)
    for step, summary in events:
        file.add(now, step, summary)
    file.close()
