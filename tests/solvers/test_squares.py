"""Methods for sums of squares: regressions of NIST, the problems of Moré, Garbow and Hillstrom, bounds, robust losses,
covariances, and honest endings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxopt_lite as jo
from experiments import nist
from jaxopt_lite.core.method import Objective, Status
from jaxopt_lite.solve.solution import begin, run, solution_of
from jaxopt_lite.solvers.linear_model import covariance
from jaxopt_lite.solvers.robust import LOSSES, rho
from tests.quick import quick_jit
from tests.solvers.more_garbow_hillstrom import PROBLEMS, broyden_tridiagonal, reached, rosenbrock

METHODS = [jo.solvers.levenberg_marquardt(), jo.solvers.gauss_newton()]
BOTH = pytest.mark.parametrize("method", METHODS, ids=["lm", "gn"])


def check_nist(name):
    """From both starts, and again from both ends; the evaluations from the starts."""
    residual, starts, params, errors, cost = nist.problem(name)
    solve = quick_jit(jax.vmap(lambda start: jo.least_squares(residual, start)))
    solutions = solve(starts)
    again = solve(solutions.params)
    assert solutions.converged.all() and again.converged.all() and (again.evaluations <= 3).all(), name
    for i in range(2):
        np.testing.assert_allclose(solutions.params[i], params, rtol=1e-6, err_msg=name)
        if name != "Lanczos1":  # its residuals are as small as the rounding of float64
            np.testing.assert_allclose(solutions.value[i], cost, rtol=1e-6, err_msg=name)
            found = np.sqrt(np.diag(solutions.covariance[i]))
            np.testing.assert_allclose(found, errors, rtol=1e-4, err_msg=name)
    return solutions.evaluations


@pytest.mark.usefixtures("x64")
def test_a_regression_of_nist():
    assert max(check_nist("MGH17")) <= 200


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_dozen_regressions_of_nist():
    """Among them the hardest. The experiment `curve_fitting` solves all 27, and checks them."""
    names = ["Bennett5", "BoxBOD", "Chwirut1", "ENSO", "Eckerle4", "Gauss2"]
    names += ["Hahn1", "Lanczos1", "MGH09", "MGH10", "Rat43", "Thurber"]
    evaluations = np.concatenate([check_nist(name) for name in names])
    assert np.median(evaluations) <= 20


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_problems_of_more_garbow_and_hillstrom_end_at_listed_minima():
    """Every third. `experiments.benchmarks.evaluations` solves all of them, and the page of benchmarks lists them."""
    for name, residual, start, minima in PROBLEMS[::3]:
        solution = jo.least_squares(residual, jnp.asarray(start))
        assert solution.converged, (name, solution)
        assert reached(2 * float(solution.value), minima) is not None, (name, solution)
        again = jo.least_squares(residual, solution.params)
        assert again.converged and again.evaluations <= 3, (name, again)


def pulse(p, units, y):
    w = jnp.linspace(1, 2, 50, dtype=p.dtype)
    return units[0] * p[0] * jnp.exp(-0.5 * ((w - units[1] * p[1]) / p[2]) ** 2) - y


@pytest.mark.parametrize("method", [METHODS[0], pytest.param(METHODS[1], marks=pytest.mark.slow)], ids=["lm", "gn"])
def test_units_do_not_matter(method):
    """In float32: the units of parameters, and those of residuals."""
    true, start, sizes = jnp.array([1.2, 1.4, 0.11]), jnp.array([1.5, 1.6, 0.2]), [1.0, 1e8, 1e-8]
    units = jnp.array([(a, b, y) for a in sizes for b in sizes for y in sizes])

    def fit(units):
        scale = jnp.array([units[2] / units[0], 1 / units[1], 1])
        data = pulse(true * scale, units, 0)
        solution = jo.least_squares(pulse, start * scale, args=(units, data), method=method)
        return solution.converged, solution.evaluations, jnp.abs(solution.params / (true * scale) - 1)

    converged, evaluations, errors = quick_jit(jax.vmap(fit))(units)
    assert converged.all() and evaluations.max() <= 20 and errors.max() < 1e-4


@pytest.mark.usefixtures("x64")
@BOTH
def test_bounds_are_met_exactly_and_nothing_is_evaluated_outside(method):
    def valley(p, limit):  # not defined outside
        return jnp.where(jnp.all(p <= limit), rosenbrock(p), jnp.nan)

    # A bound that cuts the valley, a parameter that is fixed, no point at all, the best point is where it starts.
    starts = jnp.array([[0.0, 5], [0, 5], [0, 5], [0, 0]])
    lower = jnp.array([[-jnp.inf, -jnp.inf], [0.5, -9], [1, 1], [2, 4]])
    upper = jnp.array([[0.75, 0.75], [0.5, 9], [0, 0], [9, 9]])
    solve = lambda start, low, high: jo.least_squares(
        valley, start, method, args=(high,), bounds=(low, high), max_steps=200
    )
    solution = quick_jit(jax.vmap(solve))(starts, lower, upper)
    assert solution.converged.tolist() == [True, True, False, True] and solution.status[2] == Status.INFEASIBLE
    assert solution.params[0, 0] == 0.75 and solution.params[1, 0] == 0.5 and solution.params[3].tolist() == [2, 4]
    np.testing.assert_allclose(solution.params[:2, 1], [0.5625, 0.25], atol=1e-8)
    # The gradient without what pushes against the bound.
    assert solution.grad_norm[:2].max() < 1e-6 and solution.grad_norm[3] == 0 and solution.evaluations[3] == 1


T = np.linspace(0, 10, 30)
Y = 2 * np.exp(-0.4 * T) + 0.1 * np.sin(37 * T) + np.where(np.arange(30) % 7 == 3, 2.0, 0)


def decay(p):
    return p[0] * jnp.exp(-p[1] * T) - Y


@pytest.mark.usefixtures("x64")
def test_robust_losses_are_those_of_scipy():
    method, losses = jo.solvers.levenberg_marquardt(), [rho(loss, 0.5) or (lambda z: z) for loss in LOSSES]

    @jax.vmap
    def solve(which):
        objective = Objective(residual=decay, rho=lambda z: jax.lax.switch(which, losses, z), tol=1e-10)
        return solution_of(run(method, objective, begin(method, objective, jnp.array([1.0, 0.3])), 100))

    ours = quick_jit(solve)(jnp.arange(len(LOSSES)))
    assert ours.converged.all()
    residual = lambda p: p[0] * np.exp(-p[1] * T) - Y
    jacobian: Any = lambda p: np.stack([np.exp(-p[1] * T), -p[0] * T * np.exp(-p[1] * T)], axis=1)
    for i, loss in enumerate(LOSSES):
        exact = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-14)
        theirs = scipy.optimize.least_squares(residual, [1.0, 0.3], jacobian, loss=loss, f_scale=0.5, **exact)
        np.testing.assert_allclose(ours.params[i], theirs.x, rtol=1e-6, err_msg=loss)
        np.testing.assert_allclose(ours.value[i], theirs.cost, rtol=1e-12, err_msg=loss)
    with pytest.raises(ValueError, match="'huber'"):
        rho("absolute")


@pytest.mark.usefixtures("x64")
def test_a_plateau_is_no_minimum():
    """Gauss-Newton may run off to where one datum is fitted and the slope has vanished beside what it was."""
    solve = lambda start, f_scale: jo.least_squares(
        decay, start, jo.solvers.gauss_newton(), loss="cauchy", f_scale=f_scale
    )
    solution = quick_jit(jax.vmap(solve))(jnp.array([[1.0, 0.3], [3.0, 0.1]]), jnp.array([0.1, 0.1]))
    np.testing.assert_allclose(solution.params[0], [2.0352675, 0.3775335], rtol=1e-6)
    assert solution.converged[0] and (not solution.converged[1] or solution.params[1, 1] < 1)


def test_what_is_undetermined_has_no_finite_variance():
    factor = jnp.array([[1.0, 0, 2], [0, 0, 0], [0, 0, 3]])
    variances = np.diag(covariance(factor))
    np.testing.assert_allclose(variances, [1 + 4 / 9, np.inf, 1 / 9], rtol=1e-5)
    assert np.isinf(np.diag(covariance(jnp.array([[1.0, 1], [0, 0]])))).all()
    # Fewer residuals than parameters: it is solved, and says so.
    solution = jo.least_squares(lambda p: jnp.stack([p[0] + p[1] - 2, p[2] ** 2 - 4]), jnp.array([0.0, 0, 1]))
    assert solution.converged and solution.value < 1e-9
    variances = np.diag(covariance(solution.factor))
    assert np.isinf(variances[:2]).all() and np.isfinite(variances[2])
    assert np.isinf(np.diag(solution.covariance)).all()


@jax.custom_jvp
def wrong(p):
    return p - 3


wrong.defjvp(lambda primals, tangents: (wrong(primals[0]), -tangents[0]))
ENDINGS = {  # residuals, start
    "non-finite": (lambda p: (p * jnp.nan, 1, 1), 1.0),
    "at the optimum": (lambda p: (10 * (p**2 - 1), p - 1, 1e-3), 1.0),
    "endless slope": (lambda p: (1.0, 1 / (1 + p**2), 0.0), 1.0),
    "large constant": (lambda p: (1e4, p - 1, jnp.exp(p) - jnp.e), 3.0),
    "NaN on the way": (lambda p: (jnp.log(p) - 2, 0.0, 0.0), 0.1),
    "wrong gradient": (lambda p: (wrong(p), 0.0, 0.0), 1.0),
    "double zero": (lambda p: (p**2, 0.0, 0.0), 1.0),
}


@BOTH
def test_endings_are_honest(method):
    branches = [lambda p, f=f: jnp.stack(jnp.broadcast_arrays(*map(jnp.float32, f(p)))) for f, _ in ENDINGS.values()]
    solve = lambda which, start: jo.least_squares(
        lambda p, which: jax.lax.switch(which, branches, p), start, method, args=(which,), max_steps=100
    )
    starts = jnp.array([start for _, start in ENDINGS.values()])
    solution = quick_jit(jax.vmap(solve))(jnp.arange(len(ENDINGS)), starts)
    status = dict(zip(ENDINGS, map(Status, solution.status.tolist()), strict=True))
    params = dict(zip(ENDINGS, solution.params.tolist(), strict=True))
    assert status["non-finite"] == Status.NON_FINITE and status["wrong gradient"] == Status.LINE_SEARCH_FAILED
    assert status["at the optimum"].converged and solution.evaluations[1] == 1
    assert not status["endless slope"].converged
    assert status["large constant"].converged and abs(params["large constant"] - 1) < 5e-3  # steps: ε |r| is 1e-3
    assert status["NaN on the way"].converged and abs(params["NaN on the way"] / np.exp(2) - 1) < 1e-5
    assert status["double zero"].converged and abs(params["double zero"]) < 1e-9


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("linear_steps", [None, pytest.param(9, marks=pytest.mark.slow)])
def test_leaves_keep_their_dtypes_and_complex_ones_work(linear_steps):
    target = np.array([1 + 2j, -0.5j])
    start = {"a": jnp.zeros(2, jnp.complex64), "b": jnp.ones((), jnp.float64), "c": jnp.ones((), jnp.float32)}

    def residual(p):
        return {"z": (p["a"] - target) * jnp.array([1, 2j]), "y": p["b"] ** 2 - 4, "x": p["c"] * p["b"] - 6}

    method = jo.solvers.levenberg_marquardt(linear_steps=linear_steps)
    solution = jo.least_squares(residual, start, method, loss="soft_l1", f_scale=0.5)
    assert solution.converged, solution
    assert [x.dtype for x in solution.params.values()] == [x.dtype for x in start.values()]
    np.testing.assert_allclose(solution.params["a"], target, rtol=1e-5)
    np.testing.assert_allclose([solution.params["b"], solution.params["c"]], [2, 3], rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_thousands_of_parameters_by_products():
    method = jo.solvers.levenberg_marquardt(linear_steps=50)
    units = 10.0 ** np.linspace(-6, 6, 3000)
    residual = lambda p: broyden_tridiagonal(p / units)
    start = -units
    endless = np.full(3000, np.inf)
    free = jo.least_squares(residual, start, method, bounds=(-endless, endless))
    assert free.converged and free.evaluations <= 10 and free.value < 1e-18
    assert jo.least_squares(residual, free.params, method, bounds=(-endless, endless)).evaluations <= 3
    with pytest.raises(ValueError, match="covariance"):
        _ = free.covariance
    upper = np.where(np.arange(3000) % 3 == 0, -0.72, 9) * units
    bounded = jo.least_squares(residual, start, method, bounds=(-endless, upper))
    assert bounded.converged and (bounded.params <= upper).all() and bounded.value > free.value
    assert (bounded.params == upper).sum() > 500
    with pytest.raises(ValueError, match="linear_steps"):
        jo.solvers.levenberg_marquardt(linear_steps=0)
