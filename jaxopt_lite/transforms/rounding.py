"""Weights of 16 bits, without the loss of small steps.

A bfloat16 number has 8 significant bits: a step of less than 1/512 of a weight is lost where the sum is rounded to
nearest, [·]. These wrappers own the rounding of p' = p + u:

stochastic_rounding   up or down by chance, right on average          no state
kahan_summation       p' = [p + (u + c)],  c ← u + c - (p' - p)       2 bytes a parameter: the rest that was not added
master_weights        w ← w + u in float32,  p' = [w]                 2 bytes a parameter: the bits of w that p' lacks

They return the float32 differences p' - p, from which `apply_updates`, Optax's too, makes p' exactly unless a weight
shrinks to less than 1/65536 in one step. Parameters of 32 bits and more are updated as ever. The wrappers must see the
parameters as they are, so they promise no more than to act on leaves, and stand around all other rules.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.parameters import Key
from jaxopt_lite.core.transformation import GradientTransformation, own_rounding, transformation

__all__ = ["kahan_summation", "master_weights", "stochastic_rounding"]


class StochasticRoundingState(NamedTuple):
    """Steps done (int32), the key of the random bits, and the state of the inner rule."""

    count: Any
    rng_key: jax.Array
    inner_state: Any


class KahanState(NamedTuple):
    """What has not been added yet, in the dtypes of the narrow parameters, and the state of the inner rule."""

    compensation: Any
    inner_state: Any


class MasterWeightsState(NamedTuple):
    """The lower bits of the float32 weights (int16; a float32 copy for float16), and the state of the inner rule."""

    rest: Any
    inner_state: Any


@transformation(acts_on="tree")
def stochastic_rounding(inner: GradientTransformation, key: Key = 0):
    """Round 16-bit weights up with the probability that makes the mean exact, so that small steps are not lost.

    Put it around all other rules. The random bits are a hash of key, step, leaf and place in the leaf, far cheaper than
    those of JAX's keys, and the same in every run.

    Args:
        inner: the rule whose steps are added.
        key: a seed (static) or a key (a leaf). `init` copies it into the state; where a run makes the state (`fit`,
            `init_state`, `sweep`) its seed is mixed in, so that each seed has a rounding of its own.

    Raises:
        ValueError: if update is called without params, or it does not see the whole tree of parameters.

    Reference: Zamirai, Zhang, Aberger & De Sa, "Revisiting BFloat16 Training", 2020, arXiv:2010.06192, Algorithm 1.
    """

    def init(params):
        own_rounding("stochastic_rounding", params)
        start = jnp.copy(key) if isinstance(key, jax.Array) else jax.random.key(key)  # a buffer of its own
        return StochasticRoundingState(jnp.zeros([], jnp.int32), start, inner.init(params))

    def update(updates, state, params=None, **extra):
        dtypes = _dtypes("stochastic_rounding", params)
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra)
        numbers = iter(range(len(dtypes)))

        def step(dtype, p, u):
            bits = random_bits(state.rng_key, state.count, next(numbers), p.shape)
            return (_rounded(_sum(p, u), dtype, bits) - p,)

        (updates,) = _narrow_leaves(1, step, dtypes, params, updates, wide=lambda p, u: (u,))
        return updates, StochasticRoundingState(optax.safe_increment(state.count), state.rng_key, inner_state)

    return init, update


@transformation(acts_on="leaf")
def kahan_summation(inner: GradientTransformation):
    """Keep what rounding took away from a step of 16-bit weights, and add it to the next.

    Put it around all other rules.

    Args:
        inner: the rule whose steps are added.

    Raises:
        ValueError: if update is called without params, or it does not see the whole tree of parameters.

    Reference: Zamirai, Zhang, Aberger & De Sa, "Revisiting BFloat16 Training", 2020, arXiv:2010.06192, Algorithm 2;
        Kahan, "Further Remarks on Reducing Truncation Errors", 1965.
    """

    def init(params):
        dtypes = own_rounding("kahan_summation", params)
        (rest,) = _narrow_leaves(1, lambda dtype, p: (jnp.zeros_like(p, dtype=dtype),), dtypes, params)
        return KahanState(rest, inner.init(params))

    def update(updates, state, params=None, **extra):
        dtypes = _dtypes("kahan_summation", params)
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra)

        def step(dtype, p, u, c):
            u = _sum(u, c)
            moved = _rounded(p + u, dtype) - p
            return moved, u - moved

        new = _narrow_leaves(2, step, dtypes, params, updates, state.compensation, wide=lambda p, u, c: (u, c))
        return new[0], KahanState(new[1], inner_state)

    return init, update


@transformation(acts_on="leaf")
def master_weights(inner: GradientTransformation):
    """Train float32 weights of which the 16-bit parameters are the upper half; the state holds the lower half.

    The inner rule sees the float32 weights, and with the same gradients they are those of float32 training, bit for
    bit where XLA rounds the two programs alike. Put it around all other rules. float16 is not the upper half of a
    float32: there the state holds all 32 bits.

    Args:
        inner: the rule that updates the float32 weights.

    Raises:
        ValueError: if update is called without params, or it does not see the whole tree of parameters.

    Reference: Micikevicius et al., "Mixed Precision Training", 2018, arXiv:1710.03740, Section 3.1.
    """

    def init(params):
        dtypes = own_rounding("master_weights", params)
        rest = lambda dtype, p: (jnp.zeros_like(p, dtype=jnp.int16) if dtype == jnp.bfloat16 else tree.copy(p),)
        return MasterWeightsState(_narrow_leaves(1, rest, dtypes, params)[0], inner.init(params))

    def update(updates, state, params=None, **extra):
        dtypes = _dtypes("master_weights", params)
        whole = lambda dtype, p, rest: (_joined(p, rest) if dtype == jnp.bfloat16 else rest,)
        (weights,) = _narrow_leaves(1, whole, dtypes, params, state.rest, wide=lambda p, rest: (p,))
        updates, inner_state = inner.update(updates, state.inner_state, weights, **extra)

        def step(dtype, p, w, u):
            w = _sum(w, u)
            new, rest = _split(w) if dtype == jnp.bfloat16 else (_rounded(w, dtype), w)
            return new - p, rest

        new = _narrow_leaves(2, step, dtypes, params, weights, updates, wide=lambda p, w, u: (u, optax.MaskedNode()))
        return new[0], MasterWeightsState(new[1], inner_state)

    return init, update


def _dtypes(who: str, params: Any) -> list[Any]:
    checks.require(params, "params", who)
    return own_rounding(who, params)


def _narrow_leaves(n: int, f: Any, dtypes: list, *trees: Any, wide: Any = None) -> tuple:
    """n trees of the n results of f(dtype, *leaves) for 16-bit leaves, and of wide(*leaves) for the others."""
    leaves, structure = jax.tree.flatten(trees[0])
    others = [structure.flatten_up_to(other) for other in trees[1:]]
    wide = wide or (lambda *leaves: (optax.MaskedNode(),) * n)
    results = [
        f(dtype, *args) if tree.compute_dtype(dtype) != dtype else wide(*args)
        for dtype, *args in zip(dtypes, leaves, *others, strict=True)
    ]
    return tuple(structure.unflatten([result[i] for result in results]) for i in range(n))


def _sum(a: Any, b: Any) -> jax.Array:
    return (a + b).astype(jnp.float32)  # of a float64 gradient too


def _rounded(x: jax.Array, dtype: Any, random: Any = None) -> jax.Array:
    """Float32 numbers rounded to a narrow dtype, still as float32: to nearest, or with random bits up or down.

    The bits that the narrow dtype lacks are dropped, after bits below them were added. (XLA takes a conversion to
    bfloat16 and back for superfluous.) Derivatives are those of x.
    """
    info = jnp.finfo(dtype)
    drop, tiny = jnp.finfo(jnp.float32).nmant - info.nmant, float(info.tiny)
    # Below its least normal number a dtype has the resolution that it has just above.
    offset = jnp.where(jnp.abs(x) < tiny, jnp.copysign(jnp.float32(tiny), x), 0) if info.minexp > -126 else 0
    bits = jax.lax.bitcast_convert_type(x + offset, jnp.uint32)
    mask = np.uint32(2**drop - 1)
    added = np.uint32(2 ** (drop - 1) - 1) + ((bits >> drop) & 1) if random is None else random & mask
    return _instead_of(x, jax.lax.bitcast_convert_type((bits + added) & ~mask, jnp.float32) - offset, x)


def _split(w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The nearest bfloat16 number (of two, the larger), as float32, and what its bits lack, int16."""
    bits = jax.lax.bitcast_convert_type(w, jnp.uint32)
    upper = (bits + np.uint32(2**15)) & np.uint32(0xFFFF0000)
    rest = jax.lax.bitcast_convert_type(bits - upper, jnp.int32).astype(jnp.int16)
    new = _instead_of(w, jax.lax.bitcast_convert_type(upper, jnp.float32), w)
    return new, jnp.where(jnp.isnan(w), 0, rest)


def _joined(p: jax.Array, rest: jax.Array) -> jax.Array:
    """The float32 number that was split."""
    bits = jax.lax.bitcast_convert_type(p, jnp.int32) + rest.astype(jnp.int32)
    w = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return _instead_of(p, w, w)  # p may be infinite where w is the largest number


def _instead_of(x: jax.Array, new: jax.Array, otherwise: jax.Array) -> jax.Array:
    """The new numbers with the derivatives of x, and something else where x is not finite."""
    return jnp.where(jnp.isfinite(x), x + jax.lax.stop_gradient(new - x), otherwise)


def random_bits(key: jax.Array, step: Any, leaf: int, shape: tuple[int, ...]) -> jax.Array:
    """Random bits, uint32 of a shape: a hash of each place in the leaf, keyed by a hash of key, step and leaf.

    The key enters twice, between the rounds too, or two steps would have the same bits at shifted places.
    """
    salt = jnp.uint32(leaf)
    for word in (*jax.random.key_data(key).reshape(-1), jnp.asarray(step).astype(jnp.uint32)):
        salt = _hash(salt + np.uint32(0x9E3779B9), word)
    places = jax.lax.iota(jnp.uint32, int(np.prod(shape))).reshape(shape)
    return _hash(places ^ salt, _hash(salt, np.uint32(0x85EBCA6B)))


def _hash(x: jax.Array, word: Any) -> jax.Array:
    """Two rounds of shift and multiplication with a word between; constants of Wellons' `lowbias32`, 2018."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D) ^ word
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
