"""When to save: after some seconds, or after some steps or calls."""

import time

from jaxopt_lite.core.arguments import check_int, check_number

__all__ = []


class Saves:
    """Tells when a save is due.

    Args:
        who: the function whose arguments these are, for messages.
        seconds: at least so many between two saves, at least 0; None does not look at the time.
        every: how much is to be counted between two saves, at least 1; None does not count.
        name: of the argument `every`.
    """

    def __init__(self, who: str, seconds: float | None, every: int | None, name: str):
        if seconds is not None:
            check_number(who, "save_seconds", seconds, 0)
        check_int(who, name, every, none=True)
        self._seconds, self._every, self._last, self._count = seconds, every, time.perf_counter(), 0

    @property
    def ever(self) -> bool:
        """Whether anything is saved at all."""
        return (self._seconds, self._every) != (None, None)

    def due(self, now: float, more: int = 1) -> bool:
        """Whether it is time to save, `more` having been counted since the last question."""
        self._count += more
        by_time = self._seconds is not None and now - self._last >= self._seconds
        if by_time or (self._every is not None and self._count >= self._every):
            self._last, self._count = now, 0
            return True
        return False
