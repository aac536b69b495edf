"""Levenberg-Marquardt: steps that minimize the linear model of the residuals within a trust region.

p = -(JᵀJ + α D²)⁻¹ Jᵀr, with α >= 0 such that |D p| <= Δ        Levenberg, 1944; Marquardt, 1963; Moré, 1978
"""

import jax.numpy as jnp

from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.method import solver
from jaxopt_lite.core.numbers import Positive
from jaxopt_lite.solvers.linear_model import DENSE, steps
from jaxopt_lite.solvers.product_model import PRODUCTS, product_steps
from jaxopt_lite.solvers.squares import squares_method

__all__ = ["levenberg_marquardt"]


@solver(solves="least_squares", bounds=True)
def levenberg_marquardt(first_radius: Positive = 1.0, *, linear_steps: int | None = None):
    """Levenberg-Marquardt with Moré's scaling and trust region.

    Dⱼ is the largest norm of column j of the Jacobian, fading by a fifth a step, so the units of parameters do not
    matter. Δ shrinks where the cost decreases by less than a quarter of what the model predicts, and grows above three
    quarters. The linear problems are solved by the QR factorization of J, which may have fewer rows than columns. Where
    residuals are large at the solution, the model learns their curvature from changes of the gradient, and a step is by
    whichever model, with or without it, has foretold the last change better.

    Args:
        first_radius: Δ at the start, above 0, in units of |D x| there (or 1, where x = 0).
        linear_steps: None for a dense Jacobian and at most some hundred parameters. An int of at least 1 is for more:
            the model is that of `product_model`, by products with J and Jᵀ only, with at most so many steps of LSMR for
            an evaluation of the residuals. It has no curvature of the residuals, and leaves no covariance.

    Raises:
        ValueError: if linear_steps is anything else.

    Reference: Moré, "The Levenberg-Marquardt Algorithm: Implementation and Theory", 1978, Algorithm 7.1, as in LMDER of
        MINPACK; Dennis, Gay & Welsch, "An Adaptive Nonlinear Least-Squares Algorithm" (NL2SOL), 1981. The tests of
        convergence are those of `squares`. With D that never fades two of 54 solves of NIST's regressions run out of
        1000 steps; without the curvature the problem of Brown & Dennis does.
    """
    check_int("levenberg_marquardt", "linear_steps", linear_steps, none=True)

    def resize(trial):
        t = trial
        # The minimum of the parabola through both values and the slope at the old point, within [0.1, 0.5].
        inside = 0.5 * t.slope / jnp.where(t.gain < 0, t.slope + 0.5 * t.gain, 1)
        # Near a minimum at which J is singular the Gauss-Newton step is long, and promises next to nothing.
        least = jnp.where(-t.slope <= jnp.finfo(t.slope.dtype).eps ** (1 / 3), 1e-3, 0.1)
        factor = jnp.where(t.gain < 0, jnp.clip(inside, least, 0.5), 0.5)
        factor = jnp.where((t.gain > -99) & jnp.isfinite(factor), factor, least)  # 99: a norm ten times as large
        shrunk = factor * jnp.minimum(t.radius, 10 * t.length)
        grows = (t.ratio >= 0.75) | (t.whole & (t.ratio > 0.25))
        later = jnp.where(t.ratio > 0.25, jnp.where(grows, 2 * t.length, t.radius), shrunk)
        return jnp.where(t.first, first_radius * jnp.where(t.size > 0, t.size, 1), later)

    if linear_steps is None:
        return squares_method(steps, resize, linear=DENSE, curved=True)
    return squares_method(
        lambda model, free, radius, rows: product_steps(model, free, radius, linear_steps), resize, linear=PRODUCTS
    )
