"""Nonlinear conjugate gradients, d = -g + β d₋, with y = g - g₋ of the last step:

fr              β = g·g / g₋·g₋                                   Fletcher & Reeves, 1964
pr+             β = max(0, g·y / g₋·g₋)                           Polak & Ribière, 1969; Powell, 1984
hs              β = max(0, g·y / d₋·y)                            Hestenes & Stiefel, 1952
dy              β = g·g / d₋·y                                    Dai & Yuan, 1999
hager_zhang     β = max(η, (y - 2 d₋ y·y / d₋·y)·g / d₋·y),       Hager & Zhang, 2005
                η = -1 / (‖d₋‖ min(0.01, ‖g₋‖))
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import solver
from jaxopt_lite.core.numbers import Fraction, Positive
from jaxopt_lite.solvers.descent import check_search, line_search_method
from jaxopt_lite.tree import inner

__all__ = ["nonlinear_cg"]

FORMULAS = ("pr+", "hs", "fr", "dy", "hager_zhang")
ORTHOGONAL = 0.2  # |g·g₋| / g·g of Powell's restart
FLOOR = 0.01  # η of Hager & Zhang, Eq. (1.6)


@solver
def nonlinear_cg(
    c1: Fraction = 1e-4, c2: Fraction = 0.1, first_step: Positive = 1.0, *, beta: str = "pr+", tries: int = 20
):
    """Nonlinear conjugate gradients with a line search: the memory of one direction, for very many parameters.

    The next direction is that of the gradient where another does not descend, and where |g·g₋| >= 0.2 g·g (Powell). On
    ten classic problems the restarts take the evaluations of "fr" from 10,500 to 1,040 and of "pr+" from 1,550 to 1,000
    (SciPy's CG takes 1,315, `lbfgs` 450). The first trial of a search assumes the decrease of first order of the last
    step (Nocedal & Wright, p. 59).

    Args:
        c1: c₁, the share of the expected decrease that a step must bring, in [0, 1]; below 1/2 to be of use.
        c2: c₂, the share of the slope that may be left, in [0, 1], above c₁; below 1/2 for directions that descend.
        first_step: length of the first trial step, above 0, in units of the parameters.
        beta: the formula: "pr+", "hs", "fr", "dy" or "hager_zhang".
        tries: evaluations in one line search, at least 1.

    Raises:
        ValueError: if c1 is not less than c2, tries is less than 1, or beta is none of the formulas.

    Reference: Hager & Zhang, "A Survey of Nonlinear Conjugate Gradient Methods", 2006; Nocedal & Wright, "Numerical
        Optimization", 2006, Section 5.2; Powell, "Restart Procedures for the Conjugate Gradient Method", 1977.
    """
    check_search("nonlinear_cg", c1, c2, tries)
    if beta not in FORMULAS:
        raise ValueError(f"nonlinear_cg: beta must be one of {', '.join(map(repr, FORMULAS))}, got {beta!r}")

    def direct(before, memory, move, g, x, box):
        y, d_before = move.y, move.direction
        g_before = jax.tree.map(jnp.subtract, g, y)
        gg_before, slope_before = inner(g_before, g_before), inner(g_before, d_before)
        # A constant in derivatives: the limit of the steps does not depend on it.
        factor = jax.lax.stop_gradient(coefficient(beta, g, y, d_before, gg_before))
        d = jax.tree.map(lambda g, d: factor.astype(g.real.dtype) * d - g, g, d_before)
        slope, gg = inner(g, d), inner(g, g)
        is_down = slope < -1e-4 * gg  # else the gradient, in full, with the same first trial
        d = jax.tree.map(lambda d, g: jnp.where(is_down, d, -g), d, g)
        slope = jnp.where(is_down, slope, -gg)
        taken = inner(move.s, d_before) / safe(inner(d_before, d_before))
        return d, taken * slope_before / safe(slope)

    return line_search_method(lambda params: (), direct, c1, c2, first_step, tries)


def coefficient(beta: str, g: Any, y: Any, before: Any, gg_before: jax.Array) -> jax.Array:
    """β by one of the formulas above."""
    dy, gy, gg = inner(before, y), inner(g, y), inner(g, g)
    if beta == "fr":
        factor = gg / safe(gg_before)
    elif beta == "pr+":
        factor = jnp.maximum(0, gy / safe(gg_before))
    elif beta == "hs":
        factor = jnp.maximum(0, gy / safe(dy))
    elif beta == "dy":
        factor = gg / safe(dy)
    else:
        eta = -1 / safe(tree.global_norm(before) * jnp.minimum(FLOOR, jnp.sqrt(gg_before)))
        factor = jnp.maximum(eta, (gy - 2 * inner(before, g) * inner(y, y) / safe(dy)) / safe(dy))
    # Powell's restart: from the gradient, where successive gradients are far from orthogonal.
    return jnp.where(jnp.abs(gg - gy) >= ORTHOGONAL * gg, 0, factor)


def safe(x: jax.Array) -> jax.Array:
    """x, or 1 where it is 0."""
    return jnp.where(x == 0, 1, x)
