"""Evaluations beside the search, by which a start or an end is judged: is a small gradient small for this function?

A gradient is small only beside other gradients of the same function. A solve that begins at a solution has seen none,
so it looks one length of its parameters away:

    down    along -g: where f falls, the start is no minimum
    far     towards the origin, where many solves begin
    near    a few units in the last place away: where g changes by as much as its own length, no dtype of this
            precision can tell it from zero

The first is the first trial of the first line search. A solve makes at most one more, and one `near` at its end if it
would else be called stalled.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_lite import tree

__all__ = ["FAR", "LAST", "NEAR", "NO", "SLACK", "far", "near", "reach"]

SLACK = 4.0  # the gradients seen by probes count that much, as they are few
NO, FAR, NEAR, LAST = 0, 1, 2, 3  # which probe the next evaluation is; LAST is `near` at the end


def reach(params: Any) -> jax.Array:
    """max(1, ‖x‖): how far away a probe looks."""
    return jnp.maximum(1, tree.global_norm(params))


def far(params: Any) -> Any:
    """x - 0.9 max(1, ‖x‖) u with u = x / ‖x‖: towards the origin, where logarithms are still finite.

    From x = 0 along a fixed direction without symmetries.
    """
    any_way = jax.tree.map(lambda x: jnp.cos(1 + jnp.arange(x.size, dtype=x.real.dtype)).reshape(x.shape), params)
    norm = tree.global_norm(params)
    u = jax.tree.map(lambda x, v: jnp.where(norm == 0, v.astype(x.dtype), x), params, any_way)
    length = 0.9 * reach(params) / tree.global_norm(u)
    return jax.tree.map(lambda x, v: x - length.astype(x.real.dtype) * v, params, u)


def near(params: Any) -> Any:
    """x (1 + k ε) with 1 <= k <= 5, another k for each number."""

    def change(x):
        k = (3 + 2 * jnp.cos(2 * jnp.arange(x.size, dtype=x.real.dtype))).reshape(x.shape)
        return x * (1 + k * jnp.finfo(x.dtype).eps)

    return jax.tree.map(change, params)
