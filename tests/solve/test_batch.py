"""Many solves in one program: lanes end by themselves, gathering changes no status, bad batches are named."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.run import batches, parts
from jaxopt_lite.solve.batch import widths
from tests.solvers.problems import rosenbrock

STARTS = jax.random.normal(jax.random.key(0), (20, 2)) * 2


def test_a_batch_is_vmap_and_gathering_changes_little(capsys):
    batch = jo.minimize_batch(rosenbrock, STARTS)
    mapped = jax.jit(jax.vmap(lambda start: jo.minimize(rosenbrock, start)))(STARTS)
    jax.tree.map(np.testing.assert_array_equal, batch.params, mapped.params)
    assert batch.converged.all() and len(batch.message) == 20
    gathered = jo.minimize_batch(rosenbrock, STARTS, gather=True, progress="lines")
    assert "20/20" in capsys.readouterr().err
    assert gathered.converged.all() and jax.tree.structure(gathered) == jax.tree.structure(batch)
    np.testing.assert_allclose(gathered.params, batch.params, 1e-2)
    assert abs(int(gathered.evaluations.sum()) - int(batch.evaluations.sum())) < 0.1 * int(batch.evaluations.sum())


def test_lanes_have_their_own_args_keys_and_statuses():
    f = lambda x, c, scale: jnp.where(c["c"][0] < 0, jnp.nan, 1.0) * jnp.sum(scale * (x - c["c"]) ** 2)
    centres = {"c": jnp.array([[1.0, 2.0], [-1.0, 0.0], [3.0, 4.0]])}
    for gather in (False, True):
        batch = jo.minimize_batch(f, jnp.zeros((3, 2)), args=(centres, 2.0), args_axes=(0, None), gather=gather)
        assert batch.status.tolist() == [1, jo.Status.NON_FINITE, 1]
        np.testing.assert_allclose(batch.params[::2], centres["c"][::2], 1e-4)
    same = jo.minimize_batch(
        f, jnp.zeros((1, 2)), args=(jax.tree.map(lambda x: x[:1], centres), 2.0), args_axes=(0, None)
    )
    np.testing.assert_allclose(same.params[0], [1, 2], 1e-4)


def test_many_lanes_are_divided_among_the_cores(monkeypatch, x64, capsys):
    f = lambda x, c, scale: jnp.where(c[0] < 0, jnp.nan, 1.0) * jnp.sum(scale * (x - c) ** 2)
    centres = jnp.stack([jnp.arange(131.0) - 1, jnp.arange(131.0)], axis=1)
    solve = lambda: jo.minimize_batch(
        f, jnp.zeros((131, 2)), args=(centres, 2.0), args_axes=(0, None), max_steps=10**12
    )
    rounds = lambda: jo.minimize_batch(
        f, jnp.zeros((131, 2)), args=(centres, 2.0), args_axes=(0, None), gather=True, progress="lines"
    )
    shapes = []
    for number, call in ((1, solve), (2, solve), (2, rounds)):
        monkeypatch.setattr(batches, "number_of_parts", lambda lanes, number=number: number)
        found = call()
        assert found.params.dtype == jnp.float64 and len(found.params) == 131
        assert found.status.tolist() == [jo.Status.NON_FINITE] + [1] * 130
        np.testing.assert_allclose(found.params[1:], centres[1:], 1e-8)
        jax.tree.map(np.testing.assert_array_equal, call(), found)
        shapes.append(jax.tree.map(jnp.shape, found))
    assert shapes[0] == shapes[1] == shapes[2] and "131/131" in capsys.readouterr().err


def test_the_number_of_parts(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(4), raising=False)
    found = [parts.number_of_parts(lanes) for lanes in (1, 127, 128, 200, 256, 10_000)]
    assert found == ([1, 1, 2, 3, 4, 4] if jax.devices()[0].platform == "cpu" else [1] * 6)
    with jax.disable_jit():
        assert parts.number_of_parts(10_000) == 1


@pytest.mark.parametrize("gather", (False, True))
def test_a_batch_is_differentiated_and_bounded(gather):
    total = lambda t: jo.minimize_batch(
        lambda x, t: jnp.sum((x - t) ** 2), STARTS, args=(t,), bounds=(None, 1.0), max_steps=10**12, gather=gather
    ).params.sum()
    np.testing.assert_allclose(jax.grad(total)(0.5), 40, 1e-4)
    np.testing.assert_allclose(jax.grad(total)(1.5), 0, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(total))(0.5), 40, 1e-4)


def test_gathering_saves_the_evaluations_of_lanes_that_have_ended():
    made = []

    def on_host(x):
        made.append(len(x))
        return np.sum(x**2, axis=-1)

    f = lambda x: jax.pure_callback(on_host, jax.ShapeDtypeStruct((), x.dtype), x, vmap_method="broadcast_all")
    starts = jnp.full((40, 2), jnp.inf).at[17].set(1.0)  # all lanes but one end at once
    solve = lambda gather: jo.minimize_batch(f, starts, jo.solvers.nelder_mead(), tol=1e-3, gather=gather)
    together, wide = solve(False), sum(made)
    made.clear()
    gathered, narrow = solve(True), sum(made)
    jax.tree.map(np.testing.assert_array_equal, gathered, together)
    assert set(made) == {40, 10} and narrow < wide / 3
    assert [widths(n) for n in (15, 40, 1024)] == [[15], [40, 10], [1024, 256, 64, 16]]


def test_starts_that_are_known_within_a_trace():
    for solve in (
        lambda: jo.minimize_batch(rosenbrock, STARTS).params,
        lambda: jo.minimize(rosenbrock, STARTS[0]).params,
    ):
        np.testing.assert_allclose(jax.jit(solve)(), jnp.ones_like(solve()), 1e-3)


def test_mistakes_are_named():
    f = lambda x: jnp.sum(x**2)
    for call, words in (
        (lambda: jo.minimize_batch(f, 1.0), "has no leading axis"),
        (lambda: jo.minimize_batch(f, {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2))}), "one leading axis.*3 at starts"),
        (lambda: jo.minimize_batch(f, jnp.ones((0, 2))), "at least 1 lane"),
        (lambda: jo.minimize_batch(lambda x, a: f(x), STARTS, args=(jnp.ones(3),), args_axes=0), "leading axis of 20"),
        (lambda: jo.minimize_batch(f, STARTS, args_axes=(0,)), "args_axes must be"),
        (lambda: jax.jit(lambda s: jo.minimize_batch(f, s, progress="lines").params)(STARTS), "cannot be used under"),
        (lambda: jax.jit(lambda s: jo.minimize_batch(f, s, gather=True, differentiate="unrolled"))(STARTS), "unrolled"),
        (lambda: jo.minimize_batch(f, STARTS, gather=1), "gather must be"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            call()
    with pytest.raises(TypeError, match=r"shape \(20,\).*minimize_batch"):
        jo.minimize(lambda x: jnp.sum(x**2, axis=-1), STARTS)
