"""What follows from steps to a target: which optimizer reaches it sooner, and how sure that is.

Everywhere `taken` is {optimizer: {workload: float [seeds]}}, the steps or seconds that a seed needed; infinite where
the target was not reached within the budget. Seeds are paired: seed i is the same start and the same batches for all.
"""

import itertools

import numpy as np

from experiments import record

__all__ = ["at_target", "pairs", "profile", "profiles", "standing", "to_target"]

Taken = dict[str, dict[str, np.ndarray]]


def at_target(best: float, start: float, share: float = 0.05) -> float:
    """The loss that has come down from `start` all but `share` of the way to `best`."""
    return best + share * (start - best)


def to_target(steps: np.ndarray, curves: np.ndarray, target: float) -> np.ndarray:
    """The first of steps [points] at which each of the curves [..., points] is at most the target, else infinity."""
    reached = np.nan_to_num(curves, nan=np.inf) <= target
    return np.where(reached.any(axis=-1), np.asarray(steps, np.float64)[reached.argmax(axis=-1)], np.inf)


def pairs(taken: Taken, budgets: dict[str, float]) -> dict[tuple[str, str], dict[str, tuple[float, float]]]:
    """For each pair (one, other) and workload, the mean over seeds of log2(one / other): below zero is sooner.

    Beside it, the half-width of its 95 % interval (Student's t). What was not reached counts as reached at the end of
    the budget, which is in favour of the one that did not reach it.
    """
    found: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for one, other in itertools.permutations(taken, 2):
        for workload, budget in budgets.items():
            a, b = (np.minimum(taken[name][workload], budget) for name in (one, other))
            gap = np.log2(a / b)
            found.setdefault((one, other), {})[workload] = record.interval(gap)
    return found


def standing(gaps: dict[str, tuple[float, float]]) -> tuple[int, int, bool]:
    """On how many workloads the first of a pair is sooner, on how many later, and whether it may be called sooner.

    An interval that includes zero is neither; the claim is made where the first is sooner on more than half of them.
    """
    sooner = sum(mean + half < 0 for mean, half in gaps.values())
    later = sum(mean - half > 0 for mean, half in gaps.values())
    return sooner, later, sooner > len(gaps) / 2


def profile(taken: Taken, ratios: np.ndarray) -> dict[str, np.ndarray]:
    """Dolan and Moré's performance profile, {optimizer: [ratios]}.

    It is the share of runs (workload and seed) in which an optimizer needed at most this many times what the best one
    needed, for each of `ratios`.

    Reference: Dolan & Moré, "Benchmarking optimization software with performance profiles", 2002, arXiv:cs/0102001.
    """
    table = np.stack([np.concatenate(list(rows.values())) for rows in taken.values()])
    best = table.min(axis=0)
    solved = np.isfinite(best)  # a target that no optimizer reached counts for none
    shares = np.where(solved, table / np.where(solved, best, 1.0), np.inf)
    return {name: (row[:, None] <= ratios[None]).mean(axis=0) for name, row in zip(taken, shares, strict=True)}


def profiles(taken: Taken, ratios: np.ndarray, draws: int = 1000) -> dict[str, np.ndarray]:
    """The profile and its 95 % interval, {optimizer: [3, ratios]}: value, lower and upper end.

    Workloads are drawn with replacement, and their seeds too, the same ones for all optimizers (bootstrap): the
    intervals are for other workloads of this kind.
    """
    rng = np.random.default_rng(0)
    workloads, first = list(next(iter(taken.values()))), next(iter(taken.values()))
    drawn = []
    for _ in range(draws):
        chosen = [(w, rng.integers(len(first[w]), size=len(first[w]))) for w in rng.choice(workloads, len(workloads))]
        again = {name: {str(i): rows[w][seeds] for i, (w, seeds) in enumerate(chosen)} for name, rows in taken.items()}
        drawn.append(profile(again, ratios))
    point = profile(taken, ratios)
    ends = {name: np.quantile([one[name] for one in drawn], (0.025, 0.975), axis=0) for name in taken}
    return {name: np.concatenate([point[name][None], ends[name]]) for name in taken}
