"""What is to be learned: a task holds functions and data, and no state."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Task"]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Functions and data of a learning problem.

    Args:
        init: init(key) -> params; with `stateful`, init(key) -> (params, model_state).
        loss: loss(params, batch, key) -> scalar or (scalar, metrics), metrics a dict of scalars; with `stateful`,
            loss(params, model_state, batch, key) -> (scalar, (metrics, model_state)). A mean over the batch.
        train: a pytree of arrays [n, ...], from which batches [batch_size, ...] are drawn; or an iterator of batches
            (or a function that returns one), taken as they come; or None: batch is None, and the loss makes its own
            data from the key (on-policy tasks).
        valid: a pytree of arrays [m, ...], evaluated whole at each point of the history; stopping looks at it.
        test: likewise, evaluated once, at the end; nothing is decided by it.
        evaluate: evaluate(params, data) -> dict of scalars, reported as valid.<name> and test.<name>; with `stateful`,
            evaluate(params, model_state, data). None reports the loss and its metrics.
        stateful: whether the model has state beside its parameters, such as running means.

    Raises:
        TypeError: if a function is none, or data are no arrays.
        ValueError: if the arrays of one data set differ in their first dimension.
    """

    init: Callable
    loss: Callable
    train: Any = None
    valid: Any = None
    test: Any = None
    evaluate: Callable | None = None
    stateful: bool = False

    def __post_init__(self):
        for name in ("init", "loss", "evaluate"):
            value = getattr(self, name)
            if not callable(value) and not (name == "evaluate" and value is None):
                raise TypeError(f"Task: {name} must be a function, got {value!r}")
        for name in ("train", "valid", "test"):
            if not (name == "train" and self.train_is_iterator):
                object.__setattr__(self, name, _arrays(name, getattr(self, name)))

    @property
    def train_is_iterator(self) -> bool:
        """Whether batches are taken from an iterator as they come."""
        return is_iterator(self.train)

    @property
    def rows(self) -> int | None:
        """Number of training examples, where they are arrays."""
        return None if self.train is None or self.train_is_iterator else jax.tree.leaves(self.train)[0].shape[0]


def is_iterator(data: Any) -> bool:
    """Whether data come batch by batch: an iterator, a function that returns one, or a loader that is no pytree."""
    if data is None or isinstance(data, (np.ndarray, jax.Array)):
        return False
    if hasattr(data, "__next__") or callable(data):
        return True
    return jax.tree.structure(data) == jax.tree.structure(0) and hasattr(data, "__iter__")


def scores(task: Task, params: Any, model_state: Any, data: Any, key: jax.Array) -> dict[str, jax.Array]:
    """What the task's `evaluate` (or its loss) says of some data."""
    if task.evaluate is not None:
        result = task.evaluate(params, model_state, data) if task.stateful else task.evaluate(params, data)
        if not isinstance(result, dict):
            raise TypeError(f"Task: evaluate must return a dict of scalars, got {type(result).__name__}")
        return {name: jnp.asarray(value, jnp.float32) for name, value in result.items()}
    value, (metrics, _) = call_loss(task.loss, task.stateful, params, model_state, data, key)
    return {"loss": value, **metrics}


def call_loss(loss: Callable, stateful: bool, params: Any, model_state: Any, batch: Any, key: jax.Array) -> tuple:
    """(value, (metrics, model_state)) from a loss in any of its forms; metrics as float32 scalars."""
    result = loss(params, model_state, batch, key) if stateful else loss(params, batch, key)
    value, aux = result if isinstance(result, tuple) else (result, (({}, model_state) if stateful else {}))
    if stateful and not (isinstance(aux, tuple) and len(aux) == 2):
        raise TypeError("Task: with stateful=True, loss must return (scalar, (metrics, model_state))")
    metrics, model_state = aux if stateful else (aux, model_state)
    if jnp.shape(value) != ():
        raise ValueError(f"Task: loss must return a scalar, got shape {jnp.shape(value)}; take the mean over the batch")
    if not isinstance(metrics, dict) or any(jnp.shape(m) != () for m in metrics.values()):
        raise TypeError("Task: loss must return a scalar, or a scalar and a dict of scalar metrics")
    return value, ({name: jnp.asarray(m, jnp.float32) for name, m in metrics.items()}, model_state)


def _arrays(name: str, data: Any) -> Any:
    """The data on the device, checked."""
    if data is None:
        return None
    leaves = jax.tree_util.tree_leaves_with_path(data)
    if not leaves:
        raise ValueError(f"Task: {name} holds no arrays; leave it out or give arrays [n, ...]")
    rows = {}
    for path, leaf in leaves:
        where = name + jax.tree_util.keystr(path)
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype") or np.ndim(leaf) == 0:
            raise TypeError(f"Task: {where} must be an array [n, ...], got {leaf!r}")
        rows[where] = leaf.shape[0]
    if len(set(rows.values())) > 1:
        said = ", ".join(f"{where} has {n}" for where, n in rows.items())
        raise ValueError(f"Task: the arrays of {name} must have equal first dimensions, but {said}")
    return jax.tree.map(jnp.asarray, data)
