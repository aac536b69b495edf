"""Distributions of one hyperparameter: maps from u in [0, 1] to its values, and back.

    uniform                  l + u (h - l)
    log_uniform              l (h / l)ᵘ
    one_minus_log_uniform    1 - (1 - l) ((1 - h) / (1 - l))ᵘ        1 - x is log-uniform: for decays close to 1
    normal                   μ + σ Φ⁻¹(u), cut off at six σ
    int_uniform              l + ⌊u (h - l + 1)⌋
    log_int_uniform          as log_uniform between l - ½ and h + ½, rounded
    choice                   the ⌊u n⌋-th of n options

A distribution is a value: it prints as the call that makes it, parses, compares and pickles. It builds an `Axis`, which
maps points of the unit interval to numbers of a table, and these to what a config holds.
"""

import contextlib
import dataclasses
import functools
import math
import numbers
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np
from scipy.special import ndtr, ndtri

from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.numbers import Decay, Positive, Scalar, describe
from jaxopt_lite.core.parameters import copied
from jaxopt_lite.core.values import Value, register, remember_calls
from jaxopt_lite.sweeps.configs import LARGEST, check_float32, check_static, frozen, plain, printed, shortest

__all__ = [
    "Distribution",
    "choice",
    "int_uniform",
    "log_int_uniform",
    "log_uniform",
    "normal",
    "one_minus_log_uniform",
    "uniform",
]

P = ParamSpec("P")
Map = Callable[[np.ndarray], Any]  # arrays [n] to arrays [n]

_EXACT = 24  # float32 holds every int up to 2**24
_EXACT_IN_TABLE = 53  # and float64, in which tables hold them, up to 2**53
_EXACT_BY_LOG = 45  # up to 2**45 a logarithm in float64 tells neighbouring ints apart


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """The values of one dimension: floats or ints between two ends, or options.

    A table holds them as float64 numbers: a float32, an int, or the index of an option. So an axis of options is one of
    ints from 0 to n - 1.

    Attributes:
        kind: "float", "int" or "choice".
        low: the lower end, which is included.
        high: the upper end, which is included.
        number_at: maps u in [0, 1] to numbers, before they are rounded and clipped.
        place_of: the inverse of `number_at`.
        log: whether the scale is logarithmic.
        traced: whether configs hold float32 scalars, which are arguments of the compiled program.
        bounded: False where the ends only cut off the tails of a distribution.
        options: of a choice.
        branches: of a choice among sub-spaces: each by its name.
    """

    kind: str
    low: Any
    high: Any
    number_at: Map
    place_of: Map
    log: bool = False
    traced: bool = True
    bounded: bool = True
    options: tuple = ()
    branches: dict[str, Any] | None = None

    @property
    def integer(self) -> bool:
        """Whether the numbers of a table are ints."""
        return self.kind != "float"

    @functools.cached_property
    def _ends(self) -> list[float]:
        return self.clip(np.array([self.low, self.high])).tolist()

    @functools.cached_property
    def _indices(self) -> dict:
        """The index of each option, by what a config holds and by what JSON holds."""
        return {key: i for i, o in enumerate(self.options) for key in (frozen(plain(o)), self._key(o))}

    def _key(self, value: Any) -> Any:
        return frozen(float(np.float32(value)) if self.traced else value)

    def draw(self, u: np.ndarray) -> np.ndarray:
        """The numbers at points of the unit interval, float64 [n]."""
        return self.clip(self.number_at(u))

    def place(self, numbers_: np.ndarray) -> np.ndarray:
        """Points of the unit interval at which numbers lie, float64 [n]; ints lie in the middle of their part."""
        return np.clip(self.place_of(numbers_), 0.0, 1.0)

    def clip(self, numbers_: np.ndarray) -> np.ndarray:
        """The nearest numbers of the axis: within the ends, and rounded to a float32 or an int, float64 [n]."""
        bounded = np.clip(numbers_, self.low, self.high)
        return np.round(bounded) if self.integer else bounded.astype(np.float32).astype(np.float64)

    def show(self, numbers_: np.ndarray) -> list:
        """The values as a config holds them: float32 scalars where traced, else ints, or copies of the options."""
        if self.options:
            values = [self.options[i] for i in numbers_.astype(np.int64).tolist()]
            return [np.float32(value) if self.traced else copied(value) for value in values]
        return list(numbers_.astype(np.float32)) if self.traced else numbers_.astype(np.int64).tolist()

    def value(self, number: float) -> Any:
        """One value in Python's types: the option itself, an int, or the float of fewest digits."""
        if self.options:
            return self.options[int(number)]
        return int(number) if self.integer else shortest(number)

    def read(self, value: Any, what: str = "a value") -> float:
        """The number that stands for what a config or its JSON form holds; `what` begins the message of an error.

        Raises:
            ValueError: if it is outside the range, or none of the options; it lists what is expected.
        """
        if self.options:
            with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
                return float(self._indices[self._key(value)])
        elif isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)):
            low, high = self._ends
            number: Any = float(np.float32(value)) if not self.integer and abs(value) < LARGEST else value
            if low <= number <= high and (number == int(number) or not self.integer):
                return float(number)
        raise ValueError(f"{what} must be {self}, got {describe(value)}")

    def __str__(self) -> str:
        if self.options:
            shown = ", ".join(repr(option if isinstance(option, Value) else printed(option)) for option in self.options)
            return f"one of {shown if len(shown) <= 300 else shown[:297] + '...'}"
        if self.integer:
            return f"an integer between {self.low} and {self.high}"
        return f"a number between {self.low:g} and {self.high:g}"


@register
class Distribution(Value):
    """A distribution of one hyperparameter. `built` is its `Axis`: kind, range or options, and the maps."""

    noun = "a distribution"
    built: Axis


def distribution(function: Callable[P, Axis]) -> Callable[P, Distribution]:
    """Make a factory of distributions: the decorated function returns an `Axis`."""
    return remember_calls(function, Distribution)


@distribution
def uniform(low: Scalar, high: Scalar):
    """A number between two ends, all equally likely. It is traced.

    Args:
        low: l, the lower end.
        high: h, the upper end, above `low`.

    Raises:
        ValueError: if low is not below high (in float32).
    """
    _check_ends("uniform", low, high)
    return Axis("float", low, high, lambda u: low + u * (high - low), lambda x: (x - low) / (high - low))


@distribution
def log_uniform(low: Positive, high: Positive):
    """A number whose logarithm is uniform: each decade is equally likely. It is traced.

    Args:
        low: l, the lower end, above 0.
        high: h, the upper end, above `low`.

    Raises:
        ValueError: if low is not above 0, or not below high (in float32).
    """
    _check_ends("log_uniform", low, high)
    return Axis("float", low, high, *_log_maps(low, high), log=True)


@distribution
def one_minus_log_uniform(low: Decay, high: Decay):
    """A number x of which 1 - x is log-uniform: 0.9, 0.99 and 0.999 are equally far apart. It is traced.

    Args:
        low: l, the lower end, at least 0.
        high: h, the upper end, above `low` and below 1.

    Raises:
        ValueError: if an end is outside [0, 1), or low is not below high (in float32).

    Reference: Choi et al., "On Empirical Comparisons of Optimizers for Deep Learning", 2019, arXiv:1910.05446,
        appendix on search spaces.
    """
    _check_ends("one_minus_log_uniform", low, high)
    number_at, place_of = _log_maps(1 - low, 1 - high)
    return Axis("float", low, high, lambda u: 1 - number_at(u), lambda x: place_of(1 - x))


@distribution
def normal(mean: Scalar, std: Positive):
    """A normally distributed number, cut off at six standard deviations. It is traced.

    Args:
        mean: μ.
        std: σ, above 0.

    Raises:
        ValueError: if std is not above 0, or too small beside the mean for float32.
    """
    low, high = mean - 6.0 * std, mean + 6.0 * std
    _check_ends("normal", low, high, names=("mean - 6 std", "mean + 6 std"))
    # Φ⁻¹ is infinite at 0 and 1, until it is clipped.
    return Axis("float", low, high, lambda u: mean + std * ndtri(u), lambda x: ndtr((x - mean) / std), bounded=False)


@distribution
def int_uniform(low: int, high: int, traced: bool = False):
    """An integer from low to high, both included, all equally likely.

    Args:
        low: the least.
        high: the greatest, above `low`.
        traced: give it to the program as a float32 number. Otherwise it is static: each value is a program of its own.

    Raises:
        TypeError: if an end is not an int.
        ValueError: if low is not below high, or an end is beyond ±2**53 (±2**24 where traced).
    """
    _check_ends("int_uniform", low, high, _EXACT if traced else _EXACT_IN_TABLE)
    return Axis("int", low, high, *_int_maps(low, high), traced=traced)


@distribution
def log_int_uniform(low: int, high: int, traced: bool = False):
    """An integer from low to high, both included, each octave about equally likely.

    Args:
        low: the least, at least 1.
        high: the greatest, above `low`.
        traced: give it to the program as a float32 number. Otherwise it is static: each value is a program of its own,
            and of 256 draws between 16 and 1024 some 190 differ.

    Raises:
        TypeError: if an end is not an int.
        ValueError: if low is below 1 or not below high, or high is above 2**45 (2**24 where traced).
    """
    _check_ends("log_int_uniform", low, high, _EXACT if traced else _EXACT_BY_LOG)
    check_int("log_int_uniform", "low", low)
    return Axis("int", low, high, *_log_maps(low - 0.5, high + 0.5), log=True, traced=traced)


@distribution
def choice(options: Any, traced: bool = False):
    """One of several options, all equally likely.

    Args:
        options: a list of numbers, strings, None, bools, lists, functions of a module, or whole optimizers; or a dict
            of sub-spaces: `choice({"adam": {"b1": uniform(0.8, 0.99)}, "sgd": {}})` arrives in the config as
            `{"name": "adam", "b1": ...}`. Options are static, except for the hyperparameters of optimizers.
        traced: give the option, a number, to the program as float32, so that all options share one program.

    Raises:
        TypeError: if an option cannot be hashed or is a distribution, or traced options are not numbers of one type.
        ValueError: if there is no option, two are the same (or are written the same, as two lambdas are), or a traced
            one is too large for a float32.
    """
    if not isinstance(options, (list, tuple, dict)) or hasattr(options, "_fields"):
        raise TypeError(f"choice: options must be a list, or a dict of sub-spaces, got {describe(options)}")
    if not options:
        raise ValueError("choice: options must not be empty")
    branches, last = options if isinstance(options, dict) else None, len(options) - 1
    for name, branch in (branches or {}).items():
        if not isinstance(name, str):
            raise TypeError(f"choice: the names of sub-spaces must be strings, got {describe(name)}")
        if not isinstance(branch, dict) and getattr(branch, "noun", "") != "a space":
            got = f"{describe(branch)}; whole optimizers are given as a list"
            raise TypeError(f"choice: the sub-space {name!r} must be a dict of its hyperparameters, got {got}")
    _check_options(tuple(options), traced)
    return Axis("choice", 0, last, *_int_maps(0, last), traced=traced, options=tuple(options), branches=branches)


def _check_options(options: tuple, traced: bool) -> None:
    for option in options:
        if isinstance(option, dict):
            raise TypeError(f"choice: sub-spaces are given by name, {{'name': {{...}}}}, got {option!r} in a list")
        check_static(option, "choice: an option")
    if traced and {type(option) for option in options} not in ({int}, {float}):
        raise TypeError(f"choice: traced options must be numbers of one type, all int or all float, got {options}")
    for option in options if traced else ():
        if isinstance(option, int):
            check_int("choice", "a traced option", option, -(2**_EXACT), 2**_EXACT, why="it is a float32")
        check_float32(option, "choice: a traced option")
    texts = [frozen(float(np.float32(o)) if traced else plain(o)) for o in options]
    for i, text in enumerate(texts):
        if text in texts[:i]:
            raise ValueError(f"choice: options {texts.index(text)} and {i} are both {printed(options[i])!r}")


def _log_maps(low: Any, high: Any) -> tuple[Map, Map]:
    start, width = math.log(low), math.log(high) - math.log(low)
    return lambda u: np.exp(start + u * width), lambda x: (np.log(x) - start) / width


def _int_maps(low: int, high: int) -> tuple[Map, Map]:
    n = high - low + 1
    return lambda u: np.minimum(low + np.floor(u * n), high), lambda x: (x - low + 0.5) / n


def _check_ends(who: str, low: Any, high: Any, bits: int = 0, names: tuple[str, str] = ("low", "high")) -> None:
    """Raise unless the ends differ and are held exactly: ints up to 2**bits, or else numbers as float32."""
    for name, end in zip(names, (low, high), strict=True):
        if bits:
            kind = "float32" if bits == _EXACT else "float64"
            why = f"{kind} does not tell ints beyond 2**{bits} apart (draw a smaller one and add to it in trial)"
            check_int(who, name, end, -(2**bits), 2**bits, why=why)
        else:
            check_float32(end, f"{who}: {name}", infinite=False)
    if low >= high or (not bits and np.float32(low) >= np.float32(high)):
        got = f"{low!r} and {high!r}{' (in float32 they are equal)' if low < high else ''}"
        raise ValueError(f"{who}: {names[0]} must be below {names[1]}, got {got}; a constant is given as a number")
