"""Sweep in children of a process that has imported everything and has not yet touched a device; see test_killed.

Reads lines DIRECTORY POLICY; answers with the child's number, and after each with the child's last word or "killed".
"""

import os
import sys
import traceback

import jax
import numpy as np
import orbax.checkpoint  # noqa: F401  (once, before the children need it)
import scipy.stats.qmc  # noqa: F401

import jaxopt_lite as jo
from tests.sweeps import small


def child(directory, policy):
    jo.SweepResult.plot = lambda self, path: None  # it takes longer than all the rest
    jax.config.update("jax_compilation_cache_dir", os.environ["TEST_CACHE"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    result = jo.sweep(
        small.trial,
        small.SPACE,
        trials=24,
        steps=small.STEPS,
        batch_size=small.BATCH,
        eval_every=small.EVAL_EVERY,
        seeds=2,
        policy=jo.parse(policy),
        width=2,
        directory=directory,
        save_calls=1,
    )
    leaves = jax.tree.leaves((result.ledger.saved(), result.best.params))
    np.savez(os.path.join(directory, "result.npz"), *[np.asarray(leaf) for leaf in leaves])


def main():
    for line in sys.stdin:
        directory, policy = line.rstrip("\n").split(" ", 1)
        number = os.fork()
        if not number:
            try:
                child(directory, policy)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(number, flush=True)
        _, status = os.waitpid(number, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
