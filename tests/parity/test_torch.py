"""Fifty steps in float64 against stored trajectories of PyTorch and of the authors' rules.

cases.py says who is compared with whom, problem.py on what, make_goldens.py how the goldens were made.
"""

import json

import numpy as np
import pytest

import jaxopt_lite as jo

from . import make_goldens, problem
from .cases import CASES
from .descend import descend, distance

BY_ID = {case.id: case for case in CASES}


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
    assert set(goldens) == {*BY_ID, "noise", "versions"}
    np.testing.assert_array_equal(goldens["noise"], problem.flat(problem.NOISE))


@pytest.mark.parametrize("name", BY_ID)
def test_goldens_are_what_the_script_writes(name, goldens):
    """A case edited without a new golden, or a golden without its script, shows here."""
    case = BY_ID[name]
    if case.peer == "torch":
        torch = pytest.importorskip("torch")
        made_by = json.loads(str(goldens["versions"]))["torch"]
        if torch.__version__.split("+")[0] != made_by:
            pytest.skip(f"made by PyTorch {made_by}")
    assert distance(make_goldens.RUN[case.peer](case), goldens[name]) <= 1e-13
