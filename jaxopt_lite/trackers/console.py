"""Metrics on standard output."""

from typing import Any

__all__ = ["console"]


def console() -> "Console":
    """A line on standard output for each point, with all metrics (with `seeds`, the means), and how the run ended.

    The option `progress="lines"` of `fit` is for people who watch: it has speed and time left, and at most a line
    every two seconds.

    Returns:
        A tracker, for `fit(..., trackers=[...])`.
    """
    return Console()


class Console:
    """The tracker that `console` returns."""

    def begin(self, about: dict[str, Any]) -> None:
        """Print the optimizer."""
        print(about["optimizer"], flush=True)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Print the step and the metrics."""
        shown = [f"{name} {value:.5g}" for name, value in metrics.items() if not name.startswith("seed-")]
        print("  ".join([f"step {step}", *shown]), flush=True)

    def end(self, summary: dict[str, Any]) -> None:
        """Print why the run ended."""
        print(summary["message"], flush=True)
