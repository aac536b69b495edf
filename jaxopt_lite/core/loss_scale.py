"""The factor of a loss whose gradient is computed in 16 bits, and where a training step finds it.

Small gradients are zero in float16, whose least number is 6e-8. So the loss is multiplied by a scale before it is
differentiated, and the gradient is divided by it in float32. The scale stands in the state of `dynamic_loss_scale`;
`advance`, and with it `fit`, `make_step`, sweeps and `minimize`, looks for it there, multiplies, and gives `update` the
scale that it has used, as the extra argument `loss_scale`. A rule is never left to guess whether a gradient was scaled.
"""

from typing import Any, NamedTuple

import jax

from jaxopt_lite import tree

__all__ = []


class DynamicLossScaleState(NamedTuple):
    """The scale (float32), good steps since it changed (int32), steps skipped in all (int32), and the inner state."""

    scale: jax.Array
    good_steps: jax.Array
    skipped: jax.Array
    inner_state: Any


def loss_scale_of(state: Any) -> jax.Array | None:
    """The factor by which the loss is to be multiplied: that of `dynamic_loss_scale`, None where there is none.

    Raises:
        ValueError: if it is not the outermost rule. The rules around it would see scaled gradients.
    """
    if isinstance(state, DynamicLossScaleState):
        state, scale = state.inner_state, state.scale
    else:
        scale = None
    is_scaled = lambda node: isinstance(node, DynamicLossScaleState)
    if any(map(is_scaled, jax.tree.leaves(state, is_leaf=is_scaled))):
        raise ValueError(
            "dynamic_loss_scale must be the outermost rule, once, because the rules around it would see gradients that "
            "are multiplied by the scale: write dynamic_loss_scale(chain(clip_by_global_norm(1.0), adam(1e-3)))"
        )
    return scale


def unscaled(grads: Any, scale: jax.Array) -> Any:
    """The gradient of a loss that was multiplied by a scale, divided by it in at least float32."""
    return jax.tree.map(lambda g: g / scale.astype(tree.real_dtype(g.dtype)), tree.widen(grads))
