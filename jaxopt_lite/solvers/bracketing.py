"""Methods for one equation f(x) = 0 in one unknown, between two ends where f has opposite signs.

    bisection    x = (a + b) / 2
    Brent        x by inverse quadratic interpolation or the secant, or the middle       Brent, 1973, Chapter 4

The ends are `objective.lower` and `objective.upper`, in either order; they may be traced, and every lane of a vmap has
its own. The first two evaluations are at the ends, each later step makes one. The start is not evaluated: only its
shape and dtype count.

The bracket is narrow enough at 2 ε |x| + tol |x| (half of it on either side of x), with a floor of ε² times its first
width for a root at zero. Then f must have shrunk with the bracket: at a jump or a pole it has not, and the status is
STALLED. Returned is the better end of the last bracket.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Info, Objective, Status, solver
from jaxopt_lite.core.vectors import from_vector, to_vector

__all__ = ["BracketState", "bisection", "brent"]

NOISE = 32.0  # a change of f below this times ε times the values at the ends is rounding


class Point(NamedTuple):
    """An unknown and what the objective returned there."""

    x: jax.Array
    f: jax.Array
    residuals: Any
    aux: Any


class BracketState(NamedTuple):
    """The state: a root lies between b, the better end, and c, the other one."""

    a: jax.Array  # the end b had before
    fa: jax.Array
    b: Point
    c: Point
    step: jax.Array  # d, the last step
    before: jax.Array  # e, the step before that
    width: jax.Array  # |upper - lower|
    size: jax.Array  # |f(lower)| + |f(upper)|
    halfway: jax.Array  # |f(b) - f(c)| when the bracket was last wide: the geometric mean of |b| and its last width
    count: jax.Array  # int32, evaluations


def bracket_method(who: str, move: Callable) -> tuple:
    """The pair (init, step); `move`: (a, b, c pairs of x and f, d, e, least step) -> (d, e), d the next step from b."""

    def init(objective: Objective, params: Any) -> BracketState:
        residuals, aux = jax.eval_shape(objective.residual, params)
        r, x = jax.eval_shape(to_vector, residuals), jax.eval_shape(to_vector, params)
        if x.size != 1 or r.size != 1:
            raise ValueError(
                f"{who}: one real equation in one real unknown is needed, got {r.size} in {x.size} (complex ones count "
                "twice); use newton for systems, and vmap for many equations at once"
            )
        if objective.lower is None or objective.upper is None:
            raise ValueError(f"{who}: both ends of the bracket are needed, lower and upper")
        fill = lambda like: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), like)
        x, f = jnp.zeros([], x.dtype), jnp.zeros([], r.dtype)
        point = Point(x, f, fill(residuals), fill(aux))
        return BracketState(x, f, point, point, x, x, x, f, f, jnp.zeros([], jnp.int32))

    def step(objective: Objective, params: Any, state: BracketState) -> tuple[Any, BracketState, Info]:
        dtype = state.b.x.dtype
        dtypes = [tree.real_dtype(tree.dtype_of(leaf)) for leaf in jax.tree.leaves(params)]
        eps = float(jnp.finfo(tree.compute_dtype(dtypes[0])).eps)
        tol = jnp.asarray(0 if objective.tol is None else objective.tol, dtype)
        ends = lambda given: jnp.reshape(to_vector(jax.tree.map(jnp.asarray, given)), ()).astype(dtype)
        lower, upper = ends(objective.lower), ends(objective.upper)
        first, second = state.count == 0, state.count == 1

        x = jnp.where(first, lower, jnp.where(second, upper, state.b.x + state.step))
        trial = from_vector(x[None], params)
        x = jnp.reshape(to_vector(trial), ()).astype(dtype)
        residuals, aux = objective.residual(trial)
        f = jnp.reshape(to_vector(residuals), ())
        here = Point(x, f, residuals, aux)

        # The new end b; c is the end across the root: the old b, or still c.
        across = jnp.sign(f) != jnp.sign(state.b.f)
        a, fa = jnp.where(first, x, state.b.x), jnp.where(first, f, state.b.f)
        c = tree.where(first, here, tree.where(across, state.b, state.c))
        started = first | second | across
        b, d, e = here, jnp.where(started, x - a, state.step), jnp.where(started, x - a, state.before)
        swap = jnp.abs(c.f) < jnp.abs(b.f)
        a, fa = jnp.where(swap, b.x, a), jnp.where(swap, b.f, fa)
        b, c = tree.where(swap, (c, b), (b, c))

        width = jnp.where(second, jnp.abs(upper - lower), state.width)
        size = jnp.where(second, jnp.abs(b.f) + jnp.abs(c.f), state.size)
        least = eps * jnp.abs(b.x) + 0.5 * tol * jnp.abs(b.x) + eps * eps * width
        gap, jump = jnp.abs(c.x - b.x), jnp.abs(c.f - b.f)
        wide = gap > jnp.sqrt(2 * least) * jnp.sqrt(jnp.minimum(width, jnp.abs(b.x) + eps * width))
        halfway = jnp.where(second | wide, jump, state.halfway)
        d, e = move((a, fa), (b.x, b.f), (c.x, c.f), d, e, least)

        middle = b.x + (c.x - b.x) / 2
        narrow = (gap <= 2 * least) | (middle == b.x) | (middle == c.x)
        continuous = second | (jump < 0.5 * halfway) | (jump <= NOISE * eps * size)
        finite = jnp.isfinite(x) & ~jnp.isnan(f)
        crosses = jnp.sign(b.f) * jnp.sign(c.f) < 0
        status = jnp.select(
            [b.f == 0, ~finite & (first | second), first, ~finite, ~crosses, narrow & continuous, narrow],
            [
                *(Status.CONVERGED_GRADIENT, Status.NON_FINITE, Status.RUNNING, Status.NON_FINITE, Status.NO_BRACKET),
                *(Status.CONVERGED_STEP, Status.STALLED),
            ],
            Status.RUNNING,
        ).astype(jnp.int32)
        # Where f is NaN, the point before it is kept.
        b = tree.where(jnp.isnan(f) & ~first, state.b, b)

        new_params = from_vector(b.x[None], params)
        count = jnp.ones([], jnp.int32)
        new_state = BracketState(a, fa, b, c, d.astype(dtype), e.astype(dtype), width, size, halfway, state.count + 1)
        updates = jax.tree.map(jnp.subtract, new_params, params)
        return new_params, new_state, Info(objective.cost(b.residuals), b.aux, b.residuals, updates, status, count)

    return init, step


@solver(solves="bracket")
def bisection():
    """Bisection: each point is the middle of the bracket, one bit of the root for each evaluation of f.

    Raises:
        ValueError: at the start of a solve, unless it is one equation in one unknown with both ends given.

    Reference: Brent, "Algorithms for Minimization without Derivatives", 1973, Chapter 4.
    """

    def move(a, b, c, d, e, least):
        half = c[0] / 2 - b[0] / 2
        return half, half

    return bracket_method("bisection", move)


@solver(solves="bracket")
def brent():
    """Brent's method: interpolation where it shrinks the bracket fast enough, bisection where it does not.

    Raises:
        ValueError: at the start of a solve, unless it is one equation in one unknown with both ends given.

    Reference: Brent, "Algorithms for Minimization without Derivatives", 1973, Chapter 4, procedure zero.
    """

    def move(a, b, c, d, e, least):
        (a, fa), (b, fb), (c, fc) = a, b, c
        half = c / 2 - b / 2
        safe = lambda x: jnp.where(x == 0, 1, x)
        s = fb / safe(fa)
        linear = a == c
        q, r = fa / safe(fc), fb / safe(fc)
        p = jnp.where(linear, 2 * half * s, s * (2 * half * q * (q - r) - (b - a) * (r - 1)))
        q = jnp.where(linear, 1 - s, (q - 1) * (r - 1) * (s - 1))
        q, p = jnp.where(p > 0, -q, q), jnp.abs(p)
        good = (
            (2 * p < jnp.minimum(3 * half * q - jnp.abs(least * q), jnp.abs(e * q))) & jnp.isfinite(p) & jnp.isfinite(q)
        )
        good &= (jnp.abs(e) >= least) & (jnp.abs(fa) > jnp.abs(fb)) & (q != 0)
        e = jnp.where(good, d, half)
        d = jnp.where(good, p / safe(q), half)
        return jnp.where(jnp.abs(d) > least, d, jnp.sign(half) * least), e

    return bracket_method("brent", move)
