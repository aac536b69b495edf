import pickle
import sys

import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.sweeps import adaptive
from jaxopt_lite.sweeps.adaptive import cma_es, tpe
from jaxopt_lite.sweeps.distributions import choice, int_uniform, log_uniform, uniform
from jaxopt_lite.sweeps.samplers import random, sobol
from jaxopt_lite.sweeps.space import space

NAMES = {name: getattr(adaptive, name) for name in adaptive.__all__}
VALUES = [tpe(), tpe(startup=4, batch=2), cma_es(), cma_es(batch=12, sigma=0.2)]


def apart(config):
    return bool(abs(config["x"]) > 0.2)


SPEC = {
    "x": uniform(-1, 1),
    "rate": log_uniform(1e-4, 1.0),
    "k": int_uniform(1, 20),
    "rule": choice({"a": {"b": uniform(0, 1)}, "c": {}}),
}
SPACE = space(SPEC)
NUMBERS = space({"x": uniform(-1, 1), "rate": log_uniform(1e-4, 1.0), "k": int_uniform(1, 20)})


def score(config):
    inner = config.get("rule", {"name": "a", "b": 0.3})
    rule = (inner["b"] - 0.3) ** 2 if inner["name"] == "a" else 0.5
    return float((config["x"] - 0.3) ** 2 + np.log10(config["rate"] / 1e-2) ** 2 + (config["k"] - 7) ** 2 / 50 + rule)


def sweep(value, s, trials, seed=0, begun=None, batch=None):
    """Rows and scores of a whole sweep, or the rest of one that has begun."""
    table, scores = begun or (np.empty((0, len(s.dimensions))), [])
    while len(table) < trials:
        count = min(batch or value.batch(s), trials - len(table))
        rows = value.propose(s, seed, len(table), count, table=table, scores=scores)
        table = np.concatenate([table, rows])
        scores = scores + [score(config) for config in s.configs(rows)]
    return table, scores


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_sampler_is_a_value(value):
    assert jo.parse(repr(value), NAMES) == value
    assert pickle.loads(pickle.dumps(value)) == value


@pytest.mark.parametrize("value", [tpe(startup=8, batch=8), cma_es(batch=8)], ids=repr)
def test_a_resumed_sweep_has_the_points_of_one_that_was_not_stopped(value):
    for package in ("optuna", "cmaes"):
        pytest.importorskip(package)
    table, scores = sweep(value, SPACE, 48)
    for stop in (8, 24, 40):
        again, _ = sweep(value, SPACE, 48, begun=(table[:stop], scores[:stop]))
        np.testing.assert_array_equal(again, table)
    assert not np.array_equal(sweep(value, SPACE, 16, seed=1)[0], table[:16], equal_nan=True)
    assert len(np.unique(table, axis=0)) == 48
    SPACE.table(SPACE.configs(table))  # all are inside


@pytest.mark.parametrize(("value", "s"), [(tpe(batch=8), SPACE), (cma_es(batch=8), NUMBERS)], ids=["tpe", "cma_es"])
def test_results_are_learned_from(value, s):
    for package in ("optuna", "cmaes"):
        pytest.importorskip(package)
    seeds = range(4)
    late = [np.mean(sweep(value, s, 96, seed)[1][-32:]) for seed in seeds]
    chance = [np.mean([score(c) for c in s.configs(random().propose(s, seed, 0, 96))]) for seed in seeds]
    assert np.mean(late) < 0.6 * np.mean(chance)


def test_the_first_trials_are_sobol_points_and_so_are_all_after_failures_alone():
    pytest.importorskip("optuna")
    value, points = tpe(startup=10, batch=8), sobol().propose(SPACE, 0, 0, 32)
    table, _ = sweep(value, SPACE, 16)
    np.testing.assert_array_equal(table[:10], points[:10])
    assert not np.array_equal(table[10:], points[10:16], equal_nan=True)
    failed = value.propose(SPACE, 0, 16, 8, table=points[:16], scores=[np.nan] * 16)
    np.testing.assert_array_equal(failed, points[16:24])


@pytest.mark.parametrize("value", [tpe(), cma_es()], ids=repr)
def test_each_batch_has_random_numbers_of_its_own(value):
    for package in ("optuna", "cmaes"):
        pytest.importorskip(package)
    past = {"table": random().propose(NUMBERS, 0, 0, 40)}
    past["scores"] = [score(config) for config in NUMBERS.configs(past["table"])]
    one = value.propose(NUMBERS, 0, 40, 4, **past)
    np.testing.assert_array_equal(value.propose(NUMBERS, 0, 40, 4, **past), one)
    assert not np.array_equal(value.propose(NUMBERS, 0, 44, 4, **past), one)
    assert not np.array_equal(value.propose(NUMBERS, 1, 40, 4, **past), one)


def test_trials_of_one_batch_keep_their_distance():
    pytest.importorskip("optuna")
    s = space({"x": uniform(0, 1), "y": uniform(0, 1)})
    table, nearest = random().propose(s, 0, 0, 40), []
    for seed in range(3):
        rows = tpe().propose(s, seed, 40, 16, table=table, scores=((table - 0.3) ** 2).sum(axis=1))
        distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
        nearest += np.sort(distances, axis=1)[:, 1].tolist()
    assert np.mean(nearest) > 0.05  # it is 0.10, and 0.02 for draws that do not know of each other


def test_failures_are_avoided():
    pytest.importorskip("optuna")
    table = random().propose(NUMBERS, 0, 0, 64)
    scores = np.where(table[:, 0] > 0, np.nan, (table[:, 0] + 0.5) ** 2)
    rows = tpe().propose(NUMBERS, 0, 64, 32, table=table, scores=scores)
    assert np.mean(rows[:, 0] > 0) < 0.1


@pytest.mark.parametrize("value", [tpe(startup=4, batch=4), cma_es(batch=4)], ids=repr)
def test_the_constraint_is_kept(value):
    for package in ("optuna", "cmaes"):
        pytest.importorskip(package)
    s = space(SPEC, where=apart)
    assert all(apart(config) for config in s.configs(sweep(value, s, 16)[0]))


def test_the_sampler_that_is_gone_names_its_successors():
    with pytest.raises(AttributeError, match=r"gp was removed in 0.2; use tpe\(\) or cma_es\(\)"):
        jo.gp()
    with pytest.raises(ImportError):
        from jaxopt_lite import gp  # noqa: F401
    with pytest.raises(AttributeError, match="module 'jaxopt_lite' has no attribute 'gpt'"):
        jo.gpt()


def test_generations_have_the_literatures_size():
    assert cma_es().batch(NUMBERS) == 4 + int(3 * np.log(3))
    assert cma_es(batch=32).batch(NUMBERS) == 32


def test_optuna_prints_nothing(capfd):
    pytest.importorskip("optuna")
    sweep(tpe(startup=2, batch=2), SPACE, 6)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("value", "package", "says"),
    [
        (tpe(), "optuna", r"tpe\(\) needs the package 'optuna': pip install 'jaxopt-lite\[optuna\]'"),
        (cma_es(), "cmaes", r"cma_es\(\) needs the package 'cmaes': pip install 'jaxopt-lite\[optuna\]'"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, value, package, says):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=says):
        value.propose(SPACE, 0, 0, 4)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: tpe(batch=0), ValueError, "tpe: batch must be an int of at least 1, got 0"),
        (lambda: tpe(startup=1.5), TypeError, "tpe: startup must be an int of at least 1, got 1.5"),
        (lambda: cma_es(batch=3), ValueError, "cma_es: batch must be an int of at least 4"),
        (lambda: cma_es(batch=10**30), ValueError, "batch must be at most 1000000, got 1000"),
        (lambda: cma_es(sigma=0), ValueError, "cma_es: sigma must be above 0"),
    ],
)
def test_a_bad_call_says_what_is_wrong(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_cma_es_needs_numbers():
    pytest.importorskip("cmaes")
    with pytest.raises(ValueError, match="the space has no numbers outside sub-spaces; use tpe"):
        cma_es().propose(space({"c": choice([1, 2])}), 0, 0, 4)


def test_a_space_of_constants_alone_has_empty_points():
    constants = space({"learning_rate": 0.1})
    assert tpe(2, 2).ask(constants, 0, 4, 2, np.empty((4, 0)), np.ones(4)).shape == (2, 0)
