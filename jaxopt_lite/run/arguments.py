"""Checks of the arguments that `fit`, `sweep` and `minimize` share."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lite.core.arguments import WrongTypeError, check_choice
from jaxopt_lite.core.numbers import concrete

__all__ = []


_PROGRESS = ("auto", "bar", "lines", "log", "none")


def check_progress(who: str, progress: Any, options: tuple[str, ...] = _PROGRESS) -> str | None:
    """How to show progress, one of the options. None is deprecated: a bar on a terminal, else lines.

    Raises:
        ValueError: if it is not one of the options.
    """
    if progress is None and "bar" in options:
        warnings.warn(
            f"{who}: progress=None is deprecated; give 'auto' (a bar on a terminal or in a notebook, else nothing), "
            "'bar' or 'lines'",
            DeprecationWarning,
            stacklevel=3,
        )
        return None
    return check_choice(who, "progress", progress, options)


def check_path(who: str, name: str, path: Any) -> Path | None:
    """A path, or None.

    Raises:
        WrongTypeError: if it is something else.
    """
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise WrongTypeError(f"{who}: {name} must be a path, got {path!r:.80}")
    return None if path is None else Path(path)


def cross(low: Any, high: Any) -> bool:
    """Whether some lower bound is known to exceed its upper bound, or one of them to be NaN."""
    return concrete(low, high) and not np.all(np.asarray(low) <= np.asarray(high))
