"""Configs in groups: trials whose static parts are equal share one program.

A config is split into its static part and a vector of float32 numbers. The static part joins such a vector, of tracers
too, to a config again:

    for part, (indices, numbers) in group(configs).items():     # numbers: float32 [m, k]

        def run(row):                                           # compiled once for each part
            return train(trial(part.join(row)))

        results = jax.jit(jax.vmap(run))(numbers)               # of configs[indices[0]], configs[indices[1]], ...
"""

import dataclasses
import difflib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.parameters import copied
from jaxopt_lite.core.values import Value
from jaxopt_lite.sweeps.static import frozen, shortest

__all__ = ["Static", "group", "split"]

Config = dict[str, Any]
Path = tuple[Any, ...]


@dataclasses.dataclass
class Reading:
    """What a trial function read of the configs of a group.

    Attributes:
        read: the paths of the values that were read: ("rule", "b1") for config["rule"]["b1"].
        missing: the paths that were asked for and are not there: what is there instead, and the path of the nearest.
        as_tree: whether a config, or a dict in it, was used as a pytree.
    """

    read: set[Path] = dataclasses.field(default_factory=set)
    missing: dict[Path, tuple[str, Path | None]] = dataclasses.field(default_factory=dict)
    as_tree: bool = False

    def has(self, path: Path, is_name: bool) -> bool:
        """Whether a value was read; the name of a sub-space also counts where the sub-space was looked into."""
        inside = path[:-1] if is_name else path
        return any(p[: len(inside)] == inside for p in (self.read.union(self.missing) if is_name else self.read))

    def explain(self, error: Exception) -> list[str]:
        """What to add to an error of the trial: of a missing key, or one asked for in place of one never read."""
        return [
            text
            for path, (text, near) in self.missing.items()
            if (isinstance(error, KeyError) and error.args == path[-1:]) or (near is not None and near not in self.read)
        ]


class Observed(dict):
    """A config, and each dict in it, that notes which values are read, and which keys are missing.

    It is read through the methods below even by `**config`, `dict(config)` and `match`, since they look for another
    `__iter__`. To print it reads nothing.
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

    def __iter__(self) -> Iterator:
        return super().__iter__()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a config is a dict, and has no attribute {name!r}; its values are config['NAME']")

    def __getitem__(self, key: Any) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def _instead_of(self, key: Any) -> tuple[str, Path | None]:
        at = "config" + "".join(f"[{k!r}]" for k in self._path)
        near = difflib.get_close_matches(str(key), [k for k in self if isinstance(k, str)], 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{at} has no {key!r}{hint}; it has {self._listed()}", (*self._path, *near) if near else None

    def _listed(self) -> str:
        inner = lambda value: f" (with {value._listed()})" if isinstance(value, Observed) else ""
        return ", ".join(f"{key!r}{inner(dict.__getitem__(self, key))}" for key in self) or "nothing"

    def __contains__(self, key: Any) -> bool:
        self._note(key)
        return super().__contains__(key)

    def __delitem__(self, key: Any) -> None:
        self._note(key)
        super().__delitem__(key)

    def __eq__(self, other: object) -> bool:
        self._note(*self)
        return super().__eq__(other)

    def __or__(self, other: Any) -> Any:
        return dict(self) | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self)

    def __reduce__(self) -> tuple:
        return dict, (dict(self),)

    def get(self, key: Any, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def pop(self, key: Any, *default: Any) -> Any:
        self._note(key)
        return super().pop(key, *default)

    def popitem(self) -> tuple:
        self._note(*self)
        return super().popitem()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        self._note(key)
        return super().setdefault(key, default)

    def values(self) -> Any:
        self._note(*self)
        return super().values()

    def items(self) -> Any:
        self._note(*self)
        return super().items()

    def copy(self) -> Config:
        return dict(self)


def _as_tree(config: Observed) -> tuple[list, tuple]:
    config._reading.as_tree = True
    keys = sorted(config)
    return [(jax.tree_util.DictKey(key), config[key]) for key in keys], tuple(keys)


def _from_tree(keys: tuple, values: Any) -> Any:
    return dict(zip(keys, values, strict=True))


jax.tree_util.register_pytree_with_keys(Observed, _as_tree, _from_tree)


class _Number:
    """Where a traced number stands."""

    def __repr__(self) -> str:
        return "<float32>"


_NUMBER = _Number()


@dataclasses.dataclass(frozen=True)
class _Leaves:
    """Where a value stands whose leaves are traced: an optimizer or a schedule."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]


class Static:
    """The static part of a config: all of it but the traced numbers. Equal parts share one program."""

    def __init__(self, skeleton: Config, key: Any):
        self.skeleton, self.key = skeleton, key
        self._hash = hash(key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self.key == other.key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Static({self.skeleton})"

    @property
    def names(self) -> tuple[str, ...]:
        """Flat names of the traced numbers, in the order of their vector."""
        return tuple(_names(self.skeleton, ""))

    def join(self, numbers: Any) -> Config:
        """The config that has this static part and the given numbers [k], an array of NumPy or JAX, or a tracer."""
        names = self.names
        if np.shape(numbers) != (len(names),):
            raise ValueError(
                f"a config of this group is joined with a vector of {len(names)} numbers ({', '.join(names)}), got "
                f"shape {np.shape(numbers)}; join the rows of a table under jax.vmap"
            )
        return _join(self.skeleton, iter([numbers[i] for i in range(len(names))]))


def split(config: Config) -> tuple[Static, np.ndarray]:
    """Take a config of a space apart: its static part, and its traced numbers, float32 [k].

    Traced are NumPy float32 scalars, and the hyperparameters of optimizers and schedules.

    >>> part, numbers = split({"b1": np.float32(0.5), "hidden": 32})
    >>> part.names, numbers, part.join(numbers)
    (('b1',), array([0.5], dtype=float32), {'b1': np.float32(0.5), 'hidden': 32})
    """
    numbers: list[Any] = []
    skeleton, key = _split(config, numbers)
    return Static(skeleton, key), np.array(numbers, np.float32)


def group(configs: Sequence[Config]) -> dict[Static, tuple[np.ndarray, np.ndarray]]:
    """Configs by their static parts, in the order of first appearance.

    Returns:
        For each static part, the indices of its configs, int [m], and their traced numbers, float32 [m, k].
    """
    members: dict[Static, list] = {}
    for i, config in enumerate(configs):
        part, numbers = split(config)
        members.setdefault(part, []).append((i, numbers))
    return {part: (np.array([i for i, _ in rows]), np.stack([x for _, x in rows])) for part, rows in members.items()}


def _split(node: Any, numbers: list[Any]) -> tuple[Any, Any]:
    """The node with its numbers cut out, and a key that is equal where what is left is equal, types included."""
    if isinstance(node, dict):
        parts = {key: _split(child, numbers) for key, child in node.items()}
        keys = tuple([(key, part) for key, (_, part) in parts.items()])
        return {key: skeleton for key, (skeleton, _) in parts.items()}, (dict, keys)
    if type(node) is np.float32:
        numbers.append(node)
        return _NUMBER, _NUMBER
    if isinstance(node, Value):
        leaves, treedef = jax.tree.flatten(node)
        skeleton = _Leaves(treedef, tuple(map(np.shape, leaves)))
        for leaf in leaves:
            numbers += [leaf] if isinstance(leaf, float) else _elements(leaf, node)
        return skeleton, skeleton
    if isinstance(node, (np.ndarray, jax.Array)):
        raise TypeError(f"a config holds {describe(node)}; its numbers must be NumPy float32 scalars")
    return copied(node), frozen(node)


def _elements(leaf: Any, value: Value) -> list[Any]:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise TypeError(f"a config holds {value!r}, of which {describe(leaf)} is a leaf; it must be a float")
    return list(np.ravel(leaf))


def _names(skeleton: Any, name: str) -> Iterator[str]:
    if isinstance(skeleton, dict):
        for key, child in skeleton.items():
            yield from _names(child, f"{name}.{key}" if name else key)
    elif skeleton is _NUMBER:
        yield name
    elif isinstance(skeleton, _Leaves):
        places, _ = jax.tree_util.tree_flatten_with_path(skeleton.treedef.unflatten(range(len(skeleton.shapes))))
        for (path, _), shape in zip(places, skeleton.shapes, strict=True):
            at = ".".join([name, *(str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", k)))) for k in path)])
            yield from [f"{at}.{i}" for i in range(math.prod(shape))] if shape else [at]


def _join(skeleton: Any, numbers: Iterator[Any]) -> Any:
    if isinstance(skeleton, dict):
        return {key: _join(child, numbers) for key, child in skeleton.items()}
    if skeleton is _NUMBER:
        return next(numbers)
    if isinstance(skeleton, _Leaves):
        return jax.tree.unflatten(skeleton.treedef, [_take(numbers, shape) for shape in skeleton.shapes])
    return copied(skeleton)


def _take(numbers: Iterator[Any], shape: tuple[int, ...]) -> Any:
    """The next leaf of an optimizer: a Python float, an array, or a tracer."""
    if not shape:
        number = next(numbers)
        return shortest(number) if type(number) is np.float32 else number
    flat = [next(numbers) for _ in range(math.prod(shape))]
    if all(type(x) is np.float32 for x in flat):
        return np.array(list(map(shortest, flat))).reshape(shape)
    return jnp.stack(flat).reshape(shape) if flat else np.empty(shape)
