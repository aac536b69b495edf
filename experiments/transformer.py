"""A decoder-only transformer in plain functions, for experiments and benchmarks: pre-norm blocks, learned positions.

Parameters are a dict of matrices [in, out], whose names tell `muon` which are hidden; the number of heads is no
parameter, and the other sizes are those of the arrays.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

__all__ = ["apply", "cross_entropy", "init"]


def init(key: jax.Array, layers: int, width: int, tokens: int, length: int) -> dict[str, Any]:
    """The parameters of `layers` blocks; for `tokens` different tokens, in contexts of `length`."""
    shapes = {"query": 1, "key": 1, "value": 1, "out": 1, "up": 4, "down": 4}

    def block(key):
        keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
        sizes = {name: (width * n, width) if name == "down" else (width, width * n) for name, n in shapes.items()}
        weights = {name: jax.random.normal(keys[name], size) * size[0] ** -0.5 for name, size in sizes.items()}
        attention = {name: weights[name] for name in ("query", "key", "value", "out")}
        mlp = {name: weights[name] for name in ("up", "down")}
        return {"attention": attention, "mlp": mlp, "norm_1": jnp.ones(width), "norm_2": jnp.ones(width)}

    *keys, one, two, three = jax.random.split(key, layers + 3)
    return {
        **{f"block_{i}": block(k) for i, k in enumerate(keys)},
        "embed": jax.random.normal(one, (tokens, width)) * 0.02,
        "position_embed": jax.random.normal(two, (length, width)) * 0.02,
        "head": jax.random.normal(three, (width, tokens)) * width**-0.5,
    }


def normed(x: jax.Array, scale: jax.Array) -> jax.Array:
    """x [batch, length, width] with a root mean square of `scale` [width] along the last axis."""
    return scale[None, None] * x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def apply(params: dict[str, Any], tokens: jax.Array, heads: int) -> jax.Array:
    """Logits [batch, length, tokens] of the token that follows each of int32 [batch, length]."""
    x = params["embed"][tokens] + params["position_embed"][None]
    blocks = [params[name] for name in params if name.startswith("block_")]
    split = lambda y: y.reshape(*y.shape[:-1], heads, y.shape[-1] // heads)
    for block in blocks:
        a, m = block["attention"], block["mlp"]
        y = normed(x, block["norm_1"])
        seen = jax.nn.dot_product_attention(*(split(y @ a[name]) for name in ("query", "key", "value")), is_causal=True)
        x = x + seen.reshape(x.shape) @ a["out"]
        x = x + jax.nn.gelu(normed(x, block["norm_2"]) @ m["up"]) @ m["down"]
    return x @ params["head"]


def cross_entropy(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """The mean cross-entropy in nats, of logits [..., tokens] for the tokens int32 [...] that came."""
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, tokens))
