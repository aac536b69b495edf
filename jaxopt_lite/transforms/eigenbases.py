"""SOAP: Adam in the eigenbases of Shampoo's two matrices.

    L ← β L + (1 - β) G Gᵀ,  R ← β R + (1 - β) Gᵀ G
    G' = Q_Lᵀ G Q_R            m, v of G' as in Adam; the update is Q_L (m̂ / (√v̂ + ε)) Q_Rᵀ
    Q ← qr(L Q)                every few steps, columns sorted by their eigenvalues diag(Qᵀ L Q)

Vyas, Morwani, Zhao, Kwun, Shapira, Brandfonbrener, Janson & Kakade, 2024, arXiv:2409.11321, Algorithm 3.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lite import tree
from jaxopt_lite.core.execution import any_lane, gathered, in_turn
from jaxopt_lite.core.layout import Place
from jaxopt_lite.core.numbers import Decay, NonNegative, PositiveCount
from jaxopt_lite.core.parameters import Dtype
from jaxopt_lite.core.transformation import transformation
from jaxopt_lite.transforms.matrices import adjoint

__all__ = ["scale_by_soap"]


class Sides(NamedTuple):
    """A square matrix for the rows and one for the columns of a leaf; None where that side has none."""

    left: Any
    right: Any

    def layout(self, place: Place) -> "Sides":
        """Both axes of each matrix are those of the parameter's side; axes before them are its batches."""
        own = lambda axis: dataclasses.replace(place, axes=(*place.axes[:-2], place.axes[axis], place.axes[axis]))
        return Sides(None if self.left is None else own(-2), None if self.right is None else own(-1))


class ScaleBySoapState(NamedTuple):
    """Steps done (int32), m and v in the eigenbases, like params, and for each leaf its `Sides` L, R and Q_L, Q_R."""

    count: Any
    mu: Any
    nu: Any
    factors: Any
    bases: Any


@transformation(acts_on="matrix")
def scale_by_soap(
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    precondition_frequency: PositiveCount = 10.0,
    max_precondition_dim: int = 10_000,
    mu_dtype: Dtype | None = None,
    *,
    max_aspect: float = 4.0,
):
    """Q_L (m̂ / (√v̂ + ε)) Q_Rᵀ with m and v of the gradient in the eigenbases Q_L, Q_R of its second moments.

    Leaves are matrices [..., rows, columns]; other axes are batches. Leaves of fewer than two axes are Adam's. The
    decompositions run one after the other, and only in steps in which some lane of a vmap refreshes its basis.

    On CPU set OPENBLAS_NUM_THREADS=1 before Python starts: LAPACK's threads wait for each other, and for those of XLA,
    many times longer than a decomposition of a few hundred rows takes.

    There is no update in the first step, as in the authors' code: its gradient defines the first basis, and would be
    measured in it at once. From the second step on m and v count. Derivatives of an update take the bases as constants.

    Args:
        b1: β₁, decay of the mean gradient m, in [0, 1).
        b2: β₂, decay of the mean square v, in [0, 1).
        shampoo_beta: decay of the matrices L and R, in [0, 1); None means β₂.
        eps: ε, added to the root in the denominator, at least 0.
        precondition_frequency: steps from one refresh of the basis to the next, at least 1.
        max_precondition_dim: sides longer than this have no basis, at least 0.
        mu_dtype: dtype of m in the state; None means that of the parameters, at least float32.
        max_aspect: where one side is this many times the other or more, the longer one has no basis; above 1.

    Raises:
        ValueError: for a max_precondition_dim below 0 or a max_aspect that is not above 1.
    """
    if not isinstance(max_precondition_dim, int) or isinstance(max_precondition_dim, bool) or max_precondition_dim < 0:
        raise ValueError(
            f"scale_by_soap: max_precondition_dim must be an int of at least 0, got {max_precondition_dim!r}"
        )
    if not isinstance(max_aspect, int | float) or not max_aspect > 1:
        raise ValueError(f"scale_by_soap: max_aspect must be above 1, got {max_aspect!r}")
    beta = b2 if shampoo_beta is None else shampoo_beta

    def sides(p, make):
        """`make` of the batch axes and the size of each side that has a basis."""
        if np.ndim(p) < 2:
            return Sides(None, None)
        *batch, rows, columns = np.shape(p)
        has = lambda own, other: 1 < own <= max_precondition_dim and own < max_aspect * max(other, 1)
        left, right = has(rows, columns), has(columns, rows)
        dtype = tree.dtype_of(p)
        return Sides(
            make((*batch, rows, rows), dtype) if left else None,
            make((*batch, columns, columns), dtype) if right else None,
        )

    def init(params):
        identity = lambda shape, dtype: jnp.broadcast_to(jnp.eye(shape[-1], dtype=dtype), shape)
        return ScaleBySoapState(
            count=jnp.zeros([], jnp.int32),
            mu=jax.tree.map(lambda p: tree.zeros_like(p, mu_dtype), params),
            nu=jax.tree.map(lambda p: tree.real_full_like(p, 0), params),
            factors=jax.tree.map(lambda p: sides(p, jnp.zeros), params),
            bases=jax.tree.map(lambda p: sides(p, identity), params),
        )

    def update(grads, state, params=None, **extra):
        t = state.count  # steps of Adam
        is_first = t == 0
        is_due = jnp.mod(t, jnp.round(precondition_frequency)) == 0
        corrections = [1 - tree.power(b, jnp.maximum(t, 1)) for b in (b1, b2)]

        def leaf(g, m, v, factors, bases):
            turned = _into(bases, g)
            m = jnp.where(is_first, m, b1 * m + (1 - b1) * turned)
            v = jnp.where(is_first, v, b2 * v + (1 - b2) * tree.abs_sq(turned))
            step = (m / corrections[0]) / (tree.safe_sqrt(v / corrections[1]) + eps)
            step = _out_of(bases, jnp.where(is_first, 0, step))
            return step, *_refreshed(is_due, is_first, m, v, _learned(factors, g, beta), bases)

        leaves, structure = jax.tree.flatten(grads)
        slots = (structure.flatten_up_to(slot) for slot in (state.mu, state.nu, state.factors, state.bases))
        results = in_turn(lambda item: gathered(leaf, *item), list(zip(leaves, *slots, strict=True)))
        updates, *slots = (structure.unflatten([own[i] for own in results]) for i in range(5))
        return updates, ScaleBySoapState(optax.safe_increment(t), *slots)

    return init, update


def _into(bases: Sides, g: jax.Array) -> jax.Array:
    """Q_Lᵀ G Q_R."""
    g = g if bases.left is None else adjoint(bases.left) @ g
    return g if bases.right is None else g @ bases.right


def _out_of(bases: Sides, u: jax.Array) -> jax.Array:
    """Q_L U Q_Rᵀ."""
    u = u if bases.left is None else bases.left @ u
    return u if bases.right is None else u @ adjoint(bases.right)


def _learned(factors: Sides, g: jax.Array, beta: Any) -> Sides:
    """L and R with a new gradient."""
    left, right = factors
    return Sides(
        None if left is None else beta * left + (1 - beta) * (g @ adjoint(g)),
        None if right is None else beta * right + (1 - beta) * (adjoint(g) @ g),
    )


@tree.inlined  # outside jit a cond compiles every time
def _refreshed(is_due: jax.Array, is_first: jax.Array, m: Any, v: Any, factors: Sides, bases: Sides) -> tuple:
    """m, v, factors and bases, refreshed where it is due: m is turned into the new bases, v follows their order."""

    def refresh(m, v, bases):
        pairs = [(a, q) for a, q in zip(factors, bases, strict=True) if q is not None]
        found = iter(in_turn(lambda pair: _basis(is_first, *pair), pairs))
        new, orders = zip(*((None, None) if q is None else next(found) for q in bases), strict=True)
        turned = _into(Sides(*new), _out_of(bases, m)).astype(m.dtype)
        return tree.where(is_due, (turned, _permuted(Sides(*orders), v), Sides(*new)), (m, v, bases))

    if jax.tree.leaves(bases):
        m, v, bases = jax.lax.cond(any_lane(is_due), refresh, lambda *now: now, m, v, bases)
    return m, v, factors, bases


def _basis(is_first: jax.Array, a: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvectors of A [..., n, n], largest first, and the order of the old ones [..., n].

    All anew in the first step, and then by one step of power iteration from the old ones.
    """
    a, q = jax.lax.stop_gradient((a, q))  # eigenvectors of equal eigenvalues have no derivative
    product = a @ q
    eigenvalues = jnp.sum(jnp.real(jnp.conj(q) * product), axis=-2)
    order = jnp.argsort(-eigenvalues, axis=-1, stable=True)
    powered = jnp.take_along_axis(product, order[..., None, :], axis=-1)
    power = lambda x: jnp.linalg.qr(x)[0]
    anew = lambda x: jnp.flip(jnp.linalg.eigh(x)[1], axis=-1)

    def either():  # in some lanes of a vmap it may be the first step, in others not
        methods = iter((anew, power))
        return jnp.where(is_first, *in_turn(lambda x: next(methods)(x), (a, powered)))

    return jax.lax.cond(any_lane(is_first), either, lambda: power(powered)).astype(q.dtype), order


def _permuted(orders: Sides, v: jax.Array) -> jax.Array:
    """v with its rows and columns in the order of the new bases."""
    v = v if orders.left is None else jnp.take_along_axis(v, orders.left[..., :, None], axis=-2)
    return v if orders.right is None else jnp.take_along_axis(v, orders.right[..., None, :], axis=-1)
