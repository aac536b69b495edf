"""Quasi-Newton steps within bounds l <= x <= u.

    L-BFGS-B    d minimizes the model g·d + ½ d·B d over the box, with B from the last m pairs (s, y)

The pairs are those of L-BFGS, and B = θ I - W M Wᵀ is their compact form (Byrd, Nocedal & Schnabel, 1994). Byrd, Lu,
Nocedal & Zhu, 1995, minimize the model along the projected gradient, then over the parameters that are free there;
here it is minimized over the whole box (Schmidt et al., 2009), by guessing which bounds are met and correcting the
guess: that needs no evaluation of f, and finds the bounds in fewer steps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.execution import after
from jaxopt_lite.core.method import solver
from jaxopt_lite.core.numbers import Fraction, Positive
from jaxopt_lite.core.vectors import from_vector, to_vector
from jaxopt_lite.solvers.descent import Move, check_search, line_search_method

__all__ = ["lbfgsb"]

PASSES = 20  # corrections of the guess at most


class Pairs(NamedTuple):
    """The last m pairs as vectors, the newest last, each divided by √(s·y); zeros for one that is not there yet."""

    s: jax.Array  # [m, n]
    y: jax.Array  # [m, n]
    theta: jax.Array  # y·y / s·y of the newest pair, a scalar


class Model(NamedTuple):
    """B = θ I - W M Wᵀ."""

    theta: jax.Array
    w: jax.Array  # [n, 2 m], (Yᵀ, θ Sᵀ)
    inverse: jax.Array  # [2 m, 2 m], M⁻¹


@solver(bounds=True)
def lbfgsb(
    c1: Fraction = 1e-4,
    c2: Fraction = 0.9,
    first_step: Positive = 1.0,
    *,
    memory: int = 10,
    tries: int = 20,
):
    """L-BFGS within bounds: quasi-Newton steps that end on the bounds exactly, with a line search along the box.

    f is never evaluated outside the bounds, and the start is moved into them. Equal bounds hold a parameter. The test
    of convergence is on the gradient without the parameters that stand on a bound and would leave the box.

    Args:
        c1: c₁, the share of the expected decrease that a step must bring, in [0, 1]; below 1/2 to be of use.
        c2: c₂, the share of the slope that may be left, in [0, 1], above c₁.
        first_step: length of the first trial step, above 0, in units of the parameters; later ones begin at 1.
        memory: m, the number of pairs kept, at least 1; the state is 2 m times as large as the parameters.
        tries: evaluations in one line search, at least 1.

    Raises:
        ValueError: if c1 is not less than c2, or memory or tries is less than 1.
        TypeError: when it is used, for bounds of complex parameters.

    Reference: Byrd, Lu, Nocedal & Zhu, "A Limited Memory Algorithm for Bound Constrained Optimization", 1995; Schmidt,
        van den Berg, Friedlander & Murphy, "Optimizing Costly Functions with Simple Constraints: A Limited-Memory
        Projected Quasi-Newton Algorithm", 2009.
    """
    check_search("lbfgsb", c1, c2, tries)
    if not isinstance(memory, int) or memory < 1:
        raise ValueError(f"lbfgsb: memory must be an int of at least 1, got {memory!r}")

    def empty(params):
        x = to_vector(params)
        zeros = jnp.zeros((memory, x.size), x.dtype)
        return Pairs(zeros, zeros, jnp.ones([], x.dtype))

    def forget(pairs, when):
        return Pairs(jnp.where(when, 0, pairs.s), jnp.where(when, 0, pairs.y), jnp.where(when, 1, pairs.theta))

    def direct(before, pairs, move, g, x, box):
        x, low, high = to_vector(x), to_vector(box.lower), to_vector(box.upper)
        d = minimize_model(_compact(pairs), to_vector(g), low - x, high - x)
        return from_vector(d, g), jnp.ones([], d.dtype)

    return line_search_method(
        *(empty, direct, c1, c2, first_step, tries), remember=_remember, forget=forget, bounded=True
    )


def _remember(pairs: Pairs, move: Move) -> Pairs:
    """The pairs with a new one, if it is good."""
    sy = jnp.where(move.is_good, move.sy, 1)
    shift = lambda old, new: jnp.concatenate([old[1:], (to_vector(new) / jnp.sqrt(sy))[None].astype(old.dtype)])
    new = Pairs(shift(pairs.s, move.s), shift(pairs.y, move.y), (move.yy / sy).astype(pairs.theta.dtype))
    return tree.where(move.is_good, new, pairs)


def _compact(pairs: Pairs) -> Model:
    """The compact form of B, Byrd, Nocedal & Schnabel, Eq. (2.17); s·y = 1 for each pair by their scaling."""
    s, y, theta = pairs
    sy = s @ y.T
    is_there = jnp.any(s != 0, axis=1)
    lower = jnp.tril(sy, -1)
    ss = theta * (s @ s.T) + jnp.diag(jnp.where(is_there, 0, 1).astype(s.dtype))
    inverse = jnp.block([[-jnp.eye(len(s), dtype=s.dtype), lower.T], [lower, ss]])
    return Model(theta, jnp.concatenate([y.T, theta * s.T], axis=1), inverse)


def times(model: Model, v: jax.Array) -> jax.Array:
    """B v."""
    return model.theta * v - model.w @ jnp.linalg.solve(model.inverse, model.w.T @ v)


def solve_free(model: Model, r: jax.Array, free: jax.Array, before: Any = ()) -> jax.Array:
    """The p, zero where not free, with (B p)_free = r_free: by Sherman, Morrison & Woodbury.

    Its decomposition runs after the arrays `before`: batches of decompositions that run side by side wait for each
    other for ever on a CPU.
    """
    theta, w, inverse = model
    w, r = jnp.where(free[:, None], w, 0), jnp.where(free, r, 0)
    matrix = after(before, inverse - w.T @ w / theta)
    return r / theta + w @ jnp.linalg.solve(matrix, w.T @ r) / theta**2


@jax.custom_jvp
def minimize_model(model: Model, g: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """The d in low <= d <= high that minimizes g·d + ½ d·B d; the best of PASSES guesses if none of them is exact.

    A guess says which numbers are held at their low or high bound. The others are solved for; those that leave the box
    are held, and those that are held against their multiplier λ = (g + B d) are set free.
    """

    def correct(loop):
        at_low, at_high, _, best, least, passes = loop
        held = jnp.where(at_low, low, jnp.where(at_high, high, 0))
        free = ~(at_low | at_high)
        slope = g + times(model, held)
        d = held + solve_free(model, -slope, free, before=slope)
        multiplier = g + times(model, d)
        inside = jnp.clip(d, low, high)
        value = g @ inside + inside @ times(model, inside) / 2
        best, least = jnp.where(value < least, inside, best), jnp.minimum(value, least)
        new_low = jnp.where(free, d < low, at_low & ((multiplier > 0) | (low == high)))
        new_high = jnp.where(free, d > high, at_high & (multiplier < 0) & (low != high))
        changed = jnp.any(new_low != at_low) | jnp.any(new_high != at_high)
        return new_low, new_high, changed, best, least, passes + 1

    at_low = ((low >= 0) & (g > 0)) | (low == high)
    at_high = (high <= 0) & (g < 0) & ~at_low
    start = (at_low, at_high, jnp.array(True), jnp.zeros_like(g), jnp.zeros([], g.dtype), jnp.zeros([], jnp.int32))
    return jax.lax.while_loop(lambda loop: loop[2] & (loop[5] < PASSES), correct, start)[3]


@minimize_model.defjvp
def _(primals, tangents):
    """The model is constant; numbers on a bound move with it, and the others by (B p)_free = -(g + B held)_free."""
    model, _, low, high = primals
    _, g_dot, low_dot, high_dot = tangents
    d = minimize_model(*primals)
    held = jnp.where(d <= low, low_dot, jnp.where(d >= high, high_dot, 0))
    free = (low < d) & (d < high)
    return d, held + solve_free(model, -(g_dot + times(model, held)), free)
