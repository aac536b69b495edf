"""Ctrl-C and SIGTERM, which end a run cleanly."""

import atexit
import contextlib
import faulthandler
import os
import signal
import threading
from collections.abc import Iterator

__all__ = []

_PATIENCE = 1.0  # seconds that the process may take to end, after a run was ended in the middle of a call
_left: list[bool] = []  # an entry for each run that was ended so


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set an event, and the run ends after the point under way; a second one ends it at once.

    At once means a KeyboardInterrupt, also while the device works on a point (`train.calls.fetched` waits for it in
    pauses, since Python handles no signal within a call).
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def set_or_raise(number, frame):
        if event.is_set():
            _left.append(True)
            raise KeyboardInterrupt
        event.set()

    # A signal that is ignored stays ignored, as a shell's background jobs ignore Ctrl-C.
    heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, set_or_raise) for number in heard}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: a handler that was not installed from Python


@atexit.register
def _end_in_time() -> None:
    """End the process although the device still works on a call: JAX would wait for it, maybe for hours."""
    if _left:
        nowhere = open(os.devnull, "w")  # noqa: SIM115  (written to when the process ends)
        faulthandler.dump_traceback_later(_PATIENCE, exit=True, file=nowhere)
        if hasattr(signal, "setitimer"):  # Python stops the watch above before it destroys the last objects
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, 2 * _PATIENCE)
