"""Methods that learn the curvature from differences of gradients, s = x₊ - x and y = g₊ - g.

BFGS      d = -H g, with H kept as a matrix                    Broyden, Fletcher, Goldfarb, Shanno, 1970
L-BFGS    d = -H g, with H from the last m pairs (s, y)        Liu & Nocedal, 1989
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite.core.method import solver
from jaxopt_lite.core.numbers import Fraction, Positive
from jaxopt_lite.core.vectors import from_vector, to_vector
from jaxopt_lite.solvers.descent import Move, check_search, line_search_method
from jaxopt_lite.tree import inner

__all__ = ["bfgs", "lbfgs"]


class Matrix(NamedTuple):
    """The inverse Hessian of BFGS on the vector of all parameters."""

    inverse: jax.Array  # H, [n, n]
    fresh: jax.Array  # bool: whether H is the identity, of no scale yet


@solver
def bfgs(c1: Fraction = 1e-4, c2: Fraction = 0.9, first_step: Positive = 1.0, *, tries: int = 20):
    """BFGS: quasi-Newton steps with a dense inverse Hessian, for up to some thousands of parameters.

    A step costs O(n²), and the state holds n² numbers; `lbfgs` needs 2 m n. A complex parameter counts twice in n.

    Args:
        c1: c₁, the share of the expected decrease that a step must bring, in [0, 1]; below 1/2 to be of use.
        c2: c₂, the share of the slope that may be left, in [0, 1], above c₁.
        first_step: length of the first trial step, above 0, in units of the parameters; later ones begin at 1.
        tries: evaluations in one line search, at least 1.

    Raises:
        ValueError: if c1 is not less than c2, or tries is less than 1.

    Reference: Nocedal & Wright, "Numerical Optimization", 2006, Algorithm 6.1; the first H by Eq. (6.20).
    """
    check_search("bfgs", c1, c2, tries)

    def empty(params):
        x = to_vector(params)
        return Matrix(jnp.eye(x.size, dtype=x.dtype), jnp.array(True))

    def remember(matrix, move):
        return jax.lax.cond(move.is_good, lambda: _updated(matrix, move), lambda: matrix)

    def forget(matrix, when):
        inverse = jnp.where(when, jnp.eye(len(matrix.inverse), dtype=matrix.inverse.dtype), matrix.inverse)
        return Matrix(inverse, matrix.fresh | when)

    def direct(before, matrix, move, g, x, box):
        d = -(matrix.inverse @ to_vector(g))
        return from_vector(d, g), jnp.ones([], d.dtype)

    return line_search_method(empty, direct, c1, c2, first_step, tries, remember=remember, forget=forget)


def _updated(matrix: Matrix, move: Move) -> Matrix:
    """(I - ρ s yᵀ) H (I - ρ y sᵀ) + ρ s sᵀ with ρ = 1 / s·y, Eq. (6.17), if the move is good."""
    s, y = to_vector(move.s), to_vector(move.y)
    sy, yy = (jnp.where(move.is_good, a, 1) for a in (move.sy, move.yy))
    rho = 1 / sy
    scale = jnp.where(matrix.fresh, sy / yy, 1)  # Eq. (6.20)
    h = scale * matrix.inverse
    hy = h @ y
    h = h - rho * (jnp.outer(s, hy) + jnp.outer(hy, s)) + (rho * rho * (y @ hy) + rho) * jnp.outer(s, s)
    is_good = move.is_good & jnp.all(jnp.isfinite(h))
    return Matrix(jnp.where(is_good, h, matrix.inverse), matrix.fresh & ~is_good)


class Pairs(NamedTuple):
    """The last m pairs, each divided by √(s·y), in slots that are filled in turn.

    H of Algorithm 7.4 is γ P Pᵀ + Σ pᵢ pᵢᵀ with P = I - Σ pᵢ yᵢᵀ and pᵢ = Vᵢ sᵢ, where Vᵢ is the product of the
    I - sⱼ yⱼᵀ of the pairs newer than i. So a new pair multiplies each pᵢ by one factor, the oldest one goes without a
    trace, and Hg takes no loop over the pairs.
    """

    p: Any  # [m, ...] for each leaf
    y: Any
    filled: jax.Array  # [m], bool
    gamma: jax.Array  # s·y / y·y of the newest pair
    slot: jax.Array  # int32: where the next pair goes


@solver
def lbfgs(
    c1: Fraction = 1e-4,
    c2: Fraction = 0.9,
    first_step: Positive = 1.0,
    *,
    memory: int = 10,
    tries: int = 20,
):
    """L-BFGS: quasi-Newton steps from the last pairs of steps and differences of gradients, with a line search.

    Args:
        c1: c₁, the share of the expected decrease that a step must bring, in [0, 1]; below 1/2 to be of use.
        c2: c₂, the share of the slope that may be left, in [0, 1], above c₁.
        first_step: length of the first trial step, above 0, in units of the parameters; later ones begin at 1.
        memory: m, the number of pairs kept, at least 1; the state is 2 m times as large as the parameters.
        tries: evaluations in one line search, at least 1.

    Raises:
        ValueError: if c1 is not less than c2, or memory or tries is less than 1.

    Reference: Liu & Nocedal, "On the Limited Memory BFGS Method for Large Scale Optimization", 1989; Nocedal & Wright,
        "Numerical Optimization", 2006, Algorithms 7.4 and 7.5; the line search is that of `linesearch`.
    """
    check_search("lbfgs", c1, c2, tries)
    if not isinstance(memory, int) or memory < 1:
        raise ValueError(f"lbfgs: memory must be an int of at least 1, got {memory!r}")

    def empty(params):
        zeros = jax.tree.map(lambda p: jnp.zeros((memory, *p.shape), p.dtype), params)
        real = jnp.result_type(float, *[p.real.dtype for p in jax.tree.leaves(params)])
        return Pairs(zeros, zeros, jnp.zeros(memory, bool), jnp.ones([], real), jnp.zeros([], jnp.int32))

    def forget(pairs, when):
        return pairs._replace(filled=pairs.filled & ~when, gamma=jnp.where(when, 1, pairs.gamma))

    def direct(before, pairs, move, g, x, box):
        return jax.tree.map(jnp.negative, _product(before, pairs.gamma, move, g)), jnp.ones([], pairs.gamma.dtype)

    return line_search_method(empty, direct, c1, c2, first_step, tries, remember=_remember, forget=forget)


def _new_pair(pairs: Pairs, move: Move) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Which slot gets the move, the others with a pair, 1 / √(s·y), and pᵢ·y of the others: none unless it is good."""
    is_new = (jnp.arange(len(pairs.filled)) == pairs.slot) & move.is_good  # [m]
    others = pairs.filled & ~is_new
    scale = 1 / jnp.sqrt(jnp.where(move.is_good, move.sy, 1))
    return is_new, others, scale, jnp.where(others & move.is_good, scale * _along(pairs.p, move.y), 0)


def _remember(pairs: Pairs, move: Move) -> Pairs:
    """The pairs with a new one in place of the oldest."""
    is_new, _, scale, along = _new_pair(pairs, move)

    def project(p, s):
        s = (s * scale.astype(s.real.dtype))[None]
        return jnp.where(_like(is_new, p), s, p - _like(along, p) * s)

    def put(old, y):
        return jnp.where(_like(is_new, old), (y * scale.astype(y.real.dtype))[None], old)

    return Pairs(
        jax.tree.map(project, pairs.p, move.s),
        jax.tree.map(put, pairs.y, move.y),
        pairs.filled | is_new,
        jnp.where(move.is_good, move.sy / jnp.where(move.is_good, move.yy, 1), pairs.gamma).astype(pairs.gamma.dtype),
        jnp.where(move.is_good, (pairs.slot + 1) % len(pairs.filled), pairs.slot),
    )


def _product(before: Pairs, gamma: jax.Array, move: Move, g: Any) -> Any:
    """H g = γ P q + Σ wᵢ pᵢ with wᵢ = pᵢ·g and q = Pᵀg = g - Σ wᵢ yᵢ, after the move.

    It reads the pairs before the move, and adds what the move changes: under vmap the new pairs are then made once.
    """
    _, others, scale, along = _new_pair(before, move)
    scale = jnp.where(move.is_good, scale, 0)
    sg = scale * inner(move.s, g)
    w = jnp.where(others, _along(before.p, g) - along * sg, 0)
    q = jax.tree.map(
        lambda g, old, y: g - old - (scale * sg).astype(y.real.dtype) * y, g, _combined(w, before.y), move.y
    )
    w = jnp.where(others, w - gamma * _along(before.y, q), 0)
    last = scale * (sg - gamma * scale * inner(move.y, q) - jnp.sum(along * w))
    return jax.tree.map(
        lambda q, old, s: gamma.astype(q.real.dtype) * q + old + last.astype(s.real.dtype) * s,
        *(q, _combined(w, before.p), move.s),
    )


def _like(mask: jax.Array, stacked: jax.Array) -> jax.Array:
    """[m] -> [m, 1, ...]; numbers of the dtype of `stacked`."""
    mask = mask if mask.dtype == bool else mask.astype(stacked.real.dtype)
    return mask.reshape(len(mask), *(1,) * (stacked.ndim - 1))


def _along(vectors: Any, x: Any) -> jax.Array:
    """The inner products of m vectors with x, [m]."""
    product = lambda v, x: jnp.real(jnp.tensordot(jnp.conj(v), x, x.ndim, precision="highest"))
    return sum(jax.tree.leaves(jax.tree.map(product, vectors, x)), start=jnp.zeros(()))


def _combined(w: jax.Array, vectors: Any) -> Any:
    """Σ wᵢ vᵢ."""
    return jax.tree.map(lambda v: jnp.tensordot(w[None].astype(v.dtype), v, 1, precision="highest")[0], vectors)
