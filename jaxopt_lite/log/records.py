"""What a run leaves behind as text: rows of numbers, and facts.

metrics.jsonl   one JSON object for each point of the history, written as it happens
summary.json    the optimizer, the arguments, versions, the last metrics and why the run ended
"""

import json
import math
import os
import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np

__all__ = ["JsonLines", "versions", "write_json"]


class JsonLines:
    """A file of JSON objects, one a line, flushed as they come. NaN and infinities are written as null."""

    def __init__(self, path: Path, append: bool = False):
        self._file = path.open("a" if append else "w", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Append one object."""
        self._file.write(json.dumps(plain(row), allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object to a file, beside it first, so that a crash leaves the old file or the new one."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(plain(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(beside, path)


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
