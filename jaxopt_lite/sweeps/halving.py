"""Successive halving: many trials begin, few go on, and those go on for longer.

rungs              r, ηr, η²r, … up to the last step
at a rung          of n trials that began, n / ηᵏ go on from rung k
Hyperband          several brackets, bracket b begins at rung b
ASHA               a trial goes on once it is among the best 1/η of those that have come to its rung
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from jaxopt_lite.core.arguments import INT32_MAX as MOST
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.sweeps.ledger import Ledger
from jaxopt_lite.sweeps.policies import Decision, check_int, policy

__all__ = ["successive_halving"]


@policy
def successive_halving(
    factor: int = 4,
    min_steps: int | None = None,
    brackets: int = 1,
    asynchronous: bool = False,
    concurrency: int = 32,
):
    """At rungs of r, ηr, η²r, … steps, let the best share 1/η of the trials go on.

    A metric that is not finite at a rung is the worst; where it is finite for no trial, all are promoted.

    Args:
        factor: η, at least 2.
        min_steps: r, the first rung, rounded up to a multiple of eval_every; None is steps / ηᵏ, where ηᵏ is the
            greatest power up to the number of trials, so that one trial at least runs to the end.
        brackets: how many brackets; bracket b begins at rung b. More than 1 is Hyperband, which hedges against
            trials that begin slowly; trials are shared out so that each bracket costs about the same.
        asynchronous: promote a trial as soon as it is among the best 1/η of those that came to its rung so far, instead
            of waiting for all of them (ASHA). A trial is then promoted on less, but a machine never waits for the last.
        concurrency: how many trials run between two decisions of the asynchronous form. Results depend on it, and not
            on the number of devices.

    Raises:
        TypeError: if an argument is no int (or bool).
        ValueError: if one is too small; when used, if there are more brackets than rungs, or no rung before the end.

    References: Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016,
        arXiv:1502.07943; Li et al., "Hyperband", 2018, arXiv:1603.06560; Li et al., "A System for Massively Parallel
        Hyperparameter Tuning", 2020, arXiv:1810.05934, algorithm 2.
    """
    check_int("successive_halving", "factor", factor, 2, MOST)
    check_int("successive_halving", "min_steps", min_steps, 1, MOST, none=True)
    check_int("successive_halving", "brackets", brackets, 1)
    check_int("successive_halving", "concurrency", concurrency, 1)
    if not isinstance(asynchronous, bool):
        raise TypeError(f"successive_halving: asynchronous must be True or False, got {describe(asynchronous)}")

    def decide(ledger: Ledger) -> Decision:
        rungs = _rungs(ledger, factor, min_steps)
        if brackets > len(rungs):
            raise ValueError(f"successive_halving: brackets={brackets} is more than the {len(rungs)} rungs {rungs}")
        bracket = np.zeros(len(ledger), np.int32)
        for batch in np.unique(ledger.batch):
            members = np.flatnonzero(ledger.batch == batch)
            bracket[members] = _share_out(len(members), _weights(len(rungs), brackets, factor))
        move = _asynchronous if asynchronous else _synchronous
        return move(ledger, rungs, bracket, factor, concurrency)._replace(bracket=bracket)

    return decide


def _rungs(ledger: Ledger, factor: int, min_steps: int | None) -> list[int]:
    """r, ηr, η²r, ... rounded up to points, and the last step."""
    first = min_steps
    if first is not None and first >= ledger.steps:
        raise ValueError(
            f"successive_halving: min_steps={first} must be below steps={ledger.steps}, or nothing is halved"
        )
    if first is None:
        largest = int(np.bincount(ledger.batch).max())
        powers = int(math.log(largest, factor) + 1e-9)
        first = ledger.steps / factor**powers
    every, rungs = ledger.eval_every, []
    first = math.ceil(first / every) * every
    while first < ledger.steps:
        rungs.append(first)
        first *= factor
    return [*rungs, ledger.steps]


def _weights(rungs: int, brackets: int, factor: int) -> list[float]:
    """Trials in each bracket, relative: a trial of the bracket with k promotions costs about k + 1 first rungs."""
    return [factor ** (rungs - 1 - b) / (rungs - b) for b in range(brackets)]


def _share_out(n: int, weights: Sequence[float]) -> np.ndarray:
    """Bracket of each of n trials, in proportion to weights; every bracket gets one while there are enough."""
    ends = np.round(np.cumsum(weights) / np.sum(weights) * n).astype(int)
    least = np.arange(len(weights)) + 1
    ends = np.clip(ends, least, n - len(weights) + least) if n >= len(weights) else np.minimum(ends, n)
    return np.searchsorted(ends, np.arange(n), side="right").astype(np.int32)


def _synchronous(ledger: Ledger, rungs: list[int], bracket: np.ndarray, factor: int, _: int) -> Decision:
    target, stop = ledger.step.copy(), np.zeros(len(ledger), bool)
    for batch in np.unique(ledger.batch):
        for b in np.unique(bracket[ledger.batch == batch]):
            members = (ledger.batch == batch) & (bracket == b)
            going = np.flatnonzero(members & ledger.running)
            step = int(ledger.step[going].max(initial=0))
            if step == 0:
                target[going] = rungs[b]
            elif step < ledger.steps:
                rung = rungs.index(step)
                n, scores = max(1, int(members.sum()) // factor ** int(rung - b + 1)), ledger.score_at(step)[going]
                if np.isinf(scores).all():  # nobody has a score yet, so nothing tells who is to be stopped
                    n = len(going)
                best = going[np.lexsort((going, scores))]
                target[best[:n]] = rungs[rung + 1]
                stop[best[n:]] = True
    return Decision(target=target, stop=stop)


def _asynchronous(ledger: Ledger, rungs: list[int], bracket: np.ndarray, factor: int, concurrency: int) -> Decision:
    target, jobs = ledger.step.copy(), []
    for rung, following in reversed(list(itertools.pairwise(rungs))):  # the highest rung first
        for b in np.unique(bracket):
            if rungs.index(rung) < b:
                continue
            scores = ledger.score_at(rung)
            came = np.flatnonzero((bracket == b) & (ledger.step >= rung))
            best = came[np.lexsort((came, scores[came]))][: len(came) // factor]
            jobs += [(trial, following) for trial in best if ledger.running[trial] and ledger.step[trial] == rung]
    new = np.flatnonzero(ledger.running & (ledger.step == 0))
    jobs += [(trial, rungs[bracket[trial]]) for trial in new]
    for trial, step in jobs[:concurrency]:
        target[trial] = step
    return Decision(target=target)
