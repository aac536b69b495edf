"""Schedules of one shape: by hand at the corners; slopes and mapped values where branches meet."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.quick import quick_jit

QUARTER = (1 - math.cos(math.pi / 4)) / 2  # how far half a cosine has come after a quarter of its way

# {step: value}, by hand.
CORNERS = [
    (jo.constant_schedule(0.3), {0: 0.3, 99: 0.3}),
    (jo.linear_schedule(1, 0, 10), {0: 1, 2.5: 0.75, 5: 0.5, 10: 0, 99: 0}),
    (jo.linear_schedule(0.2, 1, 10, 5), {0: 0.2, 5: 0.2, 10: 0.6, 15: 1, 99: 1}),
    (jo.polynomial_schedule(1, 0.2, 2, 10, 2), {0: 1, 2: 1, 7: 0.4, 12: 0.2, 99: 0.2}),
    (jo.polynomial_schedule(1, 0.2, 0.5, 10), {0: 1, 7.5: 0.6, 10: 0.2, 99: 0.2}),
    (jo.polynomial_schedule(1, 0.2, 1, 10), {0: 1, 2.5: 0.8, 10: 0.2}),
    (jo.exponential_decay(2, 10, 0.25), {0: 2, 5: 1, 10: 0.5, 20: 0.125}),
    (jo.exponential_decay(1, 10, 0.5, transition_begin=5), {0: 1, 5: 1, 15: 0.5, 25: 0.25}),
    (jo.exponential_decay(1, 10, 0.5, 5, staircase=True), {14: 1, 15: 0.5, 24.9: 0.5, 25: 0.25}),
    (jo.exponential_decay(1, 10, 0.5, end_value=0.3), {10: 0.5, 20: 0.3, 99: 0.3}),
    (jo.exponential_decay(1, 10, 2, end_value=3), {10: 2, 20: 3, 99: 3}),
    (jo.cosine_decay_schedule(2, 10), {0: 2, 2.5: 2 - 2 * QUARTER, 5: 1, 10: 0, 99: 0}),
    (jo.cosine_decay_schedule(2, 10, alpha=0.1), {0: 2, 5: 1.1, 10: 0.2, 99: 0.2}),
    (jo.cosine_decay_schedule(2, 10, alpha=0.1, exponent=2), {0: 2, 5: 0.65, 10: 0.2}),
    (jo.piecewise_constant_schedule(2), {0: 2, 99: 2}),
    (jo.piecewise_constant_schedule(1, {5: 0.5, 10: 0.1}), {0: 1, 4.9: 1, 5: 0.5, 9: 0.5, 10: 0.05, 99: 0.05}),
    (jo.piecewise_constant_schedule(1, {10: 0.1, 5: 0.5}), {4: 1, 5: 0.5, 10: 0.05}),
    (jo.piecewise_constant_schedule(1, {0: 0.5, 10: 0}), {0: 0.5, 10: 0, 99: 0}),
    (jo.piecewise_interpolate_schedule("linear", 2), {0: 2, 99: 2}),
    (
        jo.piecewise_interpolate_schedule("linear", 1, {20: 0.1, 10: 0.5}),
        {0: 1, 5: 0.75, 10: 0.5, 15: 0.275, 20: 0.05, 99: 0.05},
    ),
    (
        jo.piecewise_interpolate_schedule("cosine", 1, {10: 0.5, 20: 0.1}),
        {0: 1, 2.5: 1 - 0.5 * QUARTER, 5: 0.75, 10: 0.5, 15: 0.275, 20: 0.05, 99: 0.05},
    ),
    (jo.piecewise_interpolate_schedule("linear", 1, {0: 0.5, 10: 0.5}), {0: 0.5, 5: 0.375, 10: 0.25}),
    (
        jo.linear_onecycle_schedule(100, 1),
        {0: 0.04, 15: 0.52, 30: 1, 57.5: 0.52, 85: 0.04, 100: 4e-6, 999: 4e-6},
    ),
    (jo.linear_onecycle_schedule(100, 2, 0.5, 0.5, 4, 10), {0: 0.5, 25: 1.25, 49.99: 1.9997, 50: 0.5, 100: 0.05}),
    (jo.cosine_onecycle_schedule(100, 1), {0: 0.04, 7.5: 0.04 + 0.96 * QUARTER, 15: 0.52, 30: 1, 65: 0.5, 100: 4e-6}),
    (jo.cyclic_triangular_schedule(0.1, 1.1, 4), {0: 0.1, 2: 0.6, 4: 1.1, 6: 0.6, 8: 0.1, 12: 1.1, 804: 1.1}),
    (
        jo.cyclic_triangular_schedule(0.1, 1.1, 4, 6, decay_rate=0.5),
        {0: 0.1, 2: 0.6, 4: 1.1, 7: 0.6, 10: 0.1, 14: 0.6, 20: 0.1, 24: 0.35},
    ),
]  # fmt: skip

# Where branches meet: nothing to decay, no way to go, exponents and shares at the ends of their ranges.
EDGES = [
    jo.linear_schedule(1, 1, 0.5, 0),
    jo.polynomial_schedule(1, 0.2, 0, 10),
    jo.polynomial_schedule(1, 0.2, 0.5, 10, 3),
    jo.exponential_decay(1, 10, 1.0, end_value=1.0),
    jo.exponential_decay(0, 10, 0.5, 2, staircase=True),
    jo.cosine_decay_schedule(2, 10, alpha=1.0, exponent=0),
    jo.cosine_decay_schedule(2, 10, exponent=0.5),
    jo.piecewise_constant_schedule(1, {0: 0.0, 10: 0.0}),
    jo.piecewise_interpolate_schedule("linear", 1, {0: 0.5, 5: 0.0}),
    jo.piecewise_interpolate_schedule("cosine", 1, [[5, 0.5], [5, 0.5]]),
    jo.linear_onecycle_schedule(10, 1, 0.0, 1.0),
    jo.linear_onecycle_schedule(10, 1, 0.5, 0.5),
    jo.cosine_onecycle_schedule(10, 1, 0.0),
    jo.cosine_onecycle_schedule(10, 1, 1.0),
    jo.cyclic_triangular_schedule(1, 1, 4, 0.5, 2.0),
]
STEPS = np.arange(0, 31, 0.5)


@pytest.mark.parametrize(("schedule", "values"), CORNERS, ids=lambda x: str(x)[:60])
def test_values_by_hand(schedule, values):
    steps = np.resize(list(values), len(STEPS))  # always the same shape: each shape is compiled anew
    np.testing.assert_allclose(schedule(steps), np.resize(list(values.values()), len(STEPS)), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("schedule", EDGES, ids=str)
def test_slopes_by_every_argument_are_finite_on_the_kinks_too(schedule):
    slopes = quick_jit(jax.grad(lambda s, t: jnp.sum(s(t)), argnums=(0, 1)))(schedule, STEPS)
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
        assert jnp.isfinite(slope).all(), jax.tree_util.keystr(path)


@pytest.mark.parametrize("schedule", EDGES, ids=str)
def test_mapped_over_its_arguments_it_is_a_loop(schedule):
    """In each row another argument is changed, and it alone."""
    leaves, structure = jax.tree.flatten(schedule)
    rows = [[np.float32(x) * (1.01 if i == j else 1) for j, x in enumerate(leaves)] for i in range(8)]
    columns = [jnp.stack(column) for column in zip(*rows, strict=True)]
    mapped = quick_jit(jax.vmap(lambda s: s(STEPS)))(structure.unflatten(columns))
    for row, found in zip(rows, mapped, strict=True):
        try:
            expected = structure.unflatten(row)(STEPS)
        except ValueError:  # concrete, the phases do not fit into the whole any more
            continue
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    st.floats(-2, 2), st.floats(-2, 2), st.floats(0.5, 50), st.floats(0, 20), st.floats(0, 3), st.floats(0, 100)
)
def test_a_polynomial_stays_between_its_ends(start, end, steps, begin, power, t):
    value = jo.polynomial_schedule(start, end, power, steps, begin)(t)
    assert min(start, end) - 1e-5 <= value <= max(start, end) + 1e-5


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 100))
def test_a_cycle_repeats_itself(up, down, t):
    schedule = jo.cyclic_triangular_schedule(0.5, 2.0, up, down)
    np.testing.assert_allclose(schedule(t), schedule(t + up + down), atol=2e-5)
    assert 0.5 - 1e-5 <= schedule(t) <= 2 + 1e-5


def test_a_decay_of_the_same_share_each_step_is_a_geometric_series():
    values = jo.exponential_decay(3.0, 1, 0.9)(jnp.arange(20))
    np.testing.assert_allclose(values[1:] / values[:-1], 0.9, rtol=1e-5)


def test_interpolating_and_stepping_agree_at_the_boundaries():
    table = {3: 0.5, 7: 0.2, 20: 3.0}
    steps = jnp.array([0.0, 3.0, 7.0, 20.0, 50.0])
    for kind in ("linear", "cosine"):
        smooth = jo.piecewise_interpolate_schedule(kind, 0.7, table)(steps)
        np.testing.assert_allclose(smooth, jo.piecewise_constant_schedule(0.7, table)(steps), rtol=1e-6)


@pytest.mark.parametrize("x64", [False, True])
def test_a_stair_falls_at_every_multiple_whatever_the_way_it_is_asked(x64):
    """XLA divides by a constant by multiplying: t / 41 at t = 41 is below 1 there. With x64 it is 49, among others."""
    periods, rate, begin = (3, 41, 49, 97, 107, 161, 12345), 0.99, 5
    multiples = np.array([1, 2, 3, 5, 41, 47, 1001])[:, None] * np.array(periods)
    steps = np.concatenate([multiples - 1, multiples])
    for make in (
        lambda period: jo.exponential_decay(1.0, period, rate, transition_begin=begin, staircase=True),
        lambda period: jo.warmup_exponential_decay_schedule(0.0, 1.0, begin, period, rate, staircase=True),
    ):

        def at_all(schedules, steps):
            return jnp.stack([schedule(t) for schedule, t in zip(schedules, steps.T, strict=True)], axis=-1)

        with jax.enable_x64(x64):
            schedules, t = [make(period) for period in periods], jnp.asarray(steps + begin)
            one_by_one = [[schedule(int(of)) for schedule, of in zip(schedules, row, strict=True)] for row in t[:3]]
            batch = jax.tree.map(lambda *leaves: jnp.stack(jnp.asarray(leaves)), *schedules)
            ways = {
                "eager": at_all(schedules, t),
                "one by one": jnp.array(one_by_one),
                "closed over": jax.jit(lambda t, s=schedules: at_all(s, t))(t),
                "argument": jax.jit(at_all)(schedules, t),
                "mapped over steps": jax.jit(jax.vmap(lambda row, s=schedules: at_all(s, row[None])[0]))(t),
                "mapped over periods": jax.jit(jax.vmap(lambda s, t: s(t), (0, 1), 1))(batch, t),
            }
        for way, values in ways.items():
            falls = np.round(np.log(np.asarray(values, np.float64)) / np.log(rate))
            np.testing.assert_array_equal(falls, (steps // periods)[: len(falls)], way)
