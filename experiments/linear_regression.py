"""Batch descent and momentum reach the least-squares line; single-sample and mini-batch descent circle around it.

Run      python -m experiments.linear_regression          about 15 s on two CPU cores
Writes   runs/linear_regression/{result.json, paths.png}
Data     100 points of y = 4 + 3x + noise, x uniform in [0, 2), noise normal with deviation 1
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo

POINTS, BIAS, SLOPE = 100, 4.0, 3.0
STEPS = 400
DESCENTS = {  # name: (optimizer, batch size)
    "batch": (jo.sgd(0.2), None),
    "momentum": (jo.sgd(0.1, momentum=0.8), None),
    "mini-batch of 16": (jo.sgd(0.05), 16),
    "stochastic": (jo.sgd(0.02), 1),
}
EXACT = {"batch": 1e-3, "momentum": 1e-3}  # largest distance to the least-squares solution
CIRCLING = 1.0  # likewise, for the others
DIRECTORY = Path("runs/linear_regression")


def data(seed=0):
    """{"x": [100], "y": [100]}, float32."""
    x_key, noise_key = jax.random.split(jax.random.key(seed))
    x = 2 * jax.random.uniform(x_key, (POINTS,))
    return {"x": x, "y": BIAS + SLOPE * x + jax.random.normal(noise_key, (POINTS,))}


def loss(params, batch, key):
    """Half the mean squared error."""
    return jnp.mean((params["bias"] + params["slope"] * batch["x"] - batch["y"]) ** 2) / 2


def task():
    """From the origin; all points are for training, and the loss over all of them is what is watched."""
    points = data()
    return jo.Task(lambda key: {"bias": jnp.zeros(()), "slope": jnp.zeros(())}, loss, points, valid=points)


OPTIMIZER = "sgd(0.2)"  # for the command line


def least_squares(points):
    """(bias, slope) of the exact solution, in float64."""
    x, y = np.asarray(points["x"], np.float64), np.asarray(points["y"], np.float64)
    return np.linalg.lstsq(np.stack([np.ones_like(x), x], axis=1), y)[0]


def run():
    """For each descent its path, [steps + 1, 2], and its losses; and the exact solution."""
    problem, found = task(), {}
    for name, (optimizer, batch_size) in DESCENTS.items():
        path = [[0.0, 0.0]]

        def record(point, path=path):
            path.append([float(point.state.params["bias"]), float(point.state.params["slope"])])

        result = jo.fit(problem, optimizer, STEPS, batch_size, eval_every=1, min_grad_norm=1e-5, callbacks=[record])
        found[name] = {
            "optimizer": repr(optimizer),
            "status": result.status,
            "steps": result.steps,
            "path": path,
            "loss": result.history["valid.loss"].tolist(),
        }
    return found, least_squares(data())


def draw(found, exact, path):
    """The fitted lines, the losses, and the paths through the plane of parameters."""
    from matplotlib.figure import Figure

    points = {name: np.asarray(column) for name, column in data().items()}
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    lines, losses, plane = figure.subplots(1, 3)
    lines.scatter(points["x"], points["y"], s=12, color="0.6", label="data")
    x = np.array([0.0, 2.0])
    lines.plot(x, exact[0] + exact[1] * x, color="black", linewidth=3, alpha=0.4, label="least squares")
    best = np.mean((exact[0] + exact[1] * points["x"] - points["y"]) ** 2) / 2
    b, m = np.meshgrid(np.linspace(-0.5, 6, 80), np.linspace(-0.5, 5.5, 80))
    height = np.mean((b[..., None] + m[..., None] * points["x"] - points["y"]) ** 2, axis=-1) / 2
    plane.contour(b, m, height, levels=best + np.geomspace(0.02, 20, 12), colors="0.8", linewidths=0.7)
    for i, (name, descent) in enumerate(found.items()):
        walked = np.array(descent["path"])
        lines.plot(x, walked[-1, 0] + walked[-1, 1] * x, color=f"C{i}", linewidth=1, label=name)
        above = np.array(descent["loss"]) - best
        losses.plot(np.arange(1, len(above) + 1), np.maximum(above, 1e-8), color=f"C{i}", linewidth=1.2, label=name)
        plane.plot(*walked.T, color=f"C{i}", linewidth=1, label=name)
    plane.plot(*exact, marker="*", markersize=14, color="black", linestyle="none", label="least squares")
    lines.set(xlabel="x", ylabel="y", title="fitted lines")
    losses.set(xlabel="step", ylabel="loss above the least one", yscale="log", ylim=(1e-7, None), title="losses")
    plane.set(xlabel="bias", ylabel="slope", title="paths")
    for axes in (lines, losses, plane):
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def main():
    """Run, check the claim, write."""
    found, exact = run()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    print(f"{'least squares':18} bias {exact[0]:.4f}  slope {exact[1]:.4f}")
    for name, descent in found.items():
        bias, slope = descent["path"][-1]
        distance = descent["distance"] = float(np.hypot(bias - exact[0], slope - exact[1]))
        end = f"{descent['status']} after {descent['steps']} steps"
        print(f"{name:18} bias {bias:.4f}  slope {slope:.4f}  distance {distance:.1e}  {end}")
    (DIRECTORY / "result.json").write_text(json.dumps({"exact": exact.tolist(), **found}, indent=1))
    draw(found, exact, DIRECTORY / "paths.png")
    for name, descent in found.items():
        assert descent["distance"] < EXACT.get(name, CIRCLING), name
        assert name in EXACT or descent["distance"] > max(EXACT.values()), name


if __name__ == "__main__":
    main()
