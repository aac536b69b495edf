"""What a dimension of a space is made of: a range of numbers, or options; and static values as keys and as text.

An axis maps points of the unit interval to numbers of a table and back, and numbers of a table to what a config holds
and back. Numbers in a table are float64 that hold a float32, an int, or the index of an option, so that what is stored
is just what a program is given.
"""

import dataclasses
import functools
import json
import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import optax

from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.parameters import Parameter
from jaxopt_lite.core.text import spell
from jaxopt_lite.core.values import Value

__all__ = []

Map = Callable[[np.ndarray], Any]  # arrays [n] to arrays [n]

_LARGEST = float(np.finfo(np.float32).max)
MOST = 2**31 - 1  # steps, trials and seeds are counted in int32


@dataclasses.dataclass(frozen=True, eq=False)
class Range:
    """Numbers between two ends, both included: floats, or ints."""

    low: Any  # a float or an int
    high: Any
    draw: Map  # [0, 1] -> numbers
    place: Map  # numbers -> [0, 1]
    log: bool = False
    integer: bool = False
    traced: bool = True
    bounded: bool = True  # False: the ends are where tails are cut off
    options = ()

    @property
    def kind(self) -> str:
        """What its values are: "float" or "int"."""
        return "int" if self.integer else "float"

    @functools.cached_property
    def _ends(self) -> tuple[float, float]:
        """The least and the greatest number that a config may hold."""
        return (self.low, self.high) if self.integer else (float(np.float32(self.low)), float(np.float32(self.high)))

    def clip(self, numbers_: np.ndarray) -> np.ndarray:
        """The nearest values of the range: rounded to float32 or to an int, float64 [n]."""
        bounded = np.clip(numbers_, *self._ends)
        return np.round(bounded) if self.integer else bounded.astype(np.float32).astype(np.float64)

    def from_unit(self, u: np.ndarray) -> np.ndarray:
        """Numbers at points of the unit interval, float64 [n]."""
        return self.clip(self.draw(u))

    def to_unit(self, numbers_: np.ndarray) -> np.ndarray:
        """Points of the unit interval at which the numbers lie, float64 [n]."""
        return np.clip(self.place(numbers_), 0.0, 1.0)

    def show(self, numbers_: np.ndarray) -> list:
        """The numbers as a config holds them: float32 where they are traced, ints otherwise."""
        return list(numbers_.astype(np.float32)) if self.traced else numbers_.astype(np.int64).tolist()

    def column(self, numbers_: np.ndarray) -> np.ndarray:
        """The numbers as a table prints them: float32 where traced, else int64; without a value, NaN or None."""
        if self.traced:
            return numbers_.astype(np.float32)
        missing = np.isnan(numbers_)
        column = np.where(missing, 0, numbers_).astype(np.int64)
        if missing.any():
            column = column.astype(object)
            column[missing] = None
        return column

    def read(self, value: Any) -> float:
        """The number that stands for what a config holds; raises a ValueError that says what is expected."""
        if isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)):
            number: Any = value
            low, high = self._ends
            if not self.integer and abs(number) < _LARGEST:
                number = float(np.float32(float(number)))
            if low <= number <= high and (number == int(number) or not self.integer):
                return float(number)
        raise ValueError(f"must be {self}, got {describe(value)}")

    def plain(self, number: float) -> Any:
        """The number as JSON has it: an int, or the shortest digits that give back the float32."""
        return int(number) if self.integer else shortest(number)

    printed = plain

    def unplain(self, value: Any) -> float:
        """The inverse of `plain`; raises a ValueError for what is outside the range."""
        return self.read(value)

    def __str__(self) -> str:
        if self.integer:
            return f"an integer between {self.low} and {self.high}"
        return f"a number between {self.low:g} and {self.high:g}"


@dataclasses.dataclass(frozen=True, eq=False)
class Options:
    """One of several values, or, where `branches` are given, one of several sub-spaces by name."""

    options: tuple
    traced: bool = False
    branches: dict[str, Any] | None = None
    kind = "choice"
    low = high = None
    log = False

    @functools.cached_property
    def _index(self) -> dict:
        return {self._key(option): i for i, option in enumerate(self.options)}

    @functools.cached_property
    def _plain_index(self) -> dict:
        return {frozen(plain(option)): i for i, option in enumerate(self.options)}

    def _key(self, value: Any) -> Any:
        if self.traced:
            return frozen(float(np.float32(value)))
        return frozen(value.item() if isinstance(value, np.generic) else value)

    def clip(self, indices: np.ndarray) -> np.ndarray:
        """The nearest indices of options, float64 [n]."""
        return np.clip(np.round(indices), 0, len(self.options) - 1)

    def from_unit(self, u: np.ndarray) -> np.ndarray:
        """Indices of options at points of the unit interval, float64 [n]."""
        return np.minimum(np.floor(u * len(self.options)), len(self.options) - 1)

    def to_unit(self, indices: np.ndarray) -> np.ndarray:
        """The middles of the options' parts of the unit interval, float64 [n]."""
        return (indices + 0.5) / len(self.options)

    def show(self, indices: np.ndarray) -> list:
        """The options as a config holds them."""
        options = [np.float32(option) for option in self.options] if self.traced else self.options
        return [copied(options[i]) for i in indices.astype(np.int64).tolist()]

    def column(self, indices: np.ndarray) -> np.ndarray:
        """The options as a table prints them, objects in the form of `printed`; None where there is no value."""
        labels = np.empty(len(self.options) + 1, object)
        labels[:-1] = [printed(option) for option in self.options]
        return labels[np.where(np.isnan(indices), len(self.options), indices).astype(np.int64)]

    def read(self, value: Any) -> float:
        """The index of an option; raises a ValueError that lists the options."""
        try:
            return float(self._index[self._key(value)])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ValueError(f"must be {self}, got {describe(value)}") from None

    def plain(self, index: float) -> Any:
        """The option as JSON has it: optimizers, functions, infinite numbers and NaN as text."""
        return plain(self.options[int(index)])

    def printed(self, index: float) -> Any:
        """The option as one prints it: optimizers and functions as text."""
        return printed(self.options[int(index)])

    def unplain(self, value: Any) -> float:
        """The inverse of `plain`; raises a ValueError for what is no option."""
        try:
            return float(self._plain_index[frozen(value)])
        except (KeyError, TypeError):
            raise ValueError(f"must be {self}, got {describe(value)}") from None

    def __str__(self) -> str:
        shown = ", ".join(
            repr(option) if isinstance(option, Value) else repr(printed(option)) for option in self.options
        )
        return f"one of {shown if len(shown) <= 300 else shown[:297] + '...'}"


class Kept(Parameter):
    """A static argument of which the containers alone are copied: a copied function would not be the one given."""

    def normalise(self, value: Any, who: str) -> Any:
        """The argument as it is remembered."""
        return copied(value)


def keep(factory: Any, name: str) -> None:
    """Let a factory of values remember the very objects in the containers of an argument."""
    known = factory.spec.parameters[name]
    factory.spec.parameters[name] = Kept(name=name, kind=known.kind, default=known.default)


def copied(value: Any) -> Any:
    """The same value in lists and dicts of its own."""
    if isinstance(value, dict):
        return {key: copied(element) for key, element in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(copied, value))
    return value.copy() if isinstance(value, np.ndarray) else value


def check_static(value: Any, what: str) -> None:
    """Raise unless a value may stand in a config as it is: hashable, or a list or tuple of such."""
    if isinstance(value, (list, tuple)) and not isinstance(value, (Value, optax.GradientTransformation)):
        for element in value:
            check_static(element, what)
        return
    if getattr(value, "noun", "") == "a distribution":
        raise TypeError(f"{what} must not hold a distribution, got {value!r}; use a dict, which has names for them")
    if isinstance(value, optax.GradientTransformation) and not isinstance(value, Value):
        raise TypeError(
            f"{what} is a plain Optax pair, whose hyperparameters are hidden; use jaxopt_lite's own or lift"
        )
    if getattr(value, "spec", None) is not None and not isinstance(value, Value):
        raise TypeError(f"{what} is the function {value.spec.name}, which makes {value.spec.makes.noun}; call it")
    try:
        hash(value)
    except TypeError:
        raise TypeError(f"{what} must be hashable, because it is static, got {describe(value)}") from None


def check_float32(value: float, what: str) -> None:
    """Raise where a finite number is infinite as a float32."""
    if _LARGEST < abs(value) < float("inf"):
        raise ValueError(f"{what} must be at most 3.4e38, because it is a float32, got {value!r}")


def frozen(value: Any) -> Any:
    """A hashable stand-in, equal just where types and values are equal; lists and tuples are one type, NaN is NaN."""
    if isinstance(value, (list, tuple)) and not isinstance(value, Value):
        return (list, tuple(map(frozen, value)))
    if isinstance(value, (float, complex, np.inexact)) and value != value:
        return (type(value), repr(value))
    return (type(value), value)


def printed(value: Any) -> Any:
    """A static value as one prints it: optimizers as the calls that make them, functions as their names."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (int, float, str)):
        return json.loads(json.dumps(value))  # an Enum of such, as the number or the string
    if isinstance(value, Value):
        return spell(value, defaults=True)
    if isinstance(value, (list, tuple)):
        return [printed(element) for element in value]
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def plain(value: Any) -> Any:
    """A static value as JSON has it: as it is printed, but infinite numbers and NaN as text."""
    if isinstance(value, (list, tuple)) and not isinstance(value, Value):
        return [plain(element) for element in value]
    value = printed(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def shortest(number: Any) -> float:
    """The float of fewest digits that rounds to the same float32: 0.1, not 0.10000000149."""
    return float(str(np.float32(number)))
