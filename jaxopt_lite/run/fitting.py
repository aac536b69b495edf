"""`least_squares` and `curve_fit`: residuals, and curves through data."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_lite.core.arguments import check_bool
from jaxopt_lite.core.numbers import describe
from jaxopt_lite.run.minimizing import Differentiate, Progress
from jaxopt_lite.run.problems import as_bounds, check_arrays, prepare
from jaxopt_lite.run.solving import drive
from jaxopt_lite.solve.solution import Solution, SolveState
from jaxopt_lite.solvers import levenberg_marquardt

__all__ = ["curve_fit", "least_squares"]


def least_squares(
    residual: Callable[..., Any],
    start: Any,
    method: Any = None,
    args: tuple = (),
    bounds: Any = None,
    loss: str = "linear",
    f_scale: float = 1.0,
    tol: float | None = None,
    max_steps: int = 1000,
    has_aux: bool = False,
    key: jax.Array | None = None,
    state: SolveState | None = None,
    callback: Callable[[Solution], bool | None] | None = None,
    progress: Progress = "none",
    differentiate: Differentiate = "implicit",
) -> Solution:
    """Minimize ½ Σ ρ(|rᵢ|²) over the residuals r = residual(params, *args).

    Compiled, vmapped and differentiated as `minimize` is.

    Args:
        residual: (params, *args) -> a tree of arrays, or (tree, aux) with `has_aux`. A weight wᵢ of rᵢ² is a factor
            √wᵢ of rᵢ.
        start: parameters to begin with, a pytree of numbers or arrays. A start outside the bounds is moved to the
            nearest point within.
        method: `jo.solvers.levenberg_marquardt()`, the default, `jo.solvers.gauss_newton()`, or any method of
            `minimize`, which is given the sum.
        args: further arguments of residual, pytrees of numbers and arrays.
        bounds: as for `minimize`.
        loss: ρ, with C = `f_scale` and z = |r/C|²: "linear", C²z; "soft_l1", 2C²(√(1+z) - 1); "huber", C²z up to z = 1,
            then C²(2√z - 1); "cauchy", C² ln(1+z); "arctan", C² arctan(z).
        f_scale: C > 0, the size from which on a residual counts less than by its square.
        tol: tolerance, see the method. None is ε^(2/3) of the parameters' dtype.
        max_steps: the largest number of steps of this call, at least 1.
        has_aux: whether residual returns a pair.
        key: a random key, for methods that draw numbers.
        state: `solution.state` of an earlier solve, to be resumed.
        callback: as for `minimize`.
        progress: as for `minimize`.
        differentiate: as for `minimize`.

    Returns:
        A `Solution`, with `residuals` and, of dense methods, `covariance`.

    Raises:
        TypeError: if residual is not callable or returns no floating numbers, or start holds leaves that are not
            numbers.
        ValueError: for bounds that cross or that the method does not take, an unknown loss, a method of another kind of
            problem, a state of another problem, or numbers out of range.
    """
    ready = prepare(
        *("least_squares", "least_squares", residual, start, method, levenberg_marquardt()),
        **dict(args=args, bounds=bounds, tol=tol, max_steps=max_steps, has_aux=has_aux, key=key),
        **dict(differentiate=differentiate, loss=loss, f_scale=f_scale),
    )
    return drive("least_squares", ready, state, callback, progress)


def curve_fit(
    f: Callable[..., Any],
    xdata: Any,
    ydata: Any,
    p0: Any = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    bounds: Any = None,
    method: Any = None,
    loss: str = "linear",
    f_scale: float = 1.0,
    check_finite: bool = True,
    tol: float | None = None,
    max_steps: int = 1000,
    state: SolveState | None = None,
    callback: Callable[[Solution], bool | None] | None = None,
    progress: Progress = "none",
    differentiate: Differentiate = "implicit",
) -> Solution:
    """Fit y = f(x, *params) to data by least squares. The names are those of `scipy.optimize.curve_fit`.

    The residuals are (f(xdata, *params) - ydata) / sigma. It is vmapped over data and starts, and differentiated with
    respect to xdata, ydata, sigma, bounds and what f closes over.

    Args:
        f: the model, (xdata, *params) -> an array like ydata; the parameters are scalars.
        xdata: where the data were measured, any pytree of arrays that f takes; a list of numbers becomes an array.
        ydata: the data, an array.
        p0: the start, [n]. None takes the parameters in f's signature, and for each the middle of its bounds, 1 from
            the only one, or 1 without bounds.
        sigma: standard deviations, a scalar or an array like ydata; the covariance [m, m] of m data; None is 1.
        absolute_sigma: whether sigma is in the units of ydata. If not, only its proportions count: the covariance of
            the parameters is scaled by 2 value / (m - n).
        bounds: a pair (lower, upper) of arrays [n] or numbers; None or infinity means no bound.
        method: as for `least_squares`.
        loss: as for `least_squares`.
        f_scale: as for `least_squares`, in units of sigma.
        check_finite: whether NaN and infinities in data that are not traced are refused.
        tol: as for `least_squares`.
        max_steps: the largest number of steps of this call, at least 1.
        state: `solution.state` of an earlier solve, to be resumed.
        callback: as for `minimize`.
        progress: as for `minimize`.
        differentiate: as for `minimize`.

    Returns:
        A `Solution`: params [n], `covariance` [n, n], `residuals`, and the rest. Standard errors are the roots of the
        diagonal of the covariance.

    Raises:
        TypeError: if f is not callable, or the data are no numbers.
        ValueError: if the number of parameters cannot be told, data are empty or not finite, a covariance is not
            positive definite, shapes do not fit, or as for `least_squares`.
    """
    who = "curve_fit"
    if not callable(f):
        raise TypeError(f"{who}: f must be a function (xdata, *params), got {describe(f)}")
    check_bool(who, "absolute_sigma", absolute_sigma)
    for name, data in (("xdata", xdata), ("ydata", ydata), ("sigma", sigma), ("p0", p0)):
        check_arrays(who, name, data)
        for path, leaf in jax.tree_util.tree_leaves_with_path(data):
            if check_finite and not isinstance(leaf, Tracer) and not np.all(np.isfinite(np.asarray(leaf))):
                raise ValueError(
                    f"{who}: {name}{jax.tree_util.keystr(path)} must be finite; leave such data out, or give them an "
                    "infinite sigma and check_finite=False"
                )
    if isinstance(xdata, (list, tuple)) and all(np.ndim(x) == 0 for x in xdata):
        xdata = jnp.asarray(xdata)
    ydata = jnp.asarray(ydata) * 1.0
    if ydata.size == 0:
        raise ValueError(f"{who}: ydata must not be empty")
    p0 = _first_guess(f, bounds) if p0 is None else jnp.atleast_1d(jnp.asarray(p0))
    if p0.ndim != 1:
        raise ValueError(f"{who}: p0 must have one dimension, got shape {p0.shape}")
    sigma = None if sigma is None else jnp.asarray(sigma)
    is_matrix = sigma is not None and ydata.ndim == 1 and sigma.shape == 2 * ydata.shape
    if sigma is not None and not is_matrix and sigma.shape not in ((), ydata.shape):
        raise ValueError(f"{who}: sigma has shape {sigma.shape}, ydata has shape {ydata.shape}")
    if is_matrix and not isinstance(sigma, Tracer) and not np.all(np.isfinite(jnp.linalg.cholesky(sigma))):
        raise ValueError(f"{who}: sigma of two dimensions is a covariance, and must be positive definite")

    def residual(params, x, y, sigma):
        values = jnp.asarray(f(x, *params))
        if values.shape != y.shape:
            raise ValueError(f"{who}: f must return an array of shape {y.shape}, as ydata has, got {values.shape}")
        if sigma is None:
            return values - y
        if is_matrix:  # L⁻¹ r with sigma = L Lᵀ
            return jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(sigma), values - y, lower=True)
        return (values - y) / sigma

    ready = prepare(
        *(who, "least_squares", residual, p0, method, levenberg_marquardt()),
        **dict(args=(xdata, ydata, sigma), bounds=bounds, tol=tol, max_steps=max_steps, has_aux=False, key=None),
        **dict(differentiate=differentiate, loss=loss, f_scale=f_scale),
    )
    solution = drive(who, ready, state, callback, progress)
    if absolute_sigma and solution.variance is not None:
        return dataclasses.replace(solution, variance=jnp.ones_like(solution.variance))
    return solution


def _first_guess(f: Callable, bounds: Any) -> jax.Array:
    parameters = list(inspect.signature(f).parameters.values())
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) < 2 or any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        raise ValueError("curve_fit: cannot tell the number of parameters from the signature of f; give p0")
    ones = jnp.ones(sum(p.kind in kinds for p in parameters) - 1)
    if bounds is None:
        return ones
    low, high = as_bounds("curve_fit", bounds, ones)
    has_low, has_high = jnp.isfinite(low), jnp.isfinite(high)
    either = jnp.select([has_low, has_high], [low + 1, high - 1], 1.0)
    return jnp.where(has_low & has_high, low / 2 + high / 2, either)
