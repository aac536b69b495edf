import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxopt_lite as jo
from jaxopt_lite.sweeps import samplers
from jaxopt_lite.sweeps.distributions import choice, int_uniform, log_int_uniform, log_uniform, normal, uniform
from jaxopt_lite.sweeps.samplers import (
    grid,
    halton,
    initial_table,
    random,
    sampler,
    sobol,
    trial_count,
)
from jaxopt_lite.sweeps.space import space
from tests.sweeps.cases import SPACE

NAMES = {name: getattr(samplers, name) for name in ("grid", "halton", "random", "sobol")}
STREAMS = [random(), sobol(), halton(), sobol(scramble=False), halton(scramble=False)]


def below_diagonal(config):
    return bool(config["x"] + config["y"] < 1)


SQUARE = space({"x": uniform(0, 1), "y": uniform(0, 1)})
TRIANGLE = space({"x": uniform(0, 1), "y": uniform(0, 1)}, where=below_diagonal)


@pytest.mark.parametrize("value", [*STREAMS, grid(), grid(points={"x": 3})], ids=repr)
def test_a_sampler_is_a_value(value):
    assert jo.parse(repr(value), NAMES) == value
    copy = pickle.loads(pickle.dumps(value))
    assert copy == value
    assert hash(copy) == hash(value)


@pytest.mark.parametrize("s", [SQUARE, TRIANGLE, SPACE], ids=["square", "triangle", "full"])
@pytest.mark.parametrize("value", STREAMS, ids=repr)
def test_a_trial_is_a_function_of_seed_and_number(value, s):
    whole = value.propose(s, 7, 0, 100)
    for cuts in ([0, 100], [0, 1, 2, 64, 65, 100], [0, 37, 100]):
        parts = [value.propose(s, 7, a, b - a) for a, b in itertools.pairwise(cuts)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(value.propose(s, 7, 0, 200)[:100], whole)  # more trials change no earlier ones
    results = {"table": whole, "scores": np.arange(100.0)}
    np.testing.assert_array_equal(value.propose(s, 7, 50, 50, **results), whole[50:])
    assert all(s.allows(config) for config in s.configs(whole))
    if value.arguments.get("scramble", True):
        assert not np.array_equal(value.propose(s, 8, 0, 100), whole, equal_nan=True)


def test_streams_fill_the_square():
    for value in STREAMS:
        points = value.ask(SQUARE, 0, 0, 256)
        counts, _, _ = np.histogram2d(*points.T, bins=4, range=[[0, 1], [0, 1]])
        assert counts.min() >= (8 if value == random() else 14)
    counts, _, _ = np.histogram2d(*sobol().ask(SQUARE, 0, 0, 256).T, bins=16, range=[[0, 1], [0, 1]])
    assert np.all(counts == 1)  # a (0, 8, 2)-net


def test_a_constraint_that_nothing_satisfies_is_an_error():
    never = space({"x": uniform(0, 1)}, where=lambda config: False)
    with pytest.raises(ValueError, match=r"allowed 0 of 1\d,\d\d\d configs drawn, of which 3 are needed"):
        random().propose(never, 0, 0, 3)
    with pytest.raises(ValueError, match="allowed 0 of"):
        sobol().propose(space({"x": 1}, where=lambda config: False), 0, 0, 1)


def test_a_space_of_constants_has_one_config():
    s = space({"a": 0.5})
    for value in STREAMS:
        assert s.configs(value.propose(s, 0, 0, 3)) == [{"a": np.float32(0.5)}] * 3
    assert trial_count(grid(), s, None) == 1


def test_a_grid_has_all_combinations():
    s = space(
        {
            "x": log_uniform(1e-3, 1e-1),
            "k": int_uniform(1, 3),
            "m": int_uniform(1, 9),
            "w": log_int_uniform(1, 100),
            "c": choice(["a", "b"]),
            "z": normal(0.0, 1.0),
        }
    )
    value = grid(3)
    assert trial_count(value, s, None) == 3 * 3 * 3 * 3 * 2 * 3
    configs = s.configs(value.propose(s, 0, 0, 486))
    np.testing.assert_allclose(sorted({c["x"] for c in configs}), [1e-3, 1e-2, 1e-1], rtol=1e-6)
    assert sorted({c["k"] for c in configs}) == [1, 2, 3]
    assert sorted({c["m"] for c in configs}) == [1, 5, 9]
    assert sorted({c["w"] for c in configs}) == [1, 7, 100]
    np.testing.assert_allclose(sorted({c["z"] for c in configs}), [-0.967422, 0, 0.967422], atol=1e-5)
    assert len({tuple(c.values()) for c in configs}) == 486
    assert [c["z"] for c in configs[:3]] == sorted({c["z"] for c in configs})  # the last dimension is the fastest


def test_a_grid_has_every_option_of_a_choice():
    s = space({"c": choice([1, 2, 3, 4]), "t": choice([0.5, 1.0, 2.0], traced=True), "x": uniform(0, 1)})
    configs = s.configs(grid(2).propose(s, 0, 0, 24))
    assert len({tuple(c.values()) for c in configs}) == 24 and {c["t"] for c in configs} == {0.5, 1.0, 2.0}


def test_a_grid_goes_through_one_sub_space_after_the_other():
    s = space({"rule": choice({"a": {"x": uniform(0, 1), "y": uniform(0, 1)}, "b": {}, "c": {"z": uniform(0, 1)}})})
    value = grid({"rule.a.x": 2, "rule.a.y": 3})
    assert trial_count(value, s, None) == 2 * 3 + 1 + 5
    configs = [c["rule"] for c in s.configs(value.propose(s, 0, 0, 12))]
    assert [c["name"] for c in configs] == ["a"] * 6 + ["b"] + ["c"] * 5
    assert [c["y"] for c in configs[:6]] == [0, 0.5, 1] * 2
    assert [c["z"] for c in configs[7:]] == [0, 0.25, 0.5, 0.75, 1]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 10))
def test_a_grid_is_the_product(sizes, start):
    s = space({str(i): uniform(0, 1) for i in range(len(sizes))})
    value = grid({str(i): size for i, size in enumerate(sizes)})
    ticks = [np.linspace(0, 1, size) if size > 1 else np.array([0.5]) for size in sizes]
    want = np.array(list(itertools.product(*ticks)))
    assert value.total(s) == len(want)
    start = min(start, len(want))
    np.testing.assert_allclose(value.ask(s, 0, start, len(want) - start), want[start:])


def test_a_grid_keeps_to_the_constraint():
    assert grid(3).total(TRIANGLE) == 3  # (0, 0), (0, ½), (½, 0)


def test_a_grid_says_how_many_trials_it_has():
    assert trial_count(grid(3), SQUARE, None) == trial_count(grid(3), SQUARE, 9) == 9
    assert trial_count(grid(3), SQUARE, None, [{"x": 0.1, "y": 0.2}]) == 10
    with pytest.raises(ValueError, match=r"grid\(points=3\) has 9 points in this space, got trials=8"):
        trial_count(grid(3), SQUARE, 8)
    with pytest.raises(ValueError, match="trials must be given: sobol"):
        trial_count(sobol(), SQUARE, None)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        trial_count(sobol(), SQUARE, 0)
    with pytest.raises(TypeError, match=r"trials must be an int of at least 1, got 2\.5"):
        trial_count(sobol(), SQUARE, 2.5)
    with pytest.raises(ValueError, match="has no points in this space"):
        trial_count(grid(1), space({"x": uniform(0, 1)}, where=lambda config: False), None)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: grid(0), ValueError, "points must be an int of at least 1"),
        (lambda: grid(10**10), ValueError, "points must be at most 1000000, got 10000000000"),
        (lambda: grid(2.0), TypeError, "points must be an int"),
        (lambda: grid({"x": True}), TypeError, r"points\['x'\] must be an int of at least 1, got True"),
        (lambda: grid({"z": 3}).total(SQUARE), ValueError, "no number 'z' in the space; there are x, y"),
        (lambda: grid(1001).total(SQUARE), ValueError, "more than 1,000,000 combinations of 2 dimensions"),
    ],
)
def test_a_bad_grid_says_what_is_wrong(call, error, says):
    with pytest.raises(error, match=says):
        call()


INITIAL = [{"x": 0.25, "y": 0.5}, {"x": np.float32(0.1), "y": 1}]


@pytest.mark.parametrize("value", [random(), sobol(), grid(4)], ids=repr)
def test_initial_configs_go_first(value):
    bare = value.propose(SQUARE, 0, 0, 10)
    whole = value.propose(SQUARE, 0, 0, 12, INITIAL)
    np.testing.assert_array_equal(whole[:2], np.float32([[0.25, 0.5], [0.1, 1.0]]))
    np.testing.assert_array_equal(whole[2:], bare)
    for cuts in ([0, 1, 12], [0, 2, 12], [0, 3, 7, 12]):
        parts = [value.propose(SQUARE, 0, a, b - a, INITIAL) for a, b in itertools.pairwise(cuts)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(
    ("initial", "error", "says"),
    [
        ({"x": 0, "y": 0}, TypeError, "initial must be a list of configs"),
        ([3], TypeError, r"initial\[0\] must be a dict"),
        ([INITIAL[0], {"x": 0.1}], ValueError, r"initial\[1\]: y is missing; it is to be a number between 0 and 1"),
        ([{"x": 0.1, "y": 2}], ValueError, r"initial\[0\]: y must be a number between 0 and 1, got 2"),
        ([{"x": 0.9, "y": 0.2}], ValueError, r"initial\[0\]: the constraint `where` of the space does not allow"),
    ],
)
def test_a_bad_initial_config_says_what_is_wrong(initial, error, says):
    with pytest.raises(error, match=says):
        initial_table(TRIANGLE, initial)


def test_a_sampler_of_ones_own_is_a_function():
    @sampler
    def corners():
        def ask(space, seed, start, count, points, scores):
            places = np.arange(len(space.dimensions))
            return (np.arange(start, start + count)[:, None] >> places & 1).astype(float)

        return ask

    np.testing.assert_array_equal(corners().propose(SQUARE, 0, 1, 3), [[1, 0], [0, 1], [1, 1]])
    assert corners().batch(SQUARE) is None

    @sampler
    def wrong():
        return lambda space, seed, start, count, points, scores: np.full((count, 2), 1.5)

    with pytest.raises(ValueError, match=r"wrong\(\) must return 3 points of the unit cube"):
        wrong().propose(SQUARE, 0, 0, 3)
