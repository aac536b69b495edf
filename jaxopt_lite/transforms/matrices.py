"""Rules that act on matrices: the last two axes of a leaf, rows in and columns out; other axes are batches.

A leaf of fewer than two axes is a matrix of one row.

orthogonalize       U Vᵀ of G = U Σ Vᵀ, nearly: a polynomial of G          Jordan et al., 2024 (Muon)
    X ← a X + (b A + c A²) X,  A = X Xᵀ                                     a Newton-Schulz step, from X = G / ‖G‖
scale_by_shape      √max(1, out / in) O                                     Jordan et al., 2024
                    r √max(in, out) O                                       Liu et al., 2025, arXiv:2502.16982
scale_by_neuron_rms O / (√v + ε), of a norm that is kept                    Li et al., 2025, arXiv:2510.05491 (NorMuon)
    v ← β v + (1 - β) mean(O²)                                              for each neuron, the mean over its inputs
as_matrices         leaves of any number of axes as matrices
"""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lite import tree
from jaxopt_lite.core.execution import gathered, in_turn
from jaxopt_lite.core.numbers import Decay, NonNegative, Positive
from jaxopt_lite.core.parameters import Dtype
from jaxopt_lite.core.transformation import GradientTransformation, transformation

__all__ = ["as_matrices", "orthogonalize", "scale_by_neuron_rms", "scale_by_shape"]

JORDAN = (3.4445, -4.7750, 2.0315)
DION = (  # Ahn et al., "Dion", 2025, arXiv:2504.05295
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
# Amsel et al., "The Polar Express", 2025, arXiv:2505.16932, for singular values in [1e-3, 1], without safety factors.
EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845749523, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)
SAFETY = 1.01  # the paper's: rounding may take singular values above 1
_SAFE = tuple((a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in EXPRESS[:-1])
PRESETS = {"standard": (JORDAN,), "dion": DION, "polar_express": (*_SAFE, EXPRESS[-1])}
AXES = ("matrix", "last_out", "first_in", "first_out")


class ScaleByNeuronRmsState(NamedTuple):
    """v of each neuron: the axes of params, those that are inputs of length 1."""

    nu: Any


@transformation(acts_on="matrix")
def orthogonalize(
    ns_coeffs: Any = "standard",
    ns_steps: int = 5,
    eps: Positive = 1e-8,
    *,
    preconditioning: Literal["frobenius", "spectral", "aol", "schatten"] = "frobenius",
    adaptive: bool = False,
    ns_dtype: Dtype | None = None,
):
    """X of nearly orthonormal rows, or columns where they are fewer, by polynomials: all singular values near 1.

    Each step is a X + (b A + c A²) X with A = X Xᵀ. Leaves are worked on one after the other; see `stack_matrices`.

    Args:
        ns_coeffs: the coefficients. "standard" (3.4445, -4.7750, 2.0315), which takes small singular values up fast and
            leaves all of them in about [0.7, 1.2]; "dion", five triples; "polar_express", the triples of Amsel et al.,
            2025, the best for each number of steps; a triple (a, b, c) for all steps; or a triple for each step, which
            then determine the number of steps.
        ns_steps: the number of steps, at least 1; five do for training. Of a preset with several triples the first
            ones are used, and the last one again where there are fewer.
        eps: ε, added to the norm of the gradient, above 0.
        preconditioning: what the gradient is divided by first: its Frobenius norm; its "spectral" norm, by a singular
            value decomposition; "schatten", the square root of ‖G Gᵀ‖; or "aol", each row by the square root of its sum
            of |G Gᵀ|, which leaves larger singular values and so may save a step (Boissin et al., 2025,
            arXiv:2512.04632).
        adaptive: multiply by the inner product of gradient and result, the dual norm of the gradient (Bernstein &
            Newhouse, 2024, arXiv:2409.20325).
        ns_dtype: dtype of the steps, such as "bfloat16"; None means that of the gradient, at least float32. On CPU
            narrow products are not faster.

    Raises:
        ValueError: for other coefficients, or fewer than one step.

    Reference: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    if not isinstance(ns_steps, int) or isinstance(ns_steps, bool) or ns_steps < 1:
        raise ValueError(f"orthogonalize: ns_steps must be an int of at least 1, got {ns_steps!r}")
    coefficients = _coefficients(ns_coeffs, ns_steps)

    def direction(leaf):
        g = _matrix(leaf)
        x = g if ns_dtype is None or jnp.iscomplexobj(g) else g.astype(ns_dtype)
        is_tall = x.shape[-2] > x.shape[-1]
        x = _polynomial(jnp.swapaxes(x, -1, -2) if is_tall else x, coefficients, eps, preconditioning)
        x = (jnp.swapaxes(x, -1, -2) if is_tall else x).astype(g.dtype)
        if adaptive:
            x = x * jnp.sum(jnp.real(jnp.conj(g) * x), axis=(-2, -1), keepdims=True)
        return x.reshape(leaf.shape)

    def update(grads, state, params=None, **extra):
        leaves, structure = jax.tree.flatten(grads)
        return structure.unflatten(in_turn(functools.partial(gathered, direction), leaves)), state

    return lambda params: optax.EmptyState(), update


def _matrix(x: Any) -> jax.Array:
    """A leaf [..., rows, columns]; one of fewer than two axes is a row."""
    return x if x.ndim > 1 else x.reshape(1, x.size)


@functools.partial(jax.jit, static_argnames="preconditioning", inline=True)  # outside jit a scan compiles every time
def _polynomial(x: jax.Array, coefficients: Any, eps: Any, preconditioning: str) -> jax.Array:
    """X [..., m, n], m ≤ n, after a step with each of the coefficients [steps, 3]."""

    def step(x, abc):
        a, b, c = abc
        gram = x @ adjoint(x)
        return a * x + (b * gram + c * (gram @ gram)) @ x, None

    coefficients = jnp.asarray(coefficients, tree.real_dtype(x.dtype))
    return jax.lax.scan(step, _normalized(x, preconditioning, eps), coefficients)[0]


def adjoint(x: jax.Array) -> jax.Array:
    """Xᴴ of the last two axes."""
    return jnp.conj(jnp.swapaxes(x, -1, -2))


def _normalized(x: jax.Array, preconditioning: str, eps: Any) -> jax.Array:
    """X [..., m, n], m ≤ n, with singular values of at most 1."""
    eps = jnp.asarray(eps, tree.real_dtype(x.dtype))
    if preconditioning == "spectral":
        return x / (jnp.linalg.norm(x, ord=2, axis=(-2, -1), keepdims=True) + eps)
    if preconditioning == "frobenius":
        return x / (_frobenius(x) + eps)
    gram = x @ adjoint(x)
    if preconditioning == "aol":
        squares = jnp.sum(tree.safe_sqrt(tree.abs_sq(gram)), axis=-1, keepdims=True)
    else:
        squares = _frobenius(gram)
    return x / jnp.sqrt(jnp.maximum(squares, eps))


def _frobenius(x: jax.Array) -> jax.Array:
    """‖X‖, [..., 1, 1]; its derivative at zero is zero."""
    return tree.safe_sqrt(jnp.sum(tree.abs_sq(x), axis=(-2, -1), keepdims=True))


def _coefficients(given: Any, steps: int) -> np.ndarray:
    """A triple for each step, [steps, 3]."""
    if isinstance(given, str):
        if given not in PRESETS:
            raise ValueError(
                f"orthogonalize: ns_coeffs must be one of {', '.join(map(repr, PRESETS))} or triples, got {given!r}"
            )
        table = np.asarray(PRESETS[given])
        return table[np.minimum(np.arange(steps), len(table) - 1)]
    try:
        table = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        table = np.zeros(())
    if table.ndim not in (1, 2) or table.shape[table.ndim - 1] != 3 or not np.isfinite(table).all() or not len(table):
        raise ValueError(f"orthogonalize: ns_coeffs must be a triple, or a triple for each step, got {given!r}")
    return table if table.ndim == 2 else np.tile(table, (steps, 1))


@transformation(acts_on="matrix")
def scale_by_shape(consistent_rms: NonNegative | None = None):
    """√max(1, out / in) times an orthogonal matrix [..., in, out], or r √max(in, out) times it.

    With the first the change of a layer's outputs does not depend on its width; with the second coordinates have a root
    mean square of r, whatever the shape.

    Args:
        consistent_rms: r, at least 0; 0.2 is about the size of AdamW's updates, so that its learning rates can be kept.
            None takes the first form.

    Reference: Jordan et al., 2024; Liu et al., "Muon is Scalable for LLM Training", 2025, arXiv:2502.16982, Eq. (4).
    """

    def scaled(u):
        rows, columns = _matrix(u).shape[-2:]
        if consistent_rms is None:
            return math.sqrt(max(1, columns / max(rows, 1))) * u
        return tree.scale(consistent_rms, math.sqrt(max(rows, columns)) * u)

    def update(updates, state, params=None, **extra):
        return jax.tree.map(scaled, updates), state

    return lambda params: optax.EmptyState(), update


@transformation(acts_on="leaf")
def scale_by_neuron_rms(
    b2: Decay = 0.95,
    eps: Positive = 1e-8,
    axes: Literal["matrix", "last_out", "first_in", "first_out"] = "matrix",
    *,
    consistent_rms: NonNegative | None = 0.2,
):
    """O / (√v + ε) with v the mean square of each neuron's weights, as a matrix of a fixed norm.

    After `orthogonalize` all singular directions have one size, but rows of neurons differ in norm; this evens them
    out. A neuron is an output: one column of a matrix [..., in, out]. In a leaf of fewer than two axes each coordinate
    is one.

    Args:
        b2: β, decay of the mean square v, in [0, 1).
        eps: ε, added to the root, above 0.
        axes: which axes of a leaf are in and which are out, as for `as_matrices`.
        consistent_rms: r, the root mean square of the coordinates of each matrix, at least 0; 0.2 is about the size of
            AdamW's updates. None keeps the norm that each matrix of O has, as the authors' code does.

    Reference: Li et al., "NorMuon: Making Muon more efficient and scalable", 2025, arXiv:2510.05491, Algorithm 1.
    """

    def init(params):
        neurons = lambda p: jnp.sum(tree.real_full_like(p, 0), axis=_axes_of(p, axes)[0], keepdims=True)
        return ScaleByNeuronRmsState(jax.tree.map(neurons, params))

    def update(updates, state, params=None, **extra):
        def leaf(o, v):
            inputs, both = _axes_of(o, axes)
            mean = jnp.sum(tree.abs_sq(o), axis=inputs, keepdims=True) * (v.size / max(o.size, 1))
            v = b2 * v + (1 - b2) * mean
            u = o / (tree.safe_sqrt(v) + eps)
            norm = lambda x: tree.safe_sqrt(jnp.sum(tree.abs_sq(x), axis=both, keepdims=True))
            now = norm(u)
            size = math.prod(o.shape[axis] for axis in both)
            wanted = norm(o) if consistent_rms is None else tree.scale(consistent_rms, jnp.full_like(now, size**0.5))
            return u * jnp.where(now > 0, wanted / jnp.where(now > 0, now, 1), 0), v

        updates, nu = tree.map_leaves(leaf, 2, updates, state.nu)
        return updates, ScaleByNeuronRmsState(nu)

    return init, update


def _axes_of(x: Any, axes: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which axes of a leaf are inputs of a neuron, and which make up one matrix, counted from the end."""
    every = tuple(range(-np.ndim(x), 0))
    if np.ndim(x) < 2:
        return (), every
    inputs = {"matrix": (-2,), "last_out": every[:-1], "first_in": every[:1], "first_out": every[1:]}
    return inputs[axes], every[-2:] if axes == "matrix" else every


@transformation(acts_on="leaf")
def as_matrices(inner: GradientTransformation, axes: Literal["matrix", "last_out", "first_in", "first_out"]):
    """Show a rule without a state each leaf as a matrix [in, out].

    Args:
        inner: a rule without a state, such as `orthogonalize`.
        axes: which axes of a leaf are in and which are out.

            - "matrix": [..., in, out]; each matrix of a batch by itself, as in layers that are stacked for a scan.
            - "last_out": [in, ..., out]; the last axis is out, all others in, as in the convolution kernels of Flax.
            - "first_in": [in, out, ...]; as in the query, key and value kernels of Flax's attention.
            - "first_out": [out, in, ...]; as in the weights of PyTorch and Equinox, convolutions and linear layers.

    Raises:
        ValueError: when used, if the inner rule has a state.
    """

    def init(params):
        state = jax.eval_shape(lambda params: inner.init(jax.tree.map(to_matrix, params)), params)
        if jax.tree.leaves(state):
            raise ValueError("as_matrices: the inner rule must have no state; put rules with a state around it")
        return state

    def update(updates, state, params=None, **extra):
        seen = None if params is None else jax.tree.map(to_matrix, params)
        new, state = inner.update(jax.tree.map(to_matrix, updates), state, seen, **extra)
        return jax.tree.map(from_matrix, new, updates), state

    def to_matrix(w):
        if axes == "matrix" or np.ndim(w) < 2:
            return _matrix(w)
        if axes == "last_out":
            return w.reshape(math.prod(w.shape[:-1]), w.shape[-1])
        rows = w.reshape(w.shape[0], math.prod(w.shape[1:]))
        return rows.T if axes == "first_out" else rows

    def from_matrix(u, like):
        return (u.T if axes == "first_out" and like.ndim > 1 else u).reshape(like.shape)

    return init, update
