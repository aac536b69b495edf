"""The BBOB functions: their values as in the package cma, their optima, derivatives and arguments."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.problems.draws import park_miller
from tests.quick import quick_jit
from tests.search.make_bbob import INSTANCES

GOLDENS = np.load(Path(__file__).with_name("bbob.npz"))


def test_the_generator_by_hand():
    state, table = 1, [0] * 32
    for i in range(39, -1, -1):
        state = 16807 * state % (2**31 - 1)
        table[i % 32] = state if i < 32 else table[i % 32]
    slot = table[0] // 67108865
    assert (
        park_miller(2, 1)[0] == table[slot] / 2147483647
        and park_miller(2, 0)[0] == park_miller(1, -1)[0] == park_miller(1, 1)[0]
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("n", "instance"), [(2, 1), (20, 5)])
def test_values_and_optima(n, instance):
    problems = [jo.bbob(k, n, instance) for k in range(1, 25)]
    f = quick_jit(jax.vmap(lambda x: jnp.stack([p.f(x) for p in problems]), out_axes=1))
    points = np.concatenate([GOLDENS[f"points_{n}"], [p.optimum for p in problems]])
    least = np.array([p.value for p in problems])
    found, i = np.asarray(f(points)) - least[:, None], INSTANCES.index(instance)
    assert (least == GOLDENS["least"][:, i]).all()
    np.testing.assert_allclose(found[:, :4], GOLDENS[f"values_{n}"][:, i], rtol=1e-10, atol=1e-10)
    assert np.abs(np.diagonal(found[:, 4:])).max() < 1e-9
    off = found[~np.eye(24, 28, 4, dtype=bool)]
    assert off.min() > -1e-9  # no other point is lower


def test_derivatives_and_dtypes():
    """In float32, whose gradient is finite also at the optimum."""
    problems = [jo.bbob(k, 3) for k in range(1, 25)]
    total = lambda points: sum(p.f(x) for p, x in zip(problems, points, strict=True))
    slopes, x = quick_jit(jax.grad(total)), np.full((24, 3), [0.3, -1.2, 2.0], np.float32)
    assert np.isfinite(slopes(x)).all() and slopes(x).dtype == jnp.float32
    assert np.isfinite(slopes(np.array([p.optimum for p in problems], np.float32))).all()
    r = jo.bbob(8, 3).f
    step = jnp.array([1e-2, 0, 0])
    np.testing.assert_allclose(slopes(x)[7, 0], (r(x[7] + step) - r(x[7] - step)) / 2e-2, rtol=1e-2)


def test_a_problem_is_a_value_that_minimize_takes():
    problem = jo.bbob(1, 2)
    assert problem is jo.bbob(1, 2, 1) and problem.f is jo.bbob(1, 2).f and "sphere" in repr(problem)
    solution = jo.minimize(problem.f, jnp.zeros(2), bounds=problem.bounds)
    np.testing.assert_allclose(solution.params, problem.optimum, atol=1e-3)
    with pytest.raises(ValueError, match="read-only"):
        problem.optimum[0] = 1
    for arguments, words in (
        ((0, 2), "function must be an int of at least 1, got 0"),
        ((25, 2), "function must be at most 24"),
        ((1, 1), "dimension must be an int of at least 2"),
        ((1, 2, 0), "instance must be"),
        ((1.0, 2), "function must be an int"),
    ):
        with pytest.raises(ValueError, match=words):
            jo.bbob(*arguments)
    with pytest.raises(ValueError, match=r"vector of 2 floats, got shape \(3,\)"):
        problem.f(jnp.zeros(3))
