"""What a sweep yields while it runs, what a driver may answer, and what it returns."""

from typing import Any, NamedTuple

import numpy as np

from jaxopt_lite.sweeps.ledger import Ledger

__all__ = []


class Happened(NamedTuple):
    """Something to note in the log.

    Attributes:
        what: "proposed" (trials were added), "decided" (by the policy: trials that it stopped, copies as trial, source
            and step, and how many trials have steps to do), "compiled", "narrowed" (the memory did not suffice, so
            cohorts of a group are narrower; none of its trials had advanced), "groupfailed" (`trial` raised), or
            "unread" (dimensions of the space that `trial` reads in no group).
        facts: by name.
    """

    what: str
    facts: dict[str, Any]


class Advanced(NamedTuple):
    """A call of a program has ended: some trials advanced from a step by at most `steps`; `ledger.step` has how far."""

    trials: np.ndarray
    step: int
    steps: int


class Snapshot(NamedTuple):
    """All that a sweep needs to resume: arrays to save, and facts about them."""

    arrays: dict[str, Any]
    facts: dict[str, Any]


class Reply(NamedTuple):
    """What a driver may answer to any event.

    Attributes:
        save: yield a `Snapshot` as soon as nothing is in flight.
        stop: end, after a `Snapshot`.
        points: the most points of a call from now on.
    """

    save: bool = False
    stop: bool = False
    points: int | None = None


class Winner(NamedTuple):
    """The best trial's state, with a leading axis of seeds, and its scores on the test data."""

    number: int
    params: Any
    model_state: Any
    test: dict[str, np.ndarray]


class Outcome(NamedTuple):
    """The result of a sweep; complete is False where it was stopped before its end."""

    ledger: Ledger
    best: Winner | None
    complete: bool
