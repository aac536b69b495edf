"""Solvers against JAXopt, Optimistix, Optax and SciPy, by time and by evaluations.

Run      python -m experiments.benchmarks.solvers [--quick] [CASE ...]      about 8 minutes on two CPU cores
Writes   experiments/benchmarks/results/solvers-BACKEND.json                (solvers-BACKEND-quick.json with --quick)

All in float64. JAXopt, Optimistix and SciPy are left out where they are not installed. The cases:

    starts    256 starts of Rosenbrock's function in 10 dimensions, standard normal with key 0, in one vmapped call,
              until the norm of the gradient is below 1e-6. Optimistix has no test of the gradient: its tolerance is the
              loosest power of ten with which every lane gets there, or its last one where none does.
    gather    the same starts, with and without gathering the unfinished lanes, for the function itself and for one that
              takes about 1 ms
    first     the first call on Rosenbrock's function in 2 dimensions, tracing and compiling counted, each in a new
              process after imports
    again     a further call with other args, start and tolerance
    fits      10,000 curves of 4 parameters and 30 points in one call, against SciPy's curve_fit in a loop over 100 of
              them, both with the derivatives that JAX makes

`useful` is the share of the evaluations that were made for lanes that had not ended.
"""

import argparse
import functools
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_lite as jo
from experiments.benchmarks import timing
from jaxopt_lite.run.parts import number_of_parts
from jaxopt_lite.solve.batch import widths

LANES, SIZE, TOL = 256, 10, 1e-6
OURS = TOL / 4  # our tolerance is relative to max(1, |f|), and some starts end in a local minimum of 3.99
FITS, SINGLE_FITS, POINTS = 10_000, 100, 30
COLUMNS = {"case": "<46s", "contender": "<24s", "ms": ">10,.2f", "ratio": ">7.2f", "useful": ">8.0%", "target": "<30s"}


def rosenbrock(x):
    """[n] -> scalar."""
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def dear(x):
    """Rosenbrock's function and a matrix chain that adds nothing, about 1 ms a lane."""
    matrix = jnp.eye(144) + x[0] * 1e-300
    for _ in range(4):
        matrix = matrix @ matrix
    return rosenbrock(x) + 1e-300 * matrix[0, 0]


def starts() -> jax.Array:
    """[LANES, SIZE]."""
    return jax.random.normal(jax.random.key(0), (LANES, SIZE), jnp.float64)


def installed(name: str) -> bool:
    """Whether a package is there."""
    return importlib.util.find_spec(name) is not None


def ours(f: Callable) -> Callable:
    """L-BFGS by `minimize_batch`."""
    return lambda x: jo.minimize_batch(f, x, tol=OURS).params


def by_optax(f: Callable) -> Callable:
    """Optax's L-BFGS with its zoom search in a loop, as its documentation has it."""
    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(f)

    def solve(x):
        def step(carry):
            x, state, _ = carry
            value, grad = value_and_grad(x, state=state)
            updates, state = optimizer.update(grad, state, x, value=value, grad=grad, value_fn=f)
            x = optax.apply_updates(x, updates)
            return x, state, optax.tree.norm(optax.tree.get(state, "grad"))

        def unfinished(carry):
            return (carry[2] >= TOL) & (optax.tree.get(carry[1], "count") < 1000)

        return jax.lax.while_loop(unfinished, step, (x, optimizer.init(x), jnp.array(jnp.inf, x.dtype)))[0]

    return jax.jit(jax.vmap(solve))


def by_jaxopt(f: Callable) -> Callable:
    """Its L-BFGS with its default line search."""
    import jaxopt

    solver = jaxopt.LBFGS(f, tol=TOL, maxiter=1000)
    return jax.jit(jax.vmap(lambda x: solver.run(x).params))


def by_optimistix(f: Callable, name: str, x: jax.Array) -> Callable:
    """One of its minimisers, with the loosest tolerance that brings every lane's gradient below TOL."""
    import optimistix

    def make(tolerance):
        solver = getattr(optimistix, name)(rtol=tolerance, atol=tolerance)
        solve = lambda x: optimistix.minimise(lambda x, _: f(x), solver, x, max_steps=5000, throw=False).value
        return jax.jit(jax.vmap(solve))

    for exponent in range(6, 15):
        solve = make(10.0**-exponent)
        if norms(f, solve(x)).max() < TOL:
            break
    return solve


def norms(f: Callable, x: jax.Array) -> np.ndarray:
    """The norms of the gradients, [lanes]."""
    return np.asarray(jax.vmap(lambda x: jnp.linalg.norm(jax.grad(f)(x)))(x))


def rows(case: str, seconds: timing.Seconds, peer: str, **more) -> list[dict]:
    """A row for each contender, its time in units of a peer's."""
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    made = [
        {"case": case, "contender": n, "ms": 1e3 * median[n], "ratio": timing.ratio(seconds, n, peer)} for n in seconds
    ]
    return [
        {**row, **{key: values[row["contender"]] for key, values in more.items() if row["contender"] in values}}
        for row in made
    ]


def starts_case(rounds: int) -> list[dict]:
    """All starts in one call, to the same gradient."""
    x = starts()
    solves = {"minimize_batch": ours(rosenbrock), "Optax L-BFGS": by_optax(rosenbrock)}
    if installed("jaxopt"):
        solves["JAXopt L-BFGS"] = by_jaxopt(rosenbrock)
    if installed("optimistix"):
        for name in ("BFGS", "LBFGS"):
            solves[f"Optimistix {name}"] = by_optimistix(rosenbrock, name, x)
    reached = {name: float(np.mean(norms(rosenbrock, solve(x)) < TOL)) for name, solve in solves.items()}
    turns = {
        name: functools.partial(lambda solve: jax.block_until_ready(solve(x)), solve) for name, solve in solves.items()
    }
    seconds = timing.alternate(turns, rounds, "starts")
    solution = jo.minimize_batch(rosenbrock, x, tol=OURS)
    useful = float(np.sum(solution.evaluations) / (LANES * np.max(solution.evaluations)))
    fastest = min((name for name in solves if name != "minimize_batch"), key=lambda name: np.median(seconds[name]))
    target = {name: f"{share:.1%} below {TOL:g}" for name, share in reached.items()}
    ratio = timing.ratio(seconds, "minimize_batch", fastest)
    target["minimize_batch"] += f"; {timing.verdict(ratio, 0.7)}"
    return rows(
        f"{LANES} starts in {SIZE} dimensions", seconds, fastest, useful={"minimize_batch": useful}, target=target
    )


def useful_of_gathering(evaluations: np.ndarray) -> float:
    """The share of useful evaluations, by playing `minimize_batch` with what each lane needs."""
    made = 0
    for part in np.array_split(evaluations, number_of_parts(len(evaluations))):
        longest, done, sizes = np.sort(part)[::-1], 0, widths(len(part))
        for width, narrower in zip(sizes, [*sizes[1:], 0], strict=True):
            made += width * (longest[narrower] - done)  # until no more than `narrower` lanes run
            done = longest[narrower]
    return float(evaluations.sum() / made)


def gather_case(rounds: int) -> list[dict]:
    """Gathering makes fewer evaluations; whether that pays depends on what one takes."""
    x, found = starts(), []
    for name, f, lanes in (("the function", rosenbrock, LANES), ("one of 1 ms", dear, LANES)):
        x = starts()[:lanes]
        evaluations = np.asarray(jo.minimize_batch(f, x, tol=TOL).evaluations)
        useful = {
            "all together": float(evaluations.sum() / (lanes * evaluations.max())),
            "gathered": useful_of_gathering(evaluations),
        }
        turns = {
            "all together": lambda: jax.block_until_ready(jo.minimize_batch(f, x, tol=TOL).params),  # noqa: B023
            "gathered": lambda: jax.block_until_ready(jo.minimize_batch(f, x, tol=TOL, gather=True).params),  # noqa: B023
        }
        seconds = timing.alternate(turns, rounds, f"gather, {name}")
        target = (
            {}
            if f is rosenbrock
            else {"gathered": timing.verdict(timing.ratio(seconds, "gathered", "all together"), 0.9)}
        )
        found += rows(f"gathering {lanes} lanes: {name}", seconds, "all together", useful=useful, target=target)
    return found


FIRST = {
    "minimize": "jo.minimize(rosenbrock, x).params",
    "Optimistix BFGS": "optimistix.minimise(lambda x, _: rosenbrock(x), optimistix.BFGS(1e-8, 1e-8), x).value",
    "JAXopt L-BFGS": "jaxopt.LBFGS(rosenbrock).run(x).params",
}
SCRIPT = """
import importlib, time
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
import jaxopt_lite as jo
from experiments.benchmarks.solvers import rosenbrock
{imports}
x = jax.block_until_ready(jnp.array([-1.2, 1.0]))
began = time.perf_counter()
jax.block_until_ready({call})
print(time.perf_counter() - began)
"""


def first_case(rounds: int) -> list[dict]:
    """Tracing and compiling."""
    calls = {name: call for name, call in FIRST.items() if name == "minimize" or installed(name.split()[0].lower())}

    seconds: timing.Seconds = {name: [] for name in calls}
    for i in range(rounds + 1):
        for name, call in calls.items():
            timing.progress(f"first: round {i} of {rounds}, {name}")
            module = "" if name == "minimize" else f"import {name.split()[0].lower()}"
            script = SCRIPT.format(imports=module, call=call)
            output = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
            )
            if i:
                seconds[name].append(float(output.stdout))
    timing.progress("")
    peer = "Optimistix BFGS" if "Optimistix BFGS" in calls else "minimize"
    target = {"minimize": timing.verdict(timing.ratio(seconds, "minimize", peer), 1.0)}
    return rows("first call in 2 dimensions", seconds, peer, target=target)


def again_case(rounds: int) -> list[dict]:
    """A call that neither traces nor compiles: what is left is the host's work."""
    f = lambda x, a: jnp.sum(100 * (x[1:] - a * x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    turns: dict[str, Callable] = {}
    numbers = iter(np.random.default_rng(0).uniform(0.9, 1.1, 10_000))
    with_args = lambda solve: lambda: jax.block_until_ready(solve(jnp.full(2, next(numbers)), next(numbers)))
    turns["minimize"] = with_args(lambda x, a: jo.minimize(f, x, args=(a,), tol=TOL * a).params)
    if installed("jaxopt"):
        import jaxopt

        solver = jaxopt.LBFGS(f, tol=TOL)
        turns["JAXopt L-BFGS, run"] = with_args(lambda x, a: solver.run(x, a).params)
        compiled = jax.jit(lambda x, a: solver.run(x, a).params)
        turns["JAXopt L-BFGS, jitted"] = with_args(compiled)
    if installed("optimistix"):
        import optimistix

        bfgs, g = optimistix.BFGS(rtol=1e-8, atol=1e-8), lambda x, a: f(x, a)
        turns["Optimistix BFGS"] = with_args(lambda x, a: optimistix.minimise(g, bfgs, x, a, throw=False).value)
    return rows("a further call in 2 dimensions", timing.alternate(turns, 10 * rounds, "again"), "minimize")


def bump(x, a, b, c, d):
    """A Gaussian peak on a constant."""
    return a * jnp.exp(-(((x - b) / c) ** 2)) + d


def fits_case(rounds: int) -> list[dict]:
    """Ten thousand curves in one call."""
    rng = np.random.default_rng(0)
    x = np.linspace(-3, 3, POINTS)
    truth = rng.uniform([1, -1, 0.5, -1], [3, 1, 1.5, 1], (FITS, 4))
    a, b, c, d = truth.T[:, :, None]
    y = a * np.exp(-(((x - b) / c) ** 2)) + d
    y += 0.05 * rng.normal(size=y.shape)
    start = jnp.array([1.0, 0.0, 1.0, 0.0])
    fit = jax.jit(jax.vmap(lambda y: jo.curve_fit(bump, x, y, start)))
    solution = fit(y)
    turns = {"curve_fit, vmapped": lambda: jax.block_until_ready(fit(y).params)}
    share = float(np.mean(solution.converged))
    target = {"curve_fit, vmapped": f"{share:.1%} converged"}
    if installed("scipy"):
        import scipy.optimize

        model = jax.jit(bump)
        slope = jax.jit(lambda x, *p: jnp.stack(jax.jacfwd(bump, argnums=(1, 2, 3, 4))(x, *p), axis=1))

        def loop():
            for row in y[:SINGLE_FITS]:
                scipy.optimize.curve_fit(
                    *(lambda x, *p: np.asarray(model(x, *p)), x, row, np.asarray(start)),
                    jac=lambda x, *p: np.asarray(slope(x, *p)),
                )

        turns["SciPy's in a loop"] = loop
    seconds = timing.alternate(turns, rounds, "fits")
    per_fit = {"curve_fit, vmapped": FITS, "SciPy's in a loop": SINGLE_FITS}
    seconds = {name: [s / per_fit[name] for s in values] for name, values in seconds.items()}
    return rows("a fit of 4 parameters to 30 points", seconds, list(seconds)[-1], target=target)


CASES: dict[str, tuple[Callable[[int], list[dict]], int, int]] = {  # rounds, and with --quick
    "starts": (starts_case, 9, 2),
    "gather": (gather_case, 2, 1),
    "first": (first_case, 5, 1),
    "again": (again_case, 9, 2),
    "fits": (fits_case, 5, 1),
}


def main() -> None:
    """Run the cases, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all of them by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    print(", ".join(f"{key} {value}" for key, value in timing.machine().items()), flush=True)
    timing.header(COLUMNS)
    found = []
    for name in arguments.cases or CASES:
        case, rounds, few = CASES[name]
        found += timing.show(case(few if arguments.quick else rounds), COLUMNS)
        if not arguments.cases:  # after each, so that an interrupted run leaves what it measured
            path = timing.write("solvers", arguments.quick, {"rows": found})
            print(f"wrote {path} after {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
