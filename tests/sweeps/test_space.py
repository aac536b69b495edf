import enum
import json
import pickle
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxopt_lite as jo
from jaxopt_lite.sweeps.distributions import choice, int_uniform, log_int_uniform, uniform
from jaxopt_lite.sweeps.space import space
from tests.sweeps.cases import NAMES, SPACE, SPEC, narrow, sample


def test_dimensions_have_flat_names_and_paths():
    assert SPACE.names == (
        *("learning_rate", "hidden", "model.depth", "model.width", "rule.name", "rule.adam.b1", "rule.sgd.momentum"),
        *("rule.sgd.cool.name", "rule.sgd.cool.step.factor", "optimizer", "shift"),
    )
    paths = {d.name: d.path for d in SPACE.dimensions}
    assert paths["rule.name"] == ("rule", "name")
    assert paths["rule.adam.b1"] == ("rule", "b1")
    assert paths["rule.sgd.cool.step.factor"] == ("rule", "cool", "factor")
    assert SPACE.static == ("hidden", "model.depth", "rule.name", "rule.sgd.cool.name", "optimizer")
    assert set(SPACE.traced) == set(SPACE.names) - set(SPACE.static)
    axes = {d.name: d.axis for d in SPACE.dimensions}
    assert (axes["learning_rate"].kind, axes["learning_rate"].low, axes["learning_rate"].log) == ("float", 1e-4, True)
    assert (axes["model.depth"].kind, axes["model.depth"].high) == ("int", 4)
    assert (axes["rule.name"].kind, axes["rule.name"].options) == ("choice", ("adam", "sgd"))


def test_configs_have_the_shape_of_the_spec():
    first, second = SPACE.configs(SPACE.from_unit(np.array([[0.0] * 11, [0.99] * 11])))
    assert first == {
        "learning_rate": np.float32(1e-4),
        "hidden": 32,
        "model": {"depth": 1, "width": np.float32(16), "activation": "relu"},
        "rule": {"name": "adam", "b1": np.float32(0.8), "nesterov": True},
        "optimizer": jo.adam(1e-3),
        "shift": np.float32(-6),
        "dropout": np.float32(0.1),
        "layers": [32, 32],
        "nothing": None,
    }
    assert second["rule"] == {
        "name": "sgd",
        "momentum": np.float32(0.891),
        "cool": {"name": "none"},
    }
    assert type(first["learning_rate"]) is type(first["dropout"]) is type(first["model"]["width"]) is np.float32
    assert type(first["hidden"]) is type(first["model"]["depth"]) is int


def test_tables_and_configs_go_there_and_back():
    table = sample(SPACE, 300)
    configs = SPACE.configs(table)
    np.testing.assert_array_equal(SPACE.table(configs), table)
    np.testing.assert_array_equal(np.isnan(table), ~SPACE.active(table))
    again = SPACE.from_unit(SPACE.to_unit(table))
    np.testing.assert_allclose(again, table, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(SPACE.clip(table), table)
    assert (SPACE.to_unit(table)[np.isnan(table)] == 0.5).all()
    for row in table[:50]:
        encoded = json.loads(json.dumps(SPACE.encode(row)))
        np.testing.assert_array_equal(SPACE.decode(encoded), row)


@st.composite
def specs(draw, depth=2):
    number = st.floats(-100, 100, width=32)
    ranges = st.tuples(number, st.floats(1, 100, width=32)).map(lambda t: uniform(t[0], t[0] + t[1]))
    ints = st.tuples(st.integers(1, 50), st.integers(1, 50), st.booleans()).map(
        lambda t: log_int_uniform(t[0], t[0] + t[1], traced=t[2])
    )
    options = st.lists(st.one_of(st.integers(), st.text(), st.booleans()), min_size=1, unique_by=repr).map(choice)
    leaves = [ranges, ints, options, st.text(), st.integers(), number]
    if depth:
        inner = specs(depth=depth - 1)
        leaves += [inner, st.dictionaries(st.sampled_from("pqr"), inner, min_size=1).map(choice)]
    return draw(st.dictionaries(st.sampled_from("abcde"), st.one_of(leaves), min_size=1, max_size=4))


@given(spec=specs(), seed=st.integers(0, 100))
def test_any_space_goes_there_and_back(spec, seed):
    s = space(spec)
    table = sample(s, 5, seed)
    configs = s.configs(table)
    np.testing.assert_array_equal(s.table(configs), table)
    for row in table:
        np.testing.assert_array_equal(s.decode(json.loads(json.dumps(s.encode(row)))), row)
    assert pickle.loads(pickle.dumps(s)) == s
    assert jo.parse(repr(s), NAMES) == s


def test_a_space_is_a_value():
    constrained = space({"hidden": int_uniform(1, 99), "depth": int_uniform(1, 9)}, where=narrow)
    for s in (SPACE, constrained):
        assert jo.parse(jo.spell(s, defaults=True), {**NAMES, "narrow": narrow}) == s
        assert pickle.loads(pickle.dumps(s)) == s
    assert space(SPEC) == SPACE
    assert space(SPACE) == SPACE
    assert space({"a": 1}) != space({"a": True}) != space({"a": 1.0})
    assert space({"a": uniform(0, 1)}) != space({"a": uniform(0, 2)})
    assert space(space({"a": uniform(0, 1)})).names == ("a",)
    assert space({"b": space({"a": uniform(0, 1)})}).names == ("b.a",)
    assert constrained.summary() == {
        "hidden": "int_uniform(1, 99)",
        "depth": "int_uniform(1, 9)",
        "where": f"{narrow.__module__}.narrow",
    }


def test_ten_thousand_points_take_well_under_a_second():
    points = np.random.default_rng(0).random((10_000, len(SPACE.dimensions)))
    begun = time.process_time()
    configs = SPACE.configs(SPACE.from_unit(points))
    assert time.process_time() - begun < 1.0  # it is about 0.05 s
    assert len(configs) == 10_000


def test_a_constraint_is_never_dropped():
    constrained = space({"hidden": int_uniform(1, 99), "depth": int_uniform(1, 9)}, where=narrow)
    assert space(constrained).where is narrow
    with pytest.raises(ValueError, match="write one function that tests both"):
        space(constrained, where=lambda config: True)


def test_columns_are_as_one_prints_them():
    columns = SPACE.columns(SPACE.from_unit(np.array([[0.0] * 11, [0.99] * 11])))
    assert columns["learning_rate"].dtype == np.float32
    assert columns["model.depth"].dtype == np.int64
    assert columns["rule.name"].tolist() == ["adam", "sgd"]
    assert columns["optimizer"][1].startswith("sgd(0.1")
    np.testing.assert_array_equal(columns["rule.adam.b1"], np.float32([0.8, np.nan]))
    assert columns["rule.sgd.cool.name"].tolist() == [None, "none"]
    inner = space({"r": choice({"a": {"k": int_uniform(1, 3)}, "b": {}})})
    assert inner.columns(inner.from_unit(np.array([[0.0, 0.0], [0.9, 0.0]])))["r.a.k"].tolist() == [1, None]


def test_numbers_are_clipped_into_their_ranges():
    s = space({"x": uniform(0.0, 0.1), "k": int_uniform(1, 4), "c": choice({"a": {"y": uniform(0, 1)}, "b": {}})})
    table = s.clip(np.array([[0.2, 7.3, 0.0, -1.0], [-1.0, 2.4, 1.0, np.nan]]))
    np.testing.assert_array_equal(table, [[np.float32(0.1), 4, 0, 0], [0, 2, 1, np.nan]])
    assert s.configs(table)[1] == {"x": np.float32(0), "k": 2, "c": {"name": "b"}}


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ({}, ValueError, "space: spec is empty"),
        (uniform(0, 1), TypeError, "spec must be a dict of distributions and constants"),
        ([uniform(0, 1)], TypeError, "spec must be a dict"),
        ({1: uniform(0, 1)}, TypeError, "keys must be strings, got 1 of type int in spec"),
        ({"a": {2: 3}}, TypeError, "keys must be strings, got 2 of type int in a"),
        ({"a": {"b": {1, 2}}}, TypeError, "the constant 'a.b' must be hashable"),
        ({"a": 1e39}, ValueError, "the constant 'a' must be at most 3.4e38, because it is a float32"),
        ({"a": np.zeros(3)}, TypeError, "the constant 'a' must be hashable"),
        ({"a": [uniform(0, 1)]}, TypeError, "the constant 'a' must not hold a distribution"),
        ({"a": uniform}, TypeError, "the constant 'a' is the function uniform, which makes a distribution; call it"),
        ({"a.b": 1, "a": {"b": 2}}, ValueError, "two values have the flat name 'a.b'"),
        ({"r": choice({"a": {"name": 1}})}, ValueError, "'name' is the key of the choice itself"),
        ({"r": choice({"a": {3: 1}})}, TypeError, "keys must be strings"),
        ({"r": space({"a": 1}, where=narrow)}, ValueError, "a constraint belongs to the outermost space"),
    ],
)
def test_a_bad_space_says_what_is_wrong(spec, error, says):
    with pytest.raises(error, match=says):
        space(spec)


def test_where_must_be_a_function_that_says_yes_or_no():
    with pytest.raises(TypeError, match="where must be a function of a config"):
        space({"a": 1}, where=True)
    with pytest.raises(TypeError, match="what where returns must be True or False, got 3 of type int"):
        space({"a": 1}, where=lambda config: 3).allows({"a": 1})
    with pytest.raises(KeyError) as raised:
        space({"a": 1}, where=lambda config: config["b"] > 0).allows({"a": 1})
    assert "called with {'a': 1}" in raised.value.__notes__[0]
    assert space({"a": 1}, where=lambda config: np.bool_(True)).allows({"a": 1}) is True
    assert space({"a": 1}).allows({"a": 1}) is True


GOOD = SPACE.configs(sample(SPACE, 1))[0]


def change(**changes):
    return {**GOOD, **changes}


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        (3, TypeError, "initial must be a dict, got 3"),
        (change(learning_rat=1), ValueError, "initial: there is no 'learning_rat' in the space; did you mean learning"),
        ({k: v for k, v in GOOD.items() if k != "hidden"}, ValueError, "hidden is missing; it is to be one of 32, 128"),
        (
            change(learning_rate=0.5),
            ValueError,
            "initial: learning_rate must be a number between 0.0001 and 0.1, got",
        ),
        (change(hidden=64), ValueError, "hidden must be one of 32, 128, got 64"),
        (change(model={"depth": 9, "width": 16}), ValueError, "model.depth must be an integer between 1 and 4"),
        (change(model=3), TypeError, "initial: model must be a dict"),
        (change(rule="adam"), ValueError, "rule must be a dict with the 'name' of a sub-space"),
        (change(rule={"name": "rms"}), ValueError, "rule.name must be one of 'adam', 'sgd'"),
        (change(rule={"name": "adam"}), ValueError, "rule.adam.b1 is missing"),
        (change(rule={"name": "adam", "b1": 0.9, "momentum": 0.9}), ValueError, "rule.adam: there is no 'momentum'"),
        (change(dropout=0.2), ValueError, "dropout is the constant 0.1 of the space, got 0.2"),
    ],
)
def test_a_config_that_does_not_fit_says_what_is_wrong(config, error, says):
    with pytest.raises(error, match=says):
        SPACE.table([config], "initial")


def test_constants_may_be_left_out_and_numbers_come_in_any_form():
    config = {k: v for k, v in GOOD.items() if k not in ("dropout", "layers", "nothing")}
    config |= {"learning_rate": 0.01, "hidden": np.int64(32), "model": {"depth": np.float32(2), "width": 20}}
    again = SPACE.configs(SPACE.table([config]))[0]
    assert again["learning_rate"] == np.float32(0.01)
    assert again["dropout"] == np.float32(0.1)
    assert again["model"] == {"depth": 2, "width": np.float32(20), "activation": "relu"}
    assert type(again["model"]["depth"]) is int
    assert SPACE.table([change(dropout=0.1, layers=(32, 32))]).shape == (1, 11)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"colour": 1}, "there is no 'colour' in the space"),
        ({"learning_rate": 1.0}, "learning_rate must be a number between"),
        ({"hidden": 31}, "hidden must be one of 32, 128"),
        ({"rule.name": "adam", "rule.adam.b1": 0.9, "rule.sgd.momentum": 0.5}, "rule.sgd.momentum is given, but"),
    ],
)
def test_a_saved_config_of_another_space_is_refused(change, says):
    encoded = SPACE.encode(SPACE.from_unit(np.zeros((1, 11)))[0])
    with pytest.raises(ValueError, match=f"saved config: {says}"):
        SPACE.decode({**encoded, **change})
    del encoded["shift"]
    with pytest.raises(ValueError, match="shift is missing"):
        SPACE.decode(encoded)


class Kind(enum.StrEnum):
    RELU = "relu"


INF, NAN = float("inf"), float("nan")
NOT_FINITE = {
    "static": [0.5, INF, -INF, NAN, "inf", "nan", None],
    "lists": [[1.0, INF], [1.0, NAN], (1.0, [-INF])],
    "optimizers": [jo.clip_by_global_norm(INF), jo.clip_by_global_norm(1.0)],
    "an enum": [Kind.RELU, "tanh", np.float64(0.5)],
    "traced": [0.5, INF, NAN],
    "complex": [1j, complex(NAN, INF), complex(INF, 0)],
}


@pytest.mark.parametrize("which", NOT_FINITE)
def test_options_that_are_not_finite_are_saved_and_found_again(which):
    spec = {"a": choice({"one": {"x": choice(NOT_FINITE[which], traced=which == "traced")}, "none": {}}), "b": NAN}
    s = space(spec)
    for i in range(len(NOT_FINITE[which])):
        row = s.from_unit(np.array([[0.2, (i + 0.5) / len(NOT_FINITE[which])]]))[0]
        saved = json.dumps(s.encode(row), allow_nan=False)
        np.testing.assert_array_equal(s.decode(json.loads(saved)), row)
        config = s.configs(row[None])[0]
        np.testing.assert_array_equal(s.table([config])[0], row)
        fresh = {"a": {"name": "one", "x": NOT_FINITE[which][i]}, "b": float("nan")}  # another NaN is a NaN, too
        if config["a"]["x"] != config["a"]["x"]:
            fresh["a"]["x"] = complex("nan+infj") if which == "complex" else float("nan")
        np.testing.assert_array_equal(s.table([fresh])[0], row)


def test_a_space_with_nan_equals_itself():
    make = lambda: space({"a": choice([0.5, float("nan"), float("inf")]), "b": float("nan")})
    assert make() == make() == jo.parse(repr(make())) and hash(make()) == hash(make())
    assert make() != space({"a": choice([0.5, float("inf"), float("nan")]), "b": float("nan")})
    for same in ([float("nan"), float("nan")], [INF, "Infinity"]):
        with pytest.raises(ValueError, match="options 0 and 1 are both"):
            choice(same)


def test_empty_dicts_stand_in_every_config_and_have_no_name():
    s = space({"a": {}, "r": choice({"x": {"b": {}, "c": 1}, "y": {}})})
    assert s.configs(np.array([[0.0], [1.0]])) == [
        {"a": {}, "r": {"name": "x", "b": {}, "c": 1}},
        {"a": {}, "r": {"name": "y"}},
    ]
    assert s.summary() == {"r.name": "one of 'x', 'y'", "r.x.c": "1"}
    np.testing.assert_array_equal(s.table(s.configs(np.array([[0.0], [1.0]]))), [[0.0], [1.0]])


def test_a_space_of_constants_has_no_dimensions():
    s = space({"a": 1, "b": {"c": 0.5}})
    assert s.names == ()
    assert s.configs(s.from_unit(np.empty((2, 0)))) == [{"a": 1, "b": {"c": np.float32(0.5)}}] * 2
    assert s.table(s.configs(np.empty((2, 0)))).shape == (2, 0)
