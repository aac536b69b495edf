"""Batches made on the host: by an iterator, a function that returns one, or a loader; and the place among them.

A loader (what can be iterated over, and is no iterator) is iterated over again for each epoch. One with a method
set_epoch, its own or its sampler's, is told the number of the epoch first.

The position of a pipeline is what a checkpoint holds of it. With a pair of methods, of the loader or of its iterator,
it is a state that these read and set: get_state and set_state (Grain), or state_dict and load_state_dict (torchdata,
Hugging Face's IterableDataset). Without them it is a count: a resumed run takes so many batches and leaves them out.
"""

import base64
import copy
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_lite.core.numbers import describe
from jaxopt_lite.train.task import may_give_batches

__all__ = []

_PAIRS = (("get_state", "set_state"), ("state_dict", "load_state_dict"))


class Position(NamedTuple):
    """Where a pipeline stands.

    Attributes:
        epoch: its number, from 0.
        batch: the number of batches taken in it.
        by: the method that reads the state; None where there is none.
        state: what it returned.
    """

    epoch: int
    batch: int
    by: str | None
    state: Any


class Bytes(NamedTuple):
    """A state in bytes, in base64."""

    text: str


class Tensor(NamedTuple):
    """A tensor of PyTorch's in a state, as an array."""

    array: np.ndarray


class Pipeline:
    """The batches of an iterator or a loader, as an iterator that knows its place.

    Args:
        source: an iterator of batches, a loader, or a function that returns either.
        taken: number of batches that the run has taken before.
        position: of the pipeline after these, from `saved`; None leaves out as many batches as were taken.

    Attributes:
        taken: number of batches taken so far.
        has_ended: whether no more batches are given; may be set, to end it from another thread.

    Raises:
        TypeError: if a function returns no iterator.
        ValueError: if the pipeline cannot be brought to its position.
    """

    def __init__(self, source: Any, taken: int = 0, position: Position | None = None):
        made: Any = source() if callable(source) else source
        if not may_give_batches(made):
            raise TypeError(f"Task: train must return an iterator of batches when it is a function, got {made!r:.80}")
        self._made: Any = made
        self._is_loader = not hasattr(made, "__next__")
        self._is_given = made is source and not self._is_loader
        self._set_epoch = _epoch_setter(made) if self._is_loader else None
        self._epoch, self._batch, self.taken, self.has_ended = 0, 0, 0, False
        if position is not None and position.by is not None:
            self._restore(position)
        else:
            self._skip(taken, position)
        self.taken = taken

    @property
    def can_be_put_back(self) -> bool:
        """Whether a batch that was taken can be taken again: not so of a plain iterator that the user holds."""
        return not self._is_given or self._methods is not None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.has_ended:
            raise StopIteration
        try:
            batch = next(self._iterator)
        except StopIteration:
            if not self._is_loader or not self._batch:  # an epoch without batches would be repeated for ever
                self.has_ended = True
                raise
            self._epoch, self._batch = self._epoch + 1, 0
            self._begin()
            return next(self)
        except Exception as error:
            error.add_note(f"fit: raised by the iterator given as train, which was asked for its batch {self.taken}")
            raise
        self._batch, self.taken = self._batch + 1, self.taken + 1
        return batch

    def position(self) -> Position:
        """Where it stands; a copy, which later batches do not change."""
        read = None if self._methods is None else self._methods[1]
        return Position(self._epoch, self._batch, self._by, None if read is None else copy.deepcopy(read()))

    def leave(self, position: Position, taken: int) -> None:
        """Release the iterator. The user's own is put back to the position after `taken` batches, if it can be."""
        self.has_ended = True
        if self._is_given and self._methods is not None:
            if taken != self.taken:
                self._methods[2](position.state)
        elif self._is_loader and callable(close := getattr(self._iterator, "close", None)):
            close()  # a generator's, and that of Grain's, whose worker processes end by it
        self._made = self._iterator = self._methods = None

    @property
    def _by(self) -> str | None:
        return None if self._methods is None else self._methods[0]

    def _begin(self, state: Any = None) -> None:
        """Begin an epoch, or return to the state in it."""
        if self._set_epoch is not None:
            self._set_epoch(self._epoch)
        self._methods = _methods(self._made)
        if self._methods is not None and state is not None:
            self._methods[2](state)  # a loader's counts for the iterator that it makes next
        self._iterator: Any = iter(self._made)
        if self._methods is None:
            self._methods = _methods(self._iterator)
            if self._methods is not None and state is not None:
                self._methods[2](state)

    def _restore(self, position: Position) -> None:
        self._epoch, self._batch = position.epoch, position.batch
        self._begin(_restored(position.state))
        if self._by != position.by:
            has = "no such methods" if self._by is None else f"{self._by} instead"
            raise ValueError(
                f"fit: the place in train was saved by its {position.by}, and what is given now has {has}; give the "
                "same pipeline, or begin anew"
            )

    def _skip(self, taken: int, position: Position | None) -> None:
        """Leave out the batches that were taken; where the epoch's number decides the order, those of its epoch."""
        by_epoch = position is not None and self._set_epoch is not None
        self._epoch, left = (position.epoch, position.batch) if position is not None and by_epoch else (0, taken)
        if taken and self._is_given and _methods(self._made) is None:
            remedy = "give a function that returns it, so that each run can take it from its beginning"
            if inspect.isgenerator(self._made):
                if inspect.getgeneratorstate(self._made) != inspect.GEN_CREATED:
                    raise ValueError(
                        f"fit: train is a generator that has yielded batches already, so the {taken} batches that the "
                        f"run has taken cannot be found in it; {remedy}"
                    )
            else:
                warnings.warn(
                    f"fit: the first {taken} batches of train, {describe(self._made)}, are left out, which is right "
                    f"only if nothing was taken from it before; {remedy}",
                    stacklevel=2,
                )
        self._begin()
        for _ in itertools.islice(self, left):
            pass


def _methods(made: Any) -> tuple[str, Callable, Callable] | None:
    """The name of the method that reads a state, and the two that read and set it."""
    for read, write in _PAIRS:
        get, put = getattr(made, read, None), getattr(made, write, None)
        if callable(get) and callable(put):
            return read, get, put
    return None


def _epoch_setter(loader: Any) -> Callable[[int], Any] | None:
    """The method that a loader, or its sampler, is told the epoch by, as PyTorch's distributed sampler is."""
    for holder in (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
        if callable(found := getattr(holder, "set_epoch", None)):
            return found
    return None


def saved(position: Position | None) -> Position | None:
    """A position of what a checkpoint can hold: text, numbers and NumPy's arrays in dicts, lists and tuples.

    Raises:
        TypeError: if the state holds anything else; it names the place.
    """
    return None if position is None else position._replace(state=_saved(position.state, ""))


def _saved(state: Any, path: str) -> Any:
    if state is None or isinstance(state, (bool, int, float, str, np.ndarray, np.generic, jax.Array)):
        return state
    if isinstance(state, (bytes, bytearray)):
        return Bytes(base64.b64encode(state).decode())
    if isinstance(state, dict):
        return {key: _saved(value, f"{path}[{key!r}]") for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        found = [_saved(value, f"{path}[{i}]") for i, value in enumerate(state)]
        return found if isinstance(state, list) else tuple(found)
    if type(state).__module__.partition(".")[0] == "torch" and hasattr(state, "numpy"):
        return Tensor(np.array(state.numpy()))
    raise TypeError(
        f"fit: the state of train{path} is {describe(state)}, which a checkpoint cannot hold; it takes text, numbers, "
        "bytes, arrays and tensors in dicts, lists and tuples. save_seconds=None keeps no checkpoints"
    )


def _restored(state: Any) -> Any:
    """The state that `_saved` was given."""
    if isinstance(state, Bytes):
        return base64.b64decode(state.text)
    if isinstance(state, Tensor):
        import torch  # pyright: ignore[reportMissingImports]  (it is there: the state held a tensor)

        return torch.from_numpy(np.array(state.array))
    if isinstance(state, dict):
        return {key: _restored(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        found = map(_restored, state)
        return list(found) if isinstance(state, list) else tuple(found)
    return state
