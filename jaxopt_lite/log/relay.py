"""Hands the points of a run to its trackers, off the run's critical path."""

import atexit
import copy
import queue
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from jaxopt_lite.log.trackers import Spread, Tracker

__all__ = []

_BEHIND = 2**16  # points that a tracker may be behind
_PATIENCE = 60.0  # seconds that all trackers together may take to end after the run
_AT_ONCE = 1.0  # the same from an error, or a signal, on
_AT_EXIT = 5.0  # seconds more, when the process ends, for those that did not


class Relay:
    """The trackers of a run, each in a thread of its own, so that one that is slow or stuck holds nothing else up.

    A context: where the run raises an error, its trackers are ended with that.

    Args:
        trackers: of the run.
        about: makes what the trackers' `begin` takes; called when the first point comes.
        seed: of the first run.
        interrupted: set by a signal; then trackers are hardly waited for.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        about: Callable[[], dict[str, Any]],
        seed: int,
        interrupted: threading.Event,
    ):
        self._workers = [_Worker(tracker, seed) for tracker in trackers]
        self._about, self._seed, self._interrupted = about, seed, interrupted
        self._begun, self._ended = False, False

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Pass a point on, and return at once.

        Args:
            step: the number of steps done.
            metrics: NumPy's arrays by name, of shape () or [seeds].
        """
        if not self._begun and self._workers:
            self._begin()
        for worker in self._workers:
            worker.put("log", step, dict(metrics))
        self._report(stacklevel=5)

    def _begin(self) -> None:
        self._begun = True
        try:
            about = self._about()
        except Exception as error:  # such as an optimizer with no text: not a reason to end a run that has begun
            for worker in self._workers:
                worker.leave_out(f"could not be told of the run ({type(error).__name__}: {error})")
            return
        for worker in self._workers:
            worker.start()
            worker.put("begin", copy.deepcopy(about))  # a tracker may change what it is given

    def end(self, summary: dict[str, Any]) -> None:
        """End the trackers, and wait until they have taken everything, a minute at most.

        Args:
            summary: what their `end` takes, with metrics of shape () or [seeds].
        """
        if not self._begun or self._ended:
            return
        self._ended = True
        summary = {**summary, "metrics": Spread(self._seed)(summary.get("metrics", {}))}
        for worker in self._workers:
            worker.put("end", copy.deepcopy(summary))
        _join([worker for worker in self._workers if not worker.left_out], _PATIENCE, self._interrupted)
        for worker in self._workers:
            if worker.is_alive() and not worker.left_out:
                _late.append(worker)
                worker.fault = f"has not ended yet, and gets {_AT_EXIT:g} s more when the process ends"
        self._report(stacklevel=4)

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self._interrupted.set()
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self.end({"status": status, "message": f"{type(error).__name__}: {error}"})

    def _report(self, stacklevel: int) -> None:
        """Warn of trackers that failed since the last time. Their threads cannot: the caller may filter warnings."""
        for worker in self._workers:
            if worker.fault and not worker.reported:
                worker.reported = True
                name = type(worker.tracker).__qualname__
                warnings.warn(
                    f"fit: the tracker {name} {worker.fault}; the run is not changed by it", stacklevel=stacklevel
                )


class _Worker(threading.Thread):
    """Calls one tracker, in order. A daemon, so that a tracker that is stuck does not keep the process from ending.

    Attributes:
        fault: what went wrong, or None.
        left_out: whether the tracker gets no more calls.
        reported: whether there was a warning.
    """

    def __init__(self, tracker: Tracker, seed: int):
        super().__init__(name=f"tracker {type(tracker).__name__}", daemon=True)
        self.tracker, self.fault, self.left_out, self.reported = tracker, None, False, False
        self._spread, self._calls = Spread(seed), queue.Queue(_BEHIND)

    def put(self, method: str, *arguments: Any) -> None:
        """Queue a call, unless the tracker is left out."""
        if not self.left_out:
            try:
                self._calls.put_nowait((method, arguments))
            except queue.Full:
                self.leave_out(f"is {_BEHIND} points behind")

    def run(self) -> None:
        method = "begin"
        while method != "end" and not self.left_out:
            method, arguments = self._calls.get()
            try:
                if method == "log":
                    step, metrics = arguments
                    arguments = step, self._spread(metrics)
                getattr(self.tracker, method)(*arguments)
            except BaseException as error:  # also what a package raises to end the process
                self.leave_out(f"raised {type(error).__name__}: {error} in {method}")

    def leave_out(self, why: str) -> None:
        """Call the tracker no more."""
        self.fault, self.left_out = f"{why}, and is left out from now on", True


def _join(workers: Sequence[threading.Thread], patience: float, interrupted: threading.Event) -> None:
    """Wait for threads to end, for some seconds in all, or a second from an interruption on."""
    until = time.monotonic() + patience
    hurried = False
    for worker in workers:
        while worker.is_alive() and time.monotonic() < until:
            if interrupted.is_set() and not hurried:
                hurried, until = True, min(until, time.monotonic() + _AT_ONCE)
            worker.join(0.05)


_late: list[_Worker] = []


@atexit.register
def _drain() -> None:
    """Give trackers that were not done at the end of their runs some time more."""
    _join(_late, _AT_EXIT, threading.Event())
