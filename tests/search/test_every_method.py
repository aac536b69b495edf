"""Laws of all methods of global search, one program for each method, run on some problems at once.

A new method is covered as soon as it stands in `jo.search`; `SMALL` may give it arguments that make its runs short.
"""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.core.method import Objective, Solver, default_tol
from jaxopt_lite.solve.solution import begin, run
from tests.quick import quick_jit
from tests.search.local import projected

LOCAL = projected()
SMALL = {
    "multistart": dict(local=LOCAL, starts=6, lanes=3, local_steps=8, period=4, replaced=0.5),
    "basin_hopping": dict(local=LOCAL, hops=2, chains=2, local_steps=8),
    "simulated_annealing": dict(steps=24, chains=4),
    "genetic": dict(population=8),
}
HYBRIDS = (
    jo.search.simulated_annealing(local=LOCAL, steps=12, chains=2, local_steps=2),
    jo.search.genetic(local=LOCAL, population=5, local_steps=2),
)
FACTORIES = [name for name in jo.search.__all__ if getattr(getattr(jo.search, name), "spec", None) is not None]
METHODS = [getattr(jo.search, name)(**SMALL.get(name, {})) for name in FACTORIES] + list(HYBRIDS)
IDS = FACTORIES + [f"{method.factory.spec.name} with local steps" for method in HYBRIDS]

STEPS, PART = 30, 5
OUTSIDE = -1e30  # the value outside the box: a method that ever evaluates there returns it
SPIKE = -1e9  # the value at the start alone


def problem(start, lower, upper, key, offset, spike):
    """A bumpy bowl that is NaN in one part of its box and infinite in another."""

    def f(x):
        every = lambda holds, other: jnp.array([jnp.all(holds(a, b)) for a, b in zip(*map(jax.tree.leaves, other))])
        inside = jnp.all(every(jnp.less_equal, (lower, x))) & jnp.all(every(jnp.less_equal, (x, upper)))
        z = jnp.concatenate([jnp.ravel(x["a"]).astype(float), x["b"] / 10])
        value = jnp.sum(z**2) - 0.1 * jnp.sum(jnp.cos(9 * z)) + offset
        value = jnp.where(z[0] > 0.8, jnp.nan, jnp.where(z[1] < -0.8, jnp.inf, value))
        value = jnp.where(inside, value, OUTSIDE)
        at_start = jnp.all(every(jnp.equal, (x, start)))
        return jnp.where(spike & at_start, SPIKE, value), {"seen": x}

    return Objective(f, has_aux=True, tol=default_tol(np.float64), lower=lower, upper=upper, key=key)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_laws(method):
    start = {"a": jnp.array([[0.5], [-0.25]], jnp.float32), "b": jnp.array(3.0)[None]}
    lower, upper = (jax.tree.map(lambda x, r=r: jnp.full_like(x, r), start) for r in (-1.0, 1.0))
    lower["b"], upper["b"] = jnp.array([-10.0]), jnp.array([9.0])
    keys = jax.random.split(jax.random.key(4))[np.array([0, 1, 0, 0, 0])]
    rows = (keys, jnp.array([0, 0, 1e6, -1e6, 0]), jnp.array([False] * 4 + [True]))

    def first(key, offset, spike):
        return begin(method, problem(start, lower, upper, key, offset, spike), start)

    @quick_jit
    def solve(method, states, most):
        one = lambda state, *row: run(method, problem(start, lower, upper, *row), state, most)
        return jax.vmap(one)(states, *rows)

    unstarted = quick_jit(jax.vmap(first))(*rows)
    whole, again = (solve(jo.arrays(method), unstarted, STEPS) for _ in range(2))
    part = solve(jo.arrays(method), unstarted, PART)
    resumed = solve(jo.arrays(method), part, STEPS)

    bits = lambda state, i: [np.asarray(x[i]).tobytes() for x in jax.tree.leaves((state.params, state.info))]
    assert bits(whole, ...) == bits(again, ...) == bits(resumed, ...), (
        "the same key gives the same bits, also when it is resumed"
    )
    assert bits(whole, 0) != bits(whole, 1), "another key"
    # A method that evaluated a point outside the box would have returned its value.
    assert (whole.info.value > SPIKE)[:4].all() and np.isfinite(whole.info.value).all(), whole.info.value
    for name, leaf in whole.params.items():
        assert leaf.dtype == start[name].dtype and (leaf == np.clip(leaf, lower[name], upper[name])).all()
        np.testing.assert_array_equal(leaf, whole.info.aux["seen"][name], "aux is that of the point")
        np.testing.assert_array_equal(leaf[4], start[name], "the start is evaluated, and kept where it is the best")
        np.testing.assert_allclose(leaf[2:4], jnp.stack([leaf[0]] * 2), atol=2e-3, err_msg="an offset moves nothing")
    assert whole.info.value[4] == SPIKE and whole.info.value[0] < 1.0
    assert (np.abs(whole.steps[2:4] - whole.steps[0]) <= 0.3 * whole.steps[0]).all(), whole.steps
    assert (whole.evaluations >= whole.steps).all() and (part.steps <= PART).all()


@pytest.mark.parametrize("method", METHODS[: len(FACTORIES)], ids=FACTORIES)
def test_one_dimension_in_a_batch(method):
    f = lambda x, shift: (x - shift) ** 2 + 0.1 * jnp.cos(20 * x)
    key, shifts = jax.random.key(0), jnp.array([0.0, 1.0, -0.5])
    given: Any = dict(bounds=(-1.0, 2.0), max_steps=25)
    batch = jo.minimize_batch(f, jnp.full(3, 0.3), method, (shifts,), args_axes=(0,), key=key, **given)
    alone = jo.minimize(f, 0.3, method, (shifts[1],), key=jax.random.split(key, 3)[1], **given)
    np.testing.assert_allclose(alone.value, batch.value[1], atol=1e-3)
    grid = np.linspace(-1, 2, 3001)
    for i, shift in enumerate(np.asarray(shifts)):
        least = np.min((grid - shift) ** 2 + 0.1 * np.cos(20 * grid))
        assert least - 1e-5 <= batch.value[i] <= least + 0.3, (batch.value[i], least)


def test_values():
    for name in FACTORIES:
        small = SMALL.get(name, {})
        method = getattr(jo.search, name)(**small | ({"local": jo.solvers.lbfgsb()} if "local" in small else {}))
        assert isinstance(method, Solver) and method.needs_box and method.needs_key
        assert jo.parse(repr(method)) == method and pickle.loads(pickle.dumps(method)) == method
        assert repr(method).startswith("search.")
