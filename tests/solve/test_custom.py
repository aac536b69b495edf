"""Implicit derivatives for users' own solvers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxopt_lite as jo
from tests.quick import quick_jit


def descend(start, a):
    """Gradient descent, which knows nothing of derivatives of its result."""
    a = jax.lax.stop_gradient(a)
    return jax.lax.while_loop(lambda x: jnp.sum(slope(x, a) ** 2) > 1e-10, lambda x: x - 0.1 * slope(x, a), start)


def slope(x, a):
    return 2 * (x - a) + x**3


def test_a_minimum():
    solve = jo.custom_root(slope, symmetric=True)(descend)
    exact = jnp.diag(2 / (2 + 3 * solve(jnp.zeros(2), jnp.ones(2)) ** 2))
    for derivative in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(derivative(solve, 1)(jnp.zeros(2), jnp.ones(2)), exact, 1e-4)
    assert jax.jacrev(solve, 0)(jnp.zeros(2), jnp.ones(2)).tolist() == [[0, 0], [0, 0]]
    batch = jax.vmap(jax.jacrev(solve, 1), (None, 0))(jnp.zeros(2), jnp.ones((3, 2)))
    np.testing.assert_allclose(batch[2], exact, 1e-4)


@pytest.mark.usefixtures("x64")
def test_a_solver_of_another_library_with_aux():
    equations = lambda x, a: {"one": x["u"] ** 3 + x["v"] - a, "two": 2 * x["v"] - x["u"]}

    @jo.custom_root(equations, has_aux=True)
    def solve(start, a):
        end = scipy.optimize.root(lambda z: [z[0] ** 3 + z[1] - float(a), 2 * z[1] - z[0]], [1.0, 1.0], tol=1e-13)
        return {"u": jnp.asarray(end.x[0]), "v": jnp.asarray(end.x[1])}, jnp.asarray(end.nfev)

    u = lambda a: solve({"u": 1.0, "v": 1.0}, a)[0]["u"]
    np.testing.assert_allclose(jax.grad(u)(2.0), (u(2 + 1e-5) - u(2 - 1e-5)) / 2e-5, 1e-6)


@pytest.mark.usefixtures("x64")
def test_second_order_and_a_fixed_point():
    constant = lambda start, a: jnp.sqrt(jax.lax.stop_gradient(a))
    for solve in (
        jo.custom_root(lambda x, a: x**2 - a)(constant),
        jo.custom_fixed_point(lambda x, a: (x + a / x) / 2)(constant),
    ):
        root = functools.partial(solve, 1.0)
        first, second = quick_jit(lambda a: (jax.grad(root)(a), jax.hessian(root)(a)))(4.0)  # noqa: B023
        np.testing.assert_allclose([first, second], [0.25, -0.03125], 1e-10)


def test_what_the_equation_closes_over_is_differentiated():
    def root_of(b):
        return jo.custom_root(lambda x, a: x**2 - a * b)(lambda start, a: jnp.full_like(start, 2.0))(1.0, 2.0)

    np.testing.assert_allclose(jax.grad(root_of)(2.0), 0.5, 1e-5)


def test_mistakes_are_named():
    with pytest.raises(TypeError, match="custom_root takes a function"):
        jo.custom_root(3)
    with pytest.raises(TypeError, match="custom_fixed_point decorates a function"):
        jo.custom_fixed_point(jnp.cos)(None)
