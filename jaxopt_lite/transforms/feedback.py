"""Learning rates that are changed by what was measured: the value, or how gradients agree with earlier steps.

    polyak            η = min((f - f*) / ‖g‖², η_max)                        Polyak, 1987; Loizou et al., 2020
    plateau           η ← η · factor where f has not improved for a while
    hypergradient     η ← η + β ⟨g, u₋⟩, with the last direction u₋          Baydin et al., 2018, arXiv:1703.04782
    mechanic          x₀ + s Σ u, with s from a coin-betting game            Cutkosky et al., 2023, arXiv:2306.00144

The first two need the value: `update(grads, state, params, value=...)`; `fit`, `make_step` and `minimize` give it.
"""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_lite import tree
from jaxopt_lite.core import checks
from jaxopt_lite.core.arguments import check_int
from jaxopt_lite.core.numbers import Count, Fraction, NonNegative, Number, Positive, PositiveCount, Range, Scalar
from jaxopt_lite.core.transformation import GradientTransformation, transformation

__all__ = ["hypergradient", "mechanize", "reduce_on_plateau", "scale_by_polyak"]

Share = Annotated[Number, Range(low=0.0, high=1.0, open_low=True, open_high=True)]


class HypergradientState(NamedTuple):
    """The learning rate, the last direction, and the state of the inner rule."""

    learning_rate: jax.Array
    direction: Any
    inner_state: Any


class PlateauState(NamedTuple):
    """The factor, the best value, points without a better one, points to wait, and the mean value since the last."""

    scale: jax.Array
    best_value: jax.Array
    plateau_count: jax.Array
    cooldown_count: jax.Array
    count: Any
    avg_value: jax.Array


class MechanicState(NamedTuple):
    """Of the inner rule; steps (int32); of each of the games: reward r, largest m, squares v, bet s; the start."""

    base_optimizer_state: Any
    count: Any
    r: jax.Array
    m: jax.Array
    v: jax.Array
    s: jax.Array
    x0: Any


@transformation(acts_on="coordinate")
def scale_by_polyak(
    f_min: Scalar = 0.0,
    max_learning_rate: NonNegative = 1.0,
    eps: NonNegative = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
):
    """min((f - f*) / (‖g‖² + ε), η_max) g: the step that would reach the least value of a function of that slope.

    Args:
        f_min: f*, the least value; 0 for models that can interpolate their data.
        max_learning_rate: η_max, at least 0.
        eps: ε, at least 0.
        variant: "sps+" takes a negative f - f* as zero.

    Raises:
        ValueError: if update is called without value.

    Reference: Loizou, Vaswani, Laradji & Lacoste-Julien, "Stochastic Polyak Step-size for SGD", 2020,
        arXiv:2002.10542, Eq. (SPS_max).
    """

    def update(updates, state, params=None, *, value=None, **extra):
        checks.require(value, "value", "scale_by_polyak")
        squares = tree.global_norm(updates) ** 2
        gap = jnp.asarray(value).astype(squares.dtype) - f_min
        gap = jnp.maximum(gap, 0) if variant == "sps+" else gap
        is_flat = squares + eps <= jnp.finfo(squares.dtype).eps
        eta = jnp.minimum(gap / jnp.where(is_flat, 1, squares + eps), max_learning_rate)
        return tree.scale(jnp.where(is_flat, 0, eta), updates), state

    return lambda params: optax.EmptyState(), update


@transformation(acts_on="coordinate")
def reduce_on_plateau(
    factor: Share = 0.1,
    patience: PositiveCount = 10.0,
    rtol: Fraction = 1e-4,
    atol: NonNegative = 0.0,
    cooldown: Count = 0.0,
    accumulation_size: PositiveCount = 1.0,
    min_scale: NonNegative = 0.0,
):
    """u times a factor that is reduced where the value has stopped improving. Put it after the learning rate.

    Args:
        factor: of the reduction, in (0, 1).
        patience: points without a better value after which it is reduced, above 0.
        rtol: share of the best value by which a better one must be lower, in [0, 1].
        atol: the same, absolute, at least 0.
        cooldown: points after a reduction that are not counted, at least 0.
        accumulation_size: steps whose mean value makes a point, above 0; those of an epoch where values are noisy.
        min_scale: the least factor, at least 0.

    Raises:
        ValueError: if update is called without value, or both tolerances are zero.
    """
    if isinstance(rtol, float) and isinstance(atol, float) and rtol == atol == 0:
        raise ValueError("reduce_on_plateau: rtol or atol must be above 0")

    def init(params):
        one, zero = jnp.ones([], jnp.float32), jnp.zeros([], jnp.float32)
        counts = (jnp.zeros([], jnp.int32) for _ in range(3))
        plateau, cooling, count = counts
        return PlateauState(one, jnp.full([], jnp.inf, jnp.float32), plateau, cooling, count, zero)

    def update(updates, state, params=None, *, value=None, **extra):
        checks.require(value, "value", "reduce_on_plateau")
        count = optax.safe_increment(state.count)
        mean = state.avg_value + (jnp.asarray(value).astype(jnp.float32) - state.avg_value) / count
        is_point = count >= accumulation_size
        improved = mean < (1 - rtol) * state.best_value - atol
        idle = jnp.where(improved, 0, state.plateau_count + 1)
        cools = state.cooldown_count > 0
        reduces = is_point & ~cools & (idle >= patience)
        scale = jnp.where(reduces, jnp.maximum(state.scale * factor, min_scale), state.scale)
        waits = jnp.where(cools, state.cooldown_count - 1, jnp.where(reduces, cooldown, 0)).astype(jnp.int32)
        state = PlateauState(
            scale,
            jnp.where(is_point & improved, mean, state.best_value),
            jnp.where(is_point, jnp.where(cools | reduces, 0, idle), state.plateau_count),
            jnp.where(is_point, waits, state.cooldown_count),
            jnp.where(is_point, 0, count),
            jnp.where(is_point, 0, mean),
        )
        return tree.scale(scale, updates), state

    return init, update


@transformation(acts_on="coordinate")
def hypergradient(
    inner: GradientTransformation,
    learning_rate: NonNegative,
    hyper_learning_rate: NonNegative,
    *,
    form: Literal["additive", "multiplicative"] = "multiplicative",
):
    """-η u, where η itself descends: it grows while the gradient agrees with the last direction u₋, and shrinks else.

    additive: η ← η + β ⟨g, u₋⟩; multiplicative: η ← η (1 + β ⟨g, u₋⟩ / (‖g‖ ‖u₋‖)). η stays at least 0.

    Args:
        inner: the rule that gives the direction, without a learning rate, such as `scale_by_adam()` or `trace(0.9)`.
        learning_rate: η at first, at least 0.
        hyper_learning_rate: β, at least 0; of the multiplicative form about 0.02.
        form: "additive" or "multiplicative", whose β has no units.

    Reference: Baydin, Cornish, Rubio, Schmidt & Wood, "Online Learning Rate Adaptation with Hypergradient Descent",
        2018, arXiv:1703.04782, Eqs. (5) and (8).
    """

    def init(params):
        eta = jnp.array(learning_rate, jnp.result_type(float))
        return HypergradientState(eta, jax.tree.map(jnp.zeros_like, params), inner.init(params))

    def update(grads, state, params=None, **extra):
        slope = tree.inner(grads, state.direction)
        if form == "multiplicative":
            norms = tree.global_norm(grads) * tree.global_norm(state.direction)
            slope = state.learning_rate * jnp.where(norms == 0, 0, slope / jnp.where(norms == 0, 1, norms))
        eta = jnp.maximum(state.learning_rate + hyper_learning_rate * slope, 0).astype(state.learning_rate.dtype)
        directions, inner_state = inner.update(grads, state.inner_state, params, **extra)
        return tree.scale(-eta, directions), HypergradientState(eta, directions, inner_state)

    return init, update


@transformation(acts_on="coordinate")
def mechanize(
    base_optimizer: GradientTransformation,
    weight_decay: NonNegative = 1e-2,
    eps: Positive = 1e-8,
    s_init: Positive = 1e-6,
    num_betas: int = 6,
):
    """x₀ + s Σ u: the whole course of an optimizer, scaled by an s that is found by betting on the gradients.

    Args:
        base_optimizer: the inner rule, with a learning rate of about 1, or a schedule.
        weight_decay: λ, of the gradients that the bets see, relative to their norm; at least 0.
        eps: ε, above 0.
        s_init: s at first, above 0; small.
        num_betas: the number of games, with the decays 0.9, 0.99, ..., at least 1.

    Raises:
        ValueError: if update is called without params, or num_betas is less than 1.

    Reference: Cutkosky, Defazio & Mehta, "Mechanic: A Learning Rate Tuner", 2023, arXiv:2306.00144, Algorithm 1.
    """
    check_int("mechanize", "num_betas", num_betas)

    def init(params):
        real = jnp.result_type(*[tree.real_dtype(tree.dtype_of(p)) for p in jax.tree.leaves(params)], jnp.float32)
        r, m, v = (jnp.zeros(num_betas, real) for _ in range(3))
        s = jnp.full(num_betas, s_init, real)
        start = jax.tree.map(tree.copy, params)
        return MechanicState(base_optimizer.init(params), jnp.zeros([], jnp.int32), r, m, v, s, start)

    def update(grads, state, params=None, **extra):
        checks.require(params, "params", "mechanize")
        updates, base_state = base_optimizer.update(grads, state.base_optimizer_state, params, **extra)
        start = tree.where(state.count == 0, params, state.x0)
        s_before = jnp.sum(state.s)
        decay = weight_decay * s_before * tree.global_norm(grads) / (tree.global_norm(params) + eps)
        travelled = jax.tree.map(lambda w, x: (x - w) / (s_before + eps), params, start)  # -Σ u
        h = tree.inner(jax.tree.map(lambda g, w: g + decay * w, grads, params), travelled)

        betas = 1 - 0.1 ** jnp.arange(1, num_betas + 1, dtype=state.s.dtype)
        m = jnp.maximum(betas * state.m, jnp.abs(h) + eps)
        v = betas**2 * state.v + h**2
        r = betas * state.r + jnp.clip(h, -state.m, state.m) * state.s
        s = (s_init / num_betas * m + jnp.maximum(r, 0)) / (tree.safe_sqrt(v) + eps)
        total = jnp.sum(s)
        step = lambda x, d, u, w: x - total * (d - u) - w
        moved = jax.tree.map(step, start, travelled, updates, params)
        return moved, MechanicState(base_state, optax.safe_increment(state.count), r, m, v, s, start)

    return init, update
