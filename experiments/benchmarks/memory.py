"""8-bit AdamW keeps 2.1 bytes of state for each parameter, 8-bit Lion 1.1; on a GPU the step takes at most 1.5 times.

Run      python -m experiments.benchmarks.memory [--quick]        about 4 minutes on two CPU cores, 1 with --quick
Writes   experiments/benchmarks/results/memory-BACKEND.json       (memory-BACKEND-quick.json with --quick)

`bytes` counts the state of each parameter, `state_bytes`; in the rows of bfloat16 weights, the weights too. `ratio` is
the time of `update` and `apply_updates` in one jitted call that donates parameters and state, in units of float32
AdamW's on the same parameters in the same round, the median over rounds. On CPU a ratio is reported as it is, without a
target: 8 bits save stored bytes there, not time. `temporary` is the memory that the compiled step needs beside its
arguments and results, in bytes for each parameter, by XLA's own account; `compile` the seconds to compile `init`.
"""

import statistics
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp

import jaxopt_lite as jo
from experiments.benchmarks import timing
from experiments.benchmarks.updates import shapes_of, step_of, tree

RATE, DECAY = 1e-3, 1e-2
VALUES, ROUNDS, QUICK = 25_000_000, 30, (4_000_000, 4)
PEER = "AdamW"
COLUMNS = {
    **{"case": "<32s", "contender": "<44s", "bytes": ">6.3f", "bytes_target": "<24s", "ms": ">8.2f"},
    **{"ratio": ">6.2f", "target": "<24s", "temporary": ">9.2f", "compile": ">8.2f"},
}


def contenders_of() -> dict[str, tuple]:
    """By name: the optimizer, the dtype of the weights, the most bytes a parameter, whether its time has a target."""
    adamw, lion = jo.adamw(RATE, weight_decay=DECAY), jo.lion(RATE / 10, weight_decay=DECAY)
    eight = jo.quantize_state(adamw)
    return {
        PEER: (adamw, jnp.float32, 8.0, False),
        "8-bit AdamW": (eight, jnp.float32, 2.1, True),
        "Lion": (lion, jnp.float32, 4.0, False),
        "8-bit Lion": (jo.quantize_state(lion), jnp.float32, 1.1, True),
        "stochastic rounding, AdamW": (jo.stochastic_rounding(adamw), jnp.bfloat16, 10.0, True),
        "stochastic rounding, 8-bit AdamW": (jo.stochastic_rounding(eight), jnp.bfloat16, 4.2, True),
        "Kahan summation, 8-bit AdamW": (jo.kahan_summation(eight), jnp.bfloat16, 6.2, True),
        "master weights, 8-bit AdamW": (jo.master_weights(eight), jnp.bfloat16, 6.2, True),
    }


def bytes_of(optimizer, dtype, shapes: list) -> float:
    """Bytes of state for each parameter, and of the weights where they have 16 bits."""
    params = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    weights = 2 * (dtype == jnp.bfloat16)
    return weights + jo.state_bytes(optimizer, params) / sum(p.size for p in params)


def time_steps(case: str, shapes: list, rounds: int) -> list[dict]:
    """Rows for the step of each contender; gradients have the dtype of the weights."""
    turns, rows, on_gpu = {}, [], jax.default_backend() != "cpu"
    values = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: tree(shapes, 0))))
    for name, (optimizer, dtype, most, has_target) in contenders_of().items():
        params, grads = (jax.tree.map(lambda p: p.astype(dtype), tree(shapes, seed)) for seed in (0, 1))  # noqa: B023
        start = time.perf_counter()
        init = jax.jit(optimizer.init).lower(params).compile()
        compiled, state = time.perf_counter() - start, init(params)
        step = step_of(optimizer, jo.apply_updates).lower(params, state, grads).compile()
        memory, held = step.memory_analysis(), [params, state]

        def turn(step=step, held=held, grads=grads):
            held[:] = jax.block_until_ready(step(*held, grads))

        turns[name] = turn
        found = bytes_of(optimizer, dtype, shapes)
        row = {"case": case, "contender": name, "bytes": found, "bytes_target": timing.verdict(found, most)}
        temporary = getattr(memory, "temp_size_in_bytes", 0) / values
        rows.append(row | {"temporary": temporary, "compile": compiled, "has_target": has_target and on_gpu})
    seconds = timing.alternate(turns, rounds, case)
    for row in rows:
        ratio = timing.ratio(seconds, row["contender"], PEER)
        row |= {"ms": statistics.median(seconds[row["contender"]]) * 1e3, "ratio": ratio}
        if row.pop("has_target"):
            row["target"] = timing.verdict(ratio, 1.5)
    return rows


def cases(quick: bool) -> Iterator[list[dict]]:
    """The rows for one large leaf, and for 25."""
    values, rounds = QUICK if quick else (VALUES, ROUNDS)
    for leaves in (1, 25):
        case = f"{values / 1e6:g}M parameters, {leaves} {'leaf' if leaves == 1 else 'leaves'}"
        yield time_steps(case, shapes_of(values, leaves), rounds)


def main() -> None:
    """Measure every case, print the table, write the JSON."""
    jax.config.update("jax_enable_compilation_cache", False)
    timing.command(__doc__, "memory", COLUMNS, cases)


if __name__ == "__main__":
    main()
