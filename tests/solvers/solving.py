"""Solves of equations and fixed points by the pure loop."""

import functools

import jax
import jax.numpy as jnp

from jaxopt_lite.core.method import Objective, default_tol
from jaxopt_lite.solve import begin, run, solution_of


@functools.partial(jax.jit, static_argnames=("residual", "has_aux", "max_steps"))
def solve(residual, method, start, tol=None, lower=None, upper=None, args=(), has_aux=False, max_steps=300):
    """A solution of residual(x, *args) = 0; `tol` is that of the first leaf's dtype."""
    tol = default_tol(jax.tree.leaves(start)[0].dtype) if tol is None else tol
    f = lambda x: residual(x, *args)
    objective = Objective(residual=f, has_aux=has_aux, tol=tol, lower=lower, upper=upper)
    return solution_of(run(method, objective, begin(method, objective, start), max_steps))


@functools.cache
def displacement(g):
    """The residual g(x) - x of a fixed point."""
    return lambda x, *args: jax.tree.map(jnp.subtract, g(x, *args), x)
