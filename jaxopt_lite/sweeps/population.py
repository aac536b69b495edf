"""Population-based training: while all trials train, the worst copy the best, and vary the numbers that they copied."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxopt_lite.core.arguments import INT32_MAX, check_int, check_number
from jaxopt_lite.sweeps.distributions import Axis
from jaxopt_lite.sweeps.ledger import DIVERGED, Copy, Ledger
from jaxopt_lite.sweeps.policies import Decision, multiple, policy
from jaxopt_lite.sweeps.space import check_names

__all__ = ["Change", "lineage", "population_based", "replay"]


@policy
def population_based(
    interval: int | None = None,
    fraction: float = 0.25,
    perturb: tuple = (0.8, 1.25),
    resample: float = 0.25,
    dimensions: Sequence[str] | None = None,
    reset: bool | None = None,
):
    """Every `interval` steps the worst trials copy parameters and config of some of the best, and vary the config.

    Exploit: a trial among the worst copies one among the best, drawn at random. A trial whose metric is not finite at
    an exchange is among the worst, and is never copied from.
    Explore: each traced value of the copied config is drawn anew from the space with probability `resample`; otherwise
    a number is perturbed, and a choice stays as it was copied. Perturbed, a number x above 0 becomes x·f, with f drawn
    from `perturb`; one at 0 or below is moved by f - 1 of its range's length. An int moves by at least 1 unless f is 1.
    All stay within their ranges. Static values are copied.

    Args:
        interval: steps between two exchanges, a multiple of eval_every; None is a tenth of `steps`, at least a point.
        fraction: share of the trials that are replaced, and share from which they copy (truncation selection), above 0
            and at most 0.5.
        perturb: factors, each above 0.
        resample: probability that a value is drawn anew, in [0, 1].
        dimensions: names of the traced dimensions to vary; None is all except those that reach a decay of the optimizer
            (b1, b2, momentum, ...; see `Ledger.decays`), since the copied moments were made with the old one.
        reset: make the optimizer's state anew with the copy; None does so where `dimensions` names a decay.

    Raises:
        TypeError, ValueError: if an argument is outside its range; when used, if a dimension is no traced number of the
            space, interval no multiple of eval_every, or there is nothing to vary.

    Reference: Jaderberg et al., "Population Based Training of Neural Networks", 2017, arXiv:1711.09846.
    """
    check_int("population_based", "interval", interval, most=INT32_MAX, none=True)
    check_number("population_based", "fraction", fraction, 0, 0.5, open_low=True)
    check_number("population_based", "resample", resample, 0, 1)
    if not perturb or not all(isinstance(f, (int, float)) and f > 0 for f in perturb):
        raise ValueError(f"population_based: perturb must be numbers above 0, got {perturb!r}")

    def decide(ledger: Ledger) -> Decision:
        every = interval or max(1, ledger.points // 10) * ledger.eval_every
        if interval is not None and multiple("population_based", "interval", interval, ledger) >= ledger.steps:
            raise ValueError(f"population_based: interval={interval} must be below steps={ledger.steps}")
        known = ledger.space.traced
        varied = [name for name in known if name not in ledger.decays] if dimensions is None else dimensions
        if dimensions is None and not varied:
            raise ValueError("population_based: there is nothing to vary: name decays in `dimensions` to include them")
        check_names("population_based", varied, known, "traced number ")
        is_reset = not ledger.decays.isdisjoint(varied) if reset is None else reset
        step = int(ledger.step[ledger.running].max(initial=0))
        target = min((step // every + 1) * every, ledger.steps)
        if step == 0 or step == ledger.steps:
            return Decision(target=target)
        rng, copies = np.random.default_rng([ledger.seed, step]), []
        best, worst = _best_and_worst(ledger, step, fraction)
        for trial in worst if best else ():
            source = int(rng.choice(best))
            row = ledger.table[source].copy()
            drawn = rng.random(len(row))
            for j, d in enumerate(ledger.space.dimensions):
                factor, is_resampled = rng.choice(perturb), rng.random() < resample
                if d.name in varied and not np.isnan(row[j]):
                    row[j] = d.axis.draw(drawn[j]) if is_resampled else _perturbed(d.axis, row[j], factor)
            copies.append(Copy(trial, source, step, ledger.space.clip(row[None])[0], is_reset))
        return Decision(target=target, copies=copies)

    return decide


def _best_and_worst(ledger: Ledger, step: int, fraction: float) -> tuple[list[int], list[int]]:
    """Trials to copy from, and trials to replace, of the batch that runs; no trial is in both lists."""
    running, batch = ledger.running, ledger.batch
    members = (running | (ledger.status == DIVERGED)) & (batch == batch[running][0])
    scores = np.where(running, ledger.score_at(step), np.inf)
    order = [trial for trial in np.argsort(scores, kind="stable").tolist() if members[trial]]
    n = max(1, int(len(order) * fraction)) if len(order) > 1 else 0
    best = [trial for trial in order[:n] if np.isfinite(scores[trial])]
    lost = [trial for trial in order if not running[trial]]
    return best, [trial for trial in dict.fromkeys([*order[len(order) - n :], *lost]) if trial not in best]


def _perturbed(axis: Axis, number: float, factor: float) -> float:
    """A number near the given one, which `Axis.clip` brings into its range; a choice stays as it is."""
    if axis.kind == "choice":
        return number
    moved = number * factor if number > 0 else number + (factor - 1) * (axis.high - axis.low)
    is_stuck = axis.integer and np.round(moved) == number
    return number + np.sign(factor - 1) if is_stuck else moved


class Change(NamedTuple):
    """From a step on, a trial had these numbers.

    Attributes:
        step: from which on.
        row: its row of the table, a tuple of floats.
        reset: whether the optimizer's state was made anew then.
    """

    step: int
    row: tuple[float, ...]
    reset: bool


def lineage(ledger: Ledger, trial: int) -> tuple[Change, ...]:
    """How a trial's state came to be: its own changes, and before them those of the trials that it copied.

    Args:
        ledger: of a sweep, such as `result.ledger`.
        trial: its number.

    Returns:
        The changes in the order of steps, the first at step 0 with the numbers that the first ancestor began with.
        `space.configs(np.array([change.row]))` makes a config of one, and `replay` does it all again.
    """
    changes, who = [], trial
    for copy in reversed(ledger.lineage):
        if copy.trial == who and (not changes or copy.step < changes[0].step):
            changes.insert(0, Change(copy.step, tuple(copy.row.tolist()), copy.reset))
            who = copy.source
    return (Change(0, tuple(ledger.proposed[who].tolist()), False), *changes)


@policy
def replay(changes: Sequence[tuple]):
    """One trial goes through the changes of a `lineage`, and arrives at the same parameters, bit for bit.

    Args:
        changes: what `lineage` returned. Sweep with `trials=1`, `initial=[the config of the first]`, and all else as it
            was, the width of the group too. It must not have been `independent`, where keys go by trials' numbers.
    """

    def decide(ledger: Ledger) -> Decision:
        step = int(ledger.step[0])
        now = [Copy(0, 0, at, np.array(row), reset) for at, row, reset in changes if at == step > 0]
        later = [at for at, _, _ in changes if at > step]
        return Decision(target=min([*later, ledger.steps]), copies=now)

    return decide
