"""The 35 problems of Moré, Garbow & Hillstrom, "Testing Unconstrained Optimization Software", 1981, as residuals.

`PROBLEMS` has for each a name, the residuals, the start, and the minima of Σ r² that the paper lists (some of them at
infinity), to six digits. Those of variable dimension stand at n = 10, extended Powell at 12, which 4 must divide, the
linear ones with 20 residuals, Watson at n = 6, 9 and 12, for which the paper lists minima, and Chebyquad at 7 to 10.
`table` tells what a solver does with them.
"""

import jax.numpy as jnp
import numpy as np

from experiments.nist import DATA

BARD = np.array([0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39])
GAUSSIAN = np.array([0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989])
OSBORNE = """1.366 1.191 1.112 1.013 0.991 0.885 0.831 0.847 0.786 0.725 0.746 0.679 0.608 0.655 0.616 0.606 0.602 0.626
0.651 0.724 0.649 0.649 0.694 0.644 0.624 0.661 0.612 0.558 0.533 0.495 0.500 0.423 0.395 0.375 0.372 0.391 0.396 0.405
0.428 0.429 0.523 0.562 0.607 0.653 0.672 0.708 0.633 0.668 0.645 0.632 0.591 0.559 0.597 0.625 0.739 0.710 0.729 0.720
0.636 0.581 0.428 0.292 0.162 0.098 0.054"""


def counts(m):
    return np.arange(1, m + 1, dtype=float)


def rosenbrock(x):
    return jnp.concatenate([10 * (x[1::2] - x[::2] ** 2), 1 - x[::2]])


def freudenstein_roth(x):
    return jnp.stack([-13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1], -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]])


def powell_badly_scaled(x):
    return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def brown_badly_scaled(x):
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def beale(x):
    return jnp.stack([y - x[0] * (1 - x[1] ** i) for i, y in ((1, 1.5), (2, 2.25), (3, 2.625))])


def jennrich_sampson(x):
    i = counts(10)
    return 2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def helical_valley(x):
    turn = jnp.arctan2(x[1], x[0]) / (2 * jnp.pi)
    return jnp.stack([10 * (x[2] - 10 * turn), 10 * (jnp.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


def bard(x):
    u = counts(15)
    return BARD - (x[0] + u / ((16 - u) * x[1] + np.minimum(u, 16 - u) * x[2]))


def gaussian(x):
    t = (8 - counts(15)) / 2
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2) - np.concatenate([GAUSSIAN, GAUSSIAN[-2::-1]])


def meyer(x):
    return x[0] * jnp.exp(x[1] / (45 + 5 * counts(16) + x[2])) - np.array(DATA["MGH10"]["y"])


def gulf(x):
    t = counts(99) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return jnp.exp(-(jnp.abs(y - x[1]) ** x[2]) / x[0]) - t


def box(x):
    t = counts(10) / 10
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t))


def powell_singular(x):
    a, b, c, d = x[::4], x[1::4], x[2::4], x[3::4]
    return jnp.concatenate([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2])


def wood(x):
    a, b, c, d = x
    valleys = [10 * (b - a**2), 1 - a, 90**0.5 * (d - c**2), 1 - c]
    return jnp.stack([*valleys, 10**0.5 * (b + d - 2), (b - d) / 10**0.5])


def kowalik_osborne(x):
    u, y = np.array(DATA["MGH09"]["x"]), np.array(DATA["MGH09"]["y"])
    return y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x):
    t = counts(20) / 5
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2


def osborne_1(x):
    t = 10 * (counts(33) - 1)
    return np.array(DATA["MGH17"]["y"]) - (x[0] + x[1] * jnp.exp(-t * x[3]) + x[2] * jnp.exp(-t * x[4]))


def biggs(x):
    t = counts(13) / 10
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1]) + x[5] * jnp.exp(-t * x[4]) - y


def osborne_2(x):
    t = (counts(65) - 1) / 10
    peaks = x[1] * jnp.exp(-((t - x[8]) ** 2) * x[5])
    peaks = peaks + x[2] * jnp.exp(-((t - x[9]) ** 2) * x[6]) + x[3] * jnp.exp(-((t - x[10]) ** 2) * x[7])
    return np.array(OSBORNE.split(), float) - (x[0] * jnp.exp(-t * x[4]) + peaks)


def watson(x):
    t, j = counts(29)[:, None] / 29, np.arange(x.size)
    slope = (t ** np.maximum(j - 1, 0)[None] * j[None]) @ x
    return jnp.concatenate([slope - (t**j @ x) ** 2 - 1, jnp.stack([x[0], x[1] - x[0] ** 2 - 1])])


def penalty_1(x):
    return jnp.append(1e-5**0.5 * (x - 1), jnp.sum(x**2) - 0.25)


def penalty_2(x):
    n, e, i = x.size, jnp.exp(x / 10), counts(x.size)[1:]
    pairs = e[1:] + e[:-1] - (np.exp(i / 10) + np.exp((i - 1) / 10))
    small = 1e-5**0.5 * jnp.concatenate([pairs, e[1:] - np.exp(-0.1)])
    return jnp.concatenate([x[:1] - 0.2, small, jnp.sum((n - jnp.arange(n)) * x**2, keepdims=True) - 1])


def variably_dimensioned(x):
    total = jnp.sum(counts(x.size) * (x - 1))
    return jnp.concatenate([x - 1, jnp.stack([total, total**2])])


def trigonometric(x):
    return x.size - jnp.sum(jnp.cos(x)) + counts(x.size) * (1 - jnp.cos(x)) - jnp.sin(x)


def brown_almost_linear(x):
    return jnp.append(x[:-1] + jnp.sum(x) - (x.size + 1), jnp.prod(x) - 1)


def discrete_boundary_value(x):
    h, t = 1 / (x.size + 1), counts(x.size) / (x.size + 1)
    padded = jnp.pad(x, 1)
    return 2 * x - padded[:-2] - padded[2:] + h**2 * (x + t + 1) ** 3 / 2


def discrete_integral_equation(x):
    h, t = 1 / (x.size + 1), counts(x.size) / (x.size + 1)
    cubes = (x + t + 1) ** 3
    return x + h * (np.minimum(t[:, None], t) * (1 - np.maximum(t[:, None], t))) @ cubes / 2


def broyden_tridiagonal(x):
    padded = jnp.pad(x, 1)
    return (3 - 2 * x) * x - padded[:-2] - 2 * padded[2:] + 1


def broyden_banded(x):
    i = np.arange(x.size)
    band = (i[None] >= i[:, None] - 5) & (i[None] <= i[:, None] + 1) & (i[None] != i[:, None])
    return x * (2 + 5 * x**2) + 1 - band.astype(float) @ (x * (1 + x))


def linear_full_rank(x):
    return jnp.pad(x, (0, 20 - x.size)) - 2 / 20 * jnp.sum(x) - 1


def linear_rank_1(x):
    return counts(20) * jnp.sum(counts(x.size) * x) - 1


def linear_rank_1_with_zeros(x):
    rows, columns = counts(20) - 1, counts(x.size)
    rows[-1] = columns[0] = columns[-1] = 0
    return rows * jnp.sum(columns * x) - 1


def chebyquad(x):
    y, n = 2 * x - 1, x.size
    series = [jnp.ones_like(y), y]
    for _ in range(n - 1):
        series.append(2 * y * series[-1] - series[-2])
    integrals = np.array([0 if i % 2 else -1 / (i**2 - 1) for i in range(1, n + 1)])
    return jnp.stack([jnp.mean(t) for t in series[1:]]) - integrals


TEN = counts(10)
TIMES = TEN / 11
PROBLEMS = [
    ("1 Rosenbrock", rosenbrock, [-1.2, 1.0], [0]),
    ("2 Freudenstein & Roth", freudenstein_roth, [0.5, -2.0], [0, 48.9842]),
    ("3 Powell badly scaled", powell_badly_scaled, [0.0, 1.0], [0]),
    ("4 Brown badly scaled", brown_badly_scaled, [1.0, 1.0], [0]),
    ("5 Beale", beale, [1.0, 1.0], [0]),
    ("6 Jennrich & Sampson", jennrich_sampson, [0.3, 0.4], [124.362]),
    ("7 helical valley", helical_valley, [-1.0, 0.0, 0.0], [0]),
    ("8 Bard", bard, [1.0, 1.0, 1.0], [8.21487e-3, 17.4286]),
    ("9 Gaussian", gaussian, [0.4, 1.0, 0.0], [1.12793e-8]),
    ("10 Meyer", meyer, [0.02, 4000.0, 250.0], [87.9458]),
    ("11 Gulf research", gulf, [5.0, 2.5, 0.15], [0]),
    ("12 Box", box, [0.0, 10.0, 20.0], [0]),
    ("13 Powell singular", powell_singular, [3.0, -1.0, 0.0, 1.0], [0]),
    ("14 Wood", wood, [-3.0, -1.0, -3.0, -1.0], [0]),
    ("15 Kowalik & Osborne", kowalik_osborne, [0.25, 0.39, 0.415, 0.39], [3.07505e-4, 1.02734e-3]),
    ("16 Brown & Dennis", brown_dennis, [25.0, 5.0, -5.0, -1.0], [85822.2]),
    ("17 Osborne 1", osborne_1, [0.5, 1.5, -1.0, 0.01, 0.02], [5.46489e-5]),
    ("18 Biggs", biggs, [1.0, 2.0, 1.0, 1.0, 1.0, 1.0], [0, 5.65565e-3]),
    ("19 Osborne 2", osborne_2, [1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5], [4.01377e-2]),
    ("20 Watson 6", watson, np.zeros(6), [2.28767e-3]),
    ("20 Watson 9", watson, np.zeros(9), [1.39976e-6]),
    ("20 Watson 12", watson, np.zeros(12), [4.72238e-10]),
    ("21 extended Rosenbrock", rosenbrock, np.tile([-1.2, 1.0], 5), [0]),
    ("22 extended Powell", powell_singular, np.tile([3.0, -1.0, 0.0, 1.0], 3), [0]),
    ("23 penalty I", penalty_1, TEN, [7.08765e-5]),
    ("24 penalty II", penalty_2, np.full(10, 0.5), [2.93660e-4]),
    ("25 variably dimensioned", variably_dimensioned, 1 - TEN / 10, [0]),
    ("26 trigonometric", trigonometric, np.full(10, 0.1), [0, 2.79506e-5]),
    ("27 Brown almost-linear", brown_almost_linear, np.full(10, 0.5), [0, 1]),
    ("28 discrete boundary value", discrete_boundary_value, TIMES * (TIMES - 1), [0]),
    ("29 discrete integral", discrete_integral_equation, TIMES * (TIMES - 1), [0]),
    ("30 Broyden tridiagonal", broyden_tridiagonal, np.full(10, -1.0), [0]),
    ("31 Broyden banded", broyden_banded, np.full(10, -1.0), [0]),
    ("32 linear, full rank", linear_full_rank, np.ones(10), [10]),
    ("33 linear, rank 1", linear_rank_1, np.ones(10), [20 * 19 / 82]),
    ("34 linear, rank 1, zeros", linear_rank_1_with_zeros, np.ones(10), [454 / 74]),
    ("35 Chebyquad 7", chebyquad, counts(7) / 8, [0]),
    ("35 Chebyquad 8", chebyquad, counts(8) / 9, [3.51687e-3]),
    ("35 Chebyquad 9", chebyquad, counts(9) / 10, [0]),
    ("35 Chebyquad 10", chebyquad, counts(10) / 11, [6.50395e-3]),
]


def reached(squares: float, minima: list) -> float | None:
    """The listed minimum that a sum of squares is at to six digits, or the largest that it is below; None if none."""
    good = [m for m in minima if abs(squares - m) <= 1e-5 * m + 1e-14 or squares < m]
    return min(good, key=lambda m: abs(m - squares)) if good else None


def table(solve) -> list[dict]:
    """For each problem its name, status, evaluations, sum of squares and the listed minimum that was reached.

    Args:
        solve: (residual, start) -> Solution.
    """
    rows = []
    for name, residual, start, minima in PROBLEMS:
        solution = solve(residual, jnp.asarray(start))
        squares = 2 * float(solution.value)
        known = {"squares": squares, "listed": minima, "reached": reached(squares, minima)}
        rows.append({"problem": name, "status": int(solution.status), "evaluations": int(solution.evaluations)} | known)
    return rows
