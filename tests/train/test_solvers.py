"""`fit` with a solver: one fixed function of all examples, minimized until the solver ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.train.tasks import ON_POLICY, STATEFUL, TEST, TRAIN, VALID, assert_same, init, loss

TASK = jo.Task(init, loss, TRAIN, VALID, TEST)
LBFGS = jo.solvers.lbfgs()
EACH = {"batch_size": None, "eval_every": 1}


def optimum():
    """The least squares solution: w and b, float64."""
    x = np.c_[TRAIN["x"], np.ones(len(TRAIN["x"]))].astype(np.float64)
    solution = np.linalg.lstsq(x, TRAIN["y"].astype(np.float64), rcond=None)[0]
    return solution[:4], solution[4]


@pytest.fixture(scope="module")
def solved():
    """A run to its end, looked at after each step."""
    return jo.fit(TASK, LBFGS, 60, **EACH)


@pytest.fixture(scope="module")
def gentle():
    """A run of steepest descent to its end, looked at every seventh step."""
    return jo.fit(TASK, jo.solvers.gradient_descent(), 200, None, eval_every=7)


@pytest.mark.parametrize("which", ["solved", "gentle"])
def test_a_solver_finds_the_least_squares_optimum(which, request):
    result = request.getfixturevalue(which)
    w, b = optimum()
    np.testing.assert_allclose(result.params["w"], w, atol=2e-5)
    np.testing.assert_allclose(result.params["b"], b, atol=2e-5)
    assert result.status == "converged_gradient" and "norm of the gradient is within the tolerance" in result.message
    assert result.steps == result.history["step"][-1] < 200
    assert set(result.metrics) == {"train.loss", "valid.loss", "test.loss", "grad_norm", "update_norm"}
    np.testing.assert_allclose(result.metrics["train.loss"], loss(result.params, TRAIN, None), rtol=1e-5)


def test_what_is_measured_is_of_where_the_solver_stands(solved):
    few = jo.fit(TASK, LBFGS, 5, **EACH)
    assert (few.status, few.steps) == ("max_steps", 5)
    value, grads = jax.value_and_grad(loss)(few.params, TRAIN, None)
    np.testing.assert_allclose(few.metrics["train.loss"], value, rtol=1e-5)
    np.testing.assert_allclose(
        few.metrics["grad_norm"], jnp.sqrt(sum(jnp.vdot(g, g) for g in grads.values())), rtol=1e-4
    )
    for name, column in few.history.items():
        np.testing.assert_array_equal(column, solved.history[name][:5])


def test_seeds_are_the_runs_each_alone(solved):
    result = jo.fit(TASK, LBFGS, 60, **EACH, seeds=2)
    assert result.status == ["converged_gradient"] * 2 and result.steps[0] == solved.steps
    for w in result.params["w"]:
        np.testing.assert_allclose(w, optimum()[0], atol=2e-5)
    last = result.history["train.loss"][0, : solved.steps]
    np.testing.assert_allclose(last, solved.history["train.loss"], rtol=1e-3)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_solve_in_two_parts_is_the_solve(solved, steps):
    first = jo.fit(TASK, LBFGS, steps, **EACH)
    rest = jo.fit(TASK, LBFGS, 60 - steps, **EACH, state=first.state)
    assert_same((rest.params, rest.state, rest.metrics), (solved.params, solved.state, solved.metrics))
    assert rest.history["step"][0] == steps + 1


def test_a_solve_that_has_converged_does_no_more_steps(solved):
    again = jo.fit(TASK, None, 60, **EACH, state=solved.state)
    assert (again.status, again.steps, again.message) == (solved.status, solved.steps, solved.message)
    assert_same((again.params, again.state, again.metrics), (solved.params, solved.state, solved.metrics))
    assert again.history["step"].tolist() == [solved.steps]


def test_another_solver_does_not_resume(solved):
    with pytest.raises(ValueError, match=r"differ in lbfgs.c2; pass optimizer=None"):
        jo.fit(TASK, jo.solvers.lbfgs(c2=0.5), 9, **EACH, state=solved.state)


def test_the_rules_of_fit_stop_a_solver(solved):
    norms, valid = solved.history["grad_norm"], solved.history["valid.loss"]
    target = jo.fit(TASK, LBFGS, 60, **EACH, target=1.0)
    assert (target.status, target.steps) == ("target", int(np.argmax(valid <= 1.0)) + 1)
    small = jo.fit(TASK, LBFGS, 60, **EACH, min_grad_norm=0.1)
    assert (small.status, small.steps) == ("min_grad_norm", int(np.argmax(norms <= 0.1)) + 1)
    best = int(np.argmin(valid))
    assert best + 1 < solved.steps, "the valid data prefer an earlier point"
    kept = jo.fit(TASK, LBFGS, 60, **EACH, restore_best=True)
    assert kept.status == "converged_gradient" and kept.metrics["valid.loss"] == valid[best]
    np.testing.assert_allclose(loss(kept.params, VALID, None), valid[best], rtol=1e-5)
    patient = jo.fit(TASK, LBFGS, 60, **EACH, patience=2)
    assert patient.status == "patience" and f"at step {int(np.argmin(valid[: patient.steps])) + 1}" in patient.message
    more = jo.fit(TASK, None, 60, **EACH, patience=2, state=patient.state)
    assert (more.status, more.steps) == ("patience", patient.steps + 1)


def test_a_loss_that_draws_numbers_is_one_fixed_function():
    def dropout(params, batch, key):
        keep = jax.random.bernoulli(key, 0.8, batch["x"].shape) / 0.8
        return loss(params, {**batch, "x": batch["x"] * keep}, None)

    task = jo.Task(init, dropout, TRAIN)
    result = jo.fit(task, LBFGS, 60, **EACH)
    assert result.status == "converged_gradient"
    assert np.all(np.diff(result.history["train.loss"]) <= 1e-6), "no other mask at any trial of a line search"
    again = jo.fit(task, LBFGS, 60, None, eval_every=60)
    assert_same((again.params, again.steps), (result.params, result.steps))
    assert jo.fit(task, LBFGS, 60, **EACH, seed=1).metrics["train.loss"] != result.metrics["train.loss"]


def test_an_on_policy_loss_is_fixed_by_the_key_too():
    result = jo.fit(ON_POLICY, LBFGS, 60)  # of no data, batch_size says nothing
    assert result.status == "converged_gradient"
    assert_same(jo.fit(ON_POLICY, LBFGS, 60, None).params, result.params)


def test_single_steps_are_those_of_fit(solved):
    step, state = jo.make_step(TASK), jo.init_state(TASK, LBFGS)
    for i in range(5):
        state, metrics = step(state, TRAIN)
        np.testing.assert_allclose(metrics["loss"], solved.history["train.loss"][i], rtol=1e-5)
        np.testing.assert_allclose(metrics["grad_norm"], solved.history["grad_norm"][i], rtol=1e-4)
    assert state.step == 5 and set(metrics) == {"loss", "grad_norm", "update_norm"}
    result = jo.fit(TASK, None, 55, **EACH, state=state)
    np.testing.assert_allclose(result.params["w"], solved.params["w"], atol=1e-5)
    assert result.status == "converged_gradient"


def test_a_single_step_of_a_solve_that_has_ended_changes_nothing(solved):
    state, _ = jo.make_step(TASK)(jax.tree.map(jnp.copy, solved.state), TRAIN)
    assert_same(state, solved.state)


def test_the_first_state_evaluates_nothing():
    state = jo.init_state(TASK, LBFGS, seed=3)
    assert state.opt_state.status == 0 and state.step == 0
    assert state.opt_state.measured["loss"] == 0 and set(state.opt_state.measured) == {
        "loss",
        "grad_norm",
        "update_norm",
    }
    other = jo.init_state(TASK, LBFGS, seed=4)
    assert not np.array_equal(state.params["w"], other.params["w"])


def test_a_solve_resumes_from_a_snapshot(solved):
    plan = jo.Plan(steps=60, **EACH)
    events = jo.training(TASK, LBFGS, plan)
    next(events)
    events.send(jo.Reply(save=True))
    snapshot = events.send(None)
    snapshot = snapshot._replace(run=jax.tree.map(jnp.copy, snapshot.run))
    events.close()
    rest = jo.training(TASK, LBFGS, plan, snapshot=snapshot)
    with pytest.raises(StopIteration) as end:
        while True:
            next(rest)
    assert_same(end.value.value.state, solved.state)
    assert_same(end.value.value.history, solved.history)


def test_in_float64():
    with jax.enable_x64(True):
        wide = lambda arrays: jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), arrays)
        task = jo.Task(lambda key: wide(init(key)), loss, wide(TRAIN))
        result = jo.fit(task, jo.solvers.gradient_descent(), 300, None, eval_every=300)
        assert result.status == "converged_gradient" and result.params["w"].dtype == np.float64
        np.testing.assert_allclose(result.params["w"], optimum()[0], atol=1e-9)
        assert result.history["train.loss"].dtype == np.float32


def test_a_loss_that_breaks_down_is_told():
    task = jo.Task(lambda key: {"w": jnp.zeros(())}, lambda params, batch, key: jnp.log(params["w"] - 1), None)
    assert jo.fit(task, jo.solvers.gradient_descent(), 9, **EACH).status == "non_finite"


@pytest.mark.parametrize(
    "task, given, error, message",
    [
        (
            TASK,
            {"batch_size": 4},
            ValueError,
            "lbfgs is a solver, which needs all examples at each step; give batch_size=None",
        ),
        (TASK, {}, ValueError, "batch_size=None takes all of them at each step"),  # of 128
        (
            STATEFUL,
            {"batch_size": None},
            ValueError,
            "the model state changes the loss at each step; use a transformation",
        ),
        (
            jo.Task(init, loss, iter([TRAIN])),
            {"batch_size": None},
            ValueError,
            "each batch is another loss; use a transf",
        ),
        (
            TASK,
            {"batch_size": None, "optimizer": jo.solvers.lbfgs},
            TypeError,
            r"must be a solver.*call it: lbfgs\(...\)",
        ),
    ],
)
def test_what_a_solver_cannot_do_is_refused(task, given, error, message):
    with pytest.raises(error, match=message):
        jo.fit(**{"task": task, "optimizer": LBFGS, "steps": 9, **given})


def trial(config):
    return TASK, jo.solvers.lbfgs(c2=config["c2"], memory=config["memory"])


SPACE = {"c2": jo.uniform(0.2, 0.9), "memory": jo.choice([2, 10])}


def test_a_sweep_over_the_numbers_of_a_solver_is_fit():
    result = jo.sweep(trial, SPACE, 4, 12, None, 3, progress="none")
    assert {one.config["memory"] for one in result.trials} == {2, 10}
    for one in [one for one in result.trials if one.config["memory"] == 10]:  # another memory is another program
        alone = jo.fit(*trial(one.config), 12, None, eval_every=3)
        points = len(alone.history["step"])  # `fit` ends where the solver does; the trial stands still
        for name in ("train.loss", "valid.loss"):
            curve = result.ledger.curves[name][one.number, 0]
            np.testing.assert_allclose(curve[:points], alone.history[name], rtol=1e-4)
            np.testing.assert_array_equal(curve[points:], curve[points - 1])


def test_a_sweep_refuses_batches_of_a_solver_as_fit_does():
    with pytest.raises(ValueError, match="sweep: gradient_descent is a solver, which needs all examples at each step"):
        jo.sweep(lambda config: (TASK, jo.solvers.gradient_descent(c2=config["c2"])), {"c2": SPACE["c2"]}, 2, 2, 4, 1)
