"""Write experiments/nist.json from the files of NIST's Statistical Reference Datasets, nonlinear regression.

Run     pip download --no-binary lmfit --no-deps lmfit, unpack it, and
        python -m tests.solvers.make_nist lmfit-1.3.4/NIST_STRD
Source  https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml, as distributed with lmfit 1.3.4
"""

import json
import re
import sys
from pathlib import Path

import experiments

NUMBER = r"[-+]?[\d.]+(?:E[-+]?\d+)?"


def read(path: Path) -> dict:
    """Starts [2, n], certified parameters and standard deviations [n], the sum of squares, y [m] and x [m, ...]."""
    lines = path.read_text().splitlines()
    table = [re.findall(NUMBER, line.split("=")[1]) for line in lines if re.match(r"\s*b\d+\s*=", line)]
    columns = [[float(row[i]) for row in table] for i in range(4)]
    squares = next(float(line.split(":")[1]) for line in lines if line.startswith("Residual Sum of Squares"))
    first = max(i for i, line in enumerate(lines) if line.startswith("Data:")) + 1
    data = [[float(v) for v in line.split()] for line in lines[first:] if line.strip()]
    y, x = [row[0] for row in data], [row[1:] if len(row) > 2 else row[1] for row in data]
    return {"starts": columns[:2], "params": columns[2], "errors": columns[3], "squares": squares, "y": y, "x": x}


if __name__ == "__main__":
    problems = {path.stem: read(path) for path in sorted(Path(sys.argv[1]).glob("*.dat"))}
    lines = [f'"{name}": {json.dumps(problem, separators=(",", ":"))}' for name, problem in problems.items()]
    Path(experiments.__file__).with_name("nist.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
