"""The page of benchmarks is made from the stored results, so that no figure in it is typed by hand.

Run      python -m experiments.benchmarks.page          at once
Writes   docs/benchmarks.md, from experiments/benchmarks/results/*.json
"""

import json
from pathlib import Path

from experiments import record

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"

INTRODUCTION = """# Benchmarks

Every figure is a ratio to a peer that ran in the same process, in turns, on the same machine: the median over rounds.
Absolute times depend on the machine and its load; the ratios much less. The docstring of each script describes
what is compared. The scripts run unchanged on a GPU.

This page is made from the stored results by `python -m experiments.benchmarks.page`.
"""

SECTIONS = {
    "updates": (
        "One step of an optimizer",
        "`update` and `apply_updates` in one jitted call that donates parameters and state. `ratio` is the time in "
        "units of Optax's; `copy` the share of the machine's copy bandwidth, counting the bytes that the step cannot "
        "do without.",
        {"case": "case", "contender": "contender", "ms": "ms", "ratio": "ratio", "copy": "copy", "target": "target"},
    ),
    "memory": (
        "Memory of an optimizer",
        "`bytes` is the state of each parameter, with the weights where they are bfloat16; `ratio` the time of a step "
        "in units of float32 AdamW's; `temporary` the bytes for each parameter that the compiled step needs beside its "
        "arguments and results. On CPU 8 bits save stored bytes, not time.",
        {
            "case": "case",
            "contender": "contender",
            "bytes": "bytes",
            "bytes_target": "bytes: target",
            "ms": "ms",
            "ratio": "ratio",
            "target": "time: target",
            "temporary": "temporary",
        },
    ),
    "training": (
        "A training run",
        "Adam on the digits, a network of 128 hidden units. `ratio` is the time in units of one "
        "hand-written `lax.scan` over a given order of the data. `fit` and `scan + order` draw the order themselves.",
        {"case": "case", "contender": "contender", "steps_s": "steps/s", "ratio": "ratio", "target": "target"},
    ),
    "pipelines": (
        "Batches made on the host",
        "`jo.fit` with Adam on the same batches in the same order. `device` takes them from data on the device; "
        "`ahead` from NumPy in a thread, `between` between the steps; `work` adds a wait of a quarter of a step for "
        "each batch. `ratio` is the time in units of that of `device`.",
        {"case": "case", "contender": "contender", "steps_s": "steps/s", "ratio": "ratio", "target": "target"},
    ),
    "keeping": (
        "What checkpoints and trackers cost",
        "The character transformer, about a million parameters, 500 steps: a checkpoint every 100 steps, or a point "
        "for the trackers every 10. `ratio` is the time in units of the first of its case; `again` is the noise.",
        {"case": "case", "contender": "contender", "ratio": "ratio", "target": "target"},
    ),
    "sweeps": (
        "Sweeps",
        "AdamW on the digits, learning rate and weight decay drawn for each trial. `engine` is what `jo.sweep` drives, "
        "its programs compiled before; `sweep` is `jo.sweep` from beginning to end. `by hand` is `jit(vmap(scan))` of "
        "the same width. `serial loop` and Optuna call one compiled program for one trial after the other; "
        "`program each` traces and compiles one for each trial. `ratio` is the time in units of the contender that has "
        "1.00. Halving is judged by its winners: their test accuracy, trained again from five fresh seeds, mean over "
        "five sweeps.",
        {"case": "case", "contender": "contender", "trials_s": "trials/s", "ratio": "ratio", "target": "target"},
    ),
    "solvers": (
        "Solvers: time",
        "L-BFGS and Levenberg-Marquardt in float64, compiled before except where it says `first`. `ratio` is the time "
        "in units of the contender that has 1.00; `useful` the share of evaluations made for lanes that had not ended.",
        {
            "case": "case",
            "contender": "contender",
            "ms": "ms",
            "ratio": "ratio",
            "useful": "useful",
            "target": "result; target",
        },
    ),
    "evaluations": (
        "Solvers: evaluations",
        "Evaluations of value and gradient, or of residuals and Jacobian, in float64 with the same derivatives on both "
        "sides. The peer is SciPy: L-BFGS-B for `classic` and `boxed`, MINPACK for `squares`; for `float32` and "
        "`again` it is our own first solve in float64. For `squares` the last column has the sum of squares that is "
        "reached and the minimum that Moré, Garbow & Hillstrom, 1981, list for the problem.",
        {
            "case": "case",
            "contender": "problem",
            "evaluations": "evaluations",
            "peer": "peer",
            "ratio": "ratio",
            "target": "end",
        },
    ),
    "bbob": (
        "Global search",
        "The 24 noiseless functions of BBOB in 2 and 5 dimensions, two instances, three keys, 2000 evaluations per "
        "dimension, float64. `share` is that of the targets 10, 1, 1e-2, 1e-4 and 1e-8 above the least value that are "
        "hit; `ratio` the share in units of that of the package cma with restarts. `us` is the time of an evaluation "
        "of a cheap function in microseconds (run with `--time`), its `ratio` in units of cma's.",
        {
            "case": "case",
            "contender": "contender",
            "share": "share",
            "us": "us",
            "ratio": "ratio",
            "target": "target",
        },
    ),
}
PEERS = {
    "sweeps": ("optuna", "hyperoptax"),
    "solvers": ("jaxopt", "optimistix", "scipy"),
    "evaluations": ("scipy",),
    "bbob": ("cma", "scipy"),
}  # whose versions are printed; for the others, PyTorch's
FORMATS = {
    **{"useful": ".0%", "share": ".3f", "us": ".2f", "ms": ",.2f", "ratio": ".2f", "copy": ".0%"},
    **{"steps_s": ",.0f", "trials_s": ",.1f", "bytes": ".3f", "temporary": ".1f"},
}


def page() -> str:
    """The text of the page."""
    parts = [INTRODUCTION]
    for name, (title, words, columns) in SECTIONS.items():
        if not list(RESULTS.glob(f"{name}-*.json")):  # not yet measured
            continue
        parts.append(f"## {title}\n\n{words}\nRun `python -m experiments.benchmarks.{name}`.\n")
        for path in sorted(RESULTS.glob(f"{name}-*.json")):
            if not path.stem.endswith("-quick"):
                packages = ("jax", "optax", *PEERS.get(name, ("torch",)))
                parts.append(table(json.loads(path.read_text(encoding="utf-8")), columns, packages))
    return "\n".join(parts)


def table(result: dict, columns: dict[str, str], packages: tuple[str, ...]) -> str:
    """One result as a Markdown table, with the machine that it is true of."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in packages if name in machine)
    long = f", {result['steps']:,} steps" if "steps" in result else ""
    setting = f"{machine['device']} ({machine['processor']}, {machine['cores']} cores), {versions}{long}:"
    rows = [[format(row[k], FORMATS.get(k, "")) if k in row else "" for k in columns] for row in result["rows"]]
    return f"{setting}\n\n{record.table(list(columns.values()), rows)}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
