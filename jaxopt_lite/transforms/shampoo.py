"""Shampoo: the gradient between inverse roots of the second moments of its rows and of its columns.

    L ← β L + (1 - β) G Gᵀ,  R ← β R + (1 - β) Gᵀ G        or the sums of G Gᵀ and Gᵀ G
    U = L^-¼ G R^-¼                                        L^-½ G where the columns have none
    U ‖A‖ / ‖U‖                                            grafting: as long as the step A of another rule

Gupta, Koren & Singer, 2018, arXiv:1802.09568, Algorithm 1. Blocks, grafting and roots every few steps: Anil, Gupta,
Koren, Regan & Singer, 2020, arXiv:2002.09018, Sections 3 and 4; Shi et al., 2023, arXiv:2309.06497.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lite import tree
from jaxopt_lite.core.execution import any_lane, gathered, in_turn
from jaxopt_lite.core.layout import Place
from jaxopt_lite.core.numbers import Decay, NonNegative, Positive, PositiveCount
from jaxopt_lite.core.transformation import GradientTransformation, transformation
from jaxopt_lite.transforms.adaptive import scale_by_rms, scale_by_rss
from jaxopt_lite.transforms.matrices import adjoint

__all__ = ["scale_by_shampoo"]


class BlockSides(NamedTuple):
    """Square matrices [..., down, across, n, n] for the rows and the columns of each block of a leaf, or None."""

    left: Any
    right: Any

    def layout(self, place: Place) -> "BlockSides":
        """Both axes of the matrices are those of the parameter's side where it is not cut into blocks."""

        def own(side, axis):
            if side is None:
                return None
            side_axis = place.axes[axis] if side.shape[-4 if axis == -2 else -3] == 1 else None
            return dataclasses.replace(place, axes=(*place.axes[:-2], None, None, side_axis, side_axis))

        return BlockSides(own(self.left, -2), own(self.right, -1))


class ScaleByShampooState(NamedTuple):
    """Steps done (int32), for each leaf its `BlockSides` L, R and their inverse roots, and the state of the graft."""

    count: Any
    factors: Any
    roots: Any
    graft: Any


@transformation(acts_on="matrix")
def scale_by_shampoo(
    b2: Decay | None = 0.999,
    eps: NonNegative = 1e-12,
    precondition_frequency: PositiveCount = 10.0,
    block_size: int = 1024,
    graft: GradientTransformation | None = None,  # pyright: ignore[reportGeneralTypeIssues]
    *,
    ridge: NonNegative = 1e-6,
    exponent: Positive | None = None,
    max_aspect: float | None = None,
):
    """L^-¼ G R^-¼ with L and R the second moments of the rows and columns of each block of a matrix.

    Leaves are matrices [..., rows, columns]; other axes are batches. Leaves of fewer than two axes are updated by the
    graft, or without one divided by the roots of their own second moments. Large matrices are cut into blocks of equal
    size, filled up with zeros. All blocks of a leaf are one batch of eigendecompositions; these run one after the
    other, and only in steps in which some lane of a vmap needs new roots. On CPU set OPENBLAS_NUM_THREADS=1 before
    Python starts, as for `scale_by_soap`. Derivatives of an update take L and R as constants.

    Where both sides have a matrix, blocks of one value and a sum in place of the average (`b2=None`) make it Adagrad,
    and so do diagonal gradients.

    Args:
        b2: β, decay of L and R, in [0, 1), corrected for their start at zero; None sums up all gradients, as in the
            paper of 2018.
        eps: ε, added to the eigenvalues of L and R, at least 0.
        precondition_frequency: steps from one computation of the roots to the next, at least 1; the first is in the
            first step.
        block_size: most rows and columns of a block, at least 1.
        graft: a rule such as `scale_by_adam()`. Each matrix of the update gets the norm which this rule's update has.
            None means the norm that it has.
        ridge: added to the eigenvalues too, in units of the largest of their matrix, at least 0. It bounds how much a
            direction can be enlarged in which there were no gradients until now: at 1e-6 32 times for each side.
        exponent: of the inverse roots, above 0; None means 1 / (2 k), where k is the number of sides with a matrix.
        max_aspect: where one side of a block is this many times the other or more, the longer one has no matrix; above
            1. None means that both have one.

    Raises:
        ValueError: for a block_size below 1 or a max_aspect that is not above 1.
    """
    if not isinstance(block_size, int) or isinstance(block_size, bool) or block_size < 1:
        raise ValueError(f"scale_by_shampoo: block_size must be an int of at least 1, got {block_size!r}")
    if max_aspect is not None and not (isinstance(max_aspect, int | float) and max_aspect > 1):
        raise ValueError(f"scale_by_shampoo: max_aspect must be above 1, or None, got {max_aspect!r}")
    diagonal = scale_by_rss(0.0, eps) if b2 is None else scale_by_rms(b2, eps, bias_correction=True)
    other = diagonal if graft is None else graft

    def seen(params):
        """What the other rule updates: without a graft only leaves that are not matrices."""
        hide = lambda p: optax.MaskedNode() if graft is None and _is_matrix(p) else p
        return None if params is None else jax.tree.map(hide, params)

    def sides(p, make):
        """`make` of the shape of the matrices of each side, and their dtype."""
        if not _is_matrix(p):
            return BlockSides(None, None)
        *batch, m, n = np.shape(p)
        (down, rows), (across, columns) = _cut(m, block_size), _cut(n, block_size)
        has = lambda own, others: max_aspect is None or own < max_aspect * others
        matrices = lambda size: make((*batch, down, across, size, size), tree.dtype_of(p))
        return BlockSides(
            matrices(rows) if has(rows, columns) else None, matrices(columns) if has(columns, rows) else None
        )

    def init(params):
        identity = lambda shape, dtype: jnp.broadcast_to(jnp.eye(shape[-1], dtype=dtype), shape)
        return ScaleByShampooState(
            count=jnp.zeros([], jnp.int32),
            factors=jax.tree.map(lambda p: sides(p, jnp.zeros), params),
            roots=jax.tree.map(lambda p: sides(p, identity), params),
            graft=other.init(seen(params)),
        )

    def update(grads, state, params=None, **extra):
        t = optax.safe_increment(state.count)
        is_due = jnp.mod(state.count, jnp.round(precondition_frequency)) == 0
        kept, new, correction = (1, 1, 1) if b2 is None else (b2, 1 - b2, tree.bias_correction(b2, t))
        steps, graft_state = other.update(seen(grads), state.graft, seen(params), **extra)

        def leaf(g, step, factors, roots):
            blocks = _blocks(g, block_size)
            left, right = factors
            left = None if left is None else kept * left + new * (blocks @ adjoint(blocks))
            right = None if right is None else kept * right + new * (adjoint(blocks) @ blocks)
            factors = BlockSides(left, right)
            roots = _refreshed(is_due, factors, roots, correction, (eps, ridge, exponent))
            blocks = blocks if roots.left is None else roots.left @ blocks
            blocks = blocks if roots.right is None else blocks @ roots.right
            return _grafted(_whole(blocks, g.shape), step), factors, roots

        leaves, structure = jax.tree.flatten(grads)
        steps, factors, roots = (structure.flatten_up_to(slot) for slot in (steps, state.factors, state.roots))
        places = [i for i, g in enumerate(leaves) if _is_matrix(g)]
        items = [(leaves[i], steps[i], factors[i], roots[i]) for i in places]
        for i, made in zip(places, in_turn(lambda item: gathered(leaf, *item), items), strict=True):
            steps[i], factors[i], roots[i] = made
        updates, factors, roots = map(structure.unflatten, (steps, factors, roots))
        return updates, ScaleByShampooState(t, factors, roots, graft_state)

    return init, update


def _is_matrix(p: Any) -> bool:
    return np.ndim(p) > 1 and np.size(p) > 0


def _cut(n: int, block_size: int) -> tuple[int, int]:
    """How many blocks a side of n values has, and their size: equal ones, which fill up to fewer than one more each."""
    blocks = math.ceil(n / block_size)
    return blocks, math.ceil(n / blocks)


def _blocks(g: jax.Array, block_size: int) -> jax.Array:
    """A leaf [..., m, n] as blocks [..., down, across, rows, columns], filled up with zeros."""
    *batch, m, n = g.shape
    (down, rows), (across, columns) = _cut(m, block_size), _cut(n, block_size)
    g = jnp.pad(g, [*[(0, 0)] * len(batch), (0, down * rows - m), (0, across * columns - n)])
    return jnp.swapaxes(g.reshape(*batch, down, rows, across, columns), -3, -2)


def _whole(blocks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The leaf of this shape that `_blocks` cut."""
    *batch, down, across, rows, columns = blocks.shape
    g = jnp.swapaxes(blocks, -3, -2).reshape(*batch, down * rows, across * columns)
    return g[..., : shape[-2], : shape[-1]]


@tree.inlined  # outside jit a cond compiles every time
def _refreshed(is_due: jax.Array, factors: BlockSides, roots: BlockSides, correction: Any, numbers: tuple) -> Any:
    """The inverse roots of L and R, anew where it is due."""
    eps, ridge, exponent = numbers
    given = [a for a in factors if a is not None]
    power = 1 / (2 * len(given)) if exponent is None else exponent

    def refresh(roots):
        root = functools.partial(_inverse_root, eps=eps, ridge=ridge, power=power)
        found = iter(in_turn(root, [a * correction for a in given]))
        new = BlockSides(*(None if a is None else next(found).astype(a.dtype) for a in roots))
        return tree.where(is_due, new, roots)

    return jax.lax.cond(any_lane(is_due), refresh, lambda roots: roots, roots)


def _inverse_root(a: jax.Array, eps: Any, ridge: Any, power: Any) -> jax.Array:
    """(A + ε I)^-p of symmetric matrices [..., n, n], 0 in directions whose eigenvalue is 0."""
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(a))  # equal eigenvalues have no derivative
    values = jnp.maximum(values, 0)
    values = values + eps + ridge * values[..., -1:]
    is_positive = values > 0
    powers = jnp.where(is_positive, jnp.where(is_positive, values, 1) ** -power, 0)
    return (vectors * powers[..., None, :]) @ adjoint(vectors)


def _grafted(u: jax.Array, step: Any) -> jax.Array:
    """U with the norm of another rule's step, matrix by matrix; U itself where there is none."""
    if isinstance(step, optax.MaskedNode):
        return u
    norm = lambda x: tree.safe_sqrt(jnp.sum(tree.abs_sq(x), axis=(-2, -1), keepdims=True))
    own = norm(u)
    return u * jnp.where(own > 0, norm(step) / jnp.where(own > 0, own, 1), 0)
