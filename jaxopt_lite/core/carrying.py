"""Carry the state of another library's optimizer into ours, by the names of its fields and of the parameters.

A leaf of a state is a slot, which belongs to a parameter, if its path ends with the path of that parameter: the leaf
`0/mu/layers/w` is the slot `mu` of the parameter `layers/w`. Slots are matched by these two names, whatever is before
them. Counts go with the slots of the same rule.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.transformation import GradientTransformation

__all__ = ["carry_state"]

Names = tuple[str, ...]
_SAME = {"ema": "mu"}  # of Optax's Muon, whose momentum is a rule of its own here


class _Leaf(NamedTuple):
    """A leaf of a state: where it is, the state of the rule that holds it, its field, and its parameter or None."""

    path: Names
    holder: Names
    field: str
    param: Names | None
    value: Any


def carry_state(optimizer: GradientTransformation, params: Any, state: Any) -> Any:
    """The state of `optimizer` with the moments and counts of a state that another library's optimizer has left.

    States of Optax's optimizers whose names are ours go in as they are; this also takes states with another structure,
    such as that of `optax.contrib.muon`, and states read from a checkpoint as dicts and lists. What is not for both is
    refused: nothing is left at zero, and no moments are dropped. Call it outside jit.

    Args:
        optimizer: a transformation of this package.
        params: the parameters, which both optimizers have, or their shapes.
        state: the state of the other optimizer.

    Returns:
        A state of the structure and dtypes of `optimizer.init(params)`; its arrays are copies.

    Raises:
        ValueError: for a slot that only one of the two states has, for another shape, and for a count that cannot be
            known. The path is named.

    >>> import optax
    >>> import jaxopt_lite as jo
    >>> params = {"w": jnp.ones((2, 3))}
    >>> state = carry_state(jo.adamw(1e-3), params, optax.adamw(1e-3).init(params))
    >>> jax.tree.structure(state) == jax.tree.structure(jo.adamw(1e-3).init(params))
    True
    """
    template = jax.eval_shape(optimizer.init, params)
    own, given = (_leaves(tree, params) for tree in (template, state))
    by_path = {leaf.path: leaf for leaf in given}
    if {leaf.path for leaf in own} == set(by_path):
        found = [by_path[leaf.path] for leaf in own]
    else:
        found = _matched(own, given)
    return jax.tree.structure(template).unflatten([_copied(*pair) for pair in zip(own, found, strict=True)])


def _leaves(state: Any, params: Any) -> list[_Leaf]:
    """The leaves of a state, with the longest path of a parameter with which the path of each ends."""
    shapes = {_names(path): np.shape(p) for path, p in jax.tree_util.tree_leaves_with_path(params)}
    found = []
    for path, value in jax.tree_util.tree_leaves_with_path(state):
        names = _names(path)
        ends = [names[i:] for i in range(1, len(names)) if names[i:] in shapes]
        if () in shapes and np.shape(value) == shapes[()] and jnp.issubdtype(jnp.result_type(value), jnp.inexact):
            ends.append(())  # params are one array
        before = names[: len(names) - len(ends[0])] if ends else names
        found.append(_Leaf(names, before[:-1], before[-1] if before else "", ends[0] if ends else None, value))
    return found


def _matched(own: list[_Leaf], given: list[_Leaf]) -> list[_Leaf]:
    """For each of our leaves the one that was given: slots by field and parameter, then what goes with them."""
    pairs: dict[Names, _Leaf] = {}
    taken = set()
    for leaf in own:
        if leaf.param is None:
            continue
        ours = [x for x in own if (x.field, x.param) == (leaf.field, leaf.param)]
        theirs = [x for x in given if x.field == leaf.field and x.param == leaf.param]
        theirs = theirs or [x for x in given if x.field == _SAME.get(leaf.field) and x.param == leaf.param]
        if len(ours) != len(theirs):
            there = sorted({x.field for x in given if x.param == leaf.param})
            raise ValueError(
                f"carry_state: the optimizer keeps {leaf.field!r} of the parameter {'/'.join(leaf.param)!r} "
                f"{len(ours)} times, the given state {len(theirs)} times; of this parameter it has "
                f"{', '.join(map(repr, there)) or 'nothing'}"
            )
        pairs[leaf.path] = theirs[ours.index(leaf)]
        taken.add(pairs[leaf.path].path)
    left = [x for x in given if x.param is not None and x.path not in taken]
    if left:
        raise ValueError(
            f"carry_state: the optimizer has no place for {'/'.join(left[0].path)!r} of the given state; give the "
            "optimizer that continues the rule which made it"
        )
    return [pairs[leaf.path] if leaf.path in pairs else _count(leaf, own, given, pairs) for leaf in own]


def _count(leaf: _Leaf, own: list[_Leaf], given: list[_Leaf], pairs: dict[Names, _Leaf]) -> _Leaf:
    """What was given for a leaf that belongs to no parameter: that of the same rule, or one on which all agree."""
    holders = {pairs[x.path].holder for x in own if x.holder == leaf.holder and x.path in pairs}
    same = [x for x in given if x.param is None and x.field == leaf.field]
    candidates = [x for x in same if x.holder in holders] or same
    if not candidates or any(not np.array_equal(x.value, candidates[0].value) for x in candidates):
        told = ", ".join(f"{'/'.join(x.path)}={x.value}" for x in candidates)
        raise ValueError(
            f"carry_state: {'/'.join(leaf.path)!r} of the optimizer cannot be known from the given state, which has "
            f"{told or f'no {leaf.field!r}'}"
        )
    return candidates[0]


def _copied(own: _Leaf, given: _Leaf) -> jax.Array:
    if np.shape(given.value) != own.value.shape:
        raise ValueError(
            f"carry_state: {'/'.join(given.path)!r} of the given state has the shape {np.shape(given.value)}, the "
            f"optimizer's {'/'.join(own.path)!r} has {own.value.shape}"
        )
    return jnp.array(given.value, dtype=own.value.dtype, copy=True)


def _names(path: tuple) -> Names:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
