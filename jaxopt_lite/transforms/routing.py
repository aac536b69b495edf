"""Which rule for which leaf: masks, labels, and paths.

    masked(inner, mask)                      the leaves that are true
    freeze(mask)                             no updates for the leaves that are true
    partition(transforms, labels)            to each leaf the transformation of its label
    groups({"head": {"learning_rate": 1e-2}}, optimizer)    the optimizer with other numbers for some leaves
    by_path({"*/bias": "plain", ...})        labels or masks from globs and regular expressions of the leaves' paths
    routing_table(labels, params)            which leaf got what, to print

Paths join the keys with slashes: `layers/0/bias`. A mask or labelling is a function of params, or a tree: one bool or
label for each leaf or branch of params. A tree whose class has `__call__`, such as a module, counts as a tree.
"""

import fnmatch
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import jax
import numpy as np
import optax

from jaxopt_lite import tree
from jaxopt_lite.core.hyperparameters import replace
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.core.parameters import Mask, sortable
from jaxopt_lite.core.transformation import GradientTransformation, set_to_zero, transformation
from jaxopt_lite.core.values import Value, register, remember_calls

__all__ = ["by_path", "freeze", "groups", "masked", "partition", "routing_table"]

P = ParamSpec("P")


@transformation(acts_on="coordinate")
def masked(inner: GradientTransformation, mask: Mask):
    """Apply a transformation to some leaves; the others pass through.

    Args:
        inner: sees the leaves whose mask is true.
        mask: a tree of bools in the structure of params (or a prefix of it), or a function of params that returns one.
            Static: give a function of a module, or `by_path(...)`, rather than a fresh lambda.

    Raises:
        ValueError: if the mask does not fit the tree.
        TypeError: if one of its leaves is not a bool.
    """

    def chosen(updates):
        return tree.spread_mask(mask, updates, "masked", "mask")

    def init(params):
        return _init_masked(inner, chosen(params), params)

    def update(updates, state, params=None, **extra):
        return _update_masked(inner, chosen(updates), updates, state, params, extra)

    return init, update


@transformation(acts_on="coordinate")
def freeze(mask: Mask):
    """No updates for the leaves whose mask is true. Put it last in a chain.

    Args:
        mask: as for `masked`; `True` freezes everything.
    """
    return masked(set_to_zero(), mask)


@transformation(acts_on="coordinate")
def partition(transforms: Mapping[Any, GradientTransformation], param_labels: Mask):
    """To each leaf the transformation of its label.

    Args:
        transforms: a transformation for each label. Labels are strings, or anything else that is hashable: ints, enums,
            tuples, None.
        param_labels: a tree of labels in the structure of params (or a prefix of it), or a function of params that
            returns one, such as `by_path({"*/bias": "plain"}, default="decayed")`.

    Raises:
        ValueError: if the labels do not fit the tree, or have no transformation (the leaf is named).
    """
    if not isinstance(transforms, dict) or not transforms:
        raise TypeError(f"partition: transforms must be a dict of label: transformation, got {transforms!r}")

    is_label = functools.partial(_is_key, mapping=transforms)

    def masks(updates):
        """For each label a tree of bools: which leaves have it."""
        structure = jax.tree.structure(updates)
        labels = structure.flatten_up_to(tree.spread(param_labels, updates, "partition", "param_labels", is_label))
        for (path, _), label in zip(jax.tree_util.tree_leaves_with_path(updates), labels, strict=True):
            if not is_label(label):
                raise ValueError(
                    f"partition: the leaf params{jax.tree_util.keystr(path)} has the label {label!r}, which has no "
                    f"transformation; there are {', '.join(map(repr, transforms))}"
                )
        return {own: structure.unflatten([label == own for label in labels]) for own in transforms}

    def init(params):
        chosen = masks(params)
        states = {label: _init_masked(inner, chosen[label], params) for label, inner in transforms.items()}
        return optax.PartitionState(sortable(states))

    def update(updates, state, params=None, **extra):
        chosen, states = masks(updates), {}
        for label, inner in transforms.items():
            states[label] = state.inner_states[label]
            updates, states[label] = _update_masked(inner, chosen[label], updates, states[label], params, extra)
        return updates, optax.PartitionState(sortable(states))

    return init, update


def groups(changes: Mapping[str, Any], optimizer: GradientTransformation) -> GradientTransformation:
    """An optimizer with other numbers for some of the leaves: parameter groups in one line.

    It is the `partition` of the optimizer's variants by these patterns, with the label "rest" for what none matches. So
    the numbers of a group can be swept, replaced and logged by their paths, such as
    `partition.head.adamw.learning_rate`. A rule that looks at the whole tree looks at its group here: clip outside,
    `chain(clip_by_global_norm(1.0), groups(...))`.

    Args:
        changes: for each pattern of `by_path`, of which the first that matches decides, the arguments to change, by the
            names that `replace` takes; or another optimizer.
        optimizer: the optimizer of the rest, which the groups vary.

    Raises:
        TypeError: if changes is no dict, or holds anything but dicts and transformations.
        ValueError: for an argument that the optimizer does not have (the group is named), or a pattern "rest"; when
            used, for a pattern that matches no leaf.

    >>> import jaxopt_lite as jo
    >>> optimizer = groups({"head": {"learning_rate": 1e-2}, "*/b": {"weight_decay": 0.0}}, jo.adamw(1e-3))
    >>> params = {"body": {"w": 1.0, "b": 0.0}, "head": {"w": 1.0, "b": 0.0}}
    >>> print(routing_table(optimizer, params))
    leaf    shape  values  label
    body/b  ()     1       */b
    body/w  ()     1       rest
    head/b  ()     1       head
    head/w  ()     1       head
    """
    if not isinstance(changes, Mapping) or not changes:
        raise TypeError(f"groups: changes must be a dict of pattern: arguments to change, got {describe(changes)}")
    optimizer, variants = GradientTransformation.accept(optimizer, "groups", "optimizer"), {}
    for pattern, changed in changes.items():
        if pattern == "rest":
            raise ValueError("groups: 'rest' is the group of what no pattern matches; write 'rest/*' for a branch")
        if isinstance(changed, optax.GradientTransformation):
            variants[pattern] = changed
            continue
        if not isinstance(changed, Mapping):
            raise TypeError(
                f"groups: {pattern!r} must have a dict of arguments to change, such as {{'learning_rate': 1e-3}}, or "
                f"another optimizer, got {describe(changed)}"
            )
        try:
            variants[pattern] = replace(optimizer, dict(changed))
        except (TypeError, ValueError) as error:
            raise type(error)(f"groups: {pattern!r}: {error}") from None
    return partition({**variants, "rest": optimizer}, by_path({pattern: pattern for pattern in changes}, "rest"))


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
            `*/bias` or `layers/?/w`, where `*` and `?` match slashes too; one that begins with `re:` is a regular
            expression searched anywhere in it. One that matches no leaf but is the path of a branch, such as `head` or
            `*/attention`, matches the leaves below it. Brackets match themselves if a path has them in that place, as
            in `layer[0]/w`; otherwise they are a set of characters of which one matches, as in `layers/[0-3]/w`.
        default: label of the other leaves; without it they are an error.

    Raises:
        ValueError: for a bad regular expression; when used, for a leaf without label, a pattern without leaf, or two
            leaves with one path because a key holds a slash.

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
            raise ValueError(f"by_path: {pattern!r} is not a regular expression: {error}") from None

    def labels_of(params):
        paths = tree.paths(params)
        known = jax.tree.leaves(paths)
        _check_distinct(known, params)
        found = {pattern: matching(pattern, known) for pattern in patterns}
        for pattern in patterns:
            if known and not found[pattern]:
                raise ValueError(f"by_path: the pattern {pattern!r} matches no leaf; paths are {', '.join(known[:8])}")

        def label(path):
            for pattern, own in patterns.items():
                if path in found[pattern]:
                    return own
            if default is None:
                raise ValueError(f"by_path: no pattern matches the leaf {path!r}; add one, or give default=")
            return default

        return jax.tree.map(label, paths)

    return labels_of


def routing_table(labels: Any, params: Any) -> str:
    """Which leaf got what: a table of path, shape, number of values and label, one line a leaf.

    Args:
        labels: what `partition` or `masked` was given: a tree or a function of params. Or the transformation itself, or
            a recipe of it, such as `muon`.
        params: the parameters.
    """
    is_label = None
    if isinstance(labels, GradientTransformation):
        who = labels.factory.spec.name
        while labels.inner is not None and labels.factory.spec.name != "freeze":
            labels = labels.inner
        given = {"partition": "param_labels", "masked": "mask", "freeze": "mask"}
        name = labels.factory.spec.name
        if name not in given:
            raise ValueError(f"routing_table: {who} routes nothing; give a partition, masked or freeze")
        is_label = functools.partial(_is_key, mapping=labels.arguments.get("transforms", {}))
        labels = labels.arguments[given[name]]
    leaves, structure = jax.tree.flatten(params)
    found = structure.flatten_up_to(tree.spread(labels, params, "routing_table", "labels", is_label))
    lines = [("leaf", "shape", "values", "label")]
    for path, label, leaf in zip(jax.tree.leaves(tree.paths(params)), found, leaves, strict=True):
        lines.append((path, str(np.shape(leaf)), f"{np.size(leaf):,}", str(label)))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _hide(mask: Any, updates: Any) -> Any:
    return jax.tree.map(lambda m, u: u if m else optax.MaskedNode(), mask, updates)


def _init_masked(inner: GradientTransformation, mask: Any, params: Any) -> optax.MaskedState:
    return optax.MaskedState(inner.init(_hide(mask, params)))


def _update_masked(inner: GradientTransformation, mask: Any, updates: Any, state: Any, params: Any, extra: dict) -> Any:
    seen = None if params is None else _hide(mask, params)
    new, inner_state = inner.update(_hide(mask, updates), state.inner_state, seen, **extra)
    return jax.tree.map(lambda m, n, u: n if m else u, mask, new, updates), optax.MaskedState(inner_state)


def _is_key(x: Any, mapping: Mapping) -> bool:
    try:
        return x in mapping
    except TypeError:  # an unhashable object is not a key
        return False


def matching(pattern: str, paths: list[str]) -> set[str]:
    """The paths that a pattern matches. Brackets that a path contains match themselves, others a character."""
    if pattern.startswith("re:"):
        return {path for path in paths if re.search(pattern.removeprefix("re:"), path)}
    for own in (pattern, f"{pattern}/*"):  # leaves, or those below a branch
        for glob in (own.replace("[", "[[]"), own):
            found = {path for path in paths if fnmatch.fnmatchcase(path, glob)}
            if found:
                return found
    return set()


def _check_distinct(paths: list[str], params: Any) -> None:
    """Raise if two leaves have one path, as those of {"a/b": ...} and {"a": {"b": ...}} have."""
    if len(set(paths)) == len(paths):
        return
    twin = next(path for path in paths if paths.count(path) > 1)
    keys = [jax.tree_util.keystr(key) for key, _ in jax.tree_util.tree_leaves_with_path(params)]
    one, other = [f"params{key}" for key, path in zip(keys, paths, strict=True) if path == twin][:2]
    raise ValueError(
        f"by_path: the leaves {one} and {other} have one path, {twin!r}, so no pattern can distinguish them; give a "
        "key without '/', or a tree of labels (or a function of params) instead of by_path"
    )
