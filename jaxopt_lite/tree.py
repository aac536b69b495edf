"""Arithmetic on pytrees that JAX and Optax do not have, or have with a different rounding or dtype.

`w` and `n` below are any leaves. Leaves of other trees must have the same structure.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

__all__ = [
    "abs_sq",
    "all_finite",
    "bias_correction",
    "cast",
    "cast_like",
    "chosen",
    "compute_dtype",
    "cond",
    "cond_update",
    "copy",
    "dtype_of",
    "global_norm",
    "inlined",
    "inner",
    "is_random_key",
    "keep_dtypes",
    "map_leaves",
    "paths",
    "power",
    "real_dtype",
    "real_full_like",
    "safe_sqrt",
    "scale",
    "spread",
    "spread_mask",
    "sum_of_sizes",
    "unboxed",
    "where",
    "widen",
    "wider",
    "zeros_like",
]

# For helpers of several operations: one dispatch outside jit, and inlined in a compiled caller.
inlined = functools.partial(jax.jit, inline=True)


@functools.cache
def compute_dtype(dtype: Any) -> Any:
    """The dtype to compute in: float32 for the floats of fewer than 32 bits, else the dtype itself."""
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return np.dtype(np.float32) if narrow else dtype


@functools.cache
def wider(a: Any, b: Any) -> Any:
    """The wider of two floating or two complex dtypes; float32 for float16 and bfloat16."""
    if a == b:
        return a
    bits_a, bits_b = jnp.finfo(a).bits, jnp.finfo(b).bits
    return np.dtype(np.float32) if bits_a == bits_b else a if bits_a > bits_b else b


@functools.cache
def real_dtype(dtype: Any) -> Any:
    """The dtype of the real part of a floating or complex dtype."""
    return np.dtype(jnp.finfo(dtype).dtype)


def dtype_of(x: Any) -> Any:
    """The dtype that JAX computes with for a leaf; fast for its own arrays."""
    return x.dtype if isinstance(x, jax.Array) else jnp.result_type(x)


def is_random_key(value: Any) -> bool:
    """Whether a value is an array of keys, of JAX's newer form."""
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def cast(x: Any, dtype: Any) -> Any:
    """A leaf in another dtype, and no longer weakly typed; itself if it is like that already."""
    if isinstance(x, jax.ShapeDtypeStruct):
        return x.update(dtype=dtype, weak_type=False)
    is_same = isinstance(x, jax.Array) and x.dtype == dtype and not x.weak_type
    return x if is_same else jax.lax.convert_element_type(x, dtype)


def widen(tree: Any, like: Any = None) -> Any:
    """Cast floating leaves of fewer than 32 bits to float32, or to the dtype of the leaf of `like` if wider."""

    def wide(x, old=None):
        dtype = dtype_of(x)
        to = compute_dtype(dtype)
        if old is not None:
            to = wider(to, compute_dtype(dtype_of(old)))
        return x if to == dtype else cast(x, to)

    return jax.tree.map(wide, tree) if like is None else jax.tree.map(wide, tree, like)


def cast_like(tree: Any, like: Any, and_like: Any = None) -> Any:
    """Give each leaf the dtype of the leaf of `like` in its place; real parts are taken of complex values.

    With `and_like` it is the wider of the dtypes of both.
    """

    def to_dtype(x, old, other=None):
        dtype = dtype_of(old) if other is None else wider(dtype_of(old), dtype_of(other))
        if jnp.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
            x = jnp.real(x)
        return cast(x, dtype)

    return jax.tree.map(to_dtype, tree, like, *([] if and_like is None else [and_like]))


def map_leaves(f: Callable, n: int, *trees: Any) -> tuple:
    """Map a function that returns n results over leaves; return n trees."""
    leaves, structure = jax.tree.flatten(trees[0])
    others = [structure.flatten_up_to(tree) for tree in trees[1:]]
    results = [f(*args) for args in zip(leaves, *others, strict=True)]
    return tuple(structure.unflatten([r[i] for r in results]) for i in range(n))


def scale(factor: Any, tree: Any) -> Any:
    """factor * w, in the dtype of w where that is wider."""
    cast_to = functools.cache(functools.partial(jnp.asarray, factor))
    return jax.tree.map(lambda w: cast_to(real_dtype(dtype_of(w))) * w, tree)


def spread(prefix: Any, like: Any, who: str, name: str, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """A tree of the structure of `like` from a prefix of it, or from a function that returns one.

    What has the structure of `like`, or of a prefix of it, is a tree, also where its class has `__call__`, as a module
    of bools has. Whatever is in the place of a leaf of `like` is its label, a tuple or None too.

    Args:
        prefix: the tree, or a function of `like`.
        like: the tree whose structure is wanted.
        who: the caller, for messages.
        name: the argument, for messages.
        is_leaf: what else is a leaf of the prefix, such as a tuple that is a label.

    Raises:
        ValueError: if it does not fit.
    """
    bare = unboxed(like)
    given = unboxed(prefix if is_leaf and is_leaf(prefix) else chosen(prefix, like))
    labels = _labels(given, bare, is_leaf)
    if labels is None:
        raise ValueError(
            f"{who}: {name} does not fit params: {_misfit(given, bare, name)}; give one for each leaf or branch of "
            "params, a function of params, or by_path({'*/bias': ...}, default=...)"
        )
    return jax.tree.structure(like).unflatten(labels)


def chosen(given: Any, like: Any) -> Any:
    """The tree that was given, or what the given function returns for `like`.

    A node is a tree, though it can be called, if it is of the class of `like` or of the structure of a prefix of it.
    One without leaves, such as `by_path(...)`, is a function.
    """
    if not callable(given) or type(given) is type(like):
        return given
    if not jax.tree.leaves(given) or jax.tree_util.all_leaves([given]):
        return given(like)
    fits = _branches(jax.tree.structure(unboxed(given)), unboxed(like)) is not None
    return given if fits else given(like)


def spread_mask(mask: Any, like: Any, who: str, name: str) -> Any:
    """A tree of bools of the structure of `like`, from what `spread` takes; raises a TypeError for other leaves."""
    bools = spread(mask, like, who, name)
    for (path, _), leaf in zip(
        jax.tree_util.tree_leaves_with_path(like), jax.tree.structure(like).flatten_up_to(bools), strict=True
    ):
        if not isinstance(leaf, (bool, np.bool_)):
            is_array = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
            got = f"an array of dtype {leaf.dtype} and shape {leaf.shape}" if is_array else f"{leaf!r:.80}"
            raise TypeError(
                f"{who}: {name}{jax.tree_util.keystr(path)} must be True or False, got {got}; a mask names leaves, "
                "such as by_path({'*/bias': True}, default=False), and is not an array"
            )
    return bools


def _labels(prefix: Any, like: Any, is_leaf: Callable[[Any], bool] | None) -> list | None:
    """For each leaf of `like` what the prefix has for it, or None if it is not a prefix."""
    leaves, structure = jax.tree.flatten(prefix, is_leaf)
    branches = _branches(structure, like)
    if branches is None:
        return _branches(jax.tree.structure(like), prefix)
    return [label for label, branch in zip(leaves, branches, strict=True) for _ in jax.tree.leaves(branch)]


def _branches(structure: Any, tree: Any) -> list | None:
    """What the tree has in the place of each leaf of a structure, or None where it has another structure."""
    try:
        return structure.flatten_up_to(tree)
    except (ValueError, TypeError):
        return None


def _misfit(prefix: Any, like: Any, name: str) -> str:
    """Where a tree is not a prefix of another."""
    given, leaves = ([path for path, _ in jax.tree_util.tree_leaves_with_path(t)] for t in (prefix, like))
    bare = [path for path in leaves if not any(path[: len(branch)] == branch for branch in given)]
    idle = [branch for branch in given if not any(path[: len(branch)] == branch for path in leaves)]
    faults = [f"it has nothing for params{jax.tree_util.keystr(path)}" for path in bare[:1]]
    faults += [f"params has no leaf or branch for {name}{jax.tree_util.keystr(branch)}" for branch in idle[:1]]
    return ", and ".join(faults) or f"it has the structure {jax.tree.structure(prefix)}"


def where(condition: Any, yes: Any, no: Any) -> Any:
    """Select whole trees by a scalar condition."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def abs_sq(x: jax.Array) -> jax.Array:
    """|x|², real also for complex x."""
    return jnp.real(x * jnp.conj(x)) if jnp.iscomplexobj(x) else x * x


@inlined
def power(base: Any, exponent: Any) -> jax.Array:
    """base ** exponent for a number and a count. Outside jit, JAX's ** would compile for each exponent."""
    return jax.lax.pow(base, exponent)


@inlined
def bias_correction(decay: Any, t: Any) -> jax.Array:
    """1 / (1 - βᵗ): what an average over t steps that began at zero is multiplied with."""
    return 1 / (1 - power(decay, t))


@jax.custom_jvp
def _safe_sqrt(x):
    return jnp.sqrt(jnp.maximum(x, 0))


@_safe_sqrt.defjvp
def _(primals, tangents):
    root = safe_sqrt(primals[0])  # not a guard inside: every guarded operation is one more to compile, in every leaf
    flat = root == 0
    return root, jnp.where(flat, 0, tangents[0] / (2 * jnp.where(flat, 1, root)))


@inlined
def safe_sqrt(x: jax.Array) -> jax.Array:
    """√x, whose derivative at 0 is 0 where that of the root is infinite. 0 below 0; NaN stays NaN."""
    return _safe_sqrt(x)


def cond(condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """`lax.cond`, decided in Python where the condition is known: outside jit it would compile at every call."""
    if isinstance(condition, Tracer):
        return jax.lax.cond(condition, yes, no)
    return yes() if condition else no()


def global_norm(tree: Any) -> jax.Array:
    """The Euclidean norm of all leaves together, a scalar of at least float32.

    It is the root of the sum of squares. Only where that over- or underflows, a `cond` sums the squares of leaves
    scaled by a power of two: norms of 1e30 and 1e-30 are right and other trees cost one pass. The derivative at zero
    is zero. A NaN or infinity in any leaf gives NaN or infinity.
    """
    leaves = [jnp.asarray(w) for w in jax.tree.leaves(widen(tree))]
    if len({real_dtype(w.dtype) for w in leaves}) > 1:  # float32 and float64: each square in the range of the sum
        leaves = [w.astype(jnp.promote_types(w.dtype, jnp.float64)) for w in leaves]
    return _norm(leaves) if leaves else jnp.zeros(())


@inlined
def _norm(leaves: list[jax.Array]) -> jax.Array:
    squares = _sum_of_squares(leaves)
    info = jnp.finfo(squares.dtype)
    is_safe = jnp.isfinite(squares) & (squares > info.tiny / info.eps)

    def scaled():
        # 2^-80 or 2^80 for float32, far from both ends of the range: the inverse of the largest size may be denormal.
        # Scaling by a power of two rounds nothing.
        power = 2.0 ** (info.maxexp * 5 // 8)
        factor = jnp.where(squares < 1, power, 1 / power).astype(squares.dtype)
        parts = [part for w in leaves for part in ((w.real, w.imag) if jnp.iscomplexobj(w) else (w,))]
        # XLA makes f² w² of (f w)(f w) if it knows f, where f² is infinite and 0 becomes NaN: the maximum prevents it.
        sizes = [jnp.maximum(jnp.abs(part) * factor, 0) for part in parts]
        return safe_sqrt(_sum_of_squares(sizes)) / factor

    return jax.lax.cond(is_safe, lambda: safe_sqrt(squares), scaled)


def inner(a: Any, b: Any) -> jax.Array:
    """The inner product of two trees, Re Σ āᵢ bᵢ, a scalar of their widest dtype."""
    return _total(jax.tree.map(lambda x, y: jnp.sum(jnp.real(jnp.conj(x) * y)), a, b))


def sum_of_sizes(tree: Any) -> jax.Array:
    """Σ |wᵢ| over all leaves, a scalar of their widest real dtype."""
    return _total(jax.tree.map(lambda w: jnp.sum(jnp.abs(w)), tree))


def _total(sums: Any) -> jax.Array:
    return functools.reduce(operator.add, jax.tree.leaves(sums) or [jnp.zeros(())])


def copy(p: Any) -> Any:
    """Copy a parameter into a buffer of its own, for an initial state; a `jax.ShapeDtypeStruct` is cast only."""
    return cast(p, dtype_of(p)) if isinstance(p, jax.ShapeDtypeStruct) else jnp.array(p, copy=True)


def zeros_like(p: Any, dtype: Any = None) -> jax.Array:
    """Zeros of p's shape and sharding in a dtype that was asked for; complex leaves stay complex all the same."""
    is_complex = jnp.issubdtype(dtype_of(p), jnp.complexfloating)
    return jnp.zeros_like(p, dtype=None if is_complex else dtype)


def _sum_of_squares(leaves: list[jax.Array]) -> jax.Array:
    return _total([jnp.sum(abs_sq(w)) for w in leaves])


def real_full_like(p: Any, value: Any) -> jax.Array:
    """An array of p's shape and sharding in its real dtype: second moments of complex parameters are real."""
    return jnp.full_like(p, value, dtype=real_dtype(dtype_of(p)))


def paths(tree: Any) -> Any:
    """A tree of the same structure whose leaves are their own paths, such as `layers/0/w`.

    The box that Flax puts around an array adds nothing: `body/bias` with and without its `nnx.Param`.
    """
    text = functools.partial(jax.tree_util.keystr, simple=True, separator="/")

    def name(path, x):  # of a leaf, or of a box, whose own key comes first in it
        return jax.tree_util.tree_map_with_path(lambda inner, _: text((*path, *inner[1:])), x)

    return jax.tree_util.tree_map_with_path(name, tree, is_leaf=_is_box)


# Optimizers see the variables of NNX at `init` and their bare arrays at `update`; Linen boxes what has a layout.
_BOXES = {("flax", "Variable"), ("flax", "VariableState"), ("flax", "AxisMetadata")}


@functools.cache
def _boxes(cls: type) -> bool:
    """Whether a class is one of Flax's, whose nodes hold an array under the key `value`. Flax is not imported."""
    return any((c.__module__.partition(".")[0], c.__name__) in _BOXES for c in cls.__mro__)


def _is_box(x: Any) -> bool:
    return _boxes(type(x))


def unboxed(tree: Any) -> Any:
    """The tree with what Flax's boxes hold in their place."""

    def content(x):
        inner = jax.tree.leaves(x, is_leaf=lambda y: y is not x) if _is_box(x) else [x]
        return inner[0] if len(inner) == 1 else x

    return jax.tree.map(content, tree, is_leaf=_is_box)


@inlined
def all_finite(tree: Any) -> jax.Array:
    """Whether no leaf holds a NaN or an infinity, a bool scalar."""
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(w)) for w in jax.tree.leaves(tree)]))


def cond_update(runs: Any, inner: Any, updates: Any, state: Any, params: Any, extra: dict) -> tuple[Any, Any]:
    """The inner transformation's update where `runs` is true, else zero updates and the old state.

    A `lax.cond`: the inner rule is not computed where it does not run (under vmap both branches are).
    """

    def run():
        new_updates, new_state = inner.update(updates, state, params, **extra)
        return cast_like(new_updates, updates), keep_dtypes(new_state, state)

    def rest():
        return jax.tree.map(jnp.zeros_like, updates), jax.tree.map(jnp.asarray, state)

    return cond(runs, run, rest)


def keep_dtypes(new: Any, old: Any) -> Any:
    """Give each inexact leaf of a new state the (strong) dtype that it had; other leaves stay."""

    def keep(n, o):
        dtype = dtype_of(o)
        return cast(n, dtype) if jnp.issubdtype(dtype, jnp.inexact) else n

    return jax.tree.map(keep, new, old)
