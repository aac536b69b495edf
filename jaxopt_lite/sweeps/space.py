"""Spaces of configs, and the four maps that samplers, policies and the engine need.

    points  [n, d] in the unit cube      what samplers work with
    table   [n, d] float64               numbers, and indices of options; NaN where a dimension is not active. It is
                                         what is stored: float32 and ints are held exactly
    configs n nested dicts               what a trial is given: float32 scalars and the numbers of optimizers
                                         are traced, all else is static

    points → table  `from_unit`      table → configs  `configs`
    table → points  `to_unit`        configs → table  `table`

Flat names join the keys with dots; inside a sub-space they have its name too: `optimizer.name`, `optimizer.adam.b1`.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np

from jaxopt_lite.core.arguments import check_bool, check_number, nearest
from jaxopt_lite.core.hyperparameters import hyperparameters, parameters_of, replace
from jaxopt_lite.core.numbers import Count, Fraction, PositiveCount, concrete, describe
from jaxopt_lite.core.parameters import Parameter, copied
from jaxopt_lite.core.values import Value, register, remember_calls
from jaxopt_lite.sweeps.configs import Config, check_float32, check_static, frozen, plain, printed
from jaxopt_lite.sweeps.distributions import Axis, Distribution, log_uniform, one_minus_log_uniform, uniform

__all__ = ["Space", "space", "space_of"]


class Leaf(NamedTuple):
    """A place in a config: of a dimension, which is a column of points and tables, of a constant, or of a dict.

    Attributes:
        name: its flat name, `optimizer.adam.b1`; the name of a sub-space is at `optimizer.name`.
        path: the keys that lead to its value in a config, `("optimizer", "b1")`.
        given: the distribution of a dimension, the constant, or the spec of the dict.
        axis: of a dimension: its kind ("float", "int" or "choice"), low, high, log, options, and whether it is traced;
            None for others.
        column: the index of a dimension, -1 for others.
        parent: the dimension, by index, that chooses among sub-spaces of which this is in one; -1 for none.
        option: the index of the option of `parent` for which this is active.
    """

    name: str
    path: tuple[str, ...]
    given: Any
    axis: Any
    column: int
    parent: int
    option: int


@register
class Space(Value):
    """A space of configs. Make one by `space({...})`."""

    noun = "a space"
    built: tuple[Leaf, ...]

    @classmethod
    def remember(cls, factory: Callable, arguments: dict[str, Any]) -> "Space":
        """Check before hashing, so that messages name the place; a space of a space is that space."""
        spec, where = arguments["spec"], arguments["where"]
        if isinstance(spec, Space):
            if where is not None and spec.where is not None:
                raise ValueError("space: spec has a constraint of its own; write one function that tests both")
            spec, where = spec.tree, where or spec.where
        _leaves(spec)
        return super().remember(factory, {"spec": spec, "where": where})

    @property
    def tree(self) -> dict:
        """The nested dict of distributions and constants."""
        return self.arguments["spec"]

    @property
    def where(self) -> Callable[[Config], bool] | None:
        """The constraint."""
        return self.arguments["where"]

    @functools.cached_property
    def dimensions(self) -> tuple[Leaf, ...]:
        """The coordinates, in the order of the columns of points and tables; parents before their children."""
        return tuple(leaf for leaf in self.built if leaf.axis is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """The flat names of the dimensions."""
        return tuple(d.name for d in self.dimensions)

    @property
    def traced(self) -> tuple[str, ...]:
        """The dimensions whose values are arguments of the program: float32 numbers."""
        return tuple(d.name for d in self.dimensions if d.axis.traced)

    @property
    def static(self) -> tuple[str, ...]:
        """The dimensions whose values are part of the program: each combination makes a group.

        Optimizers among the options that differ in their numbers alone share a group.
        """
        return tuple(d.name for d in self.dimensions if not d.axis.traced)

    def summary(self) -> dict[str, str]:
        """Every dimension and constant as text, by flat name: to print, and to show how two spaces differ."""
        shown = lambda leaf: str(leaf.axis) if leaf.axis and leaf.axis.branches else repr(leaf.given)
        texts = {leaf.name: shown(leaf) for leaf in self.built if not isinstance(leaf.given, dict)}
        return texts if self.where is None else {**texts, "where": str(plain(self.where))}

    def active(self, table: np.ndarray) -> np.ndarray:
        """Which dimensions play a part in each row, bool [n, d]: those of sub-spaces that were not chosen do not."""
        active = np.ones(table.shape, bool)
        for j, d in enumerate(self.dimensions):
            if d.parent >= 0:
                active[:, j] = active[:, d.parent] & (table[:, d.parent] == d.option)
        return active

    def from_unit(self, points: np.ndarray) -> np.ndarray:
        """The table [n, d] of points of the unit cube [n, d]."""
        table = self._mapped(Axis.draw, points)
        return np.where(self.active(table), table, np.nan)

    def to_unit(self, table: np.ndarray) -> np.ndarray:
        """Points of the unit cube [n, d] that lie where the rows of a table do; 0.5 where not active."""
        return np.where(np.isnan(table), 0.5, self._mapped(Axis.place, table))

    def clip(self, table: np.ndarray) -> np.ndarray:
        """The nearest rows inside the space: each number within its range, rounded to a float32 or to an int."""
        return self._mapped(Axis.clip, table)

    def _mapped(self, method: Callable[[Axis, np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
        columns = [method(d.axis, column) for d, column in zip(self.dimensions, array.T, strict=True)]
        return np.array(columns).T.reshape(array.shape)

    def configs(self, table: np.ndarray) -> list[Config]:
        """The configs of the rows of a table: fresh dicts. Traced numbers are NumPy float32 scalars."""
        configs: list[Config] = [{} for _ in table]
        for leaf in self.built:
            rows = np.arange(len(table)) if leaf.parent < 0 else np.flatnonzero(table[:, leaf.parent] == leaf.option)
            values = leaf.axis.show(table[rows, leaf.column]) if leaf.axis else [_constant(leaf.given) for _ in rows]
            for i, value in zip(rows.tolist(), values, strict=True):
                inner = configs[i]
                for key in leaf.path[:-1]:
                    inner = inner.setdefault(key, {})
                inner.setdefault(leaf.path[-1], value)
        return configs

    def table(self, configs: Sequence[Config], who: str = "config") -> np.ndarray:
        """The table [n, d] of configs; constants may be left out of them.

        Raises:
            TypeError: if a config is not a dict.
            ValueError: naming what is missing, unknown, outside its range, none of the options or not the constant.
        """
        table = np.full((len(configs), len(self.dimensions)), np.nan)
        for row, config in zip(table, configs, strict=True):
            _check_dict(who, config, self.tree)
            for leaf in self.built:
                if leaf.parent >= 0 and row[leaf.parent] != leaf.option:
                    continue
                value, at = _find(leaf, config, who), f"{who}: {leaf.name}"
                if leaf.axis:
                    row[leaf.column] = leaf.axis.read(value, at)
                elif isinstance(leaf.given, dict):
                    _check_dict(at, value, leaf.given)
                elif frozen(_constant(value)) != frozen(_constant(leaf.given)):
                    raise ValueError(f"{at} is the constant {leaf.given!r} of the space, got {value!r}")
        return table

    def columns(self, table: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of a table as one prints them, by flat name.

        Traced numbers are float32 (NaN where not active), ints int64, choices objects, optimizers as text (None where
        not active; ints of sub-spaces are objects too).
        """
        return {d.name: _column(d.axis, numbers) for d, numbers in zip(self.dimensions, table.T, strict=True)}

    def encode(self, row: np.ndarray) -> dict[str, Any]:
        """One row [d] of a table as JSON has it, by flat name: optimizers as the calls that make them, NaN as "NaN"."""
        return {d.name: plain(d.axis.value(x)) for d, x in zip(self.dimensions, row, strict=True) if not np.isnan(x)}

    def decode(self, encoded: dict[str, Any]) -> np.ndarray:
        """The row [d] of a table that `encode` wrote.

        Raises:
            ValueError: naming what is missing, unknown, outside its range, or none of the options.
        """
        _check_dict("saved config", encoded, self.names)
        read = lambda d: d.axis.read(encoded[d.name], f"saved config: {d.name}")
        row = np.array([read(d) if d.name in encoded else np.nan for d in self.dimensions])
        for d, is_active in zip(self.dimensions, self.active(row[None])[0], strict=True):
            if is_active != (d.name in encoded):
                raise ValueError(f"saved config: {d.name} is {'missing' if is_active else 'given, but plays no part'}")
        return row

    def allows(self, config: Config) -> bool:
        """Whether a config satisfies the constraint; True without one."""
        if self.where is None:
            return True
        try:
            allowed = self.where(config)
        except Exception as error:
            error.add_note(f"in the constraint `where` of the space, called with {config}")
            raise
        return check_bool("space", "what where returns", allowed)


@functools.partial(remember_calls, makes=Space)
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
    return tuple(_leaves(spec))


def _leaves(spec: Any) -> list[Leaf]:
    """The constants and dimensions of a spec, parents before their children; raises what is wrong with it."""
    if not isinstance(spec, dict):
        raise TypeError(f"space: spec must be a dict of distributions and constants by name, got {describe(spec)}")
    if not spec:
        raise ValueError("space: spec is empty; give a dict such as {'learning_rate': log_uniform(1e-4, 1e-1)}")
    leaves: list[Leaf] = []

    def walk(tree: dict, path: tuple[str, ...], name: tuple[str, ...], parent: int, option: int) -> None:
        for key, node in tree.items():
            if not isinstance(key, str):
                raise TypeError(f"space: keys must be strings, got {describe(key)} in {'.'.join(name) or 'spec'}")
            node, at, inner = _tree(node), (*path, key), (*name, key)
            flat, axis = ".".join(inner), node.built if isinstance(node, Distribution) else None
            branches = axis.branches or {} if axis else {}
            own, j = ("name",) if branches else (), sum(leaf.axis is not None for leaf in leaves) if axis else -1
            leaves.append(Leaf(".".join(inner + own), at + own, node, axis, j, parent, option))
            if isinstance(node, dict):
                walk(node, at, inner, parent, option)
            elif axis is None:
                check_static(node, f"space: the constant {flat!r}")
                if isinstance(node, (float, np.floating)):
                    check_float32(float(node), f"space: the constant {flat!r}")
            for k, (which, branch) in enumerate(branches.items()):
                branch = _tree(branch)
                if "name" in branch:
                    raise ValueError(f"space: {flat}: 'name' is the key of the choice itself; rename it")
                leaves.append(Leaf(f"{flat}.{which}", at, {"name": node, **branch}, None, -1, j, k))
                walk(branch, at, (*inner, which), j, k)

    walk(spec, (), (), -1, -1)
    names = [leaf.name for leaf in leaves if not isinstance(leaf.given, dict)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"space: two values have the flat name {name!r}; rename one of them")
    return leaves


def _tree(node: Any) -> Any:
    """A space inside another one is its dict."""
    if isinstance(node, Space) and node.where is not None:
        raise ValueError("space: a constraint belongs to the outermost space, where it sees the whole config")
    return node.tree if isinstance(node, Space) else node


def _constant(node: Any) -> Any:
    """A constant as a config holds it; a dict is empty at first."""
    node = {} if isinstance(node, dict) else copied(node)
    return np.float32(node) if isinstance(node, float) else node


def _find(leaf: Leaf, config: Config, who: str) -> Any:
    """What a config holds at a leaf; constants and dicts may be left out."""
    inner = config
    for key in leaf.path[:-1]:
        inner = inner.get(key, {})
    if not isinstance(inner, dict):  # dicts of the spec are checked before what is in them
        choice = leaf.name.removesuffix(".name")
        raise ValueError(f"{who}: {choice} must be a dict with the 'name' of a sub-space, got {inner!r}")
    if leaf.axis and leaf.path[-1] not in inner:
        raise ValueError(f"{who}: {leaf.name} is missing; it is to be {leaf.axis}")
    return inner.get(leaf.path[-1], leaf.given)


def _column(axis: Axis, numbers: np.ndarray) -> np.ndarray:
    if not axis.options and (axis.traced or not np.isnan(numbers).any()):
        return numbers.astype(np.float32 if axis.traced else np.int64)
    texts = {x: printed(axis.value(x)) for x in np.unique(numbers[~np.isnan(numbers)]).tolist()}
    return np.fromiter((texts.get(x) for x in numbers.tolist()), object, len(numbers))


def _check_dict(who: str, given: Any, known: Collection[str]) -> None:
    if not isinstance(given, dict):
        raise TypeError(f"{who} must be a dict, got {describe(given)}")
    check_names(who, given, known)


def check_names(who: str, names: Iterable, known: Collection[str], noun: str = "") -> None:
    """Raise a ValueError for the first unknown name; `noun` says what the names are of, such as "number "."""
    for name in names:
        if name not in known:
            raise ValueError(f"{who}: there is no {noun}{name!r} in the space; {nearest(name, known)}")


_FRACTION, *_COUNTS = (get_args(kind)[1] for kind in (Fraction, Count, PositiveCount))


def space_of(optimizer: Value, decades: float = 2.0, include: Sequence[str] = ()) -> dict[str, Distribution]:
    """Propose distributions around an optimizer's hyperparameters.

        a decay x in [0, 1)                 1 - x log-uniform around its value, so 0.9 becomes [0, 0.99]
        a fraction in [0, 1]                uniform
        any other number x above 0          log-uniform around its value

    Left out are numbers at 0 or below (their scale is not known), every `eps`, counts of steps (they go with the length
    of the run), vectors, and ranges whose ends the optimizer refuses.

    Args:
        optimizer: a transformation or a schedule, its numbers concrete.
        decades: width of the log-uniform ranges: 2 is from a tenth of the value to ten times it.
        include: names (or whole paths) that would be left out because they are an `eps` or a count, such as `("eps",)`.

    Returns:
        A dict of path: distribution, to edit and to hand to `sweep` or `space`. Alone it makes configs that
        `replace(optimizer, config)` takes; in `{"optimizer": space_of(optimizer), ...}`, `config["optimizer"]` is one.

    Raises:
        TypeError: if it is given no transformation or schedule.
        ValueError: if decades is not above 0, nothing is left to propose, or a name in `include` is unknown
            or allows no range.

    >>> import jaxopt_lite as jo
    >>> space_of(jo.sgd(0.1, momentum=0.9))
    {'sgd.learning_rate': log_uniform(0.01, 1.0), 'sgd.momentum': one_minus_log_uniform(0.0, 0.99)}
    """
    if not isinstance(optimizer, Value):
        raise TypeError(f"space_of: optimizer must be a transformation or a schedule, got {describe(optimizer)}")
    check_number("space_of", "decades", decades, 0, open_low=True)
    values = hyperparameters(optimizer)
    if not concrete(*values.values()):
        raise TypeError("space_of: the numbers of the optimizer are traced; call it outside jit")
    if isinstance(include, str):
        raise TypeError(f"space_of: include must be a sequence of names, got the string {include!r}")
    chosen, proposal = set(), {}
    for name in include:
        found = {path for path in values if path == name or path.endswith("." + name)}
        if not found:
            raise ValueError(f"space_of: there is no {name!r} to include; there are {', '.join(values) or 'none'}")
        chosen |= found
    for path, parameter in parameters_of(optimizer).items():
        is_count = parameter.range in _COUNTS and parameter.holds is None
        if path not in chosen and (is_count or parameter.name.startswith("eps")):
            continue
        try:
            distribution = _around(values[path], parameter, decades)
            for end in (distribution.built.low, distribution.built.high):
                replace(optimizer, {path: end})
            proposal[path] = distribution
        except ValueError as error:
            if path in chosen:
                what = f"{path} = {values[path]}: it must be a number above 0"
                raise ValueError(f"space_of: no range around {what}, with ends that are accepted ({error})") from None
    if not proposal:
        raise ValueError(f"space_of: nothing to propose for {optimizer!r}, whose numbers are {values}")
    return proposal


def _around(value: Any, parameter: Parameter, decades: float) -> Distribution:
    """A distribution; raises a ValueError for keys, vectors, and numbers that are not finite or not above 0."""
    if parameter.is_key or np.ndim(value):
        raise ValueError("it is a key or a vector")
    value, factor = float(value), 10 ** (decades / 2)
    if parameter.is_decay and 0 <= value < 1:
        ends = min(1.0, (1 - value) * factor), max(1e-6, (1 - value) / factor)
        return one_minus_log_uniform(*(round(1 - float(f"{end:.6g}"), 12) for end in ends))
    if parameter.range == _FRACTION:
        return uniform(0.0, 1.0)
    return log_uniform(*(float(f"{end:.6g}") for end in (value / factor, value * factor)))
