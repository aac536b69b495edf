"""Descent over all points ends in the least-squares line; over few it circles around it, unless its rate falls.

Run      python -m experiments.linear_regression [--quick]          about 20 s on two CPU cores
Writes   runs/linear_regression/{result.json, paths.png}
Data     100 points of y = 4 + 3x + noise, x uniform in [0, 2), noise normal with deviation 1; and the five points
         of a published example, fitted with its two mistakes and without
Result   batch and both momenta end within 1e-4; stochastic 0.10 away at a constant rate, 0.02 where the rate falls to 0

Heavy ball, v = γv + αg, and averaged momentum, v = γv + (1 - γ)g, are one path where the second has a 1 / (1 - γ) times
larger α. The mean loss is the half-mean with twice the gradient: one path at half the rate, and a gradient norm
that is small enough later. The five points' columns differ by a constant, so many planes are best: descent from zero
ends in the shortest. Climbing instead (a sign) and comparing all with all (a column against a row) are shown beside it.
"""

import functools
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from experiments import record

POINTS, BIAS, SLOPE = 100, 4.0, 3.0
STEPS, SEEDS, SMALL_GRADIENT, FIVE_RATE = 1000, 16, 1e-5, 0.01
AVERAGED = jo.chain(jo.ema(0.8, debias=False), jo.scale_by_learning_rate(0.5))
DESCENTS = {  # name: (optimizer, batch size, factor of the mean squared error)
    "batch": (jo.sgd(0.2), None, 0.5),
    "batch, mean loss": (jo.sgd(0.1), None, 1.0),
    "heavy ball": (jo.sgd(0.1, momentum=0.8), None, 0.5),
    "averaged momentum": (AVERAGED, None, 0.5),
    "mini-batch of 16": (jo.sgd(0.05), 16, 0.5),
    "stochastic": (jo.sgd(0.05), 1, 0.5),
    "stochastic, rate falling": (jo.sgd(jo.cosine_decay_schedule(0.05, STEPS)), 1, 0.5),
}
ARRIVES = ("batch", "batch, mean loss", "heavy ball", "averaged momentum")
FIGURES = ("optimizer", "status", "steps", "distance", "distances")
OPTIMIZER = "sgd(0.2)"  # for the command line
FIVE_X = np.array([[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]], np.float32)
FIVE_Y = np.array([1, 3, 2, 4, 5], np.float32)


def data(seed=0):
    """{"x": [100], "y": [100]}, float32."""
    x_key, noise_key = jax.random.split(jax.random.key(seed))
    x = 2 * jax.random.uniform(x_key, (POINTS,))
    return {"x": x, "y": BIAS + SLOPE * x + jax.random.normal(noise_key, (POINTS,))}


def loss(params, batch, key, factor=0.5):
    """The mean squared error, or half of it."""
    return factor * jnp.mean((params["bias"] + params["slope"] * batch["x"] - batch["y"]) ** 2)


def task(factor=0.5):
    """From the origin; all points are for training, and the half-mean loss over them is what is watched."""
    points = data()
    evaluate = lambda params, points: {"loss": loss(params, points, None), **params}
    start = lambda key: {"bias": jnp.zeros(()), "slope": jnp.zeros(())}
    return jo.Task(start, functools.partial(loss, factor=factor), points, valid=points, evaluate=evaluate)


def least_squares(*columns, y):
    """The shortest of the exact solutions, in float64."""
    return np.linalg.lstsq(np.stack([np.asarray(c, np.float64) for c in columns], axis=1), np.float64(y))[0]


def descend():
    """For each descent why it ended, its paths, [seeds, steps, 2], and its losses, [seeds, steps]."""
    found, rules = {}, {"eval_every": 1, "min_grad_norm": SMALL_GRADIENT, "seeds": SEEDS}
    for name, (optimizer, batch_size, factor) in DESCENTS.items():
        result = jo.fit(task(factor), optimizer, STEPS, batch_size, **rules)
        path = np.stack([result.history["valid.bias"], result.history["valid.slope"]], axis=-1)
        found[name] = {"optimizer": repr(optimizer), "status": result.status[0], "steps": result.steps[0]}
        found[name] |= {"path": path, "loss": result.history["valid.loss"]}
    return found


def plane(params, x):
    """x w + b, [n] for weights [2], and [n, 1] for weights [2, 1]."""
    return x @ params["w"] + params["b"]


def five_loss(params, batch, key):
    """The mean squared error, where prediction and y have one shape; where not, of all against all."""
    return jnp.mean((plane(params, batch["x"]) - batch["y"]) ** 2)


def five_points(steps):
    """The published example with its mistakes and without: predictions, losses, and the message of each."""
    flat, column = ({"w": jnp.zeros(shape), "b": jnp.zeros(())} for shape in ((2,), (2, 1)))
    problem = jo.Task(lambda key: flat, five_loss, {"x": FIVE_X, "y": FIVE_Y})

    def fit(params, optimizer):
        result = jo.fit(problem, optimizer, steps, None, eval_every=1, params=params)
        fitted = np.ravel(plane(result.params, FIVE_X))
        return {
            "params": result.params,
            "fitted": fitted,
            "loss": result.history["train.loss"],
            "said": result.message,
        }

    rule = jo.sgd(FIVE_RATE)
    right, broadcast = fit(flat, rule), fit(column, rule)
    climbing = fit(flat, jo.scale(FIVE_RATE))  # the gradient itself, added
    climbing["refused"] = error_of(lambda: jo.sgd(-FIVE_RATE))
    residual = plane(column, FIVE_X) - FIVE_Y  # (5, 1) - (5,) is (5, 5)
    grads = {"w": FIVE_X.T @ np.asarray(residual) / 5, "b": residual.mean()}
    broadcast["refused"] = error_of(lambda: rule.update(grads, rule.init(column), column))
    with jax.numpy_rank_promotion("raise"):
        broadcast["strict"] = error_of(lambda: fit(column, rule))
    exact = least_squares(*FIVE_X.T, np.ones(5), y=FIVE_Y)
    return {"right": right, "climbing": climbing, "broadcast": broadcast}, exact


def error_of(call):
    """The text of an error."""
    try:
        call()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("no error was raised")


def main(quick=False):
    """Run, write, and check the claim."""
    directory, points = record.folder("linear_regression", quick), data()
    exact = least_squares(np.ones(POINTS), points["x"], y=points["y"])
    found = descend()
    five, best = five_points(1000 if quick else 3000)
    for name, descent in found.items():
        descent["distances"] = np.linalg.norm(descent["path"][:, -1] - exact, axis=-1)
        mean = descent["distance"] = float(descent["distances"].mean())
        print(f"{name:26} {mean:.1e} from least squares, {descent['status']} at step {descent['steps']}")
    for name, attempt in five.items():
        print(
            f"five points, {name}: fitted {attempt['fitted']}; " + "; ".join(str(v) for v in list(attempt.values())[3:])
        )
    figures = {name: {key: descent[key] for key in FIGURES} for name, descent in found.items()}
    endings = {name: {**attempt, "loss": attempt["loss"][-1]} for name, attempt in five.items()}
    record.write(directory, {"exact": exact, **figures, "five points": {"exact": best, **endings}})
    draw(found, exact, five, best, directory / "paths.png")

    far = {name: descent["distance"] for name, descent in found.items()}
    for name in ARRIVES:
        assert far[name] < 1e-3 and found[name]["status"] == "min_grad_norm", name
    assert min(far["mini-batch of 16"], far["stochastic"]) > 1e-2 and far["stochastic"] < 1, far
    assert far["stochastic, rate falling"] < far["stochastic"] / 2, far
    for one, other in (("heavy ball", "averaged momentum"), ("batch", "batch, mean loss")):
        n = min(found[one]["steps"], found[other]["steps"])
        np.testing.assert_allclose(found[one]["path"][:, :n], found[other]["path"][:, :n], atol=1e-4)
    assert found["batch"]["steps"] < found["batch, mean loss"]["steps"]
    got = five["right"]["params"]
    np.testing.assert_allclose([*got["w"], got["b"]], best, atol=0.05 if quick else 2e-3)
    np.testing.assert_allclose(five["broadcast"]["fitted"], FIVE_Y.mean(), atol=0.5 if quick else 0.02)
    assert "no longer finite" in five["climbing"]["said"] and "at least 0" in five["climbing"]["refused"]
    assert "(2, 5)" in five["broadcast"]["refused"] and "rank_promotion" in five["broadcast"]["strict"]


def draw(found, exact, five, best, path):
    """Above: fitted lines, losses and paths. Below: the five points, their losses, and the messages."""
    points = {name: np.asarray(column) for name, column in data().items()}
    figure = record.figure(15, 8.4)
    (lines, losses, paths), (fits, wrongs, messages) = figure.subplots(2, 3)
    x = np.array([0.0, 2.0])
    lines.scatter(points["x"], points["y"], s=12, color="0.7")
    least = np.mean((exact[0] + exact[1] * points["x"] - points["y"]) ** 2) / 2
    b, m = np.meshgrid(np.linspace(-0.5, 6, 80), np.linspace(-0.5, 5.5, 80))
    height = np.mean((b[..., None] + m[..., None] * points["x"] - points["y"]) ** 2, axis=-1) / 2
    paths.contour(b, m, height, levels=least + np.geomspace(0.02, 20, 12), colors="0.8", linewidths=0.7)
    for i, (name, descent) in enumerate(found.items()):
        style = {
            "color": f"C{i}",
            "label": name,
            "linestyle": ":" if name in ("averaged momentum", ARRIVES[1]) else "-",
        }
        style["linewidth"] = 2.5 if style["linestyle"] == ":" else 1.1
        walked = np.concatenate([np.zeros((1, 2)), descent["path"][0]])
        above = np.maximum(descent["loss"].mean(axis=0) - least, 1e-8)
        lines.plot(x, walked[-1, 0] + walked[-1, 1] * x, **style)
        losses.plot(np.arange(1, len(above) + 1), above, **style)
        paths.plot(*walked.T, **style)
    lines.plot(x, exact[0] + exact[1] * x, color="black", linewidth=4, alpha=0.3, label="least squares")
    paths.plot(*exact, marker="*", markersize=14, color="black", linestyle="none", label="least squares", zorder=9)
    lines.set(xlabel="x", ylabel="y", title="100 points: fitted lines")
    losses.set(
        xlabel="step",
        ylabel="loss above the least",
        yscale="log",
        ylim=(1e-7, None),
        title=f"losses, mean of {SEEDS} orders",
    )
    paths.set(xlabel="bias", ylabel="slope", title="paths from (0, 0)")
    lines.legend(frameon=False, fontsize=8)

    fits.plot(FIVE_X[:, 0], FIVE_Y, "o", color="0.4", label="data")
    fits.plot(FIVE_X[:, 0], FIVE_X @ best[:2] + best[2], color="black", linewidth=5, alpha=0.3, label="least squares")
    for i, (name, attempt) in enumerate(five.items()):
        if np.isfinite(attempt["fitted"]).all() and np.abs(attempt["fitted"]).max() < 10:
            fits.plot(FIVE_X[:, 0], attempt["fitted"], color=f"C{i}", label=name)
        wrongs.plot(np.arange(1, 1 + len(attempt["loss"])), attempt["loss"], color=f"C{i}", label=name)
    fits.set(xlabel="first column of X", ylabel="y", title="five points: fitted values")
    wrongs.set(xlabel="step", ylabel="loss", xscale="log", yscale="log", ylim=(0.1, 1e8), title="their losses")
    wrongs.axhline(np.var(FIVE_Y), color="0.6", linewidth=0.8, linestyle="--", label="variance of y")
    for axes in (fits, wrongs):
        axes.legend(frameon=False, fontsize=8)
    words = {
        "the sign is wrong": five["climbing"]["refused"],
        "... or in a rule of one's own": five["climbing"]["said"].split(":")[0],
        "(5, 1) against (5,), gradient by hand": five["broadcast"]["refused"].split(" (look")[0],
        "... gradient by JAX: nothing, but with rank promotion off": five["broadcast"]["strict"].split(". For")[0],
    }
    messages.set_axis_off()
    messages.set_title("messages")
    text = "\n\n".join(
        "\n".join([f"{k}:", *textwrap.wrap(v, 58, initial_indent="  ", subsequent_indent="  ")])
        for k, v in words.items()
    )
    messages.text(
        0, 0.97, text, va="top", fontsize=8.5, family="monospace", transform=messages.transAxes, parse_math=False
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
