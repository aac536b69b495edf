"""Which leaves are hidden matrices, by their names: `hidden_matrices`, the labels of `muon`.

embed…, wte, head, logits, norm, bias, scale, …  and all of fewer than two axes    "adam"
attention, mlp, conv, query, proj, expert, block, …                                "matrix" or another layout
kernel, weight, dense, layers, …                                                   hidden, if a head is named elsewhere
others                                                                             an error that asks
"""

import re
from typing import Any

import jax
import numpy as np

from jaxopt_lite import tree
from jaxopt_lite.transforms.routing import labels, matching

__all__ = ["hidden_matrices"]

_HEAD = {*("head", "lmhead", "unembed", "unembedding", "logits", "logit", "classifier", "readout")}
_REST = {
    *("embed", "embeds", "embedding", "embeddings", "embedder", "wte", "wpe", "token", "tokens", "position", "pos"),
    *("norm", "norms", "ln", "layernorm", "rmsnorm", "batchnorm", "groupnorm", "bn", "bias", "biases", "b", "scale"),
    *("gamma", "beta", "gain"),
}
_HIDDEN = {
    *("attention", "attn", "selfattention", "mlp", "ffn", "ff", "feedforward", "conv", "convolution", "block"),
    *("blocks", "hidden", "query", "key", "value", "qkv", "q", "k", "v", "proj", "gate", "up", "down", "expert"),
    *("experts", "lstm", "gru", "rnn", "cell", "recurrent"),
}
_PLAIN = {*("layer", "layers", "dense", "linear", "fc", "kernel", "weight", "weights", "w", "matrix")}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@labels
def hidden_matrices(patterns: Any = None, default: str | None = None):
    """Labels for `muon` by the names of leaves: hidden matrices and convolutions, and "adam" for all others.

    Embeddings, heads, norms, biases and all leaves of fewer than two axes are "adam", because steps of one size in all
    singular directions are made for matrices between hidden layers. Names are read by their words: `lm_head/kernel`,
    `MultiHeadAttention_0/query/kernel`. A plain name, such as `Dense_2/kernel`, says nothing of whether the layer is
    the last one, unless another leaf is named as a head.

    Leaves of two axes are [in, out], those named `weight` [out, in], as in PyTorch and Equinox. Convolutions are
    [..., in, out], those named `weight` [out, in, ...]. In a stack of experts each is a matrix by itself. Names do not
    determine the axes of other leaves with more than two axes.

    Args:
        patterns: {pattern: label} for leaves of which you know better, as for `by_path`; the first that matches
            decides. The labels are "adam", and those of `as_matrices`: "matrix", "last_out", "first_in", "first_out".
        default: the label of leaves whose names say nothing, such as "matrix" or "adam"; without it they are an error.

    Raises:
        ValueError: when used, if there are leaves whose names say nothing (they are named), or a pattern without leaf.

    >>> shapes = {"embed": np.zeros((9, 4)), "block_0": {"w": np.zeros((4, 4)), "b": np.zeros(4)}}
    >>> hidden_matrices()(shapes)
    {'block_0': {'b': 'adam', 'w': 'matrix'}, 'embed': 'adam'}
    """
    if patterns is not None and not isinstance(patterns, dict):
        raise TypeError(f"hidden_matrices: patterns must be a dict of pattern: label, got {patterns!r}")
    given = patterns or {}

    def labels_of(params):
        leaves, structure = jax.tree.flatten(params)
        paths = jax.tree.leaves(tree.paths(params))
        found: list[Any] = [None] * len(paths)
        for pattern in reversed(given):
            matched = matching(pattern, paths)
            if not matched:
                raise ValueError(
                    f"hidden_matrices: the pattern {pattern!r} matches no leaf; paths are {', '.join(paths[:8])}"
                )
            found = [given[pattern] if path in matched else old for path, old in zip(paths, found, strict=True)]
        words = [_words(path) for path in paths]
        has_head = any(_HEAD & set(own) for own in words)
        for i, leaf in enumerate(leaves):
            found[i] = found[i] or _label(words[i], np.ndim(leaf), has_head) or default
        unknown = [path for path, label in zip(paths, found, strict=True) if label is None]
        if unknown:
            raise ValueError(_question(unknown))
        return structure.unflatten(found)

    return labels_of


def _label(words: list[str], ndim: int, has_head: bool) -> str | None:
    """The label that the words of a path, and its number of axes, determine; None if they determine none."""
    own = set(words)
    if ndim < 2 or own & (_REST | _HEAD):
        return "adam"
    if not (own & _HIDDEN or (has_head and own & _PLAIN)):
        return None
    if own & {"conv", "convolution"} or ndim == 2:
        return "first_out" if words[-1] == "weight" else "matrix" if ndim == 2 else "last_out"
    return "matrix" if own & {"expert", "experts"} else None


def _words(path: str) -> list[str]:
    """The words of a path in lower case: `MultiHeadAttention_0/q_proj/kernel` has attention, q, proj and kernel."""
    text = re.sub(r"(?i)multi_?head_?", "", path)
    return [word.lower() for word in _WORD.findall(text)]


def _question(unknown: list[str]) -> str:
    some = ", ".join(unknown[:8]) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
    return (
        f"hidden_matrices: the names of these leaves do not determine whether they are hidden matrices, or which of "
        f'their axes are in and out: {some}. Embeddings and heads should be "adam", hidden layers "matrix" '
        '([..., in, out]), "last_out", "first_in" or "first_out" (see as_matrices). Give labels=hidden_matrices('
        f'{{{unknown[-1]!r}: "adam"}}, default="matrix"), or a tree of labels'
    )
