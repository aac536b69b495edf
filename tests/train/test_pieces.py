"""Batches and data sets worked in pieces: the same numbers in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from jaxopt_lite.train.point import Rules
from jaxopt_lite.train.step import StepParts
from tests.contract.table import FED, PARAMS
from tests.quick import quick_jit
from tests.recipes import RECIPES
from tests.train.tasks import LINEAR, ON_POLICY, STATEFUL, TRAIN, assert_same, init, loss, noisy, running_mean

BATCH = jax.tree.map(lambda x: x[:10], LINEAR.train)  # in four pieces: 3, 3, 3 and 1
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def network(params, batch, key):
    """A loss of the parameters of the table of recipes."""
    rates = jnp.tanh(batch["x"] @ params["w"] + params["b"][None])
    return jnp.mean((rates.sum(axis=1) - batch["y"]) ** 2), {"rate": rates.mean()}


def test_every_recipe_trains_in_pieces_as_on_the_whole_batch(x64):
    rng = np.random.default_rng(5)
    batches = {"x": jnp.asarray(rng.normal(size=(4, 11, 2))), "y": jnp.asarray(rng.normal(size=(4, 11)))}
    start = jax.tree.map(lambda p: p.astype(float), PARAMS)
    task = jo.Task(lambda key: start, network)
    run = jo.init_state(task, jo.sgd(0.1))

    def gradient(pieces):
        parts = StepParts(task, None, pieces)
        return quick_jit(lambda params, batch: parts.objective(run, batch).value_and_grad(params))

    recipes = {name: row.value for name, row in RECIPES.items()}
    recipes |= {name: value for name, value in FED.items() if name.startswith("polyak_sgd")}
    contenders = gradient(1), gradient(4)
    for name, optimizer in recipes.items():
        update, ends = quick_jit(optimizer.update), []
        for value_and_grad in contenders:
            params, state = start, optimizer.init(start)
            for t in range(4):
                value, _, grads = value_and_grad(params, jax.tree.map(lambda x, t=t: x[t], batches))
                updates, state = update(grads, state, params, value=value)
                params = jo.apply_updates(params, updates)
            ends.append(params)
        for whole, in_pieces, first in zip(*map(jax.tree.leaves, (*ends, start)), strict=True):
            np.testing.assert_allclose(in_pieces, whole, rtol=1e-10, atol=1e-10, err_msg=name)
            assert np.any(whole != first), name


def test_a_step_in_pieces_is_the_step_on_the_whole_batch():
    def with_metric(params, batch, key):
        return loss(params, batch, key), {"first": batch["x"][:, 0].mean()}

    task = jo.Task(init, with_metric)
    for optimizer in (jo.adam(0.1), jo.lift(optax.scale_by_backtracking_linesearch)(15)):  # it calls value_fn
        start = lambda optimizer=optimizer: jo.init_state(task, optimizer)
        whole, metrics = jo.make_step(task)(start(), BATCH)
        in_pieces, others = jo.make_step(task, accumulate=4)(start(), BATCH)
        assert_same(in_pieces.params, whole.params, **CLOSE)
        assert_same(others, metrics, **CLOSE)


def test_the_derivative_of_value_fn_is_the_gradient():
    """Line searches take it."""
    parts = StepParts(LINEAR, None, 4)
    objective = parts.objective(jo.init_state(LINEAR, jo.sgd(0.1)), BATCH)
    params = init(jax.random.key(1))
    assert_same(jax.grad(lambda p: objective.value(p)[0])(params), objective.value_and_grad(params)[2], **CLOSE)


def test_the_model_state_goes_from_piece_to_piece():
    state = jo.init_state(STATEFUL, jo.sgd(0.0))
    params, model_state, firsts = state.params, state.model_state, []
    for piece in ({name: x[begin : begin + 3] for name, x in BATCH.items()} for begin in (0, 3, 6, 9)):
        _, (metrics, model_state) = running_mean(params, model_state, piece, None)
        firsts.append(metrics["first"])
    after, metrics = jo.make_step(STATEFUL, accumulate=4)(jo.init_state(STATEFUL, jo.sgd(0.0)), BATCH)
    assert_same(after.model_state, model_state, **CLOSE)
    np.testing.assert_allclose(metrics["first"], np.average(firsts, weights=[3, 3, 3, 1]), rtol=1e-5)


def test_each_piece_has_a_key_of_its_own_and_a_loss_without_data_is_called_for_each():
    keys = []

    def seen(params, batch, key):
        return noisy(params, batch, key), {"draw": jax.random.uniform(key)}

    task = jo.Task(ON_POLICY.init, seen)
    for pieces in (1, 2, 400):
        _, metrics = jo.make_step(task, accumulate=pieces)(jo.init_state(task, jo.sgd(0.1)), None)
        keys.append(float(metrics["draw"]))
    assert len(set(keys)) == 3 and abs(keys[-1] - 0.5) < 0.05


def test_gradients_of_16_bit_parameters_are_added_up_in_32():
    """128 times 1 + 2^-7 / 2: a running sum of bfloat16 has 8 bits."""
    step = jo.make_step(lambda params, batch, key: (params * batch).mean(), accumulate=128)
    start = jo.init_state(jo.Task(lambda key: jnp.bfloat16(0), lambda *_: 0.0), jo.sgd(1.0))
    after, metrics = step(start, jnp.linspace(1, 2, 128))
    assert after.params.dtype == jnp.bfloat16
    np.testing.assert_allclose(metrics["grad_norm"], 1.5, rtol=2**-8)


def test_pieces_need_less_memory():
    layers = [jnp.eye(32)] * 6

    def deep(params, batch, key):
        for w in params:
            batch = jnp.tanh(batch @ w)
        return jnp.mean(batch**2)

    task, batch = jo.Task(lambda key: layers, deep), jnp.ones((4096, 32))
    state = jo.init_state(task, jo.sgd(0.1))
    whole, in_pieces = (
        jo.make_step(task, accumulate=k).lower(state, batch).compile().memory_analysis().temp_size_in_bytes
        for k in (1, 16)
    )
    assert in_pieces < whole / 8


def test_fit_and_sweeps_work_in_pieces():
    settings = {"steps": 4, "batch_size": 10, "eval_every": 2}
    task, pieces = jo.Task(init, loss, TRAIN, LINEAR.train), {"accumulate": 4, "eval_batch_size": 4, "remat": True}
    whole = jo.fit(task, jo.sgd(0.1), **settings)
    in_pieces = jo.fit(task, jo.sgd(0.1), **settings, **pieces)
    assert_same(in_pieces.params, whole.params, **CLOSE)
    assert_same(in_pieces.history, whole.history, **CLOSE)
    swept = jo.sweep(lambda config: (task, jo.sgd(config["rate"])), {"rate": 0.1}, 1, **settings, **pieces)
    for name in ("train.loss", "valid.loss"):
        np.testing.assert_allclose(swept.curves[name][0, 0], whole.history[name], rtol=1e-5)


def test_a_loss_that_has_changed_for_pieces_alone_is_seen():
    """The loss that is traced to know its program again sees pieces too."""
    factors = []
    changing = lambda params, batch, key: loss(params, batch, key) * (factors[-1] if len(batch["x"]) == 5 else 1.0)
    task, losses = jo.Task(init, changing, BATCH), []
    for pieces, factor in ((1, 0.5), (2, 0.5), (2, 3.0)):
        factors.append(factor)
        losses.append(jo.fit(task, jo.sgd(0.1), 1, None, accumulate=pieces).history["train.loss"][0])
    np.testing.assert_allclose(losses, np.array([1, 0.5, 3]) * losses[0], rtol=1e-5)


def test_an_evaluation_in_pieces_is_that_of_all_examples():
    calls = []

    def evaluate(params, data):
        calls.append(len(data["x"]))
        errors = (data["x"] @ params["w"] + params["b"] - data["y"]) ** 2
        weights = jnp.abs(data["x"][:, 0])
        return {"loss": errors.mean(), "weighted": ((weights * errors).sum(), weights.sum())}

    state = jo.init_state(LINEAR, jo.adam(0.1))
    whole = Rules(loss, evaluate).score(state, LINEAR.train)  # 14 examples
    for size, pieces in ((4, {4, 2}), (7, {7}), (99, {14})):
        calls.clear()
        assert_same(Rules(loss, evaluate, eval_batch_size=size).score(state, LINEAR.train), whole, rtol=1e-6)
        assert set(calls) == pieces
    errors = np.square(TRAIN["x"] @ state.params["w"] + state.params["b"] - TRAIN["y"])
    np.testing.assert_allclose(whole["weighted"], np.average(errors, weights=np.abs(TRAIN["x"][:, 0])), rtol=1e-5)

    task = jo.Task(init, loss, TRAIN, LINEAR.train, LINEAR.train, evaluate)
    whole, in_pieces = (jo.fit(task, jo.sgd(0.1), 1, 4, eval_batch_size=size) for size in (None, 4))
    assert_same(in_pieces.metrics, whole.metrics, rtol=1e-6)
    assert "test.weighted" in whole.metrics


def test_an_evaluation_in_pieces_needs_less_memory():
    def evaluate(params, data):
        return {"loss": jnp.sort(data @ params, axis=1)[:, 3].mean()}  # XLA keeps what is sorted

    state = jo.init_state(jo.Task(lambda key: jnp.eye(32), evaluate), jo.sgd(0.1))
    data = jnp.ones((4100, 32))

    def memory(size):
        score = Rules(evaluate, evaluate, eval_batch_size=size).score
        return jax.jit(score).lower(state, data).compile().memory_analysis().temp_size_in_bytes

    assert memory(100) < memory(None) / 8


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda: jo.fit(LINEAR, jo.sgd(0.1), 2, 4, accumulate=0),
            "fit: accumulate must be an int of at least 1, got 0",
        ),
        (lambda: jo.fit(LINEAR, jo.sgd(0.1), 2, 4, accumulate=5), "at most the number of examples in a batch, got 4"),
        (lambda: jo.fit(LINEAR, jo.sgd(0.1), 2, 4, eval_batch_size=0), "fit: eval_batch_size must be an int of at lea"),
        (lambda: jo.make_step(LINEAR, accumulate=1.5), "make_step: accumulate must be an int of at least 1, got 1.5"),
        (
            lambda: jo.fit(LINEAR, jo.solvers.lbfgs(), 2, None, accumulate=2),
            "accumulate=2: lbfgs is a solver, which evaluates and differentiates the loss of all examples",
        ),
        (
            lambda: jo.make_step(loss, accumulate=2)(
                jo.init_state(LINEAR, jo.sgd(0.1)), {"x": jnp.ones((4, 4)), "y": 1.0}
            ),
            r"must have the examples as their first axis, got shapes \(4, 4\), \(\)",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
