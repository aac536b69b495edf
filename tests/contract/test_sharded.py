"""Parameters that are laid out over devices: their moments lie where they lie."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_leaf_of_a_parameters_shape_has_its_sharding():
    """After `init` and after steps, on automatic and on explicit meshes, for every row of the table."""
    root = Path(__file__).parents[2]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": str(root)}
    flags["NPROC"] = "8"  # threads: where all of two wait for one another in a collective, none is left to arrive
    command = [sys.executable, "-m", "tests.contract.on_two_devices"]
    done = subprocess.run(command, cwd=root, env={**os.environ, **flags}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stdout, "these leaves have lost their parameter's sharding:\n" + done.stdout
