"""Which examples stand in which batch.

Batches are drawn without replacement: each epoch goes once through a permutation of all examples, made from the run's
key and the epoch's number; what does not fill a batch at an epoch's end is left out. So the order is a pure function of
(key, step), and a run that is resumed sees the batches that it would have seen.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["batch_order"]

_BLOCK = 2**17  # permuted indices made in one call, at least an epoch


def batch_order(key: jax.Array, rows: int, batch_size: int, first_step: int, steps: int) -> np.ndarray:
    """The examples of a range of steps.

    Args:
        key: the run's key.
        rows: number of examples.
        batch_size: examples in a batch, at most `rows`.
        first_step: the first step, from 0 on.
        steps: number of steps.

    Returns:
        Indices, int32 [steps, batch_size].
    """
    per_epoch = rows // batch_size
    block = max(1, _BLOCK // rows)  # epochs made together
    found = []
    step = first_step
    while step < first_step + steps:
        number = step // per_epoch // block
        batches = _block(np.asarray(jax.random.key_data(key)).tobytes(), rows, batch_size, number, block)
        start = step - number * block * per_epoch
        found.append(batches[start : start + first_step + steps - step])
        step += len(found[-1])
    return np.concatenate(found)


@functools.lru_cache(maxsize=64)
def _block(key: bytes, rows: int, batch_size: int, number: int, block: int) -> np.ndarray:
    per_epoch = rows // batch_size
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        key = jax.random.wrap_key_data(np.frombuffer(key, np.uint32))
        order = _permutations(key, jnp.uint32(number * block), rows, block)
    return np.asarray(order)[:, : per_epoch * batch_size].reshape(block * per_epoch, batch_size)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _permutations(key, first, rows, block):
    epochs = first + jnp.arange(block, dtype=jnp.uint32)
    return jax.vmap(lambda e: jax.random.permutation(jax.random.fold_in(key, e), rows))(epochs).astype(jnp.int32)


def stacks(source: Any, size: int) -> Callable[[int], tuple[Any, int, bool]]:
    """Take batches from an iterator, and give them in stacks.

    Args:
        source: an iterator of batches (pytrees of arrays of equal shapes), or a function that returns one.
        size: the largest number of batches in a stack.

    Returns:
        A function of the number wanted: (stack, number, more), with arrays [size, batch, ...] of which the first
        `number` are filled, and whether the iterator may have more.
    """
    batches: Iterator[Any] = iter(source() if callable(source) else source)

    def take(wanted: int) -> tuple[Any, int, bool]:
        wanted = min(size, wanted)
        taken = list(itertools.islice(batches, wanted))
        if not taken:
            return None, 0, False
        shapes = {str(jax.tree.map(np.shape, batch)) for batch in taken}
        if len(shapes) > 1:
            raise ValueError(f"Task: batches of an iterator must have equal shapes, got {' and '.join(sorted(shapes))}")
        filled = taken + taken[-1:] * (size - len(taken))
        stack = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *filled)
        return stack, len(taken), len(taken) == wanted

    return take
