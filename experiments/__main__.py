"""Runs every experiment in its reduced form, one after the other, and prints whose claim held.

Run      python -m experiments [--full] [NAME ...]          at most 12 minutes on two CPU cores
Writes   runs/quick/NAME/..., and runs/quick/{NAME.log, result.json}

An experiment is a file here with a function `main(quick=False)`. Each runs in a process of its own, as by hand.
"""

import argparse
import ast
import subprocess
import sys
import time
from pathlib import Path

from jaxopt_lite.log.records import versions, write_json

HERE = Path(__file__).parent
LOGS = Path("runs/quick")


def experiments(directory: Path = HERE) -> list[str]:
    """The names of the files that have a `main`."""
    return sorted(path.stem for path in directory.glob("[!_]*.py") if has_main(path.read_text(encoding="utf-8")))


def has_main(source: str) -> bool:
    """Whether a module defines main(quick=False)."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    return any("quick" in [argument.arg for argument in function.args.args] for function in functions)


def run(name: str, full: bool, log: Path) -> dict:
    """Run one, its output in a log: {"outcome": "held", "failed" or "broke", "seconds": float}."""
    began = time.perf_counter()
    with log.open("w", encoding="utf-8") as output:
        command = [sys.executable, "-m", f"experiments.{name}", *([] if full else ["--quick"])]
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
    lines = log.read_text(encoding="utf-8").strip().splitlines()
    failed = any(line.startswith("AssertionError") for line in lines)
    outcome = "held" if code == 0 else "failed" if failed else "broke"
    return {"outcome": outcome, "seconds": time.perf_counter() - began, "end": lines[-1] if lines else ""}


def main() -> int:
    """Run those named, or all; print a table; return how many did not hold."""
    known = experiments()
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}; none is all of them")
    parser.add_argument("--full", action="store_true", help="run them in full, not reduced")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"there is no experiment {unknown[0]!r}; there are {', '.join(known)}")
    LOGS.mkdir(parents=True, exist_ok=True)
    found, width = {}, max(map(len, known))
    for name in arguments.names or known:
        print(f"{name:{width}}", end="", flush=True)
        found[name] = run(name, arguments.full, LOGS / f"{name}.log")
        row = found[name]
        print(f"{row['seconds']:8.1f} s   {row['outcome']}" + (f": {row['end']}" if row["outcome"] != "held" else ""))
    missed = [name for name, row in found.items() if row["outcome"] != "held"]
    seconds = sum(row["seconds"] for row in found.values())
    print(f"{'total':{width}}{seconds:8.1f} s   {len(found) - len(missed)} of {len(found)} held")
    if missed:
        print(f"their output is in {', '.join(str(LOGS / f'{name}.log') for name in missed)}")
    write_json(LOGS / "result.json", {"experiments": found, "full": arguments.full, "versions": versions()})
    return len(missed)


if __name__ == "__main__":
    sys.exit(main())
