"""Fifty steps in float64 against stored trajectories of PyTorch and of the authors' rules.

cases.py says who is compared with whom, problem.py on what, make_goldens.py how the goldens were made.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo

from . import make_goldens, page, problem
from .cases import CASES
from .descend import descend, distance

BY_ID = {case.id: case for case in CASES}


# Where PyTorch 2.13 arrives in float64 from 0.5 by the gradients 1, 2, 3, 1, 2, 3, ... times 1e-7, 12 of them, beside
# the row of docs/from_torch.md: here an ε is as large as what it is added to. The last number is the tolerance.
TINY = {
    "SGD(1e6)": (jo.sgd(1e6), -1.9, 1e-12),
    "Adam(0.1)": (jo.adam(0.1), -0.5751938430322214, 1e-12),
    "AdamW(0.1)": (jo.adamw(0.1, weight_decay=1e-2), -0.575257969156291, 1e-12),
    "Adam(0.1, amsgrad=True)": (jo.amsgrad(0.1, form="torch"), -0.5751938430322214, 1e-12),
    "NAdam(0.1, momentum_decay=1e6)": (jo.nadam(0.1), -0.6834226043229146, 1e-12),
    "Adamax(0.1)": (jo.adamax(0.1), -0.29110805781265947, 1e-12),
    "RMSprop(0.1)": (jo.rmsprop(0.1, decay=0.99, eps_in_sqrt=False), -3.937737365238661, 1e-12),
    "RMSprop(0.1, alpha=0.9, momentum=0.5, centered=True)": (
        jo.rmsprop(0.1, decay=0.9, eps_in_sqrt=False, momentum=0.5, centered=True),
        -3.643340298985278,
        1e-12,
    ),
    "Adagrad(0.1, initial_accumulator_value=0.1, eps=0)": (jo.adagrad(0.1, eps=0.0), 0.4999992410533616, 1e-9),
    "Adagrad(0.1)": (jo.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-20), -0.0819891185228689, 1e-3),
    "Adadelta(1.0)": (jo.adadelta(1.0), 0.4999976000000051, 1e-9),
    "Rprop(0.1)": (jo.rprop(0.1), -3.458050224127999, 1e-12),
    "ASGD(0.1, lambd=0.05, weight_decay=0.1)": (
        jo.chain(jo.add_decayed_weights(0.05 + 0.1), jo.sgd(lambda t: 0.1 / (1 + 0.05 * 0.1 * t) ** 0.75)),
        0.4185894289829337,
        1e-12,
    ),
    "Adafactor(0.01)": (
        jo.adafactor(jo.relative_step_schedule(0.01), 0, eps=None, form="torch"),
        0.45038980625581054,
        1e-12,
    ),
    "RAdam(0.1, eps=1e-30)": (jo.radam(0.1, eps=1e-30), 0.47169546997280154, 1e-9),
}


def descend_tiny(optimizer):
    def step(carry, g):
        updates, state = optimizer.update(g, carry[1], carry[0])
        return (carry[0] + updates, state), updates

    start = jnp.array([0.5])
    grads = 1e-7 * jnp.array([1.0, 2.0, 3.0] * 4)[:, None]
    (w, _), updates = jax.lax.scan(step, (start, optimizer.init(start)), grads)
    return float(w[0]), updates[:, 0]


def test_gradients_of_1e_minus_7(x64):
    for name, (optimizer, expected, tolerance) in TINY.items():
        np.testing.assert_allclose(descend_tiny(optimizer)[0] - 0.5, expected - 0.5, tolerance, err_msg=name)


def test_the_epsilon_of_radam_is_larger_in_pytorch_at_first(x64):
    """It is added to √v before the correction: ε / √(1 - β₂ᵗ) here. The sixth step is the first that is rectified."""
    _, ours = descend_tiny(jo.radam(0.1))
    theirs = [descend_tiny(jo.radam(0.1, eps=1e-8 / (1 - 0.999**t) ** 0.5))[1][t - 1] for t in range(1, 13)]
    np.testing.assert_allclose(sum(theirs), 0.48108396014322075 - 0.5, 1e-9)
    assert all(theirs[i] == ours[i] for i in range(5)) and 1.5 < ours[5] / theirs[5] < 2


@pytest.fixture(scope="module")
def goldens():
    with np.load(make_goldens.FILE) as file:
        return dict(file)


@pytest.mark.parametrize("name", BY_ID)
def test_same_trajectory(name, goldens, x64):
    (ours,) = descend(jo.parse(BY_ID[name].ours))
    assert distance(ours, goldens[name]) <= 1e-12


def test_every_case_has_its_golden(goldens):
    assert len(BY_ID) == len(CASES)
    assert set(goldens) == {*BY_ID, "noise", "draws", "versions"}
    np.testing.assert_array_equal(goldens["noise"], problem.flat(problem.NOISE))


@pytest.mark.parametrize("peer", make_goldens.RUN)
def test_goldens_are_what_the_script_writes(peer, goldens):
    """A case edited without a new golden, or a golden without its script, shows here."""
    if peer == "packages":
        for module in ("schedulefree", "prodigyopt", "dadaptation", "dog", "pytorch_optimizer", "kron_torch"):
            pytest.importorskip(module)
    if peer == "torch":
        torch = pytest.importorskip("torch")
        made_by = json.loads(str(goldens["versions"]))["torch"]
        if torch.__version__.split("+")[0] != made_by:
            pytest.skip(f"made by PyTorch {made_by}")
    cases = [case for case in CASES if case.peer == peer]
    apart = {case.id: distance(make_goldens.RUN[peer](case), goldens[case.id]) for case in cases}
    assert not {name: d for name, d in apart.items() if not d <= 1e-13}  # nor NaN


def test_the_page_has_every_case():
    """docs/parity.md is written by `python -m tests.parity.page`."""
    text = page.PAGE.read_text(encoding="utf-8")
    missing = [case.id for case in CASES if f"| `{case.ours}` | {page.peer_of(case)} |" not in text]
    assert not missing, "run python -m tests.parity.page"
