"""A trace of some steps of a run, for TensorBoard, XProf or Perfetto."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

__all__ = []


def check_window(profile: Any, directory: Any) -> tuple[int, int] | None:
    """The steps to be traced.

    Args:
        profile: (first, last), ints with 0 <= first < last: the steps after the first `first` and up to `last`.
        directory: of the run; the trace is written there.

    Raises:
        ValueError: if it is anything else, or there is no directory.
    """
    if profile is None:
        return None
    try:
        first, last = profile
        is_window = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in (first, last))
    except (TypeError, ValueError):
        first, last, is_window = 0, 0, False
    if not (is_window and 0 <= first < last):
        raise ValueError(
            f"fit: profile must be two ints (first, last) with 0 <= first < last, such as (100, 110), got {profile!r}"
        )
    if directory is None:
        raise ValueError("fit: profile needs directory=, where the trace is written")
    return int(first), int(last)


class Profiler:
    """Traces the steps of a window with JAX's profiler. What goes wrong is a warning, and never ends the run.

    Args:
        window: (first, last), see `check_window`; None traces nothing.
        path: the folder of the trace.
        prepare: makes the folder that this one is in.
    """

    def __init__(self, window: tuple[int, int] | None, path: Path, prepare: Callable[[], Any]):
        self._window, self._path, self._prepare = window, path, prepare
        self._is_on, self._is_over = False, window is None

    @property
    def pauses(self) -> tuple[int, ...]:
        """The steps after which `reached` is to be called."""
        return self._window or ()

    def reached(self, step: int) -> None:
        """Start or stop, the first `step` steps of the run having been done."""
        if self._window is None or self._is_over:
            return
        first, last = self._window
        if step >= last:
            self._stop()
        elif step >= first and not self._is_on:
            try:
                self._prepare()
                jax.profiler.start_trace(self._path)
                self._is_on = True
            except Exception as error:
                self._fail(error)

    def close(self) -> None:
        """Stop, and warn if the run has ended before the window began."""
        if not self._is_over and not self._is_on:
            assert self._window is not None
            self._fail(f"the run has no step after {self._window[0]}")
        self._stop()

    def _stop(self) -> None:
        is_on, self._is_on, self._is_over = self._is_on, False, True
        if is_on:
            try:
                jax.profiler.stop_trace()
            except Exception as error:
                self._fail(error)

    def _fail(self, why: Any) -> None:
        self._is_over = True
        text = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else why
        warnings.warn(f"fit: no trace was written to {self._path} ({text})", stacklevel=2)
