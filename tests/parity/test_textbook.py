"""The descents of the textbook, as `fit` runs them, against the published formulas in NumPy: float64, equal to 1e-12.

    batch, stochastic, mini-batch    θ ← θ - α g, with g the gradient over all examples, one, or k
    averaged momentum                v ← β v + (1 - β) g,  θ ← θ - α v
    heavy ball                       v ← γ v + α g,        θ ← θ - v          Polyak, 1964
    Nesterov                         v ← γ v + α ∇f(θ - γ v),  θ ← θ - v      Nesterov, 1983
    AdaGrad                          θ ← θ - α g / √(Σ g² + ε)                Duchi et al., 2011
    RMSProp                          E ← β E + (1 - β) g²,  θ ← θ - α g / √(E + ε)   Hinton, lecture 6e, 2012
    Adam                             Algorithm 1 of Kingma & Ba, 2015, arXiv:1412.6980

The transcription shares nothing with the library but the data, the start and which examples stand in which batch.
RMSProp has a large ε: near the minimum its step is g / √ε times α, and a small one makes a rounding error grow.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo

ROWS, STEPS, SEED = 24, 60, 3
BATCHES = {"batch": None, "stochastic": 1, "mini-batch": 7}
LOSSES = {"mean": 1.0, "half-mean": 0.5}
X = np.random.RandomState(0).uniform(-1.0, 2.0, size=(ROWS, 3))
Y = X @ [1.5, -2.0, 0.5] + 0.7 + 0.3 * np.random.RandomState(1).uniform(-1.0, 1.0, size=ROWS)
START = np.array([0.3, -0.2, 0.9, 0.0])  # three weights and the bias


def descent(θ, gradient, α):
    while True:
        θ = θ - α * gradient(θ)
        yield θ


def averaged_momentum(θ, gradient, α, β):
    v = np.zeros_like(θ)
    while True:
        v = β * v + (1 - β) * gradient(θ)
        θ = θ - α * v
        yield θ


def heavy_ball(θ, gradient, α, γ):
    v = np.zeros_like(θ)
    for t in itertools.count():
        v = γ * v + (α(t) if callable(α) else α) * gradient(θ)
        θ = θ - v
        yield θ


def nesterov(θ, gradient, α, γ):
    """The library keeps the point at which the gradient is taken, θ - γ v: that is what is compared."""
    v = np.zeros_like(θ)
    while True:
        v, before = γ * v + α * gradient(θ - γ * v), θ
        θ = before - v
        yield θ - γ * v


def adagrad(θ, gradient, α, ε):
    squares = np.zeros_like(θ)
    while True:
        g = gradient(θ)
        squares = squares + g**2
        θ = θ - α / np.sqrt(squares + ε) * g
        yield θ


def rmsprop(θ, gradient, α, β, ε):
    mean_square = np.zeros_like(θ)
    while True:
        g = gradient(θ)
        mean_square = β * mean_square + (1 - β) * g**2
        θ = θ - α / np.sqrt(mean_square + ε) * g
        yield θ


def adam(θ, gradient, α, β1, β2, ε):
    m = v = np.zeros_like(θ)
    for t in itertools.count(1):
        g = gradient(θ)
        m = β1 * m + (1 - β1) * g
        v = β2 * v + (1 - β2) * g**2
        m_hat, v_hat = m / (1 - β1**t), v / (1 - β2**t)
        θ = θ - α * m_hat / (np.sqrt(v_hat) + ε)
        yield θ


RULES = {  # name: (the formula, its numbers, ours)
    "descent": (descent, [0.05], "sgd(0.05)"),
    "averaged momentum": (averaged_momentum, [0.1, 0.8], "chain(ema(0.8, debias=False), scale_by_learning_rate(0.1))"),
    "heavy ball": (heavy_ball, [0.03, 0.7], "sgd(0.03, momentum=0.7)"),
    "heavy ball as written": (heavy_ball, [0.03, 0.7], "chain(scale_by_learning_rate(0.03), trace(0.7))"),
    "heavy ball, α falling": (
        heavy_ball,
        [lambda t: 0.05 * 0.9 ** (t / 5), 0.7],
        "chain(scale_by_learning_rate(exponential_decay(0.05, 5, 0.9)), trace(0.7))",
    ),
    "nesterov": (nesterov, [0.03, 0.7], "sgd(0.03, momentum=0.7, nesterov=True)"),
    "adagrad": (adagrad, [0.3, 1e-6], "adagrad(0.3, initial_accumulator_value=0.0, eps=1e-6)"),
    "rmsprop": (rmsprop, [0.02, 0.9, 1e-2], "rmsprop(0.02, decay=0.9, eps=1e-2)"),
    "adam": (adam, [0.05, 0.9, 0.999, 1e-8], "adam(0.05)"),
    "adam, off its defaults": (adam, [0.05, 0.6, 0.9, 1e-2], "adam(0.05, b1=0.6, b2=0.9, eps=1e-2)"),
}


def published(rule, numbers, factor, order):
    """The path [STEPS, 4] by the formulas; `order` [STEPS, k] says which examples each gradient is over."""
    ones, batches = np.append(X, np.ones((ROWS, 1)), axis=1), iter(order)

    def gradient(θ):  # of factor / k · ‖x θ - y‖²
        rows = next(batches)
        x, y = ones[rows], Y[rows]
        return 2 * factor / len(rows) * x.T @ (x @ θ - y)

    return np.array(list(itertools.islice(rule(START, gradient, *numbers), STEPS)))


def loss(params, batch, key):
    """The factor is data, so that both losses are one program."""
    return jnp.mean(batch["factor"] * (batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2)


def ours(optimizer, factor, batch_size):
    """The path [STEPS, 4] of `fit`."""
    path = []

    def record(point):
        path.append(np.append(point.state.params["w"], point.state.params["b"]))

    data = {"x": X, "y": Y, "factor": np.full(ROWS, factor)}
    task = jo.Task(lambda key: {"w": jnp.array(START[:3]), "b": jnp.array(START[3])}, loss, data)
    jo.fit(task, optimizer, STEPS, batch_size, seed=SEED, eval_every=1, callbacks=[record])
    return np.array(path)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("batch", BATCHES)
def test_same_trajectory(name, batch, x64):
    (rule, numbers, text), size = RULES[name], BATCHES[batch]
    order = np.tile(np.arange(ROWS), (STEPS, 1))
    if size is not None:
        order = jo.batch_order(jax.random.key(SEED), ROWS, size, 0, STEPS)
        first = order[: ROWS // size].ravel()
        assert order.shape == (STEPS, size) and len(set(first.tolist())) == len(first)
    for factor in LOSSES.values():
        expected = published(rule, numbers, factor, order)
        path = ours(jo.parse(text), factor, size)
        assert path.dtype == np.float64 and np.abs(np.diff(path, axis=0)).max() > 1e-3
        np.testing.assert_allclose(path, expected, rtol=0, atol=1e-12)


def test_the_forms_differ_where_they_should(x64):
    """So that the comparison above could fail: the momenta, the losses and the batches are told apart."""
    full, order = np.tile(np.arange(ROWS), (STEPS, 1)), jo.batch_order(jax.random.key(SEED), ROWS, 1, 0, STEPS)
    plain = published(descent, [0.05], 1.0, full)
    for other in (
        published(descent, [0.05], 0.5, full),
        published(descent, [0.05], 1.0, order),
        published(heavy_ball, [0.05, 0.7], 1.0, full),
        published(averaged_momentum, [0.05, 0.7], 1.0, full),
    ):
        assert np.abs(plain - other).max() > 1e-3
    by_schedule = ours(jo.parse("sgd(exponential_decay(0.05, 5, 0.9), momentum=0.7)"), 1.0, None)
    formula, numbers, _ = RULES["heavy ball, α falling"]
    assert np.abs(by_schedule - published(formula, numbers, 1.0, full)).max() > 1e-3  # α outside v, or inside it
    # The averaged form with a step 1 / (1 - β) times as long is the heavy ball.
    np.testing.assert_allclose(
        published(averaged_momentum, [0.05 / 0.3, 0.7], 1.0, full), published(heavy_ball, [0.05, 0.7], 1.0, full)
    )
