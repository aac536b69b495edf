"""One picture of a whole sweep. It needs matplotlib (the extra `plots`)."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lite.report.analysis import bins, importance, label, last_measured, over_seeds, ranked, settings
from jaxopt_lite.report.scales import places, ticks
from jaxopt_lite.sweeps.ledger import DIVERGED, FAILED, FINISHED, RUNNING, STATUSES, STOPPED, Ledger

__all__ = ["plot_sweep"]

# Okabe & Ito's colours, which colour-blind eyes tell apart.
_COLORS = {FINISHED: "#0072B2", STOPPED: "#9a9a9a", RUNNING: "#56B4E9", DIVERGED: "#CC79A7", FAILED: "#000000"}
_BEST = "#D55E00"
_SLICES = 6
_AXES = 9  # of the parallel coordinates
_STYLE = {"text.parse_math": False, "font.size": 9, "axes.titlesize": 10, "axes.spines.top": False}
_STYLE |= {"axes.spines.right": False, "axes.titlelocation": "left", "legend.frameon": False, "legend.fontsize": 8}


class _Sweep:
    """What the panels draw."""

    def __init__(self, ledger: Ledger, top: int):
        self.ledger = ledger
        self.score, self.error = last_measured(ledger)
        self.order = ranked(ledger)
        self.best = self.order[0] if len(self.order) else None
        self.top = self.order[:top]
        self.lost = np.isin(ledger.status, (DIVERGED, FAILED))
        self.shares = importance(ledger)
        self.names = list(self.shares)  # the most important first
        self.limits, self.log = self._limits()

    def _limits(self) -> tuple[tuple[float, float], bool]:
        """The range of scores that is drawn: all of them, or the best and most others where a few are far off."""
        scores = self.score[self.order]
        if not len(scores):
            return (0.0, 1.0), False
        low, high = float(scores.min()), float(scores.max())
        log = low > 0 and high > 20 * low
        there, back = (np.log, np.exp) if log else (lambda x: x, lambda x: x)
        best, typical = (high, np.quantile(scores, 0.1)) if self.ledger.highest else (low, np.quantile(scores, 0.9))
        reach = 2.5 * (there(typical) - there(best))
        low, high = there(low), there(high)
        low, high = (max(low, there(best) + reach), high) if self.ledger.highest else (low, min(high, low + reach))
        margin = 0.06 * (high - low) or 0.05 * max(abs(high), 1e-6)
        return (float(back(low - margin)), float(back(high + margin))), log

    def shown(self, scores: np.ndarray) -> np.ndarray:
        """Scores within the limits; those of lost trials at the worst of them."""
        worst = self.limits[0] if self.ledger.highest else self.limits[1]
        return np.clip(np.nan_to_num(scores, nan=worst, posinf=worst, neginf=worst), *self.limits)

    def score_axis(self, axes: Any, which: str = "y") -> None:
        """Set the scale and the limits of an axis of scores."""
        if self.log:
            _set_log(axes, which)
        getattr(axes, f"set_{which}lim")(*self.limits)


def plot_sweep(result: Any, path: Path | str, top: int = 20) -> Path:
    """Draw a sweep: scores in their order, curves, importance, the best configs, and scores by hyperparameter.

    Diverged and failed trials are drawn at the worst edge, trials that are far worse than most at that edge too.

    Args:
        result: a `SweepResult` or a `Ledger`.
        path: the file to write; its suffix says which format.
        top: how many of the best trials to follow through all hyperparameters, at least 1.

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
    sweep = _Sweep(ledger, top)
    style: Any = _STYLE
    with matplotlib.rc_context(style):
        figure: Any = Figure(figsize=(15, 11.5), layout="constrained")
        figure.get_layout_engine().set(hspace=0.06, wspace=0.03)
        upper, middle, lower = figure.subfigures(3, 1, height_ratios=(1.05, 1.1, 0.85))
        grid = upper.add_gridspec(2, 3, width_ratios=(1.15, 1.15, 0.8), height_ratios=(4, 1))
        _history(upper.add_subplot(grid[:, 0]), sweep)
        curves = upper.add_subplot(grid[0, 1])
        _curves(curves, upper.add_subplot(grid[1, 1], sharex=curves), sweep)
        _importance(upper.add_subplot(grid[:, 2]), sweep)
        _parallel(middle.subplots(), sweep)
        _slices(lower, sweep)
        figure.suptitle(_title(sweep), fontsize=11, x=0.01, ha="left")
        figure.savefig(path, dpi=130)
    return Path(path)


def _title(sweep: _Sweep) -> str:
    ledger = sweep.ledger
    counts = ", ".join(f"{n} {name}" for name, n in ledger.summary().items() if n)
    line = f"{len(ledger)} trials ({counts}) of {ledger.steps} steps"
    line += f", {ledger.seeds} seeds each" if ledger.seeds > 1 else ""
    if sweep.best is None:
        return f"{line}\nNone has a {ledger.metric}."
    error = sweep.error[sweep.best]
    score = label(sweep.score[sweep.best]) + (f" ± {error:.2g}" if np.isfinite(error) else "")
    config = ", ".join(f"{name} = {value}" for name, value in settings(ledger, sweep.best).items())
    best = f"Best {ledger.metric}: {score} in trial {sweep.best}" + (f" with {config}" if config else "")
    return "\n".join([line, *textwrap.wrap(best, 190, max_lines=2, placeholder=" …")])


def _dots(axes: Any, sweep: _Sweep, x: np.ndarray, trials: np.ndarray, legend: bool = False) -> None:
    """Scores of some trials over x, in the colours of their status; the lost ones at the worst edge."""
    ledger = sweep.ledger
    size = float(np.clip(4000 / max(len(trials), 1), 3, 28))
    for status in (STOPPED, RUNNING, FINISHED, DIVERGED, FAILED):
        here = (ledger.status[trials] == status) & (ledger.step[trials] + (status == FAILED) > 0)
        if not here.any():
            continue
        lost = status in (DIVERGED, FAILED)
        y = sweep.shown(np.where(lost, np.nan, sweep.score[trials[here]]))
        style = {"marker": "x", "linewidths": 0.9} if lost else {"marker": "o", "linewidths": 0}
        name = f"{STATUSES[status]} ({here.sum()})" if legend else None
        scale = 2.0 if status == FINISHED else 1.0
        axes.scatter(
            x[here], y, s=scale * size, color=_COLORS[status], alpha=0.8, label=name, clip_on=False, rasterized=True,
            zorder=2 + (status == FINISHED), **style,
        )  # fmt: skip
    best = np.flatnonzero(trials == sweep.best) if sweep.best is not None else []
    if len(best):
        score = sweep.score[trials[best]]
        axes.scatter(x[best], score, s=130, marker="*", color=_BEST, edgecolor="white", linewidths=0.6, zorder=6)
    sweep.score_axis(axes)


def _history(axes: Any, sweep: _Sweep) -> None:
    """Scores in the order of the trials' numbers, and the best so far."""
    ledger, numbers = sweep.ledger, np.arange(len(sweep.ledger))
    _dots(axes, sweep, numbers, numbers, legend=True)
    if sweep.best is not None:
        scores = np.full(len(numbers), -np.inf if ledger.highest else np.inf)
        scores[sweep.order] = sweep.score[sweep.order]
        so_far = (np.maximum if ledger.highest else np.minimum).accumulate(scores)
        some = np.isfinite(so_far)
        axes.step(numbers[some], so_far[some], where="post", color=_BEST, linewidth=1.4, label="best so far", zorder=4)
    axes.set(title="Trials", xlabel="trial", ylabel=ledger.metric)
    axes.margins(x=0.02)
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handletextpad=0.2, columnspacing=1.0)


def _curves(axes: Any, below: Any, sweep: _Sweep) -> None:
    """The metric over steps: quantiles of the trials that got there, the best ones, and how many there were."""
    ledger = sweep.ledger
    steps = np.arange(1, ledger.points + 1) * ledger.eval_every
    curves = over_seeds(np.swapaxes(ledger.measured, 1, 2))[0]
    alive = np.isfinite(curves).sum(axis=0)
    some = alive > 0
    kept = [column[np.isfinite(column)] for column in curves.T[some]]
    marker = "." if ledger.points < 30 else None
    if kept:
        low, middle, high = np.array([np.quantile(column, (0.1, 0.5, 0.9)) for column in kept]).T
        blue = _COLORS[FINISHED]
        axes.fill_between(steps[some], low, high, color=blue, alpha=0.18, linewidth=0, label="10 % to 90 %")
        axes.plot(steps, curves[sweep.top].T, color="#555555", linewidth=0.5, alpha=0.5)
        axes.plot(steps[some], middle, color=blue, linewidth=1.6, marker=marker, label="median of those left")
        axes.plot(steps, curves[sweep.best] if sweep.best is not None else np.nan * steps, color=_BEST, linewidth=1.8,
                  marker=marker, label="best")  # fmt: skip
        axes.plot([], [], color="#555555", linewidth=0.5, label=f"best {len(sweep.top)}")
        drawn = np.concatenate([low, high, curves[sweep.top].ravel()])
        drawn = drawn[np.isfinite(drawn)]
        if drawn.min() > 0 and drawn.max() > 20 * drawn.min():
            _set_log(axes, "y")
        axes.legend(loc="lower right" if ledger.highest else "upper right")
    axes.set(title="Curves", ylabel=ledger.metric)
    axes.tick_params(labelbottom=False)
    axes.grid(alpha=0.25)
    left = np.concatenate([[alive[0]], alive])
    below.stairs(alive, np.concatenate([[0], steps]), fill=True, color=_COLORS[STOPPED], alpha=0.6)
    below.set(xlabel="step", ylabel="trials", xlim=(0, ledger.steps * 1.02))
    if left.max() > 20 * max(alive[some].min(initial=1), 1):
        _set_log(below, "y")
        below.set_ylim(0.7, left.max() * 1.6)
    below.grid(alpha=0.25)


def _importance(axes: Any, sweep: _Sweep) -> None:
    """Which hyperparameters told good trials from bad ones."""
    known = {name: share for name, share in sweep.shares.items() if np.isfinite(share)}
    axes.set_title("Importance")
    if not known:
        _say(axes, "too few trials, or all of them alike")
        return
    names = list(known)[: _AXES + 1]
    values = [known[name] for name in names]
    axes.barh(range(len(names)), values, color="#009E73", height=0.62)
    for i, value in enumerate(values):
        axes.text(value, i, f" {value:.0%}", va="center")
    axes.set_yticks(range(len(names)), [textwrap.shorten(name, 30, placeholder="…") for name in names])
    axes.set(xlim=(0, max(1.15 * max(values), 0.1)), ylim=(max(len(names), 4) - 0.5, -0.6))
    axes.set_xlabel("share of the ranks' variance that each explains by itself")

    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.locator_params(axis="x", nbins=4)


def _parallel(axes: Any, sweep: _Sweep) -> None:
    """The best configs, a line each, through all hyperparameters to the score."""
    from matplotlib.collections import LineCollection

    ledger, top = sweep.ledger, sweep.top
    chosen = [j for j, name in enumerate(ledger.space.names) if name in sweep.names[:_AXES]]
    axes.set_title(f"The best {len(top)}: hyperparameters, and {ledger.metric}")
    if not len(top) or not chosen:
        _say(axes, "no trial has a score" if chosen else "nothing is varied")
        return
    others = sweep.order[len(top) :][:: max(1, len(sweep.order) // 150)]
    trials = np.concatenate([others, top])
    lines = np.empty((len(trials), len(chosen) + 1))
    for i, j in enumerate(chosen):
        dimension = ledger.space.dimensions[j]
        column = ledger.table[trials, j]
        lines[:, i] = places(dimension.axis, column, spread=0.6)
        _ruler(axes, i, ticks(dimension.axis, column))
    scores = sweep.score[trials]
    low, high = scores[len(others) :].min(), scores[len(others) :].max()
    lines[:, -1] = np.clip((scores - low) / (high - low), -0.06, 1.06) if high > low else 0.5
    _ruler(
        axes, len(chosen), [(u, label(float(low + u * (high - low)))) for u in ((0, 0.5, 1) if high > low else (0.5,))]
    )
    x = np.arange(lines.shape[1])
    grey, colored = lines[: len(others)], lines[len(others) :][::-1]
    axes.add_collection(
        LineCollection([np.stack([x, y], 1) for y in grey], colors="#999999", linewidths=0.4, alpha=0.25)
    )
    import matplotlib

    colors = matplotlib.colormaps["viridis_r"](np.linspace(0.95, 0.05, len(colored)))
    segments = [np.stack([x, y], 1) for y in colored]
    axes.add_collection(LineCollection(segments, colors=colors, linewidths=1.3, alpha=0.85, zorder=3))
    axes.plot(x, colored[-1], color=_BEST, linewidth=2.4, marker="*", markersize=9, zorder=4)
    axes.set(xlim=(-0.15, len(chosen) + 0.35), ylim=(-0.18, 1.12))
    axes.set_xticks(x, [*(ledger.space.names[j] for j in chosen), ledger.metric])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _set_log(axes: Any, which: str) -> None:
    """A logarithmic axis whose numbers are written as everywhere else."""
    from matplotlib.ticker import LogLocator, NullFormatter

    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
    axis.set_major_formatter(lambda x, _: label(float(x)))
    axis.set_minor_formatter(NullFormatter())


def _ruler(axes: Any, x: int, marks: list[tuple[float, str]]) -> None:
    """A vertical axis with its values."""
    axes.plot([x, x], [0, 1], color="black", linewidth=0.8, zorder=5)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
    for at, what in marks:
        axes.plot([x - 0.012, x], [at, at], color="black", linewidth=0.8, zorder=5)
        axes.text(x + 0.02, at, what, va="center", fontsize=8, zorder=6, bbox=box)


def _slices(figure: Any, sweep: _Sweep) -> None:
    """Scores by each of the most important hyperparameters, and the median along it."""
    names = sweep.names[:_SLICES]
    if not names:
        _say(figure.subplots(), "")
        return
    grid = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for i, (axes, name) in enumerate(zip(grid, names, strict=True)):
        j = sweep.ledger.space.names.index(name)
        axis, column = sweep.ledger.space.dimensions[j].axis, sweep.ledger.table[:, j]
        trials = np.flatnonzero(~np.isnan(column))
        x = places(axis, column[trials], spread=0.6)
        _dots(axes, sweep, x, trials)
        good = np.isin(trials, sweep.order)
        if good.sum() >= 16:
            groups = bins(column[trials][good])
            pairs = [(x[good][groups == g], sweep.score[trials][good][groups == g]) for g in range(groups.max() + 1)]
            medians = np.array([(np.median(at), np.median(scores)) for at, scores in pairs])
            line = {"linestyle": "none", "marker": "_", "markersize": 26, "markeredgewidth": 2} if axis.options else {}
            axes.plot(*medians.T, color="black", linewidth=1.4, zorder=5, **line)
        marks = ticks(axis, column[trials], longest=9)
        axes.set_xticks([at for at, _ in marks], [what for _, what in marks])
        axes.set(xlim=(-0.03, 1.03), title=textwrap.shorten(name, 34, placeholder="…"))
        axes.set_ylabel(sweep.ledger.metric if i == 0 else "")
        axes.grid(alpha=0.25)


def _say(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#555555")
    axes.set_axis_off()
