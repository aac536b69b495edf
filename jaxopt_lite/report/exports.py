"""Sweeps in the forms of others: CSV, NumPy's npz, pandas, Optuna's studies, TensorBoard's HParams."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lite.report.analysis import columns, last_values, over_seeds
from jaxopt_lite.sweeps.ledger import DIVERGED, FAILED, FINISHED, STATUSES, STOPPED, Ledger

__all__ = []


def write_trials(ledger: Ledger, path: Path) -> None:
    """Write a CSV with a row for each trial."""
    table = columns(ledger)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        for row in zip(*(column.tolist() for column in table.values()), strict=True):
            writer.writerow([json.dumps(cell) if isinstance(cell, list) else cell for cell in row])


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
    return pandas.DataFrame(columns(ledger))


def to_optuna(ledger: Ledger, storage: Any, name: str) -> Any:
    """An Optuna study: trials that were stopped are pruned ones, diverged and failed ones have failed."""
    try:
        import optuna
    except ImportError:
        raise ImportError("to_optuna needs Optuna: pip install 'jaxopt-lite[optuna]'") from None
    states = {
        FINISHED: optuna.trial.TrialState.COMPLETE,
        STOPPED: optuna.trial.TrialState.PRUNED,
        DIVERGED: optuna.trial.TrialState.FAIL,
        FAILED: optuna.trial.TrialState.FAIL,
    }
    distributions = {d.name: _distribution(d.axis, optuna.distributions) for d in ledger.space.dimensions}
    scores, _ = over_seeds(np.moveaxis(ledger.measured, 1, -1))  # [trials, points]
    at_end = last_values(ledger).get(ledger.metric, np.empty((len(ledger), 0)))
    trials = []
    for number in np.flatnonzero(~ledger.running).tolist():
        encoded = ledger.space.encode(ledger.table[number])
        params = {n: _param(value, distributions[n], optuna.distributions) for n, value in encoded.items()}
        points = {
            (i + 1) * ledger.eval_every: float(score)
            for i, score in enumerate(scores[number, : ledger.step[number] // ledger.eval_every])
            if math.isfinite(score)
        }
        state = states[int(ledger.status[number])]
        if state is optuna.trial.TrialState.COMPLETE and not points:
            state = optuna.trial.TrialState.FAIL  # Optuna wants a value of a complete trial
        complete = state is optuna.trial.TrialState.COMPLETE
        trials.append(
            optuna.trial.create_trial(
                state=state,
                value=points[max(points)] if complete or (points and state is optuna.trial.TrialState.PRUNED) else None,
                params=params,
                distributions={n: distributions[n] for n in params},
                intermediate_values=points,
                user_attrs={
                    "number": number,
                    "status": STATUSES[ledger.status[number]],
                    "steps": int(ledger.step[number]),
                    "seeds": [float(x) for x in at_end[number]],
                },
            )
        )
    direction = "maximize" if ledger.highest else "minimize"
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(study_name=name, storage=storage, direction=direction)
        study.add_trials(trials)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return study


def _distribution(axis: Any, kinds: Any) -> Any:
    if axis.kind == "choice":
        return kinds.CategoricalDistribution([_hashable(axis.plain(i)) for i in range(len(axis.options))])
    if axis.kind == "int":
        return kinds.IntDistribution(axis.low, axis.high, log=axis.log)
    return kinds.FloatDistribution(float(axis.low), float(axis.high), log=axis.log)


def _param(value: Any, distribution: Any, kinds: Any) -> Any:
    if isinstance(distribution, kinds.CategoricalDistribution):
        return _hashable(value)
    return min(max(value, distribution.low), distribution.high)  # a float32's shortest digits may lie a hair outside


def _hashable(value: Any) -> Any:
    """What Optuna takes as an option: None, bool, int, float or str."""
    return json.dumps(value) if isinstance(value, (list, tuple)) else value


def to_tensorboard(ledger: Ledger, directory: Path | str, top: int) -> Path:
    """Event files for TensorBoard's HParams, DIRECTORY/trial-NUMBER/seed-SEED, a trial's seeds in one session group."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.plugins.hparams import summary_v2 as hparams
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise ImportError("to_tensorboard needs TensorBoard: pip install 'jaxopt-lite[tensorboard]'") from None
    directory = Path(directory)
    metrics = [hparams.Metric(name) for name in sorted(ledger.curves)]
    kinds = {"float": (float,), "int": (int,), "choice": (str,)}
    domains = [hparams.HParam(d.name, None, str(d.axis)) for d in ledger.space.dimensions if kinds[d.axis.kind]]
    writer = EventFileWriter(str(directory))
    writer.add_event(Event(summary=hparams.hparams_config_pb(hparams=domains, metrics=metrics)))
    writer.close()
    for number in ledger.ranking()[:top].tolist():
        params = {n: _shown(value) for n, value in ledger.space.encode(ledger.table[number]).items()}
        for s in range(ledger.seeds):
            writer = EventFileWriter(str(directory / f"trial-{number}" / f"seed-{ledger.seed + s}"))
            begin = hparams.hparams_pb(params, trial_id=f"trial-{number}", start_time_secs=0.0)
            writer.add_event(Event(summary=begin))
            for name, curve in ledger.curves.items():
                for i, value in enumerate(curve[number, s, : ledger.step[number] // ledger.eval_every].tolist()):
                    scalar = Summary(value=[Summary.Value(tag=name, simple_value=value)])
                    writer.add_event(Event(step=(i + 1) * ledger.eval_every, summary=scalar))
            writer.close()
    return directory


def _shown(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
