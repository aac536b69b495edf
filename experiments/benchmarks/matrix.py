"""Muon's update in stacks takes less than half of Optax's time and memory; SOAP's whole step at most 1.5 of AdamW's.

Run      python -m experiments.benchmarks.matrix [--quick]       about 6 minutes on two CPU cores, 2 with --quick
Writes   experiments/benchmarks/results/matrix-BACKEND.json      (matrix-BACKEND-quick.json with --quick)

The parameters are those of a transformer of 12 layers and width 256 (6 layers with --quick). For Muon a turn is
`update` and `apply_updates` in one jitted call that donates parameters and state; `memory` is the temporary memory that
XLA reserves for it, in MB, and `compile` the seconds to compile it. For SOAP a turn is ten whole training steps at
batch 8 x 128 tokens, in which its basis is refreshed once; the gradients are of the model below.
`ratio` is the time in units of the peer's in the same round, the median over rounds.
Set OPENBLAS_NUM_THREADS=1: with more threads LAPACK's decompositions of small matrices are slower.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxopt_lite as jo
from experiments.benchmarks import timing

LAYERS, QUICK_LAYERS, WIDTH, HEADS, TOKENS, BATCH, LENGTH = 12, 6, 256, 8, 512, 8, 128
ROUNDS, QUICK_ROUNDS, COMPILATIONS, STEPS = 30, 8, 3, 10
COLUMNS = {"case": "<34s", "contender": "<12s", "ms": ">9.2f", "ratio": ">6.2f", "memory": ">8.1f", "target": "<30s"}


def init(key: jax.Array, layers: int) -> dict[str, Any]:
    """The parameters of the transformer: matrices are [in, out]."""
    shapes = {"query": 1, "key": 1, "value": 1, "out": 1, "up": 4, "down": 4}

    def block(key):
        keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
        sizes = {name: (WIDTH * n, WIDTH) if name == "down" else (WIDTH, WIDTH * n) for name, n in shapes.items()}
        weights = {name: jax.random.normal(keys[name], size) * size[0] ** -0.5 for name, size in sizes.items()}
        attention = {name: weights[name] for name in ("query", "key", "value", "out")}
        mlp = {name: weights[name] for name in ("up", "down")}
        return {"attention": attention, "mlp": mlp, "norm_1": jnp.ones(WIDTH), "norm_2": jnp.ones(WIDTH)}

    *keys, one, two, three = jax.random.split(key, layers + 3)
    return {
        **{f"block_{i}": block(k) for i, k in enumerate(keys)},
        "embed": jax.random.normal(one, (TOKENS, WIDTH)) * 0.02,
        "position_embed": jax.random.normal(two, (LENGTH, WIDTH)) * 0.02,
        "head": jax.random.normal(three, (WIDTH, TOKENS)) * WIDTH**-0.5,
    }


def normed(x: jax.Array, scale: jax.Array) -> jax.Array:
    return scale * x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def loss(params: dict, tokens: jax.Array) -> jax.Array:
    """The mean cross-entropy of the next token, of tokens int32 [batch, length]."""
    x = params["embed"][tokens] + params["position_embed"]
    blocks = [params[name] for name in params if name.startswith("block_")]
    split = lambda y: y.reshape(*y.shape[:-1], HEADS, WIDTH // HEADS)
    for block in blocks:
        a, m = block["attention"], block["mlp"]
        y = normed(x, block["norm_1"])
        seen = jax.nn.dot_product_attention(*(split(y @ a[name]) for name in ("query", "key", "value")), is_causal=True)
        x = x + seen.reshape(x.shape) @ a["out"]
        x = x + jax.nn.gelu(normed(x, block["norm_2"]) @ m["up"]) @ m["down"]
    logits = (x @ params["head"])[:, :-1]
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]))


def seconds_of(f: Callable[[], Any]) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def muon_rows(layers: int, rounds: int) -> list[dict]:
    """Muon's update: time, temporary memory and compile time, ours and Optax's."""
    is_hidden = jo.hidden_matrices()
    dimensions = lambda params: jax.tree.map(
        lambda label: None if label == "adam" else optax.contrib.MuonDimensionNumbers(), is_hidden(params)
    )
    contenders = {
        "jaxopt_lite": jo.muon(0.02, weight_decay=0.1),
        "optax": optax.contrib.muon(0.02, weight_decay=0.1, muon_weight_dimension_numbers=dimensions),
    }
    turns, compiled, compiling = {}, {}, {name: [] for name in contenders}
    for name, optimizer in contenders.items():

        def step(params, state, grads, optimizer=optimizer):
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        params, grads = init(jax.random.key(0), layers), init(jax.random.key(1), layers)
        held = [params, jax.jit(optimizer.init)(params)]
        for _ in range(COMPILATIONS):
            jax.clear_caches()
            lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*held, grads)
            compiling[name].append(
                seconds_of(lambda name=name, lowered=lowered: compiled.update({name: lowered.compile()}))
            )

        def turn(held=held, grads=grads, run=compiled[name]):
            held[:] = jax.block_until_ready(run(*held, grads))

        turns[name] = turn
    seconds = timing.alternate(turns, rounds, "muon")
    rows = []
    memory = {name: program.memory_analysis().temp_size_in_bytes / 1e6 for name, program in compiled.items()}
    for case, figures, target in (
        ("Muon, update", {name: statistics.median(own) * 1e3 for name, own in seconds.items()}, "at most 0.45"),
        ("Muon, temporary memory", None, "at most 0.4"),
        ("Muon, compile", {name: statistics.median(own) * 1e3 for name, own in compiling.items()}, "at most 1"),
    ):
        for name in contenders:
            ratio = timing.ratio(seconds, name, "optax") if case == "Muon, update" else 0.0
            if figures is None:
                ratio = memory[name] / memory["optax"]
            elif case == "Muon, compile":
                ratio = figures[name] / figures["optax"]
            own = {"ms": figures[name]} if figures else {"memory": memory[name]}
            rows.append(
                {"case": case, "contender": name, "ratio": ratio, **own, "target": target if name != "optax" else ""}
            )
    return rows
