"""Many small leaves as a few larger ones, and matrices of one shape as batches.

A leaf of a few thousand values is updated in less time than it takes to start the loops that do it, and XLA compiles
loops leaf by leaf. `stack_leaves` hands its inner rule stacks of leaves of one shape and dtype instead; the state stays
stacked from step to step, in a `View` that describes which leaves are in which stack.

    params   a, b, …, p of shape [32, 32]    →    one leaf of shape [512, 32]    →    updates of a, b, …, p

`stack_matrices` stacks along a new axis, [16, 32, 32], for rules whose numbers depend on a leaf's last two axes.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.layout import Part, Parts, View
from jaxopt_lite.core.transformation import (
    GradientTransformation,
    decides_by_leaf,
    deciding,
    own_acts_on,
    transformation,
)

__all__ = ["stack_leaves", "stack_matrices"]


class _Stacked(NamedTuple):
    """The tree that the inner rule sees."""

    stacks: list
    alone: list


@transformation
def stack_leaves(inner: GradientTransformation, size: int = 20, max_values: int = 4096, *, elementwise: bool = False):
    """Update small leaves of one shape and dtype together; the same numbers in fewer loops.

    On CPU, 400 leaves of 32 x 32 under AdamW take about half the time of leaf by leaf, to step and to compile. It is
    right for rules that act on coordinates (Adam, momentum, decay, ...; see `transformation`), bit for bit, and for
    norms over all leaves, up to the rounding of their sum. Rules that look at single leaves are refused: trust ratios
    and other norms of a leaf, `centralize`, noise, and everything that decides by leaf (`masked`, `partition`, a
    decay's `mask`). Stack inside of these: `partition({"plain": stack_leaves(adam(1e-3)), ...}, labels)`. Leave it out
    where leaves are laid out over several devices.

    Args:
        inner: sees stacks of small leaves and, one by one, the leaves that are large or have no equal.
        size: most leaves in a stack, at least 2; 8 to 32 is good. Where it leaves fewer over, stacks are shorter.
        max_values: a leaf with more values than this is left alone.
        elementwise: a promise that rules which declare nothing (your own, lifted ones) are elementwise too. Rules that
            divide by a computed scalar may differ in the last bit, because XLA rounds this division differently
            for stacks.

    Raises:
        ValueError: if the inner rule contains one that is not known to be elementwise (it is named).
    """
    if not isinstance(size, int) or size < 2:
        raise ValueError(f"stack_leaves: size must be an int of at least 2, got {size!r}")
    if not isinstance(max_values, int) or max_values < 1:
        raise ValueError(f"stack_leaves: max_values must be an int of at least 1, got {max_values!r}")
    for why in () if elementwise else _refused(inner):
        raise ValueError(
            f"stack_leaves: the inner rule contains {why}; put stack_leaves around the other rules of the chain, or "
            "inside of what decides by leaf; if it is elementwise, declare that where it is made, "
            '@transformation(acts_on="coordinate") or lift(..., acts_on="coordinate"), or here, elementwise=True'
        )

    # XLA rounds a division of single numbers differently from one of arrays, so those are left alone.
    return _in_stacks(inner, size, lambda leaf: 1 < np.size(leaf) <= max_values, "concat")


@transformation
def stack_matrices(inner: GradientTransformation, size: int = 8):
    """Work on matrices of one shape and dtype as one batch, along a new first axis.

    Matrix products, decompositions and the programs for them are then one for each stack, not for each leaf. Leaves of
    fewer than two axes are left alone.

    Args:
        inner: acts on matrices or coordinates, and sees stacks [n, ..., rows, columns].
        size: most leaves in a stack, at least 2. Where it leaves fewer over, stacks are shorter.

    Raises:
        ValueError: if the inner rule contains one that does not act on matrices or coordinates (it is named).
    """
    if not isinstance(size, int) or size < 2:
        raise ValueError(f"stack_matrices: size must be an int of at least 2, got {size!r}")
    for why in _refused(inner, ("coordinate", "matrix")):
        raise ValueError(
            f"stack_matrices: the inner rule contains {why}; put stack_matrices around the other rules of the chain, "
            'or declare what it acts on where it is made, @transformation(acts_on="matrix")'
        )
    return _in_stacks(inner, size, lambda leaf: np.ndim(leaf) >= 2, "stack")


def _in_stacks(inner: GradientTransformation, size: int, fits: Callable[[Any], bool], join: str) -> tuple:
    """The pair (init, update) of a rule that sees stacks of the leaves that fit."""

    def init(params):
        leaves, structure = jax.tree.flatten(params)
        groups = _groups(leaves, size, fits)
        return View(inner.init(_stack(leaves, groups, join)), _parts(leaves, structure, groups, join))

    def update(updates, state, params=None, **extra):
        leaves, structure = jax.tree.flatten(updates)
        seen = jax.tree.leaves(params)
        groups = _groups(leaves if params is None else seen, size, fits)
        stacked = None if params is None else _stack(seen, groups, join)
        new, inner_state = inner.update(_stack(leaves, groups, join), state.inner_state, stacked, **extra)
        return structure.unflatten(_unstack(new, groups, join)), View(inner_state, state.parts)

    return init, update


def _refused(inner: GradientTransformation, allowed: tuple[str, ...] = ("coordinate",)) -> Iterator[str]:
    """Descriptions of the rules that act on more than is allowed, or decide by leaf."""
    for rule in deciding(inner):
        if decides_by_leaf(rule):
            yield f"{rule.factory.spec.name}, masked or labelled leaf by leaf"
        elif own_acts_on(rule) not in allowed:
            yield f"{rule.factory.spec.name}, which may look at single leaves (it acts on {own_acts_on(rule)!r})"


def _groups(leaves: list, size: int, fits: Callable[[Any], bool]) -> list[list[int]]:
    """Which leaves go together: lists of positions, each of 2 to `size` leaves that fit, of one shape and dtype."""
    alike: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        if fits(leaf):
            alike.setdefault((np.shape(leaf), jnp.result_type(leaf)), []).append(i)
    groups = []
    for positions in alike.values():
        n = _length(len(positions), size)
        groups += [positions[i : i + n] for i in range(0, len(positions), n)]
    return [group for group in groups if len(group) > 1]


def _length(leaves: int, size: int) -> int:
    """The length of stacks, in the upper half up to size, that leaves the fewest leaves over.

    XLA compiles the loops for stacks of equal length only once.
    """
    return min(range(size // 2 + 1, size + 1), key=lambda n: (leaves % n, -n))


def _stack(leaves: list, groups: list[list[int]], join: str) -> _Stacked:
    stacks = [_join([leaves[i] for i in group], join) for group in groups]
    grouped = {i for group in groups for i in group}
    return _Stacked(stacks, [leaf for i, leaf in enumerate(leaves) if i not in grouped])


def _join(leaves: list, join: str) -> Any:
    """One stack. Along the first axis there are fewer operations to trace and compile than along a new one."""
    joined = jnp.stack if join == "stack" else jnp.concatenate
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        return jax.eval_shape(lambda *leaves: joined(leaves), *leaves)
    return joined(leaves)


def _parts(leaves: list, structure: Any, groups: list[list[int]], join: str) -> Parts:
    """The `Part` of each stack and of each leaf that is not stacked."""
    shape = lambda i: tuple(np.shape(leaves[i]))
    stacks = [Part(tuple(group), tuple(map(shape, group)), join) for group in groups]
    alone = set(range(len(leaves))) - {i for group in groups for i in group}
    seen = _Stacked(stacks, [Part((i,), (shape(i),)) for i in sorted(alone)])
    return Parts(seen, structure.unflatten(range(len(leaves))))


def _unstack(stacked: _Stacked, groups: list[list[int]], join: str) -> list:
    """The leaves again, in their old order."""
    leaves = {}
    for stack, group in zip(stacked.stacks, groups, strict=True):
        apart = jnp.unstack(stack) if join == "stack" else jax.lax.split(stack, [len(stack) // len(group)] * len(group))
        leaves.update(zip(group, apart, strict=True))
    alone = iter(stacked.alone)
    return [leaves[i] if i in leaves else next(alone) for i in range(len(leaves) + len(stacked.alone))]
