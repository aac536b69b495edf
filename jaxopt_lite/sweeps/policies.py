"""Policies: which trials continue, for how many steps, and from whose state.

    run_all                 every trial runs to its end
    median_stopping         stop what is worse than the median of the others    Golovin et al. (Vizier), 2017
    successive_halving      of n trials, promote the best n / η, η times as far Jamieson & Talwalkar, 2016, 1502.07943
        brackets > 1        Hyperband: bracket b begins at rung b               Li et al., 2018, 1603.06560
        asynchronous=True   ASHA: promote the best 1/η of those at a rung       Li et al., 2020, 1810.05934
    population_based        the worst copy the best, and vary their numbers     Jaderberg et al., 2017, 1711.09846

**The protocol.** A policy is asked, by `decide(ledger)`, whenever no trial has steps to do: at the beginning, and each
time all have reached the target that it last set. It answers with a `Decision`, and is a pure function of the `Ledger`:
it keeps nothing between calls, and draws random numbers, if any, from `ledger.seed` and the trials' steps. So a sweep
that was killed resumes with the same decisions. When no target is raised, trials that still wait are stopped, and the
sampler is asked for its next batch; the sweep ends after the last one.

A policy of your own is a function `decide`, made by a factory:

    @policy
    def stop_the_worse_half():
        def decide(ledger):
            middle = ledger.steps // ledger.eval_every // 2 * ledger.eval_every
            if (ledger.step[ledger.running] == 0).any():
                return Decision(target=np.full(len(ledger), middle))
            scores = ledger.score_at(middle)
            return Decision(target=ledger.steps, stop=scores > np.nanmedian(scores))
        return decide
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec

import numpy as np

from jaxopt_lite.core.arguments import INT32_MAX, check_int
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.values import Value, register, remember_calls
from jaxopt_lite.sweeps.ledger import DIVERGED, FAILED, Copy, Ledger

__all__ = ["Decision", "Policy", "median_stopping", "policy", "run_all", "successive_halving"]

P = ParamSpec("P")


class Decision(NamedTuple):
    """What is to be done next.

    Attributes:
        target: step to which each trial may run, int [n] or one for all, a multiple of eval_every; None changes none.
            It does not concern trials that have ended.
        stop: trials that are to end here, bool [n].
        copies: trials that continue from another one's state; all sources are read before any trial is changed.
        bracket: a new value of `ledger.bracket`, int [n].
    """

    target: Any = None
    stop: Any = None
    copies: Sequence[Copy] = ()
    bracket: Any = None


@register
class Policy(Value):
    """A rule that decides which trials continue. Make one by calling a factory such as `successive_halving()`."""

    noun = "a policy"

    def decide(self, ledger: Ledger) -> Decision:
        """What is to be done next; what the rule left out is filled in, and arrays are of all trials.

        Raises:
            TypeError: if the rule returns no `Decision`.
            ValueError: if its arrays have other lengths, a target is no multiple of eval_every, or a copy's source
                ends, is at another step, or has not begun.
        """
        decision, n = self.built(ledger), len(ledger)
        if not isinstance(decision, Decision):
            raise TypeError(f"{self!r} must return a Decision, got {describe(decision)}")
        for name, default in (("target", ledger.target), ("stop", np.array(False)), ("bracket", ledger.bracket)):
            given, (kind, codes) = getattr(decision, name), ("bools", "b") if name == "stop" else ("ints", "iu")
            array = default if given is None else np.asarray(given)
            if array.dtype.kind not in codes or array.shape not in ((), (n,)):
                raise ValueError(f"{self!r}: {name} must be {n} {kind}, one for each trial, got {describe(given)}")
            decision = decision._replace(**{name: np.broadcast_to(array, n)})
        wrong = (decision.target % ledger.eval_every != 0) | (decision.target > ledger.steps)
        if wrong.any():
            limits = f"a multiple of eval_every={ledger.eval_every} up to steps={ledger.steps}"
            raise ValueError(f"{self!r}: a target must be {limits}, got {decision.target[wrong][0]}")
        for copy in decision.copies:
            ends = not ledger.running[copy.source] or decision.stop[copy.source]
            if ends or copy.step == 0 or ledger.step[copy.source] != copy.step:
                why = "ends here" if ends else f"is not at step {copy.step}, or has not begun"
                raise ValueError(f"{self!r}: trial {copy.source} {why}, so none can copy it")
        return decision


def policy(function: Callable[P, Callable[[Ledger], Decision]]) -> Callable[P, Policy]:
    """Make a factory of policies: the decorated function returns a function `decide` (see the module's docstring)."""
    return remember_calls(function, Policy)


@policy
def run_all():
    """Every trial runs to its end."""
    return lambda ledger: Decision(target=ledger.steps)


@policy
def median_stopping(interval: int | None = None, warmup: int = 0, min_trials: int = 5):
    """Stop a trial whose best score so far is worse than the median of the other trials' running means at that step.

    Points at which the metric was not finite are left out. Trials that have no score yet are not judged.

    Args:
        interval: steps between decisions; None decides at each point.
        warmup: steps before the first decision, at least 0.
        min_trials: number of other trials that must have come as far, at least 1.

    Raises:
        TypeError: if one is no int.
        ValueError: if one is too small; when used, if interval or warmup is no multiple of eval_every.

    Reference: Golovin et al., "Google Vizier: A Service for Black-Box Optimization", 2017, section 3.2.1.
    """
    check_int("median_stopping", "interval", interval, most=INT32_MAX, none=True)
    check_int("median_stopping", "warmup", warmup, 0, INT32_MAX)
    check_int("median_stopping", "min_trials", min_trials)

    def decide(ledger: Ledger) -> Decision:
        every = multiple("median_stopping", "interval", interval or ledger.eval_every, ledger)
        first = max(multiple("median_stopping", "warmup", warmup, ledger), every)
        scores, at, stop = ledger.scores, ledger.step.astype(np.int64), np.zeros(len(ledger), bool)
        for step in np.unique(at[ledger.running & (at >= first)]).tolist():
            so_far = scores[:, : step // ledger.eval_every]
            finite = np.isfinite(so_far)
            there = (at >= step) & finite.any(axis=1) & ~((ledger.status == DIVERGED) & (at == step))
            mean = np.where(finite, so_far, 0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
            best = np.fmin.reduce(so_far, axis=1)  # NaN where no point has a score
            for trial in np.flatnonzero(ledger.running & (at == step)):
                others = there & (np.arange(len(ledger)) != trial)
                if others.sum() >= min_trials:
                    stop[trial] = best[trial] > np.median(mean[others])
        nearest = np.where(at < first, first, (at // every + 1) * every)
        return Decision(target=np.minimum(nearest, ledger.steps).astype(np.int32), stop=stop)

    return decide


def multiple(who: str, name: str, value: int, ledger: Ledger) -> int:
    """A number of steps that must be a multiple of eval_every."""
    if value % ledger.eval_every:
        raise ValueError(f"{who}: {name}={value} must be a multiple of eval_every={ledger.eval_every}")
    return value


@policy
def successive_halving(
    factor: int = 4, min_steps: int | None = None, brackets: int = 1, asynchronous: bool = False, concurrency: int = 32
):
    """At rungs of r, ηr, η²r, … steps, promote the best share 1/η of the trials to the next rung.

    Of n trials that begin in a bracket, n / ηᵏ are promoted from its rung k. A metric that is not finite at a rung is
    the worst; where it is finite for no trial, all are promoted.

    Args:
        factor: η, at least 2.
        min_steps: r, the first rung, rounded up to a multiple of eval_every; None is steps / ηᵏ, where ηᵏ is the
            greatest power up to the number of trials, so that one trial at least runs to the end.
        brackets: number of brackets; bracket b begins at rung b. More than 1 is Hyperband, which hedges against
            trials that begin slowly; trials are shared out so that each bracket costs about the same.
        asynchronous: promote a trial as soon as it is among the best 1/η of those that came to its rung so far, instead
            of waiting for all of them (ASHA). Promotions then rest on fewer results, but no device waits for
            stragglers.
        concurrency: number of trials that run between two decisions of the asynchronous form. Results depend on it, and
            not on the number of devices.

    Raises:
        TypeError: if an argument is no int (or bool).
        ValueError: if one is too small; when used, if there are more brackets than rungs, or no rung before the end.

    References: Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016,
        arXiv:1502.07943; Li et al., "Hyperband", 2018, arXiv:1603.06560; Li et al., "A System for Massively Parallel
        Hyperparameter Tuning", 2020, arXiv:1810.05934, algorithm 2.
    """
    check_int("successive_halving", "factor", factor, 2, INT32_MAX)
    check_int("successive_halving", "min_steps", min_steps, most=INT32_MAX, none=True)
    check_int("successive_halving", "brackets", brackets)
    check_int("successive_halving", "concurrency", concurrency)

    def decide(ledger: Ledger) -> Decision:
        rungs = _rungs(ledger, factor, min_steps)
        if brackets > len(rungs):
            raise ValueError(f"successive_halving: brackets={brackets} is more than the {len(rungs)} rungs {rungs}")
        # A trial that is promoted k times costs about k + 1 first rungs.
        weights = [factor ** (len(rungs) - 1 - b) / (len(rungs) - b) for b in range(brackets)]
        bracket = np.concatenate([_share_out(n, weights) for n in np.bincount(ledger.batch)])  # batches are in order
        if asynchronous:
            return _asynchronous(ledger, rungs, bracket, factor, concurrency)
        return _synchronous(ledger, rungs, bracket, factor)

    return decide


def _rungs(ledger: Ledger, factor: int, first: float | None) -> list[int]:
    """r, ηr, η²r, ... rounded up to points, and the last step."""
    if first is None:
        largest = int(np.bincount(ledger.batch[ledger.status != FAILED]).max(initial=1))
        first = float(ledger.steps / factor ** int(math.log(largest, factor) + 1e-9))
    elif first >= ledger.steps:
        raise ValueError(f"successive_halving: min_steps={first} must be below steps={ledger.steps}")
    rung = math.ceil(first / ledger.eval_every) * ledger.eval_every
    powers = (rung * factor**k for k in itertools.count())
    return [*itertools.takewhile(lambda step: step < ledger.steps, powers), ledger.steps]


def _share_out(n: int, weights: Sequence[float]) -> np.ndarray:
    """Bracket of each of n trials, in proportion to weights; every bracket gets one while there are enough."""
    ends = np.round(np.cumsum(weights) / np.sum(weights) * n).astype(int)
    least = np.arange(len(weights)) + 1
    ends = np.clip(ends, least, n - len(weights) + least) if n >= len(weights) else np.minimum(ends, n)
    return np.searchsorted(ends, np.arange(n), side="right").astype(np.int32)


def _synchronous(ledger: Ledger, rungs: list[int], bracket: np.ndarray, factor: int) -> Decision:
    """Promote the best of each batch and bracket when all of them have come to a rung, and stop the others."""
    target, stop = ledger.step.copy(), np.zeros(len(ledger), bool)
    for batch, b in set(zip(ledger.batch.tolist(), bracket.tolist(), strict=True)):
        members = (ledger.batch == batch) & (bracket == b)
        running = np.flatnonzero(members & ledger.running)
        step = int(ledger.step[running].max(initial=0))
        if step == 0:
            target[running] = rungs[b]
        elif step < ledger.steps:
            rung, scores = rungs.index(step), ledger.score_at(step)[running]
            # As long as no trial has a score, none is the best.
            n = len(running) if np.isinf(scores).all() else max(1, int(members.sum()) // factor ** (rung - b + 1))
            best = running[np.argsort(scores, kind="stable")]
            target[best[:n]] = rungs[rung + 1]
            stop[best[n:]] = True
    return Decision(target=target, stop=stop, bracket=bracket)


def _asynchronous(ledger: Ledger, rungs: list[int], bracket: np.ndarray, factor: int, concurrency: int) -> Decision:
    """Promote the best 1/η of each rung and bracket, the highest rung first; then begin new trials."""
    target, jobs = ledger.step.copy(), []
    for rung, following in reversed(list(itertools.pairwise(rungs))):
        scores = ledger.score_at(rung)
        for b in np.unique(bracket):
            came = np.flatnonzero((bracket == b) & (ledger.step >= rung))
            best = came[np.argsort(scores[came], kind="stable")][: len(came) // factor]
            jobs += [(trial, following) for trial in best if ledger.running[trial] and ledger.step[trial] == rung]
    jobs += [(trial, rungs[bracket[trial]]) for trial in np.flatnonzero(ledger.running & (ledger.step == 0))]
    for trial, step in jobs[:concurrency]:
        target[trial] = step
    return Decision(target=target, bracket=bracket)
