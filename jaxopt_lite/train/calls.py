"""What goes into a compiled call, and waiting for its results so that signals are handled."""

import threading
from typing import Any

import jax
import numpy as np

__all__ = []


def copied(arguments: Any) -> Any:
    """The arguments of a call with copies of NumPy's arrays.

    The call returns before JAX has read their memory, and by then a loader may have filled it with the next batch.
    """
    return jax.tree.map(lambda x: np.array(x) if isinstance(x, np.ndarray) else x, arguments)


def fetched(arrays: Any) -> Any:
    """`jax.device_get`, waiting in short pauses.

    Python runs the handlers of signals between its own operations, and not while a call into JAX waits for the device:
    a point of an hour could not be interrupted. A pause is a 32nd of the time waited so far, so it adds at most 3 %.
    """
    leaves: list[Any] = [leaf for leaf in jax.tree.leaves(arrays) if isinstance(leaf, jax.Array)]
    waited, never = 1e-3, threading.Event()  # an event that is never set
    while not all(leaf.is_ready() for leaf in leaves):
        pause = min(waited / 32, 0.05)
        never.wait(pause)
        waited += pause
    return jax.device_get(arrays)
