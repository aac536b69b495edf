"""The directory of a sweep: its arguments, its events, its results, and what is needed to resume it.

sweep.json       the arguments, versions, device, width of each group, and the status and best trial
trials.csv       a row for each trial
curves.npz       float32 [trials, seeds, points] by name, and `step`
events.jsonl     what happened, a line each, only ever appended to
sweep.png        the picture
checkpoints/     the ledger and the states of trials under way
"""

import contextlib
import errno
import importlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxopt_lite.checkpoint.folder import require_orbax, sync_folder
from jaxopt_lite.checkpoint.packing import pack
from jaxopt_lite.checkpoint.saving import described
from jaxopt_lite.checkpoint.store import Store
from jaxopt_lite.checkpoint.unpacking import unpack
from jaxopt_lite.core.text import parse, spell
from jaxopt_lite.core.values import Value
from jaxopt_lite.log.records import JsonLines, read_json, versions, write_json
from jaxopt_lite.report.analysis import ended, over_seeds
from jaxopt_lite.report.exports import write_curves, write_trials
from jaxopt_lite.report.result import SweepResult
from jaxopt_lite.run.contents import COMPILED_BY, changed, contents, nameless, unchanged
from jaxopt_lite.run.folder import Folder
from jaxopt_lite.sweeps.groups import Snapshot

__all__ = []

NAMES = ("trials.csv", "curves.npz", "events.jsonl", "sweep.png", "checkpoints", "sweep.json")
_LATER = ("trials", "max_groups", "on_error", "trial")  # what may change when a sweep is resumed; see `earlier`

_OPTIONAL_INT, _OPTIONAL_TEXT = (int, type(None)), (str, type(None))
_ARGUMENTS = {
    **{"trial": str, "space": str, "trials": int, "steps": int, "batch_size": _OPTIONAL_INT, "eval_every": int},
    **{"seeds": int, "sampler": str, "policy": str, "metric": _OPTIONAL_TEXT, "mode": _OPTIONAL_TEXT, "seed": int},
    **{"width": (int, str, type(None)), "initial": list, "independent": bool, "compute_dtype": _OPTIONAL_TEXT},
    **{"max_groups": int, "on_error": str},
}
SINCE = {
    "accumulate": 1,
    "eval_batch_size": None,
    "remat": False,
}  # not in those of 0.1.0, and saved where they are not the default
_ABOUT = {"arguments": _ARGUMENTS, "versions": {"jax": str, "backend": str, "threads": str}, "status": str}
_SINCE = {"contents": {"python": str, "sampler": dict, "policy": dict, "where": dict}}  # not in those of 0.1.0


class SweepFolder(Folder):
    """A sweep's directory. Nothing is written or removed before `open`, so that a bad argument leaves all as it was.

    Args:
        path: where it is, or is to be.
        arguments: of the sweep.
        overwrite: whether to remove what an earlier sweep left there.

    Raises:
        FileExistsError, PermissionError: if it cannot be made, holds something else under the names of a sweep, or is
            in use.
    """

    who, kind, names = "sweep", "a sweep", NAMES

    def __init__(self, path: Path, arguments: dict[str, Any], overwrite: bool = False):
        require_orbax(path)
        self.arguments, self._overwrite = arguments, overwrite
        self._contents = _contents(arguments)
        self._events, self._early, self._begun = None, [], False
        self._saved = 0  # the number of the last checkpoint
        super().__init__(path)
        self._checkpoints = Store(self.path / "checkpoints")
        present = [name for name in self.present if not _is_empty(path / name)]
        self._found = "sweep.json" in present
        if present and not self._found:
            self.close()
            raise FileExistsError(
                f"sweep: {path} holds {present[0]}, which does not belong to a sweep; give another directory"
            )

    def open(self) -> None:
        """Begin to write, with the events that were logged before."""
        if self._begun:
            return
        self.hold()
        if (self.path / "sweep.json").exists() != self._found:
            raise FileExistsError(f"sweep: another sweep began in {self.path} meanwhile; give another directory")
        if self._overwrite or not self._found:
            self.about({"status": "running"})  # first, so that what is left when it is killed here is still a sweep
        if self._overwrite:
            self.remove(set(NAMES) - {"sweep.json"})
        self._events = JsonLines(self.path / "events.jsonl", append=True)
        self._begun = True
        for line in self._early:
            self._events.write(line)

    def close(self) -> None:
        """Release the directory for other processes."""
        if self._events is not None:
            self._events.close()
        super().close()

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
        then = SINCE | was["arguments"]
        differs = [
            f"  {name}: {then.get(name)!r} then, {now!r} now"
            for name, now in (SINCE | plain_arguments(self.arguments)).items()
            if name not in _LATER and not name.endswith("_from") and nameless(then.get(name)) != now
        ]
        if self.arguments["trials"] < was["arguments"]["trials"]:
            differs.append(f"  trials: {was['arguments']['trials']} then, {self.arguments['trials']} now")
        differs += self._changed_contents(was.get("contents"))
        if differs:
            raise ValueError(
                f"sweep: {self.path} holds another sweep; give another directory, or overwrite=True. What differs:\n"
                + "\n".join(differs)
            )
        here = self._circumstances()
        for name in ("jax", "backend"):
            if was["versions"][name] != here[name]:
                raise ValueError(
                    f"sweep: {self.path} was made with {name} {was['versions'][name]}, here it is {here[name]}: trials "
                    "would not be comparable; resume with the same, or start a new sweep in another directory"
                )
        if was["versions"]["threads"] != here["threads"]:
            self.warnings.append(
                f"it began with {was['versions']['threads']} CPU threads and resumes with {here['threads']}: the last "
                "bits of new results may differ"
            )
        found = self.last_checkpoint(
            lambda saved: Snapshot(unpack(saved.content["value"], saved.arrays), saved.content["facts"])
        )
        if found is None:
            return None
        path, snapshot = found
        self._saved = int(path.name)
        return snapshot

    def _changed_contents(self, was: Any) -> list[str]:
        """What differs in the user's functions that are not part of a program, a line each."""
        names = ", ".join(name for name, found in self._contents.items() if found)
        if was is None or was["python"] != COMPILED_BY:
            by = "jaxopt_lite 0.1.0" if was is None else was["python"]
            if names:
                self.warnings.append(f"it was saved by {by}, so whether the code of {names} changed was not checked")
            return []
        return changed(was, self._contents)

    def save(self, snapshot: Snapshot) -> None:
        """Save what is needed to resume."""
        self.open()
        self.about({"status": "running", **{name: snapshot.facts[name] for name in ("groups", "metric")}})
        arrays, description = pack(snapshot.arrays)
        self._saved += 1
        self._checkpoints.save(self._saved, arrays, described(description, facts=snapshot.facts))
        self._checkpoints.wait()
        self.log("saved", trials=snapshot.facts["trials"])

    def log(self, what: str, **facts: Any) -> None:
        """Append an event."""
        line = {"event": what, **facts}
        self._events.write(line) if self._events is not None and self._begun else self._early.append(line)

    def about(self, facts: dict[str, Any]) -> None:
        """Write sweep.json."""
        self._contents = unchanged(self._contents, _contents(self.arguments))
        known = {"python": COMPILED_BY, **self._contents}
        content = {"arguments": plain_arguments(self.arguments), "versions": self._circumstances(), "contents": known}
        write_json(self.path / "sweep.json", {**content, **facts})
        sync_folder(self.path)

    def finish(self, result: SweepResult, groups: list[dict[str, Any]]) -> None:
        """Write the result, or the result so far."""
        self.open()
        ledger, best = result.ledger, result.best
        write_trials(ledger, self.path / "trials.csv")
        write_curves(ledger, self.path / "curves.npz")
        facts = {"status": result.status, "message": result.message, "seconds": round(result.seconds, 3)}
        if best is not None:
            config = ledger.space.encode(ledger.table[best.number])
            metrics = {name: over_seeds(value)[0] for name, value in best.metrics.items()}
            facts["best"] = {"trial": best.number, "config": config, "score": best.score, **metrics}
        counts = {ended(status): n for status, n in ledger.summary().items()}
        facts |= {"trials": counts, "warnings": result.warnings, "metric": ledger.metric, "groups": groups}
        self.about(facts)
        self.log(result.status, **counts)
        if importlib.util.find_spec("matplotlib"):
            result.plot(self.path / "sweep.png")

    def _circumstances(self) -> dict[str, Any]:
        flags = os.environ.get("XLA_FLAGS", "")
        threads = os.environ.get("NPROC") or str(_cpus())
        return {**versions(), "devices": jax.local_device_count(), "threads": threads, "xla_flags": flags}


def _cpus() -> int:
    """CPUs that this process may use; macOS and Windows do not report it, and cannot restrict them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_empty(path: Path) -> bool:
    """Whether it is the file of events of a sweep that was killed before it wrote anything."""
    return path.name == "events.jsonl" and path.stat().st_size == 0


def _contents(arguments: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Hashes of the user's functions that decide which configs are tried and how far; `trial` is in the programs."""
    values = {"sampler": arguments["sampler"], "policy": arguments["policy"], "where": arguments["space"].where}
    return {what: contents(value) for what, value in values.items()}


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
    return nameless(json.loads(json.dumps(plain)))


def read_about(path: Path) -> dict[str, Any]:
    """The content of sweep.json, checked.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged.
    """
    remedy = "copy it back from a backup, or start a new sweep: in another directory, or with overwrite=True"
    try:
        about = read_json(path / "sweep.json", _ABOUT, remedy)
        new = {name: shape for name, shape in _SINCE.items() if name in about}
        return read_json(path / "sweep.json", new, remedy)
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)) or error.errno == errno.ENAMETOOLONG:
            raise FileNotFoundError(f"there is no sweep in {path}: it has no sweep.json") from None
        raise


def read_arguments(path: Path, trial: Callable | None) -> dict[str, Any]:
    """The arguments of the sweep in a directory, as `sweep` takes them.

    Raises:
        ValueError: if one cannot be found again by name; the same call of `sweep` then resumes it.
    """
    saved = read_about(path)["arguments"]
    arguments = {name: saved[name] for name in _ARGUMENTS} | {name: saved[name] for name in SINCE if name in saved}
    for name in ("space", "sampler", "policy"):
        home = saved.get(f"{name}_from")
        names = {} if home is None else {str(home).rpartition(":")[2]: _find(str(home), name)}
        with _unreadable(path, name):
            arguments[name] = parse(saved[name], names)
    space = arguments["space"]
    with _unreadable(path, "initial configs"):
        rows = [space.decode(encoded) for encoded in saved["initial"]]
        arguments["initial"] = space.configs(np.array(rows).reshape(len(rows), len(space.dimensions)))
    arguments["trial"] = trial or _find(saved["trial"], "trial")
    return arguments


@contextlib.contextmanager
def _unreadable(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"resume: the {what} of {path} cannot be read from sweep.json ({error}); call sweep(...) again with the "
            "same arguments and this directory"
        ) from None


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
    except (ImportError, AttributeError, ValueError, TypeError):
        hint = "give it: resume(directory, trial=...)" if what == "trial" else "call sweep(...) again instead"
        raise ValueError(f"resume: the {what} {name!r} cannot be imported by name; {hint}") from None
