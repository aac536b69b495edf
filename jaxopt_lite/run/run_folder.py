"""The directory of a run of `fit`: its history, its checkpoints, and what is needed to resume it.

summary.json    the arguments, versions, hashes of the task's functions and data; and how the run stands, or ended
metrics.jsonl   a row for each point of the history, written as it happens; metrics.csv has the same
curves.png      the picture, at the end
checkpoints/    the whole run, by step; see `jaxopt_lite.checkpoint`
profile/        a trace of some steps, where one was asked for
"""

import contextlib
import dataclasses
import importlib.util
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxopt_lite.checkpoint.folder import Saved, require_orbax, sync_folder
from jaxopt_lite.checkpoint.packing import pack
from jaxopt_lite.checkpoint.saving import described
from jaxopt_lite.checkpoint.store import Store
from jaxopt_lite.checkpoint.unpacking import unpack
from jaxopt_lite.core.programs import digest
from jaxopt_lite.core.text import spell
from jaxopt_lite.log.records import JsonLines, read_json, versions, write_json
from jaxopt_lite.log.tables import CsvTable
from jaxopt_lite.log.trackers import Spread
from jaxopt_lite.report.curves import plot_history
from jaxopt_lite.run.contents import COMPILED_BY, changed, contents, nameless, unchanged
from jaxopt_lite.run.folder import Folder, InUseError
from jaxopt_lite.train.loop import Point, Snapshot
from jaxopt_lite.train.plan import Plan, is_highest_best, watched
from jaxopt_lite.train.result import Result, Row
from jaxopt_lite.train.state import Method, TrainState, adopted, first_state
from jaxopt_lite.train.task import Task
from jaxopt_lite.transforms.schedule_free import is_averaged

__all__ = []

NAMES = ("metrics.jsonl", "metrics.csv", "curves.png", "checkpoints", "profile", "summary.json")
_ABOUT = {"arguments": {"steps": int}, "data": dict, "contents": dict, "versions": dict}
_AT_ONCE = 1.0  # seconds that the directory may take to close after a second Ctrl-C
_REMEDY = "copy it back from a backup, or start again: in another directory, or with overwrite=True"


class RunFolder(Folder):
    """A run's directory. It is made when the first point comes, so that a bad argument leaves nothing behind.

    Args:
        path: where it is, or is to be.
        overwrite: whether to remove what an earlier run left there.
        keeps: whether checkpoints are kept.
        keep: how many of the latest.

    Raises:
        FileExistsError, PermissionError: if it cannot be made, holds a sweep, or is in use.
        ImportError, OSError: if checkpoints are to be kept and cannot.
    """

    who, kind, names = "fit", "a run", NAMES

    def __init__(self, path: Path, overwrite: bool, keeps: bool, keep: int = 2):
        if keeps:
            require_orbax(path)
        super().__init__(path)
        self._overwrite, self._keeps = overwrite, keeps
        self._checkpoints = Store(self.path / "checkpoints", keep, keep_best=True)
        self._rows: JsonLines | None = None
        self._table: CsvTable | None = None
        self._spread = Spread(0)
        self._begun, self._given_up = False, set()
        self._about: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}
        self._contents: dict[str, dict[str, str]] = {}
        self._decides = False
        self._resumed: list[Row] | None = None
        self._seconds = 0.0  # that the run took before

    def describe(self, task: Task, optimizer: Any, plan: Plan, seed: int, seeds: int | None, start: Any) -> None:
        """Record what the run is, by which a later call recognises it.

        Args:
            task: what is learned.
            optimizer: the method.
            plan: of the run.
            seed: of the run.
            seeds: the number of runs side by side, or None.
            start: the parameters or the state to begin with, or None.
        """
        self._functions = {"loss": task.loss, "init": task.init, "evaluate": task.evaluate, "optimizer": optimizer}
        data = {name: getattr(task, name) for name in ("train", "valid", "test")}
        held = {name: arrays for name, arrays in data.items() if arrays is not None and not callable(arrays)}
        if task.train_is_iterator:
            held.pop("train", None)
        self._decides, self._spread = plan.decides, Spread(seed)
        self._about = {
            "arguments": {
                "optimizer": nameless(spell(optimizer, defaults=True)),
                **dataclasses.asdict(plan),
                "seed": int(seed),
                "seeds": seeds,
                "begins_with": None if start is None else digest(_arrays_of(start)),
            },
            "data": {name: digest(arrays) for name, arrays in held.items()},
            "versions": versions(),
        }
        self._contents = self._hashed()

    def _hashed(self) -> dict[str, dict[str, str]]:
        """Hashes of the user's functions."""
        return {name: contents(function) for name, function in self._functions.items()}

    def earlier(self, template: Callable[[], TrainState]) -> Snapshot | None:
        """The last checkpoint of the same run; None where nothing was saved.

        Args:
            template: makes the shapes of the first state.

        Raises:
            FileExistsError: if the directory holds a run that cannot be resumed.
            ValueError: if it holds another run, with what differs; or if all of its checkpoints are damaged.
        """
        if self._overwrite or not self.present:
            return None
        if not self._keeps:
            raise FileExistsError(
                f"fit: {self.path} holds a run already ({self.present[0]}), and this one keeps no checkpoints; give "
                "another directory, or overwrite=True"
            )
        was = self._read()
        if differs := self._differences(was):
            raise ValueError(
                f"fit: {self.path} holds another run; give another directory, or overwrite=True. What differs:\n"
                + "\n".join(differs)
            )
        found = self.last_checkpoint(lambda saved: _snapshot_of(saved, template()))
        if found is None:
            if was.get("status") != "running":
                raise FileExistsError(
                    f"fit: {self.path} holds a run that has ended ({was.get('status')}), and no checkpoints of it; "
                    "give another directory, or overwrite=True to train again"
                )
            return None  # it was killed before the first one
        snapshot = found[1]
        self._resumed, self._seconds = list(snapshot.rows), float(was.get("seconds_so_far", 0.0))
        return snapshot

    def _read(self) -> dict[str, Any]:
        path = self.path / "summary.json"
        if not path.exists():
            raise FileExistsError(
                f"fit: {self.path} holds a run already ({self.present[0]}), without the summary.json to resume it by; "
                "give another directory, or overwrite=True"
            )
        content = read_json(path, {}, _REMEDY)
        if not set(_ABOUT) <= set(content):
            raise FileExistsError(
                f"fit: {self.path} holds a run already (summary.json), of an earlier version, which cannot be resumed; "
                "give another directory, or overwrite=True"
            )
        return read_json(path, _ABOUT, _REMEDY)

    def _differences(self, was: dict[str, Any]) -> list[str]:
        """What differs from the run in the directory, a line each. The number of steps may, if it is not lower."""
        now = self._about
        then = {field.name: field.default for field in dataclasses.fields(Plan)} | was["arguments"]
        differs = [
            f"  {name}: {then.get(name)!r} then, {value!r} now"
            for name, value in now["arguments"].items()
            if name != "steps" and nameless(then.get(name)) != value
        ]
        if now["arguments"]["steps"] < was["arguments"]["steps"]:
            differs.append(f"  steps: {was['arguments']['steps']} then, {now['arguments']['steps']} now")
        for name in sorted({*was["data"], *now["data"]}):
            if was["data"].get(name) != now["data"].get(name):
                differs.append(f"  the {name} data have changed")
        if was["contents"].get("python") != COMPILED_BY:
            self.warnings.append("it was saved by another Python, so whether the task's code changed was not checked")
        else:
            differs += changed(was["contents"], self._contents)
        for name in ("jax", "backend", "device", "cpus"):
            then, here = was["versions"].get(name), now["versions"][name]
            if then != here:
                self.warnings.append(f"it began with {name} {then} and resumes with {here}: last bits may differ")
        return differs

    def add(self, point: Point) -> None:
        """Write a point to metrics.jsonl."""
        if "metrics.jsonl" not in self._given_up:
            with self._tried("metrics.jsonl"):
                self.open()
                assert self._rows is not None
                self._rows.write({"step": point.step, **point.metrics})
        if "metrics.csv" not in self._given_up and self._table is not None:
            with self._tried("metrics.csv"):
                self._table.write(point.step, self._spread(point.metrics))

    def open(self) -> None:
        """Begin to write; after that, see that the directory is still there."""
        if self._begun:
            self.check_there()
            return
        self.hold()
        now = [name for name in self.names if (self.path / name).exists()]
        if bool(now) != bool(self.present) and not self._overwrite:
            raise InUseError(f"fit: another run began in {self.path} meanwhile; give another directory")
        self._write_about({"status": "running"})  # first, so that what is left if it is killed here is still a run
        if self._resumed is None:
            self.remove(set(NAMES) - {"summary.json"})
        # The rows after the checkpoint are computed anew.
        rows = [{"step": row.step, **row.values} for row in self._resumed or []]
        self._rows = JsonLines.of(self.path / "metrics.jsonl", rows)
        with self._tried("metrics.csv"):
            self._table = CsvTable(self.path / "metrics.csv")
            for row in self._resumed or []:
                self._table.write(row.step, self._spread(row.values))
        self._begun = True

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, in the background."""
        with self._tried("checkpoints"):
            self.open()
            step = int(np.max(np.asarray(snapshot.run.state.step)))
            arrays, description = pack(snapshot._replace(rows=_columns(snapshot.rows)), "fit", strict=False)
            monitor = snapshot.run.monitor
            facts = {
                "kept": monitor is not None and bool(monitor.kept),
                "decides": self._decides,
                "averaged": is_averaged(snapshot.run.state.opt_state),
                "seeds": self._about["arguments"]["seeds"],
            }
            self._checkpoints.save(step, arrays, described(description, **facts), self._score(snapshot.rows[-1]))

    def _score(self, row: Row) -> float | None:
        """The watched metric of a point, lower is better; the mean over seeds that have one. None without one."""
        arguments = self._about["arguments"]
        try:
            metric = watched("fit", arguments["metric"], row.values, decides=False)
            sign = -1 if is_highest_best("fit", metric, arguments["mode"]) else 1
        except ValueError:
            return None
        scores = row.values[metric]
        return sign * float(np.mean(scores[np.isfinite(scores)])) if np.isfinite(scores).any() else None

    def close(self) -> None:
        """Wait for what is being written, and let the directory go."""
        with self._tried("checkpoints"):
            self._checkpoints.close()
        for name, file in (("metrics.jsonl", self._rows), ("metrics.csv", self._table)):
            with self._tried(name):
                if file is not None:
                    file.close()
        super().close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, KeyboardInterrupt):
            self.close()
            return
        # A second Ctrl-C does not wait for a disk that is slow or stuck; the directory stays held until that is done.
        closing = threading.Thread(target=self.close, name="closing", daemon=True)
        closing.start()
        closing.join(_AT_ONCE)

    @contextlib.contextmanager
    def _tried(self, name: str) -> Iterator[None]:
        """Turn an error in writing into a warning, once for each file, so that the steps done are not lost."""
        try:
            yield
        except InUseError:
            raise
        except Exception as error:
            if name not in self._given_up:
                self._given_up.add(name)
                why = f"could not be written ({type(error).__name__}: {error}); the run is not changed by it"
                warnings.warn(f"fit: {self.path / name} {why}", stacklevel=5)

    def finish(self, result: Result, seconds: float) -> None:
        """Write the summary and the picture."""
        with self._tried("summary.json"):
            self.open()
            self._write_about(
                {
                    "status": result.status,
                    "message": result.message,
                    "steps_done": result.steps,
                    "seconds": round(seconds, 3),
                    "seconds_so_far": round(self._seconds + seconds, 3),
                    "metrics": result.metrics,
                }
            )
        with self._tried("curves.png"):
            if importlib.util.find_spec("matplotlib"):
                title = self._about["arguments"]["optimizer"]
                plot_history(result.history, self.path / "curves.png", title=title)

    def _write_about(self, facts: dict[str, Any]) -> None:
        self._contents = unchanged(self._contents, self._hashed())
        known = {"contents": {"python": COMPILED_BY, **self._contents}}
        write_json(self.path / "summary.json", {**self._about["arguments"], **facts, **self._about, **known})
        sync_folder(self.path)


def _snapshot_of(saved: Saved, shapes: TrainState) -> Snapshot:
    """The snapshot in a checkpoint, in the structure of the run's first state."""
    kept = (shapes.params, shapes.model_state) if saved.content["kept"] else ()
    like = {".run.state": shapes, ".run.monitor.kept": kept}
    try:
        snapshot = unpack(saved.content["value"], saved.arrays, like, "fit")
    except ValueError as error:
        raise ValueError(
            f"{error}\nthe task or jax_enable_x64 is another; give another directory, or overwrite=True"
        ) from None
    return snapshot._replace(rows=tuple(_rows_of(snapshot.rows)))


def template_of(task: Task, method: Method, seeds: int | None, params: Any, state: TrainState | None) -> TrainState:
    """The shapes of the first state of a run."""
    if state is not None:
        return jax.eval_shape(lambda: adopted("fit", state)._replace(monitor=None))
    start = lambda key: first_state(task, method, key, params)
    keys = jax.random.split(jax.random.key(0), seeds) if seeds else jax.random.key(0)
    return jax.eval_shape(jax.vmap(start) if seeds else start, keys)


def _columns(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows of a history as a few arrays."""
    values = {name: np.stack([row.values[name] for row in rows]) for name in rows[0].values}
    one = {name: np.stack([np.asarray(getattr(row, name)) for row in rows]) for name in ("step", "status", "measured")}
    return {**one, "values": values}


def _rows_of(columns: dict[str, Any]) -> list[Row]:
    each = zip(columns["step"], columns["status"], columns["measured"], strict=True)
    return [
        Row(int(step), {name: column[i] for name, column in columns["values"].items()}, status, measured)
        for i, (step, status, measured) in enumerate(each)
    ]


def _arrays_of(value: Any) -> Any:
    """The arrays of a state or of parameters, to be hashed."""
    return jax.tree.map(lambda leaf: leaf if hasattr(leaf, "dtype") else np.asarray(leaf), value)
