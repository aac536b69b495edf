"""Systems of n equations in n unknowns, from Moré, Garbow & Hillstrom, 1981, by their numbers there."""

import jax.numpy as jnp
import numpy as np


def rosenbrock(x):  # 1
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def powell_badly_scaled(x):  # 3
    return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def helical_valley(x):  # 7
    turn = jnp.arctan2(x[1], x[0]) / (2 * jnp.pi)
    return jnp.stack([10 * (x[2] - 10 * turn), 10 * (jnp.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


def powell_singular(x):  # 13
    linear = [x[0] + 10 * x[1], 5**0.5 * (x[2] - x[3])]
    return jnp.stack([*linear, (x[1] - 2 * x[2]) ** 2, 10**0.5 * (x[0] - x[3]) ** 2])


def wood(x):  # the gradient of 14, halved
    one, two = x[1] - x[0] ** 2, x[3] - x[2] ** 2
    return jnp.stack(
        [
            -200 * x[0] * one - (1 - x[0]),
            100 * 2 * one + 20.2 * (x[1] - 1) + 19.8 * (x[3] - 1),
            -180 * x[2] * two - (1 - x[2]),
            90 * 2 * two + 20.2 * (x[3] - 1) + 19.8 * (x[1] - 1),
        ]
    )


def variably_dimensioned(x):  # 25
    weights = jnp.arange(1, x.size + 1).astype(x.dtype)
    total = jnp.sum(weights * (x - 1))
    return x - 1 + weights * total * (1 + 2 * total**2)


def brown_almost_linear(x):  # 27
    return jnp.concatenate([x[:-1] + jnp.sum(x) - (x.size + 1), jnp.prod(x)[None] - 1])


def boundary_value(x):  # 28
    h = 1 / (x.size + 1)
    t = (h * jnp.arange(1, x.size + 1)).astype(x.dtype)
    padded = jnp.pad(x, 1)
    return 2 * x - padded[:-2] - padded[2:] + h**2 * (x + t + 1) ** 3 / 2


def broyden_tridiagonal(x):  # 30
    padded = jnp.pad(x, 1)
    return (3 - 2 * x) * x - padded[:-2] - 2 * padded[2:] + 1


def chebyquad(x):  # 35
    y = 2 * x - 1
    before, now, means = jnp.ones_like(y), y, []
    for k in range(1, x.size + 1):
        means.append(jnp.mean(now) - (0 if k % 2 else -1 / (k * k - 1)))
        before, now = now, 2 * y * now - before
    return jnp.stack(means)


# (system, start, evaluations of SciPy 1.17.1's root(method="hybr") with the Jacobian: of F and of the Jacobian)
TEN = [
    (rosenbrock, np.array([-1.2, 1.0]), (23, 2)),
    (powell_badly_scaled, np.array([0.0, 1.0]), (169, 5)),
    (helical_valley, np.array([-1.0, 0.0, 0.0]), (17, 2)),
    (powell_singular, np.array([3.0, -1.0, 0.0, 1.0]), (104, 4)),
    (wood, np.array([-3.0, -1.0, -3.0, -1.0]), (85, 2)),
    (variably_dimensioned, 1 - np.arange(1, 11) / 10, (24, 1)),
    (brown_almost_linear, np.full(10, 0.5), (16, 2)),
    (boundary_value, np.arange(1, 11) / 11 * (np.arange(1, 11) / 11 - 1), (8, 1)),
    (broyden_tridiagonal, np.full(10, -1.0), (13, 1)),
    (chebyquad, np.arange(1, 8) / 8, (15, 1)),
]
