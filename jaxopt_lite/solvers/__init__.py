"""Solvers: methods that own the objective, such as `jo.solvers.lbfgs()`, for `jo.minimize`, `jo.fit` and sweeps."""

from jaxopt_lite.solvers.accelerated import accelerated_gradient_descent
from jaxopt_lite.solvers.augmented_lagrangian import augmented_lagrangian
from jaxopt_lite.solvers.bounded import lbfgsb
from jaxopt_lite.solvers.bracketing import bisection, brent
from jaxopt_lite.solvers.conjugate import nonlinear_cg
from jaxopt_lite.solvers.descent import gradient_descent
from jaxopt_lite.solvers.dogleg import dogleg
from jaxopt_lite.solvers.equations import broyden, newton
from jaxopt_lite.solvers.fixed_point import anderson, fixed_point_iteration
from jaxopt_lite.solvers.gauss_newton import gauss_newton
from jaxopt_lite.solvers.levenberg_marquardt import levenberg_marquardt
from jaxopt_lite.solvers.nelder_mead import nelder_mead
from jaxopt_lite.solvers.newton_cg import newton_cg
from jaxopt_lite.solvers.proximal_gradient import projected_gradient, proximal_gradient
from jaxopt_lite.solvers.quadratic_programs import osqp
from jaxopt_lite.solvers.quasi_newton import bfgs, lbfgs

__all__ = [
    "accelerated_gradient_descent",
    "anderson",
    "augmented_lagrangian",
    "bfgs",
    "bisection",
    "brent",
    "broyden",
    "dogleg",
    "fixed_point_iteration",
    "gauss_newton",
    "gradient_descent",
    "lbfgs",
    "lbfgsb",
    "levenberg_marquardt",
    "nelder_mead",
    "newton",
    "newton_cg",
    "nonlinear_cg",
    "osqp",
    "projected_gradient",
    "proximal_gradient",
]
