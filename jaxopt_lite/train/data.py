"""Which examples stand in which batch.

Batches are drawn without replacement: each epoch goes once through a permutation of all examples, made from the run's
key and the epoch's number; what does not fill a batch at an epoch's end is left out. So the order is a pure function of
(key, step), and a run that is resumed sees the batches that it would have seen.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.compiler import quickly
from jaxopt_lite.train.state import MOST_STEPS

__all__ = ["batch_order"]

_BLOCK = 2**15  # permuted indices made in one call, at least an epoch


def batch_order(key: jax.Array, rows: int, batch_size: int, first_step: int, steps: int) -> np.ndarray:
    """The examples of a range of steps.

    Args:
        key: the run's key.
        rows: number of examples, at least 1.
        batch_size: examples in a batch, in [1, rows].
        first_step: the first step, at least 0.
        steps: number of steps, at least 0; first_step + steps is at most 2**31 - 1.

    Returns:
        Indices of examples in [0, rows), int32 [steps, batch_size].

    Raises:
        ValueError: if batch_size, first_step or steps is out of its range.
    """
    if first_step < 0 or steps < 0 or first_step + steps > MOST_STEPS:
        raise ValueError(f"batch_order: steps must lie in [0, {MOST_STEPS}], got {steps} from {first_step} on")
    return orders(key, rows, batch_size)(first_step, steps)


def orders(key: jax.Array, examples: int, batch_size: int) -> Callable[[int, int], np.ndarray]:
    """`batch_order` as a function of (first_step, steps); it keeps the epochs that it permuted last."""
    if not 1 <= batch_size <= examples:
        raise ValueError(f"batch_order: batch_size must lie between 1 and the {examples} examples, got {batch_size}")
    per_epoch = examples // batch_size
    together = max(1, _BLOCK // examples)  # epochs made in one call
    key = jax.device_put(key, _host(), may_alias=False)  # the steps donate the state that it stands in

    @functools.lru_cache(maxsize=2)
    def bits(number: int) -> jax.Array:
        return _random_bits()(key, np.uint32(number * together), examples, together, _rounds(examples))

    @functools.lru_cache(maxsize=1)
    def block(number: int) -> np.ndarray:
        order = _permutations(np.asarray(bits(number)))
        bits(number + 1)  # asked for now, they do not wait for the steps that come before their turn
        return order[:, : per_epoch * batch_size].reshape(together * per_epoch, batch_size)

    def order(first_step: int, steps: int) -> np.ndarray:
        found = [np.empty((0, batch_size), np.int32)]
        step, end = first_step, first_step + steps
        while step < end:
            number, start = divmod(step, together * per_epoch)
            found.append(block(number)[start : start + end - step])
            step += len(found[-1])
        return np.concatenate(found)

    return order


def _permutations(bits: np.ndarray) -> np.ndarray:
    """`jax.random.permutation(fold_in(key, epoch), n)` from its bits [rounds, epochs, n], int32 [epochs, n].

    JAX sorts the examples by random bits, as often as it takes until ties no longer matter. The bits are JAX's; the
    sorting is NumPy's, about fifteen times faster on a CPU: bits and position make one number, so sorting is stable.
    """
    _, epochs, n = bits.shape
    order = np.broadcast_to(np.arange(n, dtype=np.uint64), (epochs, n))
    for of_round in bits:
        place = np.sort(of_round.astype(np.uint64) << 32 | np.arange(n, dtype=np.uint64), axis=1) & (2**32 - 1)
        order = np.take_along_axis(order, place.astype(np.int64), axis=1)
    return order.astype(np.int32)


def _rounds(n: int) -> int:
    """How often `jax.random.permutation` sorts."""
    return math.ceil(3 * math.log(max(n, 2)) / math.log(2**32 - 1))


@functools.lru_cache(maxsize=1)
def _random_bits() -> Callable:
    return jax.jit(_bits, static_argnums=(2, 3, 4), compiler_options=quickly())


def _bits(key, first, n, epochs, rounds):
    """The bits by which `jax.random.permutation` sorts, uint32 [rounds, epochs, n]."""

    def of_epoch(epoch):
        found, chain = [], jax.random.fold_in(key, epoch)
        for _ in range(rounds):
            chain, now = jax.random.split(chain)
            found.append(jax.random.bits(now, (n,)))
        return jnp.stack(found)

    return jax.vmap(of_epoch, out_axes=1)(first + jnp.arange(epochs, dtype=jnp.uint32))


def _host() -> Any:
    """The CPU, which is mostly idle while a step runs on another device; None where JAX does not use it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
