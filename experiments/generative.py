"""A VAE and a GAN draw digits of all ten kinds; each is one task and one `fit`.

Run      python -m experiments.generative [--quick]          about 2 minutes on two CPU cores
Writes   runs/generative/{result.json, samples.png}
Data     the 5,000 real MNIST images of experiments.mnist, 3,000 of them to train
Result   mean of 3 seeds, 95 % interval; a sample counts as a digit where a classifier is sure of it, by more than 0.9:
                                 Fréchet distance     digits              share of the rarest digit
             VAE                 9.1 ± 2.0            0.328 ± 0.013       0.030 ± 0.017
             GAN                 8.4 ± 3.1            0.454 ± 0.010       0.041 ± 0.043
             pixel by pixel      51.3 ± 1.0           0.066 ± 0.008       0
             training images     1.3 ± 0.5            0.894 ± 0.011       0.088 ± 0.009

The VAE (Kingma & Welling, 2013, arXiv:1312.6114) has 16 latent numbers. The GAN (Goodfellow et al., 2014,
arXiv:1406.2661) has both players in one tree of parameters and both losses in one sum, each with the other player's
parameters held fixed: `partition` gives each its own Adam, `ema_params` keeps the mean of the generator's recent past.
The Fréchet distance compares mean and covariance of the classifier's hidden layer over 1,000 samples with those over
the 1,000 test images; pixels drawn one by one, each from the training images, are what no structure at all would score.
The GAN's learning rate is the better of 2e-4 and 4e-4 after 1,200 steps, by the validation images.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_lite as jo
from experiments import digits, mnist, record

LATENT, NOISE, WIDTH, BATCH_SIZE = 16, 32, 256, 128
SAMPLES, SURE, SEEDS = 1000, 0.9, 3
PLAYERS = jo.partition(
    {"generator": jo.adam(4e-4, b1=0.5), "discriminator": jo.adam(4e-4, b1=0.5)},
    jo.by_path({"generator/**": "generator", "discriminator/**": "discriminator"}),
)
STEPS = {"VAE": 4000, "GAN": 5000}
OPTIMIZERS = {"VAE": jo.adam(1e-3), "GAN": jo.chain(PLAYERS, jo.ema_params(0.999))}
cross_entropy = optax.losses.sigmoid_binary_cross_entropy


def network(key, sizes):
    """He initialisation of a network with layers of these sizes."""
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = zip(keys, sizes[:-1], sizes[1:])
    return [{"w": jax.random.normal(k, (n, m)) * (2 / n) ** 0.5, "b": jnp.zeros(m)} for k, n, m in shapes]


def apply(net, x, leak=0.0):
    """ReLU layers, leaky ones for the GAN, and a linear one: [n, last size]."""
    for layer in net[:-1]:
        x = jax.nn.leaky_relu(x @ layer["w"] + layer["b"][None], leak)
    return x @ net[-1]["w"] + net[-1]["b"][None]


def vae_init(key):
    """Encoder to mean and log-variance, decoder to the pixels' logits."""
    one, two = jax.random.split(key)
    return {"encoder": network(one, (784, WIDTH, 2 * LATENT)), "decoder": network(two, (LATENT, WIDTH, 784))}


def vae_loss(params, batch, key):
    """Minus the evidence lower bound, in nats an image."""
    mean, log_variance = jnp.split(apply(params["encoder"], batch["image"]), 2, axis=1)
    latent = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
    rebuilt = cross_entropy(apply(params["decoder"], latent), batch["image"]).sum(axis=1).mean()
    divergence = (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum(axis=1).mean() / 2
    return rebuilt + divergence, {"rebuilt": rebuilt, "divergence": divergence}


def vae_sample(params, key, n):
    """Images [n, 784] of latents from the prior."""
    return jax.nn.sigmoid(apply(params["decoder"], jax.random.normal(key, (n, LATENT))))


def gan_init(key):
    """Generator and discriminator."""
    one, two = jax.random.split(key)
    return {
        "generator": network(one, (NOISE, WIDTH, WIDTH, 784)),
        "discriminator": network(two, (784, WIDTH, WIDTH, 1)),
    }


def gan_sample(params, key, n):
    """Images [n, 784] of noise."""
    return jax.nn.sigmoid(apply(params["generator"], jax.random.normal(key, (n, NOISE)), 0.2))


def gan_loss(params, batch, key):
    """Both players' losses; neither sends a gradient into the other. Real is labelled 0.9 (label smoothing)."""
    fixed = jax.lax.stop_gradient
    judge = lambda net, images: apply(net, 2 * images - 1, 0.2)
    drawn = gan_sample(params, key, len(batch["image"]))
    real, fake = judge(params["discriminator"], batch["image"]), judge(params["discriminator"], fixed(drawn))
    fooled = judge(fixed(params["discriminator"]), drawn)
    discriminator = (cross_entropy(real, jnp.full_like(real, 0.9)) + cross_entropy(fake, jnp.zeros_like(fake))).mean()
    generator = cross_entropy(fooled, jnp.ones_like(fooled)).mean()
    return discriminator + generator, {"discriminator": discriminator, "generator": generator}


MODELS = {"VAE": (vae_init, vae_loss, vae_sample), "GAN": (gan_init, gan_loss, gan_sample)}


def frechet(one, two):
    """|m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½) of two sets of features (Heusel et al., 2017, arXiv:1706.08500)."""
    c1, c2 = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(c1 @ c2).real.clip(0))
    return ((one.mean(axis=0) - two.mean(axis=0)) ** 2).sum() + np.trace(c1 + c2) - 2 * roots.sum()


def nearest(images, others):
    """The distance of each image to the nearest of others, [n]."""
    square = (images**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None] - 2 * images @ others.T
    return np.sqrt(square.min(axis=1).clip(0))


def score(judge, images):
    """Scores of images [n, 784] by the classifier, and their distance to the training images."""
    train, _, test = mnist.data()
    hidden = lambda x: np.float64(jax.nn.relu(x @ judge["hidden"]["w"] + judge["hidden"]["b"][None]))
    probabilities = np.asarray(jax.nn.softmax(digits.logits(judge, images)))
    sure = probabilities.max(axis=1) > SURE
    return {
        "Fréchet distance": frechet(hidden(images), hidden(test["image"])),
        "sure": sure.mean(),
        "shares": np.bincount(probabilities.argmax(axis=1)[sure], minlength=10) / sure.sum(),
        "nearest": nearest(images, train["image"]).min(),
    }


def main(quick=False):
    """Train a judge and both models, draw samples, score them, and check the claim."""
    train = mnist.data()[0]
    seeds = 2 if quick else SEEDS
    judge = jo.fit(mnist.task(), jo.adam(1e-3), 500, BATCH_SIZE).params
    rng = np.random.default_rng(0)
    samples = {
        "pixel by pixel": [rng.permuted(train["image"], axis=0)[:SAMPLES] for _ in range(seeds)],
        "training images": [rng.permutation(train["image"])[:SAMPLES] for _ in range(seeds)],
    }
    histories = {}
    for name, (init, loss, sample) in MODELS.items():
        steps = STEPS[name] // (5 if quick else 1)
        run = jo.fit(
            jo.Task(init, loss, train), OPTIMIZERS[name], steps, BATCH_SIZE, eval_every=steps // 40, seeds=seeds
        )
        params = jo.averaged_params(run.state.opt_state) if name == "GAN" else run.params
        draws = jax.vmap(lambda params, key, sample=sample: sample(params, key, SAMPLES))
        samples[name] = np.asarray(draws(params, jax.random.split(jax.random.key(1), seeds)))
        histories[name] = run.history
    scores = {name: [score(judge, images) for images in sets] for name, sets in samples.items()}
    figures = {name: {key: np.stack([row[key] for row in rows]) for key in rows[0]} for name, rows in scores.items()}
    for name, row in figures.items():
        formats = ("Fréchet distance {:.2f} ± {:.2f}", "sure of {:.3f} ± {:.3f}", "rarest digit {:.3f} ± {:.3f}")
        values = row["Fréchet distance"], row["sure"], row["shares"].min(axis=1)
        print(f"{name:16}", *(text.format(*record.interval(value)) for text, value in zip(formats, values)), sep="   ")
    directory = record.folder("generative", quick)
    record.write(directory, figures)
    draw(samples, histories, figures, directory / "samples.png")
    floor = figures["pixel by pixel"]["Fréchet distance"]
    for name in MODELS:
        row = figures[name]
        assert (row["Fréchet distance"] < floor / (1 if quick else 4)).all(), (name, row)
        assert quick or (row["shares"] > 0).all(), (name, row)  # all ten kinds
        assert (row["nearest"] > 1).all(), (name, row)  # none is a copy


def draw(samples, histories, figures, path):
    """A sheet of samples of each kind, the losses, and how often each digit is drawn."""
    figure = record.figure(15, 7)
    top, bottom = figure.subfigures(2, 1, height_ratios=(4.3, 2.7))
    for axes, name in zip(top.subplots(1, 4), ("VAE", "GAN", "training images", "pixel by pixel")):
        axes.imshow(samples[name][0][:100].reshape(10, 10, 28, 28).swapaxes(1, 2).reshape(280, 280), cmap="gray")
        mean, half = record.interval(figures[name]["Fréchet distance"])
        axes.set_title(f"{name}: Fréchet distance {mean:.1f} ± {half:.1f}", fontsize=10)
        axes.set_axis_off()
    vae, gan, shares = bottom.subplots(1, 3)
    parts = {"VAE": ("loss", "rebuilt", "divergence"), "GAN": ("discriminator", "generator")}
    for axes, (name, losses) in zip((vae, gan), parts.items()):
        for i, part in enumerate(losses):
            curves = histories[name][f"train.{part}"]
            axes.plot(histories[name]["step"], curves.T, color=f"C{i}", alpha=0.3, linewidth=0.8)
            axes.plot(histories[name]["step"], curves.mean(axis=0), color=f"C{i}", label=part)
        axes.set(xlabel="step", title=f"losses of the {name}")
    vae.set(ylabel="nats an image", ylim=(0, 200))
    gan.set(ylim=(0, None))
    for i, name in enumerate((*MODELS, "training images")):
        shares.bar(np.arange(10) + (i - 1) * 0.27, figures[name]["shares"].mean(axis=0), 0.27, label=name)
    shares.set(xticks=range(10), xlabel="digit", title="shares of those the classifier is sure of", ylim=(0, 0.3))
    for axes in (vae, gan, shares):
        axes.title.set_fontsize(10)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
