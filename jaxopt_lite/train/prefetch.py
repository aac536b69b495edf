"""An iterator whose next values are made by a thread, while the caller works on those before."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import jax

__all__ = []


class Ahead:
    """The values of an iterator in their order, made ahead by a thread. What it raises is raised in its turn.

    Args:
        values: the iterator; nobody else may use it before `close` has returned True.
        number: how many values are ready or being made at any time, at least 1.
    """

    def __init__(self, values: Iterator[Any], number: int):
        self._values, self._ready = values, queue.SimpleQueue()
        self._room, self._is_closed = threading.Semaphore(number), False
        # What `with jax.enable_x64(...)` and the like have set holds for one thread only.
        self._settings = [getattr(jax.config, name) for name in ("jax_enable_x64", "jax_default_device")]
        # A daemon, so that a pipeline that waits for ever does not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        value, error = self._ready.get()
        if error is not None:
            self._ready.put((None, error))  # for the next call
            raise error
        self._room.release()
        return value

    def close(self, timeout: float | None = None) -> bool:
        """End the thread after the value that it is making.

        Args:
            timeout: seconds to wait for it, at least 0; None waits as long as it takes.

        Returns:
            Whether it has ended.
        """
        self._is_closed = True
        self._room.release()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        x64, device = self._settings
        with jax.enable_x64(x64), jax.default_device(device):
            while True:
                self._room.acquire()
                if self._is_closed:
                    return
                try:
                    self._ready.put((next(self._values), None))
                except BaseException as error:  # StopIteration, too
                    self._ready.put((None, error))
                    return
