"""Descent ends in the nearest minimum; each kind of search finds the lowest one on some functions, and none on all.

Run      python -m experiments.global_search [--quick]          about 6 min on two CPU cores
Writes   runs/global_search/{result.json, paths.png, success.png, network.png}
Result   success in percent of 64 keys, with 95 % intervals, after 3,000, 20,000, 20,000 and 10,000 evaluations
                               Rastrigin 2      Rastrigin 10     rotated 10     network
             L-BFGS-B            2 [0, 8]         0 [0, 6]        0 [0, 6]      31 [21, 43]
             multistart         50 [38, 62]       0 [0, 6]        0 [0, 6]      44 [32, 56]
             basin hopping      80 [68, 88]       0 [0, 6]        0 [0, 6]      67 [55, 77]
             annealing + grad.  97 [89, 99]      48 [37, 60]     53 [41, 65]     0 [0, 6]
             genetic           100 [94, 100]    100 [94, 100]     0 [0, 6]       0 [0, 6]
             CMA-ES             94 [85, 98]       6 [2, 15]       8 [3, 17]      2 [0, 8]

Problems, in a box, with another instance or start for each key, and success:
    Rastrigin 2, Rastrigin 10     the valley's bottom is moved at random; a value of at most 0.1, where the second
                                  lowest minimum has 0.995
    rotated Rastrigin 10          turned at random too, so that it is no sum over coordinates
    network                       1 - 3 - 1 with tanh units and a small penalty, fitted to 20 points of sin 4x; a loss
                                  of at most 0.02, where the least one known in the box is 0.0154; gradient
                                  descent and Adam know no box, and come to 0.012 outside

A value counts as one evaluation, a value with its gradient as three: reverse mode costs about twice the value on top of
it. Every method has the same budget. One that ends before begins again with a new key at a random point, except
the three descents from one start, which show where a descent ends. Settings are the defaults, apart from lengths of
schedules, which fit the budget. The first start is uniform in the box, of the network normal, as networks are begun.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from experiments import record

KEYS, QUICK_KEYS = 64, 64
LEVELS = 120  # points of the curves
EDGE, SHIFT = 5.12, 3.0  # of Rastrigin's box, and of the random move of its optimum
UNITS, POINTS, PENALTY, LIMIT = 3, 20, 1e-4, 10.0  # of the network, and the box of its weights
LOCAL_STEPS = 5  # of the hybrids for each point
CHAINS = 4
WIDTH = 8  # keys side by side
GRADIENT = 3  # evaluations that a value with its gradient counts as


class Problem(NamedTuple):
    """f(params, data) in a box, with instances and starts drawn from keys."""

    f: Callable
    size: int
    edge: float
    draw: Callable  # key -> (data, start)
    goal: float
    budget: int


class Entry(NamedTuple):
    """A method, what its evaluations count as, and whether it begins again when it ends."""

    method: Any
    price: int = 1
    again: bool = True


def rastrigin(x, data):
    """10 n + Σ zᵢ² - 10 cos 2πzᵢ, z = R (x - x*); Rastrigin, 1974, in the form of Mühlenbein et al., 1991."""
    optimum, turn = data
    z = turn @ (x - optimum)
    return 10 * z.size + jnp.sum(z**2 - 10 * jnp.cos(2 * jnp.pi * z))


def instance(n, is_turned):
    """Draws Rastrigin's function: its optimum, its rotation, and a start."""

    def draw(key):
        keys = jax.random.split(key, 3)
        turn = jnp.linalg.qr(jax.random.normal(keys[1], (n, n)))[0] if is_turned else jnp.eye(n)
        optimum = jax.random.uniform(keys[0], (n,), minval=-SHIFT, maxval=SHIFT)
        return (optimum, turn), jax.random.uniform(keys[2], (n,), minval=-EDGE, maxval=EDGE)

    return draw


def outputs(w, x):
    """The network's outputs at x [k]; w holds weights, biases, weights of the output, and its bias."""
    a, b, c = w[: 3 * UNITS].reshape(3, UNITS)
    return jnp.tanh(x[:, None] * a[None] + b[None]) @ c + w[-1]


def curve(x):
    """What the network is fitted to."""
    return jnp.sin(4 * x)


def loss(w, x):
    """Mean squared error and a penalty."""
    return jnp.mean((outputs(w, x) - curve(x)) ** 2) + PENALTY * jnp.mean(w**2)


def problems(quick):
    """All of them, by name."""
    weights = 3 * UNITS + 1
    valley = lambda n, is_turned, budget: Problem(rastrigin, n, EDGE, instance(n, is_turned), 0.1, budget)
    begin = lambda key: (jnp.linspace(-2, 2, POINTS), jax.random.normal(key, (weights,)))
    found = {
        "Rastrigin 2": valley(2, False, 3000),
        "Rastrigin 10": valley(10, False, 20_000),
        "rotated Rastrigin 10": valley(10, True, 20_000),
        "network": Problem(loss, weights, LIMIT, begin, 0.02, 10_000),
    }
    return {"Rastrigin 2": found["Rastrigin 2"]} if quick else found


def methods(budget, quick):
    """The contenders for a budget, by name."""
    search, local = jo.search, jo.solvers.lbfgsb()
    schedule = lambda cost: max(10, budget // cost)
    starts = 2 ** int(np.log2(budget))  # more than the budget lasts
    found = {
        "gradient descent": Entry(jo.solvers.gradient_descent(), GRADIENT, again=False),
        "Adam": Entry(jo.adam(0.05), GRADIENT, again=False),
        "L-BFGS-B": Entry(local, GRADIENT, again=False),
        "random search": Entry(search.random_search()),
        "multistart": Entry(search.multistart(local, starts=starts), GRADIENT),
        "multistart, worst replaced": Entry(search.multistart(local, 0.5, starts=starts, period=4), GRADIENT),
        "basin hopping": Entry(search.basin_hopping(local, hops=budget, chains=CHAINS), GRADIENT),
        "annealing": Entry(search.simulated_annealing(steps=schedule(16))),
        "annealing + gradients": Entry(
            search.simulated_annealing(
                steps=schedule(GRADIENT * CHAINS * LOCAL_STEPS), local=local, chains=CHAINS, local_steps=LOCAL_STEPS
            ),
            GRADIENT,
        ),
        "genetic": Entry(search.genetic()),
        "genetic + gradients": Entry(search.genetic(local=local, population=16, local_steps=LOCAL_STEPS), GRADIENT),
        "differential evolution": Entry(search.differential_evolution()),
        "CMA-ES": Entry(search.cma_es()),
    }
    few = ("gradient descent", "random search", "multistart", "annealing", "CMA-ES")
    return {name: found[name] for name in few} if quick else found


@functools.cache
def runner(f, size, edge, budget, name, quick):
    """The function (keys, data, starts) -> best values [keys, levels], compiled; of a method by its name."""
    entry, levels = methods(budget, quick)[name], levels_of(budget)
    method, is_solver = entry.method, isinstance(entry.method, jo.Solver)
    low, high = jnp.full(size, -edge), jnp.full(size, edge)

    def run(given):
        key, data, start = given

        def objective(count):
            own = jax.random.fold_in(key, count + 1)
            return jo.Objective(lambda p: f(p, data), tol=1e-6, lower=low, upper=high, key=own)

        def fresh(params, count):
            return method.init(objective(count), params) if is_solver else method.init(params)

        def step(carry):
            params, state, cost, best, count, _ = carry
            params, state, info = jo.advance(method, objective(count), params, state)
            cost += entry.price * info.evaluations
            best = jnp.where(levels >= cost, jnp.fmin(best, info.value), best)
            ended = info.status != jo.Status.RUNNING
            if entry.again:
                point = jax.random.uniform(jax.random.fold_in(key, -count - 1), low.shape, minval=low, maxval=high)
                params = jnp.where(ended, point, params)
                count += ended.astype(jnp.int32)
                state = jax.tree.map(lambda a, b: jnp.where(ended, a, b), fresh(params, count), state)
            return params, state, cost, best, count, ended

        zero, none = jnp.int32(0), jnp.full(len(levels), jnp.inf)
        going = lambda carry: (carry[2] < levels[-1]) & (entry.again | ~carry[5])
        return jax.lax.while_loop(going, step, (start, fresh(start, zero), zero, none, zero, jnp.array(False)))[3]

    # Wider batches of LAPACK's factorizations can block each other for ever on a few cores.
    return jax.jit(lambda *given: jax.lax.map(run, given, batch_size=WIDTH))


def levels_of(budget):
    """The evaluations at which the best value is noted."""
    return jnp.asarray(np.unique(np.geomspace(30, budget, LEVELS).astype(np.int32)))


def measure(problem, quick):
    """The best values of each method, [keys, levels]."""
    keys = jax.random.split(jax.random.key(0), QUICK_KEYS if quick else KEYS)
    data, starts = jax.vmap(lambda key: problem.draw(jax.random.fold_in(key, 0)))(keys)
    found = {}
    for name in methods(problem.budget, quick):
        run = runner(problem.f, problem.size, problem.edge, problem.budget, name, quick)
        found[name] = np.asarray(run(keys, data, starts))
        last = found[name][:, -1]
        share, (lower, upper) = success(last, problem.goal)
        print(f"    {name:28} {share:.2f} [{lower:.2f}, {upper:.2f}], median value {np.median(last):.3g}", flush=True)
    return found


def success(values, goal):
    """The share of the values that reach the goal, and its 95 % interval."""
    return record.share(int(np.sum(values <= goal)), len(values))


def main(quick=False):
    """Run, write, draw, and check the claim."""
    found = {}
    for title, problem in problems(quick).items():
        print(f"{title}, {problem.budget} evaluations, success with its 95 % interval:")
        found[title] = measure(problem, quick)
    conclude(found, quick)


def conclude(found, quick):
    """Write and draw what was found, best values [keys, levels] by problem and method, and check the claim."""
    directory, figures, all_problems = record.folder("global_search", quick), {}, problems(quick)
    for title, rows in found.items():
        problem = all_problems[title]
        figures[title] = {"budget": problem.budget, "keys": QUICK_KEYS if quick else KEYS, "methods": {}}
        for name, best in rows.items():
            share, interval = success(best[:, -1], problem.goal)
            quartiles = [float(q) for q in np.quantile(best[:, -1], (0.25, 0.5, 0.75))]
            figures[title]["methods"][name] = {"success": share, "interval": interval, "quartiles": quartiles}
    record.write(directory, figures)
    draw_success(found, all_problems, directory / "success.png")
    if not quick:
        draw_paths(directory / "paths.png")
        draw_network(found["network"], directory / "network.png")
    check(figures)


def check(figures):
    """The claim, as far as the intervals bear it."""
    for title, row in figures.items():
        rate = {name: found["success"] for name, found in row["methods"].items()}
        low = {name: found["interval"][0] for name, found in row["methods"].items()}
        high = {name: found["interval"][1] for name, found in row["methods"].items()}
        assert high["gradient descent"] < 0.25, (title, rate)
        if title in ("Rastrigin 2", "network"):
            assert low["multistart"] > high["gradient descent"], (title, rate)
        if title == "Rastrigin 2":
            assert min(rate["multistart"], rate["CMA-ES"], rate["annealing"]) > 0.35, rate
        if title == "Rastrigin 10":  # starts alone do not find one basin among 10^10
            assert rate["multistart"] < 0.05 < min(low["genetic"], low["annealing + gradients"]), rate
        if title == "rotated Rastrigin 10":  # a search by coordinates needs a sum over coordinates
            assert high["genetic"] < 0.1 < low["annealing + gradients"], rate


FAMILIES = {  # colour, and whether gradients are used within another method
    "gradient descent": ("0.35", "-"),
    "Adam": ("0.35", "--"),
    "L-BFGS-B": ("0.35", ":"),
    "random search": ("0.7", "-"),
    "multistart": ("C0", "-"),
    "multistart, worst replaced": ("C0", "--"),
    "basin hopping": ("C4", "-"),
    "annealing": ("C1", "-"),
    "annealing + gradients": ("C1", "--"),
    "genetic": ("C2", "-"),
    "genetic + gradients": ("C2", "--"),
    "differential evolution": ("C5", "-"),
    "CMA-ES": ("C3", "-"),
}


def draw_success(found, all_problems, path):
    """Above the share of keys that have succeeded by evaluations; below the shares at the end with their intervals."""
    figure = record.figure(4.6 * len(found) + 2, 8.5)
    panels = figure.subplots(2, len(found), sharey="row", squeeze=False, height_ratios=(1.2, 1))
    for (above, below), (title, rows) in zip(panels.T, found.items(), strict=True):
        problem = all_problems[title]
        levels = np.asarray(levels_of(problem.budget))
        for i, (name, best) in enumerate(rows.items()):
            color, line = FAMILIES[name]
            shares = np.mean(best <= problem.goal, axis=0)
            lower, upper = np.array([success(column, problem.goal)[1] for column in best.T]).T
            above.plot(levels, shares, line, color=color, label=name)
            above.fill_between(levels, lower, upper, where=shares > 0.05, color=color, alpha=0.08, linewidth=0)
            spans = np.abs(np.array([[lower[-1]], [upper[-1]]]) - shares[-1])
            below.errorbar(shares[-1], -i, xerr=spans, color=color, marker="o", capsize=3)
        above.set(
            title=title,
            xscale="log",
            xlim=(100, None),
            ylim=(-0.02, 1.02),
            xlabel="evaluations (value and gradient: 3)",
        )
        below.set(xlim=(-0.03, 1.03), xlabel=f"success after {problem.budget:,} evaluations, 95 % intervals")
        below.set_yticks(-np.arange(len(rows)), rows)
        for panel in (above, below):
            panel.grid(alpha=0.25)
    panels[0, 0].set_ylabel("share of the keys that succeeded")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=90)


def draw_network(rows, path):
    """On the left what networks in some minima compute; on the right the final loss of every key."""
    x = jnp.linspace(-2, 2, POINTS)
    starts = jax.random.normal(jax.random.key(1), (64, 3 * UNITS + 1))
    ends = jo.minimize_batch(loss, starts, args=(x,), bounds=(-LIMIT, LIMIT), max_steps=2000)
    order = np.argsort(ends.value)
    figure = record.figure(15, 5.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    dense = jnp.linspace(-2, 2, 300)
    left.plot(x, curve(x), "ko", markersize=4, label="sin 4x")
    shown = []
    for i in order:
        value = float(ends.value[i])
        if len(shown) < 5 and all(value > 1.15 * other for other in shown):
            left.plot(dense, outputs(ends.params[i], dense), label=f"loss {value:.3f}", color=f"C{len(shown)}")
            shown.append(value)
    left.set(title="some of the minima in which descent ends", xlabel="x", ylim=(-1.5, 2.2))
    left.legend(frameon=False, ncols=3, loc="upper center")
    rng = np.random.default_rng(0)
    for i, (name, best) in enumerate(rows.items()):
        last = best[:, -1]
        right.plot(last, -i + rng.uniform(-0.3, 0.3, len(last)), ".", color=FAMILIES[name][0], alpha=0.5, markersize=5)
        right.plot(np.median(last), -i, "|", color="k", markersize=20, markeredgewidth=1.5)
    right.set(title=f"loss at the end, each of {KEYS} keys, and medians", xscale="log", xlabel="loss")
    right.set_yticks(-np.arange(len(rows)), rows)
    right.grid(alpha=0.25, which="both")
    figure.savefig(path, dpi=100)


OPTIMUM, PICTURE_KEY, HOPS = (1.2, -0.7), 3, 60  # of the pictures of paths


def traced(method, starts, steps):
    """(params, state) after each step on the pictures' function, with leading axes [starts, steps]."""
    data, low, high = (jnp.array(OPTIMUM), jnp.eye(2)), jnp.full(2, -EDGE), jnp.full(2, EDGE)

    def run(start):
        objective = jo.Objective(
            lambda p: rastrigin(p, data), tol=1e-6, lower=low, upper=high, key=jax.random.key(PICTURE_KEY)
        )
        step = lambda carry, _: (new := jo.advance(method, objective, *carry)[:2], new)
        return jax.lax.scan(step, (start, method.init(objective, start)), None, steps)[1]

    return jax.jit(jax.vmap(run))(starts)


def draw_paths(path):
    """The paths of four methods on Rastrigin's function."""
    from matplotlib.patches import Ellipse

    figure = record.figure(17, 4.7)
    panels = figure.subplots(1, 4, sharey=True)
    line = np.linspace(-EDGE, EDGE, 300)
    grid = jnp.stack(jnp.meshgrid(line, line), -1).reshape(-1, 2)
    heights = jax.vmap(lambda x: rastrigin(x, (jnp.array(OPTIMUM), jnp.eye(2))))(grid).reshape(300, 300)
    for panel in panels:
        panel.contourf(line, line, heights, levels=8, cmap="gray", vmin=-np.max(heights))
        panel.plot(*OPTIMUM, "*", color="gold", markeredgecolor="k", markersize=17, zorder=5)
        panel.set(aspect="equal", xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE))
    start = jnp.array([-4.2, 3.7])

    panels[0].set_title("L-BFGS-B from eight starts")
    begins = jax.random.uniform(jax.random.key(6), (8, 2), minval=-4.5, maxval=4.5)
    ways = jnp.concatenate([begins[:, None], traced(jo.solvers.lbfgsb(), begins, 40)[0]], axis=1)
    for i, points in enumerate(np.asarray(ways)):
        panels[0].plot(*points.T, "-", color=f"C{i}", linewidth=2)
        panels[0].plot(*points[0], "o", color=f"C{i}", markerfacecolor="w", markersize=6)
        panels[0].plot(*points[-1], "o", color=f"C{i}", markersize=6)

    panels[1].set_title("annealing: one of four chains, 400 steps")
    annealing = jo.search.simulated_annealing(steps=400, chains=4)
    points = np.asarray(traced(annealing, start[None], 400)[1].points[0, :, 0])
    panels[1].plot(*points.T, "-", color="0.2", linewidth=0.5)
    panels[1].scatter(*points.T, c=np.arange(len(points)), cmap="plasma", s=14, zorder=3)

    panels[2].set_title("basin hopping, one chain: its minima")
    hopping = jo.search.basin_hopping(hops=HOPS, chains=1)
    points = np.asarray(traced(hopping, start[None], 12 * HOPS)[1].points[0, :, 0])
    points = points[np.r_[True, np.any(np.diff(points, axis=0) != 0, axis=1)]]
    panels[2].plot(*points.T, "-", color="C4", linewidth=1)
    panels[2].scatter(*points.T, c=np.arange(len(points)), cmap="plasma", s=35, zorder=3, edgecolor="k")

    panels[3].set_title("CMA-ES, every third generation")
    normals = traced(jo.search.cma_es(population=12, restarts=0), start[None], 36)[1].gaussian
    for i in range(0, 36, 3):
        mean, sigma, C = (np.asarray(a[0, i]) for a in (normals.mean, normals.sigma, normals.C))
        squares, axes = np.linalg.eigh(C)
        angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))
        sizes = 2 * 2 * EDGE * sigma * np.sqrt(np.abs(squares))
        shape = dict(angle=angle, fill=False, color=f"C{i // 3 % 10}", linewidth=1.6)
        panels[3].add_patch(Ellipse(mean, sizes[1], sizes[0], **shape))
        panels[3].plot(*mean, ".", color=f"C{i // 3 % 10}")
    for panel in panels[1:]:
        panel.plot(*start, "o", color="k", markerfacecolor="w", markersize=7, zorder=4)
    figure.savefig(path, dpi=95)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
