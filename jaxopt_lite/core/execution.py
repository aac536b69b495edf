"""When costly computations run: one after the other, or only where some lane of a vmap needs them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

__all__ = ["after", "any_lane", "gathered", "in_turn", "is_tracing"]


def is_tracing() -> bool:
    """Whether what is computed now, of known numbers too, becomes a part of a traced program."""
    return isinstance(jax.device_put(0.0), Tracer)  # which compiles nothing


@jax.custom_batching.custom_vmap
def any_lane(condition: jax.Array) -> jax.Array:
    """A condition, a bool scalar; under vmap whether it holds in any lane, the same scalar for all.

    `lax.cond(any_lane(c), lambda x: tree.where(c, dear(x), x), lambda x: x, x)` is `dear` where c holds, and skips it
    where no lane needs it; `cond(c, ...)` would do both branches under vmap.
    """
    return condition


@any_lane.def_vmap
def _any_of_lanes(size: int, is_batched: list[bool], condition: jax.Array) -> tuple[jax.Array, bool]:
    del size, is_batched
    return any_lane(jnp.any(condition)), False


def in_turn(f: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Apply a function to each item, each application after the one before it.

    XLA runs what does not depend on each other at the same time: the temporary arrays of all applications are then
    alive together, and on a CPU with two cores batched QR and Cholesky decompositions side by side wait for each other
    forever. Here each item depends on all arrays of the result before it, by a selection that is never made.

    Args:
        f: a function of one item that returns a pytree of floating or complex arrays.
        items: pytrees of floating or complex arrays.

    Returns:
        The results in order.
    """
    results = []
    for item in items:
        results.append(f(after(results[-1:], item)))
    return results


def after(before: Any, item: Any) -> Any:
    """The item, which depends on all arrays of another pytree: what is computed of it runs after them.

    Args:
        before: a pytree of floating or complex arrays.
        item: the same.
    """
    arrays = [x for x in jax.tree.leaves(before) if x.size and not any(jax.typeof(x).sharding.spec)]
    if not arrays or not isinstance(arrays[0], Tracer):
        return item
    ends = [jax.lax.stop_gradient(jnp.real(jnp.ravel(x)[0])) for x in arrays]
    never = functools.reduce(jnp.logical_or, [end > jnp.inf for end in ends])
    return jax.tree.map(lambda x: jnp.where(never, jnp.zeros_like(x), x), item)


def gathered(f: Callable[..., Any], x: jax.Array, *others: Any) -> Any:
    """f(x, *others) for a function that needs all of x, where shardings are part of types; elsewhere it is just that.

    On a mesh of explicit axes a product over a sharded axis is an error, so the arguments are gathered, and the result,
    an array of x's shape or those of a tuple, is laid out as x again. XLA does this by itself on automatic axes.
    """
    spec = jax.typeof(x).sharding.spec
    if not any(spec):
        return f(x, *others)
    whole = jax.tree.map(lambda y: jax.sharding.reshard(y, jax.sharding.PartitionSpec()), (x, *others))
    back = lambda y: jax.sharding.reshard(y, spec) if isinstance(y, jax.Array) else y
    result = f(*whole)
    return tuple(map(back, result)) if isinstance(result, tuple) else back(result)
