"""What is to be learned: a task holds functions and data, and no state."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite import tree
from jaxopt_lite.core.checks import structure_difference
from jaxopt_lite.core.numbers import describe

__all__ = ["Task"]

# Measured by every step; a loss's own metrics stand beside them.
_MEASURED = ("loss", "learning_rate", "grad_norm", "update_norm", "loss_scale")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Task:
    """Functions and data of a learning problem.

    Args:
        init: init(key) -> params; with `stateful`, init(key) -> (params, model_state).
        loss: loss(params, batch, key) -> scalar or (scalar, metrics), metrics a dict of scalars; with `stateful`,
            loss(params, model_state, batch, key) -> (scalar, (metrics, model_state)). A mean over the batch. Metrics
            must not be called loss, learning_rate, grad_norm, update_norm or loss_scale, which are measured anyway.
        train: a pytree of arrays [n, ...], from which batches [batch_size, ...] are drawn; or an iterator of batches
            (or a function that returns one), taken as they come; or None: batch is None, and the loss makes its own
            data from the key (on-policy tasks). Arrays of other libraries (tensors, data frames of numbers) are
            converted, and arrays that can be changed are copied.
        valid: a pytree of arrays [m, ...], evaluated whole at each point of the history; stopping looks at it.
        test: likewise, evaluated once, at the end; nothing is decided by it.
        evaluate: evaluate(params, data) -> dict of scalars, reported as valid.<name> and test.<name>; with `stateful`,
            evaluate(params, model_state, data). None reports the loss and its metrics. A scalar may be a pair (total,
            weight) for total / weight, such as a sum over tokens and their number: where data are evaluated in pieces,
            totals and weights are added up, and all other scalars are taken as means over the examples.
        stateful: whether the model has state beside its parameters, such as running means.

    Raises:
        TypeError: if a function cannot be called, or data are not arrays of numbers.
        ValueError: if a data set is empty, if its arrays differ in their first dimension, if they have masked elements,
            or 64-bit ints that do not fit into 32 bits (without jax_enable_x64).
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
                hint = "; if these are the parameters, give lambda key: params" * (name == "init")
                raise TypeError(f"Task: {name} must be a function, got {describe(value)}{hint}")
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
        return None if self.train is None or self.train_is_iterator else _examples(self.train)

    def __repr__(self) -> str:
        functions = {name: getattr(self, name) for name in ("init", "loss", "evaluate")}
        parts = [f"{k}={getattr(f, '__name__', type(f).__name__)}" for k, f in functions.items() if f is not None]
        data = {name: getattr(self, name) for name in ("train", "valid", "test")}
        parts += [f"{name}={_amount(of)}" for name, of in data.items() if of is not None]
        return f"Task({', '.join(parts)}{', stateful=True' * self.stateful})"


def check_task(who: str, task: Any) -> None:
    """Raise unless it is a task."""
    if not isinstance(task, Task):
        hint = "; if it makes a Task, call it" if callable(task) else ""
        raise TypeError(f"{who}: task must be a Task, got {describe(task)}{hint}")


def _examples(data: Any) -> int:
    return jax.tree.leaves(data)[0].shape[0]


def _amount(data: Any) -> str:
    return "an iterator" if is_iterator(data) else f"{_examples(data)} examples"


def is_iterator(data: Any) -> bool:
    """Whether data come batch by batch: an iterator, a function that returns one, or a loader.

    A pytree with leaves is data, whatever else it can do, and so is an array of any library.
    """
    if hasattr(data, "__next__"):
        return True
    if data is None or _is_array(data):
        return False
    leaves = jax.tree.leaves(data)
    is_leaf = len(leaves) == 1 and leaves[0] is data
    if leaves and not is_leaf:
        return isinstance(data, functools.partial)  # JAX's own is a pytree of what it holds
    if callable(data):
        return True
    return is_leaf and may_give_batches(data)


def may_give_batches(value: Any) -> bool:
    """Whether iterating over a value gives batches: not so of text, ranges, mappings, sets and arrays."""
    is_of_values = isinstance(value, (str, bytes, bytearray, memoryview, range, Mapping, Set)) or _is_array(value)
    return hasattr(value, "__iter__") and not is_of_values


def _is_array(value: Any) -> bool:
    """Whether a value is an array, tensor, column or table, of whatever library."""
    signs = ("__array__", "__array_interface__", "__dlpack__", "__dataframe__", "shape")
    return not isinstance(value, type) and any(hasattr(value, sign) for sign in signs)


def scores(task: Task, params: Any, model_state: Any, data: Any, key: jax.Array) -> dict[str, jax.Array]:
    """What the task's `evaluate` (or its loss) returns for valid or test data, float32 scalars by name."""
    found = score_parts(task, params, model_state, data, key)
    return {name: total if weight is None else total / weight for name, (total, weight) in found.items()}


def score_parts(task: Task, params: Any, model_state: Any, data: Any, key: jax.Array) -> dict[str, tuple]:
    """`scores` as pairs (mean, None), or (total, weight) where `evaluate` returns such a pair."""
    if task.evaluate is None:
        value, (metrics, _) = call_loss(task.loss, task.stateful, params, model_state, data, key)
        return {name: (x, None) for name, x in {"loss": value, **metrics}.items()}
    result = task.evaluate(params, model_state, data) if task.stateful else task.evaluate(params, data)
    is_pair = lambda x: isinstance(x, tuple) and len(x) == 2
    pairs = {name: x for name, x in result.items() if is_pair(x)} if isinstance(result, dict) else {}
    first = {**result, **{name: total for name, (total, _) in pairs.items()}} if pairs else result
    found = _scalars(first, "evaluate must return", 'return {"loss": ...}')
    weights = _scalars({name: weight for name, (_, weight) in pairs.items()}, "weights of evaluate must be", "")
    return {name: (x, weights.get(name)) for name, x in found.items()}


def call_loss(loss: Callable, stateful: bool, params: Any, model_state: Any, batch: Any, key: jax.Array) -> tuple:
    """(value, (metrics, model_state)) from a loss in any of its forms; metrics as float32 scalars."""
    result: Any = loss(params, model_state, batch, key) if stateful else loss(params, batch, key)
    pair = isinstance(result, tuple) and len(result) == 2
    if stateful and not (pair and isinstance(result[1], tuple) and len(result[1]) == 2):
        raise TypeError(
            f"Task: with stateful=True, loss must return (scalar, (metrics, model_state)), got {_returned(result)}"
            + "; is a return missing?" * (result is None)
        )
    value: Any = result[0] if pair else result
    if _is_no_number(value):
        raise TypeError(
            f"Task: loss must return a scalar, or (scalar, metrics), got {_returned(value)}"
            + "; is a return missing?" * (value is None)
        )
    aux = result[1] if pair else {}
    metrics, new_model_state = aux if stateful else (aux, None)
    if jnp.shape(value) != ():
        raise ValueError(f"Task: loss must return a scalar, got shape {jnp.shape(value)}; take the mean over the batch")
    metrics = _scalars(metrics, "the metrics of the loss must be", 'return (scalar, {"name": ...})')
    taken = [name for name in metrics if name in _MEASURED]
    if taken:
        raise ValueError(f"Task: the loss gives a metric the name {taken[0]!r}, which is taken; give it another")
    return value, (metrics, _like(new_model_state, model_state) if stateful else model_state)


def loss_of(task: Task, compute_dtype: str | None = None) -> Callable:
    """The loss as (params, model_state, batch, key) -> (scalar of at least float32, (metrics, model_state)).

    With `compute_dtype`, parameters and floating data are cast to it before the loss is called.
    """

    def loss(params, model_state, batch, key):
        if compute_dtype is not None:
            params, batch = _cast(params, compute_dtype), _cast(batch, compute_dtype)
        value, aux = call_loss(task.loss, task.stateful, params, model_state, batch, key)
        dtype = jnp.result_type(value)
        return jnp.asarray(value, tree.compute_dtype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else jnp.float32), aux

    return loss


def _cast(data: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, data)


def _is_no_number(value: Any) -> bool:
    return value is None or isinstance(value, (tuple, list, dict, str))


def _returned(value: Any) -> str:
    """What a function returned, in words: of what holds traced arrays the kind alone."""
    return f"a {type(value).__name__}" if isinstance(value, (tuple, list, dict)) else describe(value)


def _scalars(metrics: Any, what: str, remedy: str) -> dict[str, jax.Array]:
    """Metrics as float32 scalars."""
    if not isinstance(metrics, dict):
        raise TypeError(f"Task: {what} a dict of scalars, got {_returned(metrics)}; {remedy}")
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise TypeError(f"Task: {what} a dict of scalars by name, but the name {name!r:.80} is no string")
        if _is_no_number(value):
            raise TypeError(f"Task: {what} a dict of scalars, but {name!r} is {_returned(value)}")
        if jnp.shape(value) != ():
            raise ValueError(f"Task: {what} a dict of scalars, but {name!r} has shape {jnp.shape(value)}; take a mean")
    return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}


def _like(new: Any, old: Any) -> Any:
    """The loss's model state in the dtypes that it came with, since the next step must take it."""
    difference = structure_difference(new, old, "model_state", "the one that init made")
    shapes = [jax.tree.map(jnp.shape, s) for s in (new, old)]
    if difference or shapes[0] != shapes[1]:
        difference = difference or f"it has shapes {shapes[0]}, init made {shapes[1]}"
        raise ValueError(f"Task: the loss must return a model_state like the one that it was given: {difference}")
    return tree.keep_dtypes(new, old)


def _arrays(name: str, data: Any) -> Any:
    """The data on the device, checked, in memory of the task's own."""
    if data is None:
        return None
    leaves, structure = jax.tree_util.tree_flatten_with_path(data)
    if not leaves:
        raise ValueError(f"Task: {name} holds no arrays; leave it out or give arrays [n, ...]")
    examples, arrays = {}, []
    for path, leaf in leaves:
        where = name + jax.tree_util.keystr(path)
        arrays.append(as_array(f"Task: {where}", leaf))
        if arrays[-1].ndim == 0:
            raise TypeError(f"Task: {where} must be an array [n, ...], got {describe(leaf)}")
        if len(arrays[-1]) == 0:
            raise ValueError(f"Task: {where} holds no examples, its shape is {tuple(arrays[-1].shape)}")
        examples[where] = len(arrays[-1])
    if len(set(examples.values())) > 1:
        lengths = ", ".join(f"{where} has {n}" for where, n in examples.items())
        raise ValueError(f"Task: the arrays of {name} must have equal first dimensions, but {lengths}")
    return jax.tree.unflatten(structure, [own(array) for array in arrays])


def as_array(who: str, value: Any) -> np.ndarray | jax.Array:
    """An array of any library as one of NumPy or JAX, of numbers; it may still share the memory of what was given."""
    array = value
    if not isinstance(value, (np.ndarray, np.generic, jax.Array)):
        if not _is_array(value):
            raise TypeError(f"{who} must be an array [n, ...], got {describe(value)}")
        try:
            array = np.asarray(value) if hasattr(value, "__array__") else np.from_dlpack(value)
        except Exception as error:
            kind = type(value).__name__
            raise TypeError(
                f"{who} must be an array [n, ...], got a {kind} that NumPy cannot read ({error}); give NumPy arrays"
            ) from error
    is_key = isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    is_number = array.dtype == np.bool_ or (jnp.issubdtype(array.dtype, np.number) and array.dtype.kind != "m")
    too_wide = array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8)  # long double, which JAX does not have
    if not is_key and (too_wide or not is_number):
        of = "" if array is value else f" from a {type(value).__name__}; give its columns of numbers as NumPy arrays"
        raise TypeError(f"{who} must be an array of numbers, got dtype {array.dtype}{of}")
    return _kept_by_jax(who, array)


def _kept_by_jax(who: str, array: Any) -> Any:
    """The array in native byte order; raise if JAX would change its numbers silently."""
    if isinstance(array, jax.Array):
        return array
    if np.ma.is_masked(array):
        raise ValueError(f"{who} has masked elements, which arrays of JAX cannot have; fill them, or leave them out")
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and array.size:
        limits = np.iinfo(jax.dtypes.canonicalize_dtype(array.dtype))
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            wrong = low if low < limits.min else high
            raise ValueError(
                f"{who} holds {wrong}, which {limits.dtype} cannot; make the numbers smaller, give them as floats, or "
                "turn on jax_enable_x64"
            )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def own(array: Any) -> jax.Array:
    """The array on the device, in memory of its own.

    JAX may share the memory of a NumPy array, or read it only later (`jnp.array(copy=True)` too), so a change that its
    owner makes would change the data.
    """
    if isinstance(array, jax.Array) or isinstance(jnp.zeros(()), Tracer):  # a trace reads no data
        return jnp.asarray(array)
    return jnp.asarray(np.array(array))
