"""The decorator of recipes, which describes their arguments in the words of the rules that they chain.

What `b1` means is written once, in the docstring of `scale_by_adam`. Each recipe that chains this rule shows that
description in its own docstring, so `help(jo.adamw)` and the built documentation list every argument.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, ParamSpec

from jaxopt_lite.core.transformation import GradientTransformation, transformation

__all__ = ["argument_descriptions", "recipe"]

P = ParamSpec("P")
_SECTION = re.compile(r"^Args:\n((?:    .*\n?)+)", re.MULTILINE)
_ARGUMENT = re.compile(r"^    \*{0,2}(\w+)(?: \(.*\))?: .*(?:\n {8}.*)*", re.MULTILINE)


def recipe(*rules: Callable) -> Callable[[Callable[P, Any]], Callable[P, GradientTransformation]]:
    """Make a factory of values, as `transformation` does, and add the missing descriptions of arguments.

    An argument without a description in the recipe's own docstring takes that of the first rule which has an argument
    of the same name.

    Args:
        rules: the rules that the recipe chains.

    Returns:
        A decorator of a function that returns a chain.
    """

    def decorate(function: Callable[P, Any]) -> Callable[P, GradientTransformation]:
        known = argument_descriptions(function)
        for rule in rules:
            known = argument_descriptions(rule) | known
        lines = [known[name] for name in inspect.signature(function).parameters if name in known]
        summary = _SECTION.sub("", inspect.getdoc(function) or "").rstrip()
        if lines:  # empty under `python -OO`, which removes docstrings
            function.__doc__ = "\n".join([summary, "", "Args:", *lines, ""])
        return transformation(function)

    return decorate


def argument_descriptions(function: Callable) -> dict[str, str]:
    """The entries of the section Args of a docstring by argument: lines indented by 4, continued by 8 spaces."""
    section = _SECTION.search(inspect.getdoc(function) or "")
    return {found[1]: found[0] for found in _ARGUMENT.finditer(section[1])} if section else {}
