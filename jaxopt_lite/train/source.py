"""The batches of a run, in stretches of steps that go to the device together."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxopt_lite.train import data as batches
from jaxopt_lite.train.pipeline import Pipeline, Position, saved
from jaxopt_lite.train.plan import Plan
from jaxopt_lite.train.prefetch import Ahead
from jaxopt_lite.train.stacks import Stacks
from jaxopt_lite.train.state import TrainState
from jaxopt_lite.train.task import Task

__all__ = []

_INDICES = 2**22  # of examples that go there together
_PATIENCE = 1.0  # seconds that a run which fails waits for a batch that is being made


class Source:
    """The batches of a run, in stretches of steps that go to the device together.

    Args:
        task: its data.
        plan: the number of steps, those of a point, and the size of a batch.
        kind: of the data, see `Rules`.
        state: before the first step.
        many: whether it is of several runs.
        taken: the number of batches taken before.
        position: of the pipeline after these.
        prefetch: how many stacks of a pipeline's batches a thread makes ahead, at least 0.
        cuts: steps after the first one at which a stretch must end.

    Attributes:
        taken: the number of batches of the stretches so far.
    """

    def __init__(
        self,
        task: Task,
        plan: Plan,
        kind: str,
        state: TrainState,
        many: bool,
        taken: int = 0,
        position: Position | None = None,
        prefetch: int = 0,
        cuts: Sequence[int] = (),
    ):
        self._plan, self._cuts, self._prefetch = plan, cuts, prefetch
        self.taken, self._position = taken, position
        self._pipeline: Pipeline | None = None
        self._ahead: Ahead | None = None
        self._task = task
        self._take: Callable | None = None  # made with the first stretch, where it is of a pipeline
        if kind == "drawn":
            self._take = _drawn(task, plan, state, many)
        elif kind == "whole":
            self._take = lambda done, wanted: (task.train, None, wanted, True)

    @property
    def position(self) -> Position | None:
        """The place in the pipeline after the stretches so far, as a checkpoint holds it; None if there is none."""
        return self._position if self._pipeline is None else saved(self._position)

    def stretches(self, done: int) -> Iterator[tuple]:
        """Stretches of steps after the first `done`: (data, order, number of steps, whether a point ends with them)."""
        if self._take is None and done < self._plan.steps:
            pipeline = Pipeline(self._task.train, self.taken, self._position)
            self._position, self._pipeline = pipeline.position(), pipeline
            self._take = _stacked(pipeline, self._plan.eval_every)
        found = self._taken(done)
        if self._pipeline is not None and self._prefetch and self._pipeline.can_be_put_back:
            found = self._ahead = Ahead(found, self._prefetch)
        for stretch, n, self._position in found:
            self.taken += n
            yield stretch

    def _taken(self, done: int) -> Iterator[tuple]:
        """(stretch, number of batches, position after them)."""
        steps, every, before = self._plan.steps, self._plan.eval_every, None
        resumed, more = done, True
        while done < steps and more:
            begin, end = done, min((done // every + 1) * every, steps)
            while done < end and more:
                assert self._take is not None
                until = min([end, *(cut for cut in self._cuts if cut > done)])
                data, order, n, more = self._take(done - resumed, until - done)
                before = data if n else before  # an iterator that has ended gives none, and the point ends
                done += n
                if done > begin:
                    position = None if self._pipeline is None else self._pipeline.position()
                    yield (before, order, n, done == end or not more), n, position

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Take no more batches; the user's own iterator is put back to the batch after the last stretch, if it can be.

        After an error, or a second Ctrl-C, it does not wait long for a batch that is being made.
        """
        pipeline, ahead = self._pipeline, self._ahead
        self._pipeline = self._ahead = self._take = None
        if pipeline is None:
            return
        pipeline.has_ended = True
        if ahead is None or ahead.close(None if kind is None else _PATIENCE):
            assert self._position is not None
            pipeline.leave(self._position, self.taken)


def _stacked(pipeline: Pipeline, every: int) -> Callable:
    """Batches as they come: a function (steps done, steps wanted) -> (data, order, steps, whether there are more)."""
    stacks = Stacks(pipeline, every)

    def take(at, wanted):
        stack, n, more = stacks.take(wanted)
        return stack, None, n, more

    return take


def _drawn(task: Task, plan: Plan, state: TrainState, many: bool) -> Callable:
    """A function as that of `_stacked`, for batches drawn from the examples; each run's begin at the run's step."""
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
