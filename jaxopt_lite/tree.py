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
    "cast_like",
    "chosen",
    "compute_dtype",
    "cond",
    "cond_update",
    "global_norm",
    "keep_dtypes",
    "map_leaves",
    "paths",
    "real_full_like",
    "safe_sqrt",
    "scale",
    "spread",
    "spread_mask",
    "where",
    "widen",
    "zeros_like",
]


def compute_dtype(dtype: Any) -> Any:
    """The dtype to compute in: float32 for the floats of fewer than 32 bits, else the dtype itself."""
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32 else dtype


def widen(tree: Any) -> Any:
    """Bring floating leaves of fewer than 32 bits to float32."""

    def wide(x):
        dtype = jnp.result_type(x)
        return jnp.asarray(x, dtype=compute_dtype(dtype)) if compute_dtype(dtype) != dtype else x

    return jax.tree.map(wide, tree)


def cast_like(tree: Any, like: Any) -> Any:
    """Give each leaf the dtype of the leaf of `like` in its place; real parts are taken of complex values."""

    def cast(x, old):
        dtype = jnp.result_type(old)
        if jnp.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
            x = jnp.real(x)
        return jax.lax.convert_element_type(x, dtype)

    return jax.tree.map(cast, tree, like)


def map_leaves(f: Callable, n: int, *trees: Any) -> tuple:
    """Map a function that returns n results over leaves; return n trees."""
    leaves, structure = jax.tree.flatten(trees[0])
    others = [structure.flatten_up_to(tree) for tree in trees[1:]]
    results = [f(*args) for args in zip(leaves, *others, strict=True)]
    return tuple(structure.unflatten([r[i] for r in results]) for i in range(n))


def scale(factor: Any, tree: Any) -> Any:
    """factor * w, in the dtype of w where that is wider."""
    return jax.tree.map(lambda w: jnp.asarray(factor, dtype=_real(w)) * w, tree)


def spread(prefix: Any, like: Any, who: str, name: str, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """A tree of the structure of `like` from a prefix of it, or from a function that returns one.

    What has the structure of `like`, or of a prefix of it, is a tree, also where its class has `__call__`, as a module
    of bools has. Where `like` has a leaf, whatever stands there belongs to it, a tuple or None too.

    Args:
        prefix: the tree, or a function of `like`.
        like: the tree whose structure is wanted.
        who: the caller, for messages.
        name: the argument, for messages.
        is_leaf: what else is a leaf of the prefix, such as a tuple that is a label.

    Raises:
        ValueError: if it does not fit.
    """
    bare = _unboxed(like)
    given = _unboxed(prefix if is_leaf and is_leaf(prefix) else chosen(prefix, like))
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
    """
    if not callable(given):
        return given
    if jax.tree_util.all_leaves([given]):
        return given(like)
    fits = _branches(jax.tree.structure(_unboxed(given)), _unboxed(like)) is not None
    return given if fits or type(given) is type(like) else given(like)


def spread_mask(mask: Any, like: Any, who: str, name: str) -> Any:
    """A tree of bools of the structure of `like`, from what `spread` takes. A leaf that is no bool is a TypeError."""
    bools = spread(mask, like, who, name)
    for (path, _), leaf in zip(
        jax.tree_util.tree_leaves_with_path(like), jax.tree.structure(like).flatten_up_to(bools), strict=True
    ):
        if not isinstance(leaf, (bool, np.bool_)):
            is_array = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
            got = f"an array of dtype {leaf.dtype} and shape {leaf.shape}" if is_array else f"{leaf!r:.80}"
            raise TypeError(
                f"{who}: {name}{jax.tree_util.keystr(path)} must be True or False, got {got}; a mask names leaves, "
                "such as by_path({'*/bias': True}, default=False), and is no array"
            )
    return bools


def _labels(prefix: Any, like: Any, is_leaf: Callable[[Any], bool] | None) -> list | None:
    """For each leaf of `like` what the prefix has for it, or None if it is no prefix."""
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
    """Say where a tree is no prefix of another."""
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


@jax.custom_jvp
def safe_sqrt(x: jax.Array) -> jax.Array:
    """√x, whose derivative at 0 is 0 where that of the root is infinite. 0 below 0; NaN stays NaN."""
    return jnp.sqrt(jnp.maximum(x, 0))


@safe_sqrt.defjvp
def _(primals, tangents):
    # A rule of its own, and not a guard inside: every guarded operation is one more to compile, in every leaf.
    root = safe_sqrt(primals[0])
    flat = root == 0
    return root, jnp.where(flat, 0, tangents[0] / (2 * jnp.where(flat, 1, root)))


def cond(condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """`lax.cond`, decided in Python where the condition is known: outside jit it would compile at every call."""
    if isinstance(condition, Tracer):
        return jax.lax.cond(condition, yes, no)
    return yes() if condition else no()


def global_norm(tree: Any) -> jax.Array:
    """The Euclidean norm of all leaves together, a scalar of at least float32.

    It is the root of the plain sum of squares. Only where that sum over- or underflows, a `cond` takes the form that
    divides by the largest magnitude first; so 1e30 and 1e-30 have norms, and everybody else pays for one pass. The
    derivative at zero is zero. A NaN or infinity in any leaf gives NaN or infinity.
    """
    leaves = [jnp.asarray(w) for w in jax.tree.leaves(widen(tree))]
    if not leaves:
        return jnp.zeros(())

    squares = _sum_of_squares(leaves)

    def scaled():
        # A constant: what its derivative would add cancels, but over- or underflows first.
        largest = jax.lax.stop_gradient(jnp.max(jnp.stack([jnp.max(jnp.abs(w), initial=0) for w in leaves])))
        unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
        root = jnp.sqrt(unit)  # divided by twice, because the reciprocal of the largest floats is denormal
        return unit * safe_sqrt(_sum_of_squares([w / root / root for w in leaves]))

    tiny = jnp.finfo(squares.dtype).tiny / jnp.finfo(squares.dtype).eps
    return cond(jnp.isfinite(squares) & (squares > tiny), lambda: safe_sqrt(squares), scaled)


def zeros_like(p: Any, dtype: Any = None) -> jax.Array:
    """Zeros of p's shape in a dtype that was asked for; complex leaves stay complex, whatever the dtype."""
    return jnp.zeros_like(p, dtype=None if jnp.iscomplexobj(p) else dtype)


def _sum_of_squares(leaves: list[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, [jnp.sum(abs_sq(w)) for w in leaves])


def real_full_like(p: Any, value: Any) -> jax.Array:
    """An array of p's shape in its real dtype: second moments of complex parameters are real."""
    return jnp.full(jnp.shape(p), value, dtype=_real(p))


def paths(tree: Any) -> Any:
    """A tree of the same structure whose leaves are their own paths, such as `layers/0/w`.

    The box that Flax puts around an array adds nothing: `body/bias` with and without its `nnx.Param`.
    """

    def text(path):
        return jax.tree_util.keystr(path, simple=True, separator="/")

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


def _unboxed(tree: Any) -> Any:
    """The tree with what Flax's boxes hold in their place."""

    def content(x):
        inner = jax.tree.leaves(x, is_leaf=lambda y: y is not x) if _is_box(x) else [x]
        return inner[0] if len(inner) == 1 else x

    return jax.tree.map(content, tree, is_leaf=_is_box)


def _real(x: Any) -> Any:
    return jnp.zeros((), dtype=jnp.result_type(x)).real.dtype


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
        dtype = jnp.result_type(o)
        return jax.lax.convert_element_type(n, dtype) if jnp.issubdtype(dtype, jnp.inexact) else n

    return jax.tree.map(keep, new, old)
