"""The random numbers of the BBOB benchmark, by which the instances of its functions are made.

They are part of the benchmark: the same seeds give the same functions in every language. Everything is float64.
"""

from typing import Any

import numpy as np

__all__ = ["Draws", "park_miller"]

MODULUS, FACTOR = 2**31 - 1, 16807  # the generator of Park & Miller, 1988
SLOTS, WARM_UP = 32, 8  # the table of its shuffle (Bays & Durham, 1976), and the numbers dropped before it


def park_miller(count: int, seed: int) -> np.ndarray:
    """Numbers in (0, 1), [count]."""
    state = max(abs(int(seed)), 1)
    table = [0] * SLOTS
    for i in reversed(range(SLOTS + WARM_UP)):
        state = FACTOR * state % MODULUS
        if i < SLOTS:
            table[i] = state
    last, found = table[0], np.empty(count)
    for i in range(count):
        state = FACTOR * state % MODULUS
        slot = last // (MODULUS // SLOTS + 2)
        last, table[slot] = table[slot], state
        found[i] = last / MODULUS
    return found


class Draws:
    """What one instance of a function draws.

    Args:
        n: the dimension.
        seed: of the instance.
    """

    def __init__(self, n: int, seed: int):
        self.n, self.seed = n, seed

    def uniform(self, count: int, shift: int = 0) -> np.ndarray:
        """[count], with the seed moved by `shift`."""
        return park_miller(count, self.seed + shift)

    def normal(self, count: int, shift: int = 0) -> np.ndarray:
        """[count], by the transformation of Box & Muller."""
        u = self.uniform(2 * count, shift)
        return np.sqrt(-2 * np.log(u[:count])) * np.cos(2 * np.pi * u[count:])

    def value(self) -> float:
        """The optimal value: a ratio of normal numbers, rounded to two digits, within ±1000."""
        ratio = self.normal(1)[0] / self.normal(1, 1)[0]
        return float(np.clip(np.round(100 * 100 * ratio) / 100, -1000, 1000))

    def point(self, shift: int = 0) -> np.ndarray:
        """An optimum, uniform in [-4, 4]ⁿ with four digits, and nowhere zero: [n]."""
        x = 8 * np.floor(1e4 * self.uniform(self.n, shift)) / 1e4 - 4
        return np.where(x == 0, -1e-5, x)

    def rotation(self, shift: int = 0) -> np.ndarray:
        """An orthogonal matrix [n, n]: its columns are normal vectors, orthogonalized in their order."""
        rows: list[Any] = []
        for row in self.normal(self.n**2, shift).reshape(self.n, self.n):
            for other in rows:
                row = row - (row @ other) * other
            rows.append(row / np.sqrt(np.sum(row**2)))
        return np.array(rows).T
