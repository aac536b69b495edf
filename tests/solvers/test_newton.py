"""Newton-CG and the dogleg: classic problems, saddles, scales of values and parameters, and honest endings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.solvers.problems import TEN, rosenbrock

METHODS = (jo.solvers.newton_cg(), jo.solvers.dogleg())
CHAIN = 3.98657911  # a local minimum of the chained Rosenbrock function with n = 10


@pytest.mark.usefixtures("x64")
def test_ten_classic_problems_in_float64():
    for method, most in zip(METHODS, (265, 215), strict=True):
        evaluations = 0
        for f, start, value in TEN:
            solution = jo.minimize(f, start, method=method)
            value = CHAIN if len(start) == 10 else value
            assert solution.converged and solution.value <= value * (1 + 1e-8) + 1e-14, (f.__name__, solution)
            again = jo.minimize(f, solution.params, method=method)
            assert again.converged and again.evaluations <= 3, (f.__name__, again)
            evaluations += int(solution.evaluations)
        assert evaluations <= most


def test_classic_problems_in_float32():
    for method in METHODS:
        for f, start, value in (TEN[3], TEN[7], TEN[8]):
            solution = jo.minimize(f, start.astype(np.float32), method=method)
            assert solution.converged and solution.params.dtype == jnp.float32, (f.__name__, solution)
            assert solution.value - value <= 1e-5 * (1 + value), (f.__name__, solution)
            again = jo.minimize(f, solution.params, method=method)
            assert again.converged and again.evaluations <= 3, (f.__name__, again)


def test_saddles_and_maxima_are_left():
    """The gradient has no component along the way out, and is zero in the second and third case."""
    ridge = lambda p: p[0] ** 2 - p[1] ** 2 + 0.25 * p[1] ** 4
    cross = lambda p: p[0] * p[1] + 0.25 * jnp.sum(p**4)
    for f, start, value in (
        (ridge, [1.0, 0.0], -1.0),
        (cross, [0.0, 0.0], -0.5),
        (lambda p: jnp.sum(jnp.cos(p)), [0.0, 0.0], -2.0),
    ):
        for method in METHODS:
            solution = jo.minimize(f, jnp.array(start), method=method)
            assert solution.converged, solution
            np.testing.assert_allclose(solution.value, value, 1e-5)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_scales_of_the_value_and_of_the_parameters(scale):
    def f(x, factor, unit):
        return factor * rosenbrock(x / unit)

    for method in METHODS:
        for factor in (1e-8, 1.0, 1e8):
            start = scale * jnp.array([-1.2, 1.0])
            solution = jo.minimize(f, start, method=method, args=(factor, scale))
            assert solution.converged and solution.evaluations < 60, solution
            np.testing.assert_allclose(solution.params / scale, 1, 2e-2)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_an_offset_of_the_value_changes_little(offset):
    f = lambda x, offset: 0.5 * jnp.sum(jnp.arange(1.0, 61.0) * (x - 1) ** 2) + offset
    for method in METHODS:
        solution = jo.minimize(f, jnp.zeros(60), args=(offset,), method=method)
        assert solution.converged and solution.evaluations < 20
        np.testing.assert_allclose(solution.params, 1, 1e-3)


def test_what_is_not_finite_is_stepped_back_from():
    rate = lambda r: jnp.sum(r - 10 * jnp.log(r))
    for method in METHODS:
        for start in (1e-3, 1.6, 500.0, 1e4):
            solution = jo.minimize(rate, jnp.array([start]), method=method)
            assert solution.converged, (start, solution)
            np.testing.assert_allclose(solution.params, 10, 1e-3)


def test_endings_that_are_no_solutions_say_so():
    wrong = jax.custom_jvp(lambda x: jnp.sum(x**2))
    wrong.defjvp(lambda primals, tangents: (jnp.sum(primals[0] ** 2), -jnp.sum(primals[0] * tangents[0])))
    for method in METHODS:
        for f, start, status in (
            (lambda x: jnp.sum(jnp.log(x)), jnp.array([-1.0]), jo.Status.NON_FINITE),
            (wrong, jnp.array([1.0, 2.0]), jo.Status.LINE_SEARCH_FAILED),
            (rosenbrock, jnp.array([-1.2, 1.0]), jo.Status.MAX_STEPS),
            (lambda x: -x[0], jnp.array([1.0]), jo.Status.UNBOUNDED),
            (lambda x: jnp.sum(jnp.abs(x - 1)), jnp.array([0.3, -2.0]), jo.Status.STALLED),
        ):
            solution = jo.minimize(f, start, method=method, max_steps=15 if f is rosenbrock else 300)
            assert solution.status == status and bool(jnp.isfinite(solution.params).all()), (method, solution)


def test_any_tree_of_parameters_complex_ones_too_and_batches():
    def f(p):
        bowls = jnp.sum((p["a"] - 1) ** 2) + 3 * jnp.sum((p["b"][0] - 2) ** 2)
        return bowls + jnp.abs(p["c"] - (1 + 2j)) ** 2

    start = {"a": jnp.zeros((2, 3)), "b": [jnp.zeros(4)], "c": jnp.zeros((), jnp.complex64)}
    for method in METHODS:
        solution = jo.minimize(f, start, method=method)
        assert solution.converged and jax.tree.structure(solution.params) == jax.tree.structure(start)
        np.testing.assert_allclose(solution.params["c"], 1 + 2j, 1e-4)
        starts = jnp.array([[-1.2, 1.0], [1.0, 1.0], [0.0, 3.0]])
        batch = jax.jit(jax.vmap(lambda x, method=method: jo.minimize(rosenbrock, x, method=method)))(starts)
        assert batch.converged.all() and batch.evaluations[1] == 1
        np.testing.assert_allclose(batch.params, 1, 1e-2)


@pytest.mark.usefixtures("x64")
def test_float32_leaves_stay_so_beside_float64_ones():
    f = lambda p: jnp.sum((p[0] - 1) ** 2) + jnp.sum((p[1] - 2) ** 2 * jnp.exp(p[0]))
    for method in METHODS:
        for dtypes in ((np.float32, np.float32), (np.float32, np.float64)):
            solution = jo.minimize(f, tuple(np.zeros(2, dtype) for dtype in dtypes), method=method)
            assert tuple(leaf.dtype for leaf in solution.params) == dtypes and solution.converged, solution


def test_products_are_counted_and_bad_numbers_refused():
    solution = jo.minimize(rosenbrock, jnp.array([-1.2, 1.0]), method=jo.solvers.dogleg())
    assert 2 <= solution.state.method_state.products <= 2 * solution.evaluations
    with pytest.raises(ValueError, match="products must be an int of at least 1"):
        jo.solvers.newton_cg(products=0)
