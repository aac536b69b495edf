"""Solvers: methods that own the objective, such as `jo.solvers.lbfgs()`, for `jo.minimize`, `jo.fit` and sweeps."""

from jaxopt_lite.solvers.descent import gradient_descent
from jaxopt_lite.solvers.equations import broyden, newton
from jaxopt_lite.solvers.gauss_newton import gauss_newton
from jaxopt_lite.solvers.levenberg_marquardt import levenberg_marquardt
from jaxopt_lite.solvers.newton_cg import newton_cg
from jaxopt_lite.solvers.quasi_newton import lbfgs

__all__ = ["broyden", "gauss_newton", "gradient_descent", "lbfgs", "levenberg_marquardt", "newton", "newton_cg"]
