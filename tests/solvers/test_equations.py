"""Newton's and Broyden's methods: standard systems, honest endings, scales, precision, trees, batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lite import Status
from jaxopt_lite.solvers import broyden, newton
from tests.solvers.solving import solve
from tests.solvers.systems import TEN, broyden_tridiagonal, powell_badly_scaled, powell_singular, rosenbrock

SMALL = (newton(), broyden())


def no_slope_at_one(x):
    return x**2 - 2 * x


def above_zero(x, scale):
    return scale * (x**2 + 1)


def decay(x):
    return jnp.exp(-x)


def reciprocal(x):
    return 1 / x


def double(y, target):
    return (y - target) ** 2


def scaled(x, rows, columns):
    return rows * rosenbrock(x / columns)


@pytest.mark.usefixtures("x64")
def test_ten_standard_systems_in_float64_with_fewer_evaluations_than_scipy():
    """An evaluation of Newton's is F with its Jacobian, which SciPy counts apart."""
    total, peers = 0, 0
    for system, start, (f_calls, jacobians) in TEN:
        solution = solve(system, newton(), jnp.asarray(start))
        assert solution.converged and solution.grad_norm < 1e-9, (system.__name__, solution)
        total, peers = total + int(solution.evaluations), peers + f_calls + jacobians
        if system is not powell_singular:
            again = solve(system, newton(), solution.params)
            assert again.converged and again.evaluations <= 3, system.__name__
    assert total < 0.5 * peers


def test_standard_systems_in_float32():
    for system, start, _ in (TEN[1], TEN[3], TEN[8]):
        solution = solve(system, newton(), jnp.asarray(start, jnp.float32))
        assert solution.converged and solution.params.dtype == jnp.float32, system.__name__
        assert solution.grad_norm < 1e-4


@pytest.mark.usefixtures("x64")
def test_broyden_evaluates_few_jacobians_and_ends_by_an_exact_one():
    for system, start, evaluations in ((rosenbrock, TEN[0][1], 40), (broyden_tridiagonal, np.full(10, -1.0), 20)):
        solution = solve(system, broyden(), jnp.asarray(start))
        assert solution.converged and solution.grad_norm < 1e-9 and solution.evaluations <= evaluations
        again = solve(system, broyden(), solution.params)
        assert again.converged and again.evaluations <= 3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_no_root_is_called_one(dtype):
    for method in SMALL:
        at_the_top = solve(no_slope_at_one, method, jnp.ones(1, dtype))
        assert at_the_top.status == Status.STALLED and at_the_top.evaluations == 1
        beside = solve(no_slope_at_one, method, jnp.full(1, 1.001, dtype))
        assert beside.converged and min(abs(beside.params[0]), abs(beside.params[0] - 2)) < 1e-4
        for scale in (1e-8, 1.0, 1e8):
            above = solve(
                lambda x, c: c * (x**2 + 1), method, jnp.full(1, 0.7, dtype), args=(jnp.asarray(scale, dtype),)
            )
            assert not above.converged
    for endless in (decay, reciprocal):
        assert not solve(endless, newton(), jnp.ones(1, dtype), max_steps=60).converged


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_double_root_with_a_row_of_zeros_in_the_jacobian(dtype):
    target = jnp.array([1.0, 2.0], dtype)
    solution = solve(double, newton(), jnp.full(2, 2.0, dtype), args=(target,))
    assert solution.converged and solution.evaluations <= 10
    np.testing.assert_allclose(solution.params, target, 1e-3)
    slower = solve(double, broyden(), jnp.full(2, 2.0, dtype), args=(target,))
    assert np.isfinite(slower.params).all()
    assert not slower.converged or np.allclose(slower.params, target, 1e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_units_of_equations_and_of_unknowns_do_not_matter(dtype):
    counts = set()
    for method in SMALL:
        for rows, columns in (((1, 1), (1, 1)), ((1e-8, 1e-8), (1, 1)), ((1e8, 1e8), (1e-8, 1e-8)), ((1, 1), (1, 1e8))):
            rows, columns = jnp.asarray(rows, dtype), jnp.asarray(columns, dtype)
            solution = solve(scaled, method, jnp.array([-1.2, 1.0], dtype) * columns, args=(rows, columns))
            assert solution.converged
            np.testing.assert_allclose(solution.params / columns, 1, 1e-4)
            counts.add(int(solution.evaluations)) if method is SMALL[0] else None
    assert max(counts) - min(counts) <= 3


def test_what_is_not_finite_is_stepped_back_from_and_refused_at_the_start():
    f = lambda x: jnp.log(x) - 1
    for method in SMALL:
        solution = solve(f, method, jnp.full(1, 30.0))
        assert solution.converged
        np.testing.assert_allclose(solution.params, np.e, 1e-5)
        assert solve(f, method, -jnp.ones(1)).status == Status.NON_FINITE


def test_a_wrong_derivative_is_told_apart():
    @jax.custom_jvp
    def f(x):
        return x - 3

    f.defjvp(lambda primals, tangents: (f(*primals), -tangents[0]))
    assert solve(f, newton(), jnp.full(1, 1.0)).status == Status.LINE_SEARCH_FAILED


def test_trees_complex_leaves_and_aux():
    def f(p):
        z, (a, b) = p["z"], p["ab"]
        return ({"one": z**2 + 1 + a * 0, "two": jnp.stack([a + b - 3, a - b + 1])}, {"seen": a})

    start = {"z": jnp.asarray(0.3 + 0.7j, jnp.complex64), "ab": (jnp.float32(0.0), jnp.float32(0.0))}
    for method in SMALL:
        solution = solve(f, method, start, tol=1e-5, has_aux=True)
        assert solution.converged and jax.tree.structure(solution.params) == jax.tree.structure(start)
        np.testing.assert_allclose(solution.params["z"], 1j, 1e-4, 1e-4)
        np.testing.assert_allclose(solution.params["ab"], (1, 2), 1e-5)
        assert solution.aux[1]["seen"] == solution.params["ab"][0] and solution.params["z"].dtype == jnp.complex64


@pytest.mark.usefixtures("x64")
def test_mixed_dtypes_stay():
    f = lambda p: {"a": p["a"] ** 2 - p["b"], "b": p["b"] - 4 + 0 * p["a"].sum()}
    solution = solve(f, newton(), {"a": jnp.float32(1.0), "b": jnp.float64(1.0)}, tol=2e-5)
    assert solution.converged and (solution.params["a"].dtype, solution.params["b"].dtype) == (jnp.float32, jnp.float64)
    np.testing.assert_allclose(solution.params["a"], 2, 1e-6)


@pytest.mark.usefixtures("x64")
def test_without_a_matrix():
    for system, start in ((broyden_tridiagonal, jnp.full(300, -1.0)), (rosenbrock, jnp.array([-1.2, 1.0]))):
        solution = solve(system, newton(linear_steps=400), start)
        assert solution.converged and solution.grad_norm < 1e-9 and solution.evaluations < 60
        assert solve(system, newton(linear_steps=400), solution.params).evaluations <= 3


@pytest.mark.usefixtures("x64")
def test_a_batch_is_a_loop():
    starts = jnp.array([[0.0, 1.0], [0.5, 2.0], [-1.0, 3.0]])
    batch = jax.vmap(lambda start: solve(powell_badly_scaled, newton(), start))(starts)
    for i, start in enumerate(starts):
        alone = solve(powell_badly_scaled, newton(), start)
        assert batch.converged[i] == alone.converged and abs(batch.evaluations[i] - alone.evaluations) <= 2
    assert solve(rosenbrock, newton(), jnp.ones(2)).evaluations == 1


def test_wrong_problems_are_refused_in_words():
    with pytest.raises(
        ValueError, match="newton: as many equations as unknowns are needed, got 2 equations in 3 unknowns"
    ):
        solve(lambda x: x[:2], newton(), jnp.ones(3))
    with pytest.raises(ValueError, match="broyden: as many equations"):
        solve(lambda x: jnp.sum(x), broyden(), jnp.ones(3))
    with pytest.raises(ValueError, match="newton: linear_steps must be None or an int of at least 1"):
        newton(linear_steps=0)
