"""Gradient times input finds the pixels that a digit classifier relies on; the size of the gradient alone does not.

Run      python -m experiments.interpret [--quick]          about 20 s on two CPU cores
Writes   runs/interpret/{result.json, saliency.png, units.png}
Data     the 5,000 real MNIST images of experiments.mnist; the explained ones are its 1,000 test images
Result   test accuracy with 20 of the 784 pixels blanked in each image, mean of 5 seeds and 95 % interval; it was 0.937:
             integrated gradients                      0.348 ± 0.025
             gradient times input                      0.350 ± 0.026
             size of the gradient, pixels with ink     0.773 ± 0.038
             brightest                                 0.904 ± 0.005
             size of the gradient                      0.921 ± 0.005
             pixels with ink, by chance                0.928 ± 0.008
         0.855 ± 0.011 of the pixels that the size of the gradient ranks first are black already, and its sign is lost

For a network 784 - 128 - 10, each test image is explained for the digit that the network sees in it: by the size of
that logit's gradient (Simonyan et al., 2013, arXiv:1312.6034), by gradient times input, and by integrated gradients
(Sundararajan et al., 2017, arXiv:1703.01365), whose pixels sum to the logit's rise from the black image. Then each
image loses the pixels that an explanation ranks first. The images that the outputs would like best are found by
descent, too: an optimizer moves any array, pixels as well as weights.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from experiments import digits, mnist, record

STEPS, BATCH_SIZE, SEEDS = 1500, 128, 5
OPTIMIZER = jo.adamw(1e-3, weight_decay=1.0)  # the weights of pixels that never have ink fade, and the rest can be seen
PATH_POINTS, DREAM_STEPS = 64, 200
BLANKED = (0, 5, 10, 20, 30, 40, 60, 80)
JUDGED = BLANKED.index(20)
DREAMER = jo.chain(jo.adam(0.05), jo.keep_params_nonnegative())


def logit(params, image, label):
    """One output for one image."""
    return digits.logits(params, image[None])[0, label]


def gradient(params, image, label):
    """How the logit changes with each pixel, [784]."""
    return jax.grad(logit, 1)(params, image, label)


def integrated_gradients(params, image, label):
    """Input times the mean gradient on the way from black: the pixels sum to logit(image) - logit(black)."""
    ways = (jnp.arange(PATH_POINTS) + 0.5) / PATH_POINTS
    return image * jax.vmap(lambda way: gradient(params, way * image, label))(ways).mean(axis=0)


EXPLANATIONS = {
    "|gradient|": lambda params, image, label: jnp.abs(gradient(params, image, label)),
    "gradient × input": lambda params, image, label: image * gradient(params, image, label),
    "integrated gradients": integrated_gradients,
}


@functools.partial(jax.jit, static_argnames="name")
def explain(params, images, name):
    """Images [n, 784], each explained for the digit that the network sees in it, [n, 784]."""
    seen = jnp.argmax(digits.logits(params, images), axis=-1)
    return jax.vmap(EXPLANATIONS[name], in_axes=(None, 0, 0))(params, images, seen)


def accuracies(params, data, scores):
    """Accuracy when each image has lost its k pixels of the highest scores [n, 784], for each k of BLANKED."""
    rank = np.argsort(np.argsort(-np.asarray(scores), axis=-1), axis=-1)
    blanked = lambda k: {**data, "image": np.where(rank < k, 0.0, data["image"])}
    return np.stack([digits.evaluate(params, blanked(k))["accuracy"] for k in BLANKED])


@jax.jit
def dream(params):
    """For each class the image that raises its logit most above the others', small and smooth: [10, 784]."""

    def unlikeable(image, label):
        square = image.reshape(28, 28)
        rough = jnp.sum(jnp.diff(square, axis=0) ** 2) + jnp.sum(jnp.diff(square, axis=1) ** 2)
        loss = -jax.nn.log_softmax(digits.logits(params, image[None])[0])[label]
        return loss + 0.003 * rough + 0.001 * jnp.sum(image**2)

    def descend(label):
        def step(carry, _):
            image, state = carry
            updates, state = DREAMER.update(jax.grad(unlikeable)(image, label), state, image)
            return (jnp.minimum(jo.apply_updates(image, updates), 1.0), state), None

        start = jnp.full(784, 0.1)
        return jax.lax.scan(step, (start, DREAMER.init(start)), length=DREAM_STEPS)[0][0]

    return jax.vmap(descend)(jnp.arange(10))


def examine(params, test, seed):
    """What one network's explanations are worth: accuracies after blanking, the gap to completeness, black pixels."""
    images, ink = test["image"], test["image"] > 0
    explained = {name: np.asarray(explain(params, images, name)) for name in EXPLANATIONS}
    rivals = {
        **explained,
        "|gradient| on ink": np.where(ink, explained["|gradient|"], -1.0),
        "brightest": images,
        "ink by chance": np.where(ink, np.random.default_rng(seed).random(ink.shape), -1.0),
    }
    logits = np.asarray(digits.logits(params, images))
    black = np.asarray(digits.logits(params, 0 * images[:1]))[0]
    rise = logits.max(axis=-1) - black[logits.argmax(axis=-1)]
    first = np.argsort(-explained["|gradient|"], axis=-1)[:, : BLANKED[JUDGED]]
    return {
        "curves": {name: accuracies(params, test, scores) for name, scores in rivals.items()},
        "gap": np.abs(explained["integrated gradients"].sum(axis=-1) - rise).max(),
        "black": 1 - np.take_along_axis(ink, first, axis=-1).mean(),
    }


def main(quick=False):
    """Train, explain every test image, blank pixels, draw, and check the claim."""
    steps, seeds = (300, 2) if quick else (STEPS, SEEDS)
    task = mnist.task()
    run = jo.fit(task, OPTIMIZER, steps, BATCH_SIZE, eval_every=steps, seeds=seeds)
    networks = [jax.tree.map(lambda leaf, i=i: leaf[i], run.params) for i in range(seeds)]
    found = [examine(params, task.test, seed) for seed, params in enumerate(networks)]
    curves = {name: np.stack([row["curves"][name] for row in found]) for name in found[0]["curves"]}
    dreams = dream(networks[0])
    sure = jnp.diag(jax.nn.softmax(digits.logits(networks[0], dreams)))
    figures = {
        "pixels blanked": BLANKED,
        "accuracy": curves,
        f"accuracy, {BLANKED[JUDGED]} blanked": {name: record.interval(c[:, JUDGED]) for name, c in curves.items()},
        "black among the first of |gradient|": record.interval([row["black"] for row in found]),
        "largest gap to completeness": max(row["gap"] for row in found),
        "confidence in the dreams": sure,
    }
    print("pixels blanked      ", *(f"{k:6}" for k in BLANKED))
    for name, curve in curves.items():
        mean, half = record.interval(curve[:, JUDGED])
        print(f"{name:20}", *(f"{value:6.3f}" for value in curve.mean(axis=0)), f"  20: {mean:.3f} ± {half:.3f}")
    mean, half = figures["black among the first of |gradient|"]
    print(f"of the {BLANKED[JUDGED]} pixels that |gradient| ranks first {mean:.3f} ± {half:.3f} are black already")
    print(f"completeness within {figures['largest gap to completeness']:.3f}; dreams at least {sure.min():.3f} sure")
    directory = record.folder("interpret", quick)
    record.write(directory, figures)
    draw_saliency(networks[0], task.test, curves, directory / "saliency.png")
    draw_units(networks[0], task.test, dreams, directory / "units.png")
    assert figures["largest gap to completeness"] < 0.1, figures
    assert sure.min() > 0.9, sure
    left = {name: curve[:, JUDGED] for name, curve in curves.items()}
    for finds in ("gradient × input", "integrated gradients"):
        for misses in ("|gradient|", "brightest", "ink by chance"):
            assert (left[finds] < left[misses] / 1.5).all(), (finds, misses, left)


def draw_saliency(params, test, curves, path):
    """A digit of each kind with what explains it, and what blanking costs."""
    figure = record.figure(14, 5.2)
    left, right = figure.subfigures(1, 2, width_ratios=(2.6, 1))
    chosen = np.array([np.flatnonzero(test["label"] == label)[3] for label in range(10)])
    images = test["image"][chosen]
    rows = {"image": images, **{name: explain(params, images, name) for name in EXPLANATIONS}}
    colors = {"image": "gray", "|gradient|": "inferno"}
    for axes, (name, pictures) in zip(left.subplots(4, 10), rows.items()):
        for place, picture in zip(axes, pictures):
            show(place, picture, colors.get(name, "RdBu_r"), signed=name not in colors)
        axes[0].set_ylabel(name.replace(" ", "\n", 1), fontsize=9)
    axes = right.subplots()
    for i, (name, curve) in enumerate(curves.items()):
        style = ".-" if name in EXPLANATIONS else ".--"
        axes.plot(BLANKED, curve.mean(axis=0), style, color=f"C{i}", label=name)
        axes.fill_between(BLANKED, curve.min(axis=0), curve.max(axis=0), color=f"C{i}", alpha=0.15)
    axes.set(xlabel="pixels blanked in each image", ylabel="test accuracy", ylim=(0, 1))
    axes.set_title("mean and range of the seeds", fontsize=10)
    right.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def draw_units(params, test, dreams, path):
    """What hidden units look for, when they answer, and what the outputs would like to see."""
    figure = record.figure(14, 6.4)
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(2.0, 2.0, 1.45))
    hidden = np.asarray(jax.nn.relu(test["image"] @ params["hidden"]["w"] + params["hidden"]["b"][None]))
    means = np.stack([hidden[test["label"] == label].mean(axis=0) for label in range(10)])
    order = np.lexsort((-means.max(axis=0), means.argmax(axis=0)))
    top.suptitle("weights of the 32 most active hidden units: ink on red excites them, on blue silences", fontsize=10)
    for axes, unit in zip(top.subplots(2, 16).flat, np.argsort(-means.max(axis=0))[:32]):
        show(axes, params["hidden"]["w"][:, unit], "RdBu_r", signed=True)
    axes = middle.subplots()
    image = axes.imshow(means[:, order], aspect="auto", cmap="magma")
    axes.set(xlabel="hidden unit, by the digit that it answers most", ylabel="digit", yticks=range(10))
    middle.colorbar(image, ax=axes, label="mean activation")
    bottom.suptitle("the images that the ten outputs would like best", fontsize=10)
    for axes, dreamt in zip(bottom.subplots(1, 10), dreams):
        show(axes, dreamt, "gray")
    figure.savefig(path, dpi=110)


def show(axes, pixels, cmap, signed=False):
    """An image of 28 x 28 pixels, its colours up to the largest; signed ones have 0 in the middle."""
    most = np.abs(pixels).max()
    axes.imshow(np.reshape(pixels, (28, 28)), cmap=cmap, vmin=-most if signed else 0, vmax=most)
    axes.set(xticks=[], yticks=[])


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
