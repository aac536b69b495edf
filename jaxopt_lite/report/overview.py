"""One picture of a whole sweep. It needs matplotlib (the extra `plots`)."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lite.report import panels
from jaxopt_lite.report.analysis import ended, label, settings

__all__ = ["plot_sweep"]

_STYLE: Any = {"text.parse_math": False, "font.size": 9, "axes.titlesize": 10, "axes.spines.top": False}
_STYLE |= {"axes.spines.right": False, "axes.titlelocation": "left", "legend.frameon": False, "legend.fontsize": 8}


def plot_sweep(result: Any, path: Path | str, top: int = 20) -> Path:
    """Draw a sweep: scores in their order, curves, importance, the best configs, and scores by hyperparameter.

    Diverged and failed trials are drawn at the worst edge, trials that are far worse than most at that edge too.

    Args:
        result: a `SweepResult` or a `Ledger`.
        path: the file to write; its suffix sets the format.
        top: the number of best trials whose lines are drawn through all hyperparameters, at least 1.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if top is below 1, or the sweep has no trial.
    """
    ledger = getattr(result, "ledger", result)
    if top < 1:
        raise ValueError(f"plot_sweep: top must be at least 1, got {top}")
    if not len(ledger):
        raise ValueError("plot_sweep: the sweep has no trials")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'jaxopt-lite[plots]'") from None
    sweep = panels.Sweep(ledger, top)
    with matplotlib.rc_context(_STYLE):
        figure: Any = Figure(figsize=(15, 11.5), layout="constrained")
        figure.get_layout_engine().set(hspace=0.06, wspace=0.03)
        upper, middle, lower = figure.subfigures(3, 1, height_ratios=(1.05, 1.1, 0.85))
        grid = upper.add_gridspec(2, 3, width_ratios=(1.15, 1.15, 0.8), height_ratios=(4, 1))
        panels.draw_history(upper.add_subplot(grid[:, 0]), sweep)
        curves = upper.add_subplot(grid[0, 1])
        panels.draw_curves(curves, upper.add_subplot(grid[1, 1], sharex=curves), sweep)
        panels.draw_importance(upper.add_subplot(grid[:, 2]), sweep)
        panels.draw_parallel(middle.subplots(), sweep)
        panels.draw_slices(lower, sweep)
        figure.suptitle(_title(sweep), fontsize=11, x=0.01, ha="left")
        figure.savefig(path, dpi=130)
    return Path(path)


def _title(sweep: panels.Sweep) -> str:
    ledger = sweep.ledger
    counts = ", ".join(f"{n} {ended(name)}" for name, n in ledger.summary().items() if n)
    line = f"{len(ledger)} trials ({counts}) of {ledger.steps} steps"
    line += f", {ledger.seeds} seeds each" if ledger.seeds > 1 else ""
    if sweep.best is None:
        return f"{line}\nNone has a {ledger.metric}."
    error = sweep.error[sweep.best]
    score = label(sweep.score[sweep.best]) + (f" ± {error:.2g}" if np.isfinite(error) else "")
    config = ", ".join(
        f"{name}\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{value}" for name, value in settings(ledger, sweep.best).items()
    )
    best = f"Best {ledger.metric}: {score} in trial {sweep.best}" + (f" with {config}" if config else "")
    return "\n".join([line, *textwrap.wrap(best, 165, max_lines=2, placeholder=" …")])
