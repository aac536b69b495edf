"""CMA-ES: its parameters and one update by the tutorial's formulas, what it finds, when it restarts and how it ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite import tree
from jaxopt_lite.core.execution import any_lane
from jaxopt_lite.search.distribution import Gaussian, rates_of, updated
from tests.quick import quick_jit
from tests.solvers.families import one_of

ONE = jo.search.cma_es(restarts=0)


def test_parameters_by_hand():
    """For n = 3, λ = 7: logarithms of 4 / i, and then Table 1."""
    rates = rates_of(3, 7, 9)
    hand = [0.585645, 0.292823, 0.121533, 0, -0.424128, -0.770663, -1.063658, 0, 0]
    np.testing.assert_allclose(rates.w, hand, atol=2e-6)
    hand = [2.254816, 0.558801, 0.096409, 0.069588, 0.414909, 1.414909, 1]
    np.testing.assert_allclose(rates[1:], hand, atol=2e-6)
    assert rates_of(400, 8).gap > 1 == rates_of(40, 15).gap and np.isclose(rates_of(40, 15).w[:7].sum(), 1)
    assert min(rates_of(1, 2).w) < 0 < rates_of(1, 2).c_mu


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("stretch", [0.7, 20.0])  # with long steps, h_σ = 0
def test_an_update_in_the_letters_of_the_tutorial(stretch):
    random, n, size = np.random.default_rng(1), 3, 7
    w, mu_eff, c_c, c_1, c_mu, c_sigma, d_sigma, _ = rates_of(n, size)
    A = random.normal(size=(n, n))
    C = A @ A.T + np.eye(n)
    squares, B = np.linalg.eigh(C)
    m, sigma, p_sigma, p_c, g = random.normal(size=n), 0.3, random.normal(size=n), random.normal(size=n), 4
    steps, width = stretch * random.normal(size=(size, n)) @ A.T, np.array([1.0, 2.0, 4.0])
    old = Gaussian(*map(jnp.asarray, (m, sigma, C, B, np.sqrt(squares), p_sigma, p_c)), jnp.int32(g))
    new = updated(old, jnp.asarray(steps), jnp.asarray(width), rates_of(n, size))

    root = np.linalg.inv(B @ np.diag(np.sqrt(squares)) @ B.T)
    y_w = sum(w[i] * steps[i] for i in range(3))
    p_sigma = (1 - c_sigma) * p_sigma + np.sqrt(c_sigma * (2 - c_sigma) * mu_eff) * root @ y_w
    expected = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))
    norm = np.linalg.norm(p_sigma)
    h = float(norm / np.sqrt(1 - (1 - c_sigma) ** (2 * (g + 1))) < (1.4 + 2 / (n + 1)) * expected)
    assert h == (stretch == 0.7)
    p_c = (1 - c_c) * p_c + h * np.sqrt(c_c * (2 - c_c) * mu_eff) * y_w
    C = (1 + c_1 * (1 - h) * c_c * (2 - c_c) - c_1 - c_mu * w.sum()) * C + c_1 * np.outer(p_c, p_c)
    for weight, y in zip(w, steps, strict=True):
        C += c_mu * weight * (1 if weight >= 0 else n / np.sum((root @ y) ** 2)) * np.outer(y, y)
    np.testing.assert_allclose(new.mean, m + sigma * width * y_w)
    np.testing.assert_allclose(new.sigma, sigma * np.exp(min(1, c_sigma / d_sigma * (norm / expected - 1))))
    np.testing.assert_allclose(new.p_sigma, p_sigma)
    np.testing.assert_allclose(new.p_c, p_c)
    np.testing.assert_allclose(new.C, C)
    np.testing.assert_allclose((new.B * new.D[None] ** 2) @ new.B.T, C)


def rotation(n):
    return np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]


SCALES, TURNED = 10.0 ** (6 * np.arange(4) / 3), rotation(4)
inside = lambda x: jnp.all(jnp.abs(x) <= 5)
FUNCTIONS = (  # of 4 numbers in [-5, 5], and the least value
    (lambda x: jnp.sum((x - 1) ** 2) - 7, -7),
    (lambda x: jnp.sum(jnp.asarray(SCALES, x.dtype) * (x - 1) ** 2), 0),
    (lambda x: jnp.sum(jnp.asarray(SCALES, x.dtype) * (jnp.asarray(TURNED, x.dtype) @ x) ** 2), 0),
    (lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2), 0),
    (lambda x: jnp.where(inside(x), jnp.sum(jnp.array([1.0, -2.0, 3.0, 10.0], x.dtype) * x) + 80, -1e9), 0),  # a corner
    (lambda x: jnp.where(inside(x), jnp.sum((x - 6) ** 2) - 4, -1e9), 0),
    (lambda x: jnp.log(jnp.sqrt(jnp.sum((x - 1) ** 2)) + 1e-3) * 1e3 + 1e3 * np.log(1e3), 0),
    (lambda x: jnp.where(x[0] < 0, jnp.nan, jnp.sum(jnp.abs(x - 1) ** 1.5)), 0),
)


@functools.cache
def solved():
    """Of each function from three keys, in float64: [functions, keys]."""
    f = one_of(*(f for f, _ in FUNCTIONS))
    solve = lambda i, seed: jo.minimize(
        f, jnp.full(4, -3.0), ONE, (i,), (-5.0, 5.0), key=jax.random.key(seed), max_steps=1500
    )
    lanes = jnp.repeat(jnp.arange(len(FUNCTIONS)), 3), jnp.tile(jnp.arange(3), len(FUNCTIONS))
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, 3, *x.shape[1:]), quick_jit(jax.vmap(solve))(*lanes))


@pytest.mark.usefixtures("x64")
def test_minima_inside_and_on_the_bounds():
    solution = solved()
    least = np.array([value for _, value in FUNCTIONS])[:, None]
    limit = np.where(np.arange(len(FUNCTIONS)) == 6, 1e-3, 1e-6)[:, None]  # the logarithm is steep
    assert (np.abs(solution.value - least) < limit).all(), (solution.value, solution.status)
    assert np.isin(solution.status, (jo.Status.CONVERGED_VALUE, jo.Status.CONVERGED_STEP)).all(), solution.status
    assert (solution.evaluations == 8 * solution.steps).all() and solution.steps.max() < 1000


@pytest.mark.usefixtures("x64")
def test_rotations_cost_nothing():
    steps = solved().steps
    assert 0.75 < steps[2].mean() / steps[1].mean() < 1.33, steps[1:3]
    assert steps[1].mean() < 4 * steps[0].mean(), steps[:2]  # nor much a condition of 1e6


def test_restarts_double_the_population():
    """With tol=100, a descent ends as soon as its memory is full: after 10 + ⌈30 n/λ⌉ generations."""
    method = jo.search.cma_es(population=4, restarts=2)
    f = lambda x: jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x))
    objective = lambda key: jo.Objective(f, tol=100.0, lower=jnp.full(2, -5.0), upper=jnp.full(2, 5.0), key=key)

    def walk(key):
        begin = jnp.array([4.0, 4.0]), method.init(objective(key), jnp.array([4.0, 4.0]))

        def body(carry, _):
            params, state, info = method.step(objective(key), *carry)
            return (params, state), (info.status, info.value, state.descent.restart, state.gaussian.mean)

        return jax.lax.scan(body, begin, None, length=160)[1]

    status, value, restart, mean = map(np.asarray, quick_jit(walk)(jax.random.key(0)))
    lengths = [2**k * (10 + int(np.ceil(30 * 2 / (4 * 2**k)))) for k in range(3)]  # 25, 36 and 56 steps
    ends = np.cumsum(lengths)
    assert np.flatnonzero(status)[0] == ends[2] - 1 and status[ends[2] - 1] == jo.Status.CONVERGED_VALUE
    assert np.flatnonzero(np.diff(restart)).tolist() == [ends[0] - 2, ends[1] - 2]
    assert np.abs(mean[ends[:2] - 1] - mean[ends[:2] - 2]).max() > 0.5 and (np.diff(value) <= 0).all()
    moved = np.flatnonzero(np.any(np.diff(mean, axis=0), axis=1))  # the mean moves where a generation is full
    assert set(np.diff(moved[(moved >= ends[0]) & (moved < ends[1] - 2)])) == {2}
    assert set(np.diff(moved[(moved >= ends[1]) & (moved < ends[2])])) == {4}


def test_endings_that_are_no_minima():
    """And float32, one dimension, a tree, the same bits with the same key, and where a parameter is fixed."""
    rows = (
        (lambda x: jnp.sum(x) * 0 + 5, jo.Status.STALLED),
        (lambda x: jnp.sum(x) * jnp.nan, jo.Status.STALLED),
        (lambda x: jnp.where(x[0] > 3, -jnp.inf, -x[0]), jo.Status.UNBOUNDED),
        (lambda x: jnp.sum(jnp.where(jnp.arange(2) == 1, 0, x - 1) ** 2), jo.Status.CONVERGED_VALUE),
    )
    f = one_of(*(row[0] for row in rows))
    tree_of = lambda x: {"a": x[:1].reshape(1, 1), "b": x[1].astype(jnp.float16)}
    of_tree = lambda p, i: f(jnp.concatenate([p["a"].ravel(), p["b"].ravel().astype(jnp.float32)]), i)
    lower, upper = ({"a": np.full((1, 1), a), "b": 2.0} for a in (-5.0, 5.0))

    def solve(i, seed):
        key = jax.random.key(seed)
        start = tree_of(jnp.array([-4.0, 2.0]))
        return jo.minimize(of_tree, start, ONE, (i,), (lower, upper), key=key, max_steps=800)

    solution = quick_jit(jax.vmap(solve))(jnp.array([0, 1, 2, 3, 3, 3]), jnp.array([0, 0, 0, 0, 0, 1]))
    wanted = [jo.Status.STALLED, jo.Status.NON_FINITE, jo.Status.UNBOUNDED, *[jo.Status.CONVERGED_VALUE] * 3]
    assert solution.status.tolist() == wanted, solution.status
    a, b = np.asarray(solution.params["a"]).ravel(), np.asarray(solution.params["b"])
    assert (b == 2).all() and np.isfinite(a).all() and abs(a[3] - 1) < 1e-2
    assert a[3] == a[4] != a[5] and solution.params["a"].dtype == jnp.float32


def test_the_status_is_that_of_the_descent_that_found_the_best_point():
    """A bowl in a plateau, on which descents stall, with a start in either: whichever descent comes last."""
    f = lambda x: jnp.minimum(jnp.sum((x - 2) ** 2) - 9, 0)
    method = jo.search.cma_es(sigma=0.02, restarts=1)
    solve = lambda start, key: jo.minimize(f, start, method, bounds=(-5.0, 5.0), key=key, max_steps=2000)
    starts = jnp.array([[3.0, 2.0], [-4.0, -4.0]]).repeat(6, axis=0)
    found = quick_jit(jax.vmap(solve))(starts, jax.random.split(jax.random.key(0), 12))
    in_bowl = np.asarray(found.value < 0)
    assert in_bowl[:6].all() and 0 < in_bowl[6:].sum() < 6, in_bowl
    assert found.converged.tolist() == in_bowl.tolist(), found.status
    assert (found.status[~in_bowl] == jo.Status.STALLED).all()


def test_one_dimension_in_float32_and_arguments():
    method = jo.search.cma_es(sigma=0.1, population=5, restarts=1)
    f = lambda x: (x - 0.3) ** 2 * (x + 2) ** 2 + x
    solution = jo.minimize(f, 0.5, method, bounds=(-4.0, 4.0), key=jax.random.key(1))
    grid = np.linspace(-4, 4, 100001)
    assert solution.converged and solution.value <= f(grid).min() + 1e-4, solution
    for arguments, words in (
        (dict(population=1), "population must be an int of at least 2, got 1"),
        (dict(restarts=-1), "restarts must be an int of at least 0, got -1"),
        (dict(restarts=11), "restarts must be at most 10"),
        (dict(sigma=0), "sigma must be above 0"),
    ):
        with pytest.raises(ValueError, match=words):
            jo.search.cma_es(**arguments)
    with pytest.raises(ValueError, match="cma_es searches a box"):
        jo.minimize(f, 0.5, method, key=jax.random.key(0))


def test_any_lane_is_one_condition_for_all_lanes():
    def double(x, c):
        return jax.lax.cond(any_lane(c), lambda x: tree.where(c, 2 * x, x), lambda x: x, x)

    c, x = jnp.array([[True, False], [False, False]]), jnp.arange(1.0, 5).reshape(2, 2)
    over = jax.vmap(jax.vmap(double))
    np.testing.assert_array_equal(quick_jit(over)(x, c), [[2, 2], [3, 4]])
    np.testing.assert_array_equal(jax.grad(lambda x: over(x, c).sum())(x), [[2, 1], [1, 1]])
    assert "cond" in str(jax.make_jaxpr(over)(x, c)) and double(1.0, jnp.array(True)) == 2
