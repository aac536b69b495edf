"""What is checked before a transformation runs, and the words in which it is said.

All checks look at structures, shapes and dtypes only, so they run while tracing and cost nothing in compiled code. A
message has three parts: who needs what, what it got (with the path of the leaf), and what to do.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["check_grads", "check_params", "check_state", "require"]


def require(tree: Any, word: str, who: str) -> None:
    """Raise unless an argument that the rule cannot do without was given."""
    if tree is None:
        call = "update(grads, state, params)" if word == "params" else f"update(grads, state, params, {word}=...)"
        raise ValueError(f"{who} needs {word}, got None; call {call}")


def check_params(who: str, params: Any) -> None:
    """Raise a TypeError naming the first leaf that cannot be optimized."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        problem = _not_differentiable(leaf)
        if problem:
            raise TypeError(
                f"{who}: params{jax.tree_util.keystr(path)} is {problem}; only floating and complex arrays can be "
                "optimized: keep other leaves out of params (in the model's state, or split off as static)"
            )


def check_grads(who: str, grads: Any, state: Any, params: Any) -> None:
    """Raise unless grads are differentiable leaves in the structure and shapes of params (where params are given)."""
    hint = _swapped(grads, state, params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        problem = _not_differentiable(leaf)
        if problem:
            raise TypeError(
                f"{who}: grads{jax.tree_util.keystr(path)} is {problem}; gradients are floating or complex arrays"
                + (hint or "; cast them, or differentiate with respect to floating leaves only")
            )
    if params is None:
        return
    difference = structure_difference(grads, params, "grads", "params")
    if difference:
        raise ValueError(f"{who}: {difference}{hint or '; grads must mirror params leaf by leaf'}")
    wanted = jax.tree.leaves(params)
    for (path, grad), param in zip(jax.tree_util.tree_leaves_with_path(grads), wanted, strict=True):
        key = jax.tree_util.keystr(path)
        if np.shape(grad) != np.shape(param):
            raise ValueError(
                f"{who}: grads{key} has shape {np.shape(grad)}, params{key} has shape {np.shape(param)}; they must be "
                "equal, nothing is broadcast (look for a mean over the wrong axis or a column against a row)"
            )
        if jnp.iscomplexobj(grad) != jnp.iscomplexobj(param):
            dtypes = f"{jnp.result_type(grad)} against {jnp.result_type(param)}"
            raise TypeError(
                f"{who}: grads{key} and params{key} must both be real or both complex, got {dtypes}; "
                "take jnp.real of the gradient, or make the parameter complex"
            )


def check_state(who: str, state: Any, init: Callable, template: Any) -> None:
    """Raise unless `state` has the structure and shapes of what `init` makes for a tree like `template`."""
    try:
        expected = jax.eval_shape(init, template)
    except Exception:  # an init that only runs on concrete values cannot be asked
        return
    difference = structure_difference(state, expected, "state", "the expected state")
    if not difference:
        for (path, got), want in zip(
            jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(expected), strict=True
        ):
            if np.shape(got) != np.shape(want):
                key = jax.tree_util.keystr(path)
                difference = f"state{key} has shape {np.shape(got)} where {np.shape(want)} is expected"
                break
    if difference:
        raise ValueError(
            f"{who}: the state is not one of this optimizer for these params: {difference}; make it with "
            "state = optimizer.init(params), and again when the optimizer or the shapes of params change"
        )


def structure_difference(tree: Any, like: Any, word: str, like_word: str) -> str | None:
    """Say where two structures first differ, or None if they are the same."""
    if jax.tree.structure(tree) == jax.tree.structure(like):
        return None
    got = {jax.tree_util.keystr(path): None for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
    want = {jax.tree_util.keystr(path): None for path, _ in jax.tree_util.tree_leaves_with_path(like)}
    missing = [key for key in want if key not in got]
    extra = [key for key in got if key not in want]
    if missing:
        return f"{word} lacks the leaf {like_word}{missing[0]}" + (f" (and has {word}{extra[0]})" if extra else "")
    if extra:
        return f"{word} has the leaf {word}{extra[0]}, which {like_word} has not"
    return f"{word} has the structure {jax.tree.structure(tree)}, {like_word} has {jax.tree.structure(like)}"


def _not_differentiable(leaf: Any) -> str | None:
    """What is wrong with a leaf that should be a floating or complex array."""
    if callable(leaf) and not hasattr(leaf, "dtype"):
        return f"the function {getattr(leaf, '__name__', leaf)!r}"
    if isinstance(leaf, str):
        return f"the string {leaf!r}"
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return None if isinstance(leaf, (float, complex)) else f"{leaf!r} of type {type(leaf).__name__}"
    if dtype == jax.dtypes.float0:
        return "a gradient with respect to an integer leaf (dtype float0)"
    if jnp.issubdtype(dtype, jnp.inexact):
        return None
    return f"an array of dtype {dtype}"


def _swapped(grads: Any, state: Any, params: Any) -> str:
    """A hint, where the structures say that two arguments changed places."""
    if params is None or jax.tree.structure(grads) == jax.tree.structure(params):
        return ""
    if jax.tree.structure(state) == jax.tree.structure(params):
        return "; grads and state look swapped: call update(grads, state, params)"
    if jax.tree.structure(state) == jax.tree.structure(grads):
        return "; state and params look swapped: call update(grads, state, params)"
    return ""
