"""Descent finds what the special solvers find: ridge, logistic regression, SVM, K-means, and a forecast.

Run      python -m experiments.classical_models [--quick]          about 20 s on two CPU cores
Writes   runs/classical_models/{result.json, models.png}
Data     scikit-learn's breast cancer data (569 tumours, 30 features; 80 % to train), its digits (1,797 images), and the
         yearly sunspots in statsmodels: 1700 to 1949 to train, 1950 to 2008 to forecast, each from the years before
Result   objectives within 1e-5 of scikit-learn's, and the same labels for every test tumour; K-means from 32 starts:
         +0.5 ± 0.7 % of Lloyd's mean squared distance by gradient, -1.7 ± 0.8 % by mini-batches (95 %); the error of
         the forecast is statsmodels', 18.7 sunspots, and 33.2 for "as last year"

The three classifiers are one linear function under three losses with an L2 penalty on its weights, by heavy-ball
descent over all tumours, in float32, against scikit-learn's Ridge, LogisticRegression and SVC. K-means is descent on
the mean squared distance to the nearest centre, from the same starts as Lloyd's: a step of n / n_j for centre j would
be Lloyd's own. The forecast is a linear function of the last nine years, against statsmodels' AutoReg.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_lite as jo
from experiments import record

STEPS, STARTS, CLUSTERS = 4000, 32, 10
MARGIN_LOSSES = {  # of label times score, and scikit-learn's name for the strength of the penalty
    "ridge": lambda margin: (1 - margin) ** 2,
    "logistic": lambda margin: jax.nn.softplus(-margin),
    "SVM": lambda margin: jax.nn.relu(1 - margin),
}
ALPHA, C = 10.0, 1.0
KMEANS = {  # name: (optimizer, batch size, steps)
    "gradient": (jo.sgd(8.0), None, 400),
    "mini-batch": (jo.sgd(jo.cosine_decay_schedule(8.0, 1600)), 128, 1600),
}
KNOWN, LAGS = 1950, 9


def tumours():
    """(train, test), each {"x": float32 [n, 30], standardised by train, "label": float32 [n], -1 or 1}."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    x, y = load_breast_cancer(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    mean, deviation = train_x.mean(axis=0), train_x.std(axis=0)
    pairs = (train_x, train_y), (test_x, test_y)
    return [{"x": np.float32((x - mean) / deviation), "label": np.float32(2 * y - 1)} for x, y in pairs]


def score(params, x):
    """x w + b, [n]."""
    return x @ params["w"] + params["b"]


def peer(kind):
    """scikit-learn's estimator of the same minimum."""
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.svm import SVC

    peers = {
        "ridge": lambda: RidgeClassifier(alpha=ALPHA),
        "logistic": lambda: LogisticRegression(C=C, tol=1e-8, max_iter=10_000),
        "SVM": lambda: SVC(kernel="linear", C=C, tol=1e-6),
    }
    return peers[kind]()


def classify(quick):
    """For each classifier: objective, weights and test accuracy, ours and theirs, and how ours came down."""
    (train, test), found = tumours(), {}
    steps, n = STEPS // 2 if quick else STEPS, len(train["label"])
    optimizer = jo.sgd(jo.cosine_decay_schedule(0.03, steps), momentum=0.98)
    for kind, of_margin in MARGIN_LOSSES.items():
        decay = jo.l2_penalty(2 * ALPHA / n if kind == "ridge" else 1 / (C * n), mask=jo.by_path({"w": True}, False))
        data_loss = lambda p, batch, key, f=of_margin: f(batch["label"] * score(p, batch["x"])).mean()
        objective = jo.regularized(data_loss, decay)
        task = jo.Task(lambda key: {"w": jnp.zeros(30), "b": jnp.zeros(())}, objective, train)
        result = jo.fit(task, optimizer, steps, None, eval_every=10)
        theirs = peer(kind).fit(train["x"], train["label"])
        solutions = {
            "ours": result.params,
            "theirs": {"w": np.ravel(theirs.coef_), "b": np.ravel(theirs.intercept_)[0]},
        }
        row = {"curve": result.history["train.loss"], "steps": result.history["step"]}
        for who, params in solutions.items():
            with jax.enable_x64(True):
                params = jax.tree.map(lambda p: np.float64(np.asarray(p)), params)
                value = float(objective(params, jax.tree.map(np.float64, train), None))
            label = np.sign(score(params, test["x"]))
            row[who] = {"objective": value, "w": params["w"], "labels": label}
            row[who]["accuracy"] = float((label == test["label"]).mean())
        row["agreement"] = float((row["ours"]["labels"] == row["theirs"]["labels"]).mean())
        row["excess"] = row["ours"]["objective"] / row["theirs"]["objective"] - 1
        found[kind] = row
    return found


def cluster_loss(params, batch, key):
    """Half the mean squared distance to the nearest centre."""
    x, c = batch, params["centres"]
    squared = jnp.sum(x**2, axis=1)[:, None] - 2 * x @ c.T + jnp.sum(c**2, axis=1)[None]
    return jnp.maximum(squared.min(axis=1), 0).mean() / 2


def cluster(quick):
    """The mean squared distance at the end of each start, Lloyd's and ours; and the mini-batches' best centres."""
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_digits

    images = np.float32(load_digits().data / 16)
    some_images = lambda key: {"centres": jax.random.choice(key, jnp.asarray(images), (CLUSTERS,), replace=False)}
    task = jo.Task(some_images, cluster_loss, images, valid=images)
    starts, found = STARTS // 4 if quick else STARTS, {}
    for name, (optimizer, batch_size, steps) in KMEANS.items():
        rules = {"eval_every": steps // 40, "seeds": starts}
        result = jo.fit(task, optimizer, steps, batch_size, **rules)
        found[name] = 2 * result.metrics["valid.loss"]
    best = result.params["centres"][np.argmin(found[name])]
    first = [np.asarray(jo.init_state(task, jo.sgd(0.0), seed).params["centres"]) for seed in range(starts)]
    lloyd = [KMeans(CLUSTERS, init=centres, n_init=1, tol=0).fit(images).inertia_ for centres in first]
    return {"Lloyd": np.array(lloyd) / len(images), **found}, np.asarray(best)


def sunspots():
    """(year [n], number of sunspots [n], those of the LAGS years before each, [n, LAGS]), n years from 1709 on."""
    from statsmodels.datasets import sunspots

    table = sunspots.load_pandas().data
    number = table["SUNACTIVITY"].to_numpy()
    before = np.stack([number[LAGS - 1 - lag : -1 - lag] for lag in range(LAGS)], axis=1)
    return table["YEAR"].to_numpy()[LAGS:], number[LAGS:], before


def forecast(quick):
    """Years and sunspots, each year's forecasts from the years before it, and their root mean squared errors."""
    from statsmodels.tsa.ar_model import AutoReg

    (year, number, before), steps = sunspots(), STEPS // 2 if quick else STEPS
    known = year < KNOWN
    mean, deviation = number[known].mean(), number[known].std()
    x, y = np.float32((before - mean) / deviation), np.float32((number - mean) / deviation)
    loss = lambda params, batch, key: optax.losses.squared_error(score(params, batch["x"]), batch["y"]).mean()
    task = jo.Task(lambda key: {"w": jnp.zeros(LAGS), "b": jnp.zeros(())}, loss, {"x": x[known], "y": y[known]})
    result = jo.fit(task, jo.sgd(0.05, momentum=0.95), steps, None, eval_every=steps)
    theirs = AutoReg(np.append(before[0, ::-1], number[known]), LAGS).fit().params  # the constant first
    lines = {
        "descent": np.asarray(score(result.params, x)) * deviation + mean,
        "statsmodels": theirs[0] + before @ theirs[1:],
        "as last year": before[:, 0],
    }
    errors = {name: float(np.sqrt(np.mean((line - number)[~known] ** 2))) for name, line in lines.items()}
    return year, number, lines, errors


def main(quick=False):
    """Run the five, write, and check the claim."""
    directory, classified = record.folder("classical_models", quick), classify(quick)
    for kind, row in classified.items():
        print(
            f"{kind:9} objective {row['excess']:+.1e} of scikit-learn's; test labels agree {row['agreement']:.3f}; ",
            end="",
        )
        print(f"accuracy {row['ours']['accuracy']:.3f}, scikit-learn's {row['theirs']['accuracy']:.3f}")
    distances, centres = cluster(quick)
    ratios = {name: record.interval(distances[name] / distances["Lloyd"] - 1) for name in KMEANS}
    for name, (ratio, half) in ratios.items():
        print(f"K-means by {name}: mean squared distance {100 * ratio:+.2f} ± {100 * half:.2f} % of Lloyd's")
    year, number, lines, errors = forecast(quick)
    gap = np.abs(lines["descent"] - lines["statsmodels"]).max()
    print("sunspots, a year ahead, root mean squared error:", {name: round(e, 2) for name, e in errors.items()})
    names = ("excess", "agreement", "ours", "theirs")
    figures = {kind: {name: row[name] for name in names} for kind, row in classified.items()}
    record.write(directory, {**figures, "K-means above Lloyd": ratios, "distances": distances, "sunspots": errors})
    draw(classified, distances, centres, (year, number, lines, errors), directory / "models.png")
    for kind, row in classified.items():
        assert abs(row["excess"]) < 1e-3 and row["agreement"] >= 0.99, (kind, row["excess"], row["agreement"])
    assert all(ratio < 0.01 for ratio, _ in ratios.values()), ratios
    assert gap < 0.1 and errors["descent"] < 0.8 * errors["as last year"], (gap, errors)


def draw(classified, distances, centres, spots, path):
    """Above: the classifiers and K-means' starts. Below: its centres, and the forecast."""
    figure = record.figure(14, 7.6)
    (curves, weights, starts), (images, series, held) = figure.subplots(2, 3)
    for i, (kind, row) in enumerate(classified.items()):
        above = np.abs(row["curve"] / row["theirs"]["objective"] - 1)
        curves.plot(row["steps"], np.maximum(above, 1e-8), color=f"C{i}", label=kind)
        weights.plot(row["theirs"]["w"], row["ours"]["w"], "o", color=f"C{i}", markersize=4, label=kind)
    weights.axline((0, 0), slope=1, color="0.7", linewidth=0.8, zorder=0)
    curves.set(yscale="log", xlabel="step", ylabel="objective / scikit-learn's - 1")
    weights.set(xlabel="scikit-learn's weight", ylabel="weight by descent")
    for i, name in enumerate(KMEANS):
        starts.plot(distances["Lloyd"], distances[name], "o", color=f"C{i + 3}", markersize=4, label=f"by {name}")
    starts.axline([distances["Lloyd"].mean()] * 2, slope=1, color="0.7", linewidth=0.8, zorder=0)
    starts.set(xlabel="Lloyd's mean squared distance", ylabel="by descent, from the same start")
    framed = np.pad(centres.reshape(2, 5, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
    images.imshow(framed.transpose(0, 2, 1, 3).reshape(20, 50), cmap="gray_r")
    images.set_axis_off()
    year, number, lines, errors = spots
    later = year >= KNOWN
    series.plot(year[year >= 1910], number[year >= 1910], color="0.5", linewidth=1, label="counted")
    series.plot(year[later], lines["descent"][later], color="C1", linewidth=1.2, label="forecast a year ahead")
    series.set(xlabel="year", ylabel="sunspots")
    for name in ("as last year", "descent"):
        held.plot(year[later], (lines[name] - number)[later], ".-", label=f"{name}: {errors[name]:.1f}")
    held.axhline(0, color="0.7", linewidth=0.8)
    held.set(xlabel="year", ylabel="forecast - counted")
    titles = ("breast cancer: descent of the objective", "breast cancer: the weights", "K-means: every start")
    titles += ("K-means: the best centres", f"sunspots: known until {KNOWN - 1}", "sunspots: errors, root mean square")
    for axes, title in zip((curves, weights, starts, images, series, held), titles, strict=True):
        axes.set_title(title, fontsize=10)
        if axes is not images:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
