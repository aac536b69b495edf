"""Runs the peers and writes goldens.npz.

Run      python -m tests.parity.make_goldens          needs NumPy, PyTorch and PACKAGES, neither JAX nor this package
Writes   tests/parity/goldens.npz: for each case the parameters [50, 9] after every step, float64; the noise; versions;
         the draws [50, 9] of `scale_by_kron` with key 0, which are kept and given to its peer
"""

import contextlib
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
    is_kron, clock = name == "Kron", [0]
    plain |= {"precond_dtype": torch.float64} if is_kron else {}

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
            clock[0] = t
            grads = problem.gradient({k: p.detach().numpy() for k, p in params.items()}, *problem.at_step(t))
            for name, p in params.items():
                p.grad = torch.tensor(grads[name])
            with _kron(torch, clock) if is_kron else contextlib.nullcontext():
                optimizer.step()
            for name, p in params.items():
                trajectory[name].append(p.detach().numpy().copy())
    finally:
        torch.set_default_dtype(default)
        torch.float32 = narrow
    return problem.flat(trajectory)


@contextlib.contextmanager
def _kron(torch, clock: list):
    """Make kron_torch draw what we draw and solve in float64, and keep the noise for Q out of the update itself."""
    kron = importlib.import_module("kron_torch.kron")
    torch._dynamo.config.disable = True
    draws = dict(zip(sorted(problem.START), np.split(np.load(FILE)["draws"][clock[0]], [2, 3]), strict=True))
    shaped = {start.shape: draws[name].reshape(start.shape) for name, start in problem.START.items()}
    theirs = torch.randn_like, torch.Tensor.float, kron._calc_A_and_conjB
    torch.randn_like = lambda g: torch.tensor(shaped[tuple(g.shape)])
    torch.Tensor.float = torch.Tensor.double
    kron._calc_A_and_conjB = lambda expression, g, q: theirs[2](expression, g.clone(), q)
    try:
        yield
    finally:
        torch.randn_like, torch.Tensor.float, kron._calc_A_and_conjB = theirs


def _groups(name: str, params: dict) -> list:
    """The parameters as a rule wants them, or with a rate of zero for all but the matrix."""
    if name in ("Shampoo", "ScalableShampoo"):
        given = {"betas": (0.8, 1.0)} if name == "ScalableShampoo" else {}  # which its constructor refuses
        return [{"params": [p], **(given if p.ndim == 2 else {"lr": 0.0})} for p in params.values()]
    if name == "Kron":
        return [p for p in params.values() if p.ndim]  # it fails for scalars
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
PACKAGES = ("schedulefree", "prodigyopt", "dadaptation", "dog-optimizer", "pytorch_optimizer", "kron_torch")


def main() -> None:
    import torch

    goldens = {case.id: RUN[case.peer](case) for case in CASES}
    versions = {"numpy": np.__version__, "torch": torch.__version__.split("+")[0]}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    own = {"noise": problem.flat(problem.NOISE), "draws": np.load(FILE)["draws"]}
    np.savez_compressed(FILE, **own, versions=json.dumps(versions), **goldens)
    print(f"{FILE.name}: {len(goldens)} trajectories, {FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
