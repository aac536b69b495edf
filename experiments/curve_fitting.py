"""Curves are fitted to all certified digits that count, with errors that are true, and ten thousand at once.

Run      python -m experiments.curve_fitting [--quick]          about 60 s on two CPU cores
Writes   runs/curve_fitting/{result.json, curves.png}
Data     27 nonlinear regressions of NIST's Statistical Reference Datasets, each from its two starts (see nist.py), in
         float64; and 10,000 simulated peaks of 40 points with parameters of their own
Result   TODO

A digit is one of -log10 of the largest relative error, at most 11, as many as are certified. `jo.curve_fit` is run with
its defaults. SciPy's `curve_fit` is run twice: with its defaults (MINPACK, derivatives by differences, each of which is
an evaluation too), and by its trust region with JAX's derivatives, scaled by the Jacobian, at a tolerance of 1e-15.
Standard errors of Lanczos1 are left out: its residuals are as small as the rounding of its data.

Of the simulated peaks each interval is the estimate ± Student's t times the standard error. The region is the ellipsoid
of all four parameters by the F distribution. In the last of three cases the noise grows with the signal, but the fit is
not told so: then intervals are wrong, and no covariance says so.
"""

import functools
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from scipy import stats

import jaxopt_lite as jo
from experiments import nist, record
from experiments.benchmarks import timing

ENOUGH, CERTIFIED, ELSEWHERE = 6, 11, 2  # digits; with fewer than the last a fit has ended elsewhere
QUICK = ("Chwirut1", "ENSO", "Gauss2", "MGH17")
SHOWN = ("Chwirut1", "Gauss2", "ENSO")
CONTENDERS = ("jaxopt_lite", "SciPy, defaults", "SciPy, JAX's derivatives")
FITS, LOOP, POINTS, NOISE = 10_000, 100, 40, 0.1
NAMES = ("height", "centre", "width", "offset")
START = (1.0, 0.0, 1.0, 0.0)
LOW, HIGH = (1.0, -1.0, 0.5, -1.0), (3.0, 1.0, 1.5, 1.0)  # of the true parameters
CASES = ("even noise", "growing noise, given", "growing noise, not given")


def digits(found, certified):
    """The number of correct digits of the worst number, in [0, 11]."""
    error = np.max(np.abs(np.asarray(found) - certified) / np.abs(certified))
    return float(np.clip(-np.log10(error), 0, CERTIFIED)) if error > 0 else float(CERTIFIED * (error == 0))


def ours(model, x, y, start):
    """Parameters, their covariance and the number of evaluations."""
    solution = jo.curve_fit(model, x, y, start)
    return solution.params, solution.covariance, int(solution.evaluations), bool(solution.converged)


def by_scipy(model, x, y, start, **options):
    """The same by SciPy; a fit that it gives up has the parameters of the start and an infinite covariance."""
    value = jax.jit(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an overflow on the way, or a covariance that it cannot tell
        try:
            params, covariance, info, _, status = scipy.optimize.curve_fit(
                lambda x, *p: np.asarray(value(x, *p)), x, y, start, full_output=True, **options
            )
        except RuntimeError:
            return start, np.full((len(start),) * 2, np.inf), None, False
    return params, covariance, int(info["nfev"]), bool(status > 0)


def by_scipy_with_derivatives(model, x, y, start):
    """By SciPy's trust region."""
    slope = jax.jit(lambda p: jax.jacfwd(lambda p: model(x, *p))(p))
    options = {"method": "trf", "x_scale": "jac", "max_nfev": 1000, **dict.fromkeys(("ftol", "xtol", "gtol"), 1e-15)}
    return by_scipy(model, x, y, start, jac=lambda x, *p: np.asarray(slope(np.array(p))), **options)


def regressions(names):
    """Of each contender, for each problem and start: digits of the parameters and of the errors, and evaluations."""
    found = {name: {"params": [], "errors": [], "evaluations": [], "claimed": []} for name in CONTENDERS}
    for name in names:
        data, model = nist.data(name), nist.MODELS[name]
        for contender, fit in zip(CONTENDERS, (ours, by_scipy, by_scipy_with_derivatives), strict=True):
            for start in data["starts"]:
                params, covariance, evaluations, claimed = fit(model, data["x"], data["y"], start)
                errors = np.sqrt(np.diag(covariance))
                row = found[contender]
                row["params"].append(digits(params, data["params"]))
                row["errors"].append(np.nan if name == "Lanczos1" else digits(errors, data["errors"]))
                row["evaluations"].append(evaluations)
                row["claimed"].append(claimed)
    for row in found.values():
        solved = np.array(row["params"]) >= ENOUGH
        counts = [n for n, good in zip(row["evaluations"], solved, strict=True) if good]
        row |= {"solved": int(solved.sum()), "median_evaluations": float(np.median(counts))}
        row["elsewhere"] = int(np.sum((np.array(row["params"]) < ELSEWHERE) & np.array(row["claimed"])))
    return found


def peak(x, height, centre, width, offset):
    """A Gaussian peak on a constant; x is an array of JAX or NumPy."""
    library = np if isinstance(x, np.ndarray) else jnp
    return height * library.exp(-(((x - centre) / width) ** 2)) + offset


def peaks(n, case):
    """x [40], y [n, 40], the noise's standard deviations [n, 40], and the true parameters [n, 4]."""
    rng = np.random.default_rng(CASES.index(case))
    x = np.linspace(-3, 3, POINTS)
    truth = rng.uniform(LOW, HIGH, (n, 4))
    height, centre, width, offset = truth.T[:, :, None]
    pure = peak(x, height, centre, width, offset)
    sigma = NOISE * (np.ones_like(pure) if case == "even noise" else 0.2 + (pure - offset))
    return x, pure + sigma * rng.normal(size=pure.shape), sigma, truth


@functools.partial(jax.jit, static_argnames="weighted")
def fit_all(x, y, sigma, weighted=False):
    """A fit of each row of y: a `Solution` of 10,000 lanes."""
    one = lambda y, sigma: jo.curve_fit(peak, x, y, START, sigma if weighted else None, absolute_sigma=weighted)
    return jax.vmap(one)(y, sigma)


fit_one = jax.jit(lambda x, y: jo.curve_fit(peak, x, y, START).params)


def coverage(n, case):
    """How often 95 % intervals hold the true parameters, [4], and the 95 % region holds all of them at once."""
    x, y, sigma, truth = peaks(n, case)
    weighted = case == "growing noise, given"
    solution = fit_all(x, y, sigma, weighted)
    away, free = np.asarray(solution.params) - truth, POINTS - 4
    away[:, 2] = np.abs(np.asarray(solution.params)[:, 2]) - truth[:, 2]  # the width is squared: its sign is free
    covariance = np.asarray(solution.covariance)
    errors = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    t = stats.norm.ppf(0.975) if weighted else stats.t.ppf(0.975, free)
    held = np.abs(away) <= t * errors
    distance = np.einsum("ni,nij,nj->n", away, np.linalg.inv(covariance), away) / 4
    region = distance <= (stats.chi2.ppf(0.95, 4) / 4 if weighted else stats.f.ppf(0.95, 4, free))
    return {
        "intervals": held.mean(0),
        "region": region.mean(),
        "converged": float(np.mean(solution.converged)),
        "evaluations": float(np.mean(solution.evaluations)),
        "most_evaluations": int(np.max(solution.evaluations)),
    }


def times(n, rounds):
    """Microseconds of a fit, of 10,000 in one call and of 100 in loops, in turn; and ratios to SciPy."""
    x, y, sigma, _ = peaks(n, "even noise")
    device_y = jnp.asarray(y)

    def scipy_loop():
        for row in y[:LOOP]:
            scipy.optimize.curve_fit(peak, x, row, START)

    def our_loop():
        for row in device_y[:LOOP]:
            fit_one(x, row).block_until_ready()

    turns = {
        "one call": lambda: jax.block_until_ready(fit_all(x, device_y, sigma).params),
        "compiled, in a loop": our_loop,
        "SciPy in a loop": scipy_loop,
    }
    seconds = timing.alternate(turns, rounds, "fits")
    per = {"one call": n, "compiled, in a loop": LOOP, "SciPy in a loop": LOOP}
    seconds = {name: [s / per[name] for s in values] for name, values in seconds.items()}
    return {
        name: {"microseconds": 1e6 * np.median(values), "of_scipy": timing.ratio(seconds, name, "SciPy in a loop")}
        for name, values in seconds.items()
    }


def main(quick=False):
    """Run, write, and check the claim."""
    with jax.enable_x64(True):
        directory = record.folder("curve_fitting", quick)
        names, n = (QUICK, 2000) if quick else (tuple(nist.DATA), FITS)
        found = regressions(names)
        covered = {case: coverage(n, case) for case in CASES}
        took = times(n, 2 if quick else 7)
        record.write(directory, {"problems": names, "nist": found, "coverage": covered, "times": took})
        for name, row in found.items():
            print(
                f"{name:25} {row['solved']} of {len(row['params'])} to {ENOUGH} digits, "
                f"{np.sum(np.array(row['params']) >= 4)} to 4, {row['elsewhere']} converged elsewhere, "
                f"median {row['median_evaluations']:.0f} evaluations, standard errors of "
                f"{np.sum(np.array(row['errors']) >= 4)} to 4 digits"
            )
        for case, row in covered.items():
            each = ", ".join(f"{name} {share:.2%}" for name, share in zip(NAMES, row["intervals"], strict=True))
            print(f"{case:25} {each}, region {row['region']:.2%}; {row['converged']:.2%} converged")
        for name, row in took.items():
            print(f"{name:25} {row['microseconds']:8.1f} µs a fit, {row['of_scipy']:.3f} of SciPy's time")
        draw(names, found, covered, took, directory / "curves.png")

    row = found["jaxopt_lite"]
    assert row["solved"] == 2 * len(names) and all(row["claimed"]), dict(zip(names, row["params"], strict=False))
    assert np.nanmin(row["errors"]) >= 4, row["errors"]
    assert row["median_evaluations"] <= 25, row["median_evaluations"]
    assert all(found[name]["solved"] <= row["solved"] for name in CONTENDERS)
    margin = 0.01 + 3 * np.sqrt(0.95 * 0.05 / n)  # the intervals are exact for straight lines only
    for case in CASES[:2]:
        shares = [*covered[case]["intervals"], covered[case]["region"]]
        assert np.all(np.abs(np.array(shares) - 0.95) < margin) and covered[case]["converged"] > 0.999, covered[case]
    assert covered[CASES[2]]["region"] < 0.9, covered[CASES[2]]


def draw(names, found, covered, took, path):
    """Digits of every regression; three fits; evaluations, coverage and times."""
    figure = record.figure(17, 10)
    grid = figure.add_gridspec(3, 3, width_ratios=(1.15, 1, 0.9))
    colors = {name: f"C{i}" for i, name in enumerate(CONTENDERS)}
    dots = figure.add_subplot(grid[:, 0])
    for i, (name, row) in enumerate(found.items()):
        reached = np.array(row["params"]).reshape(-1, 2)
        for j, marker in enumerate("ov"):
            style = {"color": colors[name], "alpha": 0.75, "markersize": 6, "linestyle": "none"}
            y = np.arange(len(names)) + 0.22 * (i - 1)
            dots.plot(reached[:, j], y, marker, label=f"{name}, {('far', 'near')[j]} start", **style)
    dots.axvline(ENOUGH, color="0.6", linewidth=0.8, linestyle="--")
    dots.set(xlabel="correct digits of the worst parameter", xlim=(-0.3, 11.5), title="NIST's regressions")
    dots.set_yticks(np.arange(len(names)), names, fontsize=9)
    dots.set_ylim(len(names) - 0.4, -0.6)
    for k in range(len(names)):
        dots.axhspan(k - 0.5, k + 0.5, color="0.5", alpha=0.07 * (k % 2), linewidth=0)
    dots.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.45, -0.06))
    for i, name in enumerate(SHOWN):
        draw_fit(figure.add_subplot(grid[i, 1]), name)

    profile = figure.add_subplot(grid[0, 2])
    for name, row in found.items():
        good = np.array(row["params"]) >= ENOUGH
        counts = np.sort([n for n, kept in zip(row["evaluations"], good, strict=True) if kept])
        profile.step(counts, np.arange(1, len(counts) + 1), where="post", color=colors[name], label=name)
    profile.axhline(2 * len(names), color="0.6", linewidth=0.8)
    profile.set(xscale="log", xlabel="evaluations of the model", ylabel=f"fits solved to {ENOUGH} digits")
    profile.set(title="evaluations", ylim=(0, 2 * len(names) * 1.04))
    profile.legend(frameon=False, fontsize=8, loc="lower right")

    shares = figure.add_subplot(grid[1, 2])
    for i, (case, row) in enumerate(covered.items()):
        heights = 100 * np.array([*row["intervals"], row["region"]])
        shares.plot(np.arange(5) + 0.12 * (i - 1), heights, "osD"[i], color=f"C{i + 3}", label=case)
    shares.axhline(95, color="0.4", linewidth=1)
    shares.set_xticks(np.arange(5), [*NAMES, "all four"])
    shares.set(ylabel="%", title="how often 95 % intervals hold the truth", ylim=(min(65, shares.get_ylim()[0]), 101.5))
    shares.legend(frameon=False, fontsize=8, loc="lower center")

    bars = figure.add_subplot(grid[2, 2])
    bars.barh(list(took), [row["microseconds"] for row in took.values()], color=("C0", "C9", "C1"))
    for i, row in enumerate(took.values()):
        bars.text(row["microseconds"], i, f" {row['microseconds']:,.0f} µs", va="center", fontsize=9)
    bars.set(xlabel="microseconds a fit", title=f"time of a fit of 4 parameters to {POINTS} points")
    bars.set_xlim(right=1.15 * max(row["microseconds"] for row in took.values()))
    bars.invert_yaxis()
    figure.savefig(path, dpi=110)


def draw_fit(axes, name):
    """Data, the fitted curve, and the band in which 95 % of new data are expected."""
    data, model = nist.data(name), nist.MODELS[name]
    solution = jo.curve_fit(model, data["x"], data["y"], data["starts"][1])
    x = np.linspace(data["x"].min(), data["x"].max(), 800)
    curve = np.asarray(model(x, *solution.params))
    slope = np.asarray(jax.jacfwd(lambda p: model(x, *p))(solution.params))
    noise = 2 * float(solution.value) / (len(data["y"]) - len(solution.params))
    spread = np.sqrt(np.einsum("xi,ij,xj->x", slope, np.asarray(solution.covariance), slope) + noise)
    half = stats.t.ppf(0.975, len(data["y"]) - len(solution.params)) * spread
    axes.fill_between(x, curve - half, curve + half, color="C0", alpha=0.2, linewidth=0, label="95 % of new data")
    axes.plot(data["x"], data["y"], ".", color="0.35", markersize=4, label="data")
    axes.plot(x, curve, color="C0", linewidth=1.4, label="fit")
    axes.set(title=f"{name}: {len(solution.params)} parameters, {int(solution.evaluations)} evaluations")
    axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
