"""Every sweep can be drawn, however little came of it."""

import struct
import sys

import numpy as np
import pytest

from jaxopt_lite.report.overview import plot_sweep
from jaxopt_lite.report.scales import broken, places, ticks
from jaxopt_lite.sweeps.distributions import (
    choice,
    int_uniform,
    log_int_uniform,
    log_uniform,
    normal,
    one_minus_log_uniform,
    uniform,
)
from jaxopt_lite.sweeps.ledger import DIVERGED, FAILED, STOPPED

from .ledgers import SPEC, ledger

pytest.importorskip("matplotlib")


def halved():
    made = ledger(24, points=2)
    made.status[6:] = STOPPED
    return made


def all_diverged():
    made = ledger(9, points=1)
    made.status[:] = DIVERGED
    return made


def half_failed():
    made = ledger(4, points=0)
    made.status[:2] = FAILED
    return made


def with_scores(scores):
    made = ledger(len(scores), seeds=1)
    made.curves[made.metric][:] = np.array(scores, np.float32)[:, None, None]
    return made


LEDGERS = {
    "one trial, one point, one seed": lambda: ledger(1, points=1, whole=1, seeds=1),
    "successive halving": halved,
    "all diverged": all_diverged,
    "none has begun, some have failed": half_failed,
    "one dimension": lambda: ledger(40, {"learning_rate": log_uniform(1e-4, 1e-1)}),
    "nothing is varied": lambda: ledger(3, {"learning_rate": 0.1}),
    "options that are not finite": lambda: ledger(9, {"clip": choice([1.0, float("inf"), float("nan")])}),
    "sub-spaces": lambda: ledger(60, SPEC),
    "many dimensions": lambda: ledger(9, {f"a_long_name_{i}.of_a_number": uniform(0.0, 1.0) for i in range(14)}),
    "zero, negative, and far off": lambda: with_scores([0.0, -1.0, 1e30, *np.linspace(0, 1, 20)]),
    "over decades": lambda: with_scores(10.0 ** -np.arange(12)),
    "not finite, yet not diverged": lambda: with_scores([np.nan, np.inf, -np.inf, 0.5, np.nan]),
    "text like a formula": lambda: ledger(9, {"a": choice(["$x_1^", "$", "\\frac"]), "$b": uniform(0.0, 1.0)}),
}


@pytest.mark.parametrize("name", LEDGERS)
def test_a_sweep_is_drawn(name, tmp_path):
    path = plot_sweep(LEDGERS[name](), tmp_path / "sweep.png", top=5)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (1950, 1495)


def test_bad_input_draws_nothing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        plot_sweep(ledger(1), tmp_path / "sweep.png", top=0)
    with pytest.raises(ValueError, match="no trials"):
        plot_sweep(ledger(0), tmp_path / "sweep.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxopt-lite\[plots\]'"):
        plot_sweep(ledger(1), tmp_path / "sweep.png")
    assert not list(tmp_path.iterdir())


DISTRIBUTIONS = [
    log_uniform(1e-4, 1e-1),
    log_uniform(0.02, 0.03),
    log_uniform(1e-30, 1e30),
    uniform(0.8, 0.99),
    uniform(-1e-3, 1e-3),
    one_minus_log_uniform(0.0, 0.9999),
    normal(5.0, 0.1),
    int_uniform(1, 6),
    int_uniform(-1000, 1000),
    log_int_uniform(5, 7),
    log_int_uniform(1, 100_000),
    choice([1]),
    choice([None, True, "a very long name", [1, 2]]),
    choice(list(range(40))),
]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
def test_written_values_lie_apart_and_where_they_are(distribution):
    axis = distribution.built
    marks = ticks(axis, np.zeros(1))
    at = np.array([where for where, _ in marks])
    assert 1 <= len(marks) <= 14 and (at >= 0).all() and (at <= 1).all()
    if axis.kind != "choice":
        assert len(marks) >= 2 and (np.diff(at) >= 0.12).all()
        written = np.array([float(what) for _, what in marks])
        np.testing.assert_allclose(places(axis, written), at, atol=1e-3)


def test_ticks_by_hand():
    assert [what for _, what in ticks(log_uniform(1e-4, 1e-1).built, np.zeros(1))] == (
        ["1e-4", "3e-4", "0.001", "0.003", "0.01", "0.03", "0.1"]
    )
    assert [what for _, what in ticks(one_minus_log_uniform(0.9, 0.9999).built, np.zeros(1))] == (
        ["0.9", "0.99", "0.999", "0.9999"]
    )
    assert ticks(choice(["adam", None]).built, np.array([0, np.nan])) == (
        [(-0.12, "none"), (0.25, "adam"), (0.75, "None")]
    )


def test_trials_with_one_option_are_spread_over_its_part_alone():
    at = places(choice(["a", "b"]).built, np.array([0.0, 0.0, 0.0, 1.0, np.nan]), spread=0.6)
    np.testing.assert_allclose(at, [0.15, 0.25, 0.35, 0.75, -0.12])


def test_long_names_are_broken_after_dots():
    assert broken("optimizer.adam.learning_rate", 20) == "optimizer.adam.\nlearning_rate"
    assert broken("learning_rate", 20) == "learning_rate"
    assert broken("a" * 30, 8) == "aaaaaaa…"
