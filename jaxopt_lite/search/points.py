"""Points that fill a cube: the starting points of many local solves.

    Sobol     x XOR u in binary digits     Sobol', 1967; random digital shift: L'Ecuyer & Lemieux, 2002, Section 2.4
    Halton    (x + u) mod 1                Halton, 1960; random shift: Cranley & Patterson, 1976
    random    u                            independent and uniform

The sequences x are constants; u is uniform, drawn from the key once for all points. Each shift keeps the low
discrepancy: that of Sobol keeps the net property exactly, that of Halton up to a constant.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["KINDS", "draw"]

KINDS = ("sobol", "halton", "random")
MOST_DIMENSIONS = 21201  # of the table of Joe & Kuo
BITS = 32


def draw(kind: str, key: jax.Array, index: jax.Array, count: int, like: jax.Array) -> jax.Array:
    """Points [k, n] of the unit cube.

    Args:
        kind: one of KINDS.
        key: the same for all points of a set.
        index: int32 [k], which points of the set; beyond the last one any point.
        count: the number of points of the set.
        like: an array [n], of the shape and dtype of a point.

    Raises:
        ValueError: for Sobol points of more than 21,201 dimensions.
    """
    n, dtype = like.size, like.dtype
    if kind == "random":
        return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (n,), dtype))(index)
    index = jnp.minimum(index, count - 1)
    if kind == "halton":
        shift = jax.random.uniform(key, (n,), dtype)
        return jnp.mod(jnp.asarray(_halton(count, n), dtype)[index] + shift[None], 1)
    shifted = jnp.asarray(_sobol(count, n))[index] ^ jax.random.bits(key, (n,), jnp.uint32)[None]
    return shifted.astype(dtype) * jnp.asarray(2.0**-BITS, dtype)


@functools.lru_cache(8)
def _sobol(count: int, n: int) -> np.ndarray:
    """The first points of a Sobol sequence as binary fractions, uint32 [count, n]."""
    from scipy.stats import qmc  # a third of a second

    if n > MOST_DIMENSIONS:
        raise ValueError(f"Sobol points have at most {MOST_DIMENSIONS:,} dimensions, got {n:,}; use points='random'")
    points = qmc.Sobol(n, scramble=False, bits=BITS).random_base2(max(count - 1, 1).bit_length())
    return (points[:count] * 2.0**BITS).astype(np.uint32)


@functools.lru_cache(8)
def _halton(count: int, n: int) -> np.ndarray:
    """The first points of a Halton sequence, float64 [count, n]."""
    from scipy.stats import qmc

    return qmc.Halton(n, scramble=False).random(count)
