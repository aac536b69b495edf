"""Batches of the host in stacks, which go to the device together."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxopt_lite.train.task import as_array

__all__ = []

# A call costs about four steps of a small network, in copies of its state: so stacks are long.
_MOST = 256  # batches in a stack
_BYTES = 2**25  # of a stack, at most, where it holds more than one batch
_ALIGNED = 64  # bytes: on a CPU, JAX uses memory at multiples of it as it is, and copies any other
_YIELDS = "Task: what an iterator given as train yields"


class Stacks:
    """Takes batches from an iterator, and gives them in stacks of one shape.

    Each batch is copied once, into its place in the stack, so that the iterator may fill the same arrays again. What it
    yields is converted: arrays and tensors of other libraries, and in a dict lists of numbers.

    The first stack holds one batch, and each later one as many as all before it, up to its size, so that the device
    begins after the first batch.

    Args:
        batches: an iterator of batches, pytrees of arrays of equal shapes.
        every: steps of a point; stacks divide it as evenly as they can.
    """

    def __init__(self, batches: Iterator[Any], every: int):
        self._batches, self._every = batches, every
        self._size = 0  # of all stacks; known with the first batch
        self._number = 0  # of batches so far
        self._first: Any = None
        self._shapes: list[tuple] = []

    def take(self, wanted: int) -> tuple[Any, int, bool]:
        """The next stack.

        Args:
            wanted: the largest number of batches, at least 1.

        Returns:
            (stack, number, whether there may be more): arrays [size, batch, ...] on the device, of which the first
            `number` are filled; None where there are no batches.
        """
        stack: list[np.ndarray] = []
        structure, number, more = None, 0, True
        most = min(wanted, max(1, self._number), self._size or 1)
        while number < most:
            try:
                batch = next(self._batches)
            except StopIteration:
                more = False
                break
            leaves, structure = jax.tree.flatten(_arrays(batch))
            self._check(leaves, structure)
            stack = stack or [_empty((self._size, *shape), dtype) for shape, dtype in self._shapes]
            for place, leaf in zip(stack, leaves, strict=True):
                place[number] = leaf
            number += 1
        self._number += number
        if structure is None or not number:
            return None, 0, False
        for place in stack:
            place[number:] = 0
        return jax.device_put(structure.unflatten(stack)), number, more

    def _check(self, leaves: list[Any], structure: Any) -> None:
        """Raise unless the batch is like the first one."""
        shapes = [(tuple(np.shape(leaf)), jax.dtypes.canonicalize_dtype(leaf.dtype)) for leaf in leaves]
        if not self._size:
            self._first, self._shapes = structure, shapes
            bytes_of_one = sum(np.prod(shape, dtype=float) * dtype.itemsize for shape, dtype in shapes)
            most = int(min(max(1, _BYTES // max(1, bytes_of_one)), _MOST))
            self._size = -(-self._every // -(-self._every // most))
        elif structure != self._first or shapes != self._shapes:
            of = lambda structure, shapes, i: structure.unflatten([shape[i] for shape in shapes])
            i = int(structure == self._first and [s for s, _ in shapes] == [s for s, _ in self._shapes])
            found = sorted({str(of(structure, shapes, i)), str(of(self._first, self._shapes, i))})
            raise ValueError(
                f"Task: batches of an iterator must have equal {'dtypes' if i else 'shapes'}, got {' and '.join(found)}"
                + "; leave out one that is not full (drop_last=True in a loader)" * (not i)
            )


def _empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array to be filled, in memory that JAX need not copy on a CPU."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + _ALIGNED, np.uint8)
    start = -memory.ctypes.data % _ALIGNED
    return memory[start : start + size].view(dtype).reshape(shape)


def _arrays(batch: Any) -> Any:
    """A batch as a pytree of arrays, which may share the iterator's memory."""
    if isinstance(batch, Mapping) and type(batch) is not dict and jax.tree.leaves(batch) == [batch]:
        batch = dict(batch)  # one that is no pytree, such as transformers' BatchEncoding
    if type(batch) is dict:
        batch = {name: _column(name, value) for name, value in batch.items()}
    leaves = jax.tree.leaves(batch)
    if leaves and all(isinstance(leaf, (str, complex, float, int)) for leaf in leaves):
        raise TypeError(
            f"Task: an iterator given as train must yield batches, pytrees of arrays [batch, ...], got {batch!r:.80}; "
            "give a whole data set as arrays [n, ...]"
        )
    is_number = lambda leaf: isinstance(leaf, (complex, float, int))
    return jax.tree.map(
        lambda leaf: np.asarray(as_array(_YIELDS, np.asarray(leaf) if is_number(leaf) else leaf)), batch
    )


def _column(name: Any, values: Any) -> Any:
    """A list of numbers, or of lists of them, as an array: data sets of Hugging Face yield such without a format."""
    plain = (list, bool, int, float, complex, str)
    if not (type(values) is list and values and all(isinstance(value, plain) for value in values)):
        return values
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(f"{_YIELDS} has lists of unequal lengths in {name!r}; pad them to one length") from None
