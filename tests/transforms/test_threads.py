"""Decompositions of many batches in one step end, whatever OPENBLAS_NUM_THREADS is.

LAPACK's threads wait for each other and for those of XLA, so that batched decompositions side by side can wait for
ever on a machine with few cores. Each case runs in a process of its own, since the library reads the variable once.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = """
    import jax, jax.numpy as jnp, jaxopt_lite as jo
    sizes = [40, 48, 56, 64, 72, 80, 88, 96]
    params = {f"{n}.{i}": jnp.ones((n, n)) for n in sizes for i in range(3)}
    optimizer = jo.chain(jo.stack_matrices(jo.scale_by_soap(precondition_frequency=1)),
                         jo.stack_matrices(jo.scale_by_shampoo(precondition_frequency=1)))
    state, key = jax.jit(optimizer.init)(params), jax.random.key(0)
    step = jax.jit(lambda grads, state: optimizer.update(grads, state, params))
    for i in range(3):
        grads = {name: jax.random.normal(jax.random.fold_in(key, i), p.shape) for name, p in params.items()}
        updates, state = step(grads, state)
    print(all(bool(jnp.isfinite(u).all()) for u in jax.tree.leaves(updates)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["2", "16", None])  # the other tests run with 1
def test_no_number_of_threads_hangs(threads):
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    env |= {"PYTHONPATH": str(Path(__file__).parents[2])} | (
        {} if threads is None else {"OPENBLAS_NUM_THREADS": threads}
    )
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "True", done.stderr[-2000:]
