"""Warm-ups, cool-downs, restarts, joining: by hand at the corners; slopes and mapped values where branches meet."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.quick import quick_jit

QUARTER = (1 - math.cos(math.pi / 4)) / 2
CYCLES = [
    {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 10},
    {"init_value": 0.2, "peak_value": 0.6, "warmup_steps": 0, "decay_steps": 4, "end_value": 0.1, "exponent": 2.0},
    {"init_value": 0.1, "peak_value": 0.5, "warmup_steps": 4, "decay_steps": 8, "end_value": 0.3},
]
HALF = jo.constant_schedule(0.5)

# {step: value}, by hand.
CORNERS = [
    (jo.warmup_constant_schedule(0.1, 1, 10), {0: 0.1, 5: 0.55, 10: 1, 99: 1}),
    (jo.warmup_constant_schedule(0.1, 1, 0), {0: 1, 99: 1}),
    (
        jo.warmup_cosine_decay_schedule(0, 1, 10, 30, 0.2),
        {0: 0, 5: 0.5, 10: 1, 15: 1 - 0.8 * QUARTER, 20: 0.6, 30: 0.2, 99: 0.2},
    ),
    (jo.warmup_cosine_decay_schedule(0, 1, 10, 30, 0.2, exponent=2), {10: 1, 20: 0.4, 30: 0.2}),
    (jo.warmup_cosine_decay_schedule(0, 1, 0, 20), {0: 1, 10: 0.5, 20: 0}),
    (
        jo.warmup_exponential_decay_schedule(0, 1, 10, 10, 0.5, transition_begin=5, end_value=0.3),
        {0: 0, 5: 0.5, 10: 1, 15: 1, 25: 0.5, 35: 0.3, 99: 0.3},
    ),
    (jo.warmup_exponential_decay_schedule(0, 1, 10, 10, 0.5, staircase=True), {10: 1, 19: 1, 20: 0.5, 30: 0.25}),
    (jo.warmup_exponential_decay_schedule(0, 1, 0, 10, 0.5), {0: 1, 10: 0.5}),
    (
        jo.warmup_stable_decay_schedule(1, 100, 10, 20, 0.1, 0.2, "linear"),
        {0: 0.1, 5: 0.55, 10: 1, 79: 1, 80: 1, 85: 0.8, 90: 0.6, 100: 0.2, 200: 0.2},
    ),
    (jo.warmup_stable_decay_schedule(1, 100, 10, 20, 0.1, 0.2), {79: 1, 80: 1, 85: 0.6, 100: 0.2, 200: 0.2}),
    (
        jo.warmup_stable_decay_schedule(1, 100, 10, 20, 0.1, 0.2, "power"),
        {79: 1, 80: 1, 85: 0.65, 90: 0.4, 100: 0.2, 200: 0.2},
    ),
    (jo.warmup_stable_decay_schedule(1, 100, 10, 20, cooldown="power", power=3), {80: 1, 90: 0.125, 100: 0}),
    (jo.warmup_stable_decay_schedule(1, 30, 10, 20, cooldown="linear"), {5: 0.5, 10: 1, 20: 0.5, 30: 0}),
    (jo.warmup_stable_decay_schedule(1, 30, 0, 0, end_value=0.5), {0: 1, 29.9: 1, 30: 0.5}),
    (jo.relative_step_schedule(0.4), {0: 0.4, 3: 0.4, 24: 0.2}),
    (jo.relative_step_schedule(jo.linear_schedule(0.0, 1.0, 10)), {0: 0, 1: 0.1, 24: 0.2}),
    (jo.inverse_sqrt_schedule(1, 16), {0: 0, 8: 0.5, 16: 1, 64: 0.5, 1600: 0.1}),
    (jo.inverse_sqrt_schedule(1, 16, 0.4), {0: 0.4, 8: 0.7, 16: 1}),
    (
        jo.sgdr_schedule(CYCLES),
        {0: 0, 1: 0.5, 2: 1, 6: 0.5, 10: 0.6, 12: 0.225, 14: 0.1, 16: 0.3, 18: 0.5, 20: 0.4, 22: 0.3},
    ),
    (jo.join_schedules([jo.linear_schedule(1, 0, 10)], []), {0: 1, 5: 0.5}),
    (
        jo.join_schedules([HALF, jo.linear_schedule(1, 0, 10), jo.constant_schedule(2)], [5, 13]),
        {0: 0.5, 4.9: 0.5, 5: 1, 10: 0.5, 12: 0.3, 13: 2, 99: 2},
    ),
    (jo.join_schedules([HALF, jo.linear_schedule(1, 0, 10)], [0]), {0: 1, 5: 0.5}),
    (jo.join_schedules([HALF, lambda t: 2.0 * t], [3]), {2: 0.5, 3: 0, 5: 4}),
]  # fmt: skip

# Phases of no length, flat phases, and exponents at the ends of their ranges.
EDGES = [
    jo.warmup_constant_schedule(1, 1, 0.5),
    jo.warmup_cosine_decay_schedule(0, 1, 0, 0.5, exponent=0),
    jo.warmup_cosine_decay_schedule(0, 1, 9, 10, exponent=0.5),
    jo.warmup_exponential_decay_schedule(0, 0, 0, 10, 0.5, end_value=0),
    jo.warmup_stable_decay_schedule(1, 10, 10, 0),
    jo.warmup_stable_decay_schedule(1, 10, 0, 10),
    jo.warmup_stable_decay_schedule(1, 10, 0, 10, cooldown="power", power=0.5),
    jo.inverse_sqrt_schedule(1, 0.5),
    jo.sgdr_schedule([{**CYCLES[0], "warmup_steps": 0}] * 2),
    jo.join_schedules([HALF, jo.cosine_decay_schedule(1, 5), HALF], [4, 4]),
]
STEPS = np.arange(0, 31, 0.5)


@pytest.mark.parametrize(("schedule", "values"), CORNERS, ids=lambda x: str(x)[:60])
def test_values_by_hand(schedule, values):
    steps = np.resize(list(values), len(STEPS))  # always the same shape: each shape is compiled anew
    np.testing.assert_allclose(schedule(steps), np.resize(list(values.values()), len(STEPS)), rtol=2e-5, atol=1e-6)


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


def test_the_ends_of_a_warm_up_may_be_traced_and_meet():
    # Concrete, a warm-up as long as the whole is refused; traced, it must still be a number.
    schedule = jax.jit(lambda n: jo.warmup_cosine_decay_schedule(0.0, 1.0, n, n, end_value=0.3)(jnp.arange(20.0)))(10.0)
    np.testing.assert_allclose(schedule[jnp.array([0, 5, 12])], [0, 0.5, 0.3], rtol=1e-6)


def test_a_whole_sweep_of_warm_ups_is_one_call():
    warmups = jnp.array([0.0, 5.0, 10.0])
    values = jax.vmap(lambda w: jo.warmup_cosine_decay_schedule(0.0, 1.0, w, 20.0)(5))(warmups)
    np.testing.assert_allclose(values, [0.5 * (1 + math.cos(math.pi / 4)), 1, 0.5], rtol=1e-6)


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    st.floats(0, 1), st.floats(1, 2), st.floats(0, 1), st.integers(0, 20), st.integers(1, 30), st.integers(0, 80)
)
def test_a_warm_up_rises_and_a_decay_falls(start, peak, end, warmup, rest, t):
    for schedule in (
        jo.warmup_cosine_decay_schedule(start, peak, warmup, warmup + rest, end),
        jo.warmup_stable_decay_schedule(peak, warmup + rest, warmup, rest // 2, start, end),
    ):
        now, later = schedule(t), schedule(t + 1)
        assert min(start, end) - 1e-5 <= now <= peak + 1e-5
        assert later >= now - 1e-5 if t < warmup else later <= now + 1e-5


def test_a_warm_up_without_length_begins_at_the_peak():
    for schedule in (
        jo.warmup_constant_schedule(0.0, 0.7, 0),
        jo.warmup_cosine_decay_schedule(0.0, 0.7, 0, 10),
        jo.warmup_exponential_decay_schedule(0.0, 0.7, 0, 10, 0.5),
        jo.warmup_stable_decay_schedule(0.7, 10, 0, 5),
    ):
        np.testing.assert_allclose(schedule(0), 0.7, rtol=1e-6)


def test_one_cycle_is_a_warm_up_with_cosine_decay():
    steps = jnp.arange(0, 15, 0.5)
    single = jo.warmup_cosine_decay_schedule(0.1, 0.5, 4, 8, 0.3)(steps)
    np.testing.assert_allclose(jo.sgdr_schedule(CYCLES[2:])(steps), single, rtol=1e-6)


def test_cycles_are_the_schedules_joined():
    steps = jnp.arange(0, 30, 0.5)
    phases = [jo.warmup_cosine_decay_schedule(**cycle) for cycle in CYCLES]
    np.testing.assert_allclose(jo.sgdr_schedule(CYCLES)(steps), jo.join_schedules(phases, [10, 14])(steps), atol=1e-6)


def test_a_joined_schedule_steps_in_training():
    rate = jo.join_schedules([jo.warmup_constant_schedule(0.0, 1.0, 2), jo.linear_schedule(1.0, 0.0, 2)], [2])
    optimizer, used = jo.sgd(rate), []
    state = optimizer.init(jnp.zeros(()))
    for _ in range(5):
        update, state = optimizer.update(jnp.ones(()), state)
        used.append(-float(update))
    assert used == [0, 0.5, 1, 0.5, 0]
