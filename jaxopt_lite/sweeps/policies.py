"""Policies: which trials go on, how far, and from whose state.

    run_all                 every trial runs to its end
    median_stopping         stop what is worse than the median of the others    Golovin et al. (Vizier), 2017
    successive_halving      of n trials, the best n / η go on, η times as far   Jamieson & Talwalkar, 2016, 1502.07943
        brackets > 1        Hyperband                                           Li et al., 2018, 1603.06560
        asynchronous=True   ASHA                                                Li et al., 2020, 1810.05934
    population_based        the worst copy the best, and vary their numbers     Jaderberg et al., 2017, 1711.09846

**The protocol.** A policy is asked, by `decide(ledger)`, whenever no trial has steps to do: at the beginning, and each
time all have come to where it last sent them. It answers with a `Decision`, and is a pure function of the `Ledger`: it
keeps nothing between calls, and draws random numbers, if any, from `ledger.seed` and the trials' steps. So a sweep that
was killed goes on as if it had not been. The sweep ends when it sends nobody further; who still waits then is stopped.

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

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec

import numpy as np

from jaxopt_lite.core.arguments import INT32_MAX as MOST
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.values import Value, register, remember_calls
from jaxopt_lite.sweeps.ledger import DIVERGED, Copy, Ledger

__all__ = ["Decision", "Policy", "median_stopping", "policy", "run_all"]

P = ParamSpec("P")


class Decision(NamedTuple):
    """What is to be done next.

    Attributes:
        target: step to which each trial may run, int [n] or one for all, a multiple of eval_every; None changes none.
            Trials that have ended are not concerned.
        stop: trials that are to end here, bool [n].
        copies: trials that go on from another one's state; all sources are read before any trial is changed.
        bracket: a new value of `ledger.bracket`, int [n].
    """

    target: Any = None
    stop: Any = None
    copies: Sequence[Copy] = ()
    bracket: Any = None


@register
class Policy(Value):
    """A rule that says which trials go on. Make one by calling a factory such as `successive_halving()`."""

    noun = "a policy"

    def decide(self, ledger: Ledger) -> Decision:
        """What is to be done next.

        Raises:
            TypeError: if the rule returns no `Decision`.
            ValueError: if its arrays have other lengths, a target is no multiple of eval_every, or a copy's source has
                ended or stands elsewhere.
        """
        decision = self.built(ledger)
        if not isinstance(decision, Decision):
            raise TypeError(f"{self!r} must return a Decision, got {describe(decision)}")
        n = len(ledger)
        for name, dtype in (("target", np.integer), ("stop", np.bool_), ("bracket", np.integer)):
            given = getattr(decision, name)
            if given is None:
                continue
            array = np.asarray(given)
            if not np.issubdtype(array.dtype, dtype) or array.shape not in ((), (n,)):
                kind = "bools" if name == "stop" else "ints"
                raise ValueError(f"{self!r}: {name} must be {n} {kind}, one for each trial, got {describe(given)}")
            decision = decision._replace(**{name: np.broadcast_to(array, n)})
        if decision.target is not None:
            wrong = (decision.target % ledger.eval_every != 0) | (decision.target > ledger.steps)
            if wrong.any():
                raise ValueError(
                    f"{self!r}: a target must be a multiple of eval_every={ledger.eval_every} up to "
                    f"steps={ledger.steps}, got {decision.target[wrong][0]}"
                )
        for copy in decision.copies:
            if not ledger.running[copy.source] or ledger.step[copy.source] != copy.step:
                raise ValueError(f"{self!r}: trial {copy.source} is not at step {copy.step}, so none can go on from it")
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
    """Stop a trial whose best score so far is worse than the median, over the others, of the mean score so far.

    Points at which the metric was NaN are left out, and so are trials that have no score yet: they are not judged.

    Args:
        interval: steps between decisions; None decides at each point.
        warmup: steps before the first decision, at least 0.
        min_trials: how many other trials must have come as far, at least 1.

    Raises:
        TypeError: if one is no int.
        ValueError: if one is too small; when used, if interval or warmup is no multiple of eval_every.

    Reference: Golovin et al., "Google Vizier: A Service for Black-Box Optimization", 2017, section 3.2.1.
    """
    check_int("median_stopping", "interval", interval, 1, MOST, none=True)
    check_int("median_stopping", "warmup", warmup, 0, MOST)
    check_int("median_stopping", "min_trials", min_trials, 1)

    def decide(ledger: Ledger) -> Decision:
        every = multiple("median_stopping", "interval", interval or ledger.eval_every, ledger)
        first = max(multiple("median_stopping", "warmup", warmup, ledger), every)
        at = ledger.step.astype(np.int64)
        stop = np.zeros(len(ledger), bool)
        for step in np.unique(at[ledger.running & (at >= first)]).tolist():
            so_far = ledger.scores[:, : step // ledger.eval_every]
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
    if value % ledger.eval_every:
        raise ValueError(f"{who}: {name}={value} must be a multiple of eval_every={ledger.eval_every}")
    return value


def check_int(who: str, name: str, value: Any, least: int, most: int | None = None, none: bool = False) -> None:
    if none and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{who}: {name} must be an int, got {describe(value)}")
    if value < least:
        raise ValueError(f"{who}: {name} must be at least {least}, got {value}")
    if most is not None and value > most:
        raise ValueError(f"{who}: {name} must be at most {most}, because steps are counted in int32, got {value}")
