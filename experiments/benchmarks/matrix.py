"""Muon's update in stacks takes less than half of Optax's time and memory; SOAP's whole step at most 1.5 of AdamW's.

Run      python -m experiments.benchmarks.matrix [--quick]       about 6 minutes on two CPU cores, 2 with --quick
Writes   experiments/benchmarks/results/matrix-BACKEND.json      (matrix-BACKEND-quick.json with --quick)

The parameters are those of a transformer of 12 layers and width 256 (6 layers with --quick). For Muon a turn is
`update` and `apply_updates` in one jitted call that donates parameters and state; `memory` is the temporary memory that
XLA reserves for it, in MB, and `compile` the seconds to compile it. For SOAP a turn is ten whole training steps at
batch 8 x 128 tokens, in which its basis is refreshed once; the gradients are of experiments.transformer.
`ratio` is the time in units of the peer's in the same round, the median over rounds.
Set OPENBLAS_NUM_THREADS=1: with more threads LAPACK's decompositions of small matrices are slower.
"""

import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax

import jaxopt_lite as jo
from experiments import transformer
from experiments.benchmarks import timing

LAYERS, QUICK_LAYERS, WIDTH, HEADS, TOKENS, BATCH, LENGTH = 12, 6, 256, 8, 512, 8, 128
ROUNDS, QUICK_ROUNDS, COMPILATIONS, STEPS = 30, 8, 3, 10
COLUMNS = {"case": "<34s", "contender": "<12s", "ms": ">9.2f", "ratio": ">6.2f", "memory": ">8.1f", "target": "<30s"}


def init(key: jax.Array, layers: int) -> dict[str, Any]:
    """The parameters of the transformer."""
    return transformer.init(key, layers, WIDTH, TOKENS, LENGTH)


def loss(params: dict, tokens: jax.Array) -> jax.Array:
    """The mean cross-entropy of the next token, of tokens int32 [batch, length]."""
    return transformer.cross_entropy(transformer.apply(params, tokens, HEADS)[:, :-1], tokens[:, 1:])


def contender(optimizer: Any, layers: int, compiling: list[float]) -> tuple[Callable[[], object], float]:
    """A turn of `update` and `apply_updates`, and its temporary memory in MB; compile seconds are appended."""
    params, grads = init(jax.random.key(0), layers), init(jax.random.key(1), layers)
    held = [params, jax.jit(optimizer.init)(params)]

    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(COMPILATIONS):
        jax.clear_caches()
        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*held, grads)
        start = time.perf_counter()
        run = lowered.compile()
        compiling.append(time.perf_counter() - start)

    def turn():
        held[:] = jax.block_until_ready(run(*held, grads))

    return turn, run.memory_analysis().temp_size_in_bytes / 1e6


def muon_rows(layers: int, rounds: int) -> list[dict]:
    """Muon's update: time, temporary memory and compile time, ours and Optax's."""

    def dimensions(params):  # the same leaves are Muon's
        own = optax.contrib.MuonDimensionNumbers()
        return jax.tree.map(lambda label: None if label == "adam" else own, jo.hidden_matrices()(params))

    peers = {
        "jaxopt_lite": jo.muon(0.02, weight_decay=0.1),
        "optax": optax.contrib.muon(0.02, weight_decay=0.1, muon_weight_dimension_numbers=dimensions),
    }
    turns, memory, compiling = {}, {}, {name: [] for name in peers}
    for name, optimizer in peers.items():
        turns[name], memory[name] = contender(optimizer, layers, compiling[name])
    seconds = timing.alternate(turns, rounds, "Muon")
    cases = (
        ("Muon, update", {name: statistics.median(own) * 1e3 for name, own in seconds.items()}, "ms", 0.45),
        ("Muon, temporary memory", memory, "memory", 0.4),
        ("Muon, compile", {name: statistics.median(own) * 1e3 for name, own in compiling.items()}, "ms", 1.0),
    )
    rows = []
    for case, figures, unit, target in cases:
        for name, figure in figures.items():
            is_update = case == "Muon, update"
            ratio = timing.ratio(seconds, name, "optax") if is_update else figure / figures["optax"]
            row = {"case": case, "contender": name, unit: figure, "ratio": ratio}
            rows.append(row | ({"target": timing.verdict(ratio, target)} if name == "jaxopt_lite" else {}))
    return rows


def soap_rows(layers: int, rounds: int) -> list[dict]:
    """Whole training steps of SOAP and AdamW: the time of ten, for one."""
    tokens = jax.random.randint(jax.random.key(2), (BATCH, LENGTH), 0, TOKENS)
    turns = {}
    for name, optimizer in (("soap", jo.soap(3e-3, precondition_frequency=STEPS)), ("adamw", jo.adamw(3e-3))):

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, state, optimizer=optimizer):
            updates, state = optimizer.update(jax.grad(loss)(params, tokens), state, params)
            return jo.apply_updates(params, updates), state

        params = init(jax.random.key(0), layers)
        held = [params, jax.jit(optimizer.init)(params)]

        def turn(step=step, held=held):
            for _ in range(STEPS):
                held[:] = step(*held)
            jax.block_until_ready(held)

        turns[name] = turn
    seconds = timing.alternate(turns, rounds, "SOAP")
    rows = []
    for name, times in seconds.items():
        ratio = timing.ratio(seconds, name, "adamw")
        row = {"case": "SOAP, training step", "contender": name, "ms": statistics.median(times) * 1e3 / STEPS}
        rows.append(row | {"ratio": ratio} | ({"target": timing.verdict(ratio, 1.5)} if name == "soap" else {}))
    return rows


def cases(quick: bool) -> Iterator[list[dict]]:
    """The rows of Muon, and of SOAP."""
    layers, rounds = (QUICK_LAYERS, QUICK_ROUNDS) if quick else (LAYERS, ROUNDS)
    yield muon_rows(layers, rounds)
    yield soap_rows(layers, rounds // 4)


def facts(quick: bool) -> dict:
    """Layers, and LAPACK's threads."""
    return {
        "layers": QUICK_LAYERS if quick else LAYERS,
        "openblas_num_threads": os.environ.get("OPENBLAS_NUM_THREADS", ""),
    }


def main() -> None:
    """Time both cases, print the table, write the JSON."""
    jax.config.update("jax_enable_compilation_cache", False)
    timing.command(__doc__, "matrix", COLUMNS, cases, facts)


if __name__ == "__main__":
    main()
