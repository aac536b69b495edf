"""What a sweep is handed back as."""

import sys

import numpy as np
import pytest

from jaxopt_lite.report.result import SweepResult
from jaxopt_lite.sweeps.distributions import log_uniform
from jaxopt_lite.sweeps.engine import Outcome
from jaxopt_lite.sweeps.ledger import DIVERGED, FAILED, STOPPED
from jaxopt_lite.sweeps.pool import Winner

from .ledgers import SPEC, ledger

TEST = {"test.accuracy": np.array([0.9, 0.8], np.float32)}


def result(made, best=None, complete=True, notes=()):
    winner = None if best is None else Winner(best, {"w": np.zeros((2, 3))}, None, TEST)
    return SweepResult.of(Outcome(made, winner, complete), 1.5, None, list(notes))


def test_trials_are_what_the_ledger_says():
    made = ledger(5, SPEC)
    made.status[:3], made.step[:3] = (STOPPED, DIVERGED, FAILED), (10, 20, 0)
    made.errors = {2: "boom"}
    trials = result(made).trials
    assert [t.number for t in trials] == list(range(5))
    assert [t.status for t in trials] == ["stopped", "diverged", "failed", "finished", "finished"]
    assert [t.steps for t in trials] == [10, 20, 0, 30, 30] and [t.error for t in trials] == [
        None,
        None,
        "boom",
        *2 * [None],
    ]
    configs = made.space.configs(made.table)
    assert [t.config for t in trials] == configs
    assert all(type(t.config["noise"]) is np.float32 for t in trials)
    assert trials[0].score == pytest.approx(0.005) and trials[3].score == pytest.approx(3.205)
    assert trials[3].stderr == pytest.approx(0.005, rel=1e-3) and np.isnan(trials[2].score)
    np.testing.assert_allclose(trials[3].metrics["train.loss"], [-3.2, -3.21], rtol=1e-6)
    assert trials[3].metrics["train.loss"].dtype == np.float32


def test_scores_are_as_measured_in_either_mode():
    for highest in (True, False):
        made = result(ledger(3, highest=highest), best=0)
        assert made.mode == ("max" if highest else "min") and made.metric == "valid.accuracy"
        assert [t.score for t in made.trials] == pytest.approx([0.205, 1.205, 2.205])
        assert [t.number for t in made.top(2)] == ([2, 1] if highest else [0, 1])


def test_the_best_trial_has_its_parameters_and_test_scores():
    made = result(ledger(5), best=4)
    best = made.best
    assert best.number == 4 and best.config == made.trials[4].config and best.score == made.trials[4].score
    assert best.params["w"].shape == (2, 3) and best.model_state is None
    np.testing.assert_array_equal(best.metrics["test.accuracy"], TEST["test.accuracy"])
    assert "test.accuracy" not in made.trials[4].metrics
    assert best == best and best != made.trials[4]


def test_curves_steps_and_space():
    made = ledger(5)
    got = result(made)
    assert got.curves is made.curves and got.steps.tolist() == [10, 20, 30] and got.space is made.space
    assert set(got.importance) == set(made.space.names) and got.trials is got.trials


def test_an_optimum_on_the_edge_is_a_warning():
    made = ledger(0, {"x": log_uniform(1e-4, 1e-1)}, points=0)
    made.extend(made.space.table([{"x": 0.0998}]))
    rows = {"valid.accuracy": np.ones((3, 1, 2), np.float32)}
    made.record(np.arange(1), rows, np.ones((3, 1), bool))
    got = result(made, best=0, notes=["first"])
    assert got.warnings[0] == "first" and "widen the range upwards" in got.warnings[1]
    assert "note: x = 0.0998 lies at the upper edge" in got.summary()


def test_it_says_how_it_ended():
    made = ledger(5)
    assert result(made, best=4).message == "All trials were run: 5 finished."
    assert result(made, best=4).status == "finished"
    cut = result(made, complete=False)
    assert cut.status == "interrupted" and cut.best is None and "the same call resumes it" in cut.message
    made.status[:] = DIVERGED
    assert result(made).message == "All trials were run: 5 diverged. None has a score."


def test_it_prints_as_a_line_and_sums_up_as_a_table():
    got = result(ledger(5), best=4)
    assert repr(got) == "SweepResult(finished, 5 trials, best valid.accuracy 4.205 (trial 4))"
    head, first, second, *rest = got.summary(top=2).splitlines()
    assert head.split() == ["trial", "valid.accuracy", "steps", "status", "config"]
    assert first.split()[:5] == ["4", "4.205", "±", "0.005", "30"] and "learning_rate=" in first
    assert second.split()[0] == "3" and head.index("config") == first.index("learning_rate=")
    assert rest == ["best trial 4 on the test data: test.accuracy 0.85", got.message]
    assert "none" in repr(result(ledger(0, points=0))) and result(ledger(0, points=0)).summary()


def test_ten_thousand_trials():
    got = result(ledger(10_000, SPEC), best=9_999)
    assert len(got.trials) == 10_000 and got.top(1)[0].number == 9_999
    assert got.trials[1234].score == pytest.approx(1234.205)
    assert got.importance["width"] < 0.02


def test_exports_are_methods(tmp_path):
    got = result(ledger(9), best=8)
    pytest.importorskip("pandas")
    assert len(got.to_dataframe()) == 9
    pytest.importorskip("optuna")
    assert got.to_optuna(name="mine").study_name == "mine"
    pytest.importorskip("tensorboard")
    assert got.to_tensorboard(tmp_path / "board", top=1) == tmp_path / "board"


def test_a_picture_without_matplotlib_names_the_extra(monkeypatch, tmp_path):
    for name in [name for name in (*sys.modules, "matplotlib") if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'jaxopt-lite\[plots\]'"):
        result(ledger(1), best=0).plot(tmp_path / "sweep.png")
