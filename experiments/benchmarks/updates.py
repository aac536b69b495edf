"""An AdamW step costs no more than Optax's, about half with clipping or on many small leaves; outside jit too.

Run      python -m experiments.benchmarks.updates [--quick]       about 3 minutes on two CPU cores, 1 with --quick
Writes   experiments/benchmarks/results/updates-BACKEND.json      (updates-BACKEND-quick.json with --quick)

Each contender does the same step, `update` and `apply_updates` in one jitted call that donates parameters and state.
`ratio` is its time in units of Optax's in the same round, the median over rounds. `copy` is the share of this machine's
copy bandwidth that the step uses, counting the bytes that it cannot do without: 28 for each parameter (gradient,
moments and parameters in; moments and parameters out), and 4 more to take the norm of the gradient before it is used.
Outside jit a turn is twenty calls of `update` on ten leaves of 8 x 8, at step counts that no call has seen before; `ms`
is for one call.
The same script runs on a GPU.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import optax

import jaxopt_lite as jo
from experiments.benchmarks import timing

LEARNING_RATE, WEIGHT_DECAY, MAX_NORM = 1e-3, 1e-2, 1.0
LARGE, SMALL_LEAVES, SMALL_SHAPE = 25_000_000, 400, (32, 32)
EAGER_LEAVES, EAGER_SHAPE, EAGER_CALLS = 10, (8, 8), 20
ROUNDS, COMPILATIONS = 60, 8
COLUMNS = {"case": "<46s", "contender": "<12s", "ms": ">8.2f", "ratio": ">6.2f", "copy": ">5.0%", "target": "<26s"}


def shapes_of(values: int, leaves: int) -> list[tuple[int, ...]]:
    """One vector, or square matrices."""
    side = round((values / leaves) ** 0.5)
    return [(values,)] if leaves == 1 else [(side, side)] * leaves


def tree(shapes: list[tuple[int, ...]], seed: int) -> dict[str, jax.Array]:
    """Leaves of normal numbers."""
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {f"w{i}": jax.random.normal(k, s) for i, (k, s) in enumerate(zip(keys, shapes, strict=True))}


def step_of(optimizer, apply_updates: Callable) -> Callable:
    """(params, state, grads) -> (params, state): not yet compiled."""

    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def jax_turns(contenders: dict[str, tuple], shapes: list) -> dict[str, Callable[[], object]]:
    """Turns by name, once it is sure that the first step of each is Optax's.

    Those whose states have the same leaves work on the same buffers: where these lie in memory makes up to a tenth of
    the time, and is chance.
    """
    grads, turns, held, expected = tree(shapes, 1), {}, {}, None
    for name in sorted(contenders, key=lambda name: name != "optax"):
        optimizer, apply_updates = contenders[name]
        step, params = step_of(optimizer, apply_updates), tree(shapes, 0)
        params, state = step(params, jax.jit(optimizer.init)(params), grads)
        expected = expected or jax.device_get(params)
        for key, leaf in params.items():
            np.testing.assert_allclose(leaf, expected[key], rtol=1e-4, atol=1e-6, err_msg=f"{name} is not Optax's step")
        leaves, structure = jax.tree.flatten(state)
        buffers = held.setdefault(tuple(leaf.shape for leaf in leaves), [params, leaves])

        def turn(step=step, structure=structure, buffers=buffers):
            buffers[0], state = jax.block_until_ready(step(buffers[0], structure.unflatten(buffers[1]), grads))
            buffers[1] = jax.tree.leaves(state)

        turns[name] = turn
    return {name: turns[name] for name in contenders}


def torch_turn(clip: bool, shapes: list) -> Callable[[], object] | None:
    """PyTorch's fused AdamW on the same device, where PyTorch is installed."""
    try:
        import torch
    except ImportError:
        return None
    on_gpu = jax.default_backend() == "gpu"
    if on_gpu and not torch.cuda.is_available():
        return None
    device = "cuda" if on_gpu else "cpu"
    params = [torch.nn.Parameter(torch.randn(s, device=device)) for s in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, device=device)
    optimizer = torch.optim.AdamW(params, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)

    def turn():
        if clip:
            torch.nn.utils.clip_grad_norm_(params, MAX_NORM)
        optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()

    return turn


def contenders_of(clip: bool, stacked: bool) -> dict[str, tuple]:
    """Optimizers with their `apply_updates`, by name."""
    mine = jo.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    peer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    if clip:
        mine = jo.chain(jo.clip_by_global_norm(MAX_NORM), mine)
        peer = optax.chain(optax.clip_by_global_norm(MAX_NORM), peer)
    found = {"jaxopt_lite": (mine, jo.apply_updates), "optax": (peer, optax.apply_updates)}
    if stacked:
        found = {"stack_leaves": (jo.stack_leaves(mine), jo.apply_updates), **found}
    return found


def time_steps(case: str, shapes: list, rounds: int, clip: bool, stacked: bool, target: float) -> list[dict]:
    """Rows for the step of each contender."""
    turns = jax_turns(contenders_of(clip, stacked), shapes)
    peer_torch = torch_turn(clip, shapes)
    if peer_torch is not None:
        turns["torch fused"] = peer_torch
    values = sum(int(np.prod(s)) for s in shapes)
    turns["copy"], copied = timing.copy_turn(LARGE)
    seconds = timing.alternate(turns, rounds, case)
    bandwidth = copied / statistics.median(seconds.pop("copy"))
    needed = (32 if clip else 28) * values
    first = next(iter(seconds))
    rows = []
    for name, times in seconds.items():
        own, ratio = statistics.median(times), timing.ratio(seconds, name, "optax")
        row = {"case": case, "contender": name, "ms": own * 1e3, "ratio": ratio, "copy": needed / own / bandwidth}
        rows.append(row | ({"target": timing.verdict(ratio, target)} if name == first else {}))
    return rows


def time_compilation(case: str, shapes: list, rounds: int, target: float) -> list[dict]:
    """Rows for tracing, lowering and compiling the step of each contender."""
    params = tree(shapes, 0)
    turns = {}
    for name, (optimizer, apply_updates) in contenders_of(clip=False, stacked=True).items():
        state = optimizer.init(params)

        def turn(optimizer=optimizer, apply_updates=apply_updates, state=state):
            step_of(optimizer, apply_updates).lower(params, state, params).compile()

        turns[name] = turn
    seconds = timing.alternate(turns, rounds, case, before=jax.clear_caches)
    rows = []
    for name, times in seconds.items():
        ratio = timing.ratio(seconds, name, "optax")
        row = {"case": case, "contender": name, "ms": statistics.median(times) * 1e3, "ratio": ratio}
        rows.append(row | ({"target": timing.verdict(ratio, target)} if name == "stack_leaves" else {}))
    return rows


def time_eager(case: str, rounds: int, target: float) -> list[dict]:
    """Rows for `update` outside jit, as people call it at a prompt and in a debugger."""
    grads, params = tree([EAGER_SHAPE] * EAGER_LEAVES, 1), tree([EAGER_SHAPE] * EAGER_LEAVES, 0)
    turns = {}
    for name, (optimizer, _) in contenders_of(clip=True, stacked=False).items():
        held = [optimizer.init(params)]

        def turn(optimizer=optimizer, held=held):
            for _ in range(EAGER_CALLS):
                _, held[0] = optimizer.update(grads, held[0], params)
            jax.block_until_ready(held[0])

        turns[name] = turn
    seconds = timing.alternate(turns, rounds, case)
    rows = []
    for name, times in seconds.items():
        ratio = timing.ratio(seconds, name, "optax")
        row = {"case": case, "contender": name, "ms": statistics.median(times) / EAGER_CALLS * 1e3, "ratio": ratio}
        rows.append(row | ({"target": timing.verdict(ratio, target)} if name == "jaxopt_lite" else {}))
    return rows


def main() -> None:
    """Time every case, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_compilation_cache", False)
    rounds, compilations = (8, 2) if quick else (ROUNDS, COMPILATIONS)
    start = time.perf_counter()

    print(", ".join(f"{key} {value}" for key, value in timing.machine().items()), flush=True)
    turn, moved = timing.copy_turn(LARGE)
    bandwidth = moved / statistics.median(timing.alternate({"copy": turn}, 10, "copy bandwidth")["copy"])
    print(f"copy bandwidth {bandwidth / 1e9:.1f} GB/s, read and written in place\n", flush=True)

    timing.header(COLUMNS)
    rows = []
    for leaves in (1, 100):
        shapes = shapes_of(LARGE, leaves)
        words = f"{LARGE / 1e6:g}M parameters, {leaves} {'leaf' if leaves == 1 else 'leaves'}"
        rows += timing.show(time_steps(f"clip + AdamW, {words}", shapes, rounds, True, False, target=0.5), COLUMNS)
        rows += timing.show(time_steps(f"AdamW, {words}", shapes, rounds, False, False, target=1.0), COLUMNS)
    shapes = [SMALL_SHAPE] * SMALL_LEAVES
    words = f"AdamW, {SMALL_LEAVES} leaves of {SMALL_SHAPE[0]} x {SMALL_SHAPE[1]}"
    rows += timing.show(time_steps(words, shapes, 5 * rounds, False, True, target=0.6), COLUMNS)
    rows += timing.show(time_compilation(f"{words}: compile", shapes, compilations, 0.5), COLUMNS)
    words = f"outside jit: clip + AdamW, {EAGER_LEAVES} leaves of {EAGER_SHAPE[0]} x {EAGER_SHAPE[1]}"
    rows += timing.show(time_eager(words, rounds, target=1.5), COLUMNS)
    path = timing.write("updates", quick, {"copy_bandwidth_gb_s": bandwidth / 1e9, "rows": rows})
    print(f"\nwrote {path} after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
