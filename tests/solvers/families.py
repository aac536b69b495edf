"""Problems with equally many unknowns as one function of an index, so that they are compiled and solved together."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.quick import quick_jit


def one_of(*functions):
    """f(x, i) = functions[i](x)."""
    return lambda x, i: jax.lax.switch(i, functions, x)


def families(table):
    """Of rows (function, start, ...) those of each length of start: f(x, i), starts [k, n] and the rows."""
    for n in sorted({len(row[1]) for row in table}):
        rows = [row for row in table if len(row[1]) == n]
        yield one_of(*(row[0] for row in rows)), np.stack([row[1] for row in rows]), rows


def solve_all(entry, f, starts, method, **more):
    """Solutions from all starts, and those from their params: (solution, again) for each row of starts."""
    program = quick_jit(jax.vmap(functools.partial(_solve, entry, f, method, more)))
    indices = jnp.arange(len(starts))
    first = program(starts, indices)
    again = program(first.params, indices)
    lane = lambda batch, i: jax.tree.map(lambda leaf: leaf[i], batch)
    return [(lane(first, i), lane(again, i)) for i in range(len(starts))]


def _solve(entry, f, method, more, start, i):
    return entry(f, start, args=(i,), method=method, **more)
