"""Solvers: methods that own the objective, such as `jo.solvers.lbfgs()`, for `jo.minimize`, `jo.fit` and sweeps."""

from jaxopt_lite.solvers.bracketing import bisection, brent
from jaxopt_lite.solvers.descent import gradient_descent
from jaxopt_lite.solvers.equations import broyden, newton
from jaxopt_lite.solvers.fixed_point import anderson, fixed_point_iteration
from jaxopt_lite.solvers.quasi_newton import lbfgs

__all__ = ["anderson", "bisection", "brent", "broyden", "fixed_point_iteration", "gradient_descent", "lbfgs", "newton"]
