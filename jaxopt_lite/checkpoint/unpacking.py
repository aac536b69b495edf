"""A value restored from its description, see `packing`, or its leaves put into a structure that is given.

Classes and functions are looked up by name in this package, in Optax, JAX and NumPy, and in modules that are imported
already: nothing is imported, and nothing evaluated, because a file says so.
"""

import collections
import dataclasses
import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.checkpoint.packing import PACKAGE, found

__all__ = []

_LEAVES = ("leaf", "array", "numpy", "scalar", "key", "strings")


def unpack(
    description: Any,
    arrays: Mapping[str, Any],
    like: Mapping[str, Any] | None = None,
    who: str = "load",
    path: str = "",
) -> Any:
    """Restore a value.

    Args:
        description: from `pack`.
        arrays: by name.
        like: pytrees by path, "" being the whole: what stands there gets its structure, its classes and (of leaves with
            a sharding) its placement from them, and its leaves from the arrays.
        who: the caller, in messages.
        path: where the description stands in the one that was packed.

    Raises:
        ValueError: if the structure, a shape or a dtype differs from `like`, with the paths; or if a class or
            a function is not found, or has changed.
    """
    return _Unpacker(arrays, like or {}, who).make(description, path)


class _Unpacker:
    def __init__(self, arrays: Mapping[str, Any], like: Mapping[str, Any], who: str):
        self._arrays, self._like, self._who = arrays, like, who

    def make(self, node: Any, path: str) -> Any:
        if path in self._like:
            return self._as(node, self._like[path], path)
        if isinstance(node, list):
            return [self.make(child, f"{path}[{i}]") for i, child in enumerate(node)]
        if not isinstance(node, dict):
            return node
        kind = next(iter(node))
        return getattr(self, f"_{kind}", self._unknown)(node, path)

    def _unknown(self, node, path):
        raise ValueError(f"{self._who}: {path or 'the value'} was written by a newer version: {next(iter(node))!r}")

    def _leaf(self, node, path):
        return self.make(node["leaf"], "")

    def _array(self, node, path):
        array = self._arrays[node["array"]]
        return jnp.asarray(array) if jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype else array

    def _numpy(self, node, path):
        return self._arrays[node["numpy"]]

    def _scalar(self, node, path):
        return self._arrays[node["scalar"]][()]

    def _strings(self, node, path):
        return np.array(node["strings"], node["dtype"])

    def _key(self, node, path):
        return jax.random.wrap_key_data(jnp.asarray(self._arrays[node["key"]]), impl=node["impl"])

    def _float(self, node, path):
        return float(node["float"])

    def _complex(self, node, path):
        return complex(*map(float, node["complex"]))

    def _dict(self, node, path):
        made = collections.OrderedDict() if "ordered" in node else {}
        for key, child in node["dict"]:
            key = self.make(key, "")
            made[key] = self.make(child, f"{path}[{key!r}]")
        return made

    def _set(self, node, path):
        return {"set": set, "frozenset": frozenset}[node["of"]](self.make(node["set"], ""))

    def _list(self, node, path):
        return self.make(node["list"], path)

    def _tuple(self, node, path):
        return tuple(self.make(node["tuple"], path))

    def _fields(self, node, path):
        kind: Any = self._find(node["of"], path)
        fields = {name: self.make(child, f"{path}.{name}") for name, child in node["fields"].items()}
        inner = getattr(kind, "__dataclass_fields__", {})
        made_inside = {name for name, field in inner.items() if not field.init}
        try:
            made = kind(**{name: field for name, field in fields.items() if name not in made_inside})
        except TypeError as error:
            raise self._changed(node["of"], path, error) from None
        if dataclasses.is_dataclass(made):  # __init__ and __post_init__ may have changed what they were given
            for name, field in fields.items():
                object.__setattr__(made, name, field)
        return made

    def _call(self, node, path):
        return self._remember(self._find(node["call"], path), node, path)

    def _lifted(self, node, path):
        factory, (static, traced, acts_on) = node["lifted"], node["how"]
        lift = importlib.import_module(PACKAGE).lift
        factory = self._find(factory, path) if isinstance(factory, str) else self.make(factory, path)
        return self._remember(lift(factory, tuple(static), tuple(traced), acts_on), node, path)

    def _made(self, node, path):
        return self._find(node["made"], path)(*self.make(node["with"], ""))

    def _remember(self, factory: Any, node: dict, path: str) -> Any:
        """A value without checks: its numbers may be arrays with an axis of seeds."""
        spec = factory.spec
        given = {n: self.make(child, f"{path}.{n}") for n, child in node["arguments"].items()}
        unknown = [n for n in given if n not in spec.parameters]
        if unknown:
            raise self._changed(spec.name, path, f"it has no argument {unknown[0]!r}")
        arguments = {}
        for n, parameter in spec.parameters.items():
            if n in given:
                arguments[n] = given[n]
            elif parameter.default is inspect.Parameter.empty:
                raise self._changed(spec.name, path, f"it needs {n!r} now")
            else:
                arguments[n] = spec.normalise(n, parameter.default)
        return spec.makes.remember(factory, arguments)

    def _member(self, node, path):
        return self._find(node["of"], path)[node["member"]]

    def _flags(self, node, path):
        return self._find(node["of"], path)(node["flags"])

    def _dtype(self, node, path):
        return jnp.dtype(node["dtype"])

    def _named(self, node, path):
        return self._find(node["named"], path)

    def _node(self, node, path):
        raise ValueError(
            f"{self._who}: {path or 'the value'} is a {node['node'].rpartition(':')[2]}, which cannot be restored "
            "from a file; give like=, a value of the same structure (its shapes suffice: jax.eval_shape gives them)"
        )

    def _unnamed(self, node, path):
        raise ValueError(f"{self._who}: {path or 'the value'} was {node['unnamed']}, which has no name; give like=")

    def _as(self, node: Any, like: Any, path: str) -> Any:
        """The leaves of a description in the structure of another pytree."""
        there = dict(leaves(node))
        wanted, structure = jax.tree_util.tree_flatten_with_path(like)
        paths = [path + jax.tree_util.keystr(key) for key, _ in wanted]
        faults = [f"  {p}: only in the file" for p in there if p not in set(paths)]
        placed = []
        for p, (_, leaf) in zip(paths, wanted, strict=True):
            if p not in there:
                faults.append(f"  {p}: not in the file")
                continue
            value = _Unpacker(self._arrays, {}, self._who).make(there[p], p)
            if isinstance(value, (bool, int, float, complex)) and np.shape(leaf) == () and hasattr(leaf, "dtype"):
                value = jnp.asarray(value, leaf.dtype)  # `jax.eval_shape` makes arrays of numbers
            if _shape(value) != _shape(leaf):
                faults.append(f"  {p}: {_shape(value)} in the file, {_shape(leaf)} here")
            placed.append(_placed(value, leaf))
        if faults:
            more = [f"  and {len(faults) - 10} more"] if len(faults) > 10 else []
            raise ValueError("\n".join([f"{self._who}: the file holds another structure:", *faults[:10], *more]))
        return structure.unflatten(placed)

    def _find(self, place: str, path: str) -> Any:
        value = found(place)
        if value is None:
            raise ValueError(
                f"{self._who}: {path or 'the value'} is of {place}, which is not there; import its module first, or "
                "give like="
            )
        return value

    def _changed(self, place: str, path: str, why: Any) -> ValueError:
        return ValueError(
            f"{self._who}: {path or 'the value'}: {place} has changed since it was saved, or is not made of its fields "
            f"alone ({why}); give like="
        )


def leaves(node: Any) -> Iterator[tuple[str, Any]]:
    """(path, description) of the leaves that JAX sees."""
    if isinstance(node, list):
        for child in node:
            yield from leaves(child)
    elif isinstance(node, dict):
        kind = next(iter(node))
        if kind in _LEAVES and node["path"] is not None:
            yield node["path"], node
        elif kind == "dict":
            yield from leaves([child for _, child in node["dict"]])
        elif kind == "fields":
            yield from leaves(list(node["fields"].values()))
        elif kind in ("call", "lifted"):
            yield from leaves(list(node["arguments"].values()))
        elif kind in ("list", "tuple"):
            yield from leaves(node[kind])
        elif kind == "node":
            yield from leaves(node["children"])


def named_arrays(node: Any) -> Iterator[tuple[str | None, Any, str]]:
    """(path, description, kind) of everything that is an array among the saved ones."""
    if isinstance(node, list):
        for child in node:
            yield from named_arrays(child)
    elif isinstance(node, dict):
        kind = next(iter(node), "")
        if kind in ("array", "numpy", "scalar", "key") and "path" in node:
            yield node["path"], node, kind
        else:
            yield from named_arrays(list(node.values()))


def _shape(leaf: Any) -> str:
    dtype = getattr(leaf, "dtype", None)
    return type(leaf).__name__ if dtype is None else f"{dtype}{list(np.shape(leaf))}"


def _placed(value: Any, leaf: Any) -> Any:
    """The value where `leaf` is: on its devices, if it says so."""
    sharding = getattr(leaf, "sharding", None)
    return value if sharding is None else jax.device_put(value, sharding)
