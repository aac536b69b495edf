"""The best trials and the progress of a sweep, while it runs."""

import datetime
import time
from typing import Any

import numpy as np

from jaxopt_lite.log.progress import Display, console
from jaxopt_lite.sweeps.ledger import STATUSES, Ledger

__all__ = ["Scoreboard"]

_TOP = 5


class Scoreboard:
    """A live table of the best trials and a bar with the steps done, trials/s and member-steps/s, or plain lines.

    Steps are those of trials, each counted once for all its seeds. The number left is an upper bound, because a
    policy may stop trials.

    Args:
        show: as for `Display`, with the table and the bar for "bar".
    """

    def __init__(self, show: str | None = None):
        self._display = Display(_rich_live, show)
        self._steps, self._first, self._drawn = 0, None, -np.inf
        self._last: tuple[Ledger, int] | None = None

    @property
    def shown(self) -> bool:
        """Whether anything is shown."""
        return self._display.shown

    def print(self, text: str) -> None:
        """Print one line, above the table."""
        with self._display.tried():
            if self._display.live is not None:
                self._display.live.console.print(text, markup=False, highlight=False)
            elif self._display.shown:
                self._display.print(text)

    def advanced(self, ledger: Ledger, trials: int, member_steps: int) -> None:
        """Update after some trials were advanced.

        Args:
            ledger: of the sweep.
            trials: the number of trials of the whole sweep.
            member_steps: steps done by all seeds of all trials in this call.
        """
        if not self.shown:
            return
        now = time.perf_counter()
        if self._first is None:  # this call included compiling, which must not count in the rate
            self._first, member_steps = (now, _ended(ledger)), 0
        self._steps += member_steps
        self._last = ledger, trials
        if now - self._drawn < self._display.every:
            return
        self._drawn = now
        with self._display.tried():
            self._draw(ledger, trials, now)

    def close(self) -> None:
        """Show the final table, and restore the terminal."""
        with self._display.tried():
            if self._display.shown and self._last is not None:
                self._draw(*self._last, time.perf_counter())
            if self._display.live is not None:
                self._display.live.stop()

    def _draw(self, ledger: Ledger, trials: int, now: float) -> None:
        began, ended_then = self._first or (now, 0)
        seconds, ended = max(now - began, 1e-9), _ended(ledger)
        done = int(ledger.step.sum(dtype=np.int64))
        left = int((ledger.steps - ledger.step[ledger.running]).sum(dtype=np.int64))
        left += (trials - len(ledger)) * ledger.steps
        parts = [f"{ended}/{trials} trials", f"{done:,}/{done + left:,} steps"]
        parts += [f"{(ended - ended_then) / seconds:,.1f} trials/s", f"{self._steps / seconds:,.0f} member-steps/s"]
        if left and self._steps:
            parts.append(f"{datetime.timedelta(seconds=round(left * ledger.seeds * seconds / self._steps))} left")
        best = ledger.ranking()[:_TOP]
        if self._display.live is not None:
            self._display.live.update(_table(ledger, best, done / max(done + left, 1), "  ".join(parts)))
            return
        scores = ledger.last_scores()[best[:1]] * (-1 if ledger.highest else 1)
        if len(scores) and np.isfinite(scores[0]):
            parts.append(f"best {ledger.metric} {scores[0]:.4g} (trial {best[0]})")
        self._display.print("  ".join(parts), replace=True)


def _ended(ledger: Ledger) -> int:
    return int(np.sum(~ledger.running))


def _table(ledger: Ledger, best: np.ndarray, share: float, text: str) -> Any:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table("trial", ledger.metric, "steps", "status", *ledger.space.names, title="the best so far", expand=False)
    scores = ledger.last_scores() * (-1 if ledger.highest else 1)
    for trial in best.tolist():
        row = ledger.space.encode(ledger.table[trial])
        shown = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in (row.get(n, "") for n in ledger.space.names)]
        status = STATUSES[ledger.status[trial]]
        table.add_row(str(trial), f"{scores[trial]:.4g}", str(ledger.step[trial]), status, *shown)
    return Group(table, ProgressBar(total=1.0, completed=share, width=40), text)


def _rich_live() -> Any:
    try:
        from rich.live import Live
    except ImportError:
        return None
    return Live(console=console(), refresh_per_second=4, transient=False)
