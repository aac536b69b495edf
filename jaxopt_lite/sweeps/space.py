"""Spaces of configs, and the four maps that samplers, policies and the engine need.

    points  [n, d] in the unit cube      what samplers think in
    table   [n, d] float64               numbers, and indices of options; NaN where a dimension is not active. It is
                                         what is stored: float32 and ints are held exactly
    configs n nested dicts               what a trial is given: float32 scalars are traced, all else is static

    points → table  `from_unit`      table → configs  `configs`
    table → points  `to_unit`        configs → table  `table`

Flat names join the keys with dots; inside a sub-space they have its name too: `optimizer.name`, `optimizer.adam.b1`.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.values import Value, register, remember_calls
from jaxopt_lite.sweeps.axes import Options, Range, check_float32, check_static, copied, frozen, keep, plain
from jaxopt_lite.sweeps.distributions import Distribution

__all__ = ["Space", "space"]

Config = dict[str, Any]
Name = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One coordinate of a space: a distribution, and where its value stands.

    Attributes:
        name: its flat name, `optimizer.adam.b1`; the name of a sub-space is at `optimizer.name`.
        path: the keys that lead to its value in a config, `("optimizer", "b1")`.
        distribution: what was given for it.
        parent: the dimension, by index, that chooses among sub-spaces of which this is in one; -1 for none.
        option: the index of the option of `parent` for which this dimension is active.
    """

    name: str
    path: Name
    distribution: Distribution
    parent: int = -1
    option: int = -1

    @property
    def axis(self) -> Range | Options:
        """Its kind ("float", "int" or "choice"), low, high, log, options, and whether it is traced."""
        return self.distribution.built


@register
class Space(Value):
    """A space of configs. Make one by `space({...})`."""

    noun = "a space"
    built: tuple[Dimension, ...]

    @classmethod
    def remember(cls, factory: Callable, arguments: dict[str, Any]) -> "Space":
        """Check before hashing, so that messages name the place; a space of a space is that space."""
        spec, where = arguments["spec"], arguments["where"]
        if isinstance(spec, Space):
            if where is not None and spec.where is not None:
                raise ValueError("space: spec has a constraint of its own; write one function that tests both")
            spec, where = spec.tree, where or spec.where
        _dimensions(spec)
        return super().remember(factory, {"spec": spec, "where": where})

    @property
    def tree(self) -> dict:
        """The nested dict of distributions and constants."""
        return self.arguments["spec"]

    @property
    def where(self) -> Callable[[Config], bool] | None:
        """The constraint."""
        return self.arguments["where"]

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The coordinates, in the order of the columns of points and tables; parents before their children."""
        return self.built

    @property
    def names(self) -> tuple[str, ...]:
        """The flat names of the dimensions."""
        return tuple(dimension.name for dimension in self.built)

    @property
    def traced(self) -> tuple[str, ...]:
        """The dimensions whose values are arguments of the program: float32 numbers."""
        return tuple(dimension.name for dimension in self.built if dimension.axis.traced)

    @property
    def static(self) -> tuple[str, ...]:
        """The dimensions whose values are part of the program: each combination makes a group."""
        return tuple(dimension.name for dimension in self.built if not dimension.axis.traced)

    def summary(self) -> dict[str, str]:
        """Every dimension and constant as text, by flat name: to print, and to show how two spaces differ."""
        texts = {
            d.name: repr(d.distribution) if _branches_of(d.distribution) is None else str(d.axis) for d in self.built
        }
        texts |= {".".join(name): repr(constant) for name, constant in _constants(self.tree)}
        return texts if self.where is None else {**texts, "where": str(plain(self.where))}

    def active(self, table: np.ndarray) -> np.ndarray:
        """Which dimensions play a part in each row, bool [n, d]: those of sub-spaces that were not chosen do not."""
        active = np.ones(table.shape, bool)
        for j, dimension in enumerate(self.built):
            if dimension.parent >= 0:
                active[:, j] = active[:, dimension.parent] & (table[:, dimension.parent] == dimension.option)
        return active

    def from_unit(self, points: np.ndarray) -> np.ndarray:
        """The table [n, d] of points of the unit cube [n, d]."""
        columns = [dimension.axis.from_unit(points[:, j]) for j, dimension in enumerate(self.built)]
        table = np.stack(columns, axis=1) if columns else np.empty((len(points), 0))
        return np.where(self.active(table), table, np.nan)

    def to_unit(self, table: np.ndarray) -> np.ndarray:
        """Points of the unit cube [n, d] that lie where the rows of a table do; 0.5 where not active."""
        points = np.full(table.shape, 0.5)
        for j, dimension in enumerate(self.built):
            active = ~np.isnan(table[:, j])
            points[active, j] = dimension.axis.to_unit(table[active, j])
        return points

    def clip(self, table: np.ndarray) -> np.ndarray:
        """The nearest rows inside the space: each number within its range, rounded to a float32 or to an int."""
        columns = [dimension.axis.clip(table[:, j]) for j, dimension in enumerate(self.built)]
        return np.stack(columns, axis=1) if columns else table

    def configs(self, table: np.ndarray) -> list[Config]:
        """The configs of the rows of a table: fresh dicts. Traced numbers are NumPy float32 scalars."""
        return self._configs(self.tree, (), table)

    def table(self, configs: Sequence[Config], who: str = "config") -> np.ndarray:
        """The table [n, d] of configs; constants may be left out of them.

        Raises:
            TypeError: if a config is not a dict.
            ValueError: naming what is missing, unknown, outside its range, none of the options or not the constant.
        """
        table = np.full((len(configs), len(self.built)), np.nan)
        index = self._index
        for row, config in zip(table, configs, strict=True):
            for name, number in _read(self.tree, (), config, who):
                row[index[name]] = number
        return table

    def columns(self, table: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of a table as one prints them, by flat name.

        Traced numbers are float32 (NaN where not active), ints int64, choices objects, optimizers as text (None where
        not active; ints of sub-spaces are objects too).
        """
        return {d.name: d.axis.column(table[:, j]) for j, d in enumerate(self.built)}

    def encode(self, row: np.ndarray) -> dict[str, Any]:
        """One row [d] of a table as JSON has it, by flat name: optimizers as the calls that make them, NaN as "NaN"."""
        return {d.name: d.axis.plain(x) for d, x in zip(self.built, row, strict=True) if not np.isnan(x)}

    def decode(self, encoded: dict[str, Any]) -> np.ndarray:
        """The row [d] of a table that `encode` wrote.

        Raises:
            ValueError: naming what is missing, unknown, outside its range, or none of the options.
        """
        _check_names("saved config", encoded, self.names)
        row = np.full(len(self.built), np.nan)
        for j, d in enumerate(self.built):
            if d.name in encoded:
                try:
                    row[j] = d.axis.unplain(encoded[d.name])
                except ValueError as error:
                    raise ValueError(f"saved config: {d.name} {error}") from None
        for d, is_active, x in zip(self.built, self.active(row[None])[0], row, strict=True):
            if is_active == np.isnan(x):
                raise ValueError(f"saved config: {d.name} is {'missing' if is_active else 'given, but plays no part'}")
        return row

    def allows(self, config: Config) -> bool:
        """Whether a config satisfies the constraint; True where there is none."""
        if self.where is None:
            return True
        try:
            allowed = self.where(config)
        except Exception as error:
            error.add_note(f"in the constraint `where` of the space, called with {config}")
            raise
        if not isinstance(allowed, (bool, np.bool_)):
            raise TypeError(f"space: where must return True or False, got {describe(allowed)}")
        return bool(allowed)

    @property
    def _index(self) -> dict[str, int]:
        return {dimension.name: j for j, dimension in enumerate(self.built)}

    def _configs(self, spec: dict, name: Name, table: np.ndarray) -> list[Config]:
        columns = []
        for key, node in spec.items():
            inner, node = (*name, key), _tree(node)
            if isinstance(node, dict):
                columns.append(self._configs(node, inner, table))
            elif not isinstance(node, Distribution):
                columns.append([_constant(node) for _ in table])
            elif branches := _branches_of(node):
                columns.append(self._branches(branches, inner, table))
            else:
                columns.append(node.built.show(table[:, self._index[".".join(inner)]]))
        return [dict(zip(spec, values)) for values in zip(*columns)] if columns else [{} for _ in table]

    def _branches(self, branches: dict, name: Name, table: np.ndarray) -> list[Config]:
        chosen = table[:, self._index[".".join((*name, "name"))]]
        configs: list[Config] = [{}] * len(table)
        for k, (option, spec) in enumerate(branches.items()):
            rows = np.flatnonzero(chosen == k)
            for i, config in zip(rows, self._configs(_tree(spec), (*name, option), table[rows])):
                configs[i] = {"name": option, **config}
        return configs


def _space(function: Callable) -> Callable[..., Space]:
    return remember_calls(function, Space)


@_space
def space(spec: Any, where: Callable | None = None):
    """A space of configs: every config has the keys of `spec`, and a value of each.

    Args:
        spec: a dict of distributions and constants, nested as the configs are to be. A float is traced like a number
            that is drawn; every other constant (bool, int, string, None, list, function, the kind of an optimizer) is
            static.
        where: a constraint: a function of a config that returns whether it may be drawn. Give a function of a module
            if the sweep is to be resumed without being given the space again.

    Raises:
        TypeError: if spec is not a dict, a key not a string, or a constant cannot be hashed.
        ValueError: if spec is empty, or two values have one flat name.

    >>> from jaxopt_lite.sweeps.distributions import choice, log_uniform
    >>> s = space({"learning_rate": log_uniform(1e-4, 1e-1), "hidden": choice([32, 128]), "activation": "relu"})
    >>> s.traced, s.static
    (('learning_rate',), ('hidden',))
    >>> s.configs(s.from_unit(np.array([[0.5, 0.7]])))
    [{'learning_rate': np.float32(0.0031622776), 'hidden': 128, 'activation': 'relu'}]
    """
    if where is not None and not callable(where):
        raise TypeError(f"space: where must be a function of a config, got {describe(where)}")
    return tuple(_dimensions(spec))


keep(space, "spec")


def _dimensions(spec: Any) -> list[Dimension]:
    """The dimensions of a spec, parents before their children; raises what is wrong with it."""
    if not isinstance(spec, dict):
        raise TypeError(f"space: spec must be a dict of distributions and constants by name, got {describe(spec)}")
    if not spec:
        raise ValueError("space: spec is empty; give a dict such as {'learning_rate': log_uniform(1e-4, 1e-1)}")
    dimensions: list[Dimension] = []
    seen: set[str] = set()

    def take(name: Name) -> str:
        flat = ".".join(name)
        if flat in seen:
            raise ValueError(f"space: two values have the flat name {flat!r}; rename one of them")
        seen.add(flat)
        return flat

    def walk(tree: dict, path: Name, name: Name, parent: int, option: int) -> None:
        for key, node in tree.items():
            if not isinstance(key, str):
                raise TypeError(f"space: keys must be strings, got {describe(key)} in {'.'.join(name) or 'spec'}")
            node, at, inner = _tree(node), (*path, key), (*name, key)
            if isinstance(node, dict):
                walk(node, at, inner, parent, option)
            elif not isinstance(node, Distribution):
                check_static(node, what := f"space: the constant {take(inner)!r}")
                if isinstance(node, (float, np.floating)):
                    check_float32(float(node), what)
            elif (branches := _branches_of(node)) is None:
                dimensions.append(Dimension(take(inner), at, node, parent, option))
            else:
                j = len(dimensions)
                dimensions.append(Dimension(take((*inner, "name")), (*at, "name"), node, parent, option))
                for k, (which, branch) in enumerate(branches.items()):
                    if "name" in _tree(branch):
                        raise ValueError(f"space: {'.'.join(inner)}: 'name' is the key of the choice itself; rename it")
                    walk(_tree(branch), at, (*inner, which), j, k)

    walk(spec, (), (), -1, -1)
    return dimensions


def _tree(node: Any) -> Any:
    """A space inside another one is its dict."""
    if not isinstance(node, Space):
        return node
    if node.where is not None:
        raise ValueError("space: a constraint belongs to the outermost space, where it sees the whole config")
    return node.tree


def _branches_of(distribution: Distribution) -> dict[str, Any] | None:
    return distribution.built.branches if isinstance(distribution.built, Options) else None


def _constant(node: Any) -> Any:
    """A constant as a config holds it."""
    node = node.item() if isinstance(node, np.generic) else node
    return np.float32(node) if isinstance(node, float) else copied(node)


def _constants(tree: dict, name: Name = ()) -> Iterator[tuple[Name, Any]]:
    for key, node in tree.items():
        node, inner = _tree(node), (*name, key)
        if isinstance(node, dict):
            yield from _constants(node, inner)
        elif not isinstance(node, Distribution):
            yield inner, node
        else:
            for option, branch in (_branches_of(node) or {}).items():
                yield from _constants(_tree(branch), (*inner, option))


def _read(tree: dict, name: Name, config: Any, who: str) -> Iterator[tuple[str, float]]:
    """The numbers of a config by the flat names of their dimensions; raises what is wrong with it."""
    if not isinstance(config, dict):
        raise TypeError(f"{_at(who, name)} must be a dict, got {describe(config)}")
    _check_names(_at(who, name), config, tree)
    for key, node in tree.items():
        node, inner = _tree(node), (*name, key)
        if isinstance(node, dict):
            yield from _read(node, inner, config.get(key, {}), who)
        elif not isinstance(node, Distribution):
            if key in config and frozen(_constant(config[key])) != frozen(_constant(node)):
                raise ValueError(f"{_at(who, inner)} is the constant {node!r} of the space, got {config[key]!r}")
        elif key not in config:
            raise ValueError(f"{_at(who, inner)} is missing; it is to be {node.built}")
        elif (branches := _branches_of(node)) is None:
            yield ".".join(inner), _number(node, config[key], inner, who)
        else:
            given = config[key]
            if not isinstance(given, dict) or "name" not in given:
                raise ValueError(f"{_at(who, inner)} must be a dict with the 'name' of a sub-space, got {given!r}")
            yield ".".join((*inner, "name")), _number(node, given["name"], (*inner, "name"), who)
            rest = {k: v for k, v in given.items() if k != "name"}
            yield from _read(_tree(branches[given["name"]]), (*inner, given["name"]), rest, who)


def _number(distribution: Distribution, value: Any, name: Name, who: str) -> float:
    try:
        return distribution.built.read(value)
    except ValueError as error:
        raise ValueError(f"{_at(who, name)} {error}") from None


def _at(who: str, name: Name) -> str:
    return f"{who}: {'.'.join(name)}" if name else who


def _check_names(who: str, given: dict, known: Sequence[str] | dict) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), 3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known) or 'none'}"
            raise ValueError(f"{who}: there is no {name!r} in the space; {hint}")
