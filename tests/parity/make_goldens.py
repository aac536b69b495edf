"""Runs the peers and writes goldens.npz.

Run      python -m tests.parity.make_goldens          needs NumPy, PyTorch and PACKAGES, neither JAX nor this package
Writes   tests/parity/goldens.npz: for each case the parameters [50, 9] after every step, float64; the noise; versions
"""

import importlib
import importlib.metadata
import inspect
import json
import pathlib

import numpy as np

from . import authors, problem
from .cases import CASES, Case

FILE = pathlib.Path(__file__).with_name("goldens.npz")


def run_torch(case: Case) -> np.ndarray:
    """The trajectory [STEPS, 9] of a class of torch.optim or of a package, in its plain single-tensor form."""
    import torch  # here, so that the authors' rules can be run without it

    module, _, name = case.rule.rpartition(":")
    rule = getattr(importlib.import_module(module or "torch.optim"), name)
    plain = {"foreach": False} if "foreach" in inspect.signature(rule).parameters else {}

    default, narrow = torch.get_default_dtype(), torch.float32
    torch.set_default_dtype(torch.float64)  # NAdam keeps its product of momenta in the default dtype
    torch.float32 = torch.float64 if name == "SOAP" else narrow  # to which it casts for its QR
    try:
        params = {name: torch.tensor(start, requires_grad=True) for name, start in problem.START.items()}
        optimizer = rule(_groups(name, params), **plain, **case.arguments)
        if hasattr(optimizer, "train"):  # of schedulefree
            optimizer.train()
        trajectory = {name: [] for name in params}
        for t in range(problem.STEPS):
            grads = problem.gradient({k: p.detach().numpy() for k, p in params.items()}, *problem.at_step(t))
            for name, p in params.items():
                p.grad = torch.tensor(grads[name])
            optimizer.step()
            for name, p in params.items():
                trajectory[name].append(p.detach().numpy().copy())
    finally:
        torch.set_default_dtype(default)
        torch.float32 = narrow
    return problem.flat(trajectory)


def _groups(name: str, params: dict) -> list:
    """The parameters as a rule wants them, or with a rate of zero for all but the matrix."""
    if name in ("Shampoo", "ScalableShampoo"):
        given = {"betas": (0.8, 1.0)} if name == "ScalableShampoo" else {}  # which its constructor refuses
        return [{"params": [p], **(given if p.ndim == 2 else {"lr": 0.0})} for p in params.values()]
    if name != "NorMuon":
        return list(params.values())
    # It is told which are matrices, and made to iterate in their dtype.
    module = importlib.import_module("pytorch_optimizer.optimizer.muon.normuon")
    orthogonalize = importlib.import_module("pytorch_optimizer.optimizer.utils.matrix").zero_power_via_newton_schulz_5
    module.zero_power_via_newton_schulz_5 = lambda g, **more: orthogonalize(g, dtype=g.dtype, **more)
    return [{"params": [p], "use_muon": p.ndim == 2} for p in params.values()]


def run_authors(case: Case) -> np.ndarray:
    """The trajectory [STEPS, 9] of a rule of authors.py, leaf by leaf."""
    rules = {name: getattr(authors, case.rule)(start, **case.arguments) for name, start in problem.START.items()}
    params = {name: next(rule) for name, rule in rules.items()}
    trajectory = {name: [] for name in params}
    for t in range(problem.STEPS):
        grads = problem.gradient(params, *problem.at_step(t))
        params = {name: rule.send(grads[name]) for name, rule in rules.items()}
        for name, p in params.items():
            trajectory[name].append(p)
    return problem.flat(trajectory)


RUN = {"torch": run_torch, "authors": run_authors, "packages": run_torch}
PACKAGES = ("schedulefree", "prodigyopt", "dadaptation", "dog-optimizer", "pytorch_optimizer")


def main() -> None:
    import torch

    goldens = {case.id: RUN[case.peer](case) for case in CASES}
    versions = {"numpy": np.__version__, "torch": torch.__version__.split("+")[0]}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    np.savez_compressed(FILE, noise=problem.flat(problem.NOISE), versions=json.dumps(versions), **goldens)
    print(f"{FILE.name}: {len(goldens)} trajectories, {FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
