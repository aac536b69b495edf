"""Values as text: a value prints as the call that makes it, and the text reads back as an equal value.

spell(value)                    adamw(0.001, weight_decay=0.01)
spell(value, defaults=True)     every argument, also those at their defaults: the saved form
parse(text)                     the value; no `eval`, only the package's factories, `lift(optax....)` and `names`
"""

import ast
import difflib
import enum
import functools
import importlib
import inspect
import math
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

__all__ = ["parse", "spell"]

_UNHASHABLE = (ast.List, ast.Dict)
_OPTAX = ("optax", "optax.contrib", "optax.schedules", "optax.transforms", "optax.losses", "optax.projections")


def spell(value: Any, defaults: bool = False) -> str:
    """Write a value as the call that makes it.

    Args:
        value: an optimizer, a schedule or any other remembered call.
        defaults: write every argument by name, those at their defaults too. Defaults may change between versions, so
            this is the form to save.

    Returns:
        Text such that `parse(text) == value`, unless an argument has no spelling (a lambda, a tracer).
    """
    spec, parts, positional = value.factory.spec, [], True
    for name, argument in value.arguments.items():
        parameter = spec.parameters[name]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            parts += [_spell(v, defaults) for v in argument]
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            parts += [f"{k}={_spell(v, defaults)}" for k, v in argument.items()]
            continue
        required = parameter.default is inspect.Parameter.empty
        is_default = not required and _is_default(argument, spec.normalise(name, parameter.default))
        if is_default and (not defaults or _has_no_name(argument)):
            positional = False
            continue
        positional = positional and required and parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        is_table = isinstance(argument, np.ndarray) and parameter.range and parameter.range.ndim == argument.ndim
        shown = argument.tolist() if is_table else argument  # a table is given as a list
        parts.append(("" if positional else f"{name}=") + _spell(shown, defaults))
    if spec.name in ("from_callable", "from_optax") and len(parts) == 1:
        return parts[0]  # they print as the argument itself
    return f"{getattr(value.factory, 'spelling', spec.name)}({', '.join(parts)})"


def parse(text: str, names: dict[str, Any] | None = None) -> Any:
    """Read a value from text such as `chain(clip_by_global_norm(1.0), adamw(1e-3))`.

    Nothing is evaluated: the text may hold calls of the package's factories, `lift(optax.…)(…)`, numbers, strings,
    lists, tuples and dicts. A name given in `names` comes before the package's.

    Args:
        text: the call, as `repr` prints it.
        names: other factories and functions that the text may name, such as user-defined rules, masks and enums.

    Raises:
        ValueError: for text that is not such a call; it names the nearest known name.

    >>> import jaxopt_lite as jo
    >>> jo.parse("sgd(0.1, momentum=0.9)") == jo.sgd(0.1, momentum=0.9)
    True
    """
    if not isinstance(text, str):
        raise TypeError(f"parse reads text such as 'adamw(1e-3)', got {text!r}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"cannot read {text!r}: {error.msg} at column {error.offset}") from None
    except RecursionError:
        raise ValueError(f"cannot read {text[:40]!r}...: it is nested too deeply") from None
    reader = _Reader(text, names or {})
    value = reader.read(tree)
    if hasattr(value, "spec"):
        raise reader.error(tree, f"it makes nothing until it is called; write {ast.unparse(tree)}(...)")
    if not isinstance(tree, ast.Call):
        raise reader.error(tree, "it is not a call such as adamw(1e-3)")
    return value


class _Reader:
    def __init__(self, text: str, names: dict[str, Any]):
        # The package is the only registry of names; it is imported here, by name, because it imports this module.
        self.package = importlib.import_module(__name__.split(".")[0])
        self.text, self.names = text, names

    def read(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value) if isinstance(value, (int, float, str, bool)) or value is None:
                return value
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                value = self.read(operand)
                if not isinstance(value, (int, float)) or isinstance(value, bool):
                    raise self.error(node, "only a number can be negative")
                return -value
            case ast.List(elts=elements):
                return [self.read(e) for e in elements]
            case ast.Tuple(elts=elements):
                return tuple(self.read(e) for e in elements)
            case ast.Dict(keys=keys, values=values) if not any(isinstance(k, (type(None), *_UNHASHABLE)) for k in keys):
                return {self.read(k): self.read(v) for k, v in zip(keys, values, strict=True) if k}
            case ast.Call(keywords=keywords) if all(k.arg for k in keywords):
                return self.call(node)
            case ast.Name() | ast.Attribute():
                return self.name(node)
        raise self.error(node, "it is neither a call, a name, a number, a string, a list, a tuple nor a dict")

    def call(self, node: ast.Call) -> Any:
        func, args, keywords = node.func, node.args, node.keywords
        if isinstance(func, ast.Name) and func.id in ("array", "ndarray") and func.id not in self.names:
            try:
                array = _ndarray(*(self.read(a) for a in args))
                return array if func.id == "ndarray" else jax.numpy.asarray(array)
            except (TypeError, ValueError):
                raise self.error(node, "an array is array([1.0, 2.0], 'float32'): numbers, and a dtype") from None
        factory = self.read(func) if isinstance(func, ast.Call) else self.name(func)
        if optax_path(factory):
            raise self.error(func, f"write lift({ast.unparse(func)})(...), which makes Optax's factory a value")
        if not callable(factory) or hasattr(factory, "factory"):
            raise self.error(func, "it cannot be called")
        repeated = [k.arg for i, k in enumerate(keywords) if k.arg in [other.arg for other in keywords[:i]]]
        if repeated:
            raise self.error(node, f"{repeated[0]} is given twice")
        given = [self.read(a) for a in args], {str(k.arg): self.read(k.value) for k in keywords}
        return factory(*given[0], **given[1])

    def name(self, node: ast.expr) -> Any:
        dotted = ast.unparse(node)
        if dotted in ("nan", "inf"):
            return float(dotted)
        if dotted in self.names:
            return self.names[dotted]
        first, *rest = dotted.split(".")
        members = getattr(self.names.get(first), "__members__", {})  # of an enum
        if len(rest) == 1 and rest[0] in members:
            return members[rest[0]]
        if first == "optax" and rest:
            module = dotted.rpartition(".")[0]
            if module in _OPTAX and hasattr(importlib.import_module(module), rest[-1]):
                return getattr(importlib.import_module(module), rest[-1])
            raise self.error(node, "Optax has no such name")
        found = self.package
        for part in [first, *rest]:
            found = getattr(found, part, None)
        if hasattr(found, "spec") or dotted == "lift":
            return found
        known = sorted([n for n, f in vars(self.package).items() if hasattr(f, "spec")] + list(self.names))
        near = difflib.get_close_matches(dotted, known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "jaxopt_lite.parse takes others through names="
        raise self.error(node, f"there is no {dotted!r}; {hint}")

    def error(self, node: ast.expr, why: str) -> ValueError:
        return ValueError(f"cannot read {ast.unparse(node)!r} in {self.text!r}: {why}")


def _ndarray(data: Any, dtype: str) -> np.ndarray:
    return np.asarray(data, dtype=dtype)


def _spell(value: Any, defaults: bool) -> str:
    if hasattr(value, "factory") and hasattr(value, "arguments"):
        return spell(value, defaults)
    if isinstance(value, Tracer):
        return f"<traced {value.dtype}{list(value.shape)}>"
    if isinstance(value, (np.ndarray, jax.Array)):
        return _spell_array(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_spell(k, defaults)}: {_spell(v, defaults)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_spell(v, defaults) for v in value) + "]"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return "(" + ", ".join(_spell(v, defaults) for v in value) + (",)" if len(value) == 1 else ")")
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if callable(value) and hasattr(value, "__name__"):
        return optax_path(value) or value.__name__
    return repr(value)


def _spell_array(value: Any) -> str:
    if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"<key array {list(value.shape)}>"
    array = np.asarray(value)
    numbers = _nested(array, lambda x: str(x) if np.iscomplexobj(x) or math.isfinite(x) else repr(float(x)))
    return f"{'array' if isinstance(value, jax.Array) else 'ndarray'}({numbers}, {array.dtype.name!r})"


def _nested(array: np.ndarray, number) -> str:
    """The shortest digits that give back each element in the array's own precision."""
    if array.ndim == 0:
        return number(array[()])
    return "[" + ", ".join(_nested(row, number) for row in array) + "]"


@functools.cache
def _optax_names() -> dict[int, str]:
    """Public names of Optax's functions by identity, the shortest path first; partials have no other name."""
    modules = [(path, importlib.import_module(path)) for path in reversed(_OPTAX)]
    return {id(f): f"{path}.{name}" for path, m in modules for name, f in vars(m).items() if callable(f)}


def optax_path(function: Any) -> str | None:
    """The public name of one of Optax's functions, such as `optax.contrib.muon`."""
    return _optax_names().get(id(function))


def optax_function(path: str) -> Any:
    """The function of Optax with this public name."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def name_of(function: Any) -> str:
    """The name of a factory, also of one of Optax's partials."""
    path = optax_path(function)
    return path.rpartition(".")[2] if path else getattr(function, "__name__", repr(function))


def _has_no_name(argument: Any) -> bool:
    """Whether this is a function without a public name, such as a default of Optax's that is a lambda."""
    return callable(argument) and not hasattr(argument, "factory") and optax_path(argument) is None


def _is_default(argument: Any, default: Any) -> bool:
    if isinstance(argument, np.ndarray) and isinstance(default, np.ndarray):
        return np.array_equal(argument, default)
    if isinstance(argument, (np.ndarray, jax.Array)) or isinstance(default, (np.ndarray, jax.Array)):
        return False
    return type(argument) is type(default) and bool(argument == default)
