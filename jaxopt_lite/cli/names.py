"""What the words of a command line name: optimizers, tasks and trials of modules, spaces."""

import ast
import difflib
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxopt_lite as jo

__all__ = []


def optimizer_of(text: str) -> jo.GradientTransformation:
    """The optimizer that a text calls."""
    value = jo.parse(text)
    if not isinstance(value, jo.GradientTransformation):
        raise ValueError(f"{text!r} is no optimizer; give a call such as adamw(1e-3)")
    return value


def task_of(where: str) -> tuple[jo.Task, str | None]:
    """The task that MODULE[:TASK] names, and the module's own choice of optimizer."""
    module, attribute = _module_of(where, "task")
    found = getattr(module, attribute, None)
    task = found() if callable(found) else found
    if not isinstance(task, jo.Task):
        known = [n for n, v in vars(module).items() if isinstance(v, jo.Task) or n == "task"]
        near = difflib.get_close_matches(attribute, known, 1)
        hint = f"did you mean {near[0]}?" if near else "it must be a jaxopt_lite.Task, or a function that makes one"
        raise ValueError(f"{module.__name__} has no task {attribute!r}; {hint}")
    return task, getattr(module, "OPTIMIZER", None)


def trial_of(where: str) -> tuple[Callable, dict[str, Any] | None]:
    """The function that MODULE[:TRIAL] names, and the module's own space."""
    module, attribute = _module_of(where, "trial")
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        near = difflib.get_close_matches(attribute, known, 1)
        hint = f"did you mean {near[0]}?" if near else "it must be a function: config -> (task, optimizer)"
        raise ValueError(f"{module.__name__} has no trial {attribute!r}; {hint}")
    return found, getattr(module, "SPACE", None)


def space_of_text(texts: Sequence[str]) -> dict[str, Any]:
    """A dict of distributions and constants from texts such as "learning_rate=log_uniform(1e-4, 1e-1)".

    Dots nest: "network.hidden=choice([32, 64])".
    """
    space: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"--space {text!r} must be NAME=DISTRIBUTION, such as b1=uniform(0.8, 0.99)")
        *parents, last = name.split(".")
        inside = space
        for parent in parents:
            inside = inside.setdefault(parent, {})
        if not isinstance(inside, dict) or last in inside:
            raise ValueError(f"--space {name} is given twice")
        inside[last] = _value(value)
    return space


def called(text: str | None, kind: type, what: str) -> Any:
    """The sampler or policy that a text calls, parentheses or not; None for None."""
    if text is None:
        return None
    value = jo.parse(text if "(" in text else f"{text}()")
    if not isinstance(value, kind):
        raise ValueError(f"--{what} {text!r} is not {kind.noun}")  # pyright: ignore[reportAttributeAccessIssue]
    return value


def _value(text: str) -> Any:
    """A call, or a Python literal."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return jo.parse(text)


def _module_of(where: str, usual: str) -> tuple[ModuleType, str]:
    name, _, attribute = where.partition(":")
    try:
        return importlib.import_module(name), attribute or usual
    except ModuleNotFoundError as error:
        if not name.startswith(error.name or " "):
            raise
        known = [f"experiments.{path.stem}" for path in Path("experiments").glob("*.py") if path.stem != "__init__"]
        near = difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known)) or 'none here'}"
        raise ValueError(f"there is no module {name!r}; {hint}") from None
