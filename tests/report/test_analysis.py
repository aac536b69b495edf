"""Statistics of a ledger: against values by hand, and by laws."""

import numpy as np
import pytest

from jaxopt_lite.optimizers import sgd
from jaxopt_lite.report import analysis
from jaxopt_lite.sweeps.distributions import (
    choice,
    int_uniform,
    log_int_uniform,
    log_uniform,
    normal,
    one_minus_log_uniform,
    uniform,
)
from jaxopt_lite.sweeps.ledger import DIVERGED, FAILED, STOPPED, Ledger
from jaxopt_lite.sweeps.space import space

from .ledgers import SPEC, ledger


def drawn(spec, effect, n=200, noise=0.0, highest=True):
    """A ledger of random trials of one point, whose score is effect(row of the unit cube)."""
    rng = np.random.default_rng(0)
    made = Ledger(space=space(spec), metric="valid.score", highest=highest, steps=1, eval_every=1, seeds=1, seed=0)
    made.extend(made.space.from_unit(rng.random((n, len(made.space.dimensions)))))
    u = made.space.to_unit(made.table)
    scores = np.array([effect(row) for row in u]) + noise * rng.normal(size=n)
    made.record(np.arange(n), {"valid.score": scores[None, :, None].astype(np.float32)}, np.ones((1, n), bool))
    return made


TWO = {"x": uniform(0.0, 1.0), "y": log_uniform(1e-3, 1.0)}


def test_last_values_are_those_of_each_trials_last_point():
    made = ledger(3, points=2)
    made.step[:] = [20, 10, 0]
    last = analysis.last_values(made)["valid.accuracy"]
    np.testing.assert_allclose(last, [[0.1, 0.11], [1.0, 1.01], [np.nan, np.nan]], rtol=1e-6)
    mean, stderr = analysis.last_measured(made)
    np.testing.assert_allclose(mean, [0.105, 1.005, np.nan], rtol=1e-6)
    np.testing.assert_allclose(stderr, [0.005, 0.005, np.nan], rtol=1e-4)


def test_the_standard_error_is_of_the_mean():
    values = np.random.default_rng(0).normal(size=(4, 9))
    mean, stderr = analysis.over_seeds(values)
    np.testing.assert_allclose(mean, values.mean(axis=1))
    np.testing.assert_allclose(stderr, np.sqrt(values.var(axis=1) * 9 / 8 / 9))
    assert np.isnan(analysis.over_seeds(values[:, :1])[1]).all()


def test_nothing_measured_is_nan():
    made = ledger(2, points=0)
    assert np.isnan(analysis.last_measured(made)).all() and not len(analysis.ranked(made))


def test_ranked_has_those_with_a_score_alone():
    made = ledger(6)
    made.status[5], made.status[4], made.status[3] = DIVERGED, FAILED, STOPPED
    made.step[3] = 10
    made.curves["valid.accuracy"][2] = np.nan
    assert analysis.ranked(made).tolist() == [1, 0, 3]


def test_what_decides_alone_explains_nearly_all():
    shares = analysis.importance(drawn(TWO, lambda u: u[1] ** 3))
    assert list(shares) == ["y", "x"]
    assert shares["y"] > 0.95 and shares["x"] < 0.05


def test_an_optimum_in_the_middle_is_seen():
    assert analysis.importance(drawn(TWO, lambda u: -abs(u[0] - 0.5)))["x"] > 0.9
    assert analysis.importance(drawn(TWO, lambda u: -abs(u[0] - 0.5), n=16))["x"] > 0.3


def test_noise_explains_nothing_on_average():
    made = drawn({f"x{i}": uniform(0.0, 1.0) for i in range(40)}, lambda u: 0.0, noise=1.0)
    shares = np.array(list(analysis.importance(made).values()))
    assert shares.mean() < 0.03 and (shares >= 0).all()


@pytest.mark.parametrize("highest", [True, False])
def test_importance_sees_ranks_alone(highest):
    made = drawn(TWO, lambda u: u[0] + 0.3 * u[1], highest=highest)
    squeezed = drawn(TWO, lambda u: 1000 * np.tanh(u[0] + 0.3 * u[1]), highest=highest)
    assert analysis.importance(made) == analysis.importance(squeezed)


def test_diverged_and_stopped_trials_tell_too():
    made = drawn(TWO, lambda u: 0.0)
    made.status[made.space.to_unit(made.table)[:, 0] > 0.5] = DIVERGED
    assert analysis.importance(made)["x"] > 0.9
    made = drawn(TWO, lambda u: u[1])
    made.steps, made.step = 2, np.where(made.space.to_unit(made.table)[:, 0] > 0.5, 2, 1).astype(np.int32)
    made.curves = {"valid.score": np.repeat(made.curves["valid.score"], 2, axis=2)}
    shares = analysis.importance(made)
    assert shares["x"] > 0.6 and shares["y"] > 0.1


def test_a_sub_spaces_number_explains_its_share_of_all():
    spec = {"kind": choice({"a": {"x": uniform(0.0, 1.0)}, "b": {}}), "y": uniform(0.0, 1.0)}
    shares = analysis.importance(drawn(spec, lambda u: u[1] if u[0] < 0.5 else 2.0))
    assert shares["kind.name"] > 0.6 and 0.1 < shares["kind.a.x"] < 0.4 and shares["y"] < 0.05


def test_importance_is_unknown_for_few_or_equal_trials():
    assert np.isnan(list(analysis.importance(drawn(TWO, lambda u: u[0], n=7)).values())).all()
    assert np.isnan(list(analysis.importance(drawn(TWO, lambda u: 1.0)).values())).all()
    assert np.isnan(list(analysis.importance(ledger(0)).values())).all()


def test_bins_hold_equal_numbers_together():
    column = np.array([1, 1, 1, 2, 3, 4, 5, 6, 7, 8], float)
    groups = analysis.bins(column)
    assert groups.max() == 2 and len(set(groups[:3])) == 1
    assert analysis.bins(np.array([2.0, 0.0, 2.0, 1.0])).tolist() == [2, 0, 2, 1]


def test_few_options_are_groups_of_their_own():
    column = np.repeat([0.0, 1.0, 2.0], 40)
    assert analysis.bins(column).tolist() == column.astype(int).tolist()


EDGES = {
    "upper": (log_uniform(1e-4, 1e-1), 0.0998, "x = 0.0998 lies at the upper edge of log_uniform(0.0001, 0.1): "),
    "lower": (log_uniform(1e-4, 1e-1), 1.05e-4, "x = 0.000105 lies at the lower edge of log_uniform(0.0001, 0.1): "),
    "inside": (log_uniform(1e-4, 1e-1), 0.05, None),
    "uniform": (uniform(1.0, 2.0), 1.985, "upper edge of uniform(1.0, 2.0): widen the range upwards"),
    "a rate of one": (log_uniform(1e-3, 1.0), 0.99, "upper edge"),
    "zero is an end": (uniform(0.0, 0.1), 0.0, None),
    "a fraction ends at one": (uniform(0.0, 1.0), 0.999, None),
    "a decay": (one_minus_log_uniform(0.0, 0.99), 0.9899, "upper edge"),
    "an int": (int_uniform(2, 6), 6, "x = 6 lies at the upper edge of int_uniform(2, 6): widen the range upwards"),
    "a large int": (int_uniform(10**9, 10**9 + 10), 10**9 + 10, "x = 1000000010 lies at the upper edge"),
    "an int, nearly": (log_int_uniform(16, 1024), 1023, None),
    "an int begins at one": (int_uniform(1, 6), 1, None),
    "no ends": (normal(0.0, 1.0), 5.9, None),
    "an option": (choice([1, 2]), 2, None),
}


@pytest.mark.parametrize("name", EDGES)
def test_an_optimum_on_the_edge_is_said(name):
    distribution, value, message = EDGES[name]
    made = ledger(0, {"x": distribution}, points=0)
    made.extend(made.space.table([{"x": value}]))
    sentences = analysis.edges(made, 0)
    assert sentences == [] if message is None else (len(sentences) == 1 and message in sentences[0]), sentences


def test_edges_pass_over_what_plays_no_part():
    made = ledger(40, SPEC)
    for trial in range(40):
        names = {text.split(" = ")[0] for text in analysis.edges(made, trial)}
        assert names <= set(analysis.settings(made, trial))


def test_columns_hold_everything():
    made = ledger(5, SPEC)
    table = analysis.columns(made)
    assert list(table)[:5] == ["number", "status", "steps", "score", "stderr"]
    assert list(table)[5:-2] == list(made.space.names)
    assert list(table)[-2:] == ["valid.accuracy", "train.loss"]
    assert all(len(column) == 5 for column in table.values())
    assert table["status"].tolist() == ["finished"] * 5 and table["steps"].tolist() == [30] * 5
    np.testing.assert_array_equal(table["score"], table["valid.accuracy"])


def test_a_hyperparameter_never_hides_a_column():
    made = ledger(2, {"steps": uniform(0.0, 1.0), "score": uniform(0.0, 1.0), "rate": uniform(0.0, 1.0)})
    table = analysis.columns(made)
    assert {"steps", "config.steps", "score", "config.score", "rate"} <= set(table)
    assert table["steps"].tolist() == [30, 30]


def test_columns_of_no_trials_are_empty():
    assert all(len(column) == 0 for column in analysis.columns(ledger(0, points=0)).values())


def test_labels_are_short():
    shown = {0.0: "0", 0.1: "0.1", 1e-4: "1e-4", 1.23456e-5: "1.235e-5", 123456.0: "1.235e5", 12: "12", None: "None"}
    assert {value: analysis.label(value) for value in shown} == shown
    assert analysis.label(np.float32(0.1)) == "0.1" and analysis.label([8, 8]) == "[8, 8]"
    assert analysis.label(float("nan")) == "nan" and analysis.label("a b") == "a b"


def test_settings_show_an_optimizer_as_it_was_written():
    made = ledger(0, {"rule": choice([sgd(0.1), 3, "plain"])}, points=0)
    made.extend(made.space.table([{"rule": sgd(0.1)}, {"rule": 3}, {"rule": "plain"}]))
    assert [analysis.settings(made, trial)["rule"] for trial in range(3)] == ["sgd(0.1)", "3", "plain"]
