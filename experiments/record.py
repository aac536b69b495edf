"""Where an experiment leaves what it found: runs/NAME, and runs/quick/NAME in its reduced form."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lite.log.records import versions, write_json

__all__ = ["figure", "folder", "interval", "write"]


def folder(name: str, quick: bool = False) -> Path:
    """The experiment's directory, made where it is not there. A reduced run never replaces a full one's figures."""
    path = Path("runs", "quick", name) if quick else Path("runs", name)
    path.mkdir(parents=True, exist_ok=True)
    return path


def write(directory: Path, figures: dict[str, Any]) -> None:
    """The figures and what they depend on, as result.json."""
    write_json(directory / "result.json", {**figures, "versions": versions()})


def figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches, that no other part of the process knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def interval(values: Any) -> tuple[float, float]:
    """The mean, and half the width of its 95 % confidence interval (Student's t)."""
    from scipy import stats

    values = np.asarray(values, np.float64)
    return float(values.mean()), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
