"""The directory of a sweep: what it is, what happened, and what is needed to go on.

sweep.json       the arguments, versions, device, width of each group, and what it came to
trials.csv       a row for each trial
curves.npz       float32 [trials, seeds, points] by name, and `step`
events.jsonl     what happened, a line each, only ever appended to
sweep.png        the picture
checkpoints/     the ledger and the states of trials under way
"""

import importlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxopt_lite import checkpoint
from jaxopt_lite.core.text import parse, spell
from jaxopt_lite.core.values import Value
from jaxopt_lite.log.records import JsonLines, versions, write_json
from jaxopt_lite.report.exports import write_curves, write_trials
from jaxopt_lite.report.result import SweepResult
from jaxopt_lite.sweeps.events import Snapshot
from jaxopt_lite.sweeps.space import Space

__all__ = []

NAMES = ("sweep.json", "trials.csv", "curves.npz", "events.jsonl", "sweep.png", "checkpoints")
_LATER = ("trials", "max_groups", "on_error", "trial")  # what may change when a sweep goes on; see `earlier`


class SweepFolder:
    """A sweep's directory. Nothing is written or removed before `open`, so that a bad argument leaves all as it was.

    Args:
        path: where it is, or is to be.
        arguments: of the sweep.
        overwrite: whether to remove what an earlier sweep left there.

    Raises:
        FileExistsError, PermissionError: if it cannot be made, or holds something else under the names of a sweep.
    """

    def __init__(self, path: Path, arguments: dict[str, Any], overwrite: bool = False):
        checkpoint.require_orbax(path)
        self.path, self.arguments, self._overwrite = path, arguments, overwrite
        self._events, self._early = None, []
        exists = next(p for p in (path, *path.absolute().parents) if p.exists())
        if not exists.is_dir():
            raise FileExistsError(f"sweep: directory {path} cannot be made, {exists} is a file")
        if not os.access(exists, os.W_OK):
            raise PermissionError(f"sweep: directory {path} cannot be written, for lack of permission in {exists}")
        present = [name for name in NAMES if (path / name).exists()]
        if (path / "metrics.jsonl").exists() and "sweep.json" not in present:
            raise FileExistsError(
                f"sweep: {path} holds a run of fit (metrics.jsonl), which a sweep does not replace; "
                "give another directory"
            )
        if present and "sweep.json" not in present:
            raise FileExistsError(f"sweep: {path} holds a {present[0]} that is of no sweep; give another directory")
        self.warnings: list[str] = []

    def open(self) -> None:
        """Begin to write: what was said before, too."""
        if self._events is not None:
            return
        if self._overwrite:
            for name in NAMES:
                there = self.path / name
                shutil.rmtree(there) if there.is_dir() else there.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "sweep.json").exists():
            self.about({"status": "running"})
        self._events = JsonLines(self.path / "events.jsonl", append=True)
        for line in self._early:
            self._events.write(line)

    def earlier(self) -> Snapshot | None:
        """The last save of the same sweep, or None where nothing was saved.

        Functions may have moved (they were in the script that was run, and are imported now): what `trial` trains is
        compared by the hash of its program.

        Raises:
            ValueError: if the directory holds another sweep; it shows the difference.
        """
        if self._overwrite or not (self.path / "sweep.json").exists():
            return None
        was = read_about(self.path)
        changed = [
            f"  {name}: {was['arguments'].get(name)!r} then, {now!r} now"
            for name, now in plain_arguments(self.arguments).items()
            if name not in _LATER and not name.endswith("_from") and was["arguments"].get(name) != now
        ]
        if self.arguments["trials"] < was["arguments"]["trials"]:
            changed.append(f"  trials: {was['arguments']['trials']} then, {self.arguments['trials']} now")
        if changed:
            raise ValueError(
                f"sweep: {self.path} holds another sweep; give another directory, or overwrite=True. What differs:\n"
                + "\n".join(changed)
            )
        here = self._circumstances()
        for name in ("jax", "backend"):
            if was["versions"][name] != here[name]:
                raise ValueError(
                    f"sweep: {self.path} was made with {name} {was['versions'][name]}, here it is {here[name]}: trials "
                    "would not be comparable; go on with the same, or begin anew in another directory"
                )
        if was["versions"]["threads"] != here["threads"]:
            self.warnings.append(
                f"it began with {was['versions']['threads']} CPU threads and goes on with {here['threads']}: the last "
                "bits of new results may differ"
            )
        saved = checkpoint.load(self.path / "checkpoints")
        if saved is None:
            return None
        self.warnings += saved.warnings
        return Snapshot(saved.arrays, saved.meta)

    def save(self, snapshot: Snapshot) -> None:
        """Save what is needed to go on."""
        self.open()
        self.about({"status": "running", **{name: snapshot.facts[name] for name in ("groups", "metric")}})
        checkpoint.save(self.path / "checkpoints", snapshot.arrays, snapshot.facts)
        self.say("saved", trials=snapshot.facts["trials"])

    def say(self, what: str, **facts: Any) -> None:
        """Append to what happened."""
        line = {"event": what, **facts}
        self._early.append(line) if self._events is None else self._events.write(line)

    def about(self, facts: dict[str, Any]) -> None:
        """Write sweep.json."""
        content = {"arguments": plain_arguments(self.arguments), "versions": self._circumstances(), **facts}
        write_json(self.path / "sweep.json", content)

    def finish(self, result: SweepResult, groups: list[dict[str, Any]]) -> None:
        """Write what the sweep came to, or has come to so far."""
        self.open()
        ledger, best = result.ledger, result.best
        write_trials(ledger, self.path / "trials.csv")
        write_curves(ledger, self.path / "curves.npz")
        facts = {"status": result.status, "message": result.message, "seconds": round(result.seconds, 3)}
        if best is not None:
            config = ledger.space.encode(ledger.table[best.number])
            metrics = {name: value.mean() for name, value in best.metrics.items()}
            facts["best"] = {"trial": best.number, "config": config, "score": best.score, **metrics}
        facts |= {"trials": ledger.summary(), "warnings": result.warnings, "metric": ledger.metric, "groups": groups}
        self.about(facts)
        if importlib.util.find_spec("matplotlib"):
            result.plot(self.path / "sweep.png")
        self.say(result.status, **ledger.summary())
        if self._events is not None:
            self._events.close()

    def _circumstances(self) -> dict[str, Any]:
        flags = os.environ.get("XLA_FLAGS", "")
        threads = os.environ.get("NPROC") or str(len(os.sched_getaffinity(0)))
        return {**versions(), "devices": jax.local_device_count(), "threads": threads, "xla_flags": flags}


def plain_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a sweep as JSON has them: functions by name, values as the calls that make them."""
    space, plain = arguments["space"], {}
    for name, value in arguments.items():
        if isinstance(value, Value):
            plain[name] = spell(value, defaults=True)
            functions = [value.factory, getattr(value, "where", None)]
            foreign = [named(f) for f in functions if f is not None and not named(f).startswith("jaxopt_lite.")]
            if foreign:
                plain[f"{name}_from"] = foreign[0]
        elif name == "initial":
            plain[name] = [space.encode(row) for row in space.table(list(value), "initial")] if value else []
        else:
            plain[name] = named(value) if callable(value) else value
    return json.loads(json.dumps(plain))


def read_about(path: Path) -> dict[str, Any]:
    """What sweep.json says.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged.
    """
    try:
        return json.loads((path / "sweep.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"there is no sweep in {path}: it has no sweep.json") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path / 'sweep.json'} is damaged: {error}") from None


def read_arguments(path: Path, trial: Callable | None) -> dict[str, Any]:
    """The arguments of the sweep in a directory, as `sweep` takes them.

    Raises:
        ValueError: if one cannot be found again by name; the same call of `sweep` then goes on.
    """
    arguments = dict(read_about(path)["arguments"])
    space = None
    for name in ("space", "sampler", "policy"):
        names, home = {}, arguments.pop(f"{name}_from", None)
        if home is not None:
            names[home.rpartition(":")[2]] = _find(home, name)
        try:
            arguments[name] = parse(arguments[name], names)
        except ValueError as error:
            raise ValueError(
                f"resume: the {name} of {path} cannot be read from its text ({error}); call sweep(...) again with the "
                "same arguments and this directory"
            ) from None
    space = arguments["space"]
    assert isinstance(space, Space)
    rows = [space.decode(encoded) for encoded in arguments["initial"]]
    arguments["initial"] = space.configs(np.array(rows).reshape(len(rows), len(space.dimensions)))
    arguments["trial"] = trial or _find(arguments["trial"], "trial")
    return arguments


def named(function: Callable) -> str:
    """Where a function can be found again, as module:name."""
    while hasattr(function, "func"):
        function = function.func
    if not hasattr(function, "__qualname__"):
        return repr(function)
    return f"{function.__module__}:{function.__qualname__}"


def _find(name: str, what: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        hint = "give it: resume(directory, trial=...)" if what == "trial" else "call sweep(...) again instead"
        raise ValueError(f"resume: the {what} {name!r} cannot be imported by name; {hint}") from None
