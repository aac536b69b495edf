"""Methods for sums of squares: regressions of NIST, the problems of Moré, Garbow and Hillstrom, bounds, robust losses,
covariances, and honest endings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxopt_lite as jo
from experiments import nist
from jaxopt_lite.core.method import Objective, Status, default_tol
from jaxopt_lite.solve import begin, run, solution_of
from jaxopt_lite.solvers.fitting import first_guess, fit_residual
from jaxopt_lite.solvers.linear_model import covariance
from jaxopt_lite.solvers.robust import LOSSES, rho
from tests.solvers.more_garbow_hillstrom import PROBLEMS, reached, rosenbrock

LM, GN = jo.solvers.levenberg_marquardt(), jo.solvers.gauss_newton()


@functools.partial(jax.jit, static_argnames=("residual", "method", "loss", "max_steps"))
def solve(residual, start, bounds=(None, None), args=(), method=LM, loss="linear", max_steps=1000):
    dtype = np.float64 if jax.config.jax_enable_x64 else np.float32
    objective = Objective(
        residual=lambda p: residual(p, *args),
        rho=rho(loss, 0.5),
        tol=default_tol(dtype),
        lower=bounds[0],
        upper=bounds[1],
    )
    return solution_of(run(method, objective, begin(method, objective, start), max_steps))


def errors_of(solution, m):
    """Standard errors of the parameters of a fit of m observations."""
    factor = solution.state.method_state.model.factor
    return np.sqrt(np.diag(covariance(factor)) * 2 * float(solution.value) / (m - factor.shape[0]))


def check_nist(names):
    evaluations = []
    for name in names:
        residual, starts, params, errors, cost = nist.problem(name)
        for start in starts:
            solution = solve(residual, jnp.asarray(start))
            assert solution.converged, (name, solution)
            np.testing.assert_allclose(solution.params, params, rtol=1e-6, err_msg=name)
            if name != "Lanczos1":  # its residuals are as small as the rounding of float64
                np.testing.assert_allclose(solution.value, cost, rtol=1e-6, err_msg=name)
                m = len(nist.DATA[name]["y"])
                np.testing.assert_allclose(errors_of(solution, m), errors, rtol=1e-4, err_msg=name)
            evaluations.append(int(solution.evaluations))
    return evaluations


@pytest.mark.usefixtures("x64")
def test_some_regressions_of_nist():
    assert np.median(check_nist(["DanWood", "MGH09", "MGH17", "Thurber"])) <= 25


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_all_regressions_of_nist():
    evaluations = check_nist(nist.DATA)
    assert len(evaluations) == 54 and np.median(evaluations) <= 20


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_problems_of_more_garbow_and_hillstrom_end_at_listed_minima():
    for name, residual, start, minima in PROBLEMS:
        solution = solve(residual, jnp.asarray(start))
        assert solution.converged, (name, solution)
        assert reached(2 * float(solution.value), minima) is not None, (name, solution)


def line(p, x, y):
    return p[0] + p[1] * x**2 - y


def two_scales(p, scale):
    return jnp.stack([p[0] - 1, p[1] / scale - 1])


def pulse(p, w, y):
    return p[0] * jnp.exp(-0.5 * ((w - p[1]) / p[2]) ** 2) - y


@pytest.mark.parametrize("method", [LM, GN], ids=["lm", "gn"])
@pytest.mark.parametrize("scale", [1.0, 1e8, 1e-8])
def test_units_do_not_matter(method, scale):
    """In float32 as in float64: the units of a parameter, and those of the residuals."""
    solution = solve(two_scales, jnp.zeros(2), args=(scale,), method=method)
    assert solution.converged and solution.evaluations <= 4
    np.testing.assert_allclose(solution.params, [1, scale], rtol=1e-6)
    w, true = jnp.linspace(1, 2, 50), jnp.array([1.2 * scale, 1.4, 0.11])
    solution = solve(pulse, jnp.array([1.5 * scale, 1.6, 0.2]), args=(w, pulse(true, w, 0)), method=method)
    assert solution.converged and solution.evaluations <= 20
    np.testing.assert_allclose(jnp.abs(solution.params), true, rtol=1e-4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", [LM, GN], ids=["lm", "gn"])
def test_bounds_are_met_exactly_and_nothing_is_evaluated_outside(method):
    def valley(p):  # not defined outside
        return jnp.where(jnp.all(p <= 0.75), rosenbrock(p), jnp.nan)

    bounds = (jnp.full(2, -jnp.inf), jnp.full(2, 0.75))
    solution = solve(valley, jnp.array([0.0, 5.0]), bounds, method=method)
    assert solution.converged and solution.params[0] == 0.75
    np.testing.assert_allclose(solution.params, [0.75, 0.5625], atol=1e-8)
    # The best point is the bound at which it starts; a parameter that is fixed; no point at all.
    slope = lambda p: -(p["a"] + 1) * jnp.arange(10.0)
    solution = solve(
        slope, {"a": jnp.array([-0.5])}, ({"a": jnp.array([-0.5])}, {"a": jnp.array([5.0])}), method=method
    )
    assert solution.converged and solution.evaluations == 1 and solution.params["a"] == -0.5
    solution = solve(rosenbrock, jnp.zeros(2), (jnp.array([0.5, -9]), jnp.array([0.5, 9])), method=method)
    assert solution.converged and solution.params[0] == 0.5
    np.testing.assert_allclose(solution.params[1], 0.25, atol=1e-8)
    assert solve(rosenbrock, jnp.zeros(2), (jnp.ones(2), jnp.zeros(2)), method=method).status == Status.INFEASIBLE


T = np.linspace(0, 10, 30)
Y = 2 * np.exp(-0.4 * T) + 0.1 * np.sin(37 * T) + np.where(np.arange(30) % 7 == 3, 2.0, 0)


def decay(p):
    return p[0] * jnp.exp(-p[1] * T) - Y


@pytest.mark.usefixtures("x64")
def test_robust_losses_are_those_of_scipy():
    plain = jax.jit(decay), jax.jit(jax.jacfwd(decay))
    for loss in LOSSES:
        ours = solve(decay, jnp.array([1.0, 0.3]), loss=loss)
        residual, jacobian = (lambda p, f=f: np.asarray(f(jnp.asarray(p))) for f in plain)
        exact = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-14)
        theirs = scipy.optimize.least_squares(residual, [1.0, 0.3], jacobian, loss=loss, f_scale=0.5, **exact)
        assert ours.converged
        np.testing.assert_allclose(ours.params, theirs.x, rtol=1e-6, err_msg=loss)
        np.testing.assert_allclose(ours.value, theirs.cost, rtol=1e-12, err_msg=loss)
        grads = jax.grad(lambda p, loss=loss: Objective(residual=decay, rho=rho(loss, 0.5)).value(p)[0])(ours.params)
        np.testing.assert_allclose(ours.state.info.grads, grads, atol=1e-9)
    with pytest.raises(ValueError, match="'huber'"):
        rho("absolute")


@pytest.mark.usefixtures("x64")
def test_covariance_of_a_fit_with_and_without_weights():
    x = np.linspace(-1, 1, 20)
    y, sigma = 1 + 0.01 * x**3, 0.02 + 0.01 * np.abs(x)
    model = lambda x, a, b: a + b * x**2
    for given in (None, sigma, np.diag(sigma**2)):
        solution = solve(fit_residual(model, x, y, given), first_guess(model))
        _, expected = scipy.optimize.curve_fit(model, x, y, [1, 1], given, absolute_sigma=True, method="trf")
        if given is None:
            expected = np.linalg.inv(np.stack([np.ones(20), x**2]) @ np.stack([np.ones(20), x**2]).T)
        assert solution.converged
        np.testing.assert_allclose(solution.params, [1, 0], atol=1e-7)
        np.testing.assert_allclose(covariance(solution.state.method_state.model.factor), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="sigma"):
        fit_residual(model, x, y, sigma[:5])
    with pytest.raises(ValueError, match="p0"):
        first_guess(lambda x, *p: x)


def test_what_is_undetermined_has_no_finite_variance():
    factor = jnp.array([[1.0, 0, 2], [0, 0, 0], [0, 0, 3]])
    variances = np.diag(covariance(factor))
    np.testing.assert_allclose(variances, [1 + 4 / 9, np.inf, 1 / 9], rtol=1e-5)
    assert np.isinf(np.diag(covariance(jnp.array([[1.0, 1], [0, 0]])))).all()
    # Fewer residuals than parameters: it is solved, and says so.
    solution = solve(lambda p: jnp.stack([p[0] + p[1] - 2, p[2] ** 2 - 4]), jnp.array([0.0, 0, 1]))
    assert solution.converged and solution.value < 1e-9
    variances = np.diag(covariance(solution.state.method_state.model.factor))
    assert np.isinf(variances[:2]).all() and np.isfinite(variances[2])


@pytest.mark.parametrize("method", [LM, GN], ids=["lm", "gn"])
def test_endings_are_honest(method):
    ends = lambda f, start, **rest: solve(f, jnp.asarray(start), method=method, **rest)
    assert ends(lambda p: p * jnp.nan, [1.0]).status == Status.NON_FINITE
    assert ends(rosenbrock, [-1.2, 1.0], max_steps=3).status == Status.MAX_STEPS
    start = ends(rosenbrock, [1.0, 1.0])
    assert start.converged and start.evaluations == 1
    # No end: a slope beside a constant. A constant that is large: the other residual counts all the same.
    assert not ends(lambda p: jnp.stack([jnp.ones([]), 1 / (1 + p[0] ** 2)]), [1.0], max_steps=100).converged
    large = ends(lambda p: jnp.stack([jnp.full([], 1e4), p[0] - 1, jnp.exp(p[0]) - jnp.e]), [3.0])
    np.testing.assert_allclose(large.params, [1], atol=5e-3)  # steps are known to ε |r|, here 1e-3
    # NaN on the way is stepped back from; a gradient that is wrong is no convergence.
    log = ends(lambda p: jnp.log(p) - 2, [0.1])
    assert log.converged
    np.testing.assert_allclose(log.params, [np.exp(2)], rtol=1e-5)
    wrong = jax.custom_jvp(lambda p: p - 3)
    wrong.defjvp(lambda primals, tangents: (primals[0] - 3, -tangents[0]))
    assert ends(wrong, [1.0]).status == Status.LINE_SEARCH_FAILED


@pytest.mark.usefixtures("x64")
def test_leaves_keep_their_dtypes_and_complex_ones_work():
    target = np.array([1 + 2j, -0.5j])
    start = {"a": jnp.zeros(2, jnp.complex64), "b": jnp.ones((), jnp.float64), "c": jnp.ones((), jnp.float32)}

    def residual(p):
        return {"z": (p["a"] - target) * jnp.array([1, 2j]), "y": p["b"] ** 2 - 4, "x": p["c"] * p["b"] - 6}

    for loss in ("linear", "soft_l1"):
        solution = solve(residual, start, loss=loss)
        assert solution.converged, solution
        assert [x.dtype for x in solution.params.values()] == [x.dtype for x in start.values()]
        np.testing.assert_allclose(solution.params["a"], target, rtol=1e-5)
        np.testing.assert_allclose([solution.params["b"], solution.params["c"]], [2, 3], rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_a_batch_of_fits_is_each_of_them():
    x = jnp.linspace(0, 3, 25)
    model = lambda p, x, y: p[0] * jnp.exp(-p[1] * x) + p[2] + p[3] * x - y
    true = jax.random.uniform(jax.random.key(0), (50, 4), minval=0.5, maxval=2)
    data = jax.vmap(lambda p: model(p, x, 0))(true).at[3, 2].set(jnp.nan)
    batch = jax.vmap(lambda y: solve(model, jnp.ones(4), args=(x, y)))(data)
    alone = solve(model, jnp.ones(4), args=(x, data[7]))
    assert batch.status[3] == Status.NON_FINITE
    assert np.delete(np.asarray(batch.converged), 3).all()
    np.testing.assert_allclose(np.delete(batch.params, 3, 0), np.delete(true, 3, 0), rtol=1e-6)
    np.testing.assert_allclose(batch.params[7], alone.params, rtol=1e-9)
    assert batch.evaluations[7] == alone.evaluations
