"""A pytree as arrays and a description in JSON, from which it is restored, in a later version too.

    {"array": "3", "path": ".params['w']"}     an array, under its name among the arrays; "numpy" for one of NumPy's
    {"key": "4", "impl": "fry", "path": ...}   a random key
    {"leaf": 0.5, "path": ...}                 a number of Python, or text
    {"dict": [[key, child], ...]}, {"list": [...]}, {"tuple": [...]}
    {"fields": {name: child}, "of": "module:Class"}     a named tuple or a dataclass
    {"call": "module:adamw", "arguments": {...}}        a value of this package: an optimizer, a schedule, a solver
    {"node": "module:Class", "children": [...]}         another node of a pytree: it needs `like` to be restored
    {"unnamed": "..."}                                  a function without a name, and the like: it needs `like` too

What JAX does not see as a leaf, such as a static argument, stands for itself, or has no path. Paths are JAX's
`keystr`s.
"""

import collections
import contextlib
import dataclasses
import enum
import importlib
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite import tree
from jaxopt_lite.core.text import name_of, optax_path
from jaxopt_lite.core.values import Value

__all__ = []

PACKAGE = __name__.partition(".")[0]
_IMPORTED = (PACKAGE, "optax", "jax", "numpy", "collections")


def pack(value: Any, who: str = "save", strict: bool = True) -> tuple[dict[str, Any], Any]:
    """The arrays of a value by name, and its description.

    Args:
        value: a pytree, a dataclass, a named tuple, or a value of this package.
        who: the caller, in messages.
        strict: raise for what can be restored only with `like`, and cannot be a leaf: functions without a name.

    Raises:
        TypeError: for a tracer, and for what has no description; it names the path.
    """
    packer = _Packer(who, strict)
    return packer.arrays, packer.describe(value, "")


class _Packer:
    """Describes values; `path` is None inside the static part of a value, where JAX sees no leaves."""

    def __init__(self, who: str, strict: bool):
        self._who, self._strict = who, strict
        self.arrays: dict[str, Any] = {}

    def describe(self, value: Any, path: str | None) -> Any:
        if isinstance(value, Tracer):
            raise TypeError(f"{self._who}: {path or 'the value'} is traced; call it outside jit, grad and vmap")
        if value is None:
            return None
        if isinstance(value, (bool, str, int, float, complex)) and not isinstance(value, (enum.Enum, np.generic)):
            return _plain(value) if path is None else {"leaf": _plain(value), "path": path}
        if isinstance(value, (jax.Array, np.ndarray, np.generic)):
            return self._array(value, path)
        if isinstance(value, Value):
            return self._call(value, path)
        children = one_level(value)
        if children is None:
            return self._other(value, path)
        return self._node(value, {key: self.describe(child, _under(path, key)) for key, child in children.items()})

    def _array(self, value: Any, path: str | None) -> dict[str, Any]:
        if fault := _fault(value):
            raise TypeError(f"{self._who}: {path or 'the array'} {fault}")
        name = str(len(self.arrays))
        if tree.is_random_key(value):
            self.arrays[name] = jax.random.key_data(value)
            return {"key": name, "impl": str(jax.random.key_impl(value)), "path": path}
        if value.dtype.kind == "U":
            return {"strings": value.tolist(), "dtype": value.dtype.str, "path": path}
        self.arrays[name] = value
        kind = "array" if isinstance(value, jax.Array) else "numpy" if isinstance(value, np.ndarray) else "scalar"
        return {kind: name, "path": path}

    def _call(self, value: Value, path: str | None) -> dict[str, Any]:
        is_dynamic = lambda n: value.factory.spec.parameters[n].is_dynamic(value.arguments[n])
        arguments = {
            n: self.describe(argument, _under(path, f".{n}") if is_dynamic(n) else None)
            for n, argument in value.arguments.items()
        }
        reference = getattr(value.factory, "reference", None)
        if reference is None:
            return {"call": _place(value.factory), "arguments": arguments}
        _, factory, *how = reference  # lifted: of the factory Optax's public name or itself, and how it was lifted
        factory = factory if isinstance(factory, str) else self._other(factory, path)
        return {"lifted": factory, "how": how, "arguments": arguments}

    def _node(self, value: Any, children: dict[str, Any]) -> Any:
        kind: Any = type(value)
        inner = list(children.values())
        if kind in (dict, collections.OrderedDict):  # JAX sorts the keys of a dict; its own order is kept
            items = [[self.describe(key, None), children[f"[{key!r}]"]] for key in value]
            return {"dict": items, **({"ordered": True} if kind is not dict else {})}
        if kind in (list, tuple):
            return {kind.__name__: inner}
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return {"fields": dict(zip(kind._fields, inner, strict=True)), "of": _place(kind)}
        if dataclasses.is_dataclass(value) and all(key.startswith(".") for key in children):
            return self._fields(value, lambda name: children.get(f".{name}"))
        if "__reduce__" in vars(kind) and kind.__module__.partition(".")[0] == PACKAGE:
            _, arguments = kind.__reduce__(value)
            return {"made": _place(kind), "with": self.describe(arguments, None)}
        return {"node": _place(kind), "children": inner}

    def _fields(self, value: Any, known: Callable[[str], Any], path: str | None = None) -> dict[str, Any]:
        names = [field.name for field in dataclasses.fields(value)]
        inner = lambda name: self.describe(getattr(value, name), _under(path, f".{name}"))
        return {"fields": {name: known(name) or inner(name) for name in names}, "of": _place(type(value))}

    def _other(self, value: Any, path: str | None) -> Any:
        """What is no node of a pytree."""
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._fields(value, lambda name: None, path)
        if isinstance(value, enum.Flag):  # several members together have no name
            return {"flags": value.value, "of": _place(type(value))}
        if isinstance(value, enum.Enum):
            return {"member": value.name, "of": _place(type(value))}
        if isinstance(value, np.dtype):
            return {"dtype": value.name}
        if isinstance(value, Mapping):
            items = [
                [self.describe(key, None), self.describe(v, _under(path, f"[{key!r}]"))] for key, v in value.items()
            ]
            return {"dict": items}
        if isinstance(value, (set, frozenset)) and type(value) in (set, frozenset):
            return {"set": [self.describe(x, None) for x in sorted(value, key=repr)], "of": type(value).__name__}
        named = optax_path(value) or (_place(value) if _is_found(value) else None)
        if named:
            return {"named": named}
        if self._strict:
            what = f"of type {type(value).__name__}, which has no description; save the arrays, numbers and text in it"
            if callable(value):
                which = "which has no name to find it by again; use a function of a module"
                what = f"the function {name_of(value)}, {which}"
            raise TypeError(f"{self._who}: {path or 'the value'} is {what}")
        return {"unnamed": repr(value)[:200]}


def _fault(array: Any) -> str | None:
    """Why an array cannot be kept."""
    if getattr(array, "is_deleted", bool)():
        return "is used up (donated)"
    if isinstance(array, np.ma.MaskedArray):
        return "is a masked array; save its data and its mask"
    if tree.is_random_key(array):
        return None
    kind, is_number = array.dtype.kind, any(jnp.issubdtype(array.dtype, t) for t in (np.number, np.bool_))
    if kind == "U" or (is_number and kind != "m" and array.dtype.char not in "gG"):
        return None
    what = "is an array of objects" if kind == "O" else f"has the dtype {array.dtype}"
    return f"{what}, which cannot be kept; convert it to numbers of at most 64 bits, or text"


def _plain(value: Any) -> Any:
    """A number or a string of Python in JSON's types."""
    if isinstance(value, complex):
        return {"complex": [repr(value.real), repr(value.imag)]}
    return {"float": repr(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _under(path: str | None, key: str) -> str | None:
    return None if path is None else path + key


def one_level(value: Any) -> dict[str, Any] | None:
    """The children of a node of a pytree, by `keystr`; None if JAX takes it for a leaf."""
    children, structure = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda x: x is not value)
    if jax.tree_util.treedef_is_leaf(structure) and structure.num_nodes == 1 and structure.num_leaves == 1:
        return None
    return {jax.tree_util.keystr(key): child for key, child in children}


def _place(value: Any) -> str:
    """Where a class or a function is found again, as module:name."""
    spec = getattr(value, "spec", None)
    function = value if spec is None else spec.function
    return f"{function.__module__}:{function.__qualname__}"


def _is_found(value: Any) -> bool:
    return hasattr(value, "__qualname__") and hasattr(value, "__module__") and found(_place(value)) is value


def found(place: str) -> Any:
    """What stands at a place; None if nothing does. In this package a class may have moved to another module."""
    if ":" not in place:  # Optax's public name
        module, _, name = place.rpartition(".")
    else:
        module, _, name = place.partition(":")
    root = module.partition(".")[0]
    if module not in sys.modules and root in _IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    homes = [sys.modules.get(module)]
    if root == PACKAGE:
        homes += [m for n, m in sorted(sys.modules.items()) if n.startswith(f"{PACKAGE}.")]
    for home in homes:
        value: Any = home
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is not None:
            return value
    return None
