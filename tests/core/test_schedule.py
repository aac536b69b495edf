"""Schedules as functions of the step: counts of any kind, plain functions, and what they return."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo

LINE = jo.linear_schedule(1.0, 0.0, 10)


@pytest.mark.parametrize("count", [3, 3.0, np.int64(3), np.float32(3), jnp.array(3), jnp.array(3.0)])
def test_a_step_may_be_any_kind_of_number(count):
    value = LINE(count)
    assert value.dtype == jnp.float32 and value.shape == ()
    np.testing.assert_allclose(value, 0.7, rtol=1e-6)


def test_steps_in_an_array_give_values_in_an_array():
    np.testing.assert_allclose(LINE(np.arange(4).reshape(2, 2)), [[1, 0.9], [0.8, 0.7]], rtol=1e-6)
    assert jo.constant_schedule(0.5)(jnp.arange(3)).tolist() == [0.5] * 3


def test_a_step_between_two_steps_has_a_value():
    np.testing.assert_allclose(LINE(2.5), 0.75)


def test_plain_functions_are_schedules():
    def halve(count):
        return 0.5**count

    updates, state = jo.sgd(halve).update(jnp.ones(()), jo.sgd(halve).init(jnp.ones(())))
    assert updates == -1
    assert jo.sgd(halve).update(jnp.ones(()), state)[0] == -0.5


@pytest.mark.parametrize("rate", [lambda t: 1, lambda t: 1.0, lambda t: np.float64(1), lambda t: jnp.int32(1)])
def test_whatever_number_a_plain_function_returns_becomes_a_float(rate):
    value = jo.scale_by_schedule(rate).arguments["step_size_fn"](3)
    assert value.dtype == jnp.float32 and value == 1


def test_a_plain_function_of_no_step_fits_every_shape():
    constant = jo.scale_by_schedule(lambda t: 0.5).arguments["step_size_fn"]
    assert constant(jnp.arange(3)).tolist() == [0.5] * 3


def test_optax_schedules_are_plain_functions():
    rate = optax.cosine_decay_schedule(1.0, 10)
    ours = jo.sgd(jo.cosine_decay_schedule(1.0, 10))
    theirs = jo.sgd(rate)
    grads, states = jnp.ones(()), [ours.init(0.0), theirs.init(0.0)]
    for _ in range(3):
        (a, states[0]), (b, states[1]) = ours.update(grads, states[0]), theirs.update(grads, states[1])
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_first_update_is_step_zero():
    optimizer = jo.scale_by_learning_rate(LINE)
    state, values = optimizer.init(0.0), []
    for _ in range(3):
        update, state = optimizer.update(jnp.ones(()), state)
        values.append(-update)
    np.testing.assert_allclose(values, [1, 0.9, 0.8], rtol=1e-6)
    assert state.count == 3


def test_the_count_stays_at_the_largest_integer():
    # Rather than to wrap round to a negative step, where a warm-up would begin anew.
    largest = optax.ScaleByScheduleState(jnp.array(2**31 - 1, jnp.int32))
    for optimizer in (jo.scale_by_learning_rate(LINE), jo.scale_by_schedule(LINE)):
        update, state = optimizer.update(jnp.ones(()), largest)
        assert state.count == 2**31 - 1 and update == 0


def test_schedules_are_float64_where_everything_is(x64):
    assert LINE(3).dtype == jnp.float64 and LINE(3) == 1 - 3 / 10
    assert LINE(2**24 + 1.0) == 0


def test_a_schedule_is_differentiated_in_its_step_too():
    np.testing.assert_allclose(jax.grad(LINE)(3.0), -0.1, rtol=1e-6)
