"""A pytree of parameters or residuals as one real vector, for methods that keep a dense matrix."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_lite import tree

__all__ = ["from_vector", "to_vector"]


def to_vector(params: Any) -> jax.Array:
    """All leaves as one real vector, of their widest real dtype and at least float32.

    A complex leaf is its real parts, then its imaginary parts, so that norms and inner products are those of the tree.
    """
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree.widen(params))]
    parts = [part for x in leaves for part in ((x.real, x.imag) if jnp.iscomplexobj(x) else (x,))]
    dtype = jnp.result_type(*[part.dtype for part in parts]) if parts else jnp.float32
    return jnp.concatenate([part.astype(dtype) for part in parts]) if parts else jnp.zeros(0, dtype)


def from_vector(vector: jax.Array, like: Any) -> Any:
    """The inverse of `to_vector`: a tree with the structure, shapes and dtypes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    sizes = [jnp.size(leaf) * (1 + jnp.iscomplexobj(leaf)) for leaf in leaves]
    restored, start = [], 0
    for leaf, size in zip(leaves, sizes, strict=True):
        part = vector[start : start + size]
        if jnp.iscomplexobj(leaf):
            part = jax.lax.complex(part[: size // 2], part[size // 2 :])
        restored.append(tree.cast(part.reshape(jnp.shape(leaf)), tree.dtype_of(leaf)))
        start += size
    return structure.unflatten(restored)
