"""Newton's and Broyden's methods: standard systems, honest endings, scales, precision, trees, batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite import Status
from jaxopt_lite.solvers import broyden, newton
from tests.quick import quick_jit
from tests.solvers.families import families, one_of, solve_all
from tests.solvers.systems import TEN, broyden_tridiagonal, powell_badly_scaled, powell_singular, rosenbrock

SMALL = (newton(), broyden())


def scaled(x, rows, columns):
    return rows * rosenbrock(x / columns)


@pytest.mark.usefixtures("x64")
def test_ten_standard_systems_in_float64_with_fewer_evaluations_than_scipy():
    """An evaluation of Newton's is F with its Jacobian, which SciPy counts apart."""
    total, peers = 0, 0
    for f, starts, rows in families(TEN):
        for (system, _, (f_calls, jacobians)), (solution, again) in zip(
            rows, solve_all(jo.root, f, starts, newton()), strict=True
        ):
            assert solution.converged and solution.grad_norm < 1e-9, (system.__name__, solution)
            few = 5 if system is powell_singular else 3  # its Jacobian is singular at the root
            assert again.converged and again.evaluations <= few, (system.__name__, again)
            total, peers = total + int(solution.evaluations), peers + f_calls + jacobians
    assert total < 0.5 * peers


def test_standard_systems_in_float32():
    for f, starts, rows in families([TEN[i] for i in (5, 6, 7, 8)]):
        for (system, *_), (solution, again) in zip(rows, solve_all(jo.root, f, starts, newton()), strict=True):
            assert solution.converged and solution.params.dtype == jnp.float32, system.__name__
            assert solution.grad_norm < 1e-3 and again.converged and again.evaluations <= 3, (system.__name__, again)


@pytest.mark.usefixtures("x64")
def test_broyden_evaluates_few_jacobians_and_ends_by_an_exact_one():
    for system, start, evaluations in ((rosenbrock, TEN[0][1], 40), (broyden_tridiagonal, np.full(10, -1.0), 20)):
        solution = jo.root(system, start, method=broyden())
        assert solution.converged and solution.grad_norm < 1e-9 and solution.evaluations <= evaluations
        again = jo.root(system, solution.params, method=broyden())
        assert again.converged and again.evaluations <= 3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_root_is_called_one_and_roots_of_higher_order_are_found(dtype):
    no_slope = lambda x: x**2 - 2 * x
    above = tuple(lambda x, c=c: c * (x**2 + 1) for c in (1e-8, 1.0, 1e8))
    endless = (lambda x: jnp.exp(-x), lambda x: 1 / x)
    multiple = (lambda x: (x - 1) ** 2, lambda x: x * x - 2 * x + 1, lambda x: x**2 + x**3)
    f = one_of(no_slope, no_slope, *above, *endless, *multiple)
    starts = np.array([[1.0], [1.001], [0.7], [0.7], [0.7], [1.0], [1.0], [3.0], [3.0], [1.0]], dtype)
    for method in SMALL:
        pairs = solve_all(jo.root, f, starts, method, max_steps=80)
        at_the_top, beside = pairs[0][0], pairs[1][0]
        assert at_the_top.status == Status.STALLED and at_the_top.evaluations == 1
        assert beside.converged and min(abs(beside.params[0]), abs(beside.params[0] - 2)) < 1e-4
        assert not any(solution.converged for solution, _ in pairs[2 : 7 if method is SMALL[0] else 5])
        for root, (solution, again) in zip((1, 1, 0), pairs[7 : 10 if method is SMALL[0] else 9], strict=False):
            assert solution.converged and again.converged and again.evaluations <= 3, (method, root, solution, again)
            np.testing.assert_allclose(solution.params, root, 3e-4, 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_double_root_with_a_row_of_zeros_in_the_jacobian(dtype):
    target, double = np.array([1.0, 2.0], dtype), lambda y, target: (y - target) ** 2
    solution = jo.root(double, np.full(2, 2.0, dtype), args=(target,))
    assert solution.converged and solution.evaluations <= 10
    np.testing.assert_allclose(solution.params, target, 1e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_units_of_equations_and_of_unknowns_do_not_matter(dtype):
    rows = np.array([(1, 1), (1e-8, 1e-8), (1e8, 1e8), (1, 1)], dtype)
    columns = np.array([(1, 1), (1, 1), (1e-8, 1e-8), (1, 1e8)], dtype)
    for method in SMALL:
        solve = lambda rows, columns, method=method: jo.root(
            scaled, jnp.array([-1.2, 1.0], dtype) * columns, args=(rows, columns), method=method
        )
        solution = quick_jit(jax.vmap(solve))(rows, columns)
        assert solution.converged.all(), solution.status
        np.testing.assert_allclose(solution.params / columns, 1, 1e-4)
        assert method is SMALL[1] or np.ptp(solution.evaluations) <= 3


@pytest.mark.usefixtures("x64")
def test_rounding_of_constants_at_a_root_at_zero_ends_a_solve():
    f = lambda x: jnp.stack([x[0] + x[1], jnp.exp(x[0]) - jnp.cos(x[1]) + 1e-3 * x[1]])
    for dtype in (np.float32, np.float64):
        solution = jo.root(f, np.array([1.0, 0.3], dtype))
        assert solution.converged and np.abs(solution.params).max() < np.finfo(dtype).eps, solution
    assert jo.root(f, solution.params).evaluations <= 3
    single = jo.root(powell_singular, np.array(TEN[3][1], np.float32))
    assert single.converged and jo.root(powell_singular, single.params).converged


def test_what_is_not_finite_is_stepped_back_from_and_refused_at_the_start():
    f = lambda x: jnp.log(x) - 1
    for method in SMALL:
        solution = jo.root(f, jnp.full(1, 30.0), method=method)
        assert solution.converged
        np.testing.assert_allclose(solution.params, np.e, 1e-5)
        assert jo.root(f, -jnp.ones(1), method=method).status == Status.NON_FINITE


def test_a_wrong_derivative_is_told_apart():
    @jax.custom_jvp
    def f(x):
        return x - 3

    f.defjvp(lambda primals, tangents: (f(*primals), -tangents[0]))
    assert jo.root(f, jnp.full(1, 1.0)).status == Status.LINE_SEARCH_FAILED


def test_trees_complex_leaves_and_aux():
    def f(p):
        z, (a, b) = p["z"], p["ab"]
        return ({"one": z**2 + 1 + a * 0, "two": jnp.stack([a + b - 3, a - b + 1])}, {"seen": a})

    start = {"z": jnp.asarray(0.3 + 0.7j, jnp.complex64), "ab": (jnp.float32(0.0), jnp.float32(0.0))}
    for method in SMALL[:1]:
        solution = jo.root(f, start, method=method, tol=1e-5, has_aux=True)
        assert solution.converged and jax.tree.structure(solution.params) == jax.tree.structure(start)
        np.testing.assert_allclose(solution.params["z"], 1j, 1e-4, 1e-4)
        np.testing.assert_allclose(solution.params["ab"], (1, 2), 1e-5)
        assert solution.aux["seen"] == solution.params["ab"][0] and solution.params["z"].dtype == jnp.complex64


@pytest.mark.usefixtures("x64")
def test_mixed_dtypes_stay():
    f = lambda p: {"a": p["a"] ** 2 - p["b"], "b": p["b"] - 4 + 0 * p["a"].sum()}
    solution = jo.root(f, {"a": np.float32(1.0), "b": np.float64(1.0)}, tol=2e-5)
    assert solution.converged and (solution.params["a"].dtype, solution.params["b"].dtype) == (jnp.float32, jnp.float64)
    np.testing.assert_allclose(solution.params["a"], 2, 1e-6)


@pytest.mark.usefixtures("x64")
def test_without_a_matrix():
    method = newton(linear_steps=400)
    for system, start in ((broyden_tridiagonal, jnp.full(300, -1.0)), (rosenbrock, jnp.array([-1.2, 1.0]))):
        solution = jo.root(system, start, method=method)
        assert solution.converged and solution.grad_norm < 1e-9 and solution.evaluations < 60
        assert jo.root(system, solution.params, method=method).evaluations <= 3


@pytest.mark.usefixtures("x64")
def test_a_batch_is_a_loop():
    starts = jnp.array([[0.0, 1.0], [0.5, 2.0], [-1.0, 3.0]])
    solve = quick_jit(jax.vmap(lambda start: jo.root(powell_badly_scaled, start)))
    batch = solve(starts)
    for i in range(3):
        alone = jax.tree.map(lambda leaf: leaf[0], solve(starts[i : i + 1].repeat(3, 0)))
        assert batch.converged[i] == alone.converged and abs(batch.evaluations[i] - alone.evaluations) <= 2
    assert jo.root(powell_badly_scaled, batch.params[0]).evaluations == 1


@pytest.mark.usefixtures("x64")
def test_unrolled_derivatives_pass_through_a_residual_of_zero():
    f = lambda x, a: jnp.stack([x[0] ** 3 - a, x[1] - x[0]])
    solve = lambda a: jo.root(f, jnp.ones(2), args=(a,), max_steps=12, differentiate="unrolled").params[1]
    np.testing.assert_allclose(jax.grad(solve)(2.0), 2 ** (-2 / 3) / 3, 1e-9)


def test_wrong_problems_are_refused_in_words():
    with pytest.raises(ValueError, match="root: needs as many equations as unknowns, got 2 equations and 3 unknowns"):
        jo.root(lambda x: x[:2], jnp.ones(3))
    with pytest.raises(ValueError, match="newton: as many equations as unknowns are needed, got 2 equations in 3"):
        newton().init(jo.Objective(residual=lambda x: x[:2]), jnp.ones(3))
    with pytest.raises(ValueError, match="newton: linear_steps must be an int of at least 1"):
        newton(linear_steps=0)
