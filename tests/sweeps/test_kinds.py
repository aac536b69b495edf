"""Sweeps over tasks of every kind: each trial trains as `fit` trains its config, and resumes bit for bit."""

import math

import jax
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.sweeps.configs import split
from jaxopt_lite.sweeps.engine import Advanced, Reply
from jaxopt_lite.sweeps.pool import Runner
from jaxopt_lite.sweeps.program import Group, SweepPlan
from tests.sweeps import small
from tests.train.tasks import ON_POLICY, STATEFUL, TEST, TRAIN, VALID, init, loss, running_mean

STEPS, EVERY, TRIALS = 12, 3, 3
SPACE = {"learning_rate": jo.log_uniform(1e-2, 1e-1)}
PLAIN = jo.Task(init, loss, TRAIN, VALID)
WITH_STATE = jo.Task(STATEFUL.init, running_mean, TRAIN, VALID, TEST, stateful=True)
UNSEEN = jo.Task(init, loss, TRAIN, None, TEST)

# The task, the plan, the number of seeds, and the names of the curves.
KINDS = {
    "stateful": (WITH_STATE, {}, 2, ["train.first", "train.loss", "valid.first", "valid.loss"]),
    "bfloat16": (
        WITH_STATE,
        {"compute_dtype": "bfloat16"},
        1,
        ["train.first", "train.loss", "valid.first", "valid.loss"],
    ),
    "on-policy": (ON_POLICY, {}, 2, ["train.loss"]),
    "on-policy, independent": (ON_POLICY, {"independent": True}, 1, ["train.loss"]),
    "all examples": (PLAIN, {"batch_size": None}, 2, ["train.loss", "valid.loss"]),
    "no valid data": (UNSEEN, {}, 1, ["train.loss"]),
}


def optimizer(config):
    return jo.sgd(config["learning_rate"], momentum=0.5)


def engine(task, plan, seeds):
    lengths = {"steps": STEPS, "eval_every": EVERY, "batch_size": 4, "seeds": seeds, **plan}
    return small.engine(trial=lambda config: (task, optimizer(config)), trials=TRIALS, spec=SPACE, width=2, **lengths)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    """A kind of task, and its sweep, undisturbed."""
    task, plan, seeds, names = KINDS[request.param]
    return task, plan, seeds, names, small.drive(engine(task, plan, seeds))[0]


def test_each_trial_trains_as_fit_does(kind):
    task, plan, seeds, names, whole = kind
    ledger = whole.ledger
    assert sorted(ledger.curves) == names and ledger.metric == ("valid.loss" if "valid.loss" in names else "train.loss")
    if plan.get("independent"):
        assert len({curve.tobytes() for curve in ledger.curves["train.loss"]}) == TRIALS
        return  # keys go by the trials' numbers, which `fit` knows nothing of
    given = {"batch_size": 4, "eval_every": EVERY, **plan}
    # A rounding to bfloat16 may differ between two programs, by one part in 2⁸.
    rtol = 1e-5 if "compute_dtype" not in plan else 2**-7
    for number, config in enumerate(ledger.space.configs(ledger.table)):
        fit = jo.fit(task, optimizer(config), STEPS, seeds=seeds, **given)
        for name in names:
            np.testing.assert_allclose(ledger.curves[name][number], fit.history[name], rtol=rtol, err_msg=name)
        if number == whole.best.number:
            found, wanted = jax.tree.leaves(whole.best.params), jax.tree.leaves(fit.params)
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
            tests = {name: value for name, value in fit.metrics.items() if name.startswith("test.")}
            assert whole.best.test.keys() == tests.keys()
            for name, value in tests.items():
                np.testing.assert_allclose(whole.best.test[name], value, rtol=max(rtol, 1e-4))


def test_a_sweep_resumed_in_its_middle_is_the_sweep(kind):
    task, plan, seeds, _, whole = kind
    for calls in (1, 2):  # that have ended when it is asked to stop; it then waits for those under way
        seen = []

        def stop(event, i, calls=calls, seen=seen):
            seen += [event] if isinstance(event, Advanced) else []
            return Reply(stop=len(seen) >= calls, points=1)

        stopped, _, saved = small.drive(engine(task, plan, seeds), stop)
        assert not stopped.complete and 0 < stopped.ledger.step.sum() < TRIALS * STEPS
        again = engine(task, plan, seeds)
        again.groups.restore(saved)
        small.same(small.drive(again)[0], whole)


def test_trial_is_called_once_a_trace():
    def calls(trials, steps, seeds, **given):
        found = []

        def trial(config):
            found.append(1)
            return PLAIN, optimizer(config)

        jo.sweep(trial, SPACE, trials, steps, 4, 2, seeds=seeds, progress="none", **given)
        return len(found)

    few = calls(3, 4, 1)
    assert few <= 7  # once with numbers; traced for data, shapes, ranges (twice), program, and tests of the winner
    assert calls(20, 8, 2, width=4) == few, "neither trials, nor seeds, nor steps make more"


@pytest.mark.parametrize("independent, most", [(False, 2**20), (True, 2**26)])
def test_the_data_order_of_a_wide_cohort_takes_megabytes(independent, most):
    rows = {"x": np.zeros((256, 4), np.float32), "y": np.zeros(256, np.float32)}
    static, numbers = split({"learning_rate": np.float32(0.1)})
    plan = SweepPlan(1000, 128, 100, independent=independent)
    group = Group(lambda config: (jo.Task(init, loss, rows), optimizer(config)), static, numbers, plan)
    runner = Runner(group, np.zeros(1), 1024, 1024, jax.local_devices()[:1], {})
    assert math.prod(runner.order_shape) * np.dtype(np.int32).itemsize <= most
    assert runner.order_shape[-3:] == (runner.points, 100, 128) and runner.points >= 1
