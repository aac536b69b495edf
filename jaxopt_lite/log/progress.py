"""A line of progress while a run goes on."""

import contextlib
import datetime
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["Progress"]


class Progress:
    """Steps, steps per second, time left and metrics: a bar on a terminal, plain lines elsewhere.

    Where they cannot be shown any more (the terminal or the notebook is gone), nothing is, and the run continues.

    Args:
        steps: at which the run will be done.
        show: "bar", "lines" or "none"; None chooses a bar on a terminal (where `rich` is installed), else lines. Of
            lines there is one each two seconds at most, and the last.
    """

    def __init__(self, steps: int, show: str | None = None):
        if show is None:
            show = "bar" if _on_terminal() else "lines"
        if sys.stderr is None:  # in a program without a console
            show = "none"
        self.steps = steps
        self._bar = _rich_bar(steps) if show == "bar" else None
        self._lines = show != "none" and self._bar is None
        self._first: tuple[int, float] | None = None  # compiling comes before it, and would spoil the rate
        self._printed, self._waiting = -math.inf, ""
        if self._bar is not None:
            with self._tried():
                self._bar.start()

    def update(self, step: int, metrics: dict[str, Any]) -> None:
        """Show how far the run is."""
        if self._bar is not None or self._lines:
            with self._tried():
                self._show(step, metrics)

    @contextlib.contextmanager
    def _tried(self) -> Iterator[None]:
        """Show nothing more after an error, whatever it is: it is no reason to lose the run."""
        try:
            yield
        except Exception:
            bar, self._bar, self._lines, self._waiting = self._bar, None, False, ""
            if bar is not None:
                with contextlib.suppress(Exception):
                    bar.stop()  # or what the program prints later would go through the bar

    def _show(self, step: int, metrics: dict[str, Any]) -> None:
        now = time.perf_counter()
        self._first = self._first or (step, now)
        said = [f"{name} {np.nanmean(value):.4g}" for name, value in _shown(metrics)]
        if step > self._first[0]:
            rate = (step - self._first[0]) / max(now - self._first[1], 1e-9)
            left = datetime.timedelta(seconds=round((self.steps - step) / rate))
            said = [f"{rate:,.0f} steps/s", *([f"{left} left"] if step < self.steps else []), *said]
        if self._bar is not None:
            room = self._bar.console.width - 28 - 2 * len(str(self.steps))
            fitting = [text for i, text in enumerate(said) if len("  ".join(said[: i + 1])) <= room]
            self._bar.update(self._bar.task_ids[0], completed=step, said="  ".join(fitting))
        elif self._lines:
            self._waiting = f"step {step}/{self.steps}  {'  '.join(said)}"
            if now - self._printed > 2:
                self._print(now)

    def close(self) -> None:
        """Leave the terminal as it was."""
        with self._tried():
            if self._bar is not None:
                self._bar.stop()
            if self._waiting:
                self._print(math.inf)

    def _print(self, now: float) -> None:
        print(self._waiting, file=sys.stderr, flush=True)
        self._printed, self._waiting = now, ""


def _on_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, OSError, ValueError):  # it is None, of a kind of its own, or closed
        return False


def _shown(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    names = [name for name in metrics if name == "train.loss" or name.startswith("valid.")]
    return [(name, metrics[name]) for name in names if np.isfinite(metrics[name]).any()]


def _rich_bar(steps: int) -> Any:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar
    except ImportError:
        return None

    class Errors(Console):
        def on_broken_pipe(self):
            raise  # Rich would end the process instead

    said = TextColumn("{task.fields[said]}", markup=False)
    bar = Bar(BarColumn(bar_width=24), MofNCompleteColumn(), said, console=Errors(stderr=True))
    bar.add_task("train", total=steps, said="compiling")
    return bar
