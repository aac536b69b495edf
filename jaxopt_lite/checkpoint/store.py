"""The checkpoints of a run or a sweep, by step, in one folder: written by Orbax's checkpoint manager, off the thread.

    FOLDER/000200/          a complete checkpoint, see `folder`
    FOLDER/000400/          the last one
    FOLDER/000300.damaged/  one whose files had changed when the run resumed; it is kept for a look, and never read

A process that is killed at any moment leaves the last complete checkpoint, and those before it that were to be kept.
"""

import queue
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lite.checkpoint import folder
from jaxopt_lite.checkpoint.folder import DAMAGE, Saved, Seal, UnreachableError, orbax, quiet, reachable

__all__ = []

_STEP, _DIGITS = re.compile(r"\d{6,}"), 6
_UNFINISHED = re.compile(r"\d{6,}(\.orbax-checkpoint-tmp.*)?")


class Store:
    """Writes checkpoints in a thread of its own, one after the other, and removes those that need not be kept.

    Args:
        path: the folder; it is made with the first checkpoint. One process at a time may write to it.
        keep: how many of the latest to keep, at least 1.
        keep_best: keep the one with the lowest score too.
    """

    def __init__(self, path: Path, keep: int = 2, keep_best: bool = False):
        self.path, self._keep, self._keep_best = path.absolute(), keep, keep_best
        self._waiting: queue.Queue = queue.Queue(maxsize=1)
        self._failed: list[Exception] = []
        self._thread: threading.Thread | None = None

    def save(self, step: int, arrays: dict[str, Any], content: dict[str, Any], score: float | None = None) -> None:
        """Copy the arrays, and return while they are being written; waits for the save before the one before.

        Args:
            step: its number; where there is a complete checkpoint of that number, it stays as it is.
            arrays: by name, NumPy's or JAX's.
            content: what JSON can hold.
            score: lower is better; None where it has none, or is not finite.

        Raises:
            Exception: what went wrong in the save before, such as an OSError of a full disk.
        """
        self._raise()
        score = None if score is None or not np.isfinite(score) else float(score)
        self._waiting.put((step, Saved(folder.on_host(arrays), content), score))
        if self._thread is None:
            # A daemon, so that a second Ctrl-C need not wait for the disk.
            self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Return when everything is on the disk, or raise what went wrong."""
        self._waiting.join()
        self._raise()

    def close(self) -> None:
        """Wait, and end the thread."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None
        self._raise()

    def _raise(self) -> None:
        if self._failed:
            raise self._failed.pop()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            try:
                self._write(*job)
            except Exception as error:
                self._failed[:] = [error]
            finally:
                self._waiting.task_done()
        self._waiting.task_done()

    def _write(self, step: int, saved: Saved, score: float | None) -> None:
        package, target = orbax(), self.path / f"{step:0{_DIGITS}d}"
        if (target / folder.SEAL).exists():
            return
        folder.make_folder(self.path)
        for path in self.path.iterdir():  # what was being written when the process was killed, or the disk was full
            if _UNFINISHED.fullmatch(path.name) and not (path / folder.SEAL).exists():
                shutil.rmtree(path)
        options = package.CheckpointManagerOptions(
            step_name_format=package.path.step.standard_name_format(step_format_fixed_length=_DIGITS),
            enable_async_checkpointing=False,  # this thread is the background already
        )
        with quiet(), reachable(self.path) as reached:
            manager = package.CheckpointManager(reached, options=options, item_names=folder.ITEMS)
            try:
                manager.save(step, args=folder.arguments_of(saved), force=True)
            finally:
                manager.close()
        folder.seal(target, score)
        self._remove(target)

    def _remove(self, newest: Path) -> None:
        """Remove what need not be kept, now that the newest one is complete."""
        seals = dict(complete(self.path))
        latest = [path for path in seals if int(path.name) <= int(newest.name)][-self._keep :]
        scores = {path: seal.score for path, seal in seals.items() if seal.score is not None}
        best = [min(scores, key=lambda path: (scores[path], path.name))] if scores and self._keep_best else []
        for path in set(seals) - {*latest, *best, newest}:
            shutil.rmtree(path)


def complete(path: Path) -> Iterator[tuple[Path, Seal]]:
    """The checkpoints in a folder that were completed, with their seals, the earliest first."""
    for found in _steps(path):
        try:
            yield found, folder.read_seal(found)
        except DAMAGE:
            continue


def latest(path: Path) -> tuple[Path, Saved, list[str]] | None:
    """The last checkpoint that is whole, and what was wrong with later ones, a sentence each; None if there is none.

    Raises:
        ImportError: if Orbax is not installed.
        ValueError: if there are complete checkpoints, and all are damaged, or version 0.1.0 wrote them.
    """
    faults: list[str] = []
    for found in reversed(_steps(path)):
        if (found / "meta.json").exists():
            raise ValueError(f"{found} was saved by version 0.1.0, whose checkpoints this version does not read")
        if not (found / folder.SEAL).exists():
            faults.append(f"the checkpoint {found} was not finished")
            continue
        try:
            saved = folder.read(found)
        except UnreachableError:
            raise
        except DAMAGE as error:
            faults.append(f"the checkpoint {found} is damaged ({type(error).__name__}: {str(error)[:200]})")
            continue
        return found, saved, [f"{fault}; the one before it is used, {found.name}" for fault in faults]
    if any("damaged" in fault for fault in faults):
        raise ValueError(
            f"no checkpoint in {path} can be read: {'; '.join(faults)}. Copy one back from a backup, or start again "
            "with overwrite=True or in another directory"
        )
    return None


def set_aside(path: Path, after: Path) -> None:
    """Rename the checkpoints later than one, which were found damaged, so that the run can write its own there."""
    for found in _steps(path):
        if int(found.name) > int(after.name):
            aside = found.with_name(f"{found.name}.damaged")
            if aside.exists():
                shutil.rmtree(aside)
            found.rename(aside)


def _steps(path: Path) -> list[Path]:
    """The folders of all checkpoints, damaged and unfinished ones included, the earliest first."""
    found = [p for p in path.iterdir() if _STEP.fullmatch(p.name) and p.is_dir()] if path.is_dir() else []
    return sorted(found, key=lambda p: int(p.name))
