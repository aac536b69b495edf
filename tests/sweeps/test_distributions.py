import json
import pickle

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import jaxopt_lite as jo
from jaxopt_lite.sweeps.configs import plain
from jaxopt_lite.sweeps.distributions import (
    choice,
    int_uniform,
    log_int_uniform,
    log_uniform,
    normal,
    one_minus_log_uniform,
    uniform,
)
from tests.sweeps.cases import NAMES

ALL = [
    uniform(-1.0, 2.0),
    log_uniform(1e-4, 1e-1),
    one_minus_log_uniform(0.0, 0.999),
    normal(3.0, 0.1),
    int_uniform(-2, 5),
    int_uniform(0, 100, traced=True),
    log_int_uniform(1, 1024),
    choice([32, 128, 512]),
    choice([0.1, 0.2], traced=True),
    choice(["relu", None, True, 1, 1.0, [1, 2]]),
    choice([jo.adam(1e-3), jo.sgd(0.1)]),
    choice({"adam": {"b1": uniform(0.8, 0.99)}, "sgd": {}}),
]
UNITS = np.concatenate([np.linspace(0, 1, 1001), [1e-300, 1 - 1e-16]])


@pytest.mark.parametrize("distribution", ALL, ids=repr)
def test_a_distribution_is_a_value(distribution):
    assert jo.parse(repr(distribution), NAMES) == distribution
    assert jo.parse(jo.spell(distribution, defaults=True), NAMES) == distribution
    copy = pickle.loads(pickle.dumps(distribution))
    assert copy == distribution
    assert hash(copy) == hash(distribution)


@pytest.mark.parametrize("distribution", ALL, ids=repr)
def test_maps_go_there_and_back(distribution):
    axis = distribution.built
    numbers = axis.draw(UNITS)
    assert numbers.dtype == np.float64
    assert np.all(np.diff(numbers[:1001]) >= 0)
    units = axis.place(numbers)
    assert np.all((units >= 0) & (units <= 1))
    again = axis.draw(units)
    if axis.kind == "float":
        np.testing.assert_allclose(again, numbers, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(numbers, np.float32(numbers))
        assert numbers.min() == np.float32(axis.low) or not axis.bounded
        assert numbers.max() == np.float32(axis.high) or not axis.bounded
    else:
        np.testing.assert_array_equal(again, numbers)
    np.testing.assert_array_equal(axis.clip(numbers), numbers)
    shown = axis.show(numbers)
    assert [axis.read(value) for value in shown] == numbers.tolist()
    assert [axis.read(json.loads(json.dumps(plain(axis.value(x))))) for x in numbers] == numbers.tolist()


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-2, 1e6), u=st.floats(0, 1))
def test_uniform_stays_inside_in_float32(low, width, u):
    if np.float32(low) < np.float32(low + width):
        axis = uniform(low, low + width).built
        number = axis.draw(np.array([u]))[0]
        assert np.float32(low) <= number <= np.float32(low + width)
        assert axis.read(np.float32(number)) == number


@pytest.mark.parametrize(
    ("distribution", "cdf"),
    [
        (uniform(-1.0, 2.0), stats.uniform(-1, 3).cdf),
        (log_uniform(1e-4, 1e-1), stats.loguniform(1e-4, 1e-1).cdf),
        (one_minus_log_uniform(0.5, 0.999), lambda x: 1 - stats.loguniform(1e-3, 0.5).cdf(1 - x)),
        (normal(3.0, 0.1), stats.norm(3, 0.1).cdf),
    ],
    ids=["uniform", "log_uniform", "one_minus_log_uniform", "normal"],
)
def test_numbers_have_the_distribution_that_they_are_named_after(distribution, cdf):
    u = (np.arange(1000) + 0.5) / 1000
    np.testing.assert_allclose(cdf(distribution.built.draw(u)), u, atol=2e-5)


def test_integers_are_equally_likely_ends_included():
    u = (np.arange(8000) + 0.5) / 8000
    values, counts = np.unique(int_uniform(3, 10).built.draw(u), return_counts=True)
    assert values.tolist() == list(range(3, 11))
    assert set(counts) == {1000}
    values, counts = np.unique(log_int_uniform(1, 8).built.draw(u), return_counts=True)
    assert values.tolist() == list(range(1, 9))
    weights = np.diff(np.log(np.arange(0.5, 9)))  # of [k - ½, k + ½] on the logarithmic scale
    np.testing.assert_allclose(counts / 8000, weights / weights.sum(), atol=2e-3)


@pytest.mark.parametrize("make", [int_uniform, log_int_uniform])
def test_large_integers_are_drawn_saved_and_read_as_exactly_as_small_ones(make):
    most = 2**53 if make is int_uniform else 2**45
    for low in (10, 10**9, most - 7):
        axis, whole = make(low, low + 7).built, list(range(low, low + 8))
        drawn = axis.draw((np.arange(8000) + 0.5) / 8000)
        values, counts = np.unique(drawn, return_counts=True)
        assert axis.show(values) == whole == [axis.value(x) for x in values] == [axis.read(n) for n in whole]
        assert counts.max() < 1.2 * counts.min() or low == 10
        np.testing.assert_array_equal(axis.draw(axis.place(values)), values)
        for outside in (low - 1, low + 8, 10**400):
            with pytest.raises(ValueError, match=f"an integer between {low} and {low + 7}, got"):
                axis.read(outside)


def test_what_is_traced_is_a_float32_scalar():
    for distribution, kind in [
        (uniform(0, 1), np.float32),
        (int_uniform(0, 9), int),
        (int_uniform(0, 9, traced=True), np.float32),
        (choice([1, 2]), int),
        (choice([0.1, 0.2]), float),
        (choice([1, 2], traced=True), np.float32),
    ]:
        axis = distribution.built
        assert [type(x) for x in axis.show(axis.draw(np.array([0.3])))] == [kind]
        assert axis.traced == (kind is np.float32)


def test_plain_numbers_are_the_shortest_that_give_back_the_float32():
    axis = log_uniform(1e-4, 1e-1).built
    for number in axis.draw(UNITS):
        assert np.float32(axis.value(number)) == number
    assert axis.value(axis.draw(np.array([1.0]))[0]) == 0.1


def bad_calls():
    yield lambda: uniform(1, 1), ValueError, "constant"
    yield lambda: uniform(2, 1), ValueError, "uniform: low must be below high, got 2.0 and 1.0; a constant"
    yield lambda: uniform(1, 1 + 1e-9), ValueError, "in float32 they are equal"
    yield lambda: uniform(0, float("inf")), ValueError, "uniform: high must be finite"
    yield lambda: uniform("0", 1), TypeError, "uniform: low must be a number"
    yield lambda: log_uniform(0, 1), ValueError, "log_uniform: low must be above 0, got 0"
    yield lambda: log_uniform(-1, 1), ValueError, "log_uniform: low must be above 0"
    yield lambda: log_uniform(1, float("inf")), ValueError, "log_uniform: high must be at most 3.4e38, because"
    yield lambda: one_minus_log_uniform(0.5, 1), ValueError, r"high must be in \[0, 1\)"
    yield lambda: normal(0, 0), ValueError, "normal: std must be above 0"
    yield lambda: normal(1e9, 1.0), ValueError, "float32"
    yield lambda: int_uniform(1, 1), ValueError, "int_uniform: low must be below high"
    yield lambda: int_uniform(1.0, 3), TypeError, "int_uniform: low must be an int"
    yield lambda: int_uniform(True, 3), TypeError, "int_uniform: low must be an int"
    yield lambda: int_uniform(0, 2**25, traced=True), ValueError, "2\\*\\*24"
    yield lambda: int_uniform(2**60, 2**60 + 10), ValueError, r"low .* float64 .* ints beyond 2\*\*53 .*got 115"
    yield lambda: int_uniform(-(2**60), 0), ValueError, f"low must be an int of at least -{2**53}, got -115"
    yield lambda: int_uniform(0, 10**400), ValueError, f"high must be at most {2**53}, because"
    yield lambda: log_int_uniform(2**50, 2**50 + 10), ValueError, r"low must be at most .* ints beyond 2\*\*45"
    yield lambda: log_int_uniform(1, 10**400), ValueError, r"high must be at most .* ints beyond 2\*\*45"
    yield lambda: choice([1, 2**24 + 1], traced=True), ValueError, "must be at most 16777216, because it"
    yield lambda: choice([0.5, 1e39], traced=True), ValueError, "must be at most 3.4e38, because it is a float32, got"
    yield lambda: normal(0.0, 1e38), ValueError, r"mean - 6 std must be at most 3.4e38, because it is a float32"
    yield lambda: log_int_uniform(0, 3), ValueError, "low must be an int of at least 1, got 0"
    yield lambda: choice([]), ValueError, "must not be empty"
    yield lambda: choice({}), ValueError, "must not be empty"
    yield lambda: choice("relu"), TypeError, "choice: options must be a list"
    yield lambda: choice([1, 2, 1]), ValueError, "options 0 and 2 are both 1"
    yield lambda: choice([lambda: 0, lambda: 0]), ValueError, "are both"
    yield lambda: choice([{1}, {2}]), TypeError, "hashable"
    yield lambda: choice([np.zeros(2)]), TypeError, "hashable"
    yield lambda: choice([uniform(0, 1)]), TypeError, "must not hold a distribution"
    yield lambda: choice([{"b1": 0.9}]), TypeError, "sub-spaces are given by name"
    yield lambda: choice([jo.adam]), TypeError, "the function adam, which makes a transformation; call it"
    yield lambda: choice([jo.as_optax(jo.adam(1e-3))]), TypeError, "plain Optax pair"
    yield lambda: choice([1, 2.0], traced=True), TypeError, "numbers of one type"
    yield lambda: choice([True, False], traced=True), TypeError, "numbers of one type"
    yield lambda: choice({"a": {}}, traced=True), TypeError, r"numbers of one type, all int or all float, got \('a',\)"
    yield lambda: choice({1: {}}), TypeError, "names of sub-spaces must be strings"
    yield lambda: choice({"adam": jo.adam(1e-3)}), TypeError, "whole optimizers are given as a list"


@pytest.mark.parametrize(("call", "error", "says"), list(bad_calls()))
def test_a_bad_call_says_what_is_wrong(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize(
    ("distribution", "value", "says"),
    [
        (uniform(0, 1), 1.1, "must be a number between 0 and 1, got 1.1"),
        (uniform(0, 1), "0.5", "got the string '0.5'"),
        (uniform(0, 1), True, "got True"),
        (uniform(0, 1), float("nan"), "got nan"),
        (uniform(0, 1), 1e300, "got 1e"),
        (int_uniform(1, 4), 2.5, "must be an integer between 1 and 4, got 2.5"),
        (int_uniform(1, 4), 5, "got 5"),
        (choice([32, 128]), 64, "must be one of 32, 128, got 64"),
        (choice([32, 128]), 32.0, "got 32.0"),
        (choice([0, 1]), True, "got True"),
        (choice(["a"]), [1], r"got \[1\]"),
        (choice([1, 2], traced=True), "x", "got the string 'x'"),
    ],
)
def test_what_is_outside_is_refused(distribution, value, says):
    with pytest.raises(ValueError, match=says):
        distribution.built.read(value)


def test_options_may_be_given_in_other_forms():
    assert choice([[1, 2], [3]]).built.read((3,)) == 1
    assert choice([np.int64(3), 4]).built.options == (3, 4)
    assert choice([1, 2], traced=True).built.read(2.0) == 1
    assert choice([jo.adam(1e-3), jo.sgd(0.1)]).built.read(jo.sgd(0.1)) == 1
    assert choice(["tanh", jax.numpy.tanh]).built.read(plain(jax.numpy.tanh)) == 1  # as it is saved


def test_functions_stay_the_ones_that_were_given():
    activation = choice([jax.nn.relu, jax.numpy.tanh])
    assert activation.built.show(np.array([0.0, 1.0])) == [jax.nn.relu, jax.numpy.tanh]
    assert activation.built.read(jax.numpy.tanh) == 1
    assert plain(activation.built.value(1.0)).endswith(".tanh")
    assert repr(activation) == "choice([relu, tanh])"
    assert jo.parse("choice([relu, tanh])", {**NAMES, "relu": jax.nn.relu, "tanh": jax.numpy.tanh}) == activation


def test_a_list_that_changes_later_changes_nothing():
    options = [[1, 2], [3]]
    distribution = choice(options)
    options[0].append(5)
    assert distribution == choice([[1, 2], [3]])
    within = ([1, 2], [3])
    distribution = choice(within)
    within[0].append(5)
    assert distribution.built.options == ([1, 2], [3])


def test_ends_may_have_been_rounded():
    assert uniform(0.0, 0.1).built.read(np.float32(0.1)) == np.float32(0.1)
    assert uniform(0.0, 0.1).built.read(0.1) == np.float32(0.1)
