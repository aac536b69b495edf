"""Reading the arguments of a command line: optimizers, tasks and trials of modules, spaces."""

import ast
import contextlib
import difflib
import importlib
import io
import json
import tokenize
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxopt_lite as jo

__all__ = []


_OF_PARSE = "jaxopt_lite.parse takes others through names="  # a hint that does not apply in a shell
_OWN = {  # the classes of values that a text may name from a module, and their decorators
    jo.GradientTransformation: "transformation",
    jo.Schedule: "schedule",
    jo.Sampler: "sampler",
    jo.Policy: "policy",
    jo.Solver: "solver",
}


def optimizer_of(text: str, module: ModuleType | None = None, or_solver: bool = False) -> Any:
    """The optimizer that a text calls; it may name the transformations and schedules of a module."""
    value = _read(text, module)
    if not isinstance(value, (jo.GradientTransformation, jo.Solver) if or_solver else jo.GradientTransformation):
        raise ValueError(f"{text!r} is not an optimizer; give a call such as adamw(1e-3)")
    return value


def own_optimizer(module: ModuleType) -> jo.GradientTransformation:
    """A module's OPTIMIZER, which is a transformation or the text of one."""
    name, found = module.__name__, getattr(module, "OPTIMIZER", None)
    if found is None:
        raise ValueError(f"{name} names no OPTIMIZER; give one: --optimizer 'adamw(1e-3)'")
    if not isinstance(found, str):
        return jo.GradientTransformation.accept(found, name, "OPTIMIZER")
    try:
        return optimizer_of(found, module)
    except (ValueError, TypeError) as error:
        raise ValueError(f"OPTIMIZER of {name}: {error}") from error


_TRACKERS: dict[str, Callable[[str], jo.Tracker]] = {  # by name, made of what comes after the colon
    "console": lambda nothing: jo.trackers.console(),
    "csv": jo.trackers.csv,
    "tensorboard": jo.trackers.tensorboard,
    "mlflow": lambda uri: jo.trackers.mlflow(uri=uri or None),
    "wandb": lambda project: jo.trackers.wandb(**({"project": project} if project else {})),
}


def tracker_of(text: str) -> jo.Tracker:
    """The tracker that NAME or NAME:PLACE names."""
    name, _, place = text.partition(":")
    if name not in _TRACKERS or (name in ("csv", "tensorboard") and not place) or (name == "console" and place):
        raise ValueError(
            f"{text!r} is not a tracker; give console, csv:PATH, tensorboard:DIRECTORY, mlflow, mlflow:URI, wandb or "
            "wandb:PROJECT"
        )
    return _TRACKERS[name](place)


def task_of(where: str) -> tuple[jo.Task, ModuleType]:
    """The task that MODULE[:TASK] names, and the module."""
    module, attribute = _module_of(where, "task")
    found = getattr(module, attribute, None)
    task = found() if callable(found) else found
    if not isinstance(task, jo.Task):
        known = [n for n, v in vars(module).items() if isinstance(v, jo.Task) or n == "task"]
        near = difflib.get_close_matches(attribute, known, 1)
        hint = f"did you mean {near[0]}?" if near else "it must be a jaxopt_lite.Task, or a function that makes one"
        raise ValueError(f"{module.__name__} has no task {attribute!r}; {hint}")
    return task, module


def trial_of(where: str) -> tuple[Callable, ModuleType]:
    """The function that MODULE[:TRIAL] names, and the module."""
    module, attribute = _module_of(where, "trial")
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        near = difflib.get_close_matches(attribute, known, 1)
        hint = f"did you mean {near[0]}?" if near else "it must be a function: config -> (task, optimizer)"
        raise ValueError(f"{module.__name__} has no trial {attribute!r}; {hint}")
    return found, module


def space_of_text(texts: Sequence[str], module: ModuleType) -> dict[str, Any]:
    """A dict of distributions and constants from texts such as "learning_rate=log_uniform(1e-4, 1e-1)".

    Dots nest: "network.hidden=choice([32, 64])".
    """
    return _nested("--space", texts, "DISTRIBUTION, such as b1=uniform(0.8, 0.99)", module)


def config_of_text(text: str, module: ModuleType) -> dict[str, Any]:
    """A config from a text such as "learning_rate=0.01, network.hidden=32", or from a dict in braces."""
    if not text.lstrip().startswith("{"):
        return _nested("--initial", list(_parts(text)), "VALUE, NAME=VALUE, ..., such as b1=0.9", module)
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError):
            return read(text)
    raise ValueError(f"--initial {text!r} cannot be read; give a dict of literals, or NAME=VALUE, NAME=VALUE, ...")


def _parts(text: str) -> Iterator[str]:
    """The parts of a line between commas that are inside neither brackets nor strings."""
    depth, begin = 0, 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
            if token.string == "," and not depth:
                yield text[begin : token.start[1]]
                begin = token.end[1]
    except (tokenize.TokenError, SyntaxError) as error:
        raise ValueError(f"--initial {text!r} cannot be read: {error.args[0]}") from None
    yield text[begin:]


def _nested(option: str, texts: Sequence[str], form: str, module: ModuleType) -> dict[str, Any]:
    """A dict from texts NAME=VALUE; dots in a name nest."""
    whole: dict[str, Any] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not value or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{option} {text!r} must be NAME={form}")
        *parents, last = name.split(".")
        inside = whole
        for parent in parents:
            inside = inside.setdefault(parent, {}) if isinstance(inside, dict) else inside
        if not isinstance(inside, dict) or last in inside:
            raise ValueError(f"{option} {name} is given twice")
        inside[last] = _value(value, module)
    return whole


def called(text: str, kind: type, what: str, module: ModuleType) -> Any:
    """The sampler or policy that a text names: one of a module, or a call of its factory or the package's."""
    value = getattr(module, text, None)
    if not isinstance(value, kind):
        value = _read(text if "(" in text else f"{text}()", module)
    if not isinstance(value, kind):
        raise ValueError(f"--{what} {text!r} is not {kind.noun}")  # pyright: ignore[reportAttributeAccessIssue]
    return value


def _value(text: str, module: ModuleType) -> Any:
    """A Python literal, inf or nan, or a call."""
    for read in (ast.literal_eval, float):
        with contextlib.suppress(ValueError, SyntaxError):
            return read(text)
    return _read(text, module)


def _read(text: str, module: ModuleType | None = None) -> Any:
    """Parse a text, with what a module makes by the decorators of `_OWN` as names."""
    own = vars(module).items() if module else ()
    try:
        return jo.parse(text, {n: v for n, v in own if getattr(getattr(v, "spec", None), "makes", None) in _OWN})
    except ValueError as error:
        if _OF_PARSE not in str(error):
            raise
        hint = "jaxopt_lite does not define it"
        if module:
            hint = f"{module.__name__} may define it ({', '.join(f'@jo.{name}' for name in _OWN.values())})"
        raise ValueError(str(error).replace(_OF_PARSE, hint)) from None


def _module_of(where: str, usual: str) -> tuple[ModuleType, str]:
    name, _, attribute = where.partition(":")
    try:
        return importlib.import_module(name), attribute or usual
    except ModuleNotFoundError as error:
        if not name.startswith(error.name or " "):
            raise
        known = [f"experiments.{path.stem}" for path in Path("experiments").glob("*.py") if path.stem != "__init__"]
        near = difflib.get_close_matches(name, [*known, *(path.stem for path in Path().glob("*.py"))], 3)
        there = f"there are {', '.join(sorted(known))}" if known else "there are no experiments here"
        hint = f"did you mean {' or '.join(near)}?" if near else there
        looked = f"looked in {Path.cwd()} and among the packages of this Python"
        raise ValueError(f"there is no module {name!r}; {hint} ({looked})") from None
