"""A batch, or a data set, worked in pieces one after the other, so that the memory is that of one piece.

    loss       Σ wᵢ f(params, piece i)        wᵢ is the share of the examples that are in piece i
    gradient   Σ wᵢ ∇f(params, piece i)
    scores     Σ wᵢ e(params, piece i)

A batch of n examples in k pieces has pieces of ⌈n / k⌉ examples, of which the last may be smaller.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_lite import tree
from jaxopt_lite.core.method import Objective
from jaxopt_lite.train.task import Task, score_parts

__all__ = []


class InPieces(Objective):
    """The loss of a batch as a mean over pieces, which are differentiated one after the other.

    The model's state is passed on from piece to piece, and each piece has a key of its own.

    Args:
        loss: (params, model_state, batch, key) -> (scalar, (metrics, model_state)), a mean over the batch.
        model_state: before the first piece.
        batch: a pytree of arrays [n, ...]; or None, and the loss makes its data anew for each piece.
        key: of the batch.
        pieces: k, at least 1 and at most n.
    """

    def __init__(self, loss: Callable, model_state: Any, batch: Any, key: jax.Array, pieces: int):
        super().__init__(key=key)
        self._loss, self._model_state, self._batch, self._pieces = loss, model_state, batch, pieces

    def value(self, params: Any) -> tuple[jax.Array, Any]:
        """The mean loss, and (metrics, model_state). Its reverse-mode derivative keeps the memory of one piece too."""

        def one(model_state, piece, i, share):
            value, (metrics, model_state) = jax.checkpoint(self._of(model_state, piece, i))(params)
            return model_state, _times(share, (value, metrics))

        model_state, (value, metrics) = over_pieces(one, self._model_state, self._batch, self._pieces)
        return value, (metrics, model_state)

    def value_and_grad(self, params: Any, scale: Any = None) -> tuple[jax.Array, Any, Any]:
        """The mean loss, (metrics, model_state), and the gradient, added up in at least float32."""

        def one(carry, piece, i, share):
            total, model_state = carry
            objective = Objective(self._of(model_state, piece, i), has_aux=True)
            value, (metrics, model_state), grads = objective.value_and_grad(params, scale)
            total = jax.tree.map(jnp.add, total, _times(share, tree.widen(grads)))
            return (total, model_state), _times(share, (value, metrics))

        begun = jax.tree.map(jnp.zeros_like, tree.widen(params)), self._model_state
        (grads, model_state), (value, metrics) = over_pieces(one, begun, self._batch, self._pieces)
        return value, (metrics, model_state), tree.cast_like(grads, params)

    def _of(self, model_state: Any, piece: Any, i: Any) -> Callable:
        """The loss of a piece, a function of params."""
        return lambda params: self._loss(params, model_state, piece, jax.random.fold_in(self.key, i))


def scores_in_pieces(
    task: Task, params: Any, model_state: Any, data: Any, key: jax.Array, size: int
) -> dict[str, jax.Array]:
    """What `task.scores` returns, as means over pieces of some examples: float32 scalars by name.

    A score that `evaluate` gives as a pair (total, weight) is the sum of the totals over that of the weights.
    """

    def one(carry, piece, i, share):
        found = score_parts(task, params, model_state, piece, jax.random.fold_in(key, i))
        return carry, {name: _times(share, x) if w is None else (x, w) for name, (x, w) in found.items()}

    n = _examples(data)
    _, found = over_pieces(one, (), data, -(-n // size), min(size, n))
    return {name: x[0] / x[1] if isinstance(x, tuple) else x for name, x in found.items()}


def over_pieces(f: Callable, carry: Any, data: Any, pieces: int, size: int | None = None) -> tuple[Any, Any]:
    """Call f(carry, piece, i, share) -> (carry, outputs) for each piece in turn.

    Args:
        f: share is the piece's part of all examples, a float.
        carry: of the first call, a pytree of arrays.
        data: a pytree of arrays [n, ...], or None, which is each piece too.
        pieces: how many there are; the last one is smaller where n is not divisible.
        size: examples of a piece; None is n / pieces, rounded up.

    Returns:
        The carry of the last call, and the sums of the outputs.
    """
    n = pieces if data is None else _examples(data)
    size = -(-n // pieces) if size is None else size
    whole, rest = divmod(n, size)
    part = lambda begin, size: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, begin, size), data)

    def one(carry, i):
        return f(carry, part(i * size, size), i, size / n)

    carry, outputs = jax.lax.scan(one, carry, jnp.arange(whole, dtype=jnp.int32))
    outputs = jax.tree.map(lambda x: jnp.sum(x, axis=0), outputs)
    if rest:
        carry, last = f(carry, part(whole * size, rest), whole, rest / n)
        outputs = jax.tree.map(jnp.add, outputs, last)
    return carry, outputs


def check_pieces(batch: Any, pieces: int) -> None:
    """Raise a ValueError unless a batch can be worked in that many pieces."""
    shapes = [jnp.shape(x) for x in jax.tree.leaves(batch)]
    if any(not shape or shape[0] != shapes[0][0] for shape in shapes):
        raise ValueError(
            f"accumulate={pieces}: all arrays of a batch must have the examples as their first axis, got shapes "
            f"{', '.join(map(str, shapes))}"
        )
    if shapes and shapes[0][0] < pieces:
        raise ValueError(f"accumulate={pieces} must be at most the number of examples in a batch, got {shapes[0][0]}")


def _examples(data: Any) -> int:
    return jax.tree.leaves(data)[0].shape[0]


def _times(share: float, values: Any) -> Any:
    return jax.tree.map(lambda x: share * x, values)
