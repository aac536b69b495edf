"""Checks that run before a transformation, and their error messages.

All checks look at structures, shapes and dtypes only, so they run while tracing and cost nothing in compiled code. A
message has three parts: who needs what, what it got (with the path of the leaf), and what to do.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["check_grads", "check_like", "check_params", "check_result", "check_state", "require"]


def require(tree: Any, word: str, who: str) -> None:
    """Raise a ValueError if an argument that the rule needs is None."""
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


def check_grads(who: str, grads: Any, state: Any, params: Any, word: str = "grads") -> None:
    """Raise unless grads are differentiable leaves in the structure and shapes of params (where params are given)."""
    hint = _mistaken(grads, state, params, word)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        problem = _not_differentiable(leaf)
        if problem:
            raise TypeError(
                f"{who}: {word}{jax.tree_util.keystr(path)} is {problem}; {word} must be floating or complex arrays"
                + (hint or "; cast them, or differentiate with respect to floating leaves only")
            )
    if params is None:
        return
    difference = structure_difference(grads, params, word, "params")
    if difference:
        raise ValueError(f"{who}: {difference}{hint or f'; {word} must mirror params leaf by leaf'}")
    wanted = jax.tree.leaves(params)
    for (path, grad), param in zip(jax.tree_util.tree_leaves_with_path(grads), wanted, strict=True):
        key = jax.tree_util.keystr(path)
        if np.shape(grad) != np.shape(param):
            raise ValueError(
                f"{who}: {word}{key} has shape {np.shape(grad)}, params{key} has shape {np.shape(param)}; they must be "
                "equal, nothing is broadcast (look for a mean over the wrong axis or a column against a row)"
            )
        if jnp.iscomplexobj(grad) != jnp.iscomplexobj(param):
            remedy = f"take jnp.real of {word}{key}" if jnp.iscomplexobj(grad) else f"take jnp.real of params{key}"
            raise TypeError(
                f"{who}: {word}{key} and params{key} must both be real or both complex, got {jnp.result_type(grad)} "
                f"against {jnp.result_type(param)}; {remedy}, or make the other complex"
            )


def check_state(who: str, state: Any, init: Callable, template: Any) -> None:
    """Raise unless `state` has the structure and shapes of what `init` makes for a tree like `template`."""
    try:
        expected = jax.eval_shape(init, template)
    except Exception:  # an init that needs concrete values cannot be traced, so its state cannot be checked
        return
    difference = structure_difference(state, expected, "state", "init(params)")
    difference = difference or leaf_difference(state, expected, "state", "init(params)")
    if difference:
        raise ValueError(
            f"{who}: the state is not one of this optimizer for these params: {difference}; make it with "
            "state = optimizer.init(params), and again when the optimizer or the shapes of params change"
        )


def check_pair(who: str, result: Any) -> tuple:
    """Return what a rule's update returned; raises a TypeError unless it is a pair."""
    if isinstance(result, tuple) and len(result) == 2:
        return result
    what = f"{len(result)} things" if isinstance(result, tuple) else f"{result!r:.80}"
    raise TypeError(f"{who}: update must return a pair (updates, state), it returned {what}")


def check_result(who: str, result: Any, grads: Any, state: Any) -> None:
    """Raise unless a rule's update returned (updates, state), each like what it was given."""
    check_pair(who, result)
    difference = (
        structure_difference(result[0], grads, "the returned updates", "grads")
        or leaf_difference(result[0], grads, "the returned updates", "grads")
        or structure_difference(result[1], state, "the returned state", "state")
        or leaf_difference(result[1], state, "the returned state", "state")
    )
    if difference:
        raise ValueError(
            f"{who}: update must return updates like grads and a state like the given one, but {difference}; fix the "
            "`update` of this rule, or of the rule in its chain that returned them"
        )


def check_like(who: str, result: Any, params: Any) -> None:
    """Raise a ValueError unless a user's function returned a tree like params, with real leaves for real ones."""
    difference = structure_difference(result, params, "result", "params")
    pairs = zip(jax.tree_util.tree_leaves_with_path(result), jax.tree.leaves(params))
    for (path, got), want in [] if difference else pairs:
        key = jax.tree_util.keystr(path)
        if np.shape(got) != np.shape(want):
            difference = f"result{key} has shape {np.shape(got)}, params{key} has {np.shape(want)}"
        elif jnp.iscomplexobj(got) and not jnp.iscomplexobj(want):
            difference = f"result{key} is complex, params{key} is real"
        if difference:
            break
    if difference:
        raise ValueError(f"{who} must return a tree like params, but {difference}")


def structure_difference(tree: Any, like: Any, word: str, like_word: str) -> str | None:
    """Describe where two structures first differ, or return None if they are the same."""
    if jax.tree.structure(tree) == jax.tree.structure(like):
        return None
    got = {jax.tree_util.keystr(path): None for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
    want = {jax.tree_util.keystr(path): None for path, _ in jax.tree_util.tree_leaves_with_path(like)}
    missing = [key for key in want if key not in got]
    extra = [key for key in got if key not in want]
    if missing:
        return f"{word} lacks the leaf {like_word}{missing[0]}" + (f" (and has {word}{extra[0]})" if extra else "")
    if extra:
        return f"{word} has the leaf {word}{extra[0]}, which {like_word} does not have"
    return f"{word} has the structure {jax.tree.structure(tree)}, {like_word} has {jax.tree.structure(like)}"


def leaf_difference(tree: Any, like: Any, word: str, like_word: str) -> str | None:
    """Describe the first leaf that differs in shape or kind (real, complex, integer, bool); structures are equal."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(like), strict=True)
    for (path, got), want in pairs:
        key = jax.tree_util.keystr(path)
        if np.shape(got) != np.shape(want):
            return f"{word}{key} has shape {np.shape(got)}, {like_word}{key} has {np.shape(want)}"
        if _kind(got) != _kind(want):
            return f"{word}{key} is {jnp.result_type(got)}, {like_word}{key} is {jnp.result_type(want)}"
    return None


def _kind(leaf: Any) -> Any:
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    return next((kind for kind in kinds if jnp.issubdtype(dtype, kind)), dtype)


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


def _mistaken(grads: Any, state: Any, params: Any, word: str) -> str:
    """A hint, where the structures show that arguments were swapped or a pair was not unpacked."""
    given, like = jax.tree.structure(grads), jax.tree.structure(params)
    if params is None or given == like:
        return ""
    if state is not None and jax.tree.structure(state) == like:
        return "; grads and state look swapped: call update(grads, state, params)"
    if state is not None and jax.tree.structure(state) == given:
        return "; state and params look swapped: call update(grads, state, params)"
    for i, part in enumerate(grads if isinstance(grads, tuple) else ()):
        if jax.tree.structure(part) == like:
            return f"; {word} was not unpacked: {word}[{i}] has the structure of params"
    return ""
