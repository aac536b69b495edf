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

    def remember(matrix, move, when):
        return jax.lax.cond(when, lambda: _updated(matrix, to_vector(move.s), to_vector(move.y)), lambda: matrix)

    def forget(matrix, when):
        inverse = jnp.where(when, jnp.eye(len(matrix.inverse), dtype=matrix.inverse.dtype), matrix.inverse)
        return Matrix(inverse, matrix.fresh | when)

    def direct(matrix, move, g, x, box):
        d = -(matrix.inverse @ to_vector(g))
        return from_vector(d, g), jnp.ones([], d.dtype)

    return line_search_method(empty, direct, c1, c2, first_step, tries, remember=remember, forget=forget)


def _updated(matrix: Matrix, s: jax.Array, y: jax.Array) -> Matrix:
    """(I - ρ s yᵀ) H (I - ρ y sᵀ) + ρ s sᵀ with ρ = 1 / s·y, Eq. (6.17), unless s·y is not safely positive."""
    sy, yy, is_good = curvature(s @ y, s @ s, y @ y)
    rho = 1 / sy
    scale = jnp.where(matrix.fresh, sy / yy, 1)  # Eq. (6.20)
    h = scale * matrix.inverse
    hy = h @ y
    h = h - rho * (jnp.outer(s, hy) + jnp.outer(hy, s)) + (rho * rho * (y @ hy) + rho) * jnp.outer(s, s)
    is_good = is_good & jnp.all(jnp.isfinite(h))
    return Matrix(jnp.where(is_good, h, matrix.inverse), matrix.fresh & ~is_good)


def curvature(sy: jax.Array, ss: jax.Array, yy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """s·y, y·y, and whether s·y is safely positive (Nocedal & Wright, Section 7.2); both are 1 where it is not."""
    is_good = (sy > jnp.finfo(sy.dtype).eps * jnp.sqrt(ss) * jnp.sqrt(yy)) & jnp.isfinite(sy) & jnp.isfinite(yy)
    return jnp.where(is_good, sy, 1), jnp.where(is_good, yy, 1), is_good


class Pairs(NamedTuple):
    """The last m pairs, each divided by √(s·y), in slots that are filled in turn.

    The product of Algorithm 7.4 is linear in the inner products sᵢ·g, by the inverse V of the triangular matrix of
    sᵢ·yⱼ, i not newer than j (Byrd, Nocedal & Schnabel, 1994, Eq. 3.1). A new pair adds a column to V and the oldest
    one takes its row away; both are zero for a slot that is empty.
    """

    s: Any  # [m, ...] for each leaf
    y: Any
    v: jax.Array  # V, [m, m] by slots
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
        return Pairs(zeros, zeros, jnp.zeros((memory, memory), real), jnp.ones([], real), jnp.zeros([], jnp.int32))

    def forget(pairs, when):
        return pairs._replace(v=jnp.where(when, 0, pairs.v), gamma=jnp.where(when, 1, pairs.gamma))

    def direct(pairs, move, g, x, box):
        return jax.tree.map(jnp.negative, _product(pairs, g)), jnp.ones([], pairs.gamma.dtype)

    return line_search_method(empty, direct, c1, c2, first_step, tries, remember=_remember, forget=forget)


def _remember(pairs: Pairs, move: Move, when: jax.Array) -> Pairs:
    """The pairs with a new one, unless its curvature s·y is not safely positive."""
    sy, yy, is_good = curvature(move.sy, move.ss, move.yy)
    is_good = is_good & when
    m, root = len(pairs.v), jnp.sqrt(sy)
    is_new = jnp.arange(m) == jnp.where(is_good, pairs.slot, m)  # [m]

    def put(old, new):
        mask = is_new.reshape(m, *(1,) * new.ndim)
        return jnp.where(mask, (new / root.astype(new.real.dtype))[None], old)

    new_s, new_y = jax.tree.map(put, pairs.s, move.s), jax.tree.map(put, pairs.y, move.y)
    r = jnp.where(is_new, 0, _along(new_s, move.y) / root)  # sᵢ·y
    column = jnp.where(is_new, 1, -jnp.matmul(pairs.v, r, precision="highest"))
    v = jnp.where(is_new, column[:, None], jnp.where(is_new[:, None], 0, pairs.v))
    gamma = jnp.where(is_good, sy / yy, pairs.gamma)
    slot = jnp.where(is_good, (pairs.slot + 1) % m, pairs.slot)
    return Pairs(new_s, new_y, v.astype(pairs.v.dtype), gamma.astype(pairs.gamma.dtype), slot)


def _product(pairs: Pairs, g: Any) -> Any:
    """H g = γ q + S Vᵀ (w - γ Yᵀ q) with w = V Sᵀ g and q = g - Y w."""
    w = jnp.matmul(pairs.v, _along(pairs.s, g), precision="highest")
    q = jax.tree.map(jnp.subtract, g, _combined(w, pairs.y))
    p = jnp.matmul((w - pairs.gamma * _along(pairs.y, q))[None], pairs.v, precision="highest")[0]
    return jax.tree.map(lambda q, s: pairs.gamma.astype(q.real.dtype) * q + s, q, _combined(p, pairs.s))


def _along(vectors: Any, x: Any) -> jax.Array:
    """The inner products of m vectors with x, [m]."""
    product = lambda v, x: jnp.real(jnp.tensordot(jnp.conj(v), x, x.ndim, precision="highest"))
    return sum(jax.tree.leaves(jax.tree.map(product, vectors, x)), start=jnp.zeros(()))


def _combined(w: jax.Array, vectors: Any) -> Any:
    """Σ wᵢ vᵢ."""
    return jax.tree.map(lambda v: jnp.tensordot(w[None].astype(v.dtype), v, 1, precision="highest")[0], vectors)
