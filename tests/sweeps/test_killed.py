"""A sweep that is killed at random moments and resumed comes to the same, bit for bit, under every policy."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

POLICIES = [
    "run_all()",
    "median_stopping(min_trials=2)",
    "successive_halving(2)",
    "successive_halving(2, brackets=2)",
    "successive_halving(2, asynchronous=True, concurrency=3)",
    "population_based(interval=4)",
]
KILLS = 20


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "TEST_CACHE": str(tmp_path_factory.mktemp("cache"))}
    command = [sys.executable, "-m", "tests.sweeps.killed"]
    with subprocess.Popen(command, cwd=root, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as made:
        yield made
        made.stdin.close()


def run(nursery, directory, policy, seconds=None):
    """Run a child, kill it after some seconds if it still runs; returns its exit code, -9 when it was killed."""
    print(directory, policy, file=nursery.stdin, flush=True)
    child = int(nursery.stdout.readline())
    if seconds is not None:
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return int(nursery.stdout.readline())


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_killed_and_resumed(nursery, tmp_path, policy):
    assert run(nursery, tmp_path / "whole", policy) == 0
    began = time.perf_counter()  # by now the programs are compiled
    assert run(nursery, tmp_path / "again", policy) == 0
    whole = time.perf_counter() - began
    draw, codes = random.Random(policy), []
    for _ in range(KILLS):
        codes.append(run(nursery, tmp_path / "killed", policy, draw.uniform(0.2, 0.9) * whole))
        assert codes[-1] in (-9, 0), codes
    saves = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").glob("*"))
    assert saves, "every child was killed before its first save"
    assert run(nursery, tmp_path / "killed", policy) == 0
    with np.load(tmp_path / "whole/result.npz") as one, np.load(tmp_path / "killed/result.npz") as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
