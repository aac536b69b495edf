"""Policy gradient learns to balance a pole, 64 seeds with their episodes in one program; a baseline makes it reliable.

Run      python -m experiments.reinforcement [--quick]          about 40 s on two CPU cores
Writes   runs/reinforcement/{result.json, cartpole.png}
Result   after 150 steps of 8 episodes all 64 seeds have solved it, mean return in fresh episodes 499.9 ± 0.2 (95 %
         interval over seeds); without a baseline 52 of 64, 472.8 ± 19.7. The 64 runs together play 35 million steps of
         the environment

CartPole-v1 as in Gymnasium: a cart is pushed left or right fifty times a second, the reward is 1 for each of at most
500 steps until the pole leans by 12 degrees or the cart has left the track. REINFORCE (Williams, 1992): the gradient of
Σ log π(action) (return - baseline), where the return is of the rewards to come and the baseline its mean over those of
the step's episodes that have not ended; the differences are divided by their root mean square. Without the baseline
everything else is the same. The task has no data (`train=None`): its loss plays the episodes itself, inside the step
that JAX compiles.
"""

import functools
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from experiments import record

EPISODES, LENGTH, HIDDEN = 8, 500, 32
STEPS, SEEDS, JUDGED, SOLVED = 150, 64, 32, 475  # solved, as Gymnasium has it: a mean return of 475
OPTIMIZER = jo.chain(jo.clip_by_global_norm(1.0), jo.adam(0.03))


class Cart(NamedTuple):
    """Position, velocity, angle, angular velocity; and whether the episode continues."""

    x: jax.Array
    v: jax.Array
    angle: jax.Array
    spin: jax.Array
    alive: jax.Array


def reset(key):
    """A cart near rest, the pole nearly upright."""
    return Cart(*jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05), jnp.array(True))


def push(cart, right):
    """A fiftieth of a second later (Barto, Sutton & Anderson, 1983; explicit Euler, as in Gymnasium)."""
    gravity, pole, total, half_length, force, dt = 9.8, 0.1, 1.1, 0.5, 10.0, 0.02
    sin, cos = jnp.sin(cart.angle), jnp.cos(cart.angle)
    pull = (jnp.where(right, force, -force) + pole * half_length * cart.spin**2 * sin) / total
    twist = (gravity * sin - cos * pull) / (half_length * (4 / 3 - pole * cos**2 / total))
    thrust = pull - pole * half_length * twist * cos / total
    x, v = cart.x + dt * cart.v, cart.v + dt * thrust
    angle, spin = cart.angle + dt * cart.spin, cart.spin + dt * twist
    alive = cart.alive & (jnp.abs(x) < 2.4) & (jnp.abs(angle) < jnp.deg2rad(12.0))
    return Cart(x, v, angle, spin, alive)


def init(key):
    """A policy 4 - 32 - 2, its last layer small: at first a coin decides."""
    one, two = jax.random.split(key)
    return {
        "hidden": {"w": jax.random.normal(one, (4, HIDDEN)) * 0.5, "b": jnp.zeros(HIDDEN)},
        "out": {"w": jax.random.normal(two, (HIDDEN, 2)) * 0.01, "b": jnp.zeros(2)},
    }


def logits(params, seen):
    """Of the two actions, for observations [..., 4]."""
    hidden = jnp.tanh(jnp.dot(seen, params["hidden"]["w"]) + params["hidden"]["b"])
    return jnp.dot(hidden, params["out"]["w"]) + params["out"]["b"]


def play(params, key):
    """One episode: observations [500, 4], actions [500], and rewards [500], which are 0 after its end."""
    first, rest = jax.random.split(key)

    def step(cart, key):
        seen = jnp.stack(cart[:4])
        action = jax.random.categorical(key, logits(params, seen))
        after = push(cart, action == 1)
        return after, (seen, action, cart.alive.astype(jnp.float32))

    return jax.lax.scan(step, reset(first), jax.random.split(rest, LENGTH))[1]


def loss(params, batch, key, baseline=True):
    """Minus the log-probabilities of what was done, each times how much better it went than in the other episodes."""
    keys = jax.random.split(key, EPISODES)
    seen, action, reward = jax.vmap(play, in_axes=(None, 0))(jax.lax.stop_gradient(params), keys)
    to_come = jnp.cumsum(reward[:, ::-1], axis=1)[:, ::-1]
    usual = to_come.sum(axis=0) / jnp.maximum(reward.sum(axis=0), 1)
    advantage = reward * (to_come - usual[None] if baseline else to_come)
    advantage = advantage / (jnp.sqrt((advantage**2).sum() / reward.sum()) + 1e-6)
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits(params, seen)), action[..., None], axis=-1)[..., 0]
    return -(logp * advantage).sum() / reward.sum(), {"return": reward.sum(axis=1).mean()}


def evaluate(params, seeds):
    """The mean return of episodes with keys of their own."""
    reward = jax.vmap(lambda seed: play(params, jax.random.key(seed))[2])(seeds)
    return {"return": reward.sum(axis=1).mean()}


def task(baseline=True):
    """On-policy; what it has learned is judged by 32 fresh episodes."""
    return jo.Task(init, functools.partial(loss, baseline=baseline), test=jnp.arange(JUDGED), evaluate=evaluate)


def main(quick=False):
    """Train with and without baseline, 64 seeds at once; judge, draw, and check the claim."""
    seeds, steps = (8, 60) if quick else (SEEDS, STEPS)
    found, figures = {}, {}
    for name, baseline in {"with baseline": True, "without": False}.items():
        began = time.perf_counter()
        run = jo.fit(task(baseline), OPTIMIZER, steps, None, eval_every=5, seeds=seeds)
        seconds = time.perf_counter() - began
        found[name], final = run, run.metrics["test.return"]
        played = float(run.history["train.return"].sum()) * 5 * EPISODES  # a reward is a step
        mean, half = record.interval(final)
        figures[name] = {
            "return": final,
            "mean": mean,
            "half": half,
            "solved": int((final >= SOLVED).sum()),
            "seconds": seconds,
            "environment steps": played,
            "curve": run.history["train.return"].mean(axis=0),
        }
        print(
            f"{name:14} return {mean:.1f} ± {half:.1f}, solved by {figures[name]['solved']} of {seeds} seeds; "
            f"{seconds:.1f} s with compiling, {played / 1e6:.1f} million steps of the environment"
        )
    directory = record.folder("reinforcement", quick)
    record.write(directory, figures)
    draw(found, directory / "cartpole.png")
    with_it, without = (row["return"] for row in figures.values())
    assert np.mean(with_it >= SOLVED) >= (0.5 if quick else 0.95), with_it
    mean, half = record.interval(with_it - without)
    assert mean - (0 if quick else half) > 0, (with_it, without)


def draw(found, path):
    """Every seed's returns, what a policy does where, and how it plays before and after."""
    figure = record.figure(14, 5.4)
    rows = [["with baseline", "without", "policy"], ["before"] * 3, ["after"] * 3]
    curves = figure.subplot_mosaic(rows, height_ratios=(5, 1, 1))
    for i, (name, run) in enumerate(found.items()):
        axes, returns = curves[name], run.history["train.return"]
        axes.plot(run.history["step"], returns.T, color=f"C{i}", alpha=0.15, linewidth=0.8)
        axes.plot(run.history["step"], np.median(returns, axis=0), color=f"C{i}", linewidth=2, label="median")
        axes.axhline(SOLVED, color="0.5", linestyle="--", linewidth=0.8, label="solved")
        axes.set(xlabel="step of 8 episodes", ylabel="return", ylim=(0, 510))
        axes.set_title(f"{name}: {len(returns)} seeds", fontsize=10)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    params = jax.tree.map(lambda leaf: leaf[0], found["with baseline"].params)
    angle, spin = jnp.meshgrid(jnp.linspace(-12, 12, 100), jnp.linspace(-2, 2, 100))
    seen = jnp.stack([0 * angle, 0 * angle, jnp.deg2rad(angle), spin], axis=-1)
    right = jax.nn.softmax(logits(params, seen))[..., 1]
    image = curves["policy"].imshow(
        right, extent=(-12, 12, -2, 2), origin="lower", aspect="auto", cmap="RdBu", vmin=0, vmax=1
    )
    figure.colorbar(image, ax=curves["policy"], label="probability of a push to the right")
    curves["policy"].set(xlabel="angle, degrees", ylabel="angular velocity, radians a second")
    curves["policy"].set_title("seed 0: the policy, cart at rest in the middle", fontsize=10)
    for name, net in {"before": init(jax.random.key(0)), "after": params}.items():
        strobe(curves[name], *play(net, jax.random.key(1))[::2])
        curves[name].set_title(f"{name} training: the cart each fifth of a second", fontsize=10)
    figure.savefig(path, dpi=110)


def strobe(axes, seen, reward):
    """The cart at every tenth step, moved to the right as time goes by."""
    for t in range(0, int(reward.sum()), 10):
        x, angle = 1.2 * t / 10 + float(seen[t, 0]), float(seen[t, 2])
        axes.plot([x - 0.3, x + 0.3], [0, 0], color="0.25", linewidth=5, solid_capstyle="butt")
        axes.plot([x, x + np.sin(angle)], [0, np.cos(angle)], color="C3", linewidth=2)
    axes.set(xlim=(-1, 1.2 * LENGTH / 10), ylim=(-0.2, 1.3), aspect="equal")
    axes.set_axis_off()


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
