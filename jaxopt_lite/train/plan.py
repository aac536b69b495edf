"""The arguments that `fit` and `sweep` share, checked in one place, and the choice of the watched metric."""

import dataclasses
import numbers
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.arguments import INT32_MAX, WrongTypeError, check_bool, check_int, nearest
from jaxopt_lite.core.method import Solver
from jaxopt_lite.train.remat import policy_of
from jaxopt_lite.train.task import Task

__all__ = ["Plan"]

_LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train, on what batches, and when to stop: arguments of `fit`, which describes them.

    Args:
        steps: number of steps, in [1, 2**31).
        batch_size: examples in a batch, at least 1; None takes all at each step.
        eval_every: steps between two points, at least 1.
        target: value of the watched metric at which to stop, a finite float32; None is never met.
        patience: points without improvement after which to stop, at least 1; None is never met.
        min_grad_norm: norm of the gradient at which to stop, at least 0; None is never met.
        restore_best: whether to return the parameters of the best point.
        metric: the watched metric, such as "valid.loss"; None is the usual one.
        mode: "min", "max", or None where the end of the metric's name decides.
        compute_dtype: floating dtype of the loss; None computes in the dtypes of parameters and data.
        accumulate: in how many pieces a batch is worked, at least 1.
        eval_batch_size: examples in a piece of valid or test data, at least 1; None evaluates them whole.
        remat: what the gradient computes again: False, True, or the name of a policy.

    Raises:
        WrongTypeError: if a number is not a number, or metric not a string. It is a TypeError and a ValueError.
        ValueError: if an argument is out of its range, metric is one of the test data, or remat is no policy.
    """

    steps: int = 2000
    batch_size: int | None = 128
    eval_every: int = 200
    target: float | None = None
    patience: int | None = None
    min_grad_norm: float | None = None
    restore_best: bool = False
    metric: str | None = None
    mode: str | None = None
    compute_dtype: str | None = None
    accumulate: int = 1
    eval_batch_size: int | None = None
    remat: bool | str = False

    who = "fit"  # the function whose arguments these are, for messages
    purpose = "decide when to stop"  # what the metric is for, for messages

    def __post_init__(self):
        optional = "batch_size", "patience", "eval_batch_size"
        for name in ("steps", "eval_every", "accumulate", *optional):
            most = INT32_MAX if name in ("steps", "batch_size") else None
            self._set(name, check_int(self.who, name, getattr(self, name), 1, most, none=name in optional))
        for name, least in (("target", -np.inf), ("min_grad_norm", 0)):
            if getattr(self, name) is not None:
                self._set(name, self._score(name, getattr(self, name), least))
        self._set("restore_best", check_bool(self.who, "restore_best", self.restore_best))
        if self.mode not in (None, "min", "max"):
            raise ValueError(f"{self.who}: mode must be 'min' or 'max', got {self.mode!r:.80}")
        if self.metric is not None and not isinstance(self.metric, str):
            raise WrongTypeError(
                f"{self.who}: metric must be the name of a column such as 'valid.loss', got {self.metric!r:.80}"
            )
        if self.metric is not None and self.metric.startswith("test."):
            raise ValueError(
                f"{self.who}: metric={self.metric!r} cannot {self.purpose}, or it would no longer be a test; split off "
                "valid data"
            )
        policy_of(self.remat, self.who)
        self._set("compute_dtype", floating(self.compute_dtype, self.who, "compute_dtype"))

    @property
    def decides(self) -> bool:
        """Whether anything is decided by the watched metric."""
        return self.restore_best or (self.target, self.patience) != (None, None)

    def kind(self, task: Task, method: Any = None) -> str:
        """What the steps of a run are given: batches "drawn" by index, the "whole" data, or a "stream" of batches.

        Args:
            task: what is to be learned.
            method: a transformation or a solver, where it is known.

        Raises:
            ValueError: if a batch is larger than the data, or the method is a solver and is not given the whole data.
        """
        rows, batch = task.rows, self.batch_size
        if rows is not None and batch is not None and batch > rows:
            raise ValueError(
                f"{self.who}: batch_size={batch} is more than the {rows} training examples; batch_size=None takes all "
                "of them at each step"
            )
        kind = "stream" if task.train_is_iterator else "whole" if rows is None or batch is None else "drawn"
        if isinstance(method, Solver) and kind != "whole":
            name = method.factory.spec.name
            raise ValueError(
                f"{self.who}: {name} is a solver, which needs all examples at each step; give batch_size=None"
            )
        return kind

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _score(self, name: str, value: Any, least: float) -> float:
        """A limit that is compared with float32 scores."""
        is_number = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
        if is_number and least <= value <= _LARGEST and value >= -_LARGEST:
            return float(value)
        raise ValueError(
            f"{self.who}: {name} must be a finite number{' of at least 0' * (not least)}, got {value!r:.80}"
            + f"; scores are float32, at most {_LARGEST:.4g}" * (is_number and abs(value) > _LARGEST)
        )


def floating(dtype: Any, who: str, name: str) -> str | None:
    """The name of a floating dtype; None stays None.

    Raises:
        ValueError: if it is not one.
    """
    if dtype is None:
        return None
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise ValueError(f"{who}: {name} must be a floating dtype such as 'bfloat16', got {dtype!r}")
    return found.name


def watched(who: str, metric: str | None, names: Iterable[str], decides: bool = True) -> str:
    """The watched metric among those that are measured.

    Args:
        who: the function, for messages.
        metric: what the user named; None is valid.accuracy, else valid.loss, else train.loss.
        names: the metrics that are measured.
        decides: whether something is decided by it; then it must be of the valid data where there are any.

    Raises:
        ValueError: if there is no such metric.
    """
    names = sorted(names)
    valid = [name for name in names if name.startswith("valid.")]
    if metric is None:
        metric = next(name for name in ("valid.accuracy", "valid.loss", "train.loss") if name in names)
        if valid and metric == "train.loss" and decides:
            raise ValueError(
                f"{who}: valid.accuracy or valid.loss is to be watched, and evaluate reports neither; give metric "
                f"(there are {', '.join(valid)}) and mode"
            )
    elif metric.startswith("valid.") and not valid:
        raise ValueError(f"{who}: there is no metric {metric!r}, since the task has no valid data; give it valid=")
    elif metric not in names:
        raise ValueError(f"{who}: there is no metric {metric!r}; {nearest(metric, names, 1)}")
    return metric


def is_highest_best(who: str, metric: str, mode: str | None) -> bool:
    """Whether a metric's highest value is its best, by `mode`, or by the end of the metric's name.

    Raises:
        ValueError: if neither decides.
    """
    ends = {"accuracy": "max", "loss": "min"}
    mode = mode or next((found for end, found in ends.items() if metric.endswith(end)), None)
    if mode is None:
        raise ValueError(f"{who}: mode must be given for metric={metric!r}: 'min' or 'max'")
    return mode == "max"
