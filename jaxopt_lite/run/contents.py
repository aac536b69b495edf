"""What functions of the user's come to: hashes, by which a sweep that is resumed finds out that one of them changed.

Of a function there are hashed the instructions that Python compiled it to, with their constants, and its defaults; so
neither comments, docstrings and line numbers count, nor the module that it is in. The same is done for what it reaches
by name: other functions and classes of the user's, and constants of modules and closures. Of what comes from Python,
from this package or from another installed one, only the name counts. What is imported inside a function is not seen.

The instructions are those of one version of Python, `COMPILED_BY`; hashes of another one cannot be compared.
"""

import dis
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxopt_lite.core.values import Value
from jaxopt_lite.sweeps.program import digest

__all__ = []

COMPILED_BY = str(sys.implementation.cache_tag)

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
_KINDS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE
_NAMES, _ATTRIBUTES = ("LOAD_GLOBAL", "LOAD_NAME"), ("LOAD_ATTR", "LOAD_METHOD")


def contents(value: Any) -> dict[str, str]:
    """Hashes of a value's own functions, and of the constants that they use, by name.

    Args:
        value: a function, or a remembered call such as a policy.

    Returns:
        Nothing for a value that is built of this package alone.
    """
    reader = _Reader(_home(value))
    whole = reader.token(value)
    return {**reader.found, "itself": _hash(whole)} if reader.found else {}


class _Reader:
    """Walks over objects; what it found is in `found`, a hash for each function and constant.

    Args:
        home: a module whose functions are the user's, wherever it is installed.
    """

    def __init__(self, home: str | None):
        self.found: dict[str, str] = {}
        self._home = home
        self._names: dict[int, str] = {}  # of functions that were met, by identity
        self._inside: set[int] = set()  # containers and objects that are being read
        self._kept: list[Any] = []  # so that no identity is used twice

    def token(self, value: Any) -> Any:
        """What is hashed of a value: equal in two processes where the value is."""
        if isinstance(value, _PLAIN):
            return type(value).__name__, repr(value)
        if isinstance(value, np.generic):
            return type(value).__name__, repr(value.item())
        if isinstance(value, types.FunctionType):
            spec = vars(value).get("spec")  # a factory of remembered calls is its author's function
            return self._function(value if spec is None else spec.function)
        if isinstance(value, types.ModuleType):
            return "module"
        if id(value) in self._inside:
            return "again"
        self._inside.add(id(value))
        self._kept.append(value)
        try:
            return self._structure(value)
        except Exception:  # of an object that does not let itself be read; a sweep does not depend on it
            return "unreadable", type(value).__qualname__
        finally:
            self._inside.remove(id(value))

    def _structure(self, value: Any) -> Any:
        if isinstance(value, Value):
            return self.token(value.factory), self.token(dict(value.arguments))
        if isinstance(value, dict):
            return "dict", [(self.token(k), self.token(v)) for k, v in value.items()]
        if isinstance(value, (list, tuple)):
            return type(value).__name__, [self.token(v) for v in value]
        if isinstance(value, (set, frozenset)):
            return "set", sorted(repr(self.token(v)) for v in value)
        if isinstance(value, (np.ndarray, jax.Array)):
            return "array", self.token(value.tolist()) if value.dtype == object else digest([value])
        if isinstance(value, functools.partial):
            return "partial", [self.token(v) for v in (value.func, value.args, value.keywords)]
        if isinstance(value, types.MethodType):
            return "method", self.token(value.__func__), self.token(value.__self__)
        if isinstance(value, (staticmethod, classmethod)):
            return type(value).__name__, self.token(value.__func__)
        if isinstance(value, property):
            return "property", [self.token(v) for v in (value.fget, value.fset)]
        if isinstance(value, type):
            members = vars(value).items() if self._is_own(value.__module__) else ()
            read = [(name, self.token(v)) for name, v in members if not name.startswith("__") or callable(v)]
            return "class", value.__qualname__, [self.token(base) for base in value.__bases__], read
        if self._is_own(type(value).__module__):
            return "object", self.token(type(value)), self.token(object.__getstate__(value))
        inner = inspect.unwrap(value) if callable(value) else None  # of a function that was jitted, cached, ...
        if isinstance(inner, types.FunctionType):
            return self.token(inner)
        return "object", type(value).__qualname__, str(getattr(value, "__name__", ""))

    def _function(self, function: types.FunctionType) -> Any:
        if id(function) in self._names:
            return "function", self._names[id(function)]
        if not self._is_own(function.__module__):
            return "function", function.__qualname__
        name = self._free(function.__name__)
        self._names[id(function)] = name
        self._kept.append(function)
        self.found[name] = ""  # its name is taken before those of what it uses
        defaults = self.token((function.__defaults__, function.__kwdefaults__))
        self.found[name] = _hash((_instructions(function.__code__), defaults))
        for used, value in self._used(function):
            read = self.token(value)
            if read != "module" and read[0] != "function":  # which have a hash of their own
                self.found[self._free(f"{used}, used by {name}")] = _hash(read)
        return "function", name

    def _free(self, name: str) -> str:
        """The name, numbered where another function has it."""
        taken = sum(other == name or other.startswith(f"{name} (") for other in self.found)
        return f"{name} ({taken + 1})" if taken else name

    def _used(self, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
        """What a function reaches by name: variables that it closes over, globals, and attributes of own modules."""
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                yield name, cell.cell_contents
            except ValueError:  # not set yet
                continue
        names, attributes = _mentioned(function.__code__)
        for name in names:
            if name not in function.__globals__:
                continue
            value = function.__globals__[name]
            yield name, value
            if isinstance(value, types.ModuleType) and self._is_own(value.__name__):
                yield from ((f"{name}.{a}", vars(value)[a]) for a in attributes if a in vars(value))

    def _is_own(self, module: str | None) -> bool:
        """Whether a module is the user's: neither of Python, nor of this package, nor installed among packages."""
        if module in ("__main__", self._home):
            return True
        if module is None or _is_ours(module):
            return False
        file = getattr(sys.modules.get(module), "__file__", None)
        return file is None or not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _home(value: Any) -> str | None:
    """The module of a function, or of a remembered call's factory, where it is neither Python's nor of this package."""
    function = value.factory.spec.function if isinstance(value, Value) else value
    while isinstance(function, functools.partial):
        function = function.func
    module = getattr(function, "__module__", None)
    return module if isinstance(module, str) and not _is_ours(module) else None


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names | {"jaxopt_lite"}


def _instructions(code: types.CodeType) -> Any:
    """What a function does, without its names of local variables, docstring and places in the source."""
    steps = []
    for step in dis.get_instructions(code):
        by_place = step.opcode in dis.haslocal or step.opcode in dis.hasfree
        steps.append((step.opname, step.arg if by_place else _constant(step.argval)))
    kind = code.co_argcount, code.co_kwonlyargcount, code.co_flags & _KINDS
    return *kind, code.co_exceptiontable.hex(), steps


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _instructions(value)
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    if isinstance(value, frozenset):
        return "set", sorted(repr(_constant(v)) for v in value)
    return repr(value) if isinstance(value, _PLAIN) else getattr(value, "__name__", type(value).__name__)


def _mentioned(code: types.CodeType) -> tuple[list[str], list[str]]:
    """The global names and the attributes in a function and in those inside it, each once, in their order."""
    names: dict[str, None] = {}
    attributes: dict[str, None] = {}
    for step in dis.get_instructions(code):
        if step.opname in _NAMES:
            names[step.argval] = None
        elif step.opname in _ATTRIBUTES:
            attributes[step.argval] = None
        elif isinstance(step.argval, types.CodeType):
            inner = _mentioned(step.argval)
            names |= dict.fromkeys(inner[0])
            attributes |= dict.fromkeys(inner[1])
    return list(names), list(attributes)


def _hash(read: Any) -> str:
    return hashlib.sha256(repr(read).encode("utf-8", "backslashreplace")).hexdigest()[:16]
