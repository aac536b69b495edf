"""Minimizing under constraints: solutions, statuses, multipliers and derivatives."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxopt_lite as jo
from jaxopt_lite.core.method import Status
from tests.quick import quick_jit
from tests.solvers import hock_schittkowski as hs

INF = np.inf


def above(c, *args):
    return {"type": "ineq", "fun": c, "args": args}


def equal(c, *args):
    return {"type": "eq", "fun": c, "args": args}


def square(x):
    return jnp.sum(x**2)


def solve_hs(i, start, lower, upper, least, most):
    limits = types.SimpleNamespace(fun=lambda x: hs.constraint(x, i), lb=least, ub=most)
    return jo.minimize(hs.objective, start, args=(i,), bounds=(lower, upper), constraints=limits)


@pytest.mark.usefixtures("x64")
def test_hock_and_schittkowski():
    """From the given start and from others; values as SLSQP's, and the conditions of first order by hand."""
    rng, each = np.random.default_rng(0), 4
    k = np.arange(len(hs.TABLE)).repeat(each)
    moved = hs.STARTS[k] + rng.normal(size=(len(k), 4)) * 0.3 * np.maximum(1, np.abs(hs.STARTS[k]))
    moved[::each] = hs.STARTS
    numbers = (k, moved, hs.LOWER[k], hs.UPPER[k], hs.LEAST[k], hs.MOST[k])
    batch = quick_jit(jax.vmap(solve_hs))(*numbers)
    f = quick_jit(jax.value_and_grad(hs.objective))
    c = quick_jit(lambda x, i: (hs.constraint(x, i), jax.jacobian(hs.constraint)(x, i)))
    assert batch.converged.all(), np.array(batch.status)
    evaluations, of_slsqp = 0, 0
    for lane, (i, _, lower, upper, least, most) in enumerate(zip(*numbers, strict=True)):
        x, (multipliers,) = np.array(batch.params[lane]), batch.multipliers
        y = np.array(multipliers[lane])
        (value, g), (values, jacobian) = f(x, i), c(x, i)
        who = (hs.NUMBERS[i], x, y)
        scale = max(1, abs(value))
        outside = np.maximum(0, np.maximum(least - values, values - most)).max()
        assert outside <= 1e-8 and abs(outside - batch.violation[lane]) <= 1e-14, who
        assert np.all((x >= lower) & (x <= upper)) and abs(batch.value[lane] - value) <= 1e-14 * scale, who
        r = g - jacobian.T @ y
        r = np.where(((x <= lower) & (r > 0)) | ((x >= upper) & (r < 0)), 0, r)
        assert np.abs(r).max() <= 1e-7 * scale, (who, r)
        is_inequality = (least == 0) & (most == INF)
        assert np.all(y[is_inequality] >= 0) and np.abs((y * values)[is_inequality]).max(initial=0) <= 1e-7 * scale, who
        if lane % each == 0:
            evaluations += int(batch.evaluations[lane])
            found = slsqp(f, c, i)
            of_slsqp += found.nfev
            assert value <= max(found.fun, hs.VALUES[i]) + 1e-8 * scale, (who, value, found.fun)
    assert evaluations <= 1.3 * 478 and evaluations <= 5 * of_slsqp, (evaluations, of_slsqp)


def slsqp(f, c, i):
    is_equal, is_there = hs.MOST[i] == 0, hs.LEAST[i] == 0
    limits = [
        {"type": kind, "fun": lambda x, w=w: np.asarray(c(x, i)[0])[w], "jac": lambda x, w=w: np.asarray(c(x, i)[1])[w]}
        for kind, w in (("eq", is_equal & is_there), ("ineq", ~is_equal & is_there))
        if w.any()
    ]
    return scipy.optimize.minimize(
        lambda x: tuple(np.asarray(a, float) for a in f(x, i)),
        *(np.clip(hs.STARTS[i], hs.LOWER[i], hs.UPPER[i]),),
        **dict(jac=True, method="SLSQP", constraints=limits, bounds=np.stack([hs.LOWER[i], hs.UPPER[i]], 1)),
        options={"ftol": 1e-13, "maxiter": 500},
    )


def test_contradictions_are_infeasible_and_lanes_do_not_mix():
    """x >= t and x <= 0 in float32, alone and with bounds; t = NaN spoils its own lane only."""
    limits = lambda t: [above(lambda x, t: x[0] - t, t), above(lambda x: -x[0])]
    one = lambda t, high: jo.minimize(square, jnp.array([3.0, 1.0]), bounds=(None, high), constraints=limits(t))
    t, high = jnp.array([1.0, -1.0, jnp.nan, 1e3, 0.0]), jnp.array([9.0, 9.0, 9.0, -5.0, 9.0])
    batch = quick_jit(jax.vmap(one))(t, high)
    assert batch.status.tolist() == [
        *(Status.INFEASIBLE, Status.CONVERGED_GRADIENT, Status.NON_FINITE, Status.INFEASIBLE),
        Status.CONVERGED_GRADIENT,
    ]
    assert abs(batch.violation[0] - 0.5) < 1e-3 and batch.evaluations.max() < 400
    assert batch.params[1, 0] == pytest.approx(0, abs=1e-3)


@pytest.mark.usefixtures("x64")
def test_runaway_is_caught_and_the_point_returned_is_the_best():
    """-x⁵ has no bound, but on the disc it has; out of steps the feasible point with the least value is returned."""
    solve = lambda start, steps: jo.minimize(
        lambda x: (-(x[0] ** 5), x[1]), start, constraints=above(lambda x: 1 - square(x)), max_steps=steps, has_aux=True
    )
    solution = solve(jnp.array([0.5, 1.0]), 300)
    assert solution.converged and solution.params == pytest.approx([1, 0], abs=1e-6), solution
    assert solution.aux == solution.params[1] and solution.multipliers[0] == pytest.approx(2.5, abs=1e-6)
    part = solve(jnp.array([0.5, 0.5]), 4)
    assert part.status == Status.MAX_STEPS and part.violation <= 1e-8 and part.value <= -(0.5**5)
    part = jo.minimize(
        *(lambda x: (-(x[0] ** 5), x[1]), jnp.array([0.5, 1.0])),
        **dict(constraints=above(lambda x: 1 - square(x)), has_aux=True, max_steps=300, callback=lambda s: True),
    )
    assert part.status == Status.INTERRUPTED


@pytest.mark.usefixtures("x64")
def test_forms_and_inner_solvers():
    """Trees, SciPy's objects, and solvers that take no constraints; multipliers have the forms of the constraints."""
    start = {"a": jnp.array([0.5, 0.7]), "b": 0.0}
    f = lambda p: square(p["a"] - 2) + p["b"] ** 2
    forms = [
        equal(lambda p: {"sum": jnp.sum(p["a"]) - 1, "b": p["b"] - p["a"][:1]}),
        scipy.optimize.LinearConstraint([[1, 1, 0], [-1, 0, 1]], [1, 0], [1, 0]),
        scipy.optimize.NonlinearConstraint(lambda p: jnp.stack([p["a"][1], p["b"]]), -INF, [5.0, 0.2]),
    ]
    for method in (None, jo.solvers.newton_cg(), jo.solvers.augmented_lagrangian(jo.solvers.lbfgs(), growth=4.0)):
        solution = jo.minimize(f, start, method, constraints=forms)
        assert solution.converged, (method, solution)
        assert [*solution.params["a"], solution.params["b"]] == pytest.approx([0.2, 0.8, 0.2], abs=1e-6)
        of_tree, of_rows, of_upper = solution.multipliers
        assert of_tree["sum"].shape == () and of_tree["b"].shape == (1,) and of_rows.shape == (2,)
        assert of_upper[0] == 0 and of_upper[1] <= 0
    assert repr(jo.parse(repr(method))) == repr(method)


def mistakes():
    f, x, solve = square, jnp.ones(2), jo.minimize
    c = lambda x: x[0]
    return [
        (lambda: solve(f, x, constraints=[5]), TypeError, r"constraints\[0\] must be a dict .*, got 5|got the int 5"),
        (lambda: solve(f, x, constraints={"fun": c}), ValueError, "no key 'type'"),
        (lambda: solve(f, x, constraints={"type": "le", "fun": c}), ValueError, "type must be \"eq\" .* got 'le'"),
        (lambda: solve(f, x, constraints={"type": "eq", "fun": c, "jac": c}), ValueError, "leave out 'jac'"),
        (lambda: solve(f, x, constraints={"type": "eq", "fun": c, "tol": 1}), ValueError, "unknown key 'tol'"),
        (lambda: solve(f, x, constraints={"type": "eq", "fun": 3}), TypeError, "fun must be a function"),
        (lambda: solve(f, x, constraints={"type": "eq", "fun": c, "args": 1}), TypeError, "args must be a tuple"),
        (lambda: solve(f, x, constraints=equal(lambda x: x > 0)), TypeError, "real floating numbers, got dtype bool"),
        (lambda: solve(f, x, constraints=equal(lambda x: x[:0])), ValueError, "returns no numbers"),
        (
            lambda: solve(f, x, constraints=types.SimpleNamespace(fun=c, lb=1.0, ub=0.0)),
            *(ValueError, "lb must not exceed ub"),
        ),
        (
            lambda: solve(f, x, constraints=types.SimpleNamespace(fun=c, lb=[1.0, 2.0], ub=3.0)),
            *(ValueError, r"lb has shape \(2,\), for a function of 1 numbers"),
        ),
        (lambda: solve(f, x, jo.adam(0.1), constraints=equal(c)), ValueError, "adam takes no constraints"),
        (
            lambda: solve(f, x, jo.solvers.lbfgs(), bounds=(0.0, 1.0), constraints=equal(c)),
            *(ValueError, "lbfgs takes no bounds"),
        ),
        (
            lambda: jo.solvers.augmented_lagrangian(jo.solvers.levenberg_marquardt()),
            *(ValueError, "inner must be a local solver of minimize"),
        ),
        (lambda: jo.solvers.augmented_lagrangian(growth=1.0), ValueError, "growth must be above 1"),
    ]


def test_mistakes_are_named():
    for call, error, words in mistakes():
        with pytest.raises(error, match=words):
            call()


@pytest.mark.usefixtures("x64")
def test_derivatives():
    """Params, value and multipliers by t: an equality, an active and an idle inequality, and a bound that moves."""

    def solve(t):
        f = lambda x, t: (x[0] - t[0]) ** 2 + (x[1] - t[1] * t[0]) ** 2 + jnp.exp(x[2] * t[2]) + 0.3 * x[0] * x[2] ** 2
        limits = [
            equal(lambda x, r: x[0] ** 2 + x[1] ** 2 - r, 1 + t[0] ** 2),
            above(lambda x: jnp.stack([x[2] + t[1] + 0.2 * x[0], 10 - x[2]])),  # closes over t
        ]
        bounds = (jnp.stack([-3.0, t[2], -9.0]), None)
        s = jo.minimize(f, jnp.array([0.5, 0.5, 0.0]), args=(t,), bounds=bounds, constraints=limits, tol=1e-12)
        return jnp.concatenate([s.params, s.value[None], s.multipliers[0][None], s.multipliers[1]])

    h, points = 1e-5, jnp.array([[0.7, -0.4, 0.3], [0.7, 0.3, 0.9]])
    all_of = lambda t: (solve(t), jax.jacfwd(solve)(t), jax.jacrev(solve)(t), jax.hessian(solve)(t))
    program = quick_jit(jax.vmap(all_of))
    near = jnp.concatenate([points, *[points.at[:, i].add(s * h) for i in range(3) for s in (1, -1)]])
    values, forward, reverse, second = (a.reshape(7, 2, *a.shape[1:]) for a in program(near))
    difference = lambda a: np.moveaxis(np.stack([a[2 * i + 1] - a[2 * i + 2] for i in range(3)]), 0, -1) / (2 * h)
    assert values[0, 1, 1] == 0.9 and values[0, 0, 5] > 0.1 and np.all(values[0, :, 6] == 0)
    np.testing.assert_allclose(forward[0], reverse[0], atol=1e-10)
    np.testing.assert_allclose(forward[0], difference(values), atol=1e-6)
    np.testing.assert_allclose(second[0], difference(forward), atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_scales_of_f_and_of_constraints():
    """One problem whose constraints have no gradient at the start, in other units, and from far away."""

    def solve(of_f, of_c, start):
        f = lambda x, s: s * (0.5 * x[0] ** 2 + x[1] ** 2 - x[0] * x[1] - 7 * x[0] - 7 * x[1])
        ellipse = types.SimpleNamespace(fun=lambda x: of_c * (25 - 4 * x[0] ** 2 - x[1] ** 2), lb=0.0, ub=1e20)
        return jo.minimize(f, start, args=(of_f,), constraints=ellipse)

    of_f, of_c = np.array([(1, 1), (1e-6, 1), (1, 1e6), (1e-6, 1e4), (1e6, 1), (1, 1e-3), (1, 1)], float).T
    starts = np.array([*[[0.0, 0.0]] * 6, [3e4, -1e5]])
    batch = quick_jit(jax.vmap(solve))(of_f, of_c, starts)
    assert batch.converged.all() and batch.evaluations.max() < 400, (batch.status, batch.evaluations)
    np.testing.assert_allclose(batch.params, [[2.0, 3.0]] * 7, atol=1e-6)
    np.testing.assert_allclose(batch.multipliers[0], 0.5 * of_f / of_c, rtol=1e-4)
    assert np.all(batch.violation <= 1e-9 * np.maximum(1, of_c) + 64 * 2.3e-16 * 5e10 * (starts[:, 0] > 0))
