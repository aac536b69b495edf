"""Nelder-Mead: problems with and without bounds, scales, plateaus, and honest endings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.quick import quick_jit
from tests.solvers.families import families, one_of, solve_all
from tests.solvers.problems import TEN, rosenbrock

METHOD = jo.solvers.nelder_mead()


@pytest.mark.usefixtures("x64")
def test_classic_problems():
    for g, starts, rows in families([TEN[i] for i in (0, 2, 3, 4, 5, 6, 8, 9)]):
        for (f, _, value), (solution, _) in zip(
            rows, solve_all(jo.minimize, g, starts, METHOD, max_steps=2000), strict=True
        ):
            assert solution.converged and solution.value - value <= 1e-8 * (1 + value), (f.__name__, solution)
            assert solution.evaluations == solution.steps and np.isnan(solution.grad_norm)


@pytest.mark.usefixtures("x64")
def test_bounds_do_not_flatten_the_simplex():
    rows = (
        (lambda x: jnp.sum(x**2) - 3, [4.0, 4.0], [0.0, 0.0], [4.0, 4.0], [0.0, 0.0]),
        (rosenbrock, [-1.2, 1.0], [-100.0, -100.0], [0.5, 100.0], [0.5, 0.25]),
        (lambda x: jnp.sum((x - 1) ** 2), [10.0, -2.0], [-np.inf, -np.inf], [0.0, np.inf], [0.0, 1.0]),
        (lambda x: jnp.sum(x + 1 / x), [1500.0, 2.0], [1e-12, 1e-12], [np.inf, np.inf], [1.0, 1.0]),
        (lambda x: jnp.sum((x - 3) ** 2) + x[0] * x[1], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]),
    )
    starts, lower, upper, wanted = (np.array([row[k] for row in rows]) for k in (1, 2, 3, 4))
    f = one_of(*(row[0] for row in rows))
    solve = lambda start, low, high, i: jo.minimize(f, start, METHOD, (i,), (low, high), max_steps=3000)
    solution = quick_jit(jax.vmap(solve))(starts, lower, upper, np.arange(5))
    assert solution.converged.all(), solution.status
    np.testing.assert_allclose(solution.params, wanted, atol=1e-5)


def test_scales_of_the_value_and_of_the_parameters_also_from_zeros():
    f = lambda x, factor, unit: factor * rosenbrock(x / unit)
    solve = lambda start, factor, unit: jo.minimize(f, unit * start, METHOD, (factor, unit))
    grid = np.meshgrid(np.array([1e-8, 1e8], np.float32), np.array([1e-8, 1e-4, 1, 1e8], np.float32), [0, 1])
    factors, units, which = (a.ravel() for a in grid)
    starts = np.array([[-1.2, 1.0], [0.0, 0.0]], np.float32)[which]
    solution = quick_jit(jax.vmap(solve))(starts, factors, units)
    right = np.isclose(solution.params / units[:, None], 1, atol=1e-2).all(axis=1)
    assert (right & solution.converged)[which == 0].all() and (right | ~solution.converged).all(), solution.status
    assert right[(which == 1) & (units <= 1)].all()


def test_endings_that_are_no_solutions_say_so_and_kinks_and_saddles_do_not_end_a_solve():
    bowl, ridge = lambda x: jnp.sum((x - 1) ** 2), lambda p: p[0] ** 2 - p[1] ** 2 + 0.25 * p[1] ** 4
    rows = (
        (lambda x: jnp.sum(x) * 0 + 5, [1.0, 2.0], jo.Status.STALLED),
        (lambda x: bowl(x) + 1e6, [3.0, 2.0], jo.Status.STALLED),
        (lambda x: jnp.sum(jnp.log(x)), [-1.0, 1.0], jo.Status.NON_FINITE),
        (lambda x: -x[0], [1.0, 1.0], jo.Status.UNBOUNDED),
        (lambda x: jnp.sum(x - 10 * jnp.log(x)) + 26, [1e4, 10.0], [10.0, 10.0]),
        (lambda x: jnp.sum(jnp.abs(x - 1)), [0.3, -2.0], [1.0, 1.0]),
        (ridge, [1.0, 0.0], None),
    )
    f, starts = one_of(*(row[0] for row in rows)), np.array([row[1] for row in rows], np.float32)
    for (*_, wanted), (solution, _) in zip(rows, solve_all(jo.minimize, f, starts, METHOD), strict=True):
        if isinstance(wanted, list):
            assert solution.converged, solution
            np.testing.assert_allclose(solution.params, wanted, 1e-3)
        elif wanted is None:
            np.testing.assert_allclose(solution.value, -1, 1e-4)
        else:
            assert solution.status == wanted, solution


def test_out_of_steps_is_resumed_with_progress(capsys):
    f = lambda x: jnp.sum((x - 1) ** 2)
    first = jo.minimize(f, jnp.array([3.0, 1.0]), METHOD, max_steps=30, progress="lines")
    assert first.status == jo.Status.MAX_STEPS and "value" in capsys.readouterr().err
    whole, both = jo.minimize(f, jnp.array([3.0, 1.0]), METHOD), jo.minimize(f, first.params, METHOD, state=first.state)
    assert both.converged and both.evaluations == whole.evaluations and (both.params == whole.params).all()


def test_the_aux_of_the_best_point_and_trees():
    f = lambda p: ((p["x"] - 3) ** 2 + jnp.sum(jnp.abs(p["z"] - 1j) ** 2), {"seen": p})
    start = {"x": jnp.zeros(()), "z": jnp.ones(1, jnp.complex64)}
    solution = jo.minimize(f, start, method=METHOD, has_aux=True)
    assert solution.converged and jax.tree.all(jax.tree.map(jnp.array_equal, solution.aux["seen"], solution.params))


def test_bad_numbers_are_refused():
    with pytest.raises(TypeError, match="adaptive must be True or False"):
        jo.solvers.nelder_mead(adaptive=1)  # pyright: ignore[reportArgumentType]
