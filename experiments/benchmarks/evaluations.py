"""Evaluations that solvers need on problems of the literature, beside SciPy's, and the minima that they end in.

Run      python -m experiments.benchmarks.evaluations          about 8 minutes on two CPU cores
Writes   experiments/benchmarks/results/evaluations-BACKEND.json

All in float64. An evaluation of a minimizer is a value with its gradient, one of least squares the residuals with their
Jacobian. The contenders are given the same derivatives.

    classic    ten problems to a norm of the gradient of 1e-6: `lbfgs` beside L-BFGS-B of SciPy (gtol = 1e-6, ftol = 0)
    float32    the same in float32, beside our own in float64: f above the least value, and the status
    again      solving again from each solution, without its state
    boxed      the same with bounds: `lbfgsb`
    squares    the 35 problems of Moré, Garbow & Hillstrom, 1981: `levenberg_marquardt` beside MINPACK in SciPy
               (`least_squares(method="lm")`); which listed minimum each ends in
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import jaxopt_lite as jo
from experiments.benchmarks import timing
from tests.solvers import more_garbow_hillstrom as squares
from tests.solvers import problems

TOL = 1e-6
COLUMNS = {
    "case": "<10s",
    "contender": "<24s",
    "evaluations": ">11d",
    "peer": ">7d",
    "ratio": ">7.2f",
    "target": "<60s",
}


def scipys(f, start, bounds=None) -> tuple[int, float]:
    """Evaluations and value of L-BFGS-B."""
    value_and_grad = jax.jit(jax.value_and_grad(f))
    both = lambda x: tuple(np.asarray(part, float) for part in value_and_grad(jnp.asarray(x)))
    end = scipy.optimize.minimize(
        *(both, np.asarray(start, float)),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"gtol": TOL, "ftol": 0, "maxfun": 10_000, "maxiter": 10_000},
    )
    return int(end.nfev), float(end.fun)


def on_host(f):
    """A function of NumPy's arrays."""
    return lambda x: np.asarray(f(x))


def row(case: str, name: str, evaluations: int, peer: int, target: str) -> dict:
    """One line of the table."""
    ratio = evaluations / peer
    return {"case": case, "contender": name, "evaluations": evaluations, "peer": peer, "ratio": ratio, "target": target}


def total(case: str, rows: list[dict], limit: int | None = None) -> list[dict]:
    """The rows and their sum."""
    ours, peers = (sum(r[key] for r in rows) for key in ("evaluations", "peer"))
    target = "" if limit is None else f"at most {limit}: {'reached' if ours <= limit else 'MISSED'}"
    return [*rows, row(case, "in all", ours, peers, target)]


def classic_case() -> list[dict]:
    """Ten classic problems, in float32 too, and once more from each solution."""
    doubles, singles, again = [], [], []
    for name, f, start, least in problems.classic():
        solution = jo.minimize(f, start, tol=TOL)
        nfev, _ = scipys(f, start)
        words = f"{jo.Status(int(solution.status)).name.lower()}, f {float(solution.value) - least:.1e} above"
        doubles.append(row("classic", name, int(solution.evaluations), nfev, words))
        narrow = jo.minimize(f, np.asarray(start, np.float32), tol=TOL)
        words = f"{jo.Status(int(narrow.status)).name.lower()}, f {float(narrow.value) - least:.1e} above"
        singles.append(row("float32", name, int(narrow.evaluations), int(solution.evaluations), words))
        repeated = jo.minimize(f, solution.params, tol=TOL)
        words = jo.Status(int(repeated.status)).name.lower()
        again.append(row("again", name, int(repeated.evaluations), int(solution.evaluations), words))
    return total("classic", doubles, 1094) + total("float32", singles) + total("again", again)


def boxed_case() -> list[dict]:
    """Problems with bounds."""
    found = []
    for i, (f, start, lower, upper, value, _) in enumerate(problems.BOXED):
        bounds = (jnp.array(lower, float), jnp.array(upper, float))
        solution = jo.minimize(f, jnp.array(start, float), bounds=bounds, tol=TOL)
        nfev, _ = scipys(f, start, scipy.optimize.Bounds(lower, upper))
        words = f"{jo.Status(int(solution.status)).name.lower()}, f {float(solution.value) - value:.1e} above"
        found.append(
            row(
                "boxed",
                f"{i + 1}: {getattr(f, '__name__', '')}".replace("<lambda>", "sum"),
                int(solution.evaluations),
                nfev,
                words,
            )
        )
    return total("boxed", found)


def squares_case() -> list[dict]:
    """Sums of squares."""
    found = []
    for name, residual, start, minima in squares.PROBLEMS:
        solution = jo.least_squares(residual, jnp.asarray(start))
        f, jacobian = (on_host(jax.jit(g)) for g in (residual, jax.jacfwd(residual)))
        end = scipy.optimize.least_squares(f, start, jac=jacobian, method="lm", max_nfev=10_000)
        reached = squares.reached(2 * float(solution.value), minima)
        peers = squares.reached(2 * float(end.cost), minima)
        words = f"{jo.Status(int(solution.status)).name.lower()}, sum {2 * float(solution.value):.6g}, "
        words += f"listed {reached:g}" if reached is not None else "NOT LISTED"
        words += "" if peers == reached else f"; SciPy {2 * end.cost:.6g}"
        found.append(row("squares", name, int(solution.evaluations), int(end.nfev), words))
    return total("squares", found)


CASES = {"classic": classic_case, "boxed": boxed_case, "squares": squares_case}


def main() -> None:
    """Run the cases, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all of them by default")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    timing.header(COLUMNS)
    found = []
    for name in arguments.cases or CASES:
        found += timing.show(CASES[name](), COLUMNS)
    if not arguments.cases:
        path = timing.write("evaluations", False, {"rows": found})
        print(f"wrote {path} after {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
