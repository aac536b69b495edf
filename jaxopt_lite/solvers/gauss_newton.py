"""Gauss-Newton: steps that minimize the linear model of the residuals, halved until the cost decreases.

p = -t (JᵀJ)⁻¹ Jᵀr, with t = 1, ½, ¼, ...        Gauss, 1809; Hartley, 1961
"""

import jax.numpy as jnp

from jaxopt_lite.core.method import solver
from jaxopt_lite.solvers.linear_model import Steps, steps
from jaxopt_lite.solvers.squares import squares_method

__all__ = ["gauss_newton"]


@solver(solves="least_squares", bounds=True)
def gauss_newton():
    """Gauss-Newton with step halving: few evaluations near a solution, less safe than `levenberg_marquardt` far away.

    Where the Jacobian does not determine the step, it is the shortest of the minimizers in units of its columns. A step
    that brings too little is halved, one evaluation for each length.

    Reference: Hartley, "The Modified Gauss-Newton Method for the Fitting of Non-Linear Regression Functions by Least
        Squares", 1961; the tests of convergence are those of `squares`.
    """

    def propose(model, free, share, rows):
        newton = steps(model, free, jnp.inf, rows).newton
        return Steps(newton, share * newton)

    def resize(trial):
        return jnp.where(trial.accepted, 1, trial.radius / 2).astype(trial.radius.dtype)

    return squares_method(propose, resize)
