"""Hashes of the user's functions, by which a resumed sweep detects that one of them has changed.

    function     the instructions that Python compiled it to, with their constants, and its defaults: so comments,
                 docstrings, line numbers, names of local variables and the module that it is in may change
    class        its members and its bases
    object       what `pickle` would rebuild it from, for classes of the user's, of Python and of NumPy
    installed    the name; of a function also what it closes over, such as the function that `jax.vmap` was given

A function is read together with all that it reaches by name: variables that it closes over, and globals, with the
attributes of the user's own modules. What is imported inside a function is not seen.

The instructions are those of one version of Python, `COMPILED_BY`; hashes of another one cannot be compared.
"""

import argparse
import copyreg
import dis
import functools
import hashlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxopt_lite.core.programs import digest
from jaxopt_lite.core.values import Value

__all__ = []

COMPILED_BY = str(sys.implementation.cache_tag)

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in the text of an object that has no name, such as a partial
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
_BOUND = (types.MethodType, staticmethod, classmethod, property)
_NAMESPACES = (types.ModuleType, types.SimpleNamespace, argparse.Namespace)
_KINDS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE
_NAMES, _ATTRIBUTES = ("LOAD_GLOBAL", "LOAD_NAME"), ("LOAD_ATTR", "LOAD_METHOD")


def contents(value: Any) -> dict[str, str]:
    """Hashes of a value, of its own functions, and of the variables that they use, by name.

    Args:
        value: a function, or a remembered call such as a policy; None has no hashes.

    Returns:
        An empty dict for a remembered call that is built of this package alone, since its text is compared; of Optax's
        pairs the text does not show the numbers.
    """
    reader = _Reader(_home(value))
    whole = reader.token(value)
    known = value is None or (isinstance(value, Value) and not reader.found and not reader.is_foreign)
    return {} if known else {**reader.found, "itself": _hash(whole)}


def changed(was: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> list[str]:
    """What differs between two `contents` by name, a line each. What only the latter has is not compared."""
    return [
        f"  {what}: {'what it holds' if name == 'itself' else name} has changed"
        for what, found in now.items()
        for name, hashed in was.get(what, {}).items()
        if found.get(name) != hashed
    ]


def unchanged(was: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The former without what differs: what changes during a run, such as a list of notes or a cache, is not code."""
    return {what: {n: h for n, h in found.items() if now[what].get(n) == h} for what, found in was.items()}


def nameless(value: Any) -> Any:
    """A plain argument without what differs from process to process."""
    if isinstance(value, dict):
        return {key: nameless(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [nameless(inner) for inner in value]
    return _ADDRESS.sub("", value) if isinstance(value, str) else value


class _Reader:
    """Walks over objects; what it found is in `found`, a hash for each function and variable.

    Args:
        home: the package whose functions are the user's, wherever it is installed.
    """

    def __init__(self, home: str | None):
        self.found: dict[str, str] = {}
        self.is_foreign = False  # whether there is one of Optax's pairs
        self._home = home
        self._known: dict[int, Any] = {}  # tokens by identity
        self._kept: list[Any] = []  # so that no identity is used twice

    def token(self, value: Any) -> Any:
        """What is hashed of a value: equal in two processes where the value is."""
        if type(value) in _PLAIN:
            return type(value).__name__, repr(value)
        if id(value) not in self._known:
            self._kept.append(value)
            self._known[id(value)] = "inside itself"
            try:
                read = self._read(value)
            except Exception:  # an object that cannot be read must not end the sweep
                read = "unreadable", type(value).__qualname__
            self._known[id(value)] = read if read[0] == "function" else _hash(read)
        return self._known[id(value)]

    def _read(self, value: Any) -> tuple:
        tokens = lambda parts: [self.token(part) for part in parts]
        kind = type(value)
        if isinstance(value, types.FunctionType):
            spec = vars(value).get("spec")  # a factory of remembered calls is its author's function
            return self._function(value) if spec is None else self.token(spec.function)
        if isinstance(value, types.ModuleType):
            return ("module",)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, Value):
            return "call", *tokens((value.factory, dict(value.arguments)))
        if isinstance(value, (np.ndarray, jax.Array)) and value.dtype != object:
            return "array", digest([value])
        if isinstance(value, (set, frozenset)):
            return "set", self.token(kind), sorted(map(repr, tokens(value)))
        if kind in (list, tuple):
            return kind.__name__, tokens(value)
        if kind in (dict, types.MappingProxyType):
            return "dict", [tokens(item) for item in dict(value).items()]
        if isinstance(value, _BOUND):
            return kind.__name__, tokens(getattr(value, n, None) for n in ("__func__", "__self__", "fget", "fset"))
        inner = inspect.unwrap(value) if callable(value) and not self._is_own(kind.__module__) else value
        if inner is not value:  # a function that was jitted, cached, ...
            return "wrapped", self.token(inner)
        if self._is_own(kind.__module__) or kind.__module__.partition(".")[0] in {*sys.stdlib_module_names, "numpy"}:
            return "object", self.token(kind), tokens(_parts(value))
        if isinstance(value, optax.GradientTransformation):  # two functions; what they close over are its numbers
            self.is_foreign = True
            return "pair", *tokens(value)
        return "installed", self.token(kind), str(getattr(value, "__name__", ""))

    def _class(self, value: type) -> tuple:
        if not self._is_own(value.__module__):
            return "class", f"{value.__module__}.{value.__qualname__}"
        is_member = lambda name, x: not name.startswith("__") or callable(x) or hasattr(x, "__get__")
        members = [item for item in sorted(vars(value).items()) if is_member(*item)]
        return "class", value.__qualname__, *map(self.token, (type(value), value.__bases__, members))

    def _function(self, function: types.FunctionType) -> tuple:
        closed_over = list(_closed_over(function))
        if not self._is_own(function.__globals__.get("__name__", "__main__")):
            return "installed", function.__qualname__, [self.token(value) for _, value in closed_over]
        name = self._free(function.__name__)
        self._known[id(function)] = "function", name
        self.found[name] = ""  # its name is taken before those of what it uses
        defaults = self.token([*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()])
        self.found[name] = _hash((_instructions(function.__code__), defaults))
        own = [(n, v) for n, v in vars(function).items() if n != "__wrapped__"]
        for used, value in (*closed_over, *own, *self._globals(function)):
            read = self.token(value)
            if read[0] != "function":  # which has a hash of its own
                self.found[self._free(f"{used}, used by {name}")] = _hash(read)
        return "function", name

    def _free(self, name: str) -> str:
        """The name, numbered where another function has it."""
        taken = sum(other == name or other.startswith(f"{name} (") for other in self.found)
        return f"{name} ({taken + 1})" if taken else name

    def _globals(self, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
        """The global variables that a function mentions, and in place of a namespace what it mentions of that."""
        names, attributes = _mentioned(function.__code__)
        left = [(name, function.__globals__[name]) for name in names if name in function.__globals__]
        seen: set[int] = set()
        while left:
            name, value = left.pop(0)
            if not isinstance(value, _NAMESPACES):
                yield name, value
            elif id(value) not in seen and (not isinstance(value, types.ModuleType) or self._is_own(value.__name__)):
                seen.add(id(value))
                left += [(f"{name}.{a}", vars(value)[a]) for a in attributes if a in vars(value)]

    def _is_own(self, module: str) -> bool:
        """Whether a module is the user's: neither of Python, nor of this package, nor installed among packages."""
        if module.partition(".")[0] in ("__main__", self._home):
            return True
        if _is_ours(module):
            return False
        file = getattr(sys.modules.get(module), "__file__", None)
        return file is None or not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _home(value: Any) -> str | None:
    """The package of a function, or of a remembered call's factory, where it is neither Python's nor this one."""
    function = value.factory.spec.function if isinstance(value, Value) else value
    while isinstance(function, functools.partial):
        function = function.func
    module = getattr(function, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) and not _is_ours(module) else None


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in {*sys.stdlib_module_names, "jaxopt_lite", "optax"}


def _parts(value: Any) -> list[Any]:
    """What pickle would rebuild an object from: a function, its arguments, a state, items."""
    try:
        known = copyreg.dispatch_table.get(type(value))
        reduced = known(value) if known else value.__reduce_ex__(2)
    except Exception:  # it cannot be pickled, such as a lock
        return [object.__getstate__(value)]
    return [list(p) if isinstance(p, Iterator) else p for p in ((reduced,) if isinstance(reduced, str) else reduced)]


def _closed_over(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not set yet
            continue


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
