"""Configs: the static values in them, how they are split from the traced numbers, and a record of what `trial` reads.

Trials whose static parts are equal share one program. `StaticPart.join` puts a vector of numbers, which may be tracers,
back into a config.
"""

import dataclasses
import difflib
import itertools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.parameters import copied
from jaxopt_lite.core.text import spell
from jaxopt_lite.core.values import Value

__all__ = []

Config = dict[str, Any]
Path = tuple[Any, ...]

LARGEST = float(np.finfo(np.float32).max)
_NUMBER = jax.tree.structure(0.0)


def check_static(value: Any, what: str) -> None:
    """Raise unless a value may stand in a config as it is: hashable, or a list or tuple of such."""
    if isinstance(value, (list, tuple)) and not isinstance(value, (Value, optax.GradientTransformation)):
        for element in value:
            check_static(element, what)
        return
    if getattr(value, "noun", "") == "a distribution":
        raise TypeError(f"{what} must not hold a distribution, got {value!r}; use a dict, which has names for them")
    if isinstance(value, optax.GradientTransformation) and not isinstance(value, Value):
        raise TypeError(f"{what} is a plain Optax pair, whose numbers are hidden; use jaxopt_lite's own or lift")
    if getattr(value, "spec", None) is not None and not isinstance(value, Value):
        raise TypeError(f"{what} is the function {value.spec.name}, which makes {value.spec.makes.noun}; call it")
    try:
        hash(value)
    except TypeError:
        raise TypeError(f"{what} must be hashable, because it is static, got {describe(value)}") from None


def check_float32(value: float, what: str, infinite: bool = True) -> None:
    """Raise if a number overflows float32; one that is infinite already passes unless `infinite` is False."""
    if abs(value) > LARGEST and not (infinite and np.isinf(value)):
        raise ValueError(f"{what} must be at most 3.4e38, because it is a float32, got {value!r}")


def frozen(value: Any) -> Any:
    """A hashable stand-in, equal exactly where types and values are equal.

    Lists and tuples are one type, NumPy's scalars are of Python's types, and NaN is NaN.
    """
    if isinstance(value, (list, tuple)) and not isinstance(value, Value):
        return (list, tuple(map(frozen, value)))
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (float, complex)) and value != value:
        return (type(value), repr(value))
    return (type(value), value)


def printed(value: Any) -> Any:
    """A static value as one prints it: optimizers as the calls that make them, functions as their names."""
    if value is None or isinstance(value, (int, float, str)):
        return json.loads(json.dumps(value))  # an Enum of such becomes the number or the string
    if isinstance(value, Value):
        return spell(value, defaults=True)
    if isinstance(value, (list, tuple)):
        return [printed(element) for element in value]
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def plain(value: Any) -> Any:
    """A static value as JSON has it: as it is printed, with infinite numbers and NaN as text."""
    return json.loads(json.dumps(printed(value)), parse_constant=str)


def shortest(number: Any) -> float:
    """The float of fewest digits that rounds to the same float32: 0.1, not 0.10000000149."""
    return float(str(np.float32(number)))


@dataclasses.dataclass(frozen=True)
class _Leaves:
    """The place of a value whose leaves are traced: a number, an optimizer or a schedule."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]

    def join(self, numbers: Iterator[Any]) -> Any:
        """The value, with leaves taken from the numbers that come next."""
        if self.treedef == _NUMBER:
            return next(numbers)
        return jax.tree.unflatten(self.treedef, [_leaf(numbers, shape) for shape in self.shapes])


@dataclasses.dataclass(frozen=True)
class StaticPart:
    """The static part of a config: all of it but the traced numbers. Equal parts share one program.

    Attributes:
        key: equal where two parts are, types included.
        skeleton: the config with `_Leaves` in place of what is traced.
        names: flat names of the traced numbers, in the order of their vector.
        label: the static values as text.
    """

    key: tuple
    skeleton: Config = dataclasses.field(compare=False)
    names: tuple[str, ...] = dataclasses.field(compare=False)
    label: str = dataclasses.field(compare=False)

    def join(self, numbers: Any) -> Config:
        """The config that has this static part and the given numbers [k]: an array of NumPy or JAX, or scalars."""
        rest = iter([numbers[i] for i in range(len(self.names))])
        return _map(lambda path, part: part.join(rest) if isinstance(part, _Leaves) else copied(part), self.skeleton)

    def explain(self, error: Exception) -> list[str]:
        """A hint to add to an error of `trial`, if it comes of numbers that are traced."""
        of_shapes = isinstance(error, TypeError) and any(words in str(error) for words in _OF_SHAPES)
        is_traced = self.names and (of_shapes or isinstance(error, jax.errors.JAXTypeError))
        hint = "what decides about shapes or Python's control flow must be static: use choice(...) or int_uniform(...)"
        return [f"traced numbers are here {', '.join(self.names)}; {hint}"] if is_traced else []


# In messages of Python, NumPy and JAX, where a float32 was given for a length.
_OF_SHAPES = ("interpreted as an integer", "integers or a single integer", "of concrete values", "shapes must be")


def split(config: Config) -> tuple[StaticPart, np.ndarray]:
    """Take a config of a space apart: its static part, and its traced numbers, float32 [k].

    Traced are NumPy float32 scalars, and the hyperparameters of optimizers and schedules.

    >>> part, numbers = split({"b1": np.float32(0.5), "hidden": 32})
    >>> part.names, numbers, part.join(numbers)
    (('b1',), array([0.5], dtype=float32), {'b1': np.float32(0.5), 'hidden': 32})
    """
    keys, numbers, names, labels = [], [], [], []

    def cut(path, node):
        if type(node) is not np.float32 and not isinstance(node, Value):
            keys.append((path, frozen(node)))
            labels.append(f"{'.'.join(path)}={printed(node)}")
            return copied(node)
        leaves, treedef = jax.tree_util.tree_flatten_with_path(node)
        for inner, leaf in leaves:
            if not jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.floating):
                raise TypeError(f"a config holds {node!r}, of which {describe(leaf)} is a leaf; it must be a float")
            numbers.extend(np.ravel(leaf))
            at = ".".join([*path, *(jax.tree_util.keystr((key,), simple=True) for key in inner)])
            names.extend([f"{at}.{i}" for i in range(np.size(leaf))] if np.ndim(leaf) else [at])
        part = _Leaves(treedef, tuple(np.shape(leaf) for _, leaf in leaves))
        keys.append((path, part))
        return part

    skeleton = _map(cut, config)
    static = StaticPart(tuple(keys), skeleton, tuple(names), ", ".join(labels) or "all trials")
    return static, np.array(numbers, np.float32)


def _map(function: Any, node: Any, path: tuple = ()) -> Any:
    """The nested dict with a function of path and value applied to what is no dict; the order of keys stays."""
    if not isinstance(node, dict):
        return function(path, node)
    return {key: _map(function, child, (*path, key)) for key, child in node.items()}


def _leaf(numbers: Iterator[Any], shape: tuple[int, ...]) -> Any:
    """The next leaf of an optimizer: a Python float, an array, or a tracer."""
    flat = list(itertools.islice(numbers, math.prod(shape)))
    if all(type(x) is np.float32 for x in flat):
        return np.reshape([shortest(x) for x in flat], shape) if shape else shortest(flat[0])
    return jnp.stack(flat).reshape(shape) if shape else flat[0]


@dataclasses.dataclass
class Reading:
    """What `trial` read of the configs of a group.

    Attributes:
        read: the paths of the values that were read: ("rule", "b1") for config["rule"]["b1"].
        missing: the missing paths that were asked for: what the config has instead, and the path of the nearest.
        as_tree: whether a config, or a dict in it, was used as a pytree.
    """

    read: set[Path] = dataclasses.field(default_factory=set)
    missing: dict[Path, tuple[str, Path | None]] = dataclasses.field(default_factory=dict)
    as_tree: bool = False

    def has(self, path: Path, is_name: bool) -> bool:
        """Whether a value was read; the name of a sub-space also counts where the sub-space was looked into."""
        inside = (p for p in (*self.read, *self.missing) if p[: len(path) - 1] == path[:-1])
        return path in self.read or (is_name and any(inside))

    def explain(self, error: Exception) -> list[str]:
        """Hints to add to an error of `trial`: about a missing key, or one asked for in place of one never read."""
        return [
            text
            for path, (text, near) in self.missing.items()
            if (isinstance(error, KeyError) and error.args == path[-1:]) or (near is not None and near not in self.read)
        ]


class Observed(dict):
    """A config, and each dict in it, that notes which values are read, and which keys are missing.

    Because of its own `__iter__`, also `**config`, `dict(config)` and `match` read through its methods. Printing reads
    nothing.
    """

    def __init__(self, config: Config, reading: Reading, path: Path = ()):
        inner = {k: Observed(v, reading, (*path, k)) if type(v) is dict else v for k, v in config.items()}
        super().__init__(inner)
        self._reading, self._path = reading, path

    def _note(self, *keys: Any) -> None:
        for key in keys:
            if not dict.__contains__(self, key):
                self._reading.missing[*self._path, key] = self._instead_of(key)
            elif not isinstance(dict.__getitem__(self, key), Observed):
                self._reading.read.add((*self._path, key))

    def _instead_of(self, key: Any) -> tuple[str, Path | None]:
        at = "config" + "".join(f"[{k!r}]" for k in self._path)
        near = difflib.get_close_matches(str(key), [k for k in self if isinstance(k, str)], 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{at} has no {key!r}{hint}; it has {self._listed()}", (*self._path, *near) if near else None

    def _listed(self) -> str:
        inner = lambda value: f" (with {value._listed()})" if isinstance(value, Observed) else ""
        return ", ".join(f"{key!r}{inner(dict.__getitem__(self, key))}" for key in self) or "nothing"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a config is a dict, and has no attribute {name!r}; its values are config['NAME']")

    def __iter__(self) -> Iterator:
        return super().__iter__()

    def __reduce__(self) -> tuple:
        return dict, (dict(self),)


def _noting(name: str, of_all: bool) -> Callable:
    """A method of dict that notes the key that it is given, or all keys."""

    def method(self, *args):
        self._note(*(self if of_all else args[:1]))
        return getattr(dict, name)(self, *args)

    return method


for _name in ("__getitem__", "__contains__", "__delitem__", "get", "pop", "setdefault"):
    setattr(Observed, _name, _noting(_name, of_all=False))
for _name in ("__eq__", "__or__", "__ror__", "copy", "popitem", "values", "items"):
    setattr(Observed, _name, _noting(_name, of_all=True))


def _as_tree(config: Observed) -> tuple[list, tuple]:
    config._reading.as_tree = True
    keys = sorted(config)
    return [(jax.tree_util.DictKey(key), config[key]) for key in keys], tuple(keys)


def _from_tree(keys: tuple, values: Any) -> Any:
    return dict(zip(keys, values, strict=True))


jax.tree_util.register_pytree_with_keys(Observed, _as_tree, _from_tree)
