"""Shifting 500 images of MNIST a little does more against overfitting than penalties, dropout or stopping early.

Run      python -m experiments.overfitting [--quick]        about 65 s on two CPU cores
Writes   runs/overfitting/{result.json, overfitting.png}
Data     of the images of experiments.mnist 50 of each class to train, 1,000 to choose by, and 1,000 to test
Result   means of 8 fresh seeds with 95 % intervals; * where the paired difference to none excludes zero
                                 test loss - train loss    test loss          test accuracy
             none                0.493 ± 0.013             0.496 ± 0.013      0.887 ± 0.004
             L1 penalty          0.407 ± 0.010 *           0.434 ± 0.010 *    0.883 ± 0.004
             L2 penalty          0.377 ± 0.005 *           0.419 ± 0.006 *    0.888 ± 0.003
             weight decay        0.352 ± 0.004 *           0.411 ± 0.005 *    0.893 ± 0.002 *
             dropout             0.400 ± 0.005 *           0.427 ± 0.007 *    0.888 ± 0.004
             smaller network     0.491 ± 0.012             0.499 ± 0.012      0.884 ± 0.004
             shifted images      0.218 ± 0.005 *           0.271 ± 0.004 *    0.923 ± 0.003 *
             early stopping      0.389 ± 0.005 *           0.438 ± 0.009 *    0.883 ± 0.003

A network 784 - 128 - 10 trains by AdamW with learning rate 0.001 for 800 steps in batches of 50, 80 epochs, and knows
all its images after 20 of them. A remedy is one number of a config, and the loss holds all of them, so one sweep of
six remedies with eight values each and two seeds is one program; the lowest valid loss at the end chooses the value.
Then all are trained again with fresh seeds, the same ones for all. The penalties are terms of the loss, weight decay is
decoupled from it; both leave biases alone. Early stopping has nothing to choose, since more patience is never worse on
the valid data: it ends after five points of 40 steps without a lower valid loss, and keeps the best point.

The intervals are those of one comparison each, over seeds: the images are always the same. To choose by 1,000 images
when 500 are there to train is a luxury, which all remedies share.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_lite as jo
from experiments import digits, mnist, record

IMAGES, HIDDEN, SIDE = 500, 128, 28
LEARNING_RATE, STEPS, BATCH_SIZE, EVAL_EVERY = 1e-3, 800, 50, 40
TUNING_SEEDS, SEEDS, PATIENCE = 2, 8, 5

# A remedy is a number. Without any it is this:
NONE = {"l1": 0.0, "l2": 0.0, "decay": 0.0, "dropout": 0.0, "width": float(HIDDEN), "shift": 0.0}
REMEDIES = {  # the number it changes, and the values that are tried, from weak to strong
    "L1 penalty": ("l1", np.geomspace(1e-5, 1e-2, 8)),
    "L2 penalty": ("l2", np.geomspace(1e-4, 1e-1, 8)),
    "weight decay": ("decay", np.geomspace(0.1, 10, 8)),
    "dropout": ("dropout", np.linspace(0.2, 0.9, 8)),
    "smaller network": ("width", np.array([64, 48, 32, 24, 16, 12, 8, 4])),
    "shifted images": ("shift", np.linspace(0.25, 2, 8)),
}
SPACE = {
    "l1": jo.uniform(0.0, 1.0),
    "l2": jo.uniform(0.0, 1.0),
    "decay": jo.uniform(0.0, 100.0),
    "dropout": jo.uniform(0.0, 0.95),
    "width": jo.uniform(1.0, float(HIDDEN)),
    "shift": jo.uniform(0.0, 4.0),
}
SHOWN = ("none", "weight decay", "dropout", "shifted images")  # in the learning curves
COLORS = dict(zip(("none", *REMEDIES, "early stopping"), ("0.35", *(f"C{i}" for i in range(7))), strict=True))
WEIGHTS = jo.by_path({"*/w": True}, default=False)  # biases are not penalised


@functools.cache
def data():
    """{"train", "valid", "test"}: MNIST's, but of the training images the first 50 of each class."""
    train, valid, test = mnist.data()
    chosen = np.sort(np.concatenate([np.flatnonzero(train["label"] == k)[: IMAGES // 10] for k in range(10)]))
    return {"train": {name: column[chosen] for name, column in train.items()}, "valid": valid, "test": test}


def init(numbers, key):
    """He initialisation of a network 784 - width - 10, as one of 784 - 128 - 10 that `logits` narrows."""
    params = digits.init(key, HIDDEN, SIDE**2)
    return {**params, "out": {**params["out"], "w": params["out"]["w"] * jnp.sqrt(HIDDEN / numbers["width"])}}


def logits(numbers, params, image, key=None):
    """ReLU and a linear layer. Units beyond the width are zero, and stay untrained; with a key others drop out."""
    hidden = jax.nn.relu(image @ params["hidden"]["w"] + params["hidden"]["b"][None])
    hidden = jnp.where(jnp.arange(HIDDEN)[None] < numbers["width"], hidden, 0)
    if key is not None:
        left = 1 - numbers["dropout"]
        hidden = jnp.where(jax.random.bernoulli(key, left, hidden.shape), hidden / left, 0)
    return hidden @ params["out"]["w"] + params["out"]["b"][None]


def shifted(image, pixels, key):
    """Each image moved by whole pixels, normal of this deviation; what leaves on one side comes in on the other."""
    square = image.reshape(-1, SIDE, SIDE)
    by = jnp.int32(jnp.round(pixels * jax.random.normal(key, (len(square), 2))))
    rows, columns = ((jnp.arange(SIDE)[None] - by[:, i, None]) % SIDE for i in (0, 1))
    return square[jnp.arange(len(square))[:, None, None], rows[:, :, None], columns[:, None, :]].reshape(image.shape)


def loss(numbers, params, batch, key):
    """Cross-entropy of shifted images through a network with dropout, and the penalties."""
    shift_key, drop_key = jax.random.split(key)
    output = logits(numbers, params, shifted(batch["image"], numbers["shift"], shift_key), drop_key)
    penalties = jo.l1_penalty(numbers["l1"], WEIGHTS)(params) + jo.l2_penalty(numbers["l2"], WEIGHTS)(params)
    return optax.losses.softmax_cross_entropy_with_integer_labels(output, batch["label"]).mean() + penalties


@functools.cache
def joined(names):
    """The named sets, one behind the other, and where one ends and the next begins."""
    sets = [data()[name] for name in names]
    ends = np.cumsum([len(part["label"]) for part in sets])[:-1]
    return jax.tree.map(lambda *columns: np.concatenate(columns), *sets), ends


def task(numbers, names):
    """The task with remedies of these strengths, whose points measure the named sets: train_loss and so on."""
    watched, ends = joined(names)

    def evaluate(params, data):
        output = logits(numbers, params, data["image"])
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(output, data["label"])
        hits = jnp.float32(jnp.argmax(output, axis=-1) == data["label"])
        parts = {"loss": jnp.split(losses, ends), "accuracy": jnp.split(hits, ends)}
        return {f"{name}_{kind}": part.mean() for kind in parts for name, part in zip(names, parts[kind], strict=True)}

    remedied = functools.partial(init, numbers), functools.partial(loss, numbers)
    return jo.Task(*remedied, data()["train"], watched, evaluate=evaluate)


def train(configs, names, seed, seeds, steps, eval_every):
    """Train every config with each seed, side by side."""
    return jo.sweep(
        lambda config: (task(config, names), jo.adamw(LEARNING_RATE, weight_decay=config["decay"], mask=WEIGHTS)),
        SPACE,
        trials=len(configs),
        initial=configs,
        steps=steps,
        batch_size=BATCH_SIZE,
        eval_every=eval_every,
        seed=seed,
        seeds=seeds,
        metric="valid.valid_loss",
    )


def stop_early(seed, seeds, steps):
    """No remedy but patience: the parameters that were best on the valid data. Figures [seeds] by name, and steps."""
    sets = data()
    bare = jo.Task(functools.partial(init, NONE), functools.partial(loss, NONE), **sets, evaluate=digits.evaluate)
    rules = {"patience": PATIENCE, "restore_best": True, "metric": "valid.loss", "eval_every": EVAL_EVERY}
    result = jo.fit(bare, jo.adamw(LEARNING_RATE, weight_decay=0.0), steps, BATCH_SIZE, seed, seeds=seeds, **rules)
    fitted = jax.vmap(digits.evaluate, in_axes=(0, None))(result.params, sets["train"])
    figures = {f"train_{kind}": values for kind, values in fitted.items()}
    figures |= {f"{name}_{kind}": result.metrics[f"{name}.{kind}"] for kind in fitted for name in ("valid", "test")}
    return figures, result.steps


def tune(tuning_seeds, steps, every):
    """Each remedy's values, their valid losses at the end, and the best of them: three dicts by name."""
    tried = {name: values[::every] for name, (_, values) in REMEDIES.items()}
    configs = [{**NONE, REMEDIES[name][0]: float(value)} for name in tried for value in tried[name]]
    scores = np.array([trial.score for trial in train(configs, ("valid",), 0, tuning_seeds, steps, steps).trials])
    losses = dict(zip(tried, scores.reshape(len(tried), -1), strict=True))
    return tried, losses, {name: float(tried[name][np.nanargmin(row)]) for name, row in losses.items()}


def judge(best, seeds, steps):
    """Train without and with each remedy, from fresh seeds: figures [seeds] by name, and curves [seeds, points]."""
    configs = {"none": NONE} | {name: {**NONE, REMEDIES[name][0]: value} for name, value in best.items()}
    result = train(list(configs.values()), ("train", "valid", "test"), 1000, seeds, steps, EVAL_EVERY)
    measured = {name.removeprefix("valid."): c for name, c in result.curves.items() if name.startswith("valid.")}
    curves = {name: {kind: c[i] for kind, c in measured.items()} for i, name in enumerate(configs)}
    figures = {name: {kind: curve[:, -1] for kind, curve in row.items()} for name, row in curves.items()}
    figures["early stopping"], stopped = stop_early(1000, seeds, steps)
    for row in figures.values():
        row["loss_gap"] = row["test_loss"] - row["train_loss"]
        row["accuracy_gap"] = row["train_accuracy"] - row["test_accuracy"]
    return figures, {**curves, "step": result.steps, "stopped": stopped}


def report(found):
    """Print the figures of every remedy."""
    print(f"{IMAGES} training images: mean of fresh seeds, half its 95 % interval; in brackets above none, paired")
    for kind in ("train_loss", "test_loss", "loss_gap", "train_accuracy", "test_accuracy", "accuracy_gap"):
        print(kind)
        for name, row in found.items():
            f, value = row[kind], row["value"]
            at = "" if value is None else f"{row['number']} = {value:.3g}"
            difference = f"({f['difference']:+.4f} ± {f['difference_half_width']:.4f})"
            print(
                f"  {name:16} {f['mean']:.4f} ± {f['half_width']:.4f}   {difference if name != 'none' else '':22} {at}"
            )


def draw(found, curves, path):
    """Learning curves, what the strengths change, and the tuned remedies: gap, test loss and test accuracy."""
    figure = record.figure(16, 8.4)
    axes = figure.subplots(2, 3).ravel()
    for kind, panel in zip(("loss", "accuracy"), axes):
        for name in SHOWN:
            for part, line in (("train", "--"), ("test", "-")):
                mean = curves[name][f"{part}_{kind}"].mean(axis=0)
                panel.plot(curves["step"], mean, line, color=COLORS[name], label=name if line == "-" else None)
        panel.set(xlabel="step", ylabel=kind, title=f"{kind.capitalize()}: training images dashed, test images solid")
    for stop in curves["stopped"]:
        axes[0].axvline(stop, color=COLORS["early stopping"], linewidth=0.6, zorder=0)
    axes[0].plot([], color=COLORS["early stopping"], linewidth=0.6, label="early stopping ends")
    axes[0].set(yscale="log")
    axes[1].set(ylim=(0.8, 1.005))
    for name, row in found.items():
        if "tuning_loss" in row:
            losses, best = row["tuning_loss"], np.nanargmin(row["tuning_loss"])
            place = np.linspace(0, 1, len(losses))
            axes[2].plot(place, losses, ".-", color=COLORS[name], label=name)
            axes[2].plot(place[best], losses[best], "o", color=COLORS[name])
    axes[2].set(xlabel="strength, from the first to the last value tried", ylabel="valid loss", ylim=(0.25, 0.9))
    axes[2].set(title="Tuning: the chosen values have a large dot")
    titles = {"loss_gap": "Test loss - train loss", "test_loss": "Test loss", "test_accuracy": "Test accuracy"}
    for panel, (kind, title) in zip(axes[3:], titles.items(), strict=True):
        for i, (name, row) in enumerate(found.items()):
            panel.plot(row[kind]["seeds"], np.full(len(row[kind]["seeds"]), i), ".", color="0.75")
            panel.errorbar(row[kind]["mean"], i, xerr=row[kind]["half_width"], fmt="o", color=COLORS[name], capsize=5)
        panel.axvline(found["none"][kind]["mean"], color="0.35", linewidth=0.8, linestyle=":")
        panel.set_yticks(range(len(found)), list(found))
        panel.invert_yaxis()
        panel.set(xlabel="each fresh seed, and the mean with its 95 % interval", title=title)
    for panel in axes:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes[[0, 2]]:
        panel.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main(quick=False):
    """Tune every remedy, train again with fresh seeds, write, and check the claim."""
    directory = record.folder("overfitting", quick)
    steps, tuning_seeds, seeds, every = (STEPS // 4, 1, 3, 3) if quick else (STEPS, TUNING_SEEDS, SEEDS, 1)
    tried, losses, best = tune(tuning_seeds, steps, every)
    figures, curves = judge(best, seeds, steps)
    found = {}
    for name, row in figures.items():
        found[name] = {kind: record.compared(values, figures["none"][kind]) for kind, values in row.items()}
        found[name] |= {"number": REMEDIES[name][0] if name in best else None, "value": best.get(name)}
        if name in best:
            found[name] |= {"tried": tried[name], "tuning_loss": losses[name]}
    found["early stopping"] |= {"number": "patience", "value": PATIENCE, "steps": curves["stopped"]}
    report(found)
    means = {name: {kind: c.mean(axis=0) for kind, c in curves[name].items()} for name in found if name in curves}
    settings = {"images": IMAGES, "steps": steps, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE}
    settings |= {"tuning_seeds": tuning_seeds, "seeds": seeds}
    record.write(directory, {"settings": settings, "found": found, "curves": {"step": curves["step"], **means}})
    draw(found, curves, directory / "overfitting.png")
    shifts = figures["shifted images"]
    for name in set(figures) - {"shifted images"}:
        for kind, sign in {"loss_gap": -1, "test_loss": -1, "test_accuracy": 1}.items():
            gain, half = record.interval(sign * (shifts[kind] - figures[name][kind]))
            assert gain - (-half if quick else half) > 0, (kind, name, gain, half)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
