"""Schedules of one shape: functions of the step t = 0, 1, 2, ...

    constant        η
    linear          η₀ + (η₁ - η₀) s                        s = progress from 0 to 1, clipped
    polynomial      η₁ + (η₀ - η₁) (1 - s)ᵖ
    exponential     η₀ rᵗᐟᵀ
    cosine          η₀ (α + (1 - α) ((1 + cos πs) / 2)ᵖ)     Loshchilov & Hutter, 2017, arXiv:1608.03983
    piecewise       η₀ ∏ {fᵢ : t ≥ bᵢ}, or interpolated between those products
    one-cycle       up and down, then far down              Smith & Topin, 2018, arXiv:1708.07120
    triangular      up and down again and again             Smith, 2017, arXiv:1506.01186

Every argument may be traced: there are no Python branches on numbers, so step counts can be swept and differentiated as
well as rates. Names, arguments and values are Optax's where Optax has the schedule. Concrete step counts are checked at
construction.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxopt_lite.core.numbers import Count, Fraction, NonNegative, Positive, PositiveCount, Scalar, Table, concrete
from jaxopt_lite.core.schedule import schedule

__all__ = [
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "cyclic_triangular_schedule",
    "exponential_decay",
    "linear_onecycle_schedule",
    "linear_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
]


@schedule
def constant_schedule(value: Scalar):
    """η at every step.

    Args:
        value: η.
    """
    return lambda t: jnp.full_like(t, value)


@schedule
def linear_schedule(
    init_value: Scalar, end_value: Scalar, transition_steps: PositiveCount, transition_begin: Count = 0
):
    """From `init_value` to `end_value` in a straight line.

    Args:
        init_value: the value up to step `transition_begin`.
        end_value: the value from step `transition_begin + transition_steps` on.
        transition_steps: length in steps, above 0.
        transition_begin: the step at which it leaves `init_value`.
    """
    return lambda t: mix(init_value, end_value, progress(t - transition_begin, transition_steps))


@schedule
def polynomial_schedule(
    init_value: Scalar,
    end_value: Scalar,
    power: NonNegative,
    transition_steps: PositiveCount,
    transition_begin: Count = 0,
):
    """η₁ + (η₀ - η₁) (1 - s)ᵖ: from `init_value` to `end_value` along a power.

    Args:
        init_value: η₀.
        end_value: η₁.
        power: p; 1 is linear, 2 flattens towards the end.
        transition_steps: length in steps, above 0.
        transition_begin: the step at which it leaves `init_value`.
    """

    def value(t):
        left = 1 - progress(t - transition_begin, transition_steps)
        return end_value + (init_value - end_value) * power_of(left, power)

    return value


@schedule
def exponential_decay(
    init_value: Scalar,
    transition_steps: PositiveCount,
    decay_rate: Positive,
    transition_begin: Count = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
):
    """η₀ rᵗᐟᵀ: multiplied by `decay_rate` every `transition_steps` steps.

    Args:
        init_value: η₀, the value up to step `transition_begin`.
        transition_steps: T, in steps, above 0.
        decay_rate: r, above 0.
        transition_begin: the step at which the decay begins.
        staircase: hold the value within each T steps.
        end_value: a bound: below for decay_rate < 1, above otherwise.
    """

    def value(t):
        passed = jnp.maximum(t - transition_begin, 0)
        p = whole(passed, transition_steps) if staircase else passed / transition_steps
        decayed = init_value * jnp.power(decay_rate, p)
        if end_value is None:
            return decayed
        return jnp.where(jnp.asarray(decay_rate) < 1, jnp.maximum(decayed, end_value), jnp.minimum(decayed, end_value))

    return value


@schedule
def cosine_decay_schedule(
    init_value: Scalar, decay_steps: PositiveCount, alpha: Scalar = 0.0, exponent: NonNegative = 1.0
):
    """η₀ (α + (1 - α) ((1 + cos πs) / 2)ᵖ): half a cosine from η₀ down to α η₀.

    Args:
        init_value: η₀.
        decay_steps: length in steps, above 0; the last value stays.
        alpha: α, the last value as a share of the first.
        exponent: p.

    Reference: Loshchilov & Hutter, "SGDR", 2017, arXiv:1608.03983, Eq. (5).
    """

    def value(t):
        wave = 0.5 * (1 + jnp.cos(jnp.pi * progress(t, decay_steps)))
        return init_value * (alpha + (1 - alpha) * power_of(wave, exponent))

    return value


@schedule
def piecewise_constant_schedule(init_value: Scalar, boundaries_and_scales: Table | None = None):
    """η₀ times the scales of all boundaries that have been reached.

    Args:
        init_value: η₀.
        boundaries_and_scales: {step: scale}, or an array [n, 2] of such pairs; scales are at least 0.
    """
    boundaries, scales = _boundaries_and_scales("piecewise_constant_schedule", boundaries_and_scales)

    def value(t):
        return init_value * jnp.prod(
            jnp.where(jnp.expand_dims(t, -1) >= along(boundaries, t), along(scales, t), 1), axis=-1
        )

    return value


@schedule
def piecewise_interpolate_schedule(
    interpolate_type: Literal["linear", "cosine"], init_value: Scalar, boundaries_and_scales: Table | None = None
):
    """Interpolates between the values that `piecewise_constant_schedule` takes at its boundaries.

    Args:
        interpolate_type: "linear" or "cosine".
        init_value: the value at step 0.
        boundaries_and_scales: {step: scale}, or an array [n, 2] of such pairs. At each boundary the value reached is
            the one before times the scale.
    """
    boundaries, scales = _boundaries_and_scales("piecewise_interpolate_schedule", boundaries_and_scales)
    return _interpolation(interpolate_type, init_value, boundaries, scales)


@schedule
def linear_onecycle_schedule(
    transition_steps: PositiveCount,
    peak_value: Scalar,
    pct_start: Fraction = 0.3,
    pct_final: Fraction = 0.85,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
):
    """Three straight lines: up to the peak, down to the first value, and down to the last value.

    Args:
        transition_steps: length in steps, above 0.
        peak_value: the highest value; it begins at peak_value / div_factor.
        pct_start: share of the steps after which the peak is reached.
        pct_final: share of the steps after which the first value is reached again.
        div_factor: peak over first value.
        final_div_factor: first value over last value.

    Raises:
        ValueError: if pct_final is less than pct_start.

    Reference: Smith & Topin, "Super-Convergence", 2018, arXiv:1708.07120.
    """
    if concrete(pct_start, pct_final) and pct_start > pct_final:
        raise ValueError(
            f"linear_onecycle_schedule: pct_final must be at least pct_start, got pct_final={float(pct_final):g} and "
            f"pct_start={float(pct_start):g}"
        )
    boundaries = jnp.stack([pct_start * transition_steps, pct_final * transition_steps, transition_steps * 1.0])
    scales = jnp.stack([div_factor * 1.0, 1.0 / div_factor, 1.0 / final_div_factor])
    return _interpolation("linear", peak_value / div_factor, boundaries, scales)


@schedule
def cosine_onecycle_schedule(
    transition_steps: PositiveCount,
    peak_value: Scalar,
    pct_start: Fraction = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
):
    """Half a cosine up to the peak, and half a cosine down to the last value.

    Args:
        transition_steps: length in steps, above 0.
        peak_value: the highest value; it begins at peak_value / div_factor.
        pct_start: share of the steps after which the peak is reached.
        div_factor: peak over first value.
        final_div_factor: first value over last value.

    Reference: Smith & Topin, "Super-Convergence", 2018, arXiv:1708.07120.
    """
    boundaries = jnp.stack([pct_start * transition_steps, transition_steps * 1.0])
    scales = jnp.stack([div_factor * 1.0, 1.0 / (div_factor * final_div_factor)])
    return _interpolation("cosine", peak_value / div_factor, boundaries, scales)


@schedule
def cyclic_triangular_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    up_steps: PositiveCount,
    down_steps: PositiveCount | None = None,
    decay_rate: Positive = 1.0,
):
    """Up to the peak and back down in straight lines, again and again.

    Args:
        init_value: the lowest value, at step 0.
        peak_value: the highest value of the first cycle.
        up_steps: steps from low to high, above 0.
        down_steps: steps from high to low; None means as many.
        decay_rate: factor on the height of each further cycle: 1 is "triangular", 0.5 "triangular2".

    Reference: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, arXiv:1506.01186, Section 3.2.
    """
    fall = up_steps if down_steps is None else down_steps

    def value(t):
        cycle = whole(t, up_steps + fall)
        within = t - cycle * (up_steps + fall)
        height = jnp.minimum(within / up_steps, (up_steps + fall - within) / fall)
        return init_value + (peak_value - init_value) * height * jnp.power(decay_rate, cycle)

    return value


def mix(start, end, share):
    return start + (end - start) * share


def progress(t, steps):
    """Share of `steps` that has passed, from 0 to 1; 1 where there are no steps."""
    positive = jnp.asarray(steps) > 0
    return jnp.where(positive, jnp.clip(t / jnp.where(positive, steps, 1), 0, 1), 1)


def whole(t, period):
    """⌊t / T⌋, the number of whole periods in t: n for n T <= t < (n + 1) T.

    A compiler may divide by a constant by multiplying with its reciprocal, which falls short at some multiples of T, so
    the quotient is compared with its multiples.
    """
    n = jnp.floor(t / period)
    n = jnp.where(n * period > t, n - 1, n)
    return jnp.where((n + 1) * period <= t, n + 1, n)


def power_of(x, p):
    """xᵖ for x in [0, 1], with finite derivatives at 0."""
    positive = x > 0
    return jnp.where(positive, jnp.power(jnp.where(positive, x, 1), p), jnp.where(jnp.asarray(p) == 0, 1.0, 0.0))


def along(vector, t):
    """A vector [n] reshaped to broadcast against t[..., None]."""
    return jnp.reshape(vector, (1,) * jnp.ndim(t) + (-1,))


def _boundaries_and_scales(who: str, table) -> tuple[jax.Array, jax.Array]:
    """The columns of a table of pairs, in the order of the boundaries."""
    if table is None or len(table) == 0:
        return jnp.zeros(0), jnp.zeros(0)
    if jnp.shape(table)[1:] != (2,):
        raise ValueError(f"{who}: boundaries_and_scales must be pairs (step, scale), got an array {jnp.shape(table)}")
    table = jnp.asarray(table)
    if concrete(table) and (table < 0).any():
        raise ValueError(f"{who}: boundaries_and_scales must be at least 0, got {table.tolist()}")
    table = table[jnp.argsort(table[:, 0])]
    return table[:, 0], table[:, 1]


def _interpolation(kind, init_value, boundaries, scales):
    def value(t):
        bounds = jnp.concatenate([jnp.zeros(1), boundaries])
        values = init_value * jnp.cumprod(jnp.concatenate([jnp.ones(1), scales]))
        left, right = along(bounds[:-1], t), along(bounds[1:], t)
        here = (left <= jnp.expand_dims(t, -1)) & (jnp.expand_dims(t, -1) < right)
        share = (jnp.expand_dims(t, -1) - left) / jnp.where(right > left, right - left, 1)
        if kind == "cosine":
            share = (1 - jnp.cos(jnp.pi * share)) / 2
        between = jnp.sum(jnp.where(here, mix(along(values[:-1], t), along(values[1:], t), share), 0), axis=-1)
        return jnp.where(t >= bounds[-1], values[-1], between)

    return value
