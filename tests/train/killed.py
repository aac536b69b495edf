"""Train in children that kill themselves after some points, each resuming from the last snapshot; see test_resuming.

Arguments: a folder, the kind of data, and how many children are killed.
"""

import importlib
import os
import pickle
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 3.0, 0.5]) + 0.1 * RNG.normal(size=24)).astype(np.float32)
TRAIN, VALID = ({"x": X[rows], "y": Y[rows]} for rows in (slice(14), slice(14, 24)))
PLAN = {"steps": 60, "batch_size": 4, "eval_every": 3, "patience": 6, "restore_best": True, "metric": "valid.loss"}


def init(key):
    """A device is first touched in the children, or they would deadlock."""
    return {"w": 0.1 * jax.random.normal(key, (4,)), "b": jnp.zeros(())}, {"mean": jnp.zeros(4)}


def loss(params, model_state, batch, key):
    mean = 0.9 * model_state["mean"] + 0.1 * batch["x"].mean(axis=0)
    value = jnp.mean(((batch["x"] - mean[None]) @ params["w"] + params["b"] - batch["y"]) ** 2)
    return value + 0.1 * jax.random.normal(key), ({"first": mean[0]}, {"mean": mean})


def batches():
    order = jo.batch_order(jax.random.key(7), 14, 4, 0, 60)
    return ({name: rows[index] for name, rows in TRAIN.items()} for index in order)


def torch():
    """A loader whose epochs are drawn by a generator of a stated seed."""
    from torch import Generator
    from torch.utils.data import DataLoader

    examples = [{"x": x, "y": y} for x, y in zip(TRAIN["x"], TRAIN["y"], strict=True)]
    return DataLoader(examples, batch_size=4, shuffle=True, drop_last=True, generator=Generator().manual_seed(7))


def grain():
    """A pipeline with a state."""
    from grain import MapDataset

    examples = MapDataset.range(14).shuffle(seed=7).repeat()
    return examples.map(lambda i: {"x": TRAIN["x"][i], "y": TRAIN["y"][i]}).batch(4).to_iter_dataset()


def training(kind, snapshot=None):
    optimizer = jo.adam(jo.warmup_cosine_decay_schedule(0.0, 0.3, warmup_steps=5, decay_steps=60))
    makes = {"stream": lambda: batches, "torch": torch, "grain": grain}
    train = makes[kind]() if kind in makes else TRAIN
    task = jo.Task(init, loss, train, VALID, VALID, stateful=True)
    seeds = 2 if kind == "seeds" else None
    return jo.training(task, optimizer, jo.Plan(**PLAN), seed=3, seeds=seeds, snapshot=snapshot, prefetch=2)


def plain(tree):
    """A pytree with NumPy's arrays alone."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), tree)


def child(folder, kind, killed_after):
    saved, snapshot = folder / "snapshot.pickle", None
    if saved.exists():
        snapshot = pickle.loads(saved.read_bytes())
    events = training(kind, snapshot)
    points, reply = 0, None
    while True:
        try:
            event = events.send(reply)
        except StopIteration as end:
            result = end.value
            break
        reply = jo.Reply(save=True)
        if isinstance(event, jo.Snapshot):
            saved.with_suffix(".new").write_bytes(pickle.dumps(event._replace(run=plain(event.run))))
            saved.with_suffix(".new").replace(saved)
            reply = None
        else:
            points += 1
            if points == killed_after:
                os.kill(os.getpid(), signal.SIGKILL)
    leaves = plain((result.state, result.params, result.model_state))
    answer = leaves, result.history, result.metrics, result.status, result.message
    (folder / "result.pickle").write_bytes(pickle.dumps(answer))


def main(folder, kind, kills):
    if kind in ("torch", "grain"):
        importlib.import_module(kind)  # once, for all children
    for i in range(kills + 1):
        number = os.fork()
        if not number:
            try:
                jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
                jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
                child(folder, kind, 3 if i < kills else None)
            finally:
                os._exit(0)
        _, status = os.waitpid(number, 0)
        print("killed" if os.WIFSIGNALED(status) else "ended", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
