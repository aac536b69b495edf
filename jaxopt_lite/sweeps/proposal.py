"""A proposal of what to sweep: ranges for an optimizer's hyperparameters, from their annotations and values."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from jaxopt_lite.core.arguments import check_number
from jaxopt_lite.core.hyperparameters import hyperparameters, parameters_of, replace
from jaxopt_lite.core.numbers import Count, Fraction, PositiveCount, concrete, describe
from jaxopt_lite.core.parameters import Parameter
from jaxopt_lite.core.values import Value
from jaxopt_lite.sweeps.distributions import Distribution, log_uniform, one_minus_log_uniform, uniform

__all__ = ["space_of"]

_FRACTION, *_COUNTS = (get_args(kind)[1] for kind in (Fraction, Count, PositiveCount))


def space_of(optimizer: Value, decades: float = 2.0, include: Sequence[str] = ()) -> dict[str, Distribution]:
    """Propose distributions around an optimizer's hyperparameters.

        a decay x in [0, 1)                 1 - x log-uniform around its value, so 0.9 becomes [0, 0.99]
        a fraction in [0, 1]                uniform
        any other number x above 0          log-uniform around its value

    Left out are numbers at 0 or below (their scale is not known), every `eps`, counts of steps (they go with the length
    of the run), vectors, and ranges whose ends the optimizer refuses.

    Args:
        optimizer: a transformation or a schedule, its numbers concrete.
        decades: width of the log-uniform ranges: 2 is from a tenth of the value to ten times it.
        include: names (or whole paths) that would be left out because they are an `eps` or a count, such as `("eps",)`.

    Returns:
        A dict of path: distribution, to edit and to hand to `sweep` or `space`. Alone it makes configs that
        `replace(optimizer, config)` takes; in `{"optimizer": space_of(optimizer), ...}`, `config["optimizer"]` is one.

    Raises:
        TypeError: if it is given no transformation or schedule.
        ValueError: if decades is not above 0, nothing is left to propose, or a name in `include` is none or
            allows no range.

    >>> import jaxopt_lite as jo
    >>> space_of(jo.sgd(0.1, momentum=0.9))
    {'sgd.learning_rate': log_uniform(0.01, 1.0), 'sgd.momentum': one_minus_log_uniform(0.0, 0.99)}
    """
    if not isinstance(optimizer, Value):
        raise TypeError(f"space_of: optimizer must be a transformation or a schedule, got {describe(optimizer)}")
    check_number("space_of", "decades", decades, 0, open_low=True)
    values = hyperparameters(optimizer)
    if not concrete(*values.values()):
        raise TypeError("space_of: the numbers of the optimizer are traced; call it outside jit")
    if isinstance(include, str):
        raise TypeError(f"space_of: include must be a sequence of names, got the string {include!r}")
    chosen, proposal = set(), {}
    for name in include:
        found = {path for path in values if path == name or path.endswith("." + name)}
        if not found:
            raise ValueError(f"space_of: there is no {name!r} to include; there are {', '.join(values) or 'none'}")
        chosen |= found
    for path, parameter in parameters_of(optimizer).items():
        is_count = parameter.range in _COUNTS and parameter.holds is None
        if path not in chosen and (is_count or parameter.name.startswith("eps")):
            continue
        try:
            distribution = _around(values[path], parameter, decades)
            for end in (distribution.built.low, distribution.built.high):
                replace(optimizer, {path: end})
            proposal[path] = distribution
        except ValueError as error:
            if path in chosen:
                what = f"{path} = {values[path]}: it must be a number above 0"
                raise ValueError(f"space_of: no range around {what}, with ends that are accepted ({error})") from None
    if not proposal:
        raise ValueError(f"space_of: nothing to propose for {optimizer!r}, whose numbers are {values}")
    return proposal


def _around(value: Any, parameter: Parameter, decades: float) -> Distribution:
    """A distribution; raises a ValueError for keys, vectors, and numbers that are not finite or not above 0."""
    if parameter.is_key or np.ndim(value):
        raise ValueError("it is a key or a vector")
    value, factor = float(value), 10 ** (decades / 2)
    if parameter.is_decay and 0 <= value < 1:
        ends = min(1.0, (1 - value) * factor), max(1e-6, (1 - value) / factor)
        return one_minus_log_uniform(*(round(1 - float(f"{end:.6g}"), 12) for end in ends))
    if parameter.range == _FRACTION:
        return uniform(0.0, 1.0)
    return log_uniform(*(float(f"{end:.6g}") for end in (value / factor, value * factor)))
