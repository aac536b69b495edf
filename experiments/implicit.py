"""A regularisation strength is tuned by its hypergradient through the solve: a sixth of the evaluations of a grid.

Run      python -m experiments.implicit [--quick]          about 40 s on two CPU cores
Writes   runs/implicit/{result.json, implicit.png}
Data     diabetes of scikit-learn: 442 patients, 10 columns, standardised; 20 splits into 331 for training, 111 for test
Result   mean squared error of cross-validation and of the test set, mean of 20 splits and 95 % interval
             grid of 50 strengths      0.4973 ± 0.0095    0.5240 ± 0.0318    50 evaluations
             one strength              0.4973 ± 0.0095    0.5240 ± 0.0318     8 evaluations
             one of each column        0.4893 ± 0.0094    0.5208 ± 0.0307    41 evaluations
             the last less the grid   -0.0080 ± 0.0014   -0.0032 ± 0.0034, split by split

For each split the mean squared error of 5-fold cross-validation is a function of the strengths: it solves the
penalised regression of each fold by `jo.minimize`. L-BFGS minimizes it by the gradient through these solves, for one
strength and for one of each column. A grid of 50 strengths is the rival. All splits are one `vmap`, nothing is
unrolled, and no derivative is written by hand. Ridge regression has a closed form, against which the solves are
checked.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from experiments import record

SPLITS, FOLDS, GRID = 20, 5, 50
LOG_RANGE = (-7.0, 3.0)  # of the natural logarithm of a strength
START = -2.0
CONTENDERS = ("grid", "one strength", "one per column")


def data():
    """Columns [442, 10] and the response [442], float64."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True, scaled=False)
    return x, y


def splits(n):
    """Training and test sets, standardised by the training set: x [n, 331, 10], y [n, 331], and those of the test."""
    x, y = data()
    cut = 331
    parts = []
    for seed in range(n):
        order = np.random.default_rng(seed).permutation(len(y))
        train, test = order[:cut], order[cut:]
        center, spread = x[train].mean(0), x[train].std(0)
        mean, deviation = y[train].mean(), y[train].std()
        parts.append(
            [(x[i] - center) / spread for i in (train, test)] + [(y[i] - mean) / deviation for i in (train, test)]
        )
    x_train, x_test, y_train, y_test = (jnp.asarray(np.stack(part)) for part in zip(*parts, strict=True))
    return x_train, y_train, x_test, y_test


def penalised(w, x, y, weights, log_strength):
    """Half the weighted mean squared error and a penalty Σ exp(sⱼ) wⱼ² / 2; weights of 0 leave patients out."""
    return (jnp.sum(weights * (x @ w - y) ** 2) / jnp.sum(weights) + jnp.sum(jnp.exp(log_strength) * w**2)) / 2


def fitted(x, y, weights, log_strength):
    """The coefficients, [10]."""
    return jo.minimize(penalised, jnp.zeros(x.shape[1]), args=(x, y, weights, log_strength), tol=1e-10).params


def validation(log_strength, x, y):
    """The mean squared error of cross-validation."""
    fold = jnp.arange(len(y)) % FOLDS

    def error(k):
        w = fitted(x, y, (fold != k) * 1.0, log_strength)
        return jnp.sum(jnp.where(fold == k, (x @ w - y) ** 2, 0)) / len(y)

    return jnp.sum(jax.vmap(error)(jnp.arange(FOLDS)))


def descend(x, y, size):
    """The strengths that L-BFGS finds, their error, and the evaluations that it took."""
    start = jnp.full(size, START)
    solution = jo.minimize(
        lambda s: validation(s, x, y), start, method=jo.solvers.lbfgsb(), bounds=LOG_RANGE, tol=1e-5, max_steps=60
    )
    return solution.params, solution.value, solution.evaluations


def search(x, y, grid):
    """The best strength of the grid, and its error."""
    errors = jax.vmap(lambda s: validation(s, x, y))(grid[:, None])
    return grid[jnp.argmin(errors)][None], jnp.min(errors)


def test_error(log_strength, x_train, y_train, x_test, y_test):
    """The mean squared error on the test set, of all training patients."""
    return jnp.mean((x_test @ fitted(x_train, y_train, jnp.ones_like(y_train), log_strength) - y_test) ** 2)


def check(x, y):
    """The solve against the closed form, and the hypergradient against differences."""
    weights, s = jnp.ones_like(y), jnp.full(1, START)
    exact = jnp.linalg.solve(x.T @ x / len(y) + jnp.exp(START) * jnp.eye(x.shape[1]), x.T @ y / len(y))
    np.testing.assert_allclose(fitted(x, y, weights, s), exact, rtol=1e-7)
    slope = jax.jit(jax.grad(validation))(s, x, y)[0]
    error = jax.jit(validation)
    difference = (error(s + 1e-4, x, y) - error(s - 1e-4, x, y)) / 2e-4
    np.testing.assert_allclose(slope, difference, rtol=1e-5)


def main(quick=False):
    """Run, write, and check the claim."""
    with jax.enable_x64(True):
        directory = record.folder("implicit", quick)
        sets = splits(4 if quick else SPLITS)
        x, y = sets[:2]
        check(x[0], y[0])
        grid = jnp.linspace(*LOG_RANGE, GRID)
        found = {"grid": (*jax.jit(jax.vmap(lambda x, y: search(x, y, grid)))(x, y), jnp.full(len(x), GRID))}
        for name, size in (("one strength", 1), ("one per column", x.shape[-1])):
            found[name] = jax.jit(jax.vmap(lambda x, y, size=size: descend(x, y, size)))(x, y)
        figures = {}
        for name in CONTENDERS:
            strengths, valid, evaluations = map(np.asarray, found[name])
            tested = np.asarray(jax.jit(jax.vmap(test_error))(strengths, *sets))
            figures[name] = {
                "log_strengths": strengths,
                "valid": valid,
                "test": tested,
                "evaluations": evaluations,
                "valid_mean": record.interval(valid),
                "test_mean": record.interval(tested),
                "evaluations_mean": float(evaluations.mean()),
            }
        compared = {name: record.interval(figures[name]["valid"] - figures["grid"]["valid"]) for name in CONTENDERS[1:]}
        compared_test = {
            name: record.interval(figures[name]["test"] - figures["grid"]["test"]) for name in CONTENDERS[1:]
        }
        record.write(directory, {**figures, "valid above grid": compared, "test above grid": compared_test})
        for name in CONTENDERS:
            (valid, half), (tested, half_test) = figures[name]["valid_mean"], figures[name]["test_mean"]
            print(
                f"{name:15} cross-validation {valid:.4f} ± {half:.4f}  test {tested:.4f} ± {half_test:.4f}  "
                f"{figures[name]['evaluations_mean']:.1f} evaluations"
            )
        print("above the grid, split by split, cross-validation:", compared, "test:", compared_test)
        curve = np.asarray(jax.jit(jax.vmap(lambda s: validation(s, x[0], y[0])))(grid[:, None]))
        draw(figures, np.asarray(grid), curve, directory / "implicit.png")

    assert np.all(figures["one strength"]["valid"] <= figures["grid"]["valid"] * (1 + 1e-6))
    assert figures["one strength"]["evaluations_mean"] <= GRID / 3
    assert figures["one per column"]["valid_mean"][0] < figures["one strength"]["valid_mean"][0]


def draw(figures, grid, curve, path):
    """The error along the grid with what was found; the strengths of each column; errors split by split."""
    figure = record.figure(14, 4.4)
    left, middle, right = figure.subplots(1, 3)
    left.plot(grid, curve, ".-", color="0.5", label=f"grid of {GRID}")
    one = figures["one strength"]
    left.plot(one["log_strengths"][0, 0], one["valid"][0], "*", markersize=15, color="C0", label="by the hypergradient")
    left.set(xlabel="ln strength", ylabel="error of cross-validation", title="first split: one strength")
    left.legend(frameon=False)
    columns = figures["one per column"]["log_strengths"]
    names = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    middle.boxplot(columns, tick_labels=names)
    middle.set(ylabel="ln strength", title=f"one per column, {len(columns)} splits")
    for i, name in enumerate(CONTENDERS[1:]):
        for j, (kind, marker) in enumerate((("valid", "o"), ("test", "x"))):
            gaps = figures[name][kind] - figures["grid"][kind]
            label = f"{name}: {'cross-validation' if kind == 'valid' else 'test'}"
            right.plot(gaps, np.full(len(gaps), -(2 * i + j)), marker, color=f"C{i}", label=label, alpha=0.7)
    right.axvline(0, color="0.6", linewidth=0.8)
    right.set(xlabel="error above that of the grid", yticks=[], title="split by split", ylim=(-3.5, 2.2))
    right.legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
