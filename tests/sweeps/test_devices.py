"""The same bits on one device and on four, with the number of CPU threads held."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_one_and_four_devices():
    root = Path(__file__).parents[2]
    printed = []
    for devices in (1, 4):
        # NPROC sets the number of threads, which is otherwise at least the number of devices.
        flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "NPROC": "4", "PYTHONPATH": str(root)}
        command = [sys.executable, "-m", "tests.sweeps.on_devices", str(devices)]
        done = subprocess.run(
            command, cwd=root, env={**os.environ, **flags}, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-3000:]
        printed.append(done.stdout.split())
    assert [int(count) for count, _ in printed] == [1, 4]
    assert printed[0][1] == printed[1][1]
