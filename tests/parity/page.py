"""Writes docs/parity.md: every rule against every peer of cases.py, and against Optax.

Run      python -m tests.parity.page          about a minute; no peer is needed, their goldens are stored
"""

import json
from pathlib import Path

import jax
import numpy as np

import jaxopt_lite as jo

from . import make_goldens
from .cases import CASES, Case
from .descend import descend, distance
from .test_optax import NAMES, RECIPES, ROUNDED, VARIANTS, theirs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parity.md"
PEERS = {"torch": "PyTorch", "authors": "the authors' rule", "packages": ""}
PACKAGES = {"dog": "dog-optimizer"}  # whose module has another name
SAME = 1e-15  # what is shown as 0

HEAD = """# Parity

Every rule against those who have it too: fifty steps in float64 on one problem of nine numbers,
whose gradients differ in size by 1e5, change sign, sleep and burst. The number is the largest difference of a parameter
at any step, relative to the largest parameter (at least 1); below 1e-15 it is 0. Where defaults differ, arguments are
written so that the rules should be one; [what is different on purpose](differences.md) is listed with its evidence.

Peers: {versions}. "The authors' rule" is a transcription of the paper, or of the authors' code, in NumPy. The table is
made by `python -m tests.parity.page` from stored trajectories; `tests/parity/make_goldens.py` makes these.
"""


def peer_of(case: Case) -> str:
    """The peer's rule as a call."""
    module, _, name = case.rule.rpartition(":")
    given = ", ".join(f"{key}={value!r}" for key, value in case.arguments.items())
    return f"{PACKAGES.get(module, module) or PEERS[case.peer]} `{name}({given})`"


def row(ours: str, peer: str, apart: float, note: str = "") -> str:
    """A row of a table."""
    shown = "0" if apart < SAME else f"{apart:.0e}"
    return f"| `{ours}` | {peer} | {shown} | {note} |"


def main() -> None:
    """Compute the differences and write the page."""
    jax.config.update("jax_enable_x64", True)
    goldens = dict(np.load(make_goldens.FILE))
    versions = json.loads(str(goldens["versions"]))
    import optax

    shown = ", ".join(f"{name} {number}" for name, number in {**versions, "optax": optax.__version__}.items())
    lines = [HEAD.format(versions=shown), "| ours | peer | difference | |", "| --- | --- | --- | --- |"]
    for case in CASES:
        (trajectory,) = descend(jo.parse(case.ours))
        lines.append(row(case.ours, peer_of(case), distance(trajectory, goldens[case.id]), case.note))
    reasons = dict(ROUNDED)
    lines += ["", "## Optax", "", "The same name, the same arguments.", "", "| | difference |", "| --- | --- |"]
    for text in [*RECIPES.values(), *VARIANTS, *reasons]:
        apart = distance(*descend(jo.parse(text, names=NAMES), theirs(text)))
        why = f": {reasons[text]} there" if text in reasons else ""
        lines.append(f"| `{text}` | {'0' if apart < SAME else f'{apart:.0e}'}{why} |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {PAGE.name}: {len(CASES)} cases, {len(RECIPES) + len(VARIANTS) + len(ROUNDED)} against Optax")


if __name__ == "__main__":
    main()
