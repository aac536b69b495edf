"""Derivatives of solutions: forward, reverse, second order and differences agree, for every entry point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.quick import quick_jit

T = 0.7
XDATA = np.linspace(0.0, 2.0, 12)


def smooth(t):
    def f(x, args):
        t, k = args["t"], args["k"]  # k is an int
        return (
            jnp.sum(k * (x["a"] - jnp.sin(t) * jnp.arange(1.0, 4.0)) ** 2)
            + 0.1 * t * jnp.sum(x["a"] ** 4)
            + (x["b"] - t) ** 2 * (1 + x["a"][0] ** 2)
        )

    return jo.minimize(f, {"a": jnp.zeros(3), "b": 0.0}, args=({"t": t, "k": 2},), tol=1e-12).params


def bounded(t):
    """x[0] is free, x[1] on its upper bound, x[2] between equal bounds; the bounds move with t."""
    f = lambda x, t: 0.5 * (x[0] - t) ** 2 + 0.5 * (x[1] - 3 * t) ** 2 + 0.3 * x[0] * x[1] + x[0] * x[2] + x[2] ** 2
    bounds = (jnp.array([0.0, 0.0, t / 9]), jnp.array([1.0, 1.0 + 0.1 * t**2, t / 9]))
    return jo.minimize(f, jnp.full(3, 0.5), args=(t,), bounds=bounds, tol=1e-12).params


def inactive(t):
    f = lambda x: 0.5 * (x[0] - t) ** 2 + 0.5 * (x[1] - t**2) ** 2 + 0.3 * x[0] * x[1]  # closes over t
    return jo.minimize(f, jnp.zeros(2), bounds=(-9.0, 9.0), tol=1e-12).params


def squares(t):
    residual = lambda p, t: p[0] * jnp.exp(-p[1] * XDATA) - (2 + t) * jnp.exp(-t * XDATA) - 0.1 * jnp.sin(5 * XDATA)
    return jo.least_squares(residual, jnp.array([1.0, 1.0]), args=(t,), loss="soft_l1", f_scale=1 + t, tol=1e-14).params


def equation(t):
    f = lambda x, t: {"one": x[0] ** 3 + x[1] - t, "two": jnp.exp(x[1]) - x[0] * t - 1}
    return jo.root(f, jnp.array([0.9, 0.5]), args=(t,), tol=1e-14).params


def bracketed(t):
    return jo.root(lambda x, t: x**3 - t * x - 2, bracket=(1.0, 1 + t), args=(t,), tol=1e-14).params


def fixed(t):
    g = lambda x, t: {"u": jnp.cos(t * x["u"]), "v": 0.5 * x["v"] + x["u"] * t}
    return jo.fixed_point(g, {"u": jnp.array([0.5, 0.2]), "v": jnp.zeros(2)}, args=(t,), tol=1e-14).params


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("solve", [smooth, bounded, inactive, squares, equation, bracketed, fixed])
def test_all_derivatives_agree(solve):
    def flat(t):
        return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(solve(t))])

    h, derivatives = 1e-4, (jax.jacfwd, jax.jacrev, lambda f: jax.jacfwd(jax.jacrev(f)))
    found = quick_jit(jax.vmap(lambda t: [derivative(flat)(t) for derivative in derivatives]))(jnp.array([0.5, T]))
    x = jax.vmap(flat)(T + jnp.array([-h, -h / 10, 0, h / 10, h]))
    first, second = (x[3] - x[1]) / (h / 5), (x[4] - 2 * x[2] + x[0]) / h**2
    for forward_or_reverse in found[:2]:
        np.testing.assert_allclose(forward_or_reverse[1], first, 1e-6, 1e-6)
    np.testing.assert_allclose(found[0][0], found[1][0], 1e-8, 1e-8)
    np.testing.assert_allclose(found[2][1], second, 1e-4, 1e-4)


@pytest.mark.usefixtures("x64")
def test_the_bounds_of_a_solution_move_it():
    """Reported for JAXopt (#463): in the upper bound of x[1], (-0.3, 1); in t, (1, 0)."""
    f = lambda x, t: 0.5 * (x[0] - t) ** 2 + 0.5 * (x[1] - 3.0 * t) ** 2 + 0.3 * x[0] * x[1]
    solve = lambda t, upper: (
        jo.minimize(f, jnp.array([0.5, 0.5]), args=(t,), bounds=(jnp.zeros(2), jnp.array([1.0, upper]))).params
    )
    np.testing.assert_allclose(solve(0.5, 1.0), [0.2, 1.0], 1e-6)
    for derivative in (jax.jacfwd, jax.jacrev):
        in_t, in_upper = quick_jit(derivative(solve, (0, 1)))(0.5, 1.0)
        np.testing.assert_allclose(in_t, [1.0, 0.0], 1e-6, 1e-6)
        np.testing.assert_allclose(in_upper, [-0.3, 1.0], 1e-6, 1e-6)


def test_value_and_aux_are_differentiated_too_and_outside_jit():
    f = lambda x, t: ((x - t) ** 2 + t**3, {"twice": 2 * x, "n": jnp.arange(3)})

    def solve(t):
        solution = jo.minimize(f, 0.0, args=(t,), has_aux=True, key=jax.random.key(0))
        return solution.value, solution.aux["twice"]

    np.testing.assert_allclose(jax.jacrev(solve)(2.0), [12, 2], 1e-4)


def test_unrolled_and_none():
    f = lambda x, t: jnp.sum((x - t) ** 2) + 0.1 * jnp.sum(x**4)
    solve = lambda t, how: jo.minimize(f, jnp.zeros(2), args=(t,), max_steps=30, differentiate=how).params
    exact = jax.jacfwd(solve)(1.0, "implicit")
    for derivative in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(derivative(solve)(1.0, "unrolled"), exact, 1e-3)
        assert derivative(solve)(1.0, "none").tolist() == [0, 0]
    np.testing.assert_array_equal(solve(1.0, "unrolled"), solve(1.0, "implicit"))


def test_unrolled_line_searches_in_reverse():
    f = lambda x, t: jnp.sum((x - t) ** 2) + 0.1 * jnp.sum(x**4) + x[0] * x[1] * t
    for method, bounds in (
        (jo.solvers.bfgs(), None),
        (jo.solvers.nonlinear_cg(), None),
        (jo.solvers.lbfgsb(), (None, jnp.array([0.4, 5.0]))),
    ):

        def solve(t, method=method, bounds=bounds):
            start = jnp.array([0.0, 0.3])
            return jo.minimize(f, start, method, (t,), bounds, max_steps=40, differentiate="unrolled").params

        np.testing.assert_allclose(jax.jacrev(solve)(1.0), 0.39278 if bounds is None else [0, 0.60856], 2e-3)


@pytest.mark.usefixtures("x64")
def test_complex_parameters_have_derivatives():
    f = lambda z, c: jnp.sum(jnp.array([1.0, 4.0]) * jnp.abs(z - c * (1 + 2j)) ** 2) + jnp.sum(jnp.abs(z) ** 4)
    solve = lambda c: jo.minimize(f, jnp.zeros(2, complex), args=(c,), tol=1e-13).params
    h = 1e-5
    differences = (solve(1 + h) - solve(1 - h)) / (2 * h)
    np.testing.assert_allclose(jax.jvp(solve, (1.0,), (1.0,))[1], differences, 1e-6)
    np.testing.assert_allclose(jax.grad(lambda c: solve(c).imag.sum())(1.0), differences.imag.sum(), 1e-6)
