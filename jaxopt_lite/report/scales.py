"""How hyperparameters are drawn: where a value lies on an axis from 0 to 1, and which values are written beside it.

Every range is drawn on its own scale, that of its distribution: logarithmic, of 1 - x, or of a normal distribution.
"""

import math
from typing import Any

import numpy as np

from jaxopt_lite.report.analysis import label
from jaxopt_lite.sweeps.configs import printed
from jaxopt_lite.sweeps.distributions import Axis

__all__ = []

Ticks = list[tuple[float, str]]

_NONE = -0.12  # the position of trials without a value


def places(axis: Axis, column: np.ndarray, spread: float = 0.0) -> np.ndarray:
    """Where numbers of a table lie between 0 and 1, float64 [n]; below 0 for NaN.

    Args:
        axis: of the dimension.
        column: the numbers, float64 [n].
        spread: share of its part over which the trials with one option are spread, in their order.
    """
    at = np.full(len(column), _NONE)
    has = ~np.isnan(column)
    at[has] = axis.place(column[has])
    steps = _steps(axis)
    for value in np.unique(column[has]) if steps and spread else ():
        members = np.flatnonzero(column == value)
        at[members] += spread / steps * (np.arange(len(members)) + 0.5 - len(members) / 2) / len(members)
    return at


def _steps(axis: Axis) -> int:
    """The number of possible values if there are fewer than 12 or options, else 0."""
    if axis.kind == "choice":
        return len(axis.options)
    return axis.high - axis.low + 1 if axis.integer and not axis.log and axis.high - axis.low < 12 else 0


def ticks(axis: Any, column: np.ndarray, longest: int = 14, closest: float = 0.12) -> Ticks:
    """The values to write beside an axis: (where, what), from the lowest to the highest.

    Args:
        axis: of the dimension.
        column: the numbers that are drawn, float64 [n]; where one is NaN, "none" is among the values.
        longest: number of letters beyond which a text is cut.
        closest: two numbers, from 0 to 1.
    """
    if axis.kind == "choice":
        every = math.ceil(len(axis.options) / 12)
        indices = np.arange(0, len(axis.options), every, dtype=np.float64)
        drawn = [
            (float(u), _cut(label(printed(axis.value(i))), longest))
            for u, i in zip(axis.place(indices), indices, strict=True)
        ]
    else:
        candidates = _candidates(axis)
        drawn = _thinned([(float(axis.place(np.float64(x))), label(x)) for x in candidates], closest)
    return [(_NONE, "none"), *drawn] if np.isnan(column).any() else drawn


def _candidates(axis: Any) -> list[Any]:
    """Round numbers of a range, those that matter most first."""
    from matplotlib.ticker import MaxNLocator

    low, high = axis.low, axis.high
    if _is_close_to_one(axis):
        tens = [1 - 10.0**-k for k in range(8)]
        others = [1 - m * 10.0**-k for m in (5, 2) for k in range(1, 8)]
        found = tens + others
    elif axis.log:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = math.ceil(len(exponents) / 6)
        found = [m * 10.0**k for m in (1, 3, 2, 5) for k in exponents if m > 1 or k % every == 0]
        if axis.integer:
            found = [2**k for k in range(max(high, 1).bit_length())]
            found = found[:: math.ceil(len(found) / 7)]
    else:
        if not axis.bounded:
            low, high = axis.draw(np.array([0.02, 0.98]))
        found = list(MaxNLocator(nbins=5, integer=axis.integer).tick_values(low, high))
    slack = 1e-6 * (high - low)
    inside = [x for x in found if low - slack <= x <= high + slack]
    if axis.integer:
        return [round(x) for x in inside] or [low, high]
    return [float(f"{x:.6g}") for x in inside] or [low, high]


def _is_close_to_one(axis: Axis) -> bool:
    """Whether the axis is logarithmic in 1 - x."""
    middle = float(axis.draw(np.array(0.5)))
    return not axis.log and not axis.integer and axis.bounded and middle > axis.low + 0.55 * (axis.high - axis.low)


def _thinned(drawn: Ticks, closest: float) -> Ticks:
    """The ticks without those that are too close to an earlier one."""
    kept: Ticks = []
    for where, what in drawn:
        if all(abs(where - other) >= closest for other, _ in kept):
            kept.append((where, what))
    return sorted(kept)


def broken(name: str, width: int) -> str:
    """A flat name broken after dots into lines of at most `width` characters; only the last two lines are kept."""
    lines: list[str] = []
    for part in name.replace(".", ".\n").split("\n"):
        if lines and len(lines[-1]) + len(part) <= width:
            lines[-1] += part
        else:
            lines.append(part)
    return "\n".join(_cut(line, width) for line in lines[-2:])


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
