"""The batches of a run, in stretches of steps that go to the device together."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxopt_lite.train import data as batches
from jaxopt_lite.train.plan import Plan
from jaxopt_lite.train.state import TrainState
from jaxopt_lite.train.task import Task

__all__ = []

_STACK = 16  # batches of an iterator that go to the device together
_INDICES = 2**22  # of examples that go there together


class Source:
    """The batches of a run, in stretches of steps that go to the device together.

    Attributes:
        taken: the number of batches taken so far.
    """

    def __init__(self, task: Task, plan: Plan, kind: str, state: TrainState, many: bool, taken: int):
        self._plan, self.taken = plan, taken
        if kind == "drawn":
            self._take = _drawn(task, plan, state, many)
        elif kind == "stream":
            self._take = _stream(task.train, min(_STACK, plan.eval_every), taken)
        else:
            self._take = lambda done, wanted: (task.train, None, wanted, True)

    def stretches(self, done: int) -> Iterator[tuple]:
        """Stretches of steps after the first `done`: (data, order, number of steps, whether a point ends with them)."""
        steps, every, before = self._plan.steps, self._plan.eval_every, None
        resumed, more = done, True
        while done < steps and more:
            begin, end = done, min((done // every + 1) * every, steps)
            while done < end and more:
                data, order, n, more = self._take(done - resumed, end - done)
                before = data if n else before  # an iterator that has ended gives none, and the point ends
                done, self.taken = done + n, self.taken + n
                if done > begin:
                    yield before, order, n, done == end or not more


def _stream(source: Any, size: int, skipped: int) -> Callable:
    """Batches as they come: a function (steps done, steps wanted) -> (data, order, steps, whether there are more)."""
    stacks = batches.stacks(source, size, skipped)

    def take(at, wanted):
        stack, n = stacks(wanted)
        return stack, None, n, n == min(size, wanted)

    return take


def _drawn(task: Task, plan: Plan, state: TrainState, many: bool) -> Callable:
    """A function as that of `_stream`, for batches drawn from the examples; each run's begin at the run's step."""
    examples, batch_size = task.rows or 0, plan.batch_size or 0
    orders = [batches.orders(key, examples, batch_size) for key in (state.key if many else [state.key])]
    firsts = np.atleast_1d(state.step).tolist()
    size = min(plan.eval_every, max(1, _INDICES // (len(orders) * batch_size)))

    def take(at, wanted):
        n = min(size, wanted)
        order = np.stack([order(first + at, n) for order, first in zip(orders, firsts, strict=True)])
        if n < size:
            order = np.pad(order, ((0, 0), (0, size - n), (0, 0)))  # of one shape, for one program
        return task.train, order if many else order[0], n, True

    return take
