"""The layout of a state: for each axis of each leaf, the axis of the parameter to which it corresponds.

A state is made of counts (scalars), slots (trees with the structure of params) and the states of inner rules. A rule
that passes its inner rule another tree than params, such as stacks of leaves, keeps the inner state in a `View`, whose
static parts describe which parameters make up each leaf of that tree.

Rules declare nothing: slots are found by the structure of params, their axes by their sizes, and the rest by calling
`init` with the size of one axis changed, to see which axes of the state change.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lite import tree

__all__ = ["Part", "Parts", "Place", "View", "factored_axes", "state_bytes", "state_layout", "through_views"]

KeyPath = tuple[Any, ...]  # as jax.tree_util.tree_flatten_with_path gives it


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a leaf of a state belongs.

    Attributes:
        params: key paths of the parameters whose numbers it holds: one, those of a stack in order, or () for counts,
            random keys and sums over the whole tree.
        axes: for each axis of the leaf the axis of the parameter that it is, or "concat" (parameters one after the
            other along this axis), "stack" (a new axis, one parameter each), "flat" (all axes in one, cut into equal
            parts where another axis follows), or None.
        sure: False where the sizes of two axes are the same and it cannot be known which it is.
    """

    params: tuple[KeyPath, ...] = ()
    axes: tuple[int | str | None, ...] = ()
    sure: bool = True


class Part(NamedTuple):
    """What a leaf of the tree that a rule sees is made of: positions among the leaves of params, and their shapes.

    `join` is how they are joined: "concat" along the first axis, "stack" along a new one before it, or None for a leaf
    that is a parameter itself.
    """

    leaves: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    join: str | None = None


@jax.tree_util.register_static
class Parts:
    """The static side of a `View`.

    Args:
        seen: a tree of the structure that the inner rule sees, with a `Part` for each leaf.
        params: a tree of the structure of params, with any leaves.
    """

    def __init__(self, seen: Any, params: Any):
        self.parts, self.seen = jax.tree.flatten(seen, is_leaf=lambda x: isinstance(x, Part))
        self.params = jax.tree.structure(params)
        self._trees = seen, jax.tree.map(lambda _: 0, params)
        # Flax's NNX gives `init` its variables and `update` their bare arrays: these are the same params.
        self._key = (tuple(self.parts), self.seen, jax.tree.structure(tree.unboxed(params)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parts) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Parts({self.seen.unflatten(self.parts)!r})"

    def __reduce__(self) -> tuple:  # tree structures with user-defined classes cannot be pickled, trees can
        return Parts, self._trees

    def undo(self, slot: Any) -> Any:
        """A slot of the inner rule as a tree of the structure of params."""
        leaves: dict[int, Any] = {}
        for part, leaf in zip(self.parts, self.seen.flatten_up_to(slot), strict=True):
            if part.join is None:
                leaves[part.leaves[0]] = leaf
            elif part.join == "stack":
                leaves.update(zip(part.leaves, jnp.unstack(leaf), strict=True))
            else:
                sizes = [shape[0] for shape in part.shapes]
                leaves.update(zip(part.leaves, jax.lax.split(leaf, sizes), strict=True))
        return self.params.unflatten([leaves[i] for i in range(self.params.num_leaves)])


class View(NamedTuple):
    """The state of a rule that sees another tree than params, and what that tree is made of."""

    inner_state: Any
    parts: Parts


def through_views(state: Any, kind: type, slot: Callable[[Any], Any]) -> list[Any]:
    """A slot of every state of one kind within a state, in the structure of params.

    Args:
        state: the state of an optimizer.
        kind: the class of the states to look for.
        slot: takes the slot from one of them.
    """
    nodes = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, (kind, View)))
    found = []
    for node in nodes:
        if isinstance(node, View):
            found += [node.parts.undo(inner) for inner in through_views(node.inner_state, kind, slot)]
        elif isinstance(node, kind):
            found.append(slot(node))
    return found


def state_layout(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """Where each leaf of an optimizer's state belongs. Nothing is computed.

    Args:
        optimizer: a transformation.
        params: the parameters, or `jax.ShapeDtypeStruct`s like them.

    Returns:
        A tree of the structure of `optimizer.init(params)` with a `Place` for each leaf.

    >>> import jaxopt_lite as jo
    >>> state_layout(jo.trace(0.9), {"w": jnp.zeros((2, 3))}).trace["w"]
    Place(params=((DictKey(key='w'),),), axes=(0, 1), sure=True)
    """
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(np.shape(p), tree.dtype_of(p)), params)
    state = jax.eval_shape(optimizer.init, shapes)
    places = _places(state, shapes)
    leaves, structure = jax.tree.flatten(state)
    open_ = [i for i, place in enumerate(places) if place is None or not place.sure]
    if open_:
        found = _ask(optimizer.init, shapes, state)
        for i in open_:
            asked = _explained(leaves[i], [(path, axis, *(d and d[i] for d in both)) for path, axis, both in found])
            places[i] = asked if asked.sure or places[i] is None else places[i]
    return structure.unflatten(places)


def state_bytes(optimizer: optax.GradientTransformation, params: Any) -> int:
    """Bytes of an optimizer's state that belong to parameters: without counts, keys and sums over trees.

    Args:
        optimizer: a transformation.
        params: the parameters, or `jax.ShapeDtypeStruct`s like them.

    >>> import jaxopt_lite as jo
    >>> state_bytes(jo.adamw(1e-3), {"w": jnp.zeros((2, 3))})
    48
    """
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(np.shape(p), tree.dtype_of(p)), params)
    leaves, places = jax.tree.leaves(jax.eval_shape(optimizer.init, shapes)), state_layout(optimizer, shapes)
    of_params = [leaf for leaf, place in zip(leaves, jax.tree.leaves(places), strict=True) if place.params]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in of_params)


def _places(state: Any, params: Any) -> list[Place | None]:
    """A place for each leaf of a state in order; None where neither structure nor sizes determine it."""
    structure, paths = jax.tree.structure(params), jax.tree_util.tree_leaves_with_path(params)
    shapes = [leaf.shape for _, leaf in paths]

    def is_slot(node):
        if jax.tree.structure(node, is_leaf=_stands_for_one) != structure:
            return False
        if structure.num_leaves > 1 or not hasattr(node, "shape"):
            return structure.num_leaves > 0
        # With a single parameter each leaf has its structure: a slot also has its shape and is not a count.
        return node.shape == shapes[0] and (node.shape != () or jnp.issubdtype(node.dtype, jnp.inexact))

    def is_factored(node):
        return (
            isinstance(node, optax.FactoredState) and jax.tree.structure(node.v, is_leaf=_stands_for_one) == structure
        )

    places: list[Place | None] = []
    for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, View) or is_factored(x) or is_slot(x)):
        if isinstance(node, View):
            places += _within_view(node)
        elif is_factored(node):
            places += _factored(node, params)
        elif is_slot(node):
            for (path, p), own in zip(paths, structure.flatten_up_to(_one_by_one(node)), strict=True):
                places += _of_parameter(own, path, p.shape)
        else:
            places.append(Place() if node.shape == () or not jnp.issubdtype(node.dtype, jnp.inexact) else None)
    return places


def _stands_for_one(node: Any) -> bool:
    """Whether a node takes the place of one parameter: a masked node, or a node with a method `layout`."""
    return isinstance(node, optax.MaskedNode) or hasattr(node, "layout")


def _one_by_one(node: Any) -> Any:
    return jax.tree.map(lambda own: [own], node, is_leaf=_stands_for_one)


def _of_parameter(own: list, path: KeyPath, shape: tuple[int, ...]) -> list[Place]:
    """The places of what a slot holds for one parameter."""
    (leaf,) = own
    if isinstance(leaf, optax.MaskedNode):
        return []
    if hasattr(leaf, "layout"):
        return jax.tree.leaves(leaf.layout(Place((path,), tuple(range(len(shape))))))
    if leaf.shape == shape:
        return [Place((path,), tuple(range(len(shape))))]
    return [_place((path,), [[a for a, n in enumerate(shape) if n == size] for size in leaf.shape], leaf.shape)]


def factored_axes(shape: tuple[int, ...]) -> tuple[int, int]:
    """The second largest and the largest axis, which Optax's factored moments lack: the columns' and the rows'.

    Of axes of one size the last is the largest.
    """
    order = np.argsort(shape, kind="stable")
    return int(order[-2]), int(order[-1])


def _factored(state: optax.FactoredState, params: Any) -> list[Place]:
    """The places of factored moments. Optax's order of the axes tells rows from columns where sizes do not."""
    structure, found = jax.tree.structure(params), ([], [], [])
    slots = [structure.flatten_up_to(_one_by_one(slot)) for slot in state[1:]]
    for (path, p), *own in zip(jax.tree_util.tree_leaves_with_path(params), *slots, strict=True):
        places = [_of_parameter(leaf, path, p.shape) for leaf in own]
        if len(p.shape) > 1:
            column_axis, row_axis = factored_axes(p.shape)
            kept = [tuple(a for a in range(len(p.shape)) if a != lost) for lost in (row_axis, column_axis)]
            if [getattr(leaf, "shape", None) for (leaf,) in own[:2]] == [
                tuple(p.shape[a] for a in axes) for axes in kept
            ]:
                places[:2] = [[Place((path,), axes)] for axes in kept]
        for together, alone in zip(found, places, strict=True):
            together += alone
    return [Place(), *found[0], *found[1], *found[2]]


def _within_view(view: View) -> list[Place | None]:
    """The places of an inner state, as it sees its tree, translated into those of the parameters."""
    parts = view.parts
    # Those that the rule saw: within a mask they are fewer than params.
    paths = jax.tree_util.tree_leaves_with_path(parts.params.unflatten([0] * parts.params.num_leaves))
    seen = parts.seen.unflatten([jax.ShapeDtypeStruct(_joined_shape(part), jnp.float32) for part in parts.parts])
    own = {path: part for (path, _), part in zip(jax.tree_util.tree_leaves_with_path(seen), parts.parts, strict=True)}

    def translate(place):
        if place is None or not place.params:
            return place
        members = [own[path] for path in place.params]
        params = tuple(paths[i][0] for part in members for i in part.leaves)
        joins = {part.join for part in members} - {None}
        axes = place.axes
        if "stack" in joins:
            axes = tuple(axis if axis is None else "stack" if axis == 0 else axis - 1 for axis in axes)
        elif joins:
            axes = tuple("concat" if axis == 0 else axis for axis in axes)
        return dataclasses.replace(place, params=params, axes=axes)

    return [translate(place) for place in _places(view.inner_state, seen)]


def _joined_shape(part: Part) -> tuple[int, ...]:
    """The shape of the leaf that a part describes."""
    first = part.shapes[0]
    if part.join == "stack":
        return (len(part.shapes), *first)
    return (sum(shape[0] for shape in part.shapes), *first[1:]) if part.join else first


def _ask(init: Callable, params: Any, state: Any) -> list[tuple[KeyPath, int, list[list | None]]]:
    """Which axes of the leaves of a state change with which axes of which parameters, both ways.

    Returns:
        For each axis of each parameter its path, the axis, and what changes where it is longer by one and where it is
        shorter by one: for each leaf of the state the axes that differ, or None where the state has another form.
    """
    leaves, like = jax.tree.flatten(params)

    def differences(n, shape):
        others = [*leaves[:n], jax.ShapeDtypeStruct(shape, leaves[n].dtype), *leaves[n + 1 :]]
        try:
            other = jax.eval_shape(init, like.unflatten(others))
        except Exception:  # an init that refuses this size gives no information
            return None
        if jax.tree.structure(other) != jax.tree.structure(state):
            return None
        pairs = list(zip(jax.tree.leaves(other), jax.tree.leaves(state), strict=True))
        if any(new.ndim != old.ndim for new, old in pairs):
            return None
        return [[axis for axis in range(old.ndim) if new.shape[axis] != old.shape[axis]] for new, old in pairs]

    found = []
    for n, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        for axis, size in enumerate(leaf.shape):
            resized = [(*leaf.shape[:axis], size + by, *leaf.shape[axis + 1 :]) for by in (1, -1)]
            found.append((path, axis, [differences(n, shape) for shape in resized]))
    return found


def _explained(leaf: Any, asked: list) -> Place:
    """The place of a leaf by what changed with it; not sure where an axis matches no parameter axis, or several."""
    axes: list[list] = [[] for _ in leaf.shape]
    agree = all(longer is not None and longer == shorter for _, _, longer, shorter in asked)
    params = {path: None for path, _, longer, shorter in asked if longer or shorter}
    for _, axis, longer, _ in asked:
        for own in longer or ():
            axes[own].append(axis)
    place = _place(tuple(params), axes, leaf.shape)
    return place if agree and len(params) <= 1 else dataclasses.replace(place, sure=False)


def _place(params: tuple[KeyPath, ...], candidates: list[list], shape: tuple[int, ...]) -> Place:
    """A place from the candidate axes of each axis; an axis of length 1 may have no candidate, as a placeholder."""
    found = tuple(axes[0] if len(axes) == 1 else None for axes in candidates)
    sure = all(len(axes) == 1 or (not axes and n == 1) for axes, n in zip(candidates, shape, strict=True))
    return Place(params, found, sure)
