"""Values of the BBOB functions as in the package cma (its module bbobbenchmarks), for test_bbob.py.

Run      python tests/search/make_bbob.py          with cma 4.5.0
Writes   tests/search/bbob.npz: points_N [4, N] for N dimensions, values_N [24, 3 instances, 4] less the least value,
         least [24, 3 instances]
"""

from pathlib import Path

import numpy as np

DIMENSIONS, INSTANCES = (2, 3, 5, 10, 20), (1, 2, 5)

if __name__ == "__main__":
    from cma import bbobbenchmarks

    random, found = np.random.default_rng(0), {}
    for n in DIMENSIONS:
        points = np.round(random.uniform(-5.5, 5.5, (4, n)), 3)
        values = np.zeros((24, len(INSTANCES), len(points)))
        least = np.zeros((24, len(INSTANCES)))
        for k in range(24):
            for i, instance in enumerate(INSTANCES):
                f, least[k, i] = bbobbenchmarks.instantiate(k + 1, instance)
                values[k, i] = [f(x.copy()) - least[k, i] for x in points]
        found |= {f"points_{n}": points, f"values_{n}": values, "least": least}
    np.savez_compressed(Path(__file__).with_name("bbob.npz"), **found)
