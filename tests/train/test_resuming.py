"""A run in pieces, cut by its caller or by a kill, is the whole run: patience and the best point, too."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.train import killed
from tests.train.tasks import RAMP, TRAIN, VALID, assert_same, init, loss

RULES = {"batch_size": 4, "metric": "valid.loss", "restore_best": True}
OPTIMIZER = jo.adam(0.3)
TASK = jo.Task(init, loss, TRAIN, VALID)


@pytest.mark.parametrize("seeds", [None, 2])
def test_patience_and_the_best_point_outlive_a_cut(seeds):
    whole = jo.fit(TASK, OPTIMIZER, 200, **RULES, eval_every=2, patience=5, seeds=seeds)
    assert set(np.atleast_1d(whole.status)) == {"patience"} and np.max(whole.steps) < 200
    result, state = None, None
    while result is None or "max_steps" in np.atleast_1d(result.status):
        result = jo.fit(TASK, OPTIMIZER, 4, **RULES, eval_every=2, patience=5, seeds=seeds, state=state)
        state = result.state
        assert np.max(result.steps) < 200
    if seeds is None:
        assert_same((result.params, result.state), (whole.params, whole.state))
        assert (result.status, result.message, result.metrics) == (whole.status, whole.message, whole.metrics)


def test_a_monitor_of_another_metric_is_not_resumed():
    first = jo.fit(RAMP, jo.sgd(1.0), 3, eval_every=1, patience=9, restore_best=True, metric="valid.accuracy")
    assert first.state.monitor.best_step == 3
    again = {"eval_every": 1, "patience": 9, "restore_best": True, "state": first.state}
    assert jo.fit(RAMP, None, 1, **again, metric="valid.accuracy").state.monitor.waited == 0
    assert jo.fit(RAMP, None, 1, **again, metric="valid.loss").state.monitor.best_step == 4
    assert jo.fit(RAMP, None, 1, **{**again, "state": first.state._replace(monitor=None)}).steps == 4


def test_a_run_without_rules_carries_no_monitor():
    state = jo.fit(RAMP, jo.sgd(1.0), 3, min_grad_norm=0.1).state
    assert state.monitor is None


def test_a_driver_is_given_snapshots_when_it_asks():
    events = jo.training(TASK, OPTIMIZER, jo.Plan(steps=10, batch_size=4, eval_every=2))
    assert next(events).step == 2
    assert events.send(jo.Reply(save=True)).step == 4, "the device is a point ahead"
    snapshot = events.send(None)
    assert isinstance(snapshot, jo.Snapshot)
    assert snapshot.run.state.step == 4 and [row.step for row in snapshot.rows] == [2, 4] and snapshot.taken == 4
    kept = jax.device_get(snapshot.run.state.params)
    assert next(events).step == 6
    stopped = events.send(jo.Reply(save=True, stop=True))
    assert stopped.step == 8 and isinstance(events.send(None), jo.Snapshot)
    with pytest.raises(StopIteration) as end:
        next(events)
    assert end.value.value.status == "interrupted"
    assert_same(jo.fit(TASK, OPTIMIZER, 4, 4).params, kept)


@pytest.mark.parametrize("kind", ["drawn", "stream", "seeds", "torch", "grain"])
def test_a_run_that_is_killed_and_resumed_is_the_run(tmp_path, kind):
    if kind in ("torch", "grain"):
        pytest.importorskip(kind)
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tests.train.killed", str(tmp_path), kind, "5"]
    said = subprocess.run(command, cwd=root, env=env, text=True, capture_output=True, timeout=120)
    assert said.stdout.split() == ["killed"] * 5 + ["ended"], said.stderr
    leaves, history, metrics, status, message = pickle.loads((tmp_path / "result.pickle").read_bytes())

    events = killed.training(kind)
    with pytest.raises(StopIteration) as end:
        while True:
            next(events)
    whole = end.value.value
    assert_same(leaves, killed.plain((whole.state, whole.params, whole.model_state)))
    assert_same(history, whole.history)
    assert_same(metrics, whole.metrics)
    assert (status, message) == (whole.status, whole.message)
    assert kind not in ("drawn", "seeds") or "patience" in whole.status
