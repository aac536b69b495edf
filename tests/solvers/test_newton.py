"""Newton-CG and the dogleg: classic problems, saddles, scales of values and parameters, and honest endings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.quick import quick_jit
from tests.solvers.families import families, one_of, solve_all
from tests.solvers.problems import TEN, rosenbrock

METHODS = (jo.solvers.newton_cg(), jo.solvers.dogleg())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [4, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_classic_problems_in_float64_take_few_evaluations(n):
    """The limits are what was measured, and a tenth more."""
    most = {2: (65, 60), 3: (44, 42), 4: (112, 88)}
    g, starts, rows = next((g, starts, rows) for g, starts, rows in families(TEN) if starts.shape[1] == n)
    for method, limit in zip(METHODS, most[n], strict=True):
        evaluations = 0
        for (f, _, value), (solution, again) in zip(rows, solve_all(jo.minimize, g, starts, method), strict=True):
            assert solution.converged and solution.value <= value * (1 + 1e-8) + 1e-14, (f.__name__, solution)
            assert again.converged and again.evaluations <= 3, (f.__name__, again)
            evaluations += int(solution.evaluations)
        assert evaluations <= limit, (method, evaluations)


def test_classic_problems_in_float32():
    for method in METHODS:
        for g, starts, rows in families([TEN[i] for i in (7, 8)]):
            for (f, _, value), (solution, again) in zip(rows, solve_all(jo.minimize, g, starts, method), strict=True):
                assert solution.converged and solution.params.dtype == jnp.float32, (f.__name__, solution)
                assert solution.value - value <= 1e-5 * (1 + value), (f.__name__, solution)
                assert again.converged and again.evaluations <= 3, (f.__name__, again)


def test_saddles_and_maxima_are_left():
    """The gradient has no component along the way out, and is zero in the second and third case."""
    ridge = lambda p: p[0] ** 2 - p[1] ** 2 + 0.25 * p[1] ** 4
    cross = lambda p: p[0] * p[1] + 0.25 * jnp.sum(p**4)
    f, starts = one_of(ridge, cross, lambda p: jnp.sum(jnp.cos(p))), np.array([[1, 0], [0, 0], [0, 0]], np.float32)
    for method in METHODS:
        for value, (solution, _) in zip((-1, -0.5, -2), solve_all(jo.minimize, f, starts, method), strict=True):
            assert solution.converged, solution
            np.testing.assert_allclose(solution.value, value, 1e-5)


def test_scales_of_the_value_and_of_the_parameters():
    f = lambda x, factor, unit: factor * rosenbrock(x / unit)
    factors, units = (
        a.ravel() for a in np.meshgrid(np.array([1e-8, 1e-4, 1, 1e8], np.float32), np.array([1e-8, 1, 1e8], np.float32))
    )
    for method in METHODS:
        solve = lambda factor, unit, method=method: jo.minimize(
            f, unit * jnp.array([-1.2, 1.0]), method=method, args=(factor, unit)
        )
        solution = quick_jit(jax.vmap(solve))(factors, units)
        assert solution.converged.all() and solution.evaluations.max() < 60, solution.status
        np.testing.assert_allclose(solution.params / units[:, None], np.ones((12, 2)), 5e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_endless_slopes_are_not_converged_and_degenerate_minima_are(dtype):
    slopes = (
        lambda x: jnp.exp(-x[0]) + 0 * x[1],
        lambda x: jnp.log1p(jnp.exp(-x[0])) + (x[1] - 1) ** 2,
        lambda x: -jnp.sum(jnp.arctan(x)),
        lambda x: 1 / x[0] + (x[1] - 1) ** 2,
    )
    flat = (
        lambda x: jnp.sum((x - 1) ** 4) + 1,
        lambda x: jnp.sum((x - 2) ** 6),
        lambda x: (x[0] + x[1] - 1) ** 2,
        lambda x: jnp.sum(x**4),
    )
    f, starts = one_of(*slopes, *flat), np.tile(np.array([1.0, 3.0], dtype), (8, 1))
    for method in METHODS:
        pairs = solve_all(jo.minimize, f, starts, method)
        for i, (solution, again) in enumerate(pairs):
            assert solution.converged == (i >= 4), (method, i, solution)
            assert i < 4 or (again.converged and again.evaluations <= 3), (method, i, again)
        np.testing.assert_allclose(pairs[4][0].params, 1, 0.03 if dtype == np.float32 else 3e-4)


def test_an_offset_of_the_value_changes_little():
    f = lambda x, offset: 0.5 * jnp.sum(jnp.arange(1.0, 61.0) * (x - 1) ** 2) + offset
    for method in METHODS:
        solve = lambda offset, method=method: jo.minimize(f, jnp.zeros(60), args=(offset,), method=method)
        solution = quick_jit(jax.vmap(solve))(jnp.array([0.0, 1e4, -1e4]))
        assert solution.converged.all() and solution.evaluations.max() < 20
        np.testing.assert_allclose(solution.params, 1, 1e-3)


def test_endings_that_are_no_solutions_say_so_and_what_is_not_finite_is_stepped_back_from():
    wrong = jax.custom_jvp(lambda x: jnp.sum(x**2))
    wrong.defjvp(lambda primals, tangents: (jnp.sum(primals[0] ** 2), -jnp.sum(primals[0] * tangents[0])))
    f = one_of(
        lambda x: jnp.sum(jnp.log(x)),
        wrong,
        lambda x: -x[0],
        lambda x: jnp.sum(jnp.abs(x - 1)),
        lambda x: jnp.sum(x - 10 * jnp.log(x)),
    )
    rates = [[1e-3, 500.0], [1.6, 1e4]]
    starts = np.array([[-1, -1], [1, 2], [1, 1], [0.3, -2], *rates], np.float32)
    wanted = [jo.Status.NON_FINITE, jo.Status.LINE_SEARCH_FAILED, jo.Status.UNBOUNDED, jo.Status.STALLED]
    for method in METHODS:
        solve = lambda start, i, method=method: jo.minimize(f, start, args=(i,), method=method)
        solution = quick_jit(jax.vmap(solve))(starts, np.array([0, 1, 2, 3, 4, 4]))
        assert solution.status[:4].tolist() == wanted and bool(jnp.isfinite(solution.params).all()), method
        assert solution.converged[4:].all()
        np.testing.assert_allclose(solution.params[4:], 10, 1e-3)


def test_any_tree_of_parameters_complex_ones_too():
    def f(p):
        bowls = jnp.sum((p["a"] - 1) ** 2) + 3 * jnp.sum((p["b"][0] - 2) ** 2)
        return bowls + jnp.abs(p["c"] - (1 + 2j)) ** 2

    start = {"a": jnp.zeros((2, 3)), "b": [jnp.zeros(4)], "c": jnp.zeros((), jnp.complex64)}
    for method in METHODS:
        solution = jo.minimize(f, start, method=method)
        assert solution.converged and jax.tree.structure(solution.params) == jax.tree.structure(start)
        np.testing.assert_allclose(solution.params["c"], 1 + 2j, 1e-4)


@pytest.mark.usefixtures("x64")
def test_float32_leaves_stay_so_beside_float64_ones():
    f = lambda p: jnp.sum((p[0] - 1) ** 2) + jnp.sum((p[1] - 2) ** 2 * jnp.exp(p[0]))
    for method in METHODS:
        for dtypes in ((np.float32, np.float32), (np.float32, np.float64)):
            solution = jo.minimize(f, tuple(np.zeros(2, dtype) for dtype in dtypes), method=method)
            assert tuple(leaf.dtype for leaf in solution.params) == dtypes and solution.converged, solution


def test_products_are_counted_and_bad_numbers_refused():
    solution = jo.minimize(rosenbrock, jnp.array([-1.2, 1.0]), method=jo.solvers.dogleg(), max_steps=15)
    assert solution.status == jo.Status.MAX_STEPS
    assert 2 <= solution.state.method_state.products <= 2 * solution.evaluations
    with pytest.raises(ValueError, match="products must be an int of at least 1"):
        jo.solvers.newton_cg(products=0)
