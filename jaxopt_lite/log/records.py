"""The text files that a run writes: its history, and a summary.

metrics.jsonl   one JSON object for each point of the history, written as it happens
summary.json    the optimizer, the arguments, versions, the last metrics and why the run ended
"""

import errno
import json
import math
import os
import platform
import sys
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

__all__ = ["JsonLines", "hold", "read_json", "versions", "write_json"]

_HELD = 2**30  # the byte that is locked on Windows, where what is locked cannot be read: one that is never written


class JsonLines:
    """A file of JSON objects, one a line, flushed as they come. NaN and infinities are written as null.

    Args:
        path: of the file.
        append: keep what it holds, and begin on a new line: of a process that was killed the last one may be torn.
    """

    def __init__(self, path: Path, append: bool = False):
        self.path, self.file = path, path.open("a" if append else "w", encoding="utf-8")
        self._before = "\n" if append and _ends_inside_a_line(path) else ""

    @classmethod
    def of(cls, path: Path, records: list[dict[str, Any]]) -> "JsonLines":
        """The file with these records alone, written beside it first, so that a crash leaves the old or the new."""
        beside = path.with_name(path.name + ".new")
        lines = cls(beside)
        for record in records:
            lines.write(record)
        os.fsync(lines.file.fileno())
        lines.close()
        os.replace(beside, path)
        return cls(path, append=True)

    def write(self, record: dict[str, Any]) -> None:
        """Append one object."""
        self.file.write(self._before + json.dumps(plain(record), allow_nan=False) + "\n")
        self.file.flush()
        self._before = ""

    def clear(self) -> None:
        """Remove what is there."""
        self.file.truncate(0)
        self._before = ""

    def rewind(self, step: int) -> None:
        """Remove the rows after a step, for a run that resumes there, and with them a torn last line.

        The file is cut, not replaced, so a lock on it stays.

        Args:
            step: the last one to keep. Rows are in the order of their "step".
        """
        kept = at = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            at, number = at + len(line), _step(line)
            if number is not None and number > step:
                break
            kept = kept if number is None else at
        self.file.truncate(kept)
        os.fsync(self.file.fileno())
        self._before = "\n" if _ends_inside_a_line(self.path) else ""

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _step(line: bytes) -> int | None:
    """The step of a row; None for a line that is torn."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return step if isinstance(step, int) else None


def _ends_inside_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def hold(file: IO) -> bool:
    """Lock an open file, and return whether that succeeded.

    The lock lasts until the file is closed or the process ends. True as well
    where the file system or the Python has no such locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file.fileno(), _HELD, os.SEEK_SET)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return True
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object to a file, beside it first, so that a crash leaves the old file or the new one."""
    text, beside = json.dumps(plain(content), indent=2, allow_nan=False), path.with_name(path.name + ".new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())  # otherwise the new file may be empty after a power cut
    os.replace(beside, path)


def read_json(path: Path, shape: dict[str, Any], remedy: str) -> dict[str, Any]:
    """Read the object that `write_json` wrote.

    Args:
        path: of the file.
        shape: the type, or types, of each value that is needed; or a dict of them, of an object inside. Others may be
            there too.
        remedy: what to do about a damaged file, for the message.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged; the message names the damaged value.
    """
    try:
        content = json.loads(path.read_bytes())
        fault = _fault(content, shape, "it")
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError too
        fault = str(error)
    if fault is not None:
        raise ValueError(f"{path} is damaged: {fault}; {remedy}")
    return content


def _fault(value: Any, shape: Any, name: str) -> str | None:
    """Where a value that JSON gave is not of a shape."""
    types = dict if isinstance(shape, dict) else shape
    if not isinstance(value, types):
        named = " or ".join("null" if t is type(None) else t.__name__ for t in _several(types))
        return f"{name} must be {named}, got {json.dumps(value)[:50]}"
    if isinstance(shape, dict):
        for key, inner in shape.items():
            if key not in value:
                return f"{name} has no {key!r}"
            fault = _fault(value[key], inner, repr(key))
            if fault is not None:
                return fault
    return None


def _several(types: Any) -> tuple:
    return types if isinstance(types, tuple) else (types,)


def versions() -> dict[str, str]:
    """What the numbers depend on: versions and device."""
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "cpus": str(os.cpu_count()),
    }


def plain(value: Any) -> Any:
    """The value in JSON's types; what is not finite becomes null."""
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
