"""The annotations that make an argument a hyperparameter, and the ranges that they check.

The annotation of a factory's argument decides what it is. `b1: Decay` is a leaf of the value's pytree, between 0 and 1;
`learning_rate: LearningRate` is a leaf or a schedule; anything else is static. Numbers become Python floats at
construction, step counts too, so that every leaf can be differentiated; arrays stay arrays. Ranges are checked once, at
construction, with NumPy and after rounding to float32 (`1 - 1e-9` is 1 there); traced values are never checked.
"""

import dataclasses
import math
import numbers
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

__all__ = [
    "Count",
    "Decay",
    "Fraction",
    "NonNegative",
    "Positive",
    "PositiveCount",
    "Rate",
    "Scalar",
    "Table",
    "Vector",
]


@dataclasses.dataclass(frozen=True)
class Range:
    """The interval that a number must lie in, and its number of dimensions."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    ndim: int = 0
    columns: tuple[tuple[str, float | None], ...] = ()  # of a table given as dicts: (name, default)

    def __str__(self):
        """The range as in an error message: `in [0, 1)`, `at least 0`, `above 0`, `finite`."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
            return f"in {left}{self.low:g}, {self.high:g}{right}"
        if math.isfinite(self.low):
            bound = f"{'above' if self.open_low else 'at least'} {self.low:g}"
            return bound + (" and finite" if self.open_high else "")
        return "finite" if self.open_high else "a number"

    def holds(self, value: np.ndarray) -> bool:
        """Whether every element lies inside (NaN never does)."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return bool(np.all(above & below))


Number = float | int | np.ndarray | jax.Array

Scalar = Annotated[Number, Range(open_low=True, open_high=True)]
NonNegative = Annotated[Number, Range(low=0.0)]
Rate = Annotated[Number, Range(low=0.0, open_high=True)]
Positive = Annotated[Number, Range(low=0.0, open_low=True)]
Fraction = Annotated[Number, Range(low=0.0, high=1.0)]
Decay = Annotated[Number, Range(low=0.0, high=1.0, open_high=True)]
Count = Annotated[Number, Range(low=0.0, open_high=True)]
PositiveCount = Annotated[Number, Range(low=0.0, open_low=True, open_high=True)]
Vector = Annotated[Number | list | tuple, Range(open_low=True, open_high=True, ndim=1)]
Table = Annotated[Number | list | tuple | dict, Range(open_low=True, open_high=True, ndim=2)]

_WHAT = ("a number", "a list of numbers", "a list of rows of numbers")  # by number of dimensions


def number(value: Any, range_: Range, who: str, name: str, other: str = "") -> Any:
    """Turn a given number into a leaf: a Python float, or an array.

    Args:
        value: what the caller gave.
        range_: the range of the annotation.
        who: the factory, for messages.
        name: the argument, for messages.
        other: what else would be allowed, for messages, such as " or a schedule".

    Raises:
        TypeError: for what is not a number.
        ValueError: for a concrete number outside its range.
    """
    columns = f" ({', '.join(column for column, _ in range_.columns)})" if range_.columns else ""
    what = f"{who}: {name} must be {_WHAT[range_.ndim]}{columns}{other}"
    if range_.ndim and isinstance(value, (list, tuple, dict)):
        value = _table(value, range_, what)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, str, bytes)) or value is None:
        raise TypeError(f"{what}, got {describe(value)}")
    if isinstance(value, numbers.Real):
        value = _float(value)
    elif isinstance(value, (np.ndarray, jax.Array)):
        value = _real_array(value, what)
    else:
        raise TypeError(f"{what}, got {describe(value)}")
    if np.ndim(value) < range_.ndim:
        raise TypeError(f"{what}, got {value!r}")
    check_range(value, range_, who, name)
    return value


def check_range(value: Any, range_: Range, who: str, name: str) -> None:
    """Raise a ValueError if the number is concrete and outside its range, after rounding to float32."""
    if isinstance(value, Tracer):
        return
    with np.errstate(over="ignore"):
        rounded = np.asarray(value).astype(np.float32)
    if range_.holds(rounded):
        return
    shown = repr(value) if isinstance(value, float) else np.array2string(np.asarray(value), threshold=8)
    if isinstance(value, float) and range_.holds(np.asarray(value)):
        shown += f", which is {rounded} in float32"
    raise ValueError(f"{who}: {name} must be {range_}, got {shown}")


def concrete(*values: Any) -> bool:
    """Whether all of the numbers are concrete, so that they may be compared in Python."""
    return not any(isinstance(value, Tracer) for value in values)


def check_used_as_scalar(value: Any, range_: Range, who: str, name: str) -> None:
    """Raise if a leaf that should be a scalar still has dimensions when it is used, as after a forgotten vmap."""
    if is_batch(value, range_):
        what = ("a scalar", "a vector", "a table")[range_.ndim]
        raise ValueError(
            f"{who}: {name} has shape {np.shape(value)} where {what} is used; an optimizer with array hyperparameters "
            "is a batch of optimizers: use it under jax.vmap, or index it with "
            "jax.tree.map(lambda x: x[i], optimizer)"
        )


def is_batch(value: Any, range_: Range) -> bool:
    """Whether a leaf has more dimensions than its annotation: it is one number for each of many optimizers."""
    return np.ndim(value) > range_.ndim


def _float(value: numbers.Real) -> float:
    try:
        return float(value)
    except OverflowError:  # an int of more than 308 digits
        return math.inf if value > 0 else -math.inf


def _table(value: Any, range_: Range, what: str) -> Any:
    """An array from a list of numbers or rows, a dict (its items are the rows), or a list of dicts of columns."""
    rows = [list(pair) for pair in value.items()] if isinstance(value, dict) else value
    try:
        if range_.columns:
            rows = [_row(row, range_.columns) if isinstance(row, dict) else list(row) for row in rows]
        leaves = jax.tree.leaves(rows)
        if any(isinstance(leaf, (bool, str)) for leaf in leaves):
            raise TypeError("not a number")
        if not concrete(*leaves):
            array = jnp.asarray(rows, dtype=float)
        else:
            array = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what}, got {value!r} ({error})") from None
    if not array.size:
        return array.reshape((0,) * range_.ndim)
    if array.ndim != range_.ndim or range_.columns and array.shape[1] != len(range_.columns):
        raise ValueError(f"{what}, got {value!r}")
    return array


def _row(given: dict, columns: tuple) -> list:
    unknown = set(given) - {name for name, _ in columns}
    missing = [name for name, default in columns if default is None and name not in given]
    if unknown or missing:
        faults = {"unknown": sorted(map(str, unknown)), "missing": missing}
        raise ValueError(", ".join(f"{word} {', '.join(names)}" for word, names in faults.items() if names))
    return [given.get(name, default) for name, default in columns]


def _real_array(value: Any, what: str) -> Any:
    real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    if not real:
        raise TypeError(f"{what}, got {describe(value)}")
    if jnp.issubdtype(value.dtype, jnp.integer):
        return value.astype(np.float32)
    return value.copy() if isinstance(value, np.ndarray) else value


def describe(value: Any) -> str:
    """Describe a given value for an error message."""
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"the string {value!r}"
    if isinstance(value, (np.ndarray, jax.Array)):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    if isinstance(value, type):
        return f"the type {value.__name__}"
    if callable(value) and not hasattr(value, "factory"):
        return f"the function {getattr(value, '__name__', value)!r}"
    shown = repr(value)
    return f"{shown if len(shown) <= 80 else shown[:77] + '...'} of type {type(value).__name__}"
