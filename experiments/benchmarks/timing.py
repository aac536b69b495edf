"""Timing on a noisy machine: contenders take turns, medians are kept, figures are ratios to a peer.

A contender is a function of no arguments that does one turn and waits for its end. Every round times each of them once,
in an order of its own, so that what slows the machine for a while slows all of them alike, and no contender always
follows the one that empties the caches.
"""

import argparse
import json
import os
import platform
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxopt_lite.log.records import plain

__all__ = ["alternate", "command", "copy_turn", "header", "machine", "ratio", "show", "verdict", "write"]

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "optax", "numpy", "scipy", "torch", "optuna", "hyperoptax", "jaxopt", "optimistix", "cma")
REST = 0.005  # seconds between turns: the threads of the last contender still spin for a moment
NOISE = 0.03  # the ratio of a program to itself, on two shared cores, is this far from 1 every other time

Seconds = dict[str, list[float]]


def alternate(
    contenders: dict[str, Callable[[], object]], rounds: int, what: str, before: Callable[[], object] = lambda: None
) -> Seconds:
    """The seconds of each turn by contender, in the order of the rounds; the first round warms up and is not kept.

    Args:
        contenders: what takes turns.
        rounds: turns of each that are kept, at least 1.
        what: printed beside the progress.
        before: done before each turn, and not timed.
    """
    names = list(contenders)
    seconds: Seconds = {name: [] for name in names}
    for i in range(rounds + 1):
        progress(f"{what}: round {i} of {rounds}")
        for name in random.Random(i).sample(names, len(names)):
            before()
            start = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - start)
            time.sleep(REST)
    progress("")
    return {name: kept[1:] for name, kept in seconds.items()}


def progress(text: str) -> None:
    """Replace the line of progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def ratio(seconds: Seconds, name: str, peer: str) -> float:
    """The median over rounds of a contender's time in units of its peer's time in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[peer], strict=True))


def copy_turn(values: int) -> tuple[Callable[[], object], int]:
    """A pass over an array that reads and writes each value once, in place; and the bytes that it moves."""
    negate = jax.jit(jnp.negative, donate_argnums=0)
    array = jnp.ones(values, jnp.float32)

    def turn():
        nonlocal array
        array = jax.block_until_ready(negate(array))

    return turn, 2 * array.nbytes


def command(
    description: str,
    name: str,
    columns: dict[str, str],
    cases: Callable[[bool], Iterable[list[dict[str, object]]]],
    facts: Callable[[bool], dict[str, object]] = lambda quick: {},
) -> None:
    """A benchmark's command: print the machine and the rows of each case as they come, and write them.

    Args:
        description: the module's docstring.
        name: of the file of results.
        columns: of the table, as for `header`.
        cases: from whether it is to be quick, the rows of each case.
        facts: what the result holds beside the rows.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less of everything")
    quick, began = parser.parse_args().quick, time.perf_counter()
    print(", ".join(f"{key} {value}" for key, value in machine().items()), flush=True)
    header(columns)
    rows = [row for found in cases(quick) for row in show(found, columns)]
    path = write(name, quick, {**facts(quick), "rows": rows})
    print(f"\nwrote {path} after {time.perf_counter() - began:.0f} s")


def machine() -> dict[str, object]:
    """The device, the processor and the versions that a result is true of."""
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        **{name: version for name, version in versions.items() if version},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def verdict(value: float, target: float) -> str:
    """The target, and whether it was reached."""
    reached = "reached" if value <= target else "within noise" if value <= target * (1 + NOISE) else "MISSED"
    return f"at most {target:g}: {reached}"


def header(columns: dict[str, str]) -> None:
    """Print the names of a table's columns; their formats have an alignment and a width, such as `>8.2f`."""
    print("  ".join(format(name, re.match(r"[<>]\d+", f)[0]) for name, f in columns.items()).rstrip(), flush=True)


def show(rows: list[dict[str, object]], columns: dict[str, str]) -> list[dict[str, object]]:
    """Print rows of a table below its header, a value that a row does not have left blank; and return them."""
    for row in rows:
        cells = (format(row.get(k, ""), f if k in row else re.match(r"[<>]\d+", f)[0]) for k, f in columns.items())
        print("  ".join(cells).rstrip(), flush=True)
    return rows


def write(name: str, quick: bool, result: dict[str, object]) -> Path:
    """Write a result to results/NAME-BACKEND.json (a quick run's beside it), with the machine that it is true of."""
    path = RESULTS / f"{name}-{jax.default_backend()}{'-quick' if quick else ''}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(plain({"machine": machine(), **result}), indent=1) + "\n")
    return path
