"""A step for n equations in n unknowns, F(x) = 0, from a linear model: Powell's hybrid of Newton and steepest descent.

    p = -J⁻¹ F                        Newton's step
    g = D⁻¹JᵀF,  c = -(‖g‖/‖JD⁻¹g‖)² g    the least ‖F + Js‖ along the steepest descent of ½‖F‖², in units of D
    s = D⁻¹ (the point where the path 0 -> c -> Dp leaves the ball of radius Δ)       Powell, 1970

D holds the norms of the columns of J, so the units of the unknowns do not matter. All numbers of a `NewtonModel` but
the norm of F are relative to that norm, so neither do the units of F.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.solvers import krylov
from jaxopt_lite.solvers.linear_model import column_norms

__all__ = ["NEAR_ZERO", "NewtonModel", "dense_model", "dogleg_step", "epsilon", "implicit_model", "no_model", "norm"]

FLOOR = 8.0  # residuals below this times ε |J||x| are rounding
NEAR_ZERO = 1e-12  # unknowns below this are judged as if of this size, or none that tends to zero would converge
SOLVED = 0.1  # ‖F + Jp‖ / ‖F‖ up to which p counts as Newton's step


class NewtonModel(NamedTuple):
    """The linear model at a point. Vectors have one element for each unknown or equation, [n]."""

    norm: jax.Array  # ‖F‖
    unit: jax.Array  # F / ‖F‖
    scale: jax.Array  # D
    newton: jax.Array  # D p / ‖F‖
    gradient: jax.Array  # g / ‖F‖
    push_newton: jax.Array  # J p / ‖F‖
    push_gradient: jax.Array  # J D⁻¹ g / ‖F‖
    small: jax.Array  # bool: |pⱼ| <= tol max(|xⱼ|, 1e-12) for all j, or below rounding in every equation
    noise: jax.Array  # bool: |pⱼ| <= 4 ε max(|xⱼ|, 1) for all j
    floor: jax.Array  # bool: |Fᵢ| is rounding for all i
    rough: jax.Array  # bool: ‖F‖ is rounding of the largest terms
    flat: jax.Array  # bool: a stationary point of ‖F‖
    solved: jax.Array  # bool: p is Newton's step
    sizes: jax.Array  # |p|
    finite: jax.Array  # bool: F and J are finite


def no_model(zero: jax.Array, zeros: jax.Array) -> NewtonModel:
    """A model before the first evaluation, from a zero and zeros [n] of its dtype."""
    bools = {name: jnp.array(False) for name in ("small", "noise", "floor", "rough", "flat", "solved", "finite")}
    vectors = set(NewtonModel._fields) - {"norm", *bools}
    return NewtonModel(norm=zero, **bools, **dict.fromkeys(vectors, zeros))


def norm(x: jax.Array) -> jax.Array:
    """‖x‖ without over- or underflow, of the dtype of x; NaN if x is not finite."""
    largest = jnp.max(jnp.abs(x), initial=0.0)
    return largest * tree.safe_sqrt(jnp.sum((x / _nonzero(largest)) ** 2))


def epsilon(*trees: Any) -> float:
    """The largest ε of all leaves; at least that of float32 for narrower ones."""
    dtypes = [tree.real_dtype(tree.compute_dtype(tree.dtype_of(leaf))) for leaf in jax.tree.leaves(trees)]
    return max([float(jnp.finfo(dtype).eps) for dtype in dtypes], default=float(jnp.finfo(jnp.float32).eps))


def dense_model(r: jax.Array, J: jax.Array, x: jax.Array, widest: jax.Array, tol: Any, eps: float) -> NewtonModel:
    """The model from a matrix.

    p minimizes ‖W (F + Jp)‖² + λ²‖Dp‖², where W makes the rows of J D⁻¹ of length 1 and λ is at their rounding, by QR
    of W J D⁻¹ over λ I: the least-norm step where J is singular, and finite always.

    Args:
        r: F(x), [n].
        J: the Jacobian or an approximation, [n, n].
        x: [n].
        widest: the largest norms of the columns so far, [n]; 0 for a column that was always zero.
        tol: relative tolerance for |p|.
        eps: ε of the coarsest leaf.
    """
    n = x.size
    size, u = _unit(r)
    columns = column_norms(J)
    D = _filled(jnp.maximum(widest, columns))
    A = J / D[None]
    ridge = n * jnp.finfo(x.dtype).eps * jnp.eye(n, dtype=x.dtype)
    rows = column_norms(A.T)
    W = 1 / _nonzero(rows)
    Q, R = jnp.linalg.qr(jnp.concatenate([W[:, None] * A, ridge]))
    z = -jax.scipy.linalg.solve_triangular(R, Q[:n].T @ (W * u))
    g = A.T @ u
    p = _finite(size * (z / D))
    terms = jnp.abs(J) @ jnp.abs(x)  # [n], the size of the terms of each equation
    effects = jnp.max(jnp.abs(J) / _nonzero(terms)[:, None], axis=0, initial=0.0)  # of xⱼ on any equation
    sizes = jnp.abs(p)
    small = jnp.all((sizes <= tol * jnp.maximum(jnp.abs(x), NEAR_ZERO)) | (sizes * effects <= 4 * eps))
    floor = jnp.all(jnp.abs(r) <= FLOOR * eps * terms)
    rough = size <= FLOOR * eps * norm(terms)
    flat = jnp.all(jnp.abs(J.T @ u) <= tol * columns)
    rounding = 4 * n * jnp.finfo(x.dtype).eps * rows * norm(z)  # of A z, whose terms may be large and cancel
    flags = dict(small=small, noise=_is_noise(sizes, x, eps), floor=floor, rough=rough, flat=flat)
    return _model(size, u, D, z, g, A @ z, A @ g, sizes, flags, rounding)


def implicit_model(r: jax.Array, push: Callable, x: jax.Array, tol: Any, eps: float, steps: Any) -> NewtonModel:
    """The model from products with J, p by LSMR; D is 1.

    Args:
        r: F(x), [n].
        push: v -> J v.
        x: [n].
        tol: relative tolerance for |p|.
        eps: ε of the coarsest leaf.
        steps: the largest number of steps of LSMR.
    """
    size, u = _unit(r)
    pull = krylov.adjoint(push, x)
    z = krylov.lsmr(push, pull, -u, x, tol=jnp.finfo(x.dtype).eps ** (2 / 3), max_steps=steps)
    g = pull(u)
    pushed, sizes = push(x), jnp.abs(size * z)
    floor = size <= FLOOR * eps * norm(pushed)  # ‖Jx‖ is no more than the size of the terms
    push_g = push(g)
    flat = norm(g) ** 2 <= tol * norm(push_g)  # the angle between F and Jg, which is 0 for orthogonal J
    small, noise = jnp.all(sizes <= tol * jnp.maximum(jnp.abs(x), NEAR_ZERO)), _is_noise(sizes, x, eps)
    flags = dict(small=small, noise=noise, floor=floor, rough=floor, flat=flat)
    return _model(size, u, jnp.ones_like(x), z, g, push(z), push_g, sizes, flags)


def _is_noise(sizes, x, eps):
    return jnp.all(sizes <= 4 * eps * jnp.maximum(jnp.abs(x), 1))


def _model(size, u, D, z, g, push_z, push_g, sizes, flags: dict, rounding: Any = 0.0) -> NewtonModel:
    left = norm(jnp.maximum(jnp.abs(u + push_z) - rounding, 0))
    solved = left <= SOLVED
    push_z = jnp.where(solved & (jnp.max(rounding) > SOLVED), -u, push_z)
    flags |= dict(small=flags["small"] & solved, noise=flags["noise"] & solved, flat=flags["flat"] & ~solved)
    return NewtonModel(size, u, D, z, g, push_z, push_g, **flags, solved=solved, sizes=sizes, finite=jnp.isfinite(left))


def dogleg_step(model: NewtonModel, radius: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The step within the radius.

    Args:
        model: at the point.
        radius: Δ, for ‖D s‖.

    Returns:
        s [n]; ‖D s‖; the share of ‖F‖² that the model expects to vanish, in [0, 1]; and whether s is Newton's step.
    """
    z, g = model.newton, model.gradient
    size, norm_z, norm_g = model.norm, norm(z), norm(g)
    delta = radius / _nonzero(size)
    t = (norm_g / _nonzero(norm(model.push_gradient))) ** 2
    t = jnp.where(t * norm_g <= delta, t, delta / _nonzero(norm_g))  # the Cauchy point, or the ball's edge before it
    full = norm_z <= delta
    # ‖c + τ (z - c)‖ = δ
    d = z + t * g
    a, b, e = jnp.sum(d * d), -t * jnp.sum(g * d), jnp.maximum(delta**2 - (t * norm_g) ** 2, 0)
    root = tree.safe_sqrt(jnp.maximum(b * b + a * e, 0))
    tau = jnp.where(b > 0, e / _nonzero(b + root), (root - b) / _nonzero(a))
    tau = jnp.where(full, 1, jnp.clip(_finite(tau), 0, 1))
    share = jnp.where(full, 0, t * (1 - tau))
    step = tau * z - share * g
    push = tau * model.push_newton - share * model.push_gradient
    expected = -jnp.sum((2 * model.unit + push) * push)
    return size * (step / model.scale), size * norm(step), expected, full & model.solved


def _filled(scale):
    """The scale, with the largest in the place of zeros, and ones if all are zero."""
    return jnp.where(scale > 0, scale, _nonzero(jnp.max(scale, initial=0.0)))


def _unit(r):
    size = norm(r)
    return size, r / _nonzero(size)


def _nonzero(x):
    return jnp.where(x == 0, 1, x)


def _finite(x):
    return jnp.where(jnp.isfinite(x), x, 0)
