"""Ten classic problems of unconstrained minimization, from Moré, Garbow & Hillstrom, 1981, by their numbers there."""

import jax.numpy as jnp
import numpy as np


def rosenbrock(x):  # 1 and 21
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def freudenstein_roth(x):  # 2
    one = -13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1]
    return one**2 + (-29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]) ** 2


def brown_badly_scaled(x):  # 4
    return (x[0] - 1e6) ** 2 + (x[1] - 2e-6) ** 2 + (x[0] * x[1] - 2) ** 2


def beale(x):  # 5
    return sum((y - x[0] * (1 - x[1] ** i)) ** 2 for i, y in ((1, 1.5), (2, 2.25), (3, 2.625)))


def helical_valley(x):  # 7
    turn = jnp.arctan2(x[1], x[0]) / (2 * jnp.pi)
    return 100 * ((x[2] - 10 * turn) ** 2 + (jnp.sqrt(x[0] ** 2 + x[1] ** 2) - 1) ** 2) + x[2] ** 2


def box(x):  # 12
    t = 0.1 * jnp.arange(1, 11)
    return jnp.sum((jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (jnp.exp(-t) - jnp.exp(-10 * t))) ** 2)


def powell_singular(x):  # 13
    return (x[0] + 10 * x[1]) ** 2 + 5 * (x[2] - x[3]) ** 2 + (x[1] - 2 * x[2]) ** 4 + 10 * (x[0] - x[3]) ** 4


def wood(x):  # 14
    valleys = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + 90 * (x[3] - x[2] ** 2) ** 2 + (1 - x[2]) ** 2
    return valleys + 10.1 * ((x[1] - 1) ** 2 + (x[3] - 1) ** 2) + 19.8 * (x[1] - 1) * (x[3] - 1)


def brown_dennis(x):  # 16
    t = jnp.arange(1, 21) / 5
    return jnp.sum(((x[0] + t * x[1] - jnp.exp(t)) ** 2 + (x[2] + x[3] * jnp.sin(t) - jnp.cos(t)) ** 2) ** 2)


# (function, start, value at the minimum that is found from there)
TEN = [
    (rosenbrock, np.array([-1.2, 1.0]), 0.0),
    (rosenbrock, np.tile([-1.2, 1.0], 5), 0.0),
    (freudenstein_roth, np.array([0.5, -2.0]), 48.98425367924),
    (brown_badly_scaled, np.array([1.0, 1.0]), 0.0),
    (beale, np.array([1.0, 1.0]), 0.0),
    (helical_valley, np.array([-1.0, 0.0, 0.0]), 0.0),
    (box, np.array([0.0, 10.0, 20.0]), 0.0),
    (powell_singular, np.array([3.0, -1.0, 0.0, 1.0]), 0.0),
    (wood, np.array([-3.0, -1.0, -3.0, -1.0]), 0.0),
    (brown_dennis, np.array([25.0, 5.0, -5.0, -1.0]), 85822.20162635627),
]


# f, start, lower, upper, value at the minimum; the largest number of evaluations that a test allows
BOXED = [
    (rosenbrock, [-1.2, 1.0], [-100, -100], [0.5, 100], 0.25, 45),
    (rosenbrock, [1.1] * 5, [1.1] * 5, [2.0] * 5, 1.3806398052217077, 45),
    (lambda x: jnp.sum(x + 1 / x), [1500.0], [1e-12], [np.inf], 2.0, 40),
    (lambda x: jnp.sum((x - 1) ** 2), [10.0], [-np.inf], [0.0], 1.0, 1),
    (lambda x: jnp.sum(x**2) - 3, [4.0], [0.0], [4.0], -3.0, 5),
    (beale, [1.0, 1.0], [0.6, 0.5], [10, 100], 0.0, 15),
    (powell_singular, [3.0, -1, 0, 1], [0.1, -20, -20, -20], [100, 20, 20, 50], 1.8781963006e-4, 45),
    (helical_valley, [-1.0, 0, 0], [-100, -1, -1], [0.8, 1, 1], 0.99042212096, 30),
    (box, [0.0, 10, 20], [0, 5, 0], [2, 9.5, 20], 1.1434818027e-4, 25),
    (rosenbrock, [-1.2, 1.0] * 5, [-1.5] * 10, [0.8] * 10, 6.0010163946, 60),
]


def logistic(strength=1e-2):
    """Logistic regression on breast_cancer, its columns standardised, with a ridge penalty, and its start."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x = jnp.asarray((x - x.mean(0)) / x.std(0))
    sign = jnp.asarray(2.0 * y - 1)

    def f(w):
        return jnp.mean(jnp.logaddexp(0.0, -sign * (x @ w[1:] + w[0]))) + strength * jnp.sum(w[1:] ** 2) / 2

    return f, np.zeros(31)


def classic():
    """The ten problems of the benchmark of evaluations: name, function, start, value at the minimum."""
    long = np.tile([-1.2, 1.0], 50)
    return [
        ("Rosenbrock 2", rosenbrock, np.array([-1.2, 1.0]), 0.0),
        ("Rosenbrock 10", rosenbrock, long[:10], 0.0),
        ("Rosenbrock 100", rosenbrock, long, 0.0),
        ("Beale", beale, np.array([1.0, 1.0]), 0.0),
        ("Brown badly scaled", brown_badly_scaled, np.array([1.0, 1.0]), 0.0),
        ("Powell singular", powell_singular, np.array([3.0, -1.0, 0.0, 1.0]), 0.0),
        ("Wood", wood, np.array([-3.0, -1.0, -3.0, -1.0]), 0.0),
        ("helical valley", helical_valley, np.array([-1.0, 0.0, 0.0]), 0.0),
        ("Box 3-D", box, np.array([0.0, 10.0, 20.0]), 0.0),
        ("logistic regression", *logistic(), 0.09959137548470551),
    ]
