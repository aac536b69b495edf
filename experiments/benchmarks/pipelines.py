"""Batches that the host makes, made ahead by a thread, cost at most 5 % over the same batches drawn on the device.

Run      python -m experiments.benchmarks.pipelines [--quick]      about 5 minutes on two CPU cores, 2 with --quick
Writes   experiments/benchmarks/results/pipelines-BACKEND.json     (pipelines-BACKEND-quick.json with --quick)

The contenders train on the same batches in the same order, with `jo.fit`, and arrive at the same parameters, which is
checked. Compiling is not counted.

    device          the data lie on the device as arrays, and each step takes its batch there
    ahead           NumPy takes each batch on the host, in a thread ahead of the steps (prefetch=2, the default)
    between         the same without the thread (prefetch=0)
    work between    as `between`, and each batch costs the host some work more
    work ahead      the same in the thread

`ratio` is the time in units of that of `device` in the same round, the median over rounds. The work is a sleep of a
quarter of a step, as a loader waits for a disk: on a CPU, work that computes would take the cores from the steps.
"""

import itertools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from experiments.benchmarks import timing

EXAMPLES, ROUNDS = 4096, 9
VOCABULARY, LENGTH, WIDTH, LAYERS, HEADS = 256, 64, 128, 4, 4
COLUMNS = {"case": "<32s", "contender": "<14s", "steps_s": ">10,.1f", "ratio": ">6.2f", "target": "<30s"}


def network(key):
    """784 - 256 - 10, and random images for it: (init, loss, data)."""
    image, label = jax.random.split(key)
    data = {
        "image": np.asarray(jax.random.uniform(image, (EXAMPLES, 784))),
        "label": np.asarray(jax.random.randint(label, (EXAMPLES,), 0, 10)),
    }

    def init(key):
        one, two = jax.random.split(key)
        return {"one": jax.random.normal(one, (784, 256)) / 28, "two": jax.random.normal(two, (256, 10)) / 16}

    def loss(params, batch, key):
        logits = jax.nn.relu(batch["image"] @ params["one"]) @ params["two"]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), batch["label"][:, None], axis=1))

    return init, loss, data


def transformer(key):
    """A causal transformer over bytes with about a million parameters, and random text: (init, loss, data)."""
    data = {"text": np.asarray(jax.random.randint(key, (EXAMPLES, LENGTH + 1), 0, VOCABULARY))}
    shapes = {"qkv": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH), "up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}

    def init(key):
        draw = lambda i, shape: jax.random.normal(jax.random.fold_in(key, i), shape) * shape[-2] ** -0.5
        layers = {name: draw(i, (LAYERS, *shape)) for i, (name, shape) in enumerate(shapes.items())}
        return {"bytes": draw(8, (VOCABULARY, WIDTH)), "places": draw(9, (LENGTH, WIDTH)), "layers": layers}

    def normed(x):
        return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)

    def layer(x, p):
        heads = lambda a: a.reshape(*a.shape[:2], HEADS, WIDTH // HEADS)
        q, k, v = (heads(a) for a in jnp.split(normed(x) @ p["qkv"], 3, axis=-1))
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + mixed.reshape(x.shape) @ p["out"]
        return x + jax.nn.gelu(normed(x) @ p["up"]) @ p["down"], None

    def loss(params, batch, key):
        text = batch["text"]
        x = params["bytes"][text[:, :-1]] + params["places"][None]
        x, _ = jax.lax.scan(layer, x, params["layers"])
        chosen = jnp.take_along_axis(jax.nn.log_softmax(normed(x) @ params["bytes"].T), text[:, 1:, None], axis=2)
        return -jnp.mean(chosen)

    return init, loss, data


# Name, (init, loss, data), batch size, steps, steps of a point.
CASES = (
    ("784-256-10, batches of 128", network, 128, 3000, 250),
    ("transformer, batches of 16 x 64", transformer, 16, 60, 20),
)


def contenders_of(make, batch_size: int, steps: int, eval_every: int, pause: float) -> dict:
    """Turns by name; each returns the parameters that it has reached."""
    init, loss, data = make(jax.random.key(1))
    order = jo.batch_order(jax.random.key(0), EXAMPLES, batch_size, 0, steps)
    on_device, optimizer = jo.Task(init, loss, data), jo.adam(1e-3)

    def batches(seconds):
        for rows in order:
            if seconds:
                time.sleep(seconds)
            yield {name: column[rows] for name, column in data.items()}

    def turn(task, prefetch):
        run = jo.fit(task, optimizer, steps, batch_size, eval_every=eval_every, prefetch=prefetch)
        return jax.block_until_ready(run.params)

    quick, slow = (jo.Task(init, loss, lambda seconds=seconds: batches(seconds)) for seconds in (0.0, pause))
    return {
        "device": lambda: turn(on_device, 0),
        "ahead": lambda: turn(quick, 2),
        "between": lambda: turn(quick, 0),
        "work ahead": lambda: turn(slow, 2),
        "work between": lambda: turn(slow, 0),
    }


def time_case(case: str, make, batch_size: int, steps: int, eval_every: int, rounds: int) -> list[dict]:
    """Rows of one case."""
    turns = contenders_of(make, batch_size, steps, eval_every, 0.0)
    reached = {name: jax.tree.leaves(turn()) for name, turn in itertools.islice(turns.items(), 3)}
    for name, leaves in reached.items():
        for a, b in zip(leaves, reached["device"], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-2, err_msg=f"{name} does not arrive where device does")
    step = statistics.median(timing.alternate({"device": turns["device"]}, 2, case)["device"]) / steps
    turns = contenders_of(make, batch_size, steps, eval_every, step / 4)
    seconds = timing.alternate(turns, rounds, case)
    rows = []
    for name, times in seconds.items():
        ratio = timing.ratio(seconds, name, "device")
        rows.append(
            {"case": case, "contender": name, "steps_s": steps / statistics.median(times), "ratio": ratio}
            | ({"target": timing.verdict(ratio, 1.05)} if name.endswith("ahead") else {})
        )
    return rows


def main() -> None:
    """Time every case, print the table, write the JSON."""
    cases = lambda quick: (time_case(*case, 3 if quick else ROUNDS) for case in CASES)
    timing.command(__doc__, "pipelines", COLUMNS, cases)


if __name__ == "__main__":
    main()
