"""Hybrids of global search and local solvers: points, lanes, minima that are found, endings, bad arguments."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.search.points import KINDS, draw
from tests.search.local import projected

LOCAL, QUICK = jo.solvers.lbfgsb(memory=5), projected()
BOX = (-5.0, 5.0)


def rastrigin(x):
    """Rotated and shifted, of 2 parameters: 0 at (1.3, -0.7)."""
    z = jnp.array([[0.8, -0.6], [0.6, 0.8]]) @ (x - jnp.array([1.3, -0.7]))
    return 20 + jnp.sum(z * z - 10 * jnp.cos(2 * jnp.pi * z))


def of_keys(method, n=8, f=rastrigin, max_steps=3000):
    starts = jnp.tile(jnp.array([3.0, 4.0]), (n, 1))
    return jo.minimize_batch(f, starts, method, bounds=BOX, max_steps=max_steps, key=jax.random.key(0))


def test_points_fill_the_cube():
    index, like = jnp.arange(64), jnp.zeros(2)
    for kind in KINDS:
        points = np.asarray(draw(kind, jax.random.key(1), index, 64, like))
        others = np.asarray(draw(kind, jax.random.key(2), index[::-1], 64, like))
        assert points.shape == (64, 2) and (points >= 0).all() and (points <= 1).all() and (points != others).all()
        in_cells = np.histogram2d(*points.T, bins=8, range=[[0, 1], [0, 1]])[0]
        most = {"sobol": 1, "halton": 3, "random": 64}[kind]  # Sobol points are a net: one in each cell
        assert in_cells.max() <= most and len(np.unique(points[:, 0])) >= 60, kind


def test_many_starts_find_the_minimum_and_giving_up_the_worst_saves_evaluations():
    method = jo.search.multistart(LOCAL, starts=128, lanes=16, period=3, replaced=0.0)
    all_of_them, fewer = (of_keys(jo.replace(method, {"replaced": share})) for share in (0.0, 0.5))
    for solution in (all_of_them, fewer):
        assert solution.converged.all() and np.mean(solution.value < 1e-3) >= 0.6, solution.value
        assert np.nanmax(solution.grad_norm) < 0.1
    assert fewer.evaluations.sum() < 0.85 * all_of_them.evaluations.sum()


def test_evaluations_are_those_of_the_lanes_that_run():
    f = lambda x: jnp.sum((x - 1) ** 2 + 0.2 * jnp.cos(5 * x))
    one, many = (of_keys(jo.search.multistart(QUICK, starts=5, lanes=lanes), 2, f) for lanes in (1, 5))
    np.testing.assert_array_equal(one.evaluations, one.steps)
    np.testing.assert_array_equal(one.evaluations, many.evaluations)
    assert (
        (many.evaluations < 5 * many.steps).all()
        and (many.steps < one.steps).all()
        and one.converged.all()
        and many.converged.all()
    )


def test_walks_over_minima_end_at_the_lowest():
    steps = dict(local=QUICK, local_steps=6)
    for method in (
        jo.search.basin_hopping(QUICK, hops=40, chains=2),
        jo.search.simulated_annealing(steps=100, chains=4, **steps),
        jo.search.simulated_annealing(steps=400),
        jo.search.genetic(population=12, **steps),
        jo.search.genetic(),
    ):
        solution = of_keys(method, max_steps=800 if "genetic" not in repr(method) else 100)
        assert np.mean(solution.value < 1e-2) >= 0.7, (method, solution.value)
        if "genetic" not in repr(method):
            assert (solution.status != jo.Status.MAX_STEPS).mean() >= 0.7, (method, solution.status)


def test_nothing_finite_and_no_floor():
    for f, status in ((lambda x: jnp.sum(x) * jnp.nan, "NON_FINITE"), (lambda x: -1 / (0 * jnp.sum(x)), "UNBOUNDED")):
        solution = of_keys(jo.search.multistart(QUICK, starts=3), 1, f)
        assert solution.status[0] == jo.Status[status], solution.status


def test_bad_arguments():
    s = jo.search
    rows = (
        (lambda: s.multistart(jo.solvers.lbfgs()), "multistart: local must take bounds, but lbfgs takes none"),
        (lambda: s.basin_hopping(jo.solvers.newton()), "basin_hopping: local must minimize, but newton"),
        (lambda: s.genetic(local=jo.solvers.lbfgs()), "genetic: local must take bounds"),
        (lambda: s.simulated_annealing(local=jo.solvers.lbfgs()), "simulated_annealing: local must take bounds"),
        (lambda: s.multistart(jo.adam(1e-3)), "multistart: local must be a solver"),
        (lambda: s.multistart(starts=0), "multistart: starts must be an int of at least 1, got 0"),
        (
            lambda: s.multistart(points="grid"),  # pyright: ignore[reportArgumentType]
            "points must be one of 'sobol', 'halton', 'random', got 'grid'",
        ),
        (lambda: s.multistart(replaced=1.5), "replaced must be in [0, 1], got 1.5"),
        (lambda: s.multistart(period=0), "period must be an int of at least 1, got 0"),
        (lambda: s.basin_hopping(chains=0), "chains must be an int of at least 1, got 0"),
        (lambda: s.simulated_annealing(chains=0), "chains must be an int of at least 1, got 0"),
        (lambda: s.genetic(population=1), "population must be an int of at least 2, got 1"),
        (lambda: s.genetic(population=4, elite=5), "elite must be at most 4, got 5"),
    )
    for make, message in rows:
        with pytest.raises((ValueError, TypeError), match=re.escape(message)):
            make()


def test_annealing_has_not_converged_at_a_point_that_its_chains_have_left():
    """With some keys all chains end above the best point; these say MAX_STEPS, most others have converged."""
    solutions = of_keys(jo.search.simulated_annealing(steps=600, chains=4), 64, max_steps=600)
    state = solutions.state.method_state
    ended = np.asarray(jnp.min(state.values, axis=1) - solutions.value)
    allowed = 2.5e-5 * np.asarray(state.spread)  # tol in float32, rounded up
    assert set(np.asarray(solutions.status).tolist()) == {jo.Status.CONVERGED_VALUE, jo.Status.MAX_STEPS}
    assert (ended[np.asarray(solutions.converged)] <= allowed[np.asarray(solutions.converged)]).all()
    assert (ended > allowed).any()
