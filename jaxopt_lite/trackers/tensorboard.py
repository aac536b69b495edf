"""Scalars and hyperparameters for TensorBoard, without TensorFlow."""

import importlib.util
import time
from pathlib import Path
from typing import Any

from jaxopt_lite.log.tensorboard import EventFile, ending, scalars
from jaxopt_lite.log.trackers import outcome

__all__ = ["tensorboard"]


def tensorboard(directory: Path | str) -> "TensorBoard":
    """Event files for TensorBoard: curves, and a row in HPARAMS. Needs the extra tensorboard, and no TensorFlow.

    With `seeds`, the means are the run DIRECTORY, and each seed is a run in a folder of its own below it, seed-0,
    seed-1, ..., with the same tags, so that their curves are drawn over each other. In HPARAMS the seeds are one group.
    A run that begins or resumes at step n makes TensorBoard leave out what the folder has from later steps.

    Args:
        directory: of this run. Give runs that are to be compared folders beside each other, and their parent to
            `tensorboard --logdir`.

    Returns:
        A tracker, for `fit(..., trackers=[...])`.

    Raises:
        ImportError: if TensorBoard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ImportError("trackers.tensorboard needs TensorBoard: pip install 'jaxopt-lite[tensorboard]'")
    return TensorBoard(Path(directory))


class TensorBoard:
    """The tracker that `tensorboard` returns."""

    def __init__(self, directory: Path):
        self._directory = directory.absolute()
        self._files: dict[str, EventFile] = {}  # by the name of a seed; "" is the run itself, or the means
        self._about, self._step = {}, 0

    def begin(self, about: dict[str, Any]) -> None:
        """Open the event files."""
        self._about, self._step, self._files = about, about["step"], {}
        several = range(about["seeds"] or 0)
        seeds = [f"seed-{about['seed'] + i}" for i in several]
        for name in ["", *seeds]:
            self._files[name] = EventFile(self._directory / name)
            self._files[name].restart(time.time(), self._step + 1)
        for name in seeds or [""]:
            self._files[name].add(time.time(), self._step, self._session())

    def _session(self) -> Any:
        """The beginning of a session of HParams. Its settings are scalars, and the optimizer's text."""
        from tensorboard.plugins.hparams import summary_v2 as hparams

        about = self._about
        numbers = {k: v for k, v in about["hyperparameters"].items() if isinstance(v, (int, float))}
        settings = {k: v for k, v in about["plan"].items() if isinstance(v, (int, float, str))}
        given = {"optimizer": about["optimizer"], **numbers, **settings, "seed": about["seed"]}
        return hparams.hparams_pb(given, trial_id=str(self._directory), start_time_secs=time.time())

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append the scalars of a point."""
        now, self._step = time.time(), step
        values: dict[str, dict[str, float]] = {}
        for name, value in metrics.items():
            seed, _, tag = name.partition("/") if name.startswith("seed-") else ("", "", name)
            values.setdefault(seed, {})[tag] = value
        for seed, of_seed in values.items():
            self._files[seed].add(now, step, scalars(of_seed))
            self._files[seed].flush()

    def end(self, summary: dict[str, Any]) -> None:
        """Append the metrics of the test data and the end of the session, and close the files."""
        tests = {name: value for name, value in summary["metrics"].items() if "test." in name}
        self.log(self._step, tests)
        status = "STATUS_SUCCESS" if outcome(summary) == "finished" else "STATUS_FAILURE"
        for name, file in self._files.items():
            if name or not self._about["seeds"]:
                file.add(time.time(), self._step, ending(status, time.time()))
            file.close()
