"""A small problem for the engine's tests, and a driver that answers as it is told."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from jaxopt_lite.sweeps.engine import Engine, Reply
from jaxopt_lite.sweeps.groups import Groups, Snapshot
from jaxopt_lite.sweeps.ledger import Ledger
from jaxopt_lite.sweeps.policies import run_all
from jaxopt_lite.sweeps.program import SweepPlan
from jaxopt_lite.sweeps.samplers import sobol
from jaxopt_lite.sweeps.space import space

STEPS, EVAL_EVERY, BATCH, SEEDS = 16, 2, 8, 2
SPACE = {"learning_rate": jo.log_uniform(1e-3, 1e-1), "momentum": jo.uniform(0.0, 0.9)}


@functools.cache
def data(features=5, rows=40):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, features)).astype(np.float32)
    y = (x @ rng.normal(size=features)).astype(np.float32)
    return {"x": x[: rows // 2], "y": y[: rows // 2]}, {"x": x[rows // 2 :], "y": y[rows // 2 :]}


def task(features=5, hidden=4):
    train, valid = data(features)

    def init(key):
        one, two = jax.random.split(key)
        return {"w": jax.random.normal(one, (features, hidden)) * 0.5, "v": jax.random.normal(two, (hidden,)) * 0.5}

    def loss(params, batch, key):
        return jnp.mean((jnp.tanh(batch["x"] @ params["w"]) @ params["v"] - batch["y"]) ** 2)

    return jo.Task(init, loss, train, valid, valid)


def trial(config):
    return task(hidden=config.get("hidden", 4)), jo.sgd(config["learning_rate"], momentum=config["momentum"])


def engine(policy=None, trials=8, trial=trial, spec=None, **given):
    chosen = space(spec or SPACE)
    numbers = {"steps": STEPS, "batch_size": BATCH, "eval_every": EVAL_EVERY, "seeds": SEEDS, "seed": 0}
    numbers = {name: given.pop(name, value) for name, value in numbers.items()}
    named = {name: given.pop(name) for name in ("independent", "metric", "mode", "compute_dtype") if name in given}
    plan = SweepPlan(**numbers, **named)
    of_groups = {"devices": jax.local_devices()[:1], "width": 4}
    of_groups |= {name: given.pop(name) for name in ("devices", "width", "keep_on") if name in given}
    groups = Groups(trial, Ledger.empty(chosen, plan), plan, **of_groups)
    return Engine(groups, given.pop("sampler", sobol()), policy or run_all(), trials, **given)


def drive(made, answer=lambda event, i: None):
    """Run an engine to its end, or to a stop; returns its outcome, its events and the last snapshot."""
    events, running, reply = [], made.run(), None
    try:
        while True:
            event = running.send(reply)
            reply = answer(event, len(events))
            events.append(event)
    except StopIteration as end:
        snapshots = [event for event in events if isinstance(event, Snapshot)]
        return end.value, events, snapshots[-1] if snapshots else None


def stop_at(i):
    """An answer that stops a sweep at its i-th event."""
    return lambda event, at: Reply(stop=at >= i)


def same(one, other):
    """Whether two outcomes are equal bit for bit: ledgers, winners and their parameters."""
    a, b = one.ledger.saved(), other.ledger.saved()
    trees = [(a, b)]
    if one.best is not None or other.best is not None:
        assert one.best.number == other.best.number
        trees.append((one.best.params, other.best.params))
    for x, y in trees:
        assert jax.tree.structure(x) == jax.tree.structure(y)
        for left, right in zip(jax.tree.leaves(x), jax.tree.leaves(y)):
            np.testing.assert_array_equal(np.asarray(left), np.asarray(right))
