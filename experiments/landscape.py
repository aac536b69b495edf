"""Where a descent ends depends on its optimizer: paths over five classic surfaces, and maps of where 40,000 starts end.

Run      python -m experiments.landscape [--quick]          about 40 s on two CPU cores
Writes   runs/landscape/{result.json, paths.png, basins.png, race.gif}
Result   within 500 steps momentum comes within 1e-3 of the minimum of Beale (57 steps) and Rosenbrock (174), gradient
         descent of neither. On Himmelblau every start ends in one of the four minima, but 23 % of them by momentum,
         and 9 % by AdaGrad or Adam, in another than by gradient descent. On Rastrigin half of the starts end below a
         height of 16.9 by gradient descent, 15.9 by momentum or Adam, 1.0 by AdaGrad, whose first steps are large

Each optimizer has on each surface the best of 61 learning rates, by the mean over its path of log10 of the height
above the minimum; for the maps by the mean over 64 starts as well. All rates of an optimizer, and all starts of a map,
are one compiled program: the optimizer is a value, and `vmap` maps over it.
"""

import functools
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from experiments import record

STEPS, RATES, TUNING_STARTS, CLOSE = 500, np.geomspace(1e-5, 10.0, 61), 64, 1e-3
OPTIMIZERS = {
    "gradient descent": jo.sgd(1.0),
    "heavy ball": jo.sgd(1.0, momentum=0.9),
    "Nesterov": jo.sgd(1.0, momentum=0.9, nesterov=True),
    "AdaGrad": jo.adagrad(1.0),
    "RMSProp": jo.rmsprop(1.0),
    "Adam": jo.adam(1.0),
}
MAPPED = ("gradient descent", "heavy ball", "AdaGrad", "Adam")
COLORS = ("#222222", "#d1495b", "#edae49", "#00798c", "#8d5fd3", "#4f8a10")


class Surface(NamedTuple):
    """A function of two numbers, where its picture is, where the paths begin, and its minima, [k, 2]."""

    height: Callable
    box: tuple[float, float, float, float]
    start: tuple[float, float]
    minima: np.ndarray
    lowest: float = 0.0


def beale(x, y):
    """A plateau with a curved valley."""
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def rosenbrock(x, y):
    """A bent valley, a thousand times steeper across than along."""
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def himmelblau(x, y):
    """Four minima of equal height."""
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def rastrigin(x, y):
    """A bowl full of dents: a minimum near each pair of integers."""
    return 20 + x**2 - 10 * jnp.cos(2 * jnp.pi * x) + y**2 - 10 * jnp.cos(2 * jnp.pi * y)


def saddle(x, y):
    """A steep ravine whose floor falls away to both sides, to minima at y = ±√2."""
    return 10 * x**2 - y**2 + y**4 / 4


HIMMELBLAU = np.array([[3.0, 2.0], [-2.805118, 3.131312], [-3.779310, -3.283186], [3.584428, -1.848126]])
INTEGERS = np.stack(np.meshgrid(*2 * [np.arange(-5.0, 6.0)]), axis=-1).reshape(-1, 2)
SURFACES = {
    "Beale": Surface(beale, (-4.5, 4.5, -4.5, 4.5), (-1.5, -1.5), np.array([[3.0, 0.5]])),
    "Rosenbrock": Surface(rosenbrock, (-2.0, 2.0, -1.0, 3.0), (-1.2, 1.0), np.array([[1.0, 1.0]])),
    "Himmelblau": Surface(himmelblau, (-5.0, 5.0, -5.0, 5.0), (-0.5, -1.0), HIMMELBLAU),
    "Rastrigin": Surface(rastrigin, (-5.12, 5.12, -5.12, 5.12), (-3.4, 2.7), INTEGERS),
    "saddle": Surface(saddle, (-1.2, 1.2, -2.2, 2.2), (-1.0, 1e-6), np.array([[0, 2**0.5], [0, -(2**0.5)]]), -1.0),
}


@functools.partial(jax.jit, static_argnames=("name", "steps"))
def descend(name, optimizer, start, steps):
    """The path from a start over the surface of a name, [steps + 1, 2]."""
    surface = SURFACES[name]
    slope = jax.grad(lambda point: surface.height(*point))

    def step(carry, _):
        point, state = carry
        updates, state = optimizer.update(slope(point), state, point)
        return (jo.apply_updates(point, updates), state), point

    (end, _), path = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return jnp.concatenate([path, end[None]])


def heights(name, path):
    """Heights above the minimum along paths [..., 2]; what left the numbers is infinitely high."""
    surface = SURFACES[name]
    return jnp.nan_to_num(surface.height(path[..., 0], path[..., 1]) - surface.lowest, nan=jnp.inf, posinf=jnp.inf)


@functools.partial(jax.jit, static_argnames=("name", "steps"))
def scores(name, optimizer, rates, starts, steps):
    """For each rate the mean of log10 height over the starts [n, 2] and their steps."""

    def score(rate, start):
        path = descend(name, jo.replace(optimizer, {"learning_rate": rate}), start, steps)
        return jnp.log10(jnp.clip(heights(name, path), 1e-6, 1e6)).mean()

    return jax.vmap(lambda rate: jax.vmap(lambda start: score(rate, start))(starts).mean())(rates)


def tuned(name, optimizer, rates, starts, steps):
    """The optimizer with the best of the learning rates."""
    best = rates[int(np.argmin(scores(name, optimizer, rates, starts, steps)))]
    return jo.replace(optimizer, {"learning_rate": float(f"{best:.3g}")})


@functools.partial(jax.jit, static_argnames=("name", "steps"))
def ends(name, optimizer, starts, steps):
    """Where descents from many starts end, [..., 2]."""
    end = lambda start: descend(name, optimizer, start, steps)[-1]
    return jax.vmap(end)(starts.reshape(-1, 2)).reshape(starts.shape)


def race(optimizers, rates, steps):
    """For each surface and optimizer, tuned for that start: the path and the first step that is close."""
    found = {}
    for name, surface in SURFACES.items():
        start = jnp.array(surface.start)
        for rival, optimizer in optimizers.items():
            best = tuned(name, optimizer, rates, start[None], steps)
            path = descend(name, best, start, steps)
            close = np.flatnonzero(heights(name, path) < CLOSE)
            arrived = int(close[0]) if len(close) else None
            found.setdefault(name, {})[rival] = {"optimizer": repr(best), "arrived": arrived, "path": np.asarray(path)}
    return found


def maps(side, rates, steps):
    """For Himmelblau and Rastrigin and each mapped optimizer, the ends of side² descents from all over the box."""
    found = {}
    for name in ("Himmelblau", "Rastrigin"):
        x0, x1, y0, y1 = SURFACES[name].box
        grid = jnp.stack(jnp.meshgrid(jnp.linspace(x0, x1, side), jnp.linspace(y0, y1, side)), axis=-1)
        some = jax.random.choice(jax.random.key(0), grid.reshape(-1, 2), (TUNING_STARTS,), replace=False)
        for rival in MAPPED:
            best = tuned(name, OPTIMIZERS[rival], rates, some, steps)
            end = np.asarray(ends(name, best, grid, steps))
            distance = np.linalg.norm(end[..., None, :] - SURFACES[name].minima, axis=-1)
            found.setdefault(name, {})[rival] = {
                "optimizer": repr(best),
                "nearest": np.where(distance.min(axis=-1) < 0.1, distance.argmin(axis=-1), -1),
                "height": np.asarray(heights(name, end)),
            }
    return found


def main(quick=False):
    """Race, map, draw, and check the claim."""
    rates, side, frames = (RATES[::4], 60, 8) if quick else (RATES, 200, 90)
    optimizers = {name: rule for name, rule in OPTIMIZERS.items() if name in MAPPED or not quick}
    raced, mapped = race(optimizers, rates, STEPS), maps(side, rates, STEPS)
    directory = record.folder("landscape", quick)
    draw_paths(raced, directory / "paths.png")
    draw_maps(mapped, directory / "basins.png")
    animate(raced, directory / "race.gif", frames)
    result = {"steps until close": {n: {o: r["arrived"] for o, r in rivals.items()} for n, rivals in raced.items()}}
    plain = mapped["Himmelblau"]["gradient descent"]["nearest"]
    for rival in MAPPED:
        fate, height = mapped["Himmelblau"][rival]["nearest"], mapped["Rastrigin"][rival]["height"]
        result[rival] = {
            "optimizers": {name: mapped[name][rival]["optimizer"] for name in mapped},
            "himmelblau, ends in a minimum": float((fate >= 0).mean()),
            "himmelblau, in another than gradient descent": float((fate != plain).mean()),
            "rastrigin, median height of the ends": float(np.median(height)),
        }
    record.write(directory, result)
    for name, facts in result.items():
        print(f"{name}: {facts}")
    for name in ("Beale", "Rosenbrock"):
        assert raced[name]["heavy ball"]["arrived"] and not raced[name]["gradient descent"]["arrived"], name
    for rival in MAPPED:
        assert result[rival]["himmelblau, ends in a minimum"] > 0.99, rival
        other = result[rival]["himmelblau, in another than gradient descent"]
        assert other > 0.02 or rival == "gradient descent", (rival, other)
    low, high = (result[o]["rastrigin, median height of the ends"] for o in ("AdaGrad", "gradient descent"))
    assert low < high / 2, (low, high)


def background(axes, name):
    """The surface's logarithmic height in pale colours, its minima as stars."""
    surface = SURFACES[name]
    x0, x1, y0, y1 = surface.box
    x, y = np.meshgrid(np.linspace(x0, x1, 300), np.linspace(y0, y1, 300))
    z = np.log10(np.asarray(heights(name, jnp.stack([x, y], axis=-1))) + 1e-2)
    axes.contourf(x, y, z, levels=10, cmap="Blues", vmin=z.min(), vmax=z.min() + 2.2 * np.ptp(z))  # flat: a small GIF
    lowest = surface.minima[np.asarray(surface.height(*surface.minima.T)) < surface.lowest + 0.1]
    axes.plot(*lowest.T, "*", color="gold", markeredgecolor="black", markersize=12, zorder=4)
    axes.plot(*surface.start, "o", color="white", markeredgecolor="black", zorder=4)
    axes.set(xlim=(x0, x1), ylim=(y0, y1), xticks=[], yticks=[], title=name)


def draw_paths(found, path):
    """The paths over each surface; in the last panel how many steps they took."""
    figure = record.figure(13.5, 8.6)
    *panels, table = figure.subplots(2, 3).flat
    for axes, (name, rivals) in zip(panels, found.items(), strict=True):
        background(axes, name)
        for i, (rival, run) in enumerate(rivals.items()):
            axes.plot(*run["path"].T, ".-", color=COLORS[i], linewidth=1.3, markersize=3.5, label=rival, alpha=0.85)
    rivals = list(next(iter(found.values())))
    steps = np.array([[found[name][rival]["arrived"] or np.nan for rival in rivals] for name in found], float)
    table.imshow(np.log10(steps), cmap="YlGn_r", aspect="auto", alpha=0.7)
    for (i, j), count in np.ndenumerate(steps):
        table.text(j, i, "–" if np.isnan(count) else f"{count:.0f}", ha="center", va="center")
    table.set_title(f"steps until {CLOSE:g} above the minimum")
    table.set_xticks(range(len(rivals)), [rival.replace(" ", "\n") for rival in rivals], fontsize=8, fontweight="bold")
    table.set_yticks(range(len(found)), found, rotation=90, va="center", fontsize=8)
    table.tick_params(length=0)
    for label, color in zip(table.get_xticklabels(), COLORS):
        label.set_color(color)
    figure.savefig(path, dpi=120)


def draw_maps(found, path):
    """Each start in the colour of the minimum that it ends in, or of the height where it ends."""
    from matplotlib.colors import ListedColormap

    figure = record.figure(3.4 * len(MAPPED), 7.4)
    grid = figure.subplots(2, len(MAPPED))
    fates = ListedColormap(["white", "#355070", "#e56b6f", "#eaac8b", "#57a773"])
    for row, name in zip(grid, found, strict=True):
        box = SURFACES[name].box
        for axes, (rival, run) in zip(row, found[name].items(), strict=True):
            if name == "Himmelblau":
                axes.imshow(run["nearest"], extent=box, origin="lower", cmap=fates, vmin=-1, vmax=3)
                axes.plot(*HIMMELBLAU.T, "*", color="gold", markeredgecolor="black", markersize=11)
            else:
                end = axes.imshow(run["height"], extent=box, origin="lower", cmap="magma_r", vmin=0, vmax=40)
            axes.set(title=f"{rival}\n{run['optimizer']}", xticks=[], yticks=[])
            axes.title.set_fontsize(9)
        row[0].set_ylabel(
            {"Himmelblau": "Himmelblau: which minimum", "Rastrigin": "Rastrigin: height of the end"}[name]
        )
    figure.colorbar(end, ax=grid[1], shrink=0.8, label="height")
    figure.savefig(path, dpi=120)


def animate(found, path, frames):
    """The race as a GIF; it slows down as the paths do."""
    from matplotlib.animation import PillowWriter

    figure = record.figure(9, 6.2)
    *panels, last = figure.subplots(2, 3).flat
    moving = []
    for axes, (name, rivals) in zip(panels, found.items(), strict=True):
        background(axes, name)
        for i, (rival, run) in enumerate(rivals.items()):
            (line,) = axes.plot([], [], color=COLORS[i], linewidth=1.2, label=rival)
            (head,) = axes.plot([], [], "o", color=COLORS[i], markeredgecolor="white", markersize=6, zorder=5)
            moving.append((line, head, run["path"]))
    last.axis("off")
    last.legend(*panels[0].get_legend_handles_labels(), loc="center", frameon=False, fontsize=12)
    clock = last.text(0.5, 0.05, "", ha="center", transform=last.transAxes, fontsize=12)
    writer = PillowWriter(fps=12)
    with writer.saving(figure, path, dpi=80):
        for step in np.unique(np.geomspace(1, 300, frames).astype(int)):
            for line, head, walked in moving:
                line.set_data(*walked[: step + 1].T)
                head.set_data(*walked[step : step + 1].T)
            clock.set_text(f"step {step}")
            writer.grab_frame()


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
