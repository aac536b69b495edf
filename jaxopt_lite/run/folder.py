"""What the directory of a run and that of a sweep have in common: one process at a time writes to it.

A file `.lock` is held by the process that writes. The system releases it when the process ends, however it ends.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from jaxopt_lite.checkpoint.folder import Saved, make_folder
from jaxopt_lite.checkpoint.store import latest, set_aside
from jaxopt_lite.log.records import hold

__all__ = []

LOCK = ".lock"
# Which file tells what is there.
_OF = {"sweep.json": "a sweep", "summary.json": "a run of fit", "metrics.jsonl": "a run of fit"}


class InUseError(FileExistsError):
    """Another run or sweep writes to the directory."""


class Folder:
    """A directory. Nothing is written or removed before `open`, so that a bad argument leaves all as it was.

    Args:
        path: where it is, or is to be.

    Raises:
        FileExistsError, PermissionError: if it cannot be made, holds what the other kind left, or is in use.
    """

    who = ""  # the function, for messages
    kind = ""  # "a run" or "a sweep"
    names: tuple[str, ...] = ()  # of its files, as far as they may be removed

    def __init__(self, path: Path):
        self.path = path.absolute()  # a callback may change the working directory
        self._lock: IO | None = None
        self.warnings: list[str] = []
        exists = next(p for p in (path, *self.path.parents) if p.exists())
        if not exists.is_dir():
            raise FileExistsError(f"{self.who}: directory {path} cannot be made, {exists} is a file")
        if not os.access(exists, os.W_OK):
            raise PermissionError(f"{self.who}: directory {path} cannot be written, for lack of permission in {exists}")
        self.present = [name for name in self.names if (path / name).exists()]
        other = next((n for n, kind in _OF.items() if not kind.startswith(self.kind) and (path / n).exists()), None)
        if other is not None and not (self.kind == "a sweep" and "sweep.json" in self.present):
            raise FileExistsError(
                f"{self.who}: {path} holds {_OF[other]} ({other}), which {self.kind} does not replace; give another "
                "directory"
            )
        if self.present or (path / LOCK).exists():
            self.hold()

    def hold(self) -> None:
        """Make the directory, and become the one who writes to it."""
        if self._lock is not None:
            return
        make_folder(self.path)
        while self._lock is None:
            file = (self.path / LOCK).open("a")
            if not hold(file):
                file.close()
                raise InUseError(
                    f"{self.who}: another process, or another call in this one, runs in {self.path}; wait for its end, "
                    "stop it, or give another directory"
                )
            if _is_at(file, self.path / LOCK):  # else it was removed by the one who held it before
                self._lock = file
            else:
                file.close()
        _held.append(self._lock)

    def close(self) -> None:
        """Release the directory."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                if _is_at(self._lock, self.path / LOCK):
                    (self.path / LOCK).unlink()
            with contextlib.suppress(OSError):
                self._lock.close()
            _held.remove(self._lock)
            self._lock = None

    def remove(self, names: Iterable[str]) -> None:
        """Remove files and folders, those that are there."""
        for name in names:
            there = self.path / name
            shutil.rmtree(there) if there.is_dir() else there.unlink(missing_ok=True)

    def last_checkpoint(self, make: Callable[[Saved], Any]) -> tuple[Path, Any] | None:
        """The folder of the last whole checkpoint, and what `make` makes of it; later ones, damaged, are set aside.

        What was wrong with these is added to the warnings.
        """
        found = latest(self.path / "checkpoints")
        if found is None:
            return None
        path, saved, faults = found
        made = make(saved)
        self.warnings += faults
        set_aside(self.path / "checkpoints", path)
        return path, made

    def check_there(self) -> None:
        """Raise a FileNotFoundError if the directory was removed or replaced since it was opened."""
        if self._lock is not None and not _is_at(self._lock, self.path / LOCK):
            raise FileNotFoundError(f"the directory {self.path} was removed or replaced")


def is_running(path: Path) -> bool:
    """Whether a process writes to a directory now."""
    try:
        with (path / LOCK).open("rb") as file:
            return not hold(file)
    except OSError:
        return False


def _is_at(file: IO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


_held: list[Any] = []


def _let_go_in_child() -> None:
    """A forked child, such as a loader's worker, must not keep the lock when this process is killed."""
    for file in _held:
        with contextlib.suppress(OSError):
            os.close(file.fileno())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
