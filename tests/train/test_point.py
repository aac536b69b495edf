"""The stopping rules: each gives its status, at its step, and cuts the history there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.train.tasks import RAMP, assert_same, falling, scores


def walk(task=RAMP, optimizer=None, steps=9, **kwargs):
    """With sgd(1.0) on the ramp, w is minus the number of steps, and each step is a point."""
    return jo.fit(task, jo.sgd(1.0) if optimizer is None else optimizer, steps, eval_every=1, **kwargs)


RULES = {
    "target above": ({"target": 0.35}, "target", 4),
    "target below": ({"target": -2.5, "metric": "train.loss"}, "target", 4),
    "target by mode": ({"target": 1.5, "metric": "valid.loss", "mode": "max"}, "target", 1),
    "target of a measure": ({"target": 1.0, "metric": "grad_norm", "mode": "min"}, "target", 1),
    "target never met": ({"target": 2.0}, "max_steps", 9),
    "patience": ({"patience": 2, "metric": "valid.loss"}, "patience", 5),
    "patience by mode": ({"patience": 2, "metric": "valid.loss", "mode": "max"}, "patience", 3),
    "patience never lost": ({"patience": 1}, "max_steps", 9),
    "target before patience": ({"patience": 2, "target": 0.0, "metric": "valid.loss"}, "target", 3),
}


@pytest.mark.parametrize("rules, status, steps", RULES.values(), ids=RULES)
def test_a_run_stops_at_its_rule(rules, status, steps):
    result = walk(**rules)
    assert (result.status, result.steps) == (status, steps)
    assert result.history["step"].tolist() == list(range(1, steps + 1))
    assert result.params["w"] == -steps and result.state.step == steps
    assert {len(column) for column in result.history.values()} == {steps}


def test_rules_are_looked_at_once_a_point():
    result = jo.fit(RAMP, jo.sgd(1.0), 9, eval_every=3, target=0.35)
    assert result.steps == 6 and result.history["step"].tolist() == [3, 6]


def test_a_run_stops_at_a_small_gradient():
    bowl = jo.Task(lambda key: {"w": 1.0}, lambda params, batch, key: params["w"] ** 2 / 2)
    result = walk(bowl, jo.sgd(0.5), min_grad_norm=0.2)
    assert (result.status, result.steps) == ("min_grad_norm", 4)
    assert result.history["grad_norm"].tolist() == [1, 0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    "loss, steps",
    [
        (lambda params, batch, key: jnp.where(params["w"] < -1.5, jnp.nan, params["w"]), 3),
        (lambda params, batch, key: jnp.where(params["w"] < -1.5, -jnp.inf, params["w"]), 3),
        (lambda params, batch, key: jnp.sqrt(params["w"] ** 2), 1),  # 0 at 0, but its gradient there is NaN
    ],
    ids=["NaN loss", "infinite loss", "NaN parameters behind a finite loss"],
)
def test_a_run_stops_when_something_is_not_finite(loss, steps):
    result = walk(jo.Task(RAMP.init, loss))
    assert (result.status, result.steps) == ("non_finite", steps)
    assert "learning rate" in result.message


def test_the_point_of_a_bad_step_is_the_one_that_is_reported():
    bad = jo.Task(RAMP.init, lambda params, batch, key: jnp.where(params["w"] < -1.5, jnp.nan, params["w"]))
    assert np.isnan(walk(bad).metrics["train.loss"])


def test_the_best_point_is_restored():
    result = walk(patience=2, metric="valid.loss", restore_best=True)
    assert result.params["w"] == -3 and result.state.params["w"] == -5 and result.steps == 5
    assert result.metrics["valid.loss"] == 0
    assert_same(walk(metric="valid.accuracy", restore_best=True).params, walk().params)


def test_the_model_state_of_the_best_point_comes_with_it():
    def counting(params, model_state, batch, key):
        return params["w"], ({}, {"steps": model_state["steps"] + 1})

    def evaluate(params, model_state, data):
        return {"loss": jnp.abs(params["w"] + 3), "steps": model_state["steps"]}

    task = jo.Task(
        lambda key: ({"w": 0.0}, {"steps": jnp.zeros(())}), counting, None, np.zeros(1), np.zeros(1), evaluate, True
    )
    result = walk(task, restore_best=True)
    assert result.model_state["steps"] == 3 and result.metrics["test.steps"] == 3
    assert result.state.model_state["steps"] == 9


def test_nothing_better_than_nothing_leaves_the_first_parameters():
    bad = jo.Task(RAMP.init, lambda params, batch, key: params["w"] / 0)
    result = walk(bad, restore_best=True)
    assert result.status == "non_finite" and result.params["w"] == 0


@jax.custom_jvp
def broken_below(w, limit):
    """w, with a gradient of NaN where it is below the limit."""
    return w


@broken_below.defjvp
def _(primals, tangents):
    return primals[0], tangents[0] * jnp.where(primals[0] < primals[1], jnp.nan, 1.0)


def lucky(params, *data):
    """Of NaNs the largest is class 0, which has an accuracy, and the best one here."""
    return {"accuracy": jnp.where(jnp.isfinite(params["w"]), -params["w"] / 10, 1.0), "w": params["w"]}


ONE = np.zeros((1, 1))
BREAKING = {
    "parameters": jo.Task(RAMP.init, lambda p, b, k: broken_below(p["w"], -1.5), None, ONE, ONE, lucky),
    "loss": jo.Task(RAMP.init, lambda p, b, k: jnp.where(p["w"] < -1.5, -jnp.inf, p["w"]), None, ONE, ONE, lucky),
    "metric": jo.Task(
        RAMP.init,
        falling,
        None,
        ONE,
        ONE,
        lambda p, d: {"accuracy": jnp.where(p["w"] < -2.5, jnp.inf, -p["w"] / 10), "w": p["w"]},
    ),
}


@pytest.mark.parametrize("what", BREAKING)
@pytest.mark.parametrize("seeds", [None, 2])
def test_a_point_that_is_not_finite_is_never_the_best(what, seeds):
    result = walk(BREAKING[what], steps=4, restore_best=True, seeds=seeds)
    for name in ("valid.w", "test.w"):
        np.testing.assert_array_equal(result.metrics[name], np.asarray(result.params["w"]))
    assert np.all(np.asarray(result.params["w"]) == -2)


def test_a_model_state_that_holds_nan_is_not_the_best_either():
    def averaging(params, model_state, batch, key):
        steps = model_state["steps"] + 1
        return params["w"], ({}, {"steps": steps, "mean": jnp.where(steps > 2, jnp.nan, 0.0), "least": -jnp.inf})

    first = {"steps": jnp.zeros((), jnp.int32), "mean": 0.0, "least": jnp.inf}
    task = jo.Task(lambda key: ({"w": 0.0}, first), averaging, None, ONE, None, lambda p, m, d: scores(p, d), True)
    result = walk(task, steps=4, restore_best=True)
    assert result.model_state["steps"] == 2 and result.params["w"] == -2


NEVER = {
    "parameters": jo.Task(RAMP.init, lambda p, b, k: broken_below(p["w"], 1.0), None, ONE, ONE, lucky),
    "metric": jo.Task(RAMP.init, falling, None, ONE, ONE, lambda p, d: {"accuracy": jnp.nan, "w": p["w"]}),
    "without valid data": jo.Task(RAMP.init, lambda p, b, k: p["w"] / 0, None, None, ONE, lucky),
}


@pytest.mark.parametrize("what", NEVER)
@pytest.mark.parametrize("seeds", [None, 2])
def test_where_no_point_was_finite_parameters_and_metrics_are_the_first(what, seeds):
    result = walk(NEVER[what], steps=3, restore_best=True, seeds=seeds)
    assert np.all(np.asarray(result.params["w"]) == 0)
    for name in {"valid.w", "test.w"} & set(result.metrics):
        assert np.all(np.asarray(result.metrics[name]) == 0), name
    assert np.all(np.isnan(result.metrics["train.loss"]))
    assert result.message.endswith("No point was finite, so params are those that the run began with.")


def test_runs_without_a_finite_point_stand_beside_others():
    begun = jo.Task(
        lambda key: {"w": jnp.where(jax.random.bernoulli(key), 0.0, jnp.nan)}, falling, None, ONE, None, lucky
    )
    result = walk(begun, steps=2, restore_best=True, seeds=6)
    finite = np.isfinite(result.params["w"])
    assert finite.any() and not finite.all()
    np.testing.assert_array_equal(result.metrics["valid.w"], result.params["w"])
    assert f"{(~finite).sum()} of 6: No point was finite" in result.message


@pytest.mark.parametrize(
    "rule", [{"target": 0.35}, {"patience": 2, "metric": "valid.loss"}, {"min_grad_norm": 1.5}], ids=str
)
@pytest.mark.parametrize("seeds", [None, 2])
def test_a_run_that_ends_early_makes_no_nan(rule, seeds):
    with jax.debug_nans(True), jax.debug_infs(True):
        result = walk(**rule, seeds=seeds)
    assert np.all(np.isfinite(result.history["train.loss"])) and "max_steps" not in result.status


def test_a_target_is_reached_by_a_finite_model_alone():
    def step(params, model_state, batch, key):
        n = model_state["n"] + 1
        return params["w"], ({}, {"n": n, "mean": jnp.where(n > 2, jnp.nan, 0.0)})

    def evaluate(params, model_state, data):
        return {"accuracy": jnp.where(jnp.isnan(model_state["mean"]), 0.9, 0.1)}

    first = lambda key: ({"w": 0.0}, {"n": jnp.int32(0), "mean": jnp.float32(0)})
    assert walk(jo.Task(first, step, None, ONE, None, evaluate, stateful=True), target=0.8).status == "max_steps"
    endless = jo.Task(
        RAMP.init, falling, None, ONE, None, lambda p, d: {"accuracy": jnp.where(p["w"] < -2, jnp.inf, 0)}
    )
    assert walk(endless, target=0.8).status == "max_steps"
    assert (
        walk(jo.Task(RAMP.init, falling, None, ONE, None, scores), target=3_000_000_000, metric="valid.loss").steps == 1
    )


def test_the_test_set_decides_nothing_and_is_evaluated_once():
    seen = []

    def spying(params, data):
        jax.debug.callback(lambda n: seen.append(int(n)), data.shape[0])
        return scores(params, data)

    ones, twos = np.zeros((1, 1)), np.zeros((2, 1))
    task = jo.Task(RAMP.init, falling, None, ones, twos, spying)
    result = walk(task, steps=4, restore_best=True, metric="valid.loss")
    jax.effects_barrier()
    assert sorted(seen) == [1, 1, 1, 1, 2]
    assert result.metrics["test.loss"] == 0, "of the parameters that are returned"
    assert not any(name.startswith("test") for name in result.history)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"steps": 0}, "steps must be an int of at least 1, got 0"),
        ({"steps": 1.5}, "steps must be an int of at least 1, got 1.5"),
        ({"batch_size": 0}, "batch_size must be an int"),
        ({"batch_size": True}, "batch_size must be an int"),
        ({"eval_every": -1}, "eval_every must be an int"),
        ({"patience": 0}, "patience must be an int"),
        ({"target": "0.9"}, "target must be a finite number, got '0.9'"),
        ({"target": np.nan}, "target must be a finite number, got nan"),
        ({"min_grad_norm": -1.0}, "min_grad_norm must be a finite number of at least 0, got -1.0"),
        ({"target": 10**39}, "target must be a finite number, got 1000.*; scores are float32, at most"),
        ({"target": -1e39}, "target must be a finite number, got -1e.39; scores are float32, at most"),
        ({"min_grad_norm": 10**60}, "min_grad_norm must be a finite number of at least 0, got 1000.*; scores are"),
        ({"mode": "maximum"}, "mode must be 'min' or 'max', got 'maximum'"),
        ({"metric": 3}, "metric must be the name of a column such as 'valid.loss', got 3"),
        ({"metric": "test.loss"}, "metric='test.loss' cannot decide when to stop"),
        ({"compute_dtype": "int32"}, "compute_dtype must be a floating dtype such as 'bfloat16', got 'int32'"),
        ({"metric": "valid.acuracy"}, "no metric 'valid.acuracy'; did you mean valid.accuracy"),
        ({"metric": "xyz"}, "no metric 'xyz'; there are grad_norm, learning_rate, train.loss"),
        ({"metric": "grad_norm"}, "mode must be given for metric='grad_norm': 'min' or 'max'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(given, message):
    with pytest.raises(ValueError, match=f"fit: .*{message}"):
        jo.fit(RAMP, jo.sgd(1.0), **{"steps": 4, **given})


def test_a_long_argument_is_shortened():
    with pytest.raises(ValueError, match="steps must be an int of at least 1") as error:
        jo.fit(RAMP, jo.sgd(1.0), {"w": np.zeros(1000)})
    assert len(str(error.value)) < 200


AREA = jo.Task(RAMP.init, falling, None, np.zeros((1, 1)), None, lambda p, data: {"auc": -p["w"] / 10, "f1": p["w"]})


def test_a_metric_of_another_name_needs_its_mode():
    with pytest.raises(ValueError, match=r"fit: mode must be given for metric='valid.auc': 'min' or 'max'"):
        walk(AREA, metric="valid.auc", target=0.35)
    result = walk(AREA, metric="valid.auc", mode="max", target=0.35, restore_best=True)
    assert (result.status, result.steps) == ("target", 4) and result.params["w"] == -4


@pytest.mark.parametrize("rule", [{"target": 0.5}, {"patience": 2}, {"restore_best": True}], ids=str)
def test_a_rule_does_not_watch_the_training_loss_in_silence(rule):
    with pytest.raises(ValueError, match=r"evaluate reports neither; give metric \(there are valid.auc, valid.f1\)"):
        walk(AREA, **rule)


def test_what_is_watched_where_there_is_no_choice():
    assert walk(AREA).status == "max_steps", "nothing"
    assert walk(jo.Task(RAMP.init, falling), target=-2.5).steps == 4, "the training loss, without valid data"


def test_a_task_without_valid_data_is_told_so():
    with pytest.raises(ValueError, match=r"no metric 'valid.loss', since the task has no valid data"):
        walk(jo.Task(RAMP.init, falling), metric="valid.loss")


def test_a_run_out_of_patience_says_what_its_best_was():
    rules = {"patience": 2, "metric": "valid.loss"}
    assert walk(**rules).message == "valid.loss has not improved for 2 points; its best was 0, at step 3."
    assert walk(seeds=2, **rules).message == "valid.loss has not improved for 2 points."
    never = jo.Task(RAMP.init, falling, None, np.zeros((1, 1)), None, lambda params, data: {"loss": jnp.nan})
    assert walk(never, patience=2).message.endswith("for 2 points; none of its values was finite.")
