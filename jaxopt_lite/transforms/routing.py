"""Which rule for which leaf: masks, labels, and paths.

    masked(inner, mask)                      the leaves that are true
    freeze(mask)                             no updates for the leaves that are true
    partition(transforms, labels)            to each leaf the transformation of its label
    by_path({"*/bias": "plain", ...})        labels or masks from globs and regular expressions of the leaves' paths
    routing_table(labels, params)            which leaf got what, to print

Paths join the keys with slashes: `layers/0/bias`.
"""

import fnmatch
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import jax
import numpy as np
import optax

from jaxopt_lite import tree
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.transformation import GradientTransformation, set_to_zero, transformation
from jaxopt_lite.core.values import Value, register, remember_calls

__all__ = ["by_path", "freeze", "masked", "partition", "routing_table"]

P = ParamSpec("P")


@transformation
def masked(inner: GradientTransformation, mask: Any):
    """Apply a transformation to some leaves; the others pass through.

    Args:
        inner: sees the leaves whose mask is true.
        mask: a tree of bools in the structure of params (or a prefix of it), or a function of params that returns one.
            Static: give a function of a module, or `by_path(...)`, rather than a fresh lambda.

    Raises:
        ValueError: if the mask does not fit the tree.
        TypeError: if one of its leaves is not a bool.
    """
    return _masked(inner, lambda updates: _bools(tree.spread(mask, updates, "masked", "mask"), "masked", "mask"))


@transformation
def freeze(mask: Any):
    """No updates for the leaves whose mask is true. Stands last in a chain.

    Args:
        mask: as for `masked`; `True` freezes everything.
    """
    return masked(set_to_zero(), mask)


@transformation
def partition(transforms: Mapping[str, GradientTransformation], param_labels: Any):
    """To each leaf the transformation of its label.

    Args:
        transforms: a transformation for each label (strings).
        param_labels: a tree of labels in the structure of params (or a prefix of it), or a function of params that
            returns one, such as `by_path({"*/bias": "plain"}, default="decayed")`.

    Raises:
        ValueError: if the labels do not fit the tree, or have no transformation (the leaf is named).
    """
    if not isinstance(transforms, dict) or not transforms:
        raise TypeError(f"partition: transforms must be a dict of label: transformation, got {transforms!r}")

    def labels_of(updates):
        labels = tree.spread(param_labels, updates, "partition", "param_labels")
        for path, label in jax.tree_util.tree_leaves_with_path(labels):
            if not isinstance(label, str) or label not in transforms:
                raise ValueError(
                    f"partition: the leaf params{jax.tree_util.keystr(path)} has the label {label!r}, which has no "
                    f"transformation; there are {', '.join(map(repr, transforms))}"
                )
        return labels

    def only(label):
        return lambda updates: jax.tree.map(lambda own: own == label, labels_of(updates))

    rules = {label: _masked(t, only(label)) for label, t in transforms.items()}

    def init(params):
        return optax.PartitionState({label: init(params) for label, (init, _) in rules.items()})

    def update(updates, state, params=None, **extra):
        states = {}
        for label, (_, rule) in rules.items():
            updates, states[label] = rule(updates, state.inner_states[label], params, **extra)
        return updates, optax.PartitionState(states)

    return init, update


@register
class Labels(Value):
    """A function of params that gives each leaf a label, or a mask."""

    noun = "a function of params"

    def __call__(self, params: Any) -> Any:
        """Labels in the structure of params."""
        return self.built(params)


def labels(function: Callable[P, Callable[[Any], Any]]) -> Callable[P, Labels]:
    """Make a factory of labellings: the decorated function returns a function of params."""
    return remember_calls(function, Labels)


@labels
def by_path(patterns: Any, default: Any = None):
    """Give each leaf a label (or a mask) by its path.

    Args:
        patterns: {pattern: label}, the first that matches decides. A pattern is a glob over the whole path, such as
            `*/bias` or `layers/?/w`; one that begins with `re:` is a regular expression searched anywhere in it.
        default: label of the other leaves; without it they are an error.

    Raises:
        ValueError: for a bad regular expression; when used, for a leaf without label or a pattern without leaf.

    >>> by_path({"*/b": "plain"}, default="decayed")({"layer": {"w": 1.0, "b": 0.0}})
    {'layer': {'b': 'plain', 'w': 'decayed'}}
    """
    if not isinstance(patterns, dict) or not patterns:
        raise TypeError(f"by_path: patterns must be a dict of pattern: label, got {patterns!r}")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"by_path: patterns must be globs or 're:...', got {pattern!r}")
        try:
            re.compile(pattern.removeprefix("re:") if pattern.startswith("re:") else "")
        except re.error as error:
            raise ValueError(f"by_path: {pattern!r} is no regular expression: {error}") from None

    def label(path):
        for pattern, own in patterns.items():
            if _matches(pattern, path):
                return own
        if default is None:
            raise ValueError(f"by_path: no pattern matches the leaf {path!r}; add one, or give default=")
        return default

    def labels_of(params):
        paths = tree.paths(params)
        known = jax.tree.leaves(paths)
        for pattern in patterns:
            if known and not any(_matches(pattern, path) for path in known):
                raise ValueError(f"by_path: the pattern {pattern!r} matches no leaf; paths are {', '.join(known[:8])}")
        return jax.tree.map(label, paths)

    return labels_of


def routing_table(labels: Any, params: Any) -> str:
    """Which leaf got what: a table of path, shape, number of values and label, one line a leaf.

    Args:
        labels: what `partition` or `masked` was given: a tree or a function of params. Or the transformation itself.
        params: the parameters.
    """
    if isinstance(labels, GradientTransformation):
        given = {"partition": "param_labels", "masked": "mask", "freeze": "mask"}
        name = labels.factory.spec.name
        if name not in given:
            raise ValueError(f"routing_table: {name} routes nothing; give a partition, masked or freeze")
        labels = labels.arguments[given[name]]
    spread = tree.spread(labels, params, "routing_table", "labels")
    rows = [("leaf", "shape", "values", "label")]
    for path, label, leaf in zip(*map(jax.tree.leaves, (tree.paths(params), spread, params)), strict=True):
        rows.append((path, str(np.shape(leaf)), f"{np.size(leaf):,}", str(label)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _masked(inner: GradientTransformation, mask_of: Any) -> tuple:
    def hide(mask, updates):
        return jax.tree.map(lambda m, u: u if m else optax.MaskedNode(), mask, updates)

    def init(params):
        return optax.MaskedState(inner.init(hide(mask_of(params), params)))

    def update(updates, state, params=None, **extra):
        mask = mask_of(updates)
        seen = None if params is None else hide(mask, params)
        new, inner_state = inner.update(hide(mask, updates), state.inner_state, seen, **extra)
        return jax.tree.map(lambda m, n, u: n if m else u, mask, new, updates), optax.MaskedState(inner_state)

    return init, update


def _bools(mask: Any, who: str, name: str) -> Any:
    for path, leaf in jax.tree_util.tree_leaves_with_path(mask):
        if not isinstance(leaf, (bool, np.bool_)):
            raise TypeError(
                f"{who}: {name}{jax.tree_util.keystr(path)} must be True or False, got {describe(leaf)}; a mask names "
                "leaves, such as by_path({'*/bias': True}, default=False), and is no array"
            )
    return mask


def _matches(pattern: str, path: str) -> bool:
    if pattern.startswith("re:"):
        return re.search(pattern.removeprefix("re:"), path) is not None
    return fnmatch.fnmatchcase(path, pattern)
