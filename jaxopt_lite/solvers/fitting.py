"""Residuals of a curve fit, with the argument names of `scipy.optimize.curve_fit`."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["first_guess", "fit_residual"]


def first_guess(model: Callable, dtype: Any = float) -> jax.Array:
    """Ones, one for each parameter in the signature of model(xdata, a, b, ...).

    Raises:
        ValueError: if the signature does not tell how many parameters there are.
    """
    parameters = list(inspect.signature(model).parameters.values())[1:]
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or any(p.kind not in plain for p in parameters):
        raise ValueError(f"curve_fit: the signature of {model!r} does not tell the number of parameters; give p0")
    return jnp.ones(len(parameters), dtype)


def fit_residual(model: Callable, xdata: Any, ydata: Any, sigma: Any = None) -> Callable:
    """The function from parameters to (model(xdata, *parameters) - ydata) / sigma.

    Args:
        model: (xdata, a, b, ...) -> an array of the shape of `ydata`.
        xdata: whatever the model takes.
        ydata: an array [m].
        sigma: standard deviations of ydata [m], or one for all, or their covariance [m, m]; None is 1.

    Returns:
        A function of a vector or sequence of parameters. Its residuals have the covariance 1 if sigma is right.

    Raises:
        ValueError: if sigma has another shape.
    """
    ydata = jnp.asarray(ydata)
    sigma = None if sigma is None else jnp.asarray(sigma)
    if sigma is not None and sigma.shape not in ((), ydata.shape, (ydata.size, ydata.size)):
        raise ValueError(
            f"curve_fit: sigma must be a number, of the shape of ydata {ydata.shape}, or a covariance matrix "
            f"{(ydata.size, ydata.size)}, got shape {sigma.shape}"
        )
    factor = jnp.linalg.cholesky(sigma) if sigma is not None and sigma.ndim == 2 and ydata.ndim == 1 else None

    def residual(params):
        difference = model(xdata, *params) - ydata
        if factor is not None:
            return jax.scipy.linalg.solve_triangular(factor, difference, lower=True)
        return difference if sigma is None else difference / sigma

    return residual
