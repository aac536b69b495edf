"""Solvers: methods that own the objective, such as `jo.solvers.lbfgs()`, for `jo.minimize`, `jo.fit` and sweeps."""

from jaxopt_lite.solvers.descent import gradient_descent
from jaxopt_lite.solvers.dogleg import dogleg
from jaxopt_lite.solvers.nelder_mead import nelder_mead
from jaxopt_lite.solvers.newton import newton_cg
from jaxopt_lite.solvers.quasi_newton import lbfgs

__all__ = ["dogleg", "gradient_descent", "lbfgs", "nelder_mead", "newton_cg"]
