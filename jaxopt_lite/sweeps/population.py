"""Population-based training: the worst go on from the best, with numbers that are varied, while all of them train."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxopt_lite.core.arguments import INT32_MAX as MOST
from jaxopt_lite.sweeps.ledger import DIVERGED, Copy, Ledger
from jaxopt_lite.sweeps.policies import Decision, check_int, multiple, policy
from jaxopt_lite.sweeps.space import Space

__all__ = ["Change", "lineage", "population_based", "replay"]

_DECAYS = {"b1", "b2", "b3", "beta", "decay", "decay_rate", "momentum", "rho"}


@policy
def population_based(
    interval: int | None = None,
    fraction: float = 0.25,
    perturb: tuple = (0.8, 1.25),
    resample: float = 0.25,
    dimensions: Sequence[str] | None = None,
    reset: bool | None = None,
):
    """Every `interval` steps the worst trials take over parameters and config of some of the best, and vary the config.

    A number x becomes x·f with f drawn from `perturb`, or is drawn anew from the space, and stays within its range;
    a number that is no more than zero is moved by as much of its range. Choices stay as they were copied. A trial whose
    metric is not finite at an exchange is among the worst, and is never copied from.

    Args:
        interval: steps between two exchanges, a multiple of eval_every; None is a tenth of `steps`, at least a point.
        fraction: share of the trials that are replaced, and share from which they copy (truncation selection), above 0
            and at most 0.5.
        perturb: factors, each above 0.
        resample: probability that a number is drawn anew, in [0, 1].
        dimensions: names of the traced numbers to vary; None is all but decays (b1, b2, momentum, ...), since the
            moments that are copied were made with the old ones.
        reset: make the optimizer's state anew with the copy; None does so where `dimensions` names a decay.

    Raises:
        TypeError, ValueError: if an argument is outside its range; when used, if a dimension is no traced number of the
            space, interval no multiple of eval_every, or there is nothing to vary.

    Reference: Jaderberg et al., "Population Based Training of Neural Networks", 2017, arXiv:1711.09846.
    """
    check_int("population_based", "interval", interval, 1, MOST, none=True)
    for name, value, most in (("fraction", fraction, 0.5), ("resample", resample, 1.0)):
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not real or not (0 if name == "resample" else 1e-9) <= value <= most:
            raise ValueError(f"population_based: {name} must be a number above 0 and at most {most}, got {value!r}")
    if not perturb or not all(isinstance(f, (int, float)) and f > 0 for f in perturb):
        raise ValueError(f"population_based: perturb must be numbers above 0, got {perturb!r}")

    def decide(ledger: Ledger) -> Decision:
        every = interval or max(1, ledger.points // 10) * ledger.eval_every
        every = multiple("population_based", "interval", every, ledger)
        if interval is not None and every >= ledger.steps:
            raise ValueError(
                f"population_based: interval={every} must be below steps={ledger.steps}, or none is copied"
            )
        varied = _varied(ledger.space, dimensions)
        anew = any(map(_is_decay, varied)) if reset is None else reset
        step = int(ledger.step[ledger.running].max(initial=0))
        target = min((step // every + 1) * every, ledger.steps)
        if step == 0 or step == ledger.steps:
            return Decision(target=target)
        members = np.flatnonzero(ledger.running | (ledger.status == DIVERGED))
        members = members[ledger.batch[members] == ledger.batch[ledger.running][0]]
        scores = np.where(ledger.running, ledger.score_at(step), np.inf)[members]
        order = members[np.lexsort((members, scores))]
        n = max(1, int(len(order) * fraction)) if len(order) > 1 else 0
        best = [trial for trial, score in zip(order[:n], np.sort(scores)) if np.isfinite(score)]
        lost = [trial for trial in order if not ledger.running[trial]]
        worst = list(dict.fromkeys([*order[len(order) - n :], *lost]))
        rng = np.random.default_rng([ledger.seed, step])
        copies = []
        for trial in worst:
            if trial in best or not best:
                continue
            source = int(rng.choice(best))
            row = _explore(ledger.space, ledger.table[source], varied, perturb, resample, rng)
            copies.append(Copy(int(trial), source, step, row, anew))
        return Decision(target=target, copies=copies)

    return decide


def _varied(space: Space, dimensions: Sequence[str] | None) -> list[str]:
    known = list(space.traced)
    if dimensions is None:
        found = [name for name in known if not _is_decay(name)]
        if not found:
            raise ValueError("population_based: there is nothing to vary: name decays in `dimensions` to include them")
        return found
    for name in dimensions:
        if name not in known:
            raise ValueError(
                f"population_based: {name!r} is no traced number of the space; there are {', '.join(known) or 'none'}"
            )
    return list(dimensions)


def _is_decay(name: str) -> bool:
    return name.rpartition(".")[2] in _DECAYS


def _explore(space: Space, row: np.ndarray, varied: list[str], perturb: Any, resample: float, rng: Any) -> np.ndarray:
    """A row near the given one."""
    row, drawn = row.copy(), rng.random(len(row))
    units = space.from_unit(drawn[None])[0]
    for j, dimension in enumerate(space.dimensions):
        factor, anew = rng.choice(perturb), rng.random() < resample
        if dimension.name not in varied or np.isnan(row[j]):
            continue
        axis = dimension.axis
        if anew or axis.kind == "choice":
            row[j] = axis.draw(drawn[j : j + 1])[0] if np.isnan(units[j]) else units[j]
        elif row[j] > 0:
            row[j] *= factor
        else:
            row[j] += (factor - 1) * (axis.high - axis.low)
    return np.where(np.isnan(row), np.nan, space.clip(row[None])[0])


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
    """How a trial's state came to be: its own changes, and before them those of the trials that it went on from.

    Args:
        ledger: of a sweep, such as `result.ledger`.
        trial: its number.

    Returns:
        The changes in the order of steps, the first at step 0 with what the first ancestor began with.
        `space.configs(np.array([change.row]))` makes a config of one, and `replay` does it all again.
    """
    changes: list[Change] = []
    who = trial
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
