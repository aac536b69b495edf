"""Linear systems of trees, solved by products with the matrix only.

    cg      A x = b, A symmetric and positive semi-definite      Hestenes & Stiefel, 1952
    lsmr    min ‖A x - b‖² + λ²‖x‖²                               Fong & Saunders, 2011, arXiv:1006.0758

Both are loops that may be compiled and vmapped (each lane ends by itself), start at x = 0, and scale b to length 1, so
that neither large nor small numbers overflow. Inner products are real, Re(x̄ y), also for complex leaves. For b = 0 the
result is 0; of a singular system that has solutions it is the one of least norm. Neither has a reverse mode of its own:
call them inside `jax.lax.custom_linear_solve`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.tree import inner

__all__ = ["adjoint", "along", "cg", "lsmr"]

PATIENCE = 50  # steps of `cg` without a smaller residual after which it ends


def along(x: Any, t: jax.Array, d: Any) -> Any:
    """x + t d, in the dtypes of x."""
    return jax.tree.map(lambda x, d: x + t.astype(x.real.dtype) * d, x, d)


def adjoint(push: Callable, like: Any) -> Callable:
    """The adjoint of a linear function of trees: ⟨u, push(x)⟩ = ⟨adjoint(u), x⟩ with the inner product above.

    `jax.linear_transpose` alone does not conjugate, so for complex leaves it is another function.

    Args:
        push: a linear function.
        like: a tree like its argument.
    """
    pull = jax.linear_transpose(push, like)
    return lambda u: _conj(pull(_conj(u))[0])


def cg(operator: Callable, b: Any, *, tol: Any, max_steps: Any, preconditioner: Callable | None = None) -> Any:
    """Solve A x = b by conjugate gradients, for symmetric A without negative eigenvalues.

    It ends when ‖A x - b‖ <= tol ‖b‖, after `max_steps` products with A, along a direction of no curvature, or when the
    residual has not shrunk for 50 steps. The x with the least residual is returned.

    Args:
        operator: x -> A x, on trees like b.
        b: the right side, a tree of floating or complex arrays.
        tol: relative to ‖b‖, a number; below a few ε, only the other tests end it.
        max_steps: an int, may be traced.
        preconditioner: r -> M⁻¹ r, near A⁻¹, symmetric and positive definite.

    Returns:
        x, a tree like b.

    Reference: Hestenes & Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems", 1952; Nocedal & Wright,
        "Numerical Optimization", 2006, Algorithm 5.3.
    """
    b, norm_b = _unit(b)
    precondition = preconditioner or (lambda r: r)
    apply = lambda f, p: tree.cast_like(f(p), p)
    eps = jnp.finfo(norm_b.dtype).eps
    x, z = jax.tree.map(jnp.zeros_like, b), apply(precondition, b)
    one, rz, count = jnp.ones_like(norm_b), inner(b, z), jnp.zeros([], jnp.int32)

    def is_running(carry):
        *_, rz, _, least, _, idle, k = carry
        return (least > tol) & (rz > 0) & jnp.isfinite(rz) & (idle < PATIENCE) & (k < max_steps)

    def step(carry):
        x, r, p, rz, best, least, scale, idle, k = carry
        product = apply(operator, p)
        curvature, norm_p = inner(p, product), tree.global_norm(p).astype(rz.dtype)
        scale = jnp.maximum(scale, tree.global_norm(product).astype(rz.dtype) / norm_p)  # of A
        flat = ~(jnp.abs(curvature) > eps * scale * norm_p * norm_p)  # also where it is NaN
        alpha = rz / jnp.where(flat, 1, curvature)
        x, r = tree.where(flat, (x, r), (along(x, alpha, p), along(r, -alpha, product)))
        z = apply(precondition, r)
        rz_new = jnp.where(flat, 0, inner(r, z))
        norm_r = tree.global_norm(r).astype(rz.dtype)
        better = norm_r < least
        best, least = tree.where(better, (x, norm_r), (best, least))
        p = along(z, rz_new / rz, p)
        return x, r, p, rz_new, best, least, scale, jnp.where(better, 0, idle + 1), k + 1

    carry = (x, b, z, rz, x, one, jnp.zeros_like(norm_b), count, count)
    return _times(norm_b, jax.lax.while_loop(is_running, step, carry)[4])


def lsmr(push: Callable, pull: Callable, b: Any, like: Any, *, damp: Any = 0.0, tol: Any, max_steps: Any) -> Any:
    """Minimize ‖A x - b‖² + λ²‖x‖² by LSMR: it is MINRES on the normal equations, without forming them.

    It ends when ‖r‖ <= tol (‖A‖‖x‖ + ‖b‖), the system has a solution, or ‖Aᵀr‖ <= tol ‖A‖‖r‖, it has none; where A is
    singular to working precision; or after `max_steps`.

    Args:
        push: x -> A x, from trees like `like` to trees like b.
        pull: u -> Aᵀu, the adjoint of `push`, see `adjoint`.
        b: the right side, a tree.
        like: a tree of the shapes and dtypes of x.
        damp: λ >= 0, may be traced.
        tol: relative tolerance; less than ε counts as ε.
        max_steps: an int, may be traced; each step is one push and one pull.

    Returns:
        x, a tree like `like`; of several minimizers the one of least norm.

    Reference: Fong & Saunders, "LSMR: An Iterative Algorithm for Sparse Least-Squares Problems", 2011,
        arXiv:1006.0758, Algorithm 1 and Section 5.
    """
    u, norm_b = _unit(b)
    zeros = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), tree.dtype_of(x)), like)
    forth, back = (lambda v: tree.cast_like(push(v), u)), (lambda u: tree.cast_like(pull(u), zeros))
    dtype = jnp.result_type(norm_b, tree.global_norm(zeros))
    real = lambda x: jnp.asarray(x, dtype)
    norm_b, damp, eps = real(norm_b), real(damp), jnp.finfo(dtype).eps
    tol = jnp.maximum(real(tol), eps)
    v, alpha = _unit(back(u), dtype)
    zero, one = jnp.zeros_like(norm_b), jnp.ones_like(norm_b)

    first = {
        "x": zeros, "u": u, "v": v, "h": v, "hbar": zeros, "k": jnp.zeros([], jnp.int32),
        "done": (norm_b == 0) | ~(alpha > 0),
        "alpha": alpha, "alphabar": alpha, "rho": one, "rhobar": one, "cbar": one, "sbar": zero, "zeta": zero,
        "zetabar": alpha,
        # For the norms of r, of A and of its inverse.
        "betadd": one, "betad": zero, "rhod": one, "tautilde": zero, "thetatilde": zero, "d": zero, "norm_a": alpha,
        "largest": zero, "least": real(jnp.inf),
    }  # fmt: skip

    def step(s):
        # Golub-Kahan bidiagonalization: β u = A v - α u,  α v = Aᵀu - β v
        u, beta = _unit(along(forth(s["v"]), -s["alpha"], s["u"]), dtype)
        v, alpha = _unit(along(back(u), -beta, s["v"]), dtype)
        # Rotations
        chat, shat, alphahat = _rotation(s["alphabar"], damp)
        c, sine, rho = _rotation(alphahat, beta)
        thetanew, alphabar = sine * alpha, c * alpha
        thetabar = s["sbar"] * rho
        cbar, sbar, rhobar = _rotation(s["cbar"] * rho, thetanew)
        zeta, zetabar = cbar * s["zetabar"], -sbar * s["zetabar"]
        # h̄, x, h
        hbar = along(s["h"], -_ratio(thetabar, s["rho"]) * _ratio(rho, s["rhobar"]), s["hbar"])
        x = along(s["x"], _ratio(_ratio(zeta, rho), rhobar), hbar)
        h = along(v, -_ratio(thetanew, rho), s["h"])
        # ‖r‖: Section 5.1
        betaacute, betacheck = chat * s["betadd"], -shat * s["betadd"]
        betahat, betadd = c * betaacute, -sine * betaacute
        ctilde, stilde, rhotilde = _rotation(s["rhod"], thetabar)
        thetatilde, rhod = stilde * rhobar, ctilde * rhobar
        betad = -stilde * s["betad"] + ctilde * betahat
        tautilde = _ratio(s["zeta"] - s["thetatilde"] * s["tautilde"], rhotilde)
        taud = _ratio(zeta - thetatilde * tautilde, rhod)
        d = s["d"] + betacheck**2
        norm_r = jnp.sqrt(d + (betad - taud) ** 2 + betadd**2)
        # ‖A‖ and cond(A): Sections 5.3 and 5.4
        norm_a = jnp.hypot(s["norm_a"], beta)
        largest = jnp.maximum(s["largest"], s["rhobar"] * (s["k"] > 0))
        least = jnp.where(s["k"] > 0, jnp.minimum(s["least"], s["rhobar"]), s["least"])
        singular = jnp.minimum(least, jnp.abs(s["cbar"] * rho)) <= eps * jnp.maximum(largest, jnp.abs(s["cbar"] * rho))
        solved = norm_r <= tol * (norm_a * tree.global_norm(x).astype(dtype) + 1)
        least_squares = jnp.abs(zetabar) <= tol * norm_a * norm_r
        done = solved | least_squares | singular | ~jnp.isfinite(zetabar)
        return {
            "x": x, "u": u, "v": v, "h": h, "hbar": hbar, "k": s["k"] + 1, "done": done,
            "alpha": alpha, "alphabar": alphabar, "rho": rho, "rhobar": rhobar, "cbar": cbar, "sbar": sbar,
            "zeta": zeta, "zetabar": zetabar,
            "betadd": betadd, "betad": betad, "rhod": rhod, "tautilde": tautilde, "thetatilde": thetatilde, "d": d,
            "norm_a": jnp.hypot(norm_a, alpha), "largest": largest, "least": least,
        }  # fmt: skip

    last = jax.lax.while_loop(lambda s: ~s["done"] & (s["k"] < max_steps), step, first)
    return _times(norm_b, last["x"])


def _unit(x, dtype=None):
    """x / ‖x‖ and ‖x‖; zeros stay zeros. No leaf is weakly typed."""
    x = jax.tree.map(lambda w: tree.cast(w, tree.dtype_of(w)), x)
    norm = tree.global_norm(x)
    norm = norm if dtype is None else norm.astype(dtype)
    safe = jnp.where(norm == 0, 1, norm)
    return jax.tree.map(lambda w: w / safe.astype(w.real.dtype), x), norm


def _times(t, x):
    return jax.tree.map(lambda w: t.astype(w.real.dtype) * w, x)


def _conj(x):
    return jax.tree.map(lambda w: jnp.conj(w) if jnp.iscomplexobj(w) else w, x)


def _ratio(a, b):
    """a / b, and 0 for b = 0."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def _rotation(a, b):
    """c, s and r with c a + s b = r and c b - s a = 0."""
    r = jnp.hypot(a, b)
    return jnp.where(r == 0, 1, _ratio(a, r)), _ratio(b, r), r
