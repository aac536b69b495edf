"""L-BFGS and gradient descent with a line search: classic problems, batches, precision, and honest endings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.solvers import linesearch
from tests.quick import quick_jit
from tests.solvers.problems import TEN, rosenbrock


@pytest.mark.usefixtures("x64")
def test_ten_classic_problems_in_float64():
    evaluations = 0
    for f, start, value in TEN:
        solution = jo.minimize(f, start)
        evaluations += int(solution.evaluations)
        assert solution.value <= value * (1 + 1e-10) + 1e-16, f.__name__
        assert solution.converged or f.__name__ == "brown_badly_scaled", (f.__name__, solution)
        assert solution.evaluations == solution.steps
    assert evaluations <= 1150


def test_classic_problems_in_float32():
    """Wood's saddle, where the gradient is 2e-3, is no minimum."""
    for f, start, value in (TEN[1], TEN[8], TEN[9]):
        solution = jo.minimize(f, start.astype(np.float32), max_steps=500)
        assert solution.params.dtype == jnp.float32
        assert solution.converged and solution.value <= value * (1 + 1e-5) + 1e-6, (f.__name__, solution)


def test_a_batch_is_a_loop_and_waits_for_no_line_search():
    """Every lane ends by itself, with the numbers that it has alone."""
    starts = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)) * 2, jnp.float32)
    batch = quick_jit(jax.vmap(lambda start: jo.minimize(rosenbrock, start)))(starts)
    for i, start in enumerate(starts):
        alone = jo.minimize(rosenbrock, start)
        assert batch.converged[i] and alone.converged
        np.testing.assert_allclose(batch.params[i], 1, 1e-2)
    assert len(set(np.asarray(batch.evaluations).tolist())) > 1
    assert len(batch.message) == 6 and "shape (6,)" in repr(batch)


def test_a_sweep_over_a_solvers_numbers_is_a_vmap():
    solve = lambda first: jo.minimize(rosenbrock, jnp.array([-1.2, 1.0]), method=jo.solvers.lbfgs(first_step=first))
    batch = jax.vmap(solve)(jnp.array([0.1, 1.0, 3.0]))
    assert batch.converged.all() and len(set(np.asarray(batch.evaluations).tolist())) == 3


def test_gradient_descent_reaches_the_minimum_of_a_bowl():
    bowl = lambda x: 0.5 * jnp.sum(jnp.array([1.0, 10.0]) * (x - 3) ** 2)
    solution = jo.minimize(bowl, jnp.zeros(2), method=jo.solvers.gradient_descent())
    assert solution.converged and solution.evaluations < 60
    np.testing.assert_allclose(solution.params, 3, 1e-4)


def test_any_tree_of_parameters_complex_ones_too():
    def f(p):
        return jnp.sum((p["a"] - 1) ** 2) + 3 * jnp.sum((p["b"][0] - 2) ** 2) + jnp.abs(p["c"] - (1 + 2j)) ** 2

    start = {"a": jnp.zeros((2, 3)), "b": [jnp.zeros(4)], "c": jnp.zeros((), jnp.complex64)}
    solution = jo.minimize(f, start)
    assert solution.converged and jax.tree.structure(solution.params) == jax.tree.structure(start)
    np.testing.assert_allclose(solution.params["c"], 1 + 2j, 1e-4)
    np.testing.assert_allclose(solution.params["b"][0], 2, 1e-4)


def test_a_start_at_the_optimum_takes_one_evaluation():
    solution = jo.minimize(lambda x: jnp.sum(x**2), jnp.zeros(3))
    assert (solution.evaluations, solution.converged) == (1, True) and solution.params.tolist() == [0, 0, 0]


@pytest.mark.usefixtures("x64")
def test_a_tolerance_below_the_floor_ends_soon_and_is_no_failed_line_search():
    solution = jo.minimize(rosenbrock, np.array([-1.2, 1.0]), tol=1e-16)
    assert solution.evaluations <= 300
    assert solution.status in (jo.Status.CONVERGED_GRADIENT, jo.Status.STALLED)
    np.testing.assert_allclose(solution.params, 1, 1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_an_offset_of_the_value_changes_little(offset):
    """In float32 the value is then a staircase of 1e-3, and slopes steer the search."""
    f = lambda x, offset: 0.5 * jnp.sum(jnp.arange(1.0, 61.0) * (x - 1) ** 2) + offset
    solution = jo.minimize(f, jnp.zeros(60), args=(offset,))
    assert solution.converged and solution.evaluations < 100
    np.testing.assert_allclose(solution.params, 1, 1e-3)


def test_what_is_not_finite_is_stepped_back_from():
    """The logarithm is NaN below zero, and no bound is given."""
    rate = lambda r: jnp.sum(r - 10 * jnp.log(r))
    for start in (1e-3, 1.6, 500.0, 1e4):
        solution = jo.minimize(rate, jnp.array([start]))
        assert solution.converged, (start, solution)
        np.testing.assert_allclose(solution.params, 10, 1e-3)


def test_endings_that_are_no_solutions_say_so():
    wrong = jax.custom_jvp(lambda x: jnp.sum(x**2))
    wrong.defjvp(lambda primals, tangents: (jnp.sum(primals[0] ** 2), -jnp.sum(primals[0] * tangents[0])))
    for f, start, status in (
        (lambda x: jnp.sum(jnp.log(x)), jnp.array([-1.0]), jo.Status.NON_FINITE),
        (wrong, jnp.array([1.0, 2.0]), jo.Status.LINE_SEARCH_FAILED),
        (rosenbrock, jnp.array([-1.2, 1.0]), jo.Status.MAX_STEPS),
    ):
        solution = jo.minimize(f, start, max_steps=30)
        assert solution.status == status and not solution.converged, solution
        assert jo.Status(int(solution.status)).message == solution.message


def test_the_line_search_by_hand():
    """φ(t) = (t - 1)²: 0.5 is taken with a loose c2, and with a strict one the cubic finds 1 from both sides."""
    phi, slope = lambda t: (t - 1.0) ** 2, lambda t: 2 * (t - 1.0)
    for first, c2, wanted in ((0.5, 0.9, 0.5), (0.2, 0.1, 1.0), (4.0, 0.1, 1.0)):
        search = linesearch.begin(jnp.float32(1.0), jnp.float32(-2.0), first)
        for _ in range(6):
            t = search.t
            search, accepted, failed = linesearch.judge(search, phi(t), slope(t), 1e-4, c2, 10)
            if accepted:
                break
        assert accepted and not failed and t == pytest.approx(wanted, abs=0.05)


def test_bad_numbers_are_refused():
    for make, words in (
        (lambda: jo.solvers.lbfgs(c1=0.9, c2=0.1), "c1 must be less than c2"),
        (lambda: jo.solvers.lbfgs(memory=0), "memory must be an int of at least 1"),
        (lambda: jo.solvers.gradient_descent(tries=0), "tries must be an int of at least 1"),
        (lambda: jo.solvers.lbfgs(first_step=-1.0), "first_step must be above 0"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
