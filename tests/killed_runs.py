"""Train in children that are killed at random moments, each resuming from the directory; see test_checkpoints.

Arguments: a folder, the kind of data, how many children are killed, and a seed of the moments.
"""

import functools
import os
import pickle
import random
import signal
import sys
import time
from pathlib import Path

import jax
import orbax.checkpoint  # noqa: F401  (once, before the children need it)

import jaxopt_lite as jo
from tests.train import killed

PLAN = {"steps": 3000, "batch_size": 4, "eval_every": 10, "patience": 80, "restore_best": True, "metric": "valid.loss"}


def fit(kind, directory=None, callbacks=()):
    """A run of a little regression with a model state, noise in the loss, and patience."""
    optimizer = jo.adam(jo.warmup_cosine_decay_schedule(0.0, 0.3, warmup_steps=5, decay_steps=3000))
    task = jo.Task(killed.init, killed.loss, killed.TRAIN, killed.VALID, killed.VALID, stateful=True)
    seeds = 2 if kind == "seeds" else None
    return jo.fit(
        task, optimizer, **PLAN, seed=3, seeds=seeds, directory=directory, save_steps=50, callbacks=callbacks
    )  # fmt: skip


def answer(result):
    """All that a run returns, to be compared bit for bit."""
    leaves = killed.plain((result.state, result.params, result.model_state))
    return leaves, result.history, result.metrics, result.status, result.message


def tell(pipe, point):
    """Tell the parent that a point was reached."""
    os.write(pipe, b".")


def main(folder, kind, kills, seed):
    moments = random.Random(seed)
    for i in range(kills + 1):
        reading, writing = os.pipe()
        number = os.fork()
        if not number:
            try:
                jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
                jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
                began = functools.partial(tell, writing)
                result = fit(kind, folder / "run", [began])
                (folder / "result.pickle").write_bytes(pickle.dumps(answer(result)))
            finally:
                os._exit(0)
        os.read(reading, 1)  # it trains
        os.close(reading)
        os.close(writing)
        if i < kills:
            time.sleep(moments.uniform(0, 0.4))
            os.kill(number, signal.SIGKILL)
        _, status = os.waitpid(number, 0)
        print("killed" if os.WIFSIGNALED(status) else "ended", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
