"""PSGD Kron: a preconditioner for rows and one for columns, learned by a descent of its own on a Lie group.

    U = P_L G P_R,  P = Qᵀ Q                                          with the mean gradient for G
    A = Q_L G Q_Rᵀ,  B = Q_L^-ᵀ V Q_R^-¹,  V ~ 𝒩(0, 1)
    Q_L ← Q_L - η triu(A Aᵀ - B Bᵀ) Q_L / ‖A Aᵀ + B Bᵀ‖               likewise Q_R of Aᵀ A and Bᵀ B
    Q_L ← Q_L - η (a - b) Q_L / max(a + b)                            for a diagonal: a = diag(A Aᵀ), b = diag(B Bᵀ)

It lessens E[Gᵀ P G + Vᵀ P^-¹ V], which is least where P is the inverse root of E[G Gᵀ].

Li, 2015, arXiv:1512.04202; Li, 2024, arXiv:2402.11858; with the mean gradient, the clipping, the schedule of updates
and the bound of a norm of github.com/evanatyourservice/kron_torch.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lite import tree
from jaxopt_lite.core.execution import any_lane, gathered, in_turn
from jaxopt_lite.core.layout import Place
from jaxopt_lite.core.numbers import Decay, NonNegative, Positive
from jaxopt_lite.core.parameters import Dtype, Key
from jaxopt_lite.core.schedule import NonNegativeOrSchedule, Schedule
from jaxopt_lite.core.transformation import transformation
from jaxopt_lite.schedules.shapes import exponential_decay
from jaxopt_lite.transforms.matrices import adjoint

__all__ = ["scale_by_kron"]

NOISE = 2.0**-11.5  # √ε of float32: added to G in units of its mean size, it bounds P where there are no gradients


class KronSides(NamedTuple):
    """Q_L and Q_R of a leaf: [..., n, n], or [..., n] for a diagonal; leaves of fewer than two axes have Q_R alone."""

    left: Any
    right: Any

    def layout(self, place: Place) -> "KronSides":
        """The axes of each Q are those of the parameter's side."""
        batch = place.axes[:-2]

        def own(q, axis):
            return dataclasses.replace(place, axes=(*batch, *[place.axes[axis]] * (q.ndim - len(batch))))

        if self.left is None:
            return KronSides(None, place)
        return KronSides(own(self.left, -2), own(self.right, -1))


class ScaleByKronState(NamedTuple):
    """Steps done and steps since Q was updated (int32), the key of V, the mean gradient, `KronSides` for each leaf."""

    count: Any
    waited: Any
    rng_key: jax.Array
    mu: Any
    factors: Any


@transformation(acts_on="matrix")
def scale_by_kron(
    b1: Decay = 0.9,
    update_probability: NonNegativeOrSchedule | None = None,
    max_size_triangular: int = 8192,
    memory_save_mode: Literal["smart_one_diag", "one_diag", "all_diag"] | None = None,
    precond_lr: NonNegative = 0.1,
    precond_init_scale: Positive = 1.0,
    max_rms: Positive | None = 1.1,
    mu_dtype: Dtype | None = None,
    key: Key = 0,
    *,
    momentum_into_precond_update: bool = True,
):
    """P_L M P_R of the mean gradient M: preconditioners P = Qᵀ Q that are learned as the run goes.

    Leaves are matrices [..., rows, columns]; other axes are batches. Leaves of fewer than two axes have a diagonal P.
    Q needs no decomposition, but a triangular solve; it is updated leaf by leaf, only in steps in which some lane of a
    vmap is due. V is drawn once a step for each shape of matrices, so those of one shape share it. Derivatives of an
    update take Q as constant, except by `precond_lr`.

    Args:
        b1: decay of the mean gradient, in [0, 1), corrected for its start at zero.
        update_probability: how often Q is updated, in (0, 1], a number or a schedule: it is updated in each step in
            which 1 / update_probability steps have passed since the last time. None is the authors' schedule, 1 for 500
            steps, and then an exponential decay by e every 1000 steps to 0.03.
        max_size_triangular: sides longer than this have a diagonal Q, at least 0.
        memory_save_mode: which sides have a diagonal Q as well: "one_diag", the longer one of a matrix (the columns of
            a square one); "smart_one_diag", the longer one if one is longer; "all_diag", both. None means none.
        precond_lr: η, the learning rate of Q, at least 0.
        precond_init_scale: the product of Q_L and Q_R at the start is this times the identity, above 0.
        max_rms: the root mean square to which larger updates are scaled down, matrix by matrix, above 0; None bounds
            nothing.
        mu_dtype: dtype of the mean gradient in the state; None means that of the parameters, at least float32.
        key: a seed (static) or a key (a leaf). `init` copies it into the state; where a run makes the state (`fit`,
            `init_state`, `sweep`) its seed is mixed in, so that each seed has draws of its own.
        momentum_into_precond_update: learn Q from the mean gradient; False learns it from the gradient.

    Raises:
        ValueError: for a max_size_triangular below 0.
    """
    if not isinstance(max_size_triangular, int) or isinstance(max_size_triangular, bool) or max_size_triangular < 0:
        raise ValueError(
            f"scale_by_kron: max_size_triangular must be an int of at least 0, got {max_size_triangular!r}"
        )
    probability = exponential_decay(1.0, 1000.0, np.exp(-1.0), 500.0, end_value=0.03)
    probability = probability if update_probability is None else update_probability

    def factors(p):
        dtype = tree.dtype_of(p)
        if np.ndim(p) < 2:
            return KronSides(None, jnp.full_like(p, precond_init_scale))
        *batch, m, n = np.shape(p)
        scale = jnp.sqrt(jnp.asarray(precond_init_scale, tree.real_dtype(dtype)))

        def own(size, is_diagonal):
            one = jnp.ones(size, dtype) if is_diagonal else jnp.eye(size, dtype=dtype)
            return scale * jnp.broadcast_to(one, (*batch, *one.shape))

        longest = (m > n, n > m or (n == m and memory_save_mode == "one_diag"))
        every = {None: (False, False), "all_diag": (True, True)}.get(memory_save_mode, longest)
        small = [size <= 1 or size > max_size_triangular for size in (m, n)]
        return KronSides(own(m, small[0] or every[0]), own(n, small[1] or every[1]))

    def init(params):
        return ScaleByKronState(
            count=jnp.zeros([], jnp.int32),
            waited=jnp.zeros([], jnp.int32),
            rng_key=jnp.copy(key) if isinstance(key, jax.Array) else jax.random.key(key),  # a buffer of its own
            mu=jax.tree.map(lambda p: tree.zeros_like(p, mu_dtype), params),
            factors=jax.tree.map(factors, params),
        )

    def update(grads, state, params=None, **extra):
        t = optax.safe_increment(state.count)
        now = probability(state.count) if isinstance(probability, Schedule) else probability
        waited = state.waited + 1
        is_due = waited * now >= 1
        correction = 1 - tree.power(b1, t)
        draw = jax.random.fold_in(state.rng_key, state.count)

        def leaf(g, m, q):
            m = b1 * m + (1 - b1) * g
            mean = m / correction
            q = _learned(is_due, draw, mean if momentum_into_precond_update else g, q, precond_lr)
            return _clipped(_back(q, _turned(q, mean)), max_rms), m, q

        leaves, structure = jax.tree.flatten(grads)
        items = zip(leaves, *(structure.flatten_up_to(slot) for slot in (state.mu, state.factors)), strict=True)
        whole = lambda g, *slots: gathered(leaf, g, *slots) if g.ndim > 1 else leaf(g, *slots)
        results = in_turn(lambda item: whole(*item), list(items))
        updates, mu, new = (structure.unflatten([own[i] for own in results]) for i in range(3))
        waited = jnp.where(is_due, 0, waited)
        return updates, ScaleByKronState(t, waited, state.rng_key, mu, new)

    return init, update


def drawn(key: Any, g: Any) -> jax.Array:
    """V, standard normal: the same for each matrix of a leaf."""
    one = jax.random.normal(key, g.shape[-2:], tree.real_dtype(g.dtype)).astype(g.dtype)
    return jnp.broadcast_to(one, g.shape)


def _is_diagonal(q: jax.Array, g: jax.Array) -> bool:
    return q.ndim < max(g.ndim, 2)


def _turned(q: KronSides, g: jax.Array) -> jax.Array:
    """Q_L G Q_Rᵀ."""
    left, right = q
    if left is None:
        return right * g
    g = left[..., None] * g if _is_diagonal(left, g) else left @ g
    return g * right[..., None, :] if _is_diagonal(right, g) else g @ jnp.swapaxes(right, -1, -2)


def _back(q: KronSides, g: jax.Array) -> jax.Array:
    """Q_Lᵀ G Q_R."""
    left, right = q
    if left is None:
        return jnp.conj(right) * g
    g = jnp.conj(left)[..., None] * g if _is_diagonal(left, g) else adjoint(left) @ g
    return g * jnp.conj(right)[..., None, :] if _is_diagonal(right, g) else g @ jnp.conj(right)


def _inverted(q: KronSides, v: jax.Array) -> jax.Array:
    """Q_L^-ᵀ V Q_R^-¹."""
    left, right = q
    if left is None:
        return v / jnp.conj(right)
    solve = jax.lax.linalg.triangular_solve
    if _is_diagonal(left, v):
        v = v / jnp.conj(left)[..., None]
    else:
        v = solve(left, v, left_side=True, lower=False, transpose_a=True, conjugate_a=True)
    if _is_diagonal(right, v):
        return v / jnp.conj(right)[..., None, :]
    return solve(jnp.conj(right), v, left_side=False, lower=False)


@tree.inlined  # outside jit a cond compiles every time
def _learned(is_due: jax.Array, key: Any, g: jax.Array, q: KronSides, rate: Any) -> KronSides:
    """Q after a step of its own descent, where it is due."""

    def learn(q):
        seen, old = jax.lax.stop_gradient((g.astype(q.right.dtype), q))
        v = drawn(key, seen)
        a = _turned(old, seen + NOISE * jnp.mean(jnp.abs(seen), _own_axes(g), keepdims=True) * v)
        b = _inverted(old, v)
        if old.left is None:
            return chosen(KronSides(None, _stepped(old.right, a, b, rate, True)), q)
        left = _stepped(old.left, a, b, rate, _is_diagonal(old.left, g))
        a, b = jnp.swapaxes(a, -1, -2), jnp.swapaxes(b, -1, -2)
        right = _stepped(old.right, a, b, rate, _is_diagonal(old.right, g))
        return chosen(_balanced(left, right, g), q)

    def chosen(new, q):
        return tree.where(is_due, tree.cast_like(new, q), q)

    return jax.lax.cond(any_lane(is_due), learn, lambda q: q, q) if g.size else q


def _own_axes(g: jax.Array) -> tuple[int, ...]:
    """The axes of one matrix, or of a whole leaf of fewer than two axes."""
    return tuple(range(-min(g.ndim, 2), 0))


def _stepped(q: jax.Array, a: jax.Array, b: jax.Array, rate: Any, is_diagonal: bool) -> jax.Array:
    """Q - η triu(A Aᵀ - B Bᵀ) Q / ‖A Aᵀ + B Bᵀ‖, or likewise of diagonals; for a vector of its squares."""
    tiny = jnp.finfo(q.dtype).tiny
    if is_diagonal:
        squares = [tree.abs_sq(x) if q.ndim == x.ndim else jnp.sum(tree.abs_sq(x), axis=-1) for x in (a, b)]
        largest = jnp.max(sum(squares), axis=-1, keepdims=True) if q.ndim else sum(squares)
        return q - rate * (squares[0] - squares[1]) * (q / jnp.maximum(largest, tiny))
    own, noise = a @ adjoint(a), b @ adjoint(b)
    norm = jnp.maximum(_norm_bound(own + noise), tiny)
    return q - (rate / norm * jnp.triu(own - noise)) @ q


def _norm_bound(x: jax.Array) -> jax.Array:
    """A lower bound of the spectral norm of symmetric matrices [..., n, n], [..., 1, 1]: a step of power iteration."""
    largest = jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    longest = jnp.argmax(jnp.sum(tree.abs_sq(x), axis=-2), axis=-1)
    column = jnp.take_along_axis(x, longest[..., None, None], axis=-1)
    norm = lambda y: tree.safe_sqrt(jnp.sum(tree.abs_sq(y), axis=(-2, -1), keepdims=True))
    turned = adjoint(x) @ column
    length = norm(turned)
    return norm(x @ (turned / jnp.where(length > 0, length, 1))) * largest


def _balanced(left: jax.Array, right: jax.Array, g: jax.Array) -> KronSides:
    """Q_L and Q_R with the same largest number; their product, and so P, does not change."""

    def largest(q):
        return jnp.max(jnp.abs(q), axis=tuple(range(-(1 if _is_diagonal(q, g) else 2), 0)))

    ratio = jnp.sqrt(largest(right) / largest(left))
    shaped = lambda factor, q: factor.reshape(*factor.shape, *[1] * (q.ndim - factor.ndim))
    return KronSides(left * shaped(ratio, left), right / shaped(ratio, right))


def _clipped(u: jax.Array, max_rms: Any) -> jax.Array:
    """Each matrix scaled down to a root mean square of at most this."""
    if max_rms is None or not u.size:
        return u
    rms = tree.safe_sqrt(jnp.mean(tree.abs_sq(u), _own_axes(u), keepdims=True))
    return u * jnp.minimum(1, max_rms / (rms + 1e-12))
