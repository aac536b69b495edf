"""The panels of a sweep's picture, one function each: they draw on axes that they are given."""

from typing import Any

import numpy as np

from jaxopt_lite.report.analysis import bins, importance, label, last_measured, over_seeds, ranked
from jaxopt_lite.report.scales import broken, places, ticks
from jaxopt_lite.sweeps.ledger import DIVERGED, FAILED, FINISHED, RUNNING, STATUSES, STOPPED, Ledger

__all__ = []

# Okabe & Ito's colours, which colour-blind readers can distinguish.
_COLORS = {FINISHED: "#0072B2", STOPPED: "#6e6e6e", RUNNING: "#56B4E9", DIVERGED: "#CC79A7", FAILED: "#000000"}
_BEST = "#D55E00"
_SLICES = 6
_AXES = 9  # number of axes of the parallel coordinates


class Sweep:
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

    def score_axis(self, axes: Any) -> None:
        """Set the scale and the limits of a vertical axis of scores."""
        if self.log:
            _logarithmic(axes)
        axes.set_ylim(*self.limits)


def _dots(axes: Any, sweep: Sweep, x: np.ndarray, trials: np.ndarray, legend: bool = False) -> None:
    """Scores of some trials over x, in the colours of their status; the lost ones at the worst edge."""
    ledger = sweep.ledger
    size = float(np.clip(4000 / max(len(trials), 1), 3, 28))
    large = 2.0 if np.mean(ledger.status == FINISHED) < 0.1 else 1.0
    for status in (STOPPED, RUNNING, FINISHED, DIVERGED, FAILED):
        here = (ledger.status[trials] == status) & ((ledger.step[trials] > 0) | (status == FAILED))
        if not here.any():
            continue
        lost = status in (DIVERGED, FAILED)
        y = sweep.shown(np.where(lost, np.nan, sweep.score[trials[here]]))
        style: dict[str, Any] = {"alpha": 0.8, "zorder": 2, "s": size, "linewidths": 0}
        if lost:
            style |= {"s": max(size, 16), "marker": "x", "linewidths": 1.1}
        elif status == FINISHED:
            style |= {"s": large * size, "zorder": 3}
        else:  # darker with more steps
            style["alpha"] = 0.35 + 0.6 * ledger.step[trials[here]] / ledger.steps
        name = f"{STATUSES[status]} ({here.sum()})" if legend else None
        axes.scatter(x[here], y, color=_COLORS[status], label=name, clip_on=False, rasterized=True, **style)
    best = np.flatnonzero(trials == sweep.best) if sweep.best is not None else []
    if len(best):
        score = sweep.score[trials[best]]
        axes.scatter(x[best], score, s=190, marker="*", color=_BEST, edgecolor="white", linewidths=0.8, zorder=6)
    sweep.score_axis(axes)


def draw_history(axes: Any, sweep: Sweep) -> None:
    """Scores in the order of the trials' numbers, and the best so far."""
    ledger, numbers = sweep.ledger, np.arange(len(sweep.ledger))
    _dots(axes, sweep, numbers, numbers, legend=True)
    if sweep.best is not None:
        # The place of each trial in the ranking, in which trials with more steps come first.
        place = np.full(len(numbers), len(sweep.order))
        place[sweep.order] = np.arange(len(sweep.order))
        so_far = np.minimum.accumulate(place)
        some = so_far < len(sweep.order)
        scores = sweep.score[sweep.order[so_far[some]]]
        axes.step(numbers[some], scores, where="post", color=_BEST, linewidth=1.4, label="best so far", zorder=4)
    axes.set(title="Trials", xlabel="trial", ylabel=ledger.metric)
    axes.set_xlim(-0.5 - 0.02 * len(numbers), 1.02 * len(numbers) - 0.5)
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, handletextpad=0.3, columnspacing=1.0)


def draw_curves(axes: Any, below: Any, sweep: Sweep) -> None:
    """The metric over steps: quantiles of the trials that reached each step, the best, and the number of trials."""
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
        axes.plot(steps[some], middle, color=blue, linewidth=1.6, marker=marker, label="median of those left")
        if sweep.best is not None:
            faint = {"color": "#555555", "linewidth": 0.5, "zorder": 1.8}
            axes.plot(steps, curves[sweep.top].T, alpha=0.5, **faint)
            axes.plot([], [], label=f"best {len(sweep.top)}", **faint)
            axes.plot(steps, curves[sweep.best], color=_BEST, linewidth=1.8, marker=marker, label="best")
        drawn = np.concatenate([low, high, curves[sweep.top].ravel()])
        drawn = drawn[np.isfinite(drawn)]
        if drawn.min() > 0 and drawn.max() > 20 * drawn.min():
            _logarithmic(axes)
        axes.legend(loc="lower right" if ledger.highest else "upper right")
    axes.set(title="Curves", ylabel=ledger.metric)
    axes.tick_params(labelbottom=False)
    axes.grid(alpha=0.25)
    below.stairs(alive, np.concatenate([[0], steps]), fill=True, color=_COLORS[STOPPED], alpha=0.6)
    below.set(xlabel="step", ylabel="trials", xlim=(0, ledger.steps * 1.02))
    most, least = int(alive.max(initial=0)), int(alive[some].min(initial=len(ledger)))
    if most > 20 * least:
        _logarithmic(below, (1.0,))
        below.set_ylim(0.7, most * 1.6)
    below.grid(alpha=0.25)


def draw_importance(axes: Any, sweep: Sweep) -> None:
    """The share of the variance of ranks that each hyperparameter explains."""
    known = {name: share for name, share in sweep.shares.items() if np.isfinite(share)}
    axes.set_title("Importance")
    if not known:
        _write(axes, "too few trials, or all of them alike")
        return
    names = list(known)[: _AXES + 1]
    values = [known[name] for name in names]
    axes.barh(range(len(names)), values, color="#009E73", height=0.62)
    for i, value in enumerate(values):
        axes.text(value, i, f" {value:.0%}", va="center")
    axes.set_yticks(range(len(names)), [broken(name, 30) for name in names])
    axes.set(xlim=(0, max(1.15 * max(values), 0.1)), ylim=(max(len(names), 4) - 0.5, -0.6))
    axes.set_xlabel("share of the variance of ranks")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.locator_params(axis="x", nbins=4)


def draw_parallel(axes: Any, sweep: Sweep) -> None:
    """The best configs, a line each, through all hyperparameters to the score."""
    import matplotlib
    from matplotlib.collections import LineCollection

    ledger, top = sweep.ledger, sweep.top
    chosen = [j for j, name in enumerate(ledger.space.names) if name in sweep.names[:_AXES]]
    if not len(top) or not chosen:
        _write(axes, "no trial has a score" if chosen else "nothing is varied")
        return
    axes.set_title(f"The best {len(top)}: hyperparameters, and {ledger.metric}")
    others = sweep.order[len(top) :][:: max(1, len(sweep.order) // 150)]
    lines, grey = np.empty((len(top), len(chosen) + 1)), np.empty((len(others), len(chosen)))
    for i, j in enumerate(chosen):
        axis, columns = ledger.space.dimensions[j].axis, (ledger.table[top, j], ledger.table[others, j])
        lines[:, i], grey[:, i] = (places(axis, column, spread=0.6) for column in columns)
        _ruler(axes, i, ticks(axis, np.concatenate(columns)))
    scores = sweep.score[top]
    worst, best = (scores.min(), scores.max()) if ledger.highest else (scores.max(), scores.min())
    marks = (0.0, 0.5, 1.0) if best != worst else (1.0,)
    lines[:, -1] = (scores - worst) / (best - worst) if best != worst else 1.0
    _ruler(axes, len(chosen), [(u, label(float(worst + u * (best - worst)))) for u in marks])
    x = np.arange(len(chosen) + 1)
    colors = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.85, len(top)))
    axes.add_collection(LineCollection(_paths(grey), colors="#999999", linewidths=0.4, alpha=0.25))
    axes.add_collection(LineCollection(_paths(lines[::-1]), colors=colors[::-1], linewidths=1.3, alpha=0.85, zorder=3))
    axes.plot(x, lines[0], color=_BEST, linewidth=2.4, marker="*", markersize=10, zorder=4)
    lowest = -0.18 if min(lines.min(), grey.min(initial=0)) < 0 else -0.06
    axes.set(xlim=(-0.15, len(chosen) + 0.35), ylim=(lowest, 1.08))
    axes.set_xticks(x, [broken(name, 20) for name in (*(ledger.space.names[j] for j in chosen), ledger.metric)])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _paths(lines: np.ndarray) -> list[np.ndarray]:
    return [np.stack([np.arange(len(line)), line], axis=1) for line in lines]


def _ruler(axes: Any, x: int, marks: list[tuple[float, str]]) -> None:
    """A vertical axis with its values."""
    axes.plot([x, x], [0, 1], color="black", linewidth=0.8, zorder=5)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
    for at, what in marks:
        axes.plot([x - 0.012, x], [at, at], color="black", linewidth=0.8, zorder=5)
        axes.text(x + 0.02, at, what, va="center", fontsize=8, zorder=6, bbox=box)


def draw_slices(figure: Any, sweep: Sweep) -> None:
    """Scores by each of the most important hyperparameters, and the median along it."""
    names = sweep.names[:_SLICES]
    if not names:
        _write(figure.subplots(), "")
        return
    grid = figure.subplots(1, max(len(names), 3), sharey=True)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    for i, (axes, name) in enumerate(zip(grid, names)):
        j = sweep.ledger.space.names.index(name)
        axis, column = sweep.ledger.space.dimensions[j].axis, sweep.ledger.table[:, j]
        trials = np.flatnonzero(~np.isnan(column))
        x = places(axis, column[trials], spread=0.6)
        _dots(axes, sweep, x, trials)
        good = np.isin(trials, sweep.order)
        whole = sweep.ledger.step[trials[good]] == sweep.ledger.step.max()
        if good.sum() >= 32 and whole.mean() > 0.5:  # scores at different steps have no median
            groups = bins(column[trials][good])
            pairs = [(x[good][groups == g], sweep.score[trials][good][groups == g]) for g in range(groups.max() + 1)]
            medians = np.array([(np.median(at), np.median(scores)) for at, scores in pairs])
            line = {"linestyle": "none", "marker": "_", "markersize": 26, "markeredgewidth": 2} if axis.options else {}
            axes.plot(*medians.T, color="black", linewidth=1.4, zorder=5, **line)
        marks = ticks(axis, column[trials], longest=9, closest=0.05 * max(len(names), 3))
        axes.set_xticks([at for at, _ in marks], [what for _, what in marks])
        axes.set(xlim=(-0.03, 1.03), title=broken(name, max(90 // len(names), 18)))
        axes.set_ylabel(sweep.ledger.metric if i == 0 else "")
        axes.grid(alpha=0.25)


def _write(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#555555")
    axes.set_axis_off()


def _logarithmic(axes: Any, digits: tuple[float, ...] = (1.0, 3.0)) -> None:
    """A logarithmic vertical axis with numbers formatted by `label`."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=digits, numticks=8))
    axes.yaxis.set_major_formatter(lambda y, _: label(float(y)))
    axes.yaxis.set_minor_formatter(NullFormatter())
