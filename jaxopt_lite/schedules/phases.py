"""Schedules of several phases: warm-ups, cool-downs, restarts, and joining.

warm-up …       linear from η₀ to the peak, then one of the shapes
stable, decay   warm-up, constant, cool-down            Hägele et al., 2024, arXiv:2405.18392
inverse root    peak · √(w / t) after w steps           Vaswani et al., 2017, arXiv:1706.03762
relative step   min(η, 1 / √(t + 1))                    Shazeer & Stern, 2018, arXiv:1804.04235
sgdr            warm restarts of warm-up and cosine     Loshchilov & Hutter, 2017, arXiv:1608.03983
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxopt_lite.core.numbers import (
    Count,
    NonNegative,
    Number,
    Positive,
    PositiveCount,
    Range,
    Scalar,
    Vector,
    concrete,
)
from jaxopt_lite.core.schedule import LearningRate, Schedule, schedule
from jaxopt_lite.schedules.shapes import along, exponential_decay, mix, power_of, progress

__all__ = [
    "inverse_sqrt_schedule",
    "join_schedules",
    "relative_step_schedule",
    "sgdr_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "warmup_stable_decay_schedule",
]

Cycles = Annotated[
    Number | list,
    Range(
        open_low=True,
        open_high=True,
        ndim=2,
        columns=(
            ("init_value", None),
            ("peak_value", None),
            ("warmup_steps", None),
            ("decay_steps", None),
            ("end_value", 0.0),
            ("exponent", 1.0),
        ),
    ),
]


@schedule
def warmup_constant_schedule(init_value: Scalar, peak_value: Scalar, warmup_steps: Count):
    """A straight line up to the peak, which stays.

    Args:
        init_value: the value at step 0.
        peak_value: the value from step `warmup_steps` on.
        warmup_steps: length of the line in steps; 0 begins at the peak.
    """
    return lambda t: mix(init_value, peak_value, progress(t, warmup_steps))


@schedule
def warmup_cosine_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Count,
    decay_steps: PositiveCount,
    end_value: Scalar = 0.0,
    exponent: NonNegative = 1.0,
):
    """A straight line up to the peak, then half a cosine down to `end_value`.

    Args:
        init_value: the value at step 0.
        peak_value: the value at step `warmup_steps`.
        warmup_steps: length of the warm-up in steps; 0 begins at the peak.
        decay_steps: length of the whole in steps, the warm-up included; more than `warmup_steps`.
        end_value: the value from step `decay_steps` on.
        exponent: the power of the cosine, as in `cosine_decay_schedule`.

    Raises:
        ValueError: if the warm-up is as long as the whole, or longer.
    """
    _check_room("warmup_cosine_decay_schedule", warmup_steps, decay_steps)
    return lambda t: _warmup_cosine(t, init_value, peak_value, warmup_steps, decay_steps, end_value, exponent)


@schedule
def warmup_exponential_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Count,
    transition_steps: PositiveCount,
    decay_rate: Positive,
    transition_begin: Count = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
):
    """A straight line up to the peak, then `exponential_decay`.

    Args:
        init_value: the value at step 0.
        peak_value: the value at step `warmup_steps`.
        warmup_steps: length of the warm-up in steps.
        transition_steps: steps in which the value is multiplied by `decay_rate`, above 0.
        decay_rate: the factor, above 0.
        transition_begin: steps after the warm-up at which the decay begins.
        staircase: hold the value within each `transition_steps` steps.
        end_value: a bound for the decay: below for decay_rate < 1, above otherwise.
    """
    decay = exponential_decay(peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value)
    return lambda t: jnp.where(
        t < warmup_steps, mix(init_value, peak_value, progress(t, warmup_steps)), decay(t - warmup_steps)
    )


@schedule
def warmup_stable_decay_schedule(
    peak_value: Scalar,
    total_steps: PositiveCount,
    warmup_steps: Count,
    decay_steps: Count,
    init_value: Scalar = 0.0,
    end_value: Scalar = 0.0,
    cooldown: Literal["linear", "1-sqrt", "power"] = "1-sqrt",
    power: Positive = 2.0,
):
    """Warm-up to the peak, constant, then a cool-down over the last `decay_steps` steps.

    Args:
        peak_value: the value between the warm-up and the cool-down.
        total_steps: length of the whole in steps.
        warmup_steps: length of the warm-up in steps.
        decay_steps: length of the cool-down in steps; it ends at `total_steps`.
        init_value: the value at step 0.
        end_value: the value from `total_steps` on.
        cooldown: the share of peak - end that is left at progress s: "linear" 1 - s, "1-sqrt" 1 - √s, "power" (1 - s)ᵖ.
        power: p.

    Raises:
        ValueError: if warm-up and cool-down do not fit into the whole.

    Reference: Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024,
        arXiv:2405.18392, Eq. (1) and Section 3 (1-sqrt); Hu et al., "MiniCPM", 2024, arXiv:2404.06395.
    """
    left_at = {
        "linear": lambda s: 1 - s,
        "1-sqrt": lambda s: 1 - power_of(s, 0.5),
        "power": lambda s: power_of(1 - s, power),
    }
    if concrete(total_steps, warmup_steps, decay_steps) and warmup_steps + decay_steps > total_steps:
        raise ValueError(
            f"warmup_stable_decay_schedule: warmup_steps + decay_steps = {warmup_steps + decay_steps:g} must be "
            f"at most total_steps = {total_steps:g}"
        )

    def value(t):
        rising = mix(init_value, peak_value, progress(t, warmup_steps))
        left = left_at[cooldown](progress(t - (total_steps - decay_steps), decay_steps))
        return jnp.where(t < total_steps - decay_steps, rising, mix(end_value, peak_value, left))

    return value


@schedule
def inverse_sqrt_schedule(peak_value: Scalar, warmup_steps: PositiveCount, init_value: Scalar = 0.0):
    """A straight line up to the peak, then peak · √(warmup_steps / t).

    Args:
        peak_value: the value at step `warmup_steps`.
        warmup_steps: length of the warm-up in steps, above 0.
        init_value: the value at step 0.

    Reference: Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762, Eq. (3), as a multiple of its peak.
    """

    def value(t):
        falling = peak_value * jnp.sqrt(warmup_steps / jnp.maximum(t, warmup_steps))
        return jnp.where(t < warmup_steps, mix(init_value, peak_value, progress(t, warmup_steps)), falling)

    return value


@schedule
def relative_step_schedule(max_value: LearningRate = 1e-2):
    """min(η, 1 / √(t + 1)): the relative step sizes of Adafactor, with the first update at t = 0.

    Args:
        max_value: η, at least 0; a number, or a schedule such as the warm-up `linear_schedule(0.0, 1e-2, 10_000)`.

    Reference: Shazeer & Stern, "Adafactor", 2018, arXiv:1804.04235, Algorithm 5 and Section 9.
    """

    def value(t):
        largest: Any = max_value(t) if isinstance(max_value, Schedule) else max_value
        return jnp.minimum(largest, 1 / jnp.sqrt(jnp.maximum(t, 0) + 1))

    return value


@schedule
def sgdr_schedule(cosine_kwargs: Cycles):
    """Warm restarts: cycles of `warmup_cosine_decay_schedule`, one after the other; the last value stays.

    Args:
        cosine_kwargs: for each cycle a dict of `init_value`, `peak_value`, `warmup_steps`, `decay_steps`, and where
            wanted `end_value` (0) and `exponent` (1); or an array [cycles, 6] of these numbers.

    Reference: Loshchilov & Hutter, "SGDR", 2017, arXiv:1608.03983.
    """
    if jnp.asarray(cosine_kwargs).size == 0:
        raise ValueError("sgdr_schedule: cosine_kwargs must hold at least one cycle, got none")
    for _, _, warmup_steps, decay_steps, *_ in jnp.asarray(cosine_kwargs):
        if concrete(warmup_steps) and warmup_steps < 0:
            raise ValueError(f"sgdr_schedule: warmup_steps must be at least 0, got {float(warmup_steps):g}")
        _check_room("sgdr_schedule", warmup_steps, decay_steps)
    cycles = jnp.asarray(cosine_kwargs)
    lengths = cycles[:, 3]

    def value(t):
        starts = jnp.cumsum(lengths) - lengths
        cycle = jnp.clip(jnp.sum(jnp.expand_dims(t, -1) >= along(starts, t), axis=-1) - 1, 0, len(cycles) - 1)
        arguments = jnp.moveaxis(cycles[cycle], -1, 0)
        return _warmup_cosine(t - starts[cycle], *arguments)

    return value


@schedule
def join_schedules(schedules: Sequence[Schedule], boundaries: Vector):
    """One schedule after another; each counts its steps from its own beginning.

    Args:
        schedules: n schedules.
        boundaries: the n - 1 steps at which the next one begins.

    Raises:
        ValueError: if their numbers do not fit together, or the boundaries are not in order.
    """
    if not isinstance(schedules, tuple) or not schedules:
        raise TypeError(f"join_schedules: schedules must be a list of at least one schedule, got {schedules!r}")
    given = jnp.asarray(boundaries).shape[0]
    if len(schedules) != given + 1:
        raise ValueError(
            f"join_schedules: {len(schedules)} schedules need {len(schedules) - 1} boundaries, got {given}"
        )
    if concrete(boundaries) and (np.diff(boundaries, prepend=0) < 0).any():
        raise ValueError(f"join_schedules: boundaries must be at least 0 and in order, got {np.asarray(boundaries)}")

    def value(t):
        output = schedules[0](t)
        for i, following in enumerate(schedules[1:]):
            # No schedule is evaluated before its first step, where its derivative may not be finite.
            begun = t >= boundaries[i]
            output = jnp.where(begun, following(jnp.where(begun, t - boundaries[i], 0)), output)
        return output

    return value


def _warmup_cosine(t, init_value, peak_value, warmup_steps, decay_steps, end_value, exponent):
    wave = 0.5 * (1 + jnp.cos(jnp.pi * progress(t - warmup_steps, decay_steps - warmup_steps)))
    falling = mix(end_value, peak_value, power_of(wave, exponent))
    return jnp.where(t < warmup_steps, mix(init_value, peak_value, progress(t, warmup_steps)), falling)


def _check_room(who: str, warmup_steps, decay_steps) -> None:
    if concrete(warmup_steps, decay_steps) and warmup_steps >= decay_steps:
        raise ValueError(
            f"{who}: warmup_steps must be less than decay_steps, which counts the warm-up in, got "
            f"warmup_steps={float(warmup_steps):g} and decay_steps={float(decay_steps):g}"
        )
