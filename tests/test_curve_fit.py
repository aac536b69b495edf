"""`curve_fit`: covariances, weights, starts, batches of data, and bad arguments."""

import jax
import numpy as np
import pytest
import scipy.optimize

import jaxopt_lite as jo
from jaxopt_lite.run.fitting import _first_guess

X = np.linspace(-1, 1, 20)
Y = 1 + 0.01 * X**3  # odd noise around an even model: 1 and 0 are the solution with and without even weights
SIGMA = 0.02 + 0.01 * np.abs(X)


def parabola(x, a, b):
    return a + b * x**2


@pytest.mark.usefixtures("x64")
def test_covariances_of_a_fit_with_a_zero_parameter():
    """Reported for SciPy (#21995, #448)."""
    design = np.stack([np.ones(20), X**2], axis=1)
    plain, weighted = (np.linalg.inv(d.T @ d) for d in (design, design / SIGMA[:, None]))
    squares = lambda sigma: np.sum(((Y - 1) / sigma) ** 2) / 18
    for sigma in (None, SIGMA, np.diag(SIGMA**2)):
        absolute, relative = (plain, plain * squares(1)) if sigma is None else (weighted, weighted * squares(SIGMA))
        for is_absolute, expected in ((False, relative), (True, absolute)):
            fit = jo.curve_fit(parabola, X, Y, sigma=sigma, absolute_sigma=is_absolute)
            assert fit.converged and fit.evaluations <= 4
            np.testing.assert_allclose(fit.params, [1, 0], atol=1e-7)
            np.testing.assert_allclose(fit.covariance, expected, rtol=1e-6)
            np.testing.assert_allclose(fit.residuals, (1 - Y) / (1 if sigma is None else SIGMA), atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_correlated_data_are_fitted_as_by_scipy():
    sigma = np.diag(SIGMA) @ np.exp(-np.abs(X[:, None] - X[None])) @ np.diag(SIGMA)
    y = 2 - X**2 + 0.02 * np.cos(9 * X)
    params, covariance = scipy.optimize.curve_fit(parabola, X, y, [1, 1], sigma)
    fit = jo.curve_fit(parabola, list(X), list(y), sigma=sigma.tolist())
    np.testing.assert_allclose(fit.params, params, rtol=1e-6)
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_a_batch_of_fits_is_each_of_them():
    true = np.random.default_rng(0).uniform(0.5, 2, (30, 2))
    data = true[:, :1] + true[:, 1:] * X**2 + 0.01 * np.sin(17 * X)
    data[3, 2] = np.nan
    sigmas = SIGMA * np.linspace(1, 2, 30)[:, None]
    fit = lambda y, sigma: jo.curve_fit(parabola, X, y, sigma=sigma, absolute_sigma=True, check_finite=False)
    batch, alone = jax.vmap(fit)(data, sigmas), fit(data[7], sigmas[7])
    assert batch.status[3] == jo.Status.NON_FINITE and np.delete(np.asarray(batch.converged), 3).all()
    assert np.abs(np.delete(batch.params - true, 3, 0)).max() < 0.02
    np.testing.assert_allclose(batch.params[7], alone.params, rtol=1e-9)
    np.testing.assert_allclose(batch.covariance[7], alone.covariance, rtol=1e-9)
    assert batch.covariance.shape == (30, 2, 2) and batch.evaluations[7] == alone.evaluations


def sums(x, a, b, c, d):
    return (a + b + d) * x + c


@pytest.mark.usefixtures("x64")
def test_what_the_data_do_not_determine_has_an_infinite_variance():
    fit = jo.curve_fit(sums, X, X + Y)
    variances = np.diag(fit.covariance)
    assert fit.converged and np.isinf(variances[[0, 1, 3]]).all() and 0 < variances[2] < 1e-5


def test_the_start_is_taken_from_signature_and_bounds():
    """As by SciPy: the middle of two bounds, 1 from one, else 1."""
    bounds = (np.array([0.0, 3, -np.inf, -np.inf]), np.array([4.0, np.inf, -5, np.inf]))
    assert _first_guess(sums, bounds).tolist() == [2, 4, -6, 1]
    assert _first_guess(sums, (0, None)).tolist() == [1, 1, 1, 1] and _first_guess(sums, None).tolist() == [1, 1, 1, 1]
    assert jax.eval_shape(lambda: jo.curve_fit(lambda x, *p: p[0] * x, X, 3 * X, 1).params).shape == (1,)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (dict(f=3), TypeError, "f must be a function"),
        (dict(ydata=np.where(X > 0.9, np.nan, Y)), ValueError, "ydata must be finite"),
        (dict(xdata={"t": X * np.inf}), ValueError, r"xdata\['t'\] must be finite"),
        (dict(ydata=Y.astype(str)), TypeError, "ydata must be a number or an array"),
        (dict(p0=["one", 2]), TypeError, r"p0\[0\]"),
        (dict(p0=np.ones((2, 2))), ValueError, "p0 must have one dimension"),
        (dict(ydata=Y[:0]), ValueError, "ydata must not be empty"),
        (dict(sigma=SIGMA[:5]), ValueError, r"sigma has shape \(5,\), ydata has shape \(20,\)"),
        (dict(sigma=-np.eye(20)), ValueError, "positive definite"),
        (dict(ydata=Y.reshape(4, 5), sigma=np.eye(20)), ValueError, r"sigma has shape \(20, 20\)"),
        (dict(f=lambda x, a: a), ValueError, r"f must return an array of shape \(20,\), as ydata has, got \(\)"),
        (dict(f=lambda x, *p: x), ValueError, "give p0"),
        (dict(f=lambda x: x), ValueError, "give p0"),
        (dict(absolute_sigma=1), TypeError, "absolute_sigma"),
        (dict(bounds=(1, 0)), ValueError, "lower bound"),
        (dict(method="adam"), TypeError, "method"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        jo.curve_fit(**{"f": parabola, "xdata": X, "ydata": Y} | arguments)
