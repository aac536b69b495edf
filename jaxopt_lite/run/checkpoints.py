"""The checkpoints of a run of `fit`: listed, chosen, loaded."""

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import jax

from jaxopt_lite.checkpoint.saving import read
from jaxopt_lite.checkpoint.store import complete
from jaxopt_lite.checkpoint.unpacking import unpack
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.train.state import TrainState
from jaxopt_lite.transforms.schedule_free import eval_params

__all__ = ["Checkpoint", "checkpoints"]

_STATE, _KEPT = ".run.state", ".run.monitor.kept"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a run.

    Attributes:
        step: number of steps done.
        score: the watched metric at that point, of which lower is better (a metric to be maximized is negated), the
            mean over seeds; None where the best point is not known.
        bytes: what it takes on the disk.
        saved: when it was written, in UTC.
        path: its folder.
    """

    step: int
    score: float | None
    bytes: int
    saved: datetime.datetime
    path: Path

    def load(self, like: TrainState | None = None) -> TrainState:
        """The state of the run, from which `fit(task, None, state=...)` resumes.

        Args:
            like: a state of the same structure, or its shapes, such as `jax.eval_shape(lambda: jo.init_state(task,
                optimizer))` gives; leaves with a sharding are restored onto it. It is needed only for classes and
                functions that cannot be found by name, such as Equinox's modules, or a mask that is a lambda.

        Raises:
            TypeError: if `like` is no state.
            ValueError: if it is damaged, or of another structure than `like`; the message has the paths that differ.
        """
        return read(self.path, lambda arrays, content: _state(arrays, content, like))

    def params(self, like: Any = None) -> Any:
        """The parameters alone; no other array is loaded, unless the optimizer needs its state to evaluate them.

        Of a schedule-free optimizer they are the averages that are evaluated, as in `result.params`.

        Args:
            like: parameters of the same structure, or their shapes, as for `load`.

        Raises:
            ValueError: as for `load`.
        """

        def choose(content):
            return _STATE if content["averaged"] else f"{_STATE}.params"

        def make(arrays, content):
            fields = content["value"]["fields"]["run"]["fields"]["state"]["fields"]
            place = f"{_STATE}.params"
            params = unpack(fields["params"], arrays, None if like is None else {place: like}, path=place)
            if not content["averaged"]:
                return params
            average = eval_params if content["seeds"] is None else jax.vmap(eval_params)
            return average(unpack(fields["opt_state"], arrays), params)

        return read(self.path, make, choose)


def checkpoints(directory: Path | str) -> list[Checkpoint]:
    """The complete checkpoints of a run, the earliest first.

    Args:
        directory: of the run.

    Raises:
        FileNotFoundError: if there is no such directory.
    """
    directory = Path(directory).absolute()
    if not directory.is_dir():
        raise FileNotFoundError(f"checkpoints: there is no directory {directory}")
    return [
        Checkpoint(int(path.name), seal.score, seal.bytes, datetime.datetime.fromisoformat(seal.saved), path)
        for path, seal in complete(directory / "checkpoints")
    ]


def _state(arrays: dict[str, Any], content: dict[str, Any], like: TrainState | None) -> TrainState:
    given = {}
    if like is not None:
        if not isinstance(like, TrainState):
            raise TypeError(f"load: like must be a TrainState, or the shapes of one, got {describe(like)}")
        given[_STATE] = like._replace(monitor=None)
        given[_KEPT] = (like.params, like.model_state) if content["kept"] else ()
    run = unpack(content["value"], arrays, given).run
    return run.state._replace(monitor=run.monitor if content["decides"] else None)
