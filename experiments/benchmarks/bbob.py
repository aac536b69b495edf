"""Global search on the 24 functions of BBOB: how many targets are hit, beside the package cma and SciPy.

Run      python -m experiments.benchmarks.bbob [CONTENDER ...]     about 25 minutes on two CPU cores
         python -m experiments.benchmarks.bbob --time              about 2 minutes, on a machine that does nothing else
Writes   experiments/benchmarks/results/bbob-BACKEND.json, with --time bbob-time-BACKEND.json

All in float64. Each function in 2 and 5 dimensions, instances 1 and 2 (or those of --instances), three keys with a
uniformly random start each; 2000 evaluations per dimension. A target is a value at most 10, 1, 1e-2, 1e-4 or 1e-8 above
the least one, and the share is that of (function, instance, key, target) that were hit. Ours run with tol=0, which
leaves the tests of rounding; a value with its gradient counts as one evaluation. `cma` is `fmin2` of the package cma
with the bounds, the first standard deviation of 2 that ours have, and restarts that double the population; of SciPy,
`differential_evolution` (with its polishing) and `dual_annealing` with their defaults. Packages that are not installed
are left out. Peers are stopped at the budget.

--time measures a solve of 20,000 evaluations of a sphere in 10 dimensions, per evaluation: ours compiled before, the
peers with the function in NumPy.
"""

import argparse
import functools
import importlib.util
import time
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import jaxopt_lite as jo
from experiments.benchmarks import timing

DIMENSIONS, INSTANCES, KEYS, FUNCTIONS = (2, 5), (1, 2), 3, range(1, 25)
TARGETS = (1e1, 1e0, 1e-2, 1e-4, 1e-8)
BUDGET = 2000  # evaluations per dimension
SIGMA = 2.0  # 0.2 of the edges of the box
MARGIN = 0.03  # of the share, that ours may be below that of cma
# Methods that would end before the budget is spent get more starts or hops; the number of starts is a power of two.
OURS = {
    **{f"{name}": f"search.{name}()" for name in jo.search.__all__},
    "multistart": "search.multistart(starts=4096)",
    "basin_hopping": "search.basin_hopping(hops=1000)",
    "multistart, the worst replaced": "search.multistart(starts=4096, period=4)",
    "simulated_annealing with gradient steps": "search.simulated_annealing(local=solvers.lbfgsb(), chains=4)",
    "genetic with gradient steps": "search.genetic(local=solvers.lbfgsb())",
    "cma_es without restarts": "search.cma_es(restarts=0)",
    "differential_evolution, best": 'search.differential_evolution(strategy="current_to_best1")',
}
COLUMNS = {"case": "<14s", "contender": "<42s", "share": ">7.3f", "us": ">8.2f", "ratio": ">7.2f", "target": "<40s"}


class Spent(Exception):
    """The budget is used up."""


class Counted:
    """A function of a NumPy vector that keeps its least value, and raises `Spent` beyond its budget."""

    def __init__(self, f: Callable, budget: int):
        self.f, self.left, self.best = f, budget, np.inf

    def __call__(self, x) -> float:
        if not self.left:
            raise Spent
        self.left -= 1
        value = float(self.f(x))
        self.best = min(self.best, value)
        return value


def starts(n: int, instance: int) -> np.ndarray:
    """Uniform in the box, [KEYS, n]."""
    return np.stack([np.random.default_rng([instance, key]).uniform(-5, 5, n) for key in range(KEYS)])


@functools.cache
def problems(n: int, instances: tuple[int, ...]) -> list[jo.TestProblem]:
    """All functions, and of each all instances."""
    return [jo.bbob(function, n, instance) for function in FUNCTIONS for instance in instances]


def of_method(method: jo.Solver) -> Callable:
    """A contender: (n, instances) -> the least values [functions x instances, KEYS].

    All functions are one, of a point and an index, which is compiled once. A schedule gets the length of the budget.
    """

    def run(n: int, instances: tuple[int, ...]) -> np.ndarray:
        made = problems(n, instances)

        def f(x, i):
            return jax.lax.switch(i, [problem.f for problem in made], x)

        @functools.partial(jax.jit, static_argnums=0)
        def solve(steps, method, x, keys, i):
            def one(start, key):
                common: dict = {"bounds": (-5.0, 5.0), "tol": 0.0, "differentiate": "none"}
                solution = jo.minimize(f, start, method, (i,), key=key, max_steps=steps, **common)
                return solution.value, solution.evaluations

            return jax.vmap(one)(x, keys)

        inputs = [(starts(n, k), jax.random.split(jax.random.key(k), KEYS)) for _ in FUNCTIONS for k in instances]
        steps = BUDGET * n // int(np.max(solve(1, jo.arrays(method), *inputs[0], 0)[1]))
        fitted = jo.replace(method, {"steps": float(steps)}) if "steps" in method.arguments else method
        found = [solve(max(1, steps), jo.arrays(fitted), *given, i)[0] for i, given in enumerate(inputs)]
        return np.stack(found)

    return run


def of_peer(minimize: Callable) -> Callable:
    """A contender, from minimize(f, start, seed)."""

    def run(n: int, instances: tuple[int, ...]) -> np.ndarray:
        made, found = problems(n, instances), []
        for i, problem in enumerate(made):
            compiled, instance = jax.jit(problem.f), instances[i % len(instances)]
            timing.progress(f"function {1 + i // len(instances)} in {n} dimensions")
            for key, start in enumerate(starts(n, instance)):
                f = Counted(compiled, BUDGET * n)
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        minimize(f, start, 1 + key + 10 * instance)
                except Spent:
                    pass
                found.append(f.best)
        return np.array(found).reshape(len(made), KEYS)

    return run


def by_cma(f: Counted, start: np.ndarray, seed: int) -> None:
    """Restarts that double the population, until the budget is spent."""
    import cma  # type: ignore

    options = {"bounds": [-5, 5], "maxfevals": f.left, "verbose": -9, "verb_log": 0, "seed": seed}
    cma.fmin2(f, start, SIGMA, options, restarts=9, incpopsize=2)


def by_scipys_evolution(f: Counted, start: np.ndarray, seed: int) -> None:
    """SciPy's differential evolution."""
    scipy.optimize.differential_evolution(f, [(-5, 5)] * len(start), x0=start, rng=seed, maxiter=10**6)


def by_scipys_annealing(f: Counted, start: np.ndarray, seed: int) -> None:
    """SciPy's dual annealing."""
    scipy.optimize.dual_annealing(f, [(-5, 5)] * len(start), x0=start, rng=seed, maxiter=10**6)


def contenders() -> dict[str, Callable]:
    """By name: (n, instances) -> values [functions x instances, KEYS]."""
    peers = {"SciPy differential_evolution": by_scipys_evolution, "SciPy dual_annealing": by_scipys_annealing}
    if importlib.util.find_spec("cma"):
        peers = {"cma": by_cma, **peers}
    ours = {name: of_method(jo.parse(text)) for name, text in OURS.items()}
    return ours | {name: of_peer(minimize) for name, minimize in peers.items()}


def gaps_of(name: str, run: Callable, instances: tuple[int, ...]) -> np.ndarray:
    """What is left above the least value, [dimensions, functions, instances, KEYS]."""
    found, began = [], time.perf_counter()
    for n in DIMENSIONS:
        timing.progress(f"{name} in {n} dimensions")
        least = np.array([problem.value for problem in problems(n, instances)])
        found.append((run(n, instances) - least[:, None]).reshape(len(FUNCTIONS), len(instances), KEYS))
    timing.progress("")
    print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    return np.stack(found)


def hit(gaps: np.ndarray) -> np.ndarray:
    """Which targets were hit, [..., targets]."""
    return gaps[..., None] <= np.array(TARGETS)


def rows_of(gaps: dict[str, np.ndarray]) -> list[dict]:
    """A row for each contender, in each dimension and in both."""
    peer, rows = ("cma" if "cma" in gaps else next(iter(gaps))), []
    for case, part in [(f"{n} dimensions", slice(d, d + 1)) for d, n in enumerate(DIMENSIONS)] + [
        ("both", slice(None))
    ]:
        shares = {name: float(hit(values[part]).mean()) for name, values in gaps.items()}
        for name, share in sorted(shares.items(), key=lambda item: -item[1]):
            row = {"case": case, "contender": name, "share": share, "ratio": max(share, 1e-9) / shares[peer]}
            if name == "cma_es" and case == "both" and peer == "cma":
                limit = shares[peer] - MARGIN
                row["target"] = f"at least {limit:.3f}: {'reached' if share >= limit else 'MISSED'}"
            rows.append(row)
    return rows


def search_case(names: list[str], instances: tuple[int, ...]) -> dict:
    """The shares of targets that are hit, also by function."""
    gaps = {name: gaps_of(name, run, instances) for name, run in contenders().items() if not names or name in names}
    functions = {name: hit(values).mean(axis=(2, 3, 4)).tolist() for name, values in gaps.items()}
    return {"rows": rows_of(gaps), "instances": instances, "functions": functions}


def time_case(evaluations: int = 20_000, n: int = 10, rounds: int = 7) -> dict:
    """The time of an evaluation of a cheap function."""
    start, bounds, key = np.full(n, 3.0), (-5.0, 5.0), jax.random.key(0)
    sphere = lambda x: jnp.sum((x - 1) ** 2)
    made: dict[str, int] = {}

    def solve(name, method):
        begun = jo.minimize(sphere, start, method, bounds=bounds, tol=0.0, key=key, max_steps=1)
        steps = evaluations // int(begun.evaluations)
        solution = jo.minimize(sphere, start, method, bounds=bounds, tol=0.0, key=key, max_steps=steps)
        made[name] = int(jax.block_until_ready(solution.evaluations)) + int(begun.evaluations)

    def call(name, minimize):
        f = Counted(lambda x: np.sum((x - 1) ** 2), evaluations)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                minimize(f, start, 1)
        except Spent:
            pass
        made[name] = evaluations - f.left

    turns: dict[str, Callable] = {
        name: functools.partial(solve, name, jo.parse(f"search.{name}()")) for name in jo.search.__all__
    }
    peers = {"SciPy differential_evolution": by_scipys_evolution, "SciPy dual_annealing": by_scipys_annealing}
    peers |= {"cma": by_cma} if importlib.util.find_spec("cma") else {}
    turns |= {name: functools.partial(call, name, minimize) for name, minimize in peers.items()}
    seconds = timing.alternate(turns, rounds, "time")
    each = {name: [1e6 * s / made[name] for s in values] for name, values in seconds.items()}
    peer = "cma" if "cma" in each else "SciPy differential_evolution"
    rows = [
        {"case": "time", "contender": name, "us": float(np.median(us)), "ratio": timing.ratio(each, name, peer)}
        for name, us in each.items()
    ]
    return {"rows": sorted(rows, key=lambda row: row["us"])}


def main() -> None:
    """Run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("contenders", nargs="*", metavar="CONTENDER", help="all of them by default")
    parser.add_argument("--instances", nargs="*", type=int, default=list(INSTANCES), help="of the functions: 1 2")
    parser.add_argument("--time", action="store_true", help="the time of an evaluation")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    instances = tuple(arguments.instances)
    result = time_case() if arguments.time else search_case(arguments.contenders, instances)
    timing.header(COLUMNS)
    timing.show(result["rows"], COLUMNS)
    if arguments.time:
        print(f"wrote {timing.write('bbob-time', False, result)}", flush=True)
    elif not arguments.contenders and instances == INSTANCES:
        print(f"wrote {timing.write('bbob', False, result)}", flush=True)


if __name__ == "__main__":
    main()
