"""Pictures of runs. They need matplotlib (the extra `plots`)."""

import itertools
import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["plot_history"]


def plot_history(history: dict[str, np.ndarray], path: Path | str, title: str = "") -> Path:
    """Draw the learning curves of a run to a PNG: losses, other scores, and quantities of the optimizer.

    Args:
        history: columns by name, as in `Result.history`; with seeds, each run is drawn faintly, and the mean of those
            that have not ended as a line.
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
    panels = {kind: [n for n in scores if n.partition(".")[2] == kind] for kind in kinds}
    panels["optimizer"] = [n for n in history if n not in ("step", *scores)]
    columns = min(len(panels), 4)
    rows = math.ceil(len(panels) / columns)
    figure = figure_class(figsize=(4.6 * columns, 3.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (kind, names) in itertools.zip_longest(grid, panels.items(), fillvalue=("", [])):
        _panel(axes, history, names, kind)
    lines = textwrap.wrap(title, 60 * columns, max_lines=3, placeholder=" ...")
    figure.suptitle("\n".join(lines), fontsize=10, parse_math=False)
    figure.savefig(path, dpi=150)
    return Path(path)


def _panel(axes: Any, history: dict[str, np.ndarray], names: list[str], kind: str) -> None:
    """Draw some columns; values that are not finite leave a gap."""
    if not names:
        axes.set_axis_off()
        return
    steps, drawn = history["step"], []
    for i, name in enumerate(names):
        runs = np.ma.masked_invalid(np.atleast_2d(history[name]))
        style = {"color": f"C{i}", "marker": "." if len(steps) < 30 else None}
        if len(runs) > 1:
            axes.plot(steps, runs.T, color=style["color"], alpha=0.3, linewidth=0.8)
        nothing = "" if runs.count() else ": nothing finite"
        axes.plot(steps, runs.mean(axis=0), label=name + nothing, **style)
        drawn.append(runs.compressed())
    values = np.concatenate(drawn)
    if kind in ("loss", "optimizer") and len(values) and 0 < values.min() < values.max() / 10:
        axes.set_yscale("log")
    first = 2 * steps[0] - steps[1] if len(steps) > 1 else 0  # where the first point began
    axes.set_xlim(first, steps[-1] + 0.03 * (steps[-1] - first))
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.set_xlabel("step")
    axes.set_title(kind, fontsize=10, parse_math=False)  # names with $ must not be parsed as formulas
    axes.grid(alpha=0.3)
    for text in axes.legend(frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'jaxopt-lite[plots]'") from None
    return Figure
