"""Where an experiment leaves what it found: runs/NAME, and runs/quick/NAME in its reduced form."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lite.log.records import versions, write_json

__all__ = ["compared", "figure", "folder", "interval", "share", "table", "write"]


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


def share(hits: int, trials: int) -> tuple[float, tuple[float, float]]:
    """The share of hits among some trials, and its 95 % interval (Wilson, 1927)."""
    z, p = 1.96, hits / trials
    middle = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * (p * (1 - p) / trials + z**2 / (4 * trials**2)) ** 0.5
    return p, (max(0.0, middle - half), min(1.0, middle + half))


def compared(values: Any, rival: Any) -> dict[str, Any]:
    """Each seed's figure, their mean, that of the paired differences to a rival, with half 95 % intervals."""
    (mean, half), (difference, half_difference) = map(interval, (values, values - rival))
    return {
        "seeds": values,
        "mean": mean,
        "half_width": half,
        "difference": difference,
        "difference_half_width": half_difference,
    }


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [columns, ["---"] * len(columns), *rows]) + "\n"
