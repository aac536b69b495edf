"""Static values of a config: which may stand there, and how they are compared, printed and written as JSON."""

import json
from typing import Any

import numpy as np
import optax

from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.text import spell
from jaxopt_lite.core.values import Value

__all__ = []

LARGEST = float(np.finfo(np.float32).max)


def check_static(value: Any, what: str) -> None:
    """Raise unless a value may stand in a config as it is: hashable, or a list or tuple of such."""
    if isinstance(value, (list, tuple)) and not isinstance(value, (Value, optax.GradientTransformation)):
        for element in value:
            check_static(element, what)
        return
    if getattr(value, "noun", "") == "a distribution":
        raise TypeError(f"{what} must not hold a distribution, got {value!r}; use a dict, which has names for them")
    if isinstance(value, optax.GradientTransformation) and not isinstance(value, Value):
        raise TypeError(f"{what} is a plain Optax pair, whose numbers are hidden; use jaxopt_lite's own or lift")
    if getattr(value, "spec", None) is not None and not isinstance(value, Value):
        raise TypeError(f"{what} is the function {value.spec.name}, which makes {value.spec.makes.noun}; call it")
    try:
        hash(value)
    except TypeError:
        raise TypeError(f"{what} must be hashable, because it is static, got {describe(value)}") from None


def check_float32(value: float, what: str, infinite: bool = True) -> None:
    """Raise where a number is infinite as a float32, unless it was so before and that is allowed."""
    if abs(value) > LARGEST and not (infinite and np.isinf(value)):
        raise ValueError(f"{what} must be at most 3.4e38, because it is a float32, got {value!r}")


def frozen(value: Any) -> Any:
    """A hashable stand-in, equal just where types and values are equal.

    Lists and tuples are one type, NumPy's scalars are of Python's types, and NaN is NaN.
    """
    if isinstance(value, (list, tuple)) and not isinstance(value, Value):
        return (list, tuple(map(frozen, value)))
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (float, complex)) and value != value:
        return (type(value), repr(value))
    return (type(value), value)


def printed(value: Any) -> Any:
    """A static value as one prints it: optimizers as the calls that make them, functions as their names."""
    if value is None or isinstance(value, (int, float, str)):
        return json.loads(json.dumps(value))  # an Enum of such becomes the number or the string
    if isinstance(value, Value):
        return spell(value, defaults=True)
    if isinstance(value, (list, tuple)):
        return [printed(element) for element in value]
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def plain(value: Any) -> Any:
    """A static value as JSON has it: as it is printed, with infinite numbers and NaN as text."""
    return json.loads(json.dumps(printed(value)), parse_constant=str)


def shortest(number: Any) -> float:
    """The float of fewest digits that rounds to the same float32: 0.1, not 0.10000000149."""
    return float(str(np.float32(number)))
