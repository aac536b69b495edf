"""Runs for Weights & Biases."""

import importlib
import importlib.util
from typing import Any

from jaxopt_lite.log.trackers import outcome

__all__ = ["wandb"]

_EXIT_CODE = {"finished": 0, "interrupted": 255, "failed": 1}


def wandb(**settings: Any) -> "WandB":
    """A run of Weights & Biases: config, metrics by step, and a summary. Needs the extra wandb.

    With `mode="offline"` all is written to the folder wandb/, which `wandb sync` sends later. With `seeds`,
    "train.loss" is the mean, and "seed-0/train.loss" that of a seed, in a section of its own.

    Args:
        **settings: arguments of `wandb.init`, such as project=, name=, mode=, dir=, group=; `id="...", resume="allow"`
            continues a run. By default a run of its own is made, `reinit="create_new"`, beside one that is active.

    Returns:
        A tracker, for `fit(..., trackers=[...])`; its `run` is the run of wandb.

    Raises:
        ImportError: if wandb is not installed.
    """
    if importlib.util.find_spec("wandb") is None:
        raise ImportError("trackers.wandb needs wandb: pip install 'jaxopt-lite[wandb]'")
    return WandB({"reinit": "create_new", **settings})


class WandB:
    """The tracker that `wandb` returns.

    Attributes:
        run: the run of wandb; None before it has begun.
    """

    def __init__(self, settings: dict[str, Any]):
        self._settings = settings
        self.run: Any = None

    def begin(self, about: dict[str, Any]) -> None:
        """Begin the run, with what is known of it as its config."""
        given = self._settings.get("config") or {}
        self.run = importlib.import_module("wandb").init(**{**self._settings, "config": {**about, **given}})

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Log the metrics of a point."""
        self.run.log(metrics, step=step)

    def end(self, summary: dict[str, Any]) -> None:
        """Write the summary, and finish the run."""
        facts = {name: summary[name] for name in ("status", "message", "steps", "seconds") if name in summary}
        self.run.summary.update({**facts, **summary["metrics"]})
        self.run.finish(exit_code=_EXIT_CODE[outcome(summary)])
