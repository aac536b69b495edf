"""Solvers: methods that own the objective, such as `jo.solvers.lbfgs()`, for `jo.minimize`, `jo.fit` and sweeps."""

from jaxopt_lite.solvers.accelerated import accelerated_gradient_descent
from jaxopt_lite.solvers.bounded import lbfgsb
from jaxopt_lite.solvers.conjugate import nonlinear_cg
from jaxopt_lite.solvers.descent import gradient_descent
from jaxopt_lite.solvers.quasi_newton import bfgs, lbfgs

__all__ = ["accelerated_gradient_descent", "bfgs", "gradient_descent", "lbfgs", "lbfgsb", "nonlinear_cg"]
