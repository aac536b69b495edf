"""Statistics of a ledger: last values, ranking, importance of hyperparameters, optima on an edge, one table of all.

    importance    the share of the variance of the trials' ranks that one hyperparameter explains by itself

    ε² = ((n - 1) R² - k + 1) / (n - k),    R² = Σ nᵢ (r̄ᵢ - r̄)² / Σ (r - r̄)²

over k groups of the n trials: the options, or bins of equally many trials. It is the effect size of the Kruskal-Wallis
test: it needs no model, and neither outliers nor the scales of metric and hyperparameters matter. It does
not measure interactions of two hyperparameters.
"""

import json
import math
from typing import Any

import numpy as np

from jaxopt_lite.core.values import Value
from jaxopt_lite.sweeps.configs import printed
from jaxopt_lite.sweeps.ledger import DIVERGED, FAILED, RUNNING, STATUSES, Ledger

__all__ = []

_FEWEST = 8  # the fewest trials from which an importance is computed
_MOST_BINS = 10
_EDGE = 0.02  # share of a range that counts as its edge


def last_values(ledger: Ledger) -> dict[str, np.ndarray]:
    """Every curve at each trial's last point, float32 [n, seeds] by name; NaN for a trial without a point."""
    done = ledger.step // ledger.eval_every
    at = np.maximum(done - 1, 0)[:, None, None]
    return {
        name: np.where(done[:, None] > 0, np.take_along_axis(curve, at, axis=2)[:, :, 0], np.float32(np.nan))
        for name, curve in ledger.curves.items()
    }


def last_measured(ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """The metric at each trial's last point, not negated: mean over seeds and its standard error, float64 [n] each."""
    empty = np.full((len(ledger), ledger.seeds), np.nan)
    return over_seeds(last_values(ledger).get(ledger.metric, empty))


def over_seeds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over the last axis, in float64; with one seed the standard error is NaN."""
    values = np.asarray(values, np.float64)
    seeds = values.shape[-1]
    with np.errstate(invalid="ignore"):  # inf - inf is an invalid operation
        mean = values.mean(axis=-1)
        spread = values.std(axis=-1, ddof=1) if seeds > 1 else np.full_like(mean, np.nan)
    return mean, spread / np.sqrt(seeds)


def ranked(ledger: Ledger) -> np.ndarray:
    """The trials that have a score, from the best to the worst, int [m]: neither diverged, nor failed, nor NaN."""
    return ledger.ranked()


def importance(ledger: Ledger) -> dict[str, float]:
    """The share of the variance of the trials' ranks that each hyperparameter explains by itself, the greatest first.

    Ranked are the trials that ran: those that came further before others, then by the metric; diverged trials share
    the last rank. A hyperparameter of a sub-space explains ranks of the trials that have it, and its share is of the
    variance of all.

    Args:
        ledger: of a sweep.

    Returns:
        A number from 0 to 1 by flat name, NaN where fewer than 8 trials have it or all trials are equal.

    References: Kruskal & Wallis, "Use of Ranks in One-Criterion Variance Analysis", 1952; Tomczak & Tomczak, "The Need
        to Report Effect Size Estimates Revisited", 2014 (there η² based on H). Main effects only, as the first terms of
        Hutter, Hoos & Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", 2014.
    """
    ran = (ledger.step > 0) & (ledger.status != FAILED)
    ranks = _ranks(ledger)[ran]
    total = np.sum((ranks - ranks.mean()) ** 2) if len(ranks) else 0.0
    shares = {}
    for j, dimension in enumerate(ledger.space.dimensions):
        column = ledger.table[ran, j] if len(ledger) else np.empty(0)
        has = ~np.isnan(column)
        shares[dimension.name] = _explained(ranks[has], column[has], total)
    return dict(sorted(shares.items(), key=lambda item: -np.nan_to_num(item[1], nan=-1.0)))


def _ranks(ledger: Ledger) -> np.ndarray:
    """Ranks of all trials, equal ones with the mean of theirs, float64 [n]."""
    keys = ledger.ranks()
    keys[np.isin(ledger.status, (DIVERGED, FAILED)), 1:] = 0  # diverged and failed trials are equal
    _, place, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place.reshape(-1)]


def _explained(ranks: np.ndarray, column: np.ndarray, total: float) -> float:
    n = len(ranks)
    groups = bins(column)
    k = int(groups.max(initial=-1)) + 1
    if n < _FEWEST or n <= k or not total:
        return float("nan")
    counts, sums = np.bincount(groups), np.bincount(groups, weights=ranks)
    within = np.sum((ranks - ranks.mean()) ** 2)
    between = np.sum(counts * (sums / counts - ranks.mean()) ** 2)
    share = ((n - 1) * between / within - k + 1) / (n - k) if within else 0.0
    return float(np.clip(share, 0.0, 1.0) * within / total)


def bins(column: np.ndarray) -> np.ndarray:
    """A group for each number, int [n]: the number itself, or one of up to 10 bins of about equally many."""
    n = len(column)
    most = int(np.clip(np.sqrt(n), 3, _MOST_BINS))
    values, place, counts = np.unique(column, return_inverse=True, return_counts=True)
    if len(values) > most:
        middles = np.cumsum(counts) - counts / 2
        place = np.floor(middles / n * most).astype(int)[place]
    return np.unique(place, return_inverse=True)[1]


def edges(ledger: Ledger, trial: int) -> list[str]:
    """What to widen: a sentence for each number of a trial that lies within 2 % of an end of its range.

    An int counts when it is the end itself. No range is to be widened beyond 0, beyond 1 where it is not logarithmic
    (fractions, decays) or, for ints, below 1; a normal distribution has no ends.

    Args:
        ledger: of a sweep.
        trial: number of the trial, usually the best one.
    """
    row = ledger.table[trial]
    points = ledger.space.to_unit(row[None])[0]
    sentences = []
    for dimension, number, u in zip(ledger.space.dimensions, row, points, strict=True):
        axis = dimension.axis
        if np.isnan(number) or axis.kind == "choice" or not axis.bounded:
            continue
        lowest = axis.low in ((0, 1) if axis.integer else (0,))
        highest = not axis.integer and not axis.log and axis.low >= 0 and axis.high == 1
        if not lowest and (number == axis.low if axis.integer else u <= _EDGE):
            which, way = "lower", "downwards"
        elif not highest and (number == axis.high if axis.integer else u >= 1 - _EDGE):
            which, way = "upper", "upwards"
        else:
            continue
        shown = f"{dimension.name} = {axis.value(number) if axis.integer else f'{number:.4g}'}"
        sentences.append(f"{shown} lies at the {which} edge of {dimension.given!r}: widen the range {way}")
    return sentences


def earlier_best(ledger: Ledger, trial: int) -> list[str]:
    """A sentence if a trial's metric, mean over seeds, was better at an earlier point than at its last one.

    Points before the last copy of population-based training are of other parameters, and do not count.

    Args:
        ledger: of a sweep.
        trial: number of the trial, usually the best one.
    """
    own = max((event.step for event in ledger.lineage if event.trial == trial), default=0)
    first, done = own // ledger.eval_every, ledger.step[trial] // ledger.eval_every
    scores = ledger.scores[trial, first:done]
    if not np.isfinite(scores).any() or not np.nanmin(scores) < scores[-1]:
        return []
    best, sign = int(np.nanargmin(scores)), -1 if ledger.highest else 1
    then, last = (label(sign * x + 0.0) for x in (scores[best], scores[-1]))
    if then == last:
        return []
    return [
        f"trial {trial} had its best {ledger.metric}, {then}, at step {(first + best + 1) * ledger.eval_every}; at its "
        f"last step it has {last}: train it for fewer steps, or with restore_best of fit"
    ]


def failures(ledger: Ledger) -> list[str]:
    """A sentence if trials failed: their number, and the first of them with its config and error."""
    if not ledger.errors:
        return []
    first, n = min(ledger.errors), len(ledger.errors)
    config = ", ".join(f"{name}={text}" for name, text in settings(ledger, first).items())
    which = (
        f"trial {first} failed, with {config}" if n == 1 else f"{n} trials failed, first trial {first} with {config}"
    )
    return [f"{which}: {ledger.errors[first]}"]


def columns(ledger: Ledger) -> dict[str, np.ndarray]:
    """The ledger as a table: number, status, steps, score, standard error, hyperparameters, and last values.

    Hyperparameters have their flat names, or `config.` before it where another column has that name. Their values are
    as JSON has them; None where a config does not have them. Last values are means over seeds.

    Returns:
        Arrays [n] by name.
    """
    score, stderr = last_measured(ledger)
    table = {
        "number": np.arange(len(ledger)),
        "status": np.array(STATUSES)[ledger.status],
        "steps": ledger.step.copy(),
        "score": score,
        "stderr": stderr,
    }
    metrics = {name: over_seeds(values)[0] for name, values in last_values(ledger).items()}
    configs = ledger.space.columns(ledger.table) if len(ledger) else {name: np.empty(0) for name in ledger.space.names}
    taken = {*table, *metrics, "error"}  # a column that files add for the errors of failed trials
    table |= {f"config.{name}" if name in taken else name: column for name, column in configs.items()}
    return table | metrics


def ended(status: str) -> str:
    """A trial's status as text, once the sweep has stopped: "running" becomes "unfinished"."""
    return "unfinished" if status == STATUSES[RUNNING] else status


def label(value: Any) -> str:
    """A value of a hyperparameter as a short text: strings unchanged, numbers with four digits."""
    if isinstance(value, float | np.floating):
        if value == 0 or not math.isfinite(value) or 1e-3 <= abs(value) < 1e4:
            return f"{value:.4g}"
        digits, exponent = f"{value:.3e}".split("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)


def settings(ledger: Ledger, trial: int) -> dict[str, str]:
    """A trial's hyperparameters as short texts, by flat name; without those that the config does not have."""
    texts = {}
    for dimension, x in zip(ledger.space.dimensions, ledger.table[trial], strict=True):
        if not np.isnan(x):
            value = dimension.axis.value(x)
            # The saved text of an optimizer has all arguments; a picture shows only those that were given.
            texts[dimension.name] = repr(value) if isinstance(value, Value) else label(printed(value))
    return texts
