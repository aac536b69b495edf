"""A sweep that is killed at random moments and resumed comes to the same, bit for bit, under every policy."""

import contextlib
import functools
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
KILLS = 10


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "TEST_CACHE": str(tmp_path_factory.mktemp("cache"))}
    command = [sys.executable, "-m", "tests.sweeps.killed"]
    with subprocess.Popen(command, cwd=root, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as made:
        yield made
        made.stdin.close()


def run(nursery, directory, policy, moment=None):
    """Run a child, kill it at a moment if it still runs; returns its exit code, -9 when it was killed."""
    print(directory, policy, file=nursery.stdin, flush=True)
    child = int(nursery.stdout.readline())
    if moment is not None:
        moment(child)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return int(nursery.stdout.readline())


def saves(directory):
    events = directory / "events.jsonl"
    return events.read_text().count('"saved"') if events.exists() else 0


def after_a_save(directory, seconds):
    """A moment some seconds after the child's next save, or when it has ended."""

    def moment(child):
        before = saves(directory)
        while saves(directory) == before:
            time.sleep(0.003)
            try:
                os.kill(child, 0)
            except ProcessLookupError:
                return
        time.sleep(seconds)

    return moment


def pause(seconds, child):
    time.sleep(seconds)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_killed_and_resumed(nursery, tmp_path, policy):
    whole, draw, kills, sweeps = tmp_path / "whole", random.Random(policy), 0, 0
    assert run(nursery, whole, policy) == 0
    while kills < KILLS:
        directory = tmp_path / str(sweeps)
        # Soon after a save, so that there is progress; every fourth at any time, often before the first save.
        soon, any_time = draw.uniform(0.0, 0.03), draw.uniform(0.0, 1.0)
        moment = after_a_save(directory, soon) if kills % 4 else functools.partial(pause, any_time)
        code = run(nursery, directory, policy, moment)
        assert code in (-9, 0)
        if code == 0:  # it came to its end, and another one begins
            check_same(directory, whole)
            sweeps += 1
            assert sweeps < KILLS
        else:
            kills += 1
    assert run(nursery, directory, policy) == 0
    check_same(directory, whole)


def check_same(directory, whole):
    with np.load(directory / "result.npz") as one, np.load(whole / "result.npz") as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
