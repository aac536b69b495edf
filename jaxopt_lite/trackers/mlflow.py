"""Runs for MLflow."""

import importlib.util
import re
import time
from typing import Any

from jaxopt_lite.log.trackers import outcome

__all__ = ["mlflow"]

_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_METRICS, _PARAMS, _TEXT = 1000, 100, 6000  # MLflow's limits: metrics and params of a call, characters of a param


def mlflow(
    experiment: str = "jaxopt_lite",
    uri: str | None = None,
    run_name: str | None = None,
    run_id: str | None = None,
    tags: dict[str, str] | None = None,
) -> "MLflow":
    """A run of MLflow: params, metrics by step, versions as tags, and a status. Needs the extra mlflow.

    With `seeds`, "train.loss" is the mean, and "seed-0/train.loss" that of a seed. A character that MLflow's names
    cannot have becomes an underscore. MLflow's own stores change infinities: SQLite's has the largest float64 for them.

    Args:
        experiment: name of the experiment, made where it is missing.
        uri: of the store: "sqlite:///mlflow.db", a folder, a server's address; None is MLflow's own default, by
            MLFLOW_TRACKING_URI. Nothing is sent anywhere unless it is a server.
        run_name: None lets MLflow make one up.
        run_id: of a run of that store to continue, for a run that resumes; what it has as params stays.
        tags: more tags of the run.

    Returns:
        A tracker, for `fit(..., trackers=[...])`; its `run_id` is that of the run.

    Raises:
        ImportError: if MLflow is not installed.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise ImportError("trackers.mlflow needs MLflow: pip install 'jaxopt-lite[mlflow]'")
    return MLflow(experiment, uri, run_name, run_id, tags)


class MLflow:
    """The tracker that `mlflow` returns.

    It uses MLflow's client, and neither reads nor sets the active run of MLflow's functions.

    Attributes:
        run_id: of the run in the store; None before it has begun.
    """

    def __init__(
        self, experiment: str, uri: str | None, run_name: str | None, run_id: str | None, tags: dict[str, str] | None
    ):
        self._experiment, self._uri, self._name, self.run_id, self._tags = experiment, uri, run_name, run_id, tags
        self._given_id, self._step = run_id, 0

    def begin(self, about: dict[str, Any]) -> None:
        """Create the run, or continue the one that was named, and log its params."""
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

        self._client, self._step = MlflowClient(tracking_uri=self._uri), about["step"]
        known: Any = {}
        if self._given_id is None:
            found = self._client.get_experiment_by_name(self._experiment)
            home = found.experiment_id if found is not None else self._client.create_experiment(self._experiment)
            tags = {**{f"version.{name}": text for name, text in about["versions"].items()}, **(self._tags or {})}
            self.run_id = self._client.create_run(home, tags=tags, run_name=self._name).info.run_id
        else:
            known = self._client.get_run(self._given_id).data.params
            self._client.update_run(self._given_id, status="RUNNING")
        given = {"optimizer": about["optimizer"], **about["hyperparameters"], **about["plan"]}
        given |= {"seed": about["seed"], "seeds": about["seeds"]}
        params = [Param(_name(k), str(v)[:_TEXT]) for k, v in given.items() if _name(k) not in known]
        for i in range(0, len(params), _PARAMS):
            self._client.log_batch(self.run_id, params=params[i : i + _PARAMS])

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Log the metrics of a point."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now, self._step = int(time.time() * 1000), step
        values = [Metric(_name(name), value, now, step) for name, value in metrics.items()]
        for i in range(0, len(values), _METRICS):
            self._client.log_batch(self.run_id, metrics=values[i : i + _METRICS])

    def end(self, summary: dict[str, Any]) -> None:
        """Log the metrics of the test data and why the run ended, and end it."""
        self.log(self._step, {name: value for name, value in summary["metrics"].items() if "test." in name})
        self._client.set_tag(self.run_id, "message", summary["message"][:_TEXT])
        self._client.set_terminated(self.run_id, status=_STATUS[outcome(summary)])


def _name(text: str) -> str:
    """A name that MLflow takes: letters, digits and _-.: /, and as a path in its normal form."""
    return re.sub(r"[^\w\-.:/ ]|/(?=/|\.|$)|^/|^\.+", "_", text)[:250]
