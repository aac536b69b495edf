"""What a run leaves behind as text: rows of numbers, a summary, and a line of progress while it goes.

metrics.jsonl   one JSON object for each point of the history, written as it happens
summary.json    the optimizer, the arguments, versions, the last metrics and why the run ended
"""

import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

__all__ = ["JsonLines", "Progress", "versions", "write_json"]


class JsonLines:
    """A file of JSON objects, one a line, flushed as they come. NaN and infinities are written as null."""

    def __init__(self, path: Path):
        self._file = path.open("w", encoding="utf-8")

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


class Progress:
    """Steps, steps per second, loss and time left: a bar on a terminal, plain lines elsewhere.

    Args:
        steps: of the whole run.
        show: "bar", "lines" or "none"; None chooses a bar on a terminal (where `rich` is installed), else lines.
    """

    def __init__(self, steps: int, show: str | None = None):
        self.steps, self._bar = steps, None
        self._first: tuple[int, float] | None = None  # compiling comes before it, and would spoil the rate
        self._last = 0.0
        if show is None:
            show = "bar" if sys.stderr.isatty() else "lines"
        if show == "bar":
            self._bar = _rich_bar(steps)
        self._lines = show == "lines" or (show == "bar" and self._bar is None)

    def update(self, step: int, metrics: dict[str, Any]) -> None:
        """Say how far the run has come."""
        now = time.perf_counter()
        self._first = self._first or (step, now)
        rate = (step - self._first[0]) / max(now - self._first[1], 1e-9)
        left = (self.steps - step) / rate if rate else float("nan")
        said = "  ".join(f"{name} {np.nanmean(value):.4g}" for name, value in _shown(metrics))
        if self._bar is not None:
            self._bar.update(self._task, completed=step, rate=rate, said=said)
        elif self._lines and (now - self._last > 2 or step >= self.steps):
            self._last = now
            pace = f"  {rate:,.0f} steps/s  {left:.0f} s left" if rate else ""
            print(f"step {step}/{self.steps}  {said}{pace}", file=sys.stderr)

    @property
    def _task(self) -> Any:
        return self._bar.task_ids[0]

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


def _shown(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    names = [name for name in metrics if name == "train.loss" or name.startswith("valid.")]
    return [(name, metrics[name]) for name in names if np.isfinite(metrics[name]).any()]


def _rich_bar(steps: int) -> Any:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        return None
    bar = Bar(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} steps/s"),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bar.add_task("train", total=steps, rate=0.0, said="")
    bar.start()
    return bar
