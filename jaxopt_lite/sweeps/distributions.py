"""Distributions of one hyperparameter: maps from u in [0, 1] to its values, and back.

    uniform                  l + u (h - l)
    log_uniform              l (h / l)ᵘ
    one_minus_log_uniform    1 - (1 - l) ((1 - h) / (1 - l))ᵘ        1 - x is log-uniform: for decays close to 1
    normal                   μ + σ Φ⁻¹(u), cut off at six σ
    int_uniform              l + ⌊u (h - l + 1)⌋
    log_int_uniform          as log_uniform between l - ½ and h + ½, rounded
    choice                   the ⌊u n⌋-th of n options

A distribution is a value: it prints as the call that makes it, parses, compares and pickles.
"""

import math
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np
from scipy import special

from jaxopt_lite.core.numbers import Decay, Positive, Scalar, describe
from jaxopt_lite.core.values import Value, register, remember_calls
from jaxopt_lite.sweeps.axes import Map, Options, Range, check_float32, check_static, frozen, keep, plain, printed

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

_EXACT = 2**24  # float32 holds every int up to here
_EXACT_IN_TABLE = 2**53  # and float64, in which tables hold them
_EXACT_BY_LOG = 2**45  # up to here a logarithm in float64 tells neighbouring ints apart
_CUT = 6.0  # standard deviations


@register
class Distribution(Value):
    """A distribution of one hyperparameter. `built` says its kind, its range or options, and the two maps."""

    noun = "a distribution"
    built: Any  # a Range or Options


def distribution(function: Callable[P, Range | Options]) -> Callable[P, Distribution]:
    """Make a factory of distributions: the decorated function returns a `Range` or `Options`."""
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
    _check_order("uniform", low, high)
    return Range(low, high, draw=lambda u: low + u * (high - low), place=lambda x: (x - low) / (high - low))


@distribution
def log_uniform(low: Positive, high: Positive):
    """A number whose logarithm is uniform: each decade is equally likely. It is traced.

    Args:
        low: l, the lower end, above 0.
        high: h, the upper end, above `low`.

    Raises:
        ValueError: if low is not above 0, or not below high (in float32).
    """
    _check_order("log_uniform", low, high)
    return Range(low, high, *_log_maps(low, high), log=True)


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
    _check_order("one_minus_log_uniform", low, high)
    draw, place = _log_maps(1 - low, 1 - high)
    return Range(low, high, draw=lambda u: 1 - draw(u), place=lambda x: place(1 - x))


@distribution
def normal(mean: Scalar, std: Positive):
    """A normally distributed number, cut off at six standard deviations. It is traced.

    Args:
        mean: μ.
        std: σ, above 0.

    Raises:
        ValueError: if std is not above 0, or too small beside the mean for float32.
    """
    low, high = mean - _CUT * std, mean + _CUT * std
    _check_order("normal", low, high, names="mean - 6 std and mean + 6 std")
    draw, place = (lambda u: mean + std * special.ndtri(_inside(u))), (lambda x: special.ndtr((x - mean) / std))
    return Range(low, high, draw, place, bounded=False)


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
    _check_ints("int_uniform", low, high, traced, _EXACT_IN_TABLE)
    n = high - low + 1
    draw, place = (lambda u: np.minimum(low + np.floor(u * n), high)), (lambda x: (x - low + 0.5) / n)
    return Range(low, high, draw, place, integer=True, traced=traced)


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
    _check_ints("log_int_uniform", low, high, traced, _EXACT_BY_LOG)
    if low < 1:
        raise ValueError(f"log_int_uniform: low must be at least 1, got {low}")
    draw, place = _log_maps(low - 0.5, high + 0.5)
    return Range(low, high, draw, place, log=True, integer=True, traced=traced)


@distribution
def choice(options: Any, traced: bool = False):
    """One of several options, all equally likely.

    Args:
        options: a list of numbers, strings, None, bools, lists, functions of a module, or whole optimizers; or a dict
            of sub-spaces: `choice({"adam": {"b1": uniform(0.8, 0.99)}, "sgd": {}})` arrives in the config as
            `{"name": "adam", "b1": ...}`. Options are static, but for the hyperparameters of optimizers.
        traced: give the option, a number, to the program as float32, so that all options share one program.

    Raises:
        TypeError: if an option cannot be hashed or is a distribution, or traced options are not numbers of one type.
        ValueError: if there is no option, two are the same (or are written the same, as two lambdas are), or a traced
            one is too large for a float32.
    """
    if isinstance(options, dict):
        return _branches(options, traced)
    if not isinstance(options, (list, tuple)) or hasattr(options, "_fields"):
        raise TypeError(f"choice: options must be a list, or a dict of sub-spaces, got {describe(options)}")
    options = tuple(o.item() if isinstance(o, np.generic) else o for o in options)
    if not options:
        raise ValueError("choice: options must not be empty")
    for option in options:
        if isinstance(option, dict):
            raise TypeError(f"choice: sub-spaces are given by name, {{'name': {{...}}}}, got {option!r} in a list")
        check_static(option, "choice: an option")
    if traced and not ({type(o) for o in options} <= {int} or {type(o) for o in options} <= {float}):
        raise TypeError(f"choice: traced options must be numbers of one type, all int or all float, got {options}")
    for option in options if traced else ():
        if isinstance(option, int) and abs(option) > _EXACT:
            raise ValueError(f"choice: traced options that are ints must be at most 2**24, got {option}")
        check_float32(option, "choice: a traced option")
    texts = [frozen(float(np.float32(o)) if traced else plain(o)) for o in options]
    for i, written in enumerate(texts):
        if written in texts[:i]:
            raise ValueError(f"choice: options {texts.index(written)} and {i} are both {printed(options[i])!r}")
    return Options(options, traced)


keep(choice, "options")


def _branches(options: dict, traced: bool) -> Options:
    if traced:
        raise TypeError("choice: the name of a sub-space is static, so traced must be False")
    if not options:
        raise ValueError("choice: options must not be empty")
    for name, option in options.items():
        if not isinstance(name, str):
            raise TypeError(f"choice: the names of sub-spaces must be strings, got {describe(name)}")
        if not (isinstance(option, dict) or getattr(option, "noun", "") == "a space"):
            raise TypeError(
                f"choice: the sub-space {name!r} must be a dict of its own hyperparameters ({{}} for none), got "
                f"{describe(option)}; whole optimizers are given as a list"
            )
    return Options(tuple(options), branches=options)


def _log_maps(low: Any, high: Any) -> tuple[Map, Map]:
    start, width = math.log(low), math.log(high) - math.log(low)
    return lambda u: np.exp(start + u * width), lambda x: (np.log(x) - start) / width


def _inside(u: np.ndarray) -> np.ndarray:
    """Keep Φ⁻¹ finite."""
    return np.clip(u, np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).epsneg)


def _check_order(who: str, low: Any, high: Any, names: str = "low and high") -> None:
    for end in (low, high):
        check_float32(end, f"{who}: each of {names}")
    if np.float32(low) >= np.float32(high):
        same = " (in float32 they are equal)" if low < high else ""
        raise ValueError(
            f"{who}: {names} must differ, the first below the second, got {low!r} and {high!r}{same}; "
            "a constant is written as the number itself"
        )


def _check_ints(who: str, low: Any, high: Any, traced: bool, most: int) -> None:
    for name, value in (("low", low), ("high", high)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{who}: {name} must be an int, got {describe(value)}")
        if traced and abs(value) > _EXACT:
            raise ValueError(f"{who}: {name} must be at most 2**24 where traced, because it is a float32, got {value}")
        if abs(value) > most:
            limit = f"2**{most.bit_length() - 1}"
            raise ValueError(
                f"{who}: {name} must be at most {limit}, because float64 does not tell larger ints apart, got {value}; "
                "draw a smaller one and add to it in trial"
            )
    if low >= high:
        raise ValueError(
            f"{who}: low must be below high, got {low} and {high}; a constant is written as the number itself"
        )
