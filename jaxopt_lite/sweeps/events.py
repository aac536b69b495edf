"""What a sweep says while it goes, and what may be answered."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxopt_lite.sweeps.ledger import Copy, Ledger

__all__ = []


class Proposed(NamedTuple):
    """Trials were added."""

    trials: np.ndarray
    groups: int  # in all


class Compiled(NamedTuple):
    """A program is ready."""

    group: str
    width: int
    device: str
    trials: int
    state_bytes: int  # of one trial
    temporary_bytes: int | None  # of a call


class Narrowed(NamedTuple):
    """The memory did not suffice, so cohorts of a group are narrower; none of its trials had advanced."""

    group: str
    width: int


class Measure(NamedTuple):
    """`width="measure"`: time `run(width)` for each candidate, and reply with a `Reply` that has the best."""

    group: str
    widths: tuple[int, ...]
    run: Callable[[int], None]


class Advanced(NamedTuple):
    """A call was done."""

    trials: np.ndarray
    step: int
    steps: int


class Decided(NamedTuple):
    """The policy was asked."""

    stopped: np.ndarray
    copies: Sequence[Copy]
    going: int


class GroupFailed(NamedTuple):
    """The user's `trial` raised."""

    group: str
    trials: np.ndarray
    error: Exception


class Unread(NamedTuple):
    """Dimensions of the space that `trial` reads in no group, so that they change nothing."""

    names: list[str]
    text: str


class Snapshot(NamedTuple):
    """All that is needed to go on from here: arrays to save, and facts about them."""

    arrays: dict[str, Any]
    facts: dict[str, Any]


class Reply(NamedTuple):
    """What a driver may answer to any event.

    Attributes:
        save: yield a `Snapshot` as soon as nothing is under way.
        stop: end, after a `Snapshot`.
        quanta: the most quanta of a call from now on.
        width: the answer to `Measure`.
    """

    save: bool = False
    stop: bool = False
    quanta: int | None = None
    width: int | None = None


class Winner(NamedTuple):
    """The best trial's state, with a leading axis of seeds, and its scores on the test data."""

    number: int
    params: Any
    model_state: Any
    test: dict[str, np.ndarray]


class Outcome(NamedTuple):
    """What a sweep came to."""

    ledger: Ledger
    best: Winner | None
    complete: bool
