"""Methods that use curvature arrive where gradient descent does not; Jacobians save evaluations, but not time.

Run      python -m experiments.second_order [--quick]          about 90 s on two CPU cores
Writes   runs/second_order/{result.json, races.png}
Data     breast_cancer and digits of scikit-learn; the digits averaged to 4 x 4 pixels
Result   TODO

Float64, whole batches: a quadratic in 100 dimensions with condition 1e6; Rosenbrock's valley in 10 and 100; logistic
regression with a small penalty; and a network 16 - 8 - 10 of tanh units with squared errors on one-hot targets and a
small penalty (226 parameters). Logistic regression is no sum of squares, so two methods are missing there. Momentum has
the best rate and decay of a grid for each problem, whose runs are not counted.

An evaluation is a value with its gradient, or residuals with their Jacobian, however dear; a product with the Hessian
counts as two. Seconds are those of a warm compiled run, shared out among its steps by these counts.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from experiments import digits, record

CONDITION, SIZE = 1e6, 100
HIDDEN, PIXELS, PENALTY = 8, 16, 1e-4
QUICK, FEW = ("quadratic", "network"), 10  # evaluations after which methods are compared
TOL = 1e-8  # of the gradient, relative, see jo.Objective
RATES, DECAYS = np.logspace(-4, 1.5, 12), (0.9, 0.99)
CHEAP, SEARCH = 3000, 1000  # steps at most of a method that needs gradients only, and of one run of momentum's search
REPEATS, ENOUGH_SECONDS = 9, 0.3  # a run is timed so often or so long; the least counts
METHODS = {
    "gradient descent": jo.solvers.gradient_descent(),
    "momentum": None,  # its numbers are searched
    "L-BFGS": jo.solvers.lbfgs(),
    "Newton-CG": jo.solvers.newton_cg(),
    "Gauss-Newton": jo.solvers.gauss_newton(),
    "Levenberg-Marquardt": jo.solvers.levenberg_marquardt(),
}
FIRST_ORDER = ("gradient descent", "momentum")
SQUARES = ("Gauss-Newton", "Levenberg-Marquardt")
COLORS = dict(zip(METHODS, ("0.55", "C1", "C0", "C3", "C2", "C4"), strict=True))


class Problem(NamedTuple):
    """What is minimized: half the sum of squared residuals, or a value, both of (params, *data)."""

    function: Callable
    data: tuple
    starts: tuple
    is_squares: bool
    steps: int  # at most, of methods that are not cheap

    def objective(self, data):
        """For use within a trace."""
        function = lambda params: self.function(params, *data)
        return jo.Objective(tol=TOL, **{"residual" if self.is_squares else "f": function})


class Race(NamedTuple):
    """What a run of a method measured."""

    values: np.ndarray  # [steps], the least so far
    evaluations: np.ndarray  # [steps], in all so far, products with the Hessian counted
    seconds: float
    status: int
    params: Any


def linear(x, root, target):
    """Residuals of the quadratic ½ (x - x*)ᵀ H (x - x*), with H = rootᵀ root and root x* = target."""
    return root @ x - target


def rosenbrock(x):
    """Residuals of the valley, halved squares: ½ of the usual value."""
    return jnp.concatenate([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]])


def logistic(w, x, sign):
    """Mean logistic loss and a penalty of all weights but the constant's."""
    return jnp.mean(jax.nn.softplus(-sign * (x @ w[1:] + w[0]))) + PENALTY / 2 * jnp.sum(w[1:] ** 2)


def outputs(params, x):
    """[n, 10] of images [n, 16]."""
    return jnp.tanh(x @ params["a"] + params["b"][None]) @ params["c"] + params["d"][None]


def errors(params, x, y):
    """Residuals of the network, and those of the penalty."""
    weights = jnp.concatenate([params["a"].ravel(), params["c"].ravel()])
    return (outputs(params, x) - y) / np.sqrt(len(y)), np.sqrt(PENALTY) * weights


def network(seed):
    """Parameters at the start."""
    one, two = jax.random.split(jax.random.key(seed))
    return {
        "a": jax.random.normal(one, (PIXELS, HIDDEN)) / PIXELS**0.5,
        "b": jnp.zeros(HIDDEN),
        "c": jax.random.normal(two, (HIDDEN, 10)) / HIDDEN**0.5,
        "d": jnp.zeros(10),
    }


def images(part):
    """Of the digits, averaged over 2 x 2 pixels and centred at 0, [n, 16], and one-hot labels [n, 10]."""
    pixels = part["image"].astype(np.float64).reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, PIXELS)
    return jnp.asarray(2 * pixels - 1), jnp.eye(10)[part["label"]]


def problems(quick):
    """All of them, by name."""
    from sklearn.datasets import load_breast_cancer

    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    root = np.geomspace(1, CONDITION**-0.5, SIZE)[:, None] * turn
    columns, label = load_breast_cancer(return_X_y=True)
    columns = (columns - columns.mean(0)) / columns.std(0)
    train = digits.data()[0]
    train = digits.data()[0]
    target = root @ rng.normal(size=SIZE)
    valley = lambda n: Problem(rosenbrock, (), (jnp.zeros(n),), True, 1000)
    found = {
        "quadratic": Problem(linear, (jnp.asarray(root), jnp.asarray(target)), (jnp.zeros(SIZE),), True, 200),
        "Rosenbrock 10": valley(10),
        "Rosenbrock 100": valley(100),
        "logistic regression": Problem(
            logistic, (jnp.asarray(columns), jnp.asarray(2.0 * label - 1)), (jnp.zeros(31),), False, 200
        ),
        "network": Problem(
            errors, images(train), tuple(map(network, range(1 if quick else 3))), True, FEW if quick else 50
        ),
    }
    return {title: found[title] for title in QUICK} if quick else found


def steps_of(problem, name):
    """The number of steps that a method may take."""
    return problem.steps if name in (*SQUARES, "Newton-CG") else CHEAP


def runner(problem, steps):
    """The function (method, start, data) -> (params, status, steps taken, values, evaluations with products)."""

    def run(method, start, data):
        objective, is_solver = problem.objective(data), isinstance(method, jo.Solver)
        state = method.init(objective, start) if is_solver else method.init(start)
        empty = jnp.full(steps, jnp.nan)

        def step(carry):
            params, state, _, count, cost, values, costs = carry
            params, state, info = jo.advance(method, objective, params, state)
            made = cost + info.evaluations
            cost = made + 2 * getattr(state, "products", 0)  # the state counts the products of the whole run
            values, costs = values.at[count].set(info.value), costs.at[count].set(cost)
            return params, state, info.status, count + 1, made, values, costs

        going = lambda carry: (carry[2] == jo.Status.RUNNING) & (carry[3] < steps)
        first = (start, state, jnp.int32(jo.Status.RUNNING), jnp.int32(0), jnp.int32(0), empty, empty)
        params, _, status, count, _, values, costs = jax.lax.while_loop(going, step, first)
        return params, status, count, values, costs

    return jax.jit(run)


def tuned(problem):
    """Momentum with the numbers that reach the least value from the first start; they serve the others too."""
    run = runner(problem, SEARCH)
    one = lambda rate, decay: run(jo.sgd(rate, momentum=decay), problem.starts[0], problem.data)[3][-1]
    rates, decays = (jnp.asarray(v.ravel()) for v in np.meshgrid(RATES, DECAYS))
    ends = np.asarray(jax.jit(jax.vmap(one))(rates, decays))
    best = int(np.argmin(np.where(np.isfinite(ends), ends, np.inf)))
    return jo.sgd(float(rates[best]), momentum=float(decays[best]))


def race(problem, method, steps):
    """A `Race` from each start."""
    run = runner(problem, steps).lower(method, problem.starts[0], problem.data).compile()
    races = []
    for start in problem.starts:
        seconds = []
        while len(seconds) < REPEATS and sum(seconds) < ENOUGH_SECONDS:
            began = time.perf_counter()
            params, status, count, values, costs = jax.block_until_ready(run(method, start, problem.data))
            seconds.append(time.perf_counter() - began)
        values = np.nan_to_num(np.asarray(values)[: int(count)], nan=np.inf)
        costs = np.asarray(costs)[: int(count)]
        races.append(Race(np.minimum.accumulate(values), costs, min(seconds), int(status), params))
    return races


def ending(race):
    """Why a run ended."""
    return jo.Status(race.status or jo.Status.MAX_STEPS).name


def reach(race, level):
    """Evaluations and seconds to a value of at most `level`, or None twice."""
    below = np.flatnonzero(race.values <= level)
    if not len(below):
        return {"evaluations": None, "seconds": None}
    cost = race.evaluations[below[0]]
    return {"evaluations": int(cost), "seconds": race.seconds * float(cost / race.evaluations[-1])}


def main(quick=False):
    """Run, write, and check the claim."""
    from threadpoolctl import threadpool_limits

    # With threads of its own on two cores, LAPACK's QR factorization takes up to ten times as long.
    with jax.enable_x64(True), threadpool_limits(1):
        directory, found, figures = record.folder("second_order", quick), {}, {}
        test_x, test_y = images(digits.data()[2])
        for title, problem in problems(quick).items():
            races = found[title] = {}
            for name, method in METHODS.items():
                if problem.is_squares or name not in SQUARES:
                    method = tuned(problem) if method is None else method
                    races[name] = race(problem, method, steps_of(problem, name))
                    figures.setdefault(title, {})[name] = {"method": repr(method)}
            best = min(r.values.min() for runs in races.values() for r in runs)
            start = max(r.values[0] for runs in races.values() for r in runs)
            for name, runs in races.items():
                row = figures[title][name]
                row |= {"value": [r.values[-1] for r in runs], "status": [ending(r) for r in runs]}
                row |= {"evaluations": [int(r.evaluations[-1]) for r in runs], "seconds": [r.seconds for r in runs]}
                row["steps"] = [len(r.values) for r in runs]
                if title == "network":
                    hits = [jnp.mean(jnp.argmax(outputs(r.params, test_x), 1) == jnp.argmax(test_y, 1)) for r in runs]
                    row["test_accuracy"] = [float(hit) for hit in hits]
                    for count in (FEW, 50):
                        row[f"after {count}"] = [
                            float(r.values[r.evaluations <= count][-1:].min(initial=np.inf)) for r in runs
                        ]
                else:
                    row["above"] = float(runs[0].values[-1] - best)
                    row["to_1e-6"] = reach(runs[0], best + 1e-6 * (start - best))
                print(f"{title:20} {name:20} " + line(row))
            figures[title]["best"] = best
        record.write(directory, figures)
        draw(found, figures, directory / "races.png")
    check(figures, quick)


def line(row):
    """A row in words."""
    if "test_accuracy" in row:
        means = (np.mean(row[key]) for key in ("value", "test_accuracy", "evaluations", "seconds"))
        return "loss {:.4f}, test accuracy {:.3f}, {:.0f} evaluations, {:.3f} s".format(*means)
    reached = row["to_1e-6"]
    end = "at the end {:.1e} above the best, {}".format(row["above"], row["status"][0].lower())
    if reached["evaluations"] is None:
        return f"to 1e-6: not in {row['evaluations'][0]} evaluations, {1e3 * row['seconds'][0]:.2f} ms; {end}"
    return f"to 1e-6: {reached['evaluations']} evaluations, {1e3 * reached['seconds']:.2f} ms; {end}"


def check(figures, quick):
    """The claim, as far as it does not depend on the clock."""
    for title in set(figures) - {"network"}:
        reached = {name: row["to_1e-6"]["evaluations"] for name, row in figures[title].items() if name != "best"}
        assert all(reached[name] for name in METHODS if name in reached and name not in FIRST_ORDER), (title, reached)
        if title != "logistic regression":
            assert reached["gradient descent"] is None, (title, reached)
            assert reached["Levenberg-Marquardt"] < 0.8 * reached["L-BFGS"], (title, reached)
            assert reached["Newton-CG"] > reached["L-BFGS"], (title, reached)  # since products are dear
        else:
            assert reached["L-BFGS"] < reached["Newton-CG"] < reached["gradient descent"], reached
    rows = {name: row for name, row in figures["network"].items() if name != "best"}
    after = {name: np.mean(row[f"after {FEW if quick else 50}"]) for name, row in rows.items()}
    assert max(after[name] for name in SQUARES) < 0.8 * min(after[name] for name in after if name not in SQUARES), after
    last = {name: np.mean(row["value"]) for name, row in rows.items()}
    assert last["L-BFGS"] < 0.9 * last["gradient descent"], last
    assert quick or last["Newton-CG"] < 0.9 * last["gradient descent"], last
    assert min(np.mean(row["test_accuracy"]) for row in rows.values()) > 0.7, rows


def draw(found, figures, path):
    """Above the loss by evaluations, below by seconds; a column for each problem."""
    figure = record.figure(20, 8.5)
    axes = figure.subplots(2, len(found), sharey="col")
    for column, (title, races) in zip(axes.T, found.items(), strict=True):
        is_network = title == "network"
        floor = 0 if is_network else figures[title]["best"]
        top = max(r.values[0] for runs in races.values() for r in runs) - floor
        for name, runs in races.items():
            for i, r in enumerate(runs):
                above = r.values - floor if is_network else np.maximum(r.values - floor, 1e-13 * top)
                style = {"color": COLORS[name], "linewidth": 1.6 if i == 0 else 0.8, "label": name if i == 0 else None}
                column[0].plot(r.evaluations, above, **style)
                column[1].plot(r.evaluations / r.evaluations[-1] * r.seconds, above, **style)
                for panel, end in zip(column, (r.evaluations[-1], r.seconds), strict=True):
                    panel.plot(end, above[-1], "o", color=COLORS[name], markersize=4)
        column[0].set(title=title, xlabel="evaluations", xscale="log", yscale="log")
        column[1].set(xlabel="seconds", xscale="log")
        column[0].set_ylim((0.11, 0.6) if is_network else (3e-14 * top, 3 * top))
        for panel in column:
            panel.set_ylabel("loss" if is_network else "loss above the least")
            panel.grid(alpha=0.25)
            if is_network:
                panel.set_yticks((0.12, 0.15, 0.2, 0.3, 0.4, 0.5), ("0.12", "0.15", "0.2", "0.3", "0.4", "0.5"))
                panel.minorticks_off()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
