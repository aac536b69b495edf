"""Pictures of runs. They need matplotlib (the extra `plots`)."""

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["plot_history"]


def plot_history(history: dict[str, np.ndarray], path: Path | str, title: str = "") -> Path:
    """Draw the learning curves of a run to a PNG: losses, other scores, and what the optimizer did.

    Args:
        history: columns by name, as in `Result.history`; with seeds, the mean is drawn as a line and every run faintly.
        path: the file to write.
        title: above the picture, such as the optimizer.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    figure_class = _figure()
    scores = [n for n in history if n.startswith(("train.", "valid."))]
    kinds = sorted({n.partition(".")[2] for n in scores}, key=lambda kind: (kind != "loss", kind))
    optimizer = [n for n in ("learning_rate", "grad_norm", "update_norm") if n in history]
    panels = [[n for n in scores if n.partition(".")[2] == kind] for kind in kinds]
    panels.append(optimizer)
    figure = figure_class(figsize=(4.6 * len(panels), 3.4), layout="constrained")
    for axes, names in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        _panel(axes, history, names)
    if title:
        figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)
    return Path(path)


def _panel(axes: Any, history: dict[str, np.ndarray], names: list[str]) -> None:
    positive = True
    for i, name in enumerate(names):
        runs = np.atleast_2d(history[name])
        measured = ~np.isnan(runs).all(axis=0)
        steps, runs = history["step"][measured], runs[:, measured]
        positive &= bool((runs[np.isfinite(runs)] > 0).all())
        color = f"C{i}"
        if len(runs) > 1:
            axes.plot(steps, runs.T, color=color, alpha=0.2, linewidth=0.8)
        axes.plot(steps, np.nanmean(runs, axis=0), color=color, marker="." if len(steps) < 30 else None, label=name)
    kind = names[0].partition(".")[2] if names else ""
    if positive and kind in ("loss", ""):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'jaxopt-lite[plots]'") from None
    return Figure
