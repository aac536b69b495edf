"""Progress on standard error, or in a log, while a run trains or a problem is solved."""

import contextlib
import datetime
import functools
import importlib.util
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["Progress"]


class Display:
    """Output on standard error, drawn by Rich on a terminal, as plain lines elsewhere; or lines in a log.

    Rich draws in a notebook only where ipywidgets is installed; without it, one line is replaced again and again.

    If writing fails (the terminal or the notebook is gone), nothing more is shown and the run continues.

    Args:
        rich: makes what Rich draws, or returns None where Rich is not installed.
        show: "bar" (lines where standard error is no terminal or Rich is not installed), "lines", "log" (lines of
            level INFO to the logger "jaxopt_lite"), "none", or "auto": a bar on a terminal or in a notebook, else
            nothing.
    """

    def __init__(self, rich: Callable[[], Any], show: str | None):
        can_draw = _on_terminal() or _in_notebook()
        self._logger = logging.getLogger("jaxopt_lite") if show == "log" else None
        if (show == "auto" and not can_draw) or (show != "log" and sys.stderr is None):  # None: without a console
            show = "none"
        elif show in ("auto", None):
            show = "bar" if can_draw else "lines"
        in_notebook = show == "bar" and not _on_terminal() and _in_notebook()
        draws = can_draw and (not in_notebook or importlib.util.find_spec("ipywidgets") is not None)
        self.live = rich() if show == "bar" and draws else None
        self.shown = show != "none"
        self._replaces, self._handle = in_notebook and self.live is None, None
        self.every = 0.25 if self.live is not None or self._replaces else 2.0  # seconds between two lines
        if self.live is not None:
            with self.tried():
                self.live.start()

    @contextlib.contextmanager
    def tried(self) -> Iterator[None]:
        """Show nothing more after any error: a failure to show progress must not end the run."""
        try:
            yield
        except Exception:
            live, self.live, self.shown = self.live, None, False
            if live is not None:
                with contextlib.suppress(Exception):
                    live.stop()  # otherwise later output of the program would go through Rich

    def print(self, text: str, replace: bool = False) -> None:
        """Print one line; in a notebook, perhaps in place of the last such line."""
        if self._replaces and replace:
            from IPython.display import display  # pyright: ignore[reportMissingImports]

            data = {"text/plain": text}
            if self._handle is None:
                self._handle = display(data, raw=True, display_id=True)
            else:
                self._handle.update(data, raw=True)
        elif self._logger is not None:
            self._logger.info(text)
        else:
            print(text, file=sys.stderr, flush=True)


def console() -> Any:
    """Rich's console on standard error."""
    from rich.console import Console

    class Errors(Console):
        def on_broken_pipe(self):
            raise  # Rich would end the process instead

    return Errors(stderr=True)


class Progress:
    """Steps, steps/s, time left, metrics and examples/s: a bar on a terminal, plain lines elsewhere.

    Args:
        steps: the number of steps of the whole run.
        show: as for `Display`. At most one line is printed every two seconds, and the last one.
        names: how the names of the metrics begin that are shown.
        examples: that a step takes, of all seeds; 0 where that is not known.
    """

    def __init__(
        self,
        steps: int,
        show: str | None = None,
        names: tuple[str, ...] = ("train.loss", "valid."),
        examples: int = 0,
    ):
        self.steps, self._names, self._examples = steps, names, examples
        self._display = Display(functools.partial(_rich_bar, steps), show)
        # Step and time of the first update. Compiling comes before it, so that it does not count in the rate.
        self._first: tuple[int, float] | None = None
        self._printed, self._waiting = -math.inf, ""

    def update(self, step: int, metrics: dict[str, Any]) -> None:
        """Show the step and the metrics."""
        if self._display.shown:
            with self._display.tried():
                self._show(step, metrics)

    def _show(self, step: int, metrics: dict[str, Any]) -> None:
        now = time.perf_counter()
        self._first = self._first or (step, now)
        parts = [f"{name} {np.nanmean(value):.4g}" for name, value in self._chosen(metrics)]
        if step > self._first[0]:
            rate = (step - self._first[0]) / max(now - self._first[1], 1e-9)
            left = datetime.timedelta(seconds=round((self.steps - step) / rate))
            parts = [f"{rate:,.0f} steps/s", *([f"{left} left"] if step < self.steps else []), *parts]
            parts += [f"{rate * self._examples:,.0f} examples/s"] if self._examples else []
        bar = self._display.live
        if bar is not None:
            room = bar.console.width - 28 - 2 * len(str(self.steps))
            fitting = [text for i, text in enumerate(parts) if len("  ".join(parts[: i + 1])) <= room]
            bar.update(bar.task_ids[0], completed=step, text="  ".join(fitting))
        else:
            self._waiting = f"step {step}/{self.steps}  {'  '.join(parts)}"
            if now - self._printed > self._display.every:
                self._print(now)

    def _chosen(self, metrics: dict[str, Any]) -> list[tuple[str, Any]]:
        names = [name for name in metrics if name.startswith(self._names)]
        return [(name, metrics[name]) for name in names if np.isfinite(metrics[name]).any()]

    def close(self) -> None:
        """Restore the terminal."""
        with self._display.tried():
            if self._display.live is not None:
                self._display.live.stop()
            elif self._display.shown and self._waiting:
                self._print(math.inf)

    def _print(self, now: float) -> None:
        self._display.print(self._waiting, replace=True)
        self._printed, self._waiting = now, ""


def _on_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, OSError, ValueError):  # it is None, closed, or an object without isatty
        return False


def _in_notebook() -> bool:
    """Whether IPython runs as the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell"


def _rich_bar(steps: int) -> Any:
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar
    except ImportError:
        return None
    text = TextColumn("{task.fields[text]}", markup=False)
    bar = Bar(BarColumn(bar_width=24), MofNCompleteColumn(), text, console=console())
    bar.add_task("train", total=steps, text="compiling")
    return bar
