"""Checks of plain Python arguments: counts and settings that are neither hyperparameters nor traced.

    steps = check_int("fit", "steps", steps, most=INT32_MAX)
    fraction = check_number("population_based", "fraction", fraction, 0, 0.5, open_low=True)

A wrong type raises a `WrongTypeError`, a value outside its range a ValueError. Both name the function, the argument,
what is allowed and what was given.
"""

import difflib
import math
import numbers
from collections.abc import Collection
from typing import Any

import numpy as np

from jaxopt_lite.core.numbers import describe

__all__ = []


class WrongTypeError(TypeError, ValueError):
    """An argument of a wrong type; a ValueError too, for callers that catch whatever is wrong with a number."""


INT32_MAX = 2**31 - 1  # steps, trials and seeds are counted in int32


def check_int(
    who: str, name: str, value: Any, least: int | None = 1, most: int | None = None, none: bool = False, why: str = ""
) -> Any:
    """An argument that must be an int in [least, most]; bools are refused, NumPy's ints become Python's.

    Args:
        who: the function, for messages.
        name: the argument, for messages.
        value: what the caller gave.
        least: the smallest int allowed; None allows all.
        most: the largest int allowed; None allows all.
        none: allow None, which is returned as it is.
        why: the reason for the upper limit, for its message.

    Returns:
        The int, or None where that is allowed.

    Raises:
        WrongTypeError: if it is not an int.
        ValueError: if it is outside [least, most].
    """
    if none and value is None:
        return None
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        at_least = "" if least is None else f" of at least {least}"
        raise WrongTypeError(f"{who}: {name} must be an int{at_least}, got {describe(value):.80}")
    value = int(value)
    if least is not None and value < least:
        raise ValueError(f"{who}: {name} must be an int of at least {least}, got {value}")
    if most is not None and value > most:
        raise ValueError(f"{who}: {name} must be at most {most}{why and f', because {why}'}, got {value}")
    return value


def check_number(
    who: str, name: str, value: Any, least: float = -math.inf, most: float = math.inf, open_low: bool = False
) -> float:
    """An argument that must be a real number in [least, most], or in (least, most]; bools and NaN are refused.

    Args:
        who: the function, for messages.
        name: the argument, for messages.
        value: what the caller gave.
        least: the lower end.
        most: the upper end.
        open_low: whether the lower end itself is refused.

    Returns:
        The number, unchanged.

    Raises:
        WrongTypeError: if it is not a real number.
        ValueError: if it is outside the range.
    """
    limits = [f"{'above' if open_low else 'of at least'} {least:g}"] if least > -math.inf or open_low else []
    limits += [f"at most {most:g}"] if most < math.inf else []
    message = f"{who}: {name} must be a number {' and '.join(limits)}".rstrip()
    if not isinstance(value, numbers.Real) or isinstance(value, (bool, np.bool_)):
        raise WrongTypeError(f"{message}, got {describe(value):.80}")
    if not ((value > least if open_low else value >= least) and value <= most):
        raise ValueError(f"{message}, got {value!r:.80}")
    return value  # pyright: ignore[reportReturnType]


def check_bool(who: str, name: str, value: Any) -> bool:
    """An argument that must be True or False; NumPy's become Python's.

    Raises:
        WrongTypeError: if it is neither.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise WrongTypeError(f"{who}: {name} must be True or False, got {describe(value):.80}")
    return bool(value)


def check_choice(who: str, name: str, value: Any, options: tuple[str, ...]) -> str:
    """An argument that must be one of some strings.

    Raises:
        ValueError: if it is not one of them.
    """
    if not isinstance(value, str) or value not in options:
        *others, last = map(repr, options)
        raise ValueError(f"{who}: {name} must be {', '.join(others)} or {last}, got {value!r:.80}")
    return value


def nearest(name: Any, known: Collection[str], most: int = 3) -> str:
    """The hint of an error about an unknown name: at most `most` known names that are like it, or else all of them."""
    near = difflib.get_close_matches(str(name), known, most)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known) or 'none'}"
