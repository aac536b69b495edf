"""State in 8 bits: blocks of numbers, each with a scale of its own.

    x ≈ s q(c)        c: a code of 8 bits for each number; q: the values of the 256 codes; s: the largest |x| of a block

The values are dense towards zero: seven decades, each with twice as many values as the one below it. A block without
negative numbers, as of second moments, uses values of one sign, which lie twice as dense.

Dettmers, Lewis, Shleifer & Zettlemoyer, "8-bit Optimizers via Block-wise Quantization", 2022, arXiv:2110.02861.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lite import tree
from jaxopt_lite.core.layout import Place, state_layout
from jaxopt_lite.core.transformation import GradientTransformation, deciding, own_acts_on, transformation

__all__ = ["Blocks", "quantize_state"]

DECADES = 7  # of the largest number of a block that have values of their own
CODES = 256
_TINY = float(np.finfo(np.float32).tiny)


class QuantizedState(NamedTuple):
    """The state of the inner rule, with `Blocks` in the place of the arrays that are quantised."""

    inner_state: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Blocks:
    """An array in 8 bits, flattened and cut into blocks, the last of which is filled up with zeros.

    Attributes:
        codes: uint8 [blocks, block_size].
        scale: float32 [blocks], the largest size in each block; negative where the block has negative numbers, whose
            codes are then those of both signs.
        dims: the shape of the array.
        dtype: the name of the dtype that it is computed in.
    """

    codes: Any
    scale: Any
    dims: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    dtype: str = dataclasses.field(metadata={"static": True})

    def layout(self, place: Place) -> "Blocks":
        """Where the codes and the scales belong, from the place of the array."""
        codes, scale = (dataclasses.replace(place, axes=axes) for axes in (("flat", None), ("flat",)))
        return Blocks(codes, scale, self.dims, self.dtype)


@transformation(acts_on="leaf")
def quantize_state(inner: GradientTransformation, bits: int = 8, block_size: int = 256, min_size: int = 4096):
    """Keep the moments of a rule in 8 bits: a quarter of their memory, 2.03 bytes a parameter for Adam's two.

    Each update restores them to float32, lets the inner rule work, and quantises them again. Quantised are floating
    arrays of the inner state that belong to parameters. Complex ones, small ones, those of 16 bits, counts, sums over
    leaves, and what begins as a copy of the parameters (averages, slow weights) stay as they are. A number that is not
    finite spoils its block: put `skip_not_finite` around. Derivatives do not pass through the codes from one step to
    the next.

    On CPU the step takes several times longer; what it saves there is the stored state.

    In a block, a second moment below 1.6e-7 of the largest one becomes zero, and its weight then takes steps without a
    bound. That happens where gradients of neighbours differ by more than 1e3, as in embeddings and output layers with
    rare words: keep these in 32 bits, by `min_size` or `partition`.

    Args:
        inner: a rule that acts on coordinates; see `transformation`. In a chain with others, such as
            `scale_by_trust_ratio`, quantise the rules that have moments: `chain(quantize_state(scale_by_adam()), ...)`.
        bits: 8, or 32 for the inner rule's own state.
        block_size: numbers that share a scale, at least 1. Each block costs 4 bytes more.
        min_size: arrays of fewer numbers stay as they are, as in `bitsandbytes`; `quantize_state(stack_leaves(...))`
            makes larger ones of them.

    Raises:
        ValueError: if an argument is out of its range, or the inner rule acts on more than coordinates.

    Reference: Dettmers, Lewis, Shleifer & Zettlemoyer, "8-bit Optimizers via Block-wise Quantization", 2022,
        arXiv:2110.02861, Section 2. The codes are those of the package `bitsandbytes`, except in blocks of its signed
        slots that happen to have no negative number: these get the denser values.
    """
    if bits not in (8, 32):
        raise ValueError(f"quantize_state: bits must be 8, or 32 to change nothing, got {bits!r}")
    for name, value in (("block_size", block_size), ("min_size", min_size)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"quantize_state: {name} must be an int of at least 1, got {value!r}")
    for rule in deciding(inner):
        if own_acts_on(rule) != "coordinate":
            raise ValueError(
                f"quantize_state: the inner rule contains {rule.factory.spec.name}, which acts on "
                f"{own_acts_on(rule)!r}, and what 8 bits do to its state is not known; quantise the other rules of the "
                "chain, chain(quantize_state(scale_by_adam()), ...); if it acts on coordinates, declare that where it "
                'is made, @transformation(acts_on="coordinate") or lift(..., acts_on="coordinate")'
            )

    def init(params):
        state = inner.init(params)
        if bits == 32:
            return QuantizedState(state)
        leaves, structure = jax.tree.flatten(state)
        chosen = _moments(inner, params, min_size)
        # Without the barrier XLA computes the codes of constant zeros while it compiles, for many seconds.
        stored = [
            quantized(jax.lax.optimization_barrier(x), block_size) if is_moment else x
            for x, is_moment in zip(leaves, chosen, strict=True)
        ]
        return QuantizedState(structure.unflatten(stored))

    def update(updates, state, params=None, **extra):
        stored = state.inner_state
        wide = jax.tree.map(lambda x: restored(x) if _is_blocks(x) else x, stored, is_leaf=_is_blocks)
        updates, new = inner.update(updates, wide, params, **extra)
        again = lambda old, x: _like(old, quantized(x, block_size)) if _is_blocks(old) else x
        return updates, QuantizedState(jax.tree.map(again, stored, new, is_leaf=_is_blocks))

    return init, update


def quantized(x: Any, block_size: int) -> Blocks:
    """An array in 8 bits."""
    codes, scale = _quantize(x, block_size)
    return Blocks(codes, scale, tuple(np.shape(x)), np.dtype(tree.compute_dtype(tree.dtype_of(x))).name)


def restored(blocks: Blocks) -> jax.Array:
    """The array that the codes stand for."""
    flat = _dequantize(blocks.codes, blocks.scale).reshape(-1)
    return flat[: np.prod(blocks.dims, dtype=int)].reshape(blocks.dims).astype(blocks.dtype)


def _like(old: Blocks, new: Blocks) -> Blocks:
    """The new codes with the dtype that `init` chose, as other states keep theirs."""
    return dataclasses.replace(new, dtype=old.dtype)


def _is_blocks(x: Any) -> bool:
    return isinstance(x, Blocks)


def _moments(inner: GradientTransformation, params: Any, min_size: int) -> list[bool]:
    """Which leaves of the inner state are quantised."""
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(np.shape(p), tree.dtype_of(p)), params)
    jaxpr, state = jax.make_jaxpr(inner.init, return_shape=True)(shapes)
    copies = _depending(jaxpr.jaxpr)
    is_wide = lambda x: jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize >= 4
    return [
        bool(place.params) and is_wide(leaf) and leaf.size >= min_size and not is_copy
        for leaf, place, is_copy in zip(
            jax.tree.leaves(state), jax.tree.leaves(state_layout(inner, shapes)), copies, strict=True
        )
    ]


def _depending(jaxpr: Any) -> list[bool]:
    """Which results of a function depend on the numbers of its arguments."""
    is_known = lambda v: not hasattr(v, "val") and v in known  # literals have a value, and no hash
    known = set(jaxpr.invars)
    for eqn in jaxpr.eqns:
        if any(map(is_known, eqn.invars)):
            known.update(eqn.outvars)
    return [is_known(v) for v in jaxpr.outvars]


def code_values(signed: bool) -> np.ndarray:
    """q, the values of the codes in rising order, float32 [256]: 0, 1, and the middles of equal parts of each decade.

    Decade i, from 10^(i-7) to 10^(i-6), has 2^i parts, of either sign where `signed`, and else twice as many. The order
    of operations is that of `create_dynamic_map` of bitsandbytes, whose values these are, bit for bit.
    """
    found = [np.array([0, 1], np.float32)]
    for i in range(DECADES):
        ends = _linspace(2**i if signed else 2 ** (i + 1))
        middles = np.float32(10.0 ** (i - DECADES + 1)) * ((ends[:-1] + ends[1:]) / np.float32(2))
        found += [middles, -middles] if signed else [middles]
    return np.sort(np.concatenate(found))


def _linspace(parts: int) -> np.ndarray:
    """From 0.1 to 1 in equal parts as PyTorch computes it: a fused multiply-add in float32, from the nearer end."""
    low, high = np.float32(0.1), np.float32(1)
    step, i = np.float64((high - low) / np.float32(parts)), np.arange(parts + 1)
    return np.where(i < (parts + 1) // 2, low + step * i, high - step * (parts - i)).astype(np.float32)


_VALUES = np.stack([code_values(False), code_values(True)])
_ZERO = np.argmin(np.abs(_VALUES), axis=1)  # the code of 0: 0, or 127 where both signs have values
_BOUNDS = (_VALUES[:, :-1] + _VALUES[:, 1:]) / np.float32(2)  # a number between two of them takes the code between
_BOUNDS = np.pad(_BOUNDS, ((0, 0), (0, 1)), constant_values=np.inf)


@tree.inlined
def _dequantize(codes: jax.Array, scale: jax.Array) -> jax.Array:
    """The numbers, float32 [blocks, block_size]."""
    both_signs = (scale < 0)[:, None]
    return _look_up(_VALUES, both_signs, codes.astype(jnp.int32)) * jnp.abs(scale)[:, None]


def _quantize(x: Any, block_size: int) -> tuple[jax.Array, jax.Array]:
    """Codes [blocks, block_size] and scales [blocks] of an array of any shape."""
    flat = jnp.asarray(x).reshape(-1)
    missing = -flat.size % block_size
    return _codes_of(jnp.pad(flat, (0, missing)).astype(jnp.float32).reshape(-1, block_size))


@tree.inlined
def _codes_of(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    # XLA's maximum on CPU passes over a NaN; an infinite scale makes NaN of all zeros, and infinity of the rest.
    largest = jnp.max(jnp.where(jnp.isnan(x), jnp.inf, jnp.abs(x)), axis=1)
    both_signs = jnp.min(x, axis=1) < 0
    scaled = jnp.clip(x * (1 / jnp.maximum(largest, _TINY))[:, None], -1, 1)
    return _nearest(scaled, both_signs[:, None]).astype(jnp.uint8), jnp.where(both_signs, -largest, largest)


def _nearest(x: jax.Array, both_signs: jax.Array) -> jax.Array:
    """The codes, int32, whose values are next to numbers between -1 and 1: how many bounds lie below each.

    A search among the bounds would look up eight of them. Within a decade the values lie evenly, so their number below
    |x| is a linear function of it, exact within 0.2 of a part; a quarter less gives the code or the one below, and one
    bound decides.
    """
    size, below = jnp.abs(x), jnp.zeros_like(x)
    for i in range(DECADES):
        in_decade = (size * 10.0 ** (DECADES - 1 - i) - 0.1) / 0.9
        below = jnp.where(size > 10.0 ** (i - DECADES), 2**i - 1 + 2**i * in_decade, below)
    below = jnp.floor(jnp.where(both_signs, below, 2 * below) + 0.75).astype(jnp.int32)
    zero = jnp.where(both_signs, _ZERO[1], _ZERO[0])
    start = jnp.maximum(jnp.where(x < 0, zero - 1 - below, zero + below), 0)
    return start + (x > _look_up(_BOUNDS, both_signs, start))


def _look_up(table: np.ndarray, row: jax.Array, i: jax.Array) -> jax.Array:
    """table[row, i] for each i, of a table of two rows."""
    i = i + CODES * row
    sharding = jax.typeof(i).sharding  # on explicit meshes a gather has to be given that of its result
    sharding = None if sharding.mesh.empty or not sharding.mesh.are_all_axes_explicit else sharding
    return jnp.asarray(table.reshape(-1)).at[i].get(mode="clip", out_sharding=sharding)
