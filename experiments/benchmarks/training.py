"""`fit` is as fast as a hand-written scan over the same batches, and several times faster than a loop of jitted steps.

Run      python -m experiments.benchmarks.training [--quick]       about 2 minutes on two CPU cores, 1 with --quick
Writes   experiments/benchmarks/results/training-BACKEND.json      (training-BACKEND-quick.json with --quick)

All contenders train the 128-unit network of `experiments.digits` with Adam, on the same batches in the same order; that
they arrive at the same parameters is checked over the first 50 steps. Compiling is not counted. A run has 10,000 steps:
`fit` has some milliseconds of its own in each run and at each point, which a run of 2,000 such small steps (a tenth of
a second) would show. The contenders:

    fit             `jo.fit`, which draws the order of the batches, keeps a history and watches for numbers not finite
    scan            one `lax.scan` over a given order, data on the device, Optax's Adam: nothing but the steps
    scan + order    the same, drawing the order itself, a `jax.random.permutation` for each epoch
    optax loop      one jitted, donating Optax step for each batch, the batches taken by NumPy as data loaders do

`ratio` is the time in units of the scan's in the same round, the median over rounds.
"""

import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_lite as jo
from experiments import digits
from experiments.benchmarks import timing

LEARNING_RATE = 1e-3
STEPS, EVAL_EVERY, CHECKED = 10_000, 500, 50
BATCH_SIZES = (8, 32, 128)
ROUNDS = 9
COLUMNS = {"case": "<28s", "contender": "<14s", "steps_s": ">10,.0f", "ratio": ">6.2f", "target": "<30s"}


def start(task: jo.Task):
    """The parameters with which `fit` begins for seed 0, and Optax's state for them."""
    params = jo.init_state(task, jo.adam(LEARNING_RATE), seed=0).params
    return params, optax.adam(LEARNING_RATE).init(params)


def optax_step(params, state, batch):
    """One step, for the scan and for the loop."""
    grads = jax.grad(digits.loss)(params, batch, None)
    updates, state = optax.adam(LEARNING_RATE).update(grads, state, params)
    return optax.apply_updates(params, updates), state


@jax.jit
def scan(params, state, data, order):
    """The steps over an order [steps, batch]."""

    def step(carry, rows):
        return optax_step(*carry, jax.tree.map(lambda x: x[rows], data)), None

    return jax.lax.scan(step, (params, state), order)[0][0]


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def draw(key, rows, batch_size, steps):
    """An order [steps, batch] of whole epochs, as `fit` draws it."""
    per_epoch = rows // batch_size
    epochs = -(-steps // per_epoch)
    order = jax.vmap(lambda e: jax.random.permutation(jax.random.fold_in(key, e), rows))(jnp.arange(epochs))
    return order[:, : per_epoch * batch_size].reshape(-1, batch_size)[:steps]


def contenders_of(batch_size: int, steps: int) -> dict:
    """Turns by name; each returns the parameters that it has reached."""
    full = digits.task()
    task = jo.Task(full.init, full.loss, full.train)  # the other contenders do not evaluate
    optimizer, key = jo.adam(LEARNING_RATE), jax.random.key(0)
    order = jo.batch_order(key, task.rows, batch_size, 0, steps)
    on_device, on_host = jnp.asarray(order), jax.tree.map(np.asarray, task.train)
    step = jax.jit(optax_step, donate_argnums=(0, 1))

    def loop():
        params, state = start(task)
        for rows in order:
            params, state = step(params, state, {name: column[rows] for name, column in on_host.items()})
        return jax.block_until_ready(params)

    return {
        "fit": lambda: jax.block_until_ready(jo.fit(task, optimizer, steps, batch_size, eval_every=EVAL_EVERY).params),
        "scan": lambda: jax.block_until_ready(scan(*start(task), task.train, on_device)),
        "scan + order": lambda: jax.block_until_ready(
            scan(*start(task), task.train, draw(key, task.rows, batch_size, steps))
        ),
        "optax loop": loop,
    }


def check(turns: dict) -> None:
    """All must arrive at the same parameters, as long as rounding has had no time to grow."""
    reached = {name: jax.tree.leaves(turn()) for name, turn in turns.items()}
    for name, leaves in reached.items():
        for a, b in zip(leaves, reached["scan"], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4, err_msg=f"{name} does not arrive where the scan does")


def time_case(batch_size: int, steps: int, rounds: int) -> list[dict]:
    """Rows for one batch size."""
    turns = contenders_of(batch_size, steps)
    check(contenders_of(batch_size, CHECKED))
    seconds = timing.alternate(turns, rounds, f"batches of {batch_size}")
    rows = []
    for name, times in seconds.items():
        rows.append(
            {
                "case": f"digits, batches of {batch_size}",
                "contender": name,
                "steps_s": steps / statistics.median(times),
                "ratio": timing.ratio(seconds, name, "scan"),
            }
        )
    rows[0]["target"] = timing.verdict(rows[0]["ratio"], 1.05)
    faster = timing.ratio(seconds, "optax loop", "fit")
    rows[-1]["target"] = f"fit is {faster:.1f} x faster, of 2: {'reached' if faster >= 2 else 'MISSED'}"
    rows[-1]["fit_is_faster"] = faster
    return rows


def main() -> None:
    """Time every case, print the table, write the JSON."""
    cases = lambda quick: (time_case(batch_size, STEPS, 4 if quick else ROUNDS) for batch_size in BATCH_SIZES)
    timing.command(__doc__, "training", COLUMNS, cases, lambda quick: {"steps": STEPS})


if __name__ == "__main__":
    main()
