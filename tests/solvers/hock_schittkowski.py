"""Problems of Hock & Schittkowski, "Test Examples for Nonlinear Programming Codes", 1981, of one shape.

Each is (number, f, start, lower, upper, c, kinds, value): kinds has a letter for each constraint, "e" for c = 0 and
"i" for c >= 0. All are padded to 4 parameters and 3 constraints, so that one program solves them all.
"""

import jax
import jax.numpy as jnp
import numpy as np

INF = np.inf

TABLE = [
    (1, lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2, (-2, 1), (-INF, -1.5), (), lambda x: (), "", 0.0),
    (6, lambda x: (1 - x[0]) ** 2, (-1.2, 1), (), (), lambda x: (10 * (x[1] - x[0] ** 2),), "e", 0.0),
    (
        *(21, lambda x: 0.01 * x[0] ** 2 + x[1] ** 2 - 100, (-1, -1), (2, -50), (50, 50)),
        *(lambda x: (10 * x[0] - x[1] - 10,), "i", -99.96),
    ),
    (
        35,
        lambda x: (
            *(9 - 8 * x[0] - 6 * x[1] - 4 * x[2],),
            *(2 * x[0] ** 2 + 2 * x[1] ** 2 + x[2] ** 2 + 2 * x[0] * x[1] + 2 * x[0] * x[2],),
        ),
        *((0.5, 0.5, 0.5), (0, 0, 0), (), lambda x: (3 - x[0] - x[1] - 2 * x[2],), "i", 1 / 9),
    ),
    (
        *(37, lambda x: -x[0] * x[1] * x[2], (10, 10, 10), (0, 0, 0), (42, 42, 42)),
        *(lambda x: (72 - x[0] - 2 * x[1] - 2 * x[2], x[0] + 2 * x[1] + 2 * x[2]), "ii", -3456.0),
    ),
    (
        *(39, lambda x: -x[0], (2, 2, 2, 2), (), ()),
        *(lambda x: (x[1] - x[0] ** 3 - x[2] ** 2, x[0] ** 2 - x[1] - x[3] ** 2), "ee", -1.0),
    ),
    (
        *(40, lambda x: -jnp.prod(x), (0.8, 0.8, 0.8, 0.8), (), ()),
        *(lambda x: (x[0] ** 3 + x[1] ** 2 - 1, x[0] ** 2 * x[3] - x[2], x[3] ** 2 - x[1]), "eee", -0.25),
    ),
    (
        43,
        lambda x: (
            *(x[0] ** 2 + x[1] ** 2 + 2 * x[2] ** 2 + x[3] ** 2,),
            *(-5 * x[0] - 5 * x[1] - 21 * x[2] + 7 * x[3],),
        ),
        *((0, 0, 0, 0), (), ()),
        lambda x: (
            8 - jnp.sum(x**2) - x[0] + x[1] - x[2] + x[3],
            10 - x[0] ** 2 - 2 * x[1] ** 2 - x[2] ** 2 - 2 * x[3] ** 2 + x[0] + x[3],
            5 - 2 * x[0] ** 2 - x[1] ** 2 - x[2] ** 2 - 2 * x[0] + x[1] + x[3],
        ),
        *("iii", -44.0),
    ),
    (
        *(71, lambda x: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2], (1, 5, 5, 1), (1, 1, 1, 1), (5, 5, 5, 5)),
        *(lambda x: (jnp.prod(x) - 25, jnp.sum(x**2) - 40), "ie", 17.01401728916),
    ),
    (
        76,
        lambda x: (
            *(x[0] ** 2 + 0.5 * x[1] ** 2 + x[2] ** 2 + 0.5 * x[3] ** 2 - x[0] * x[2] + x[2] * x[3],),
            *(-x[0] - 3 * x[1] + x[2] - x[3],),
        ),
        *((0.5, 0.5, 0.5, 0.5), (0, 0, 0, 0), ()),
        lambda x: (5 - x[0] - 2 * x[1] - x[2] - x[3], 4 - 3 * x[0] - x[1] - 2 * x[2] + x[3], x[1] + 4 * x[2] - 1.5),
        *("iii", -4.681818181818),
    ),
]
NUMBERS = [row[0] for row in TABLE]
VALUES = np.array([row[7] for row in TABLE])


def padded(numbers, fill, size):
    return np.array([*numbers, *[fill] * (size - len(numbers))], float)


STARTS = np.stack([padded(row[2], 0, 4) for row in TABLE])
LOWER = np.stack([padded(row[3], -INF, 4) for row in TABLE])
UPPER = np.stack([padded(row[4], INF, 4) for row in TABLE])
LEAST = np.stack([padded([0.0] * len(row[6]), -INF, 3) for row in TABLE])
MOST = np.stack([padded([0.0 if kind == "e" else INF for kind in row[6]], INF, 3) for row in TABLE])


def objective(x, i):
    """f of problem i of the table."""
    total = lambda terms: sum(terms) if isinstance(terms, tuple) else terms
    return jax.lax.switch(i, [lambda x, f=row[1]: total(f(x)) for row in TABLE], x)


def constraint(x, i):
    """c of problem i of the table, [3]."""
    return jax.lax.switch(
        i, [lambda x, c=row[5]: jnp.stack([*c(x), *[jnp.zeros(()) * x[0]] * (3 - len(c(x)))]) for row in TABLE], x
    )
