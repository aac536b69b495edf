"""The training loop as a driver sees it: points, replies and snapshots; and states that are carried elsewhere."""

import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.train.tasks import RAMP, TEST, TRAIN, VALID, assert_same, init, loss

TASK = jo.Task(init, loss, TRAIN, VALID, TEST)
OPTIMIZER = jo.adam(0.3)
LENGTHS = {"batch_size": 4, "eval_every": 2}
PLANS = {
    "steps": (jo.Plan(steps=10, **LENGTHS), None),
    "patience": (jo.Plan(steps=200, **LENGTHS, patience=3, restore_best=True), None),
    "target": (jo.Plan(steps=200, **LENGTHS, target=5.0), None),
    "seeds": (jo.Plan(steps=200, **LENGTHS, patience=2), 4),
}


def drive(plan, answer=lambda i: None, **given):
    """Train to the end: the result, the names of the events, and the snapshots; answer(i) replies to the i-th event."""
    events = jo.training(given.pop("task", TASK), OPTIMIZER, plan, **given)
    names, snapshots, reply = [], [], None
    try:
        while True:
            event = events.send(reply)
            reply = answer(len(names))
            names.append(f"Point {event.step}" if isinstance(event, jo.Point) else "Snapshot")
            if isinstance(event, jo.Snapshot):  # the next steps use its arrays up
                snapshots.append(event._replace(run=jax.tree.map(jnp.copy, event.run)))
    except StopIteration as end:
        return end.value, names, snapshots


def saving(*at):
    """Ask for a snapshot at some events."""
    return lambda i: jo.Reply(save=i in at)


def assert_same_result(one, other):
    for name in ("params", "state", "history", "metrics"):
        assert_same(getattr(one, name), getattr(other, name))
    assert (one.status, one.steps, one.message) == (other.status, other.steps, other.message)


@pytest.fixture(scope="module", params=PLANS)
def whole(request):
    """A plan, its number of seeds, the whole run, and the number of its points."""
    plan, seeds = PLANS[request.param]
    result, names, _ = drive(plan, seeds=seeds)
    return plan, seeds, result, len(names)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_snapshot_comes_once_nothing_is_in_flight(ahead):
    plan = PLANS["steps"][0]
    points = [f"Point {step}" for step in (2, 4, 6, 8, 10)]
    for at in range(5):
        _, names, (snapshot,) = drive(plan, saving(at), ahead=ahead)
        before = min(at + 2, 5) if ahead else at + 1  # a point may be in flight, and is yielded first
        assert names == [*points[:before], "Snapshot", *points[before:]]
        assert [row.step for row in snapshot.rows] == [2, 4, 6, 8, 10][:before] and snapshot.taken == 2 * before


@pytest.mark.parametrize("place", ["first", "middle", pytest.param("last")])
def test_a_run_resumed_from_any_of_its_points_is_the_run(whole, place):
    plan, seeds, result, n = whole
    at = {"first": 0, "middle": n // 3, "last": n - 1}[place]
    _, _, (snapshot,) = drive(plan, saving(at), seeds=seeds)
    assert_same_result(drive(plan, seeds=seeds, snapshot=snapshot)[0], result)


def test_a_run_that_ended_beside_others_stays_as_it_is_when_they_resume():
    plan, seeds = PLANS["seeds"]
    result, names, _ = drive(plan, seeds=seeds)
    ends = sorted(result.steps)
    assert ends[0] + 4 < ends[-1], "the runs end apart"
    _, _, (snapshot,) = drive(plan, saving(len(names) - 4), seeds=seeds)
    assert drive(plan, seeds=seeds, snapshot=snapshot)[0].steps == result.steps


def test_stop_and_save_in_one_answer():
    plan = PLANS["steps"][0]
    result, names, (snapshot,) = drive(plan, lambda i: jo.Reply(save=True, stop=True) if i == 1 else None)
    assert names == ["Point 2", "Point 4", "Point 6", "Snapshot"]
    assert (result.status, result.steps) == ("interrupted", 6)
    assert_same_result(drive(plan, snapshot=snapshot)[0], drive(plan)[0])


def test_a_snapshot_may_be_resumed_with_more_steps():
    _, _, snapshots = drive(jo.Plan(steps=6, **LENGTHS), saving(0))
    for snapshot in snapshots:
        assert_same_result(drive(PLANS["steps"][0], snapshot=snapshot)[0], drive(PLANS["steps"][0])[0])


def test_after_its_last_step_too():
    _, _, (snapshot,) = drive(jo.Plan(steps=6, **LENGTHS), saving(2))
    assert snapshot.run.state.step == 6
    assert_same_result(drive(PLANS["steps"][0], snapshot=snapshot)[0], drive(PLANS["steps"][0])[0])


def test_a_snapshot_at_the_end_of_an_iterator_is_resumed():
    def batches():
        return ({name: rows[i : i + 4] for name, rows in TRAIN.items()} for i in (0, 4, 8, 2, 6))

    task, plan = jo.Task(init, loss, batches, VALID), jo.Plan(steps=20, eval_every=2)
    result, _, _ = drive(plan, task=task)
    _, _, (snapshot,) = drive(plan, saving(2), task=task)
    assert snapshot.taken == result.steps == 5
    assert_same_result(drive(plan, task=task, snapshot=snapshot)[0], result)


@pytest.mark.parametrize("answer, status", [(True, "interrupted"), ("stop", "max_steps"), (1, "max_steps")])
def test_true_still_stops_and_other_answers_do_not(answer, status):
    result, _, _ = drive(PLANS["steps"][0], lambda i: answer if i == 1 else None, ahead=False)
    assert (result.status, result.steps) == (status, 4 if status == "interrupted" else 10)


def test_an_exception_in_the_driver_closes_the_generator(tmp_path):
    events = jo.training(TASK, OPTIMIZER, PLANS["steps"][0])
    next(events)
    with pytest.raises(OSError, match="disk full"):
        events.throw(OSError("disk full"))
    with pytest.raises(StopIteration):
        next(events)

    def failing(point):
        if point.step == 4:
            raise ZeroDivisionError("in a callback")

    with pytest.raises(ZeroDivisionError, match="in a callback"):
        jo.fit(TASK, OPTIMIZER, 10, **LENGTHS, directory=tmp_path, callbacks=[failing])
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4], "what was measured before is there"
    jo.fit(TASK, OPTIMIZER, 10, **LENGTHS, directory=tmp_path, overwrite=True)


@pytest.mark.parametrize("seeds", [None, 2])
def test_fit_resumes_from_a_run(seeds):
    rules = {"patience": 3, "restore_best": True}
    whole = jo.fit(TASK, OPTIMIZER, 40, **LENGTHS, **rules, seeds=seeds)
    _, _, (snapshot,) = drive(jo.Plan(steps=40, **LENGTHS, **rules), saving(5), seeds=seeds)
    done = int(snapshot.rows[-1].step)
    rest = jo.fit(TASK, None, 40 - done, **LENGTHS, **rules, seeds=seeds, state=snapshot.run)
    assert_same((rest.params, rest.state, rest.metrics), (whole.params, whole.state, whole.metrics))
    assert snapshot.run.state.step.shape == (() if seeds is None else (2,)), "the run is not used up"


@pytest.fixture(scope="module")
def carried():
    """The result of a run with rules, whose state holds a monitor with parameters."""
    return jo.fit(TASK, OPTIMIZER, 6, **LENGTHS, patience=3, restore_best=True)


def test_a_state_with_a_monitor_goes_through_single_steps(carried):
    state, batch = jax.tree.map(jnp.copy, carried.state), {name: rows[:4] for name, rows in TRAIN.items()}
    stepped, metrics = jo.make_step(TASK)(state, batch)
    assert stepped.step == 7 and np.isfinite(metrics["loss"])
    assert_same(stepped.monitor, carried.state.monitor)
    jo.fit(TASK, None, 2, **LENGTHS, patience=3, restore_best=True, state=stepped)


@pytest.mark.parametrize("carry", [lambda s: jax.tree.map(lambda x: x, s), lambda s: pickle.loads(pickle.dumps(s))])
def test_a_state_with_a_monitor_may_be_mapped_and_pickled(carried, carry):
    rest = {**LENGTHS, "patience": 3, "restore_best": True}
    same = jo.fit(TASK, None, 20, **rest, state=carry(carried.state))
    assert_same_result(same, jo.fit(TASK, None, 20, **rest, state=carried.state))


def test_without_its_monitor_a_run_begins_to_wait_anew():
    rules = {"eval_every": 1, "patience": 2, "metric": "valid.loss"}
    first = jo.fit(RAMP, jo.sgd(1.0), 4, **rules)  # best at step 3
    assert first.state.monitor.waited == 1 and first.status == "max_steps"
    assert jo.fit(RAMP, None, 9, **rules, state=first.state).steps == 5
    assert jo.fit(RAMP, None, 9, **rules, state=first.state._replace(monitor=None)).steps == 7


def test_patience_over_several_cuts_is_that_of_each_seed():
    rules = {**LENGTHS, "patience": 2}
    alone = [jo.fit(TASK, OPTIMIZER, 200, **rules, seed=seed).steps for seed in (0, 1, 2)]
    assert len(set(alone)) > 1, "the runs end apart"
    ended, state = [None] * 3, None
    while None in ended:
        result = jo.fit(TASK, OPTIMIZER, 4, **rules, seeds=3, state=state)
        for i, (status, steps) in enumerate(zip(result.status, result.steps)):
            if status == "patience" and ended[i] is None:
                ended[i] = steps
        state = result.state
        assert max(result.steps) <= 200
    assert ended == alone


@pytest.mark.parametrize(
    "name, value",
    [
        ("task", 3),
        ("optimizer", 3),
        ("steps", "5"),
        ("batch_size", "all"),
        ("seed", None),
        ("eval_every", 1.5),
        ("directory", 3),
        ("target", "low"),
        ("patience", 1.5),
        ("min_grad_norm", "small"),
        pytest.param("restore_best", "yes"),
        ("params", "w"),
        ("callbacks", print),
        ("callbacks", [3]),
        ("metric", 3),
        ("mode", ["min"]),
        ("seeds", 2.0),
        ("state", {"params": 0}),
        ("compute_dtype", "int32"),
        ("progress", ["bar"]),
        pytest.param("overwrite", "yes"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(name, value):
    given = {"task": TASK, "optimizer": OPTIMIZER, "steps": 2, **LENGTHS, name: value}
    with pytest.raises((TypeError, ValueError), match=rf"^(fit|init_state)\b.*\b{name} "):
        jo.fit(**given)


def test_a_plan_of_another_type_is_named():
    with pytest.raises(TypeError, match="training: plan must be a Plan, got"):
        next(jo.training(RAMP, jo.sgd(1.0), {"steps": 3}))
