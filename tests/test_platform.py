"""Systems that differ from Linux: which CPUs a process may use is not known everywhere."""

import os

import pytest

from jaxopt_lite.run import sweep_folder


def test_the_cpus_of_a_process_are_those_that_it_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert sweep_folder._cpus() == 3


@pytest.mark.parametrize(("count", "expected"), [(8, 8), (None, 1)])
def test_without_sched_getaffinity_all_cpus_count_and_at_least_one(monkeypatch, count, expected):
    """As on macOS and Windows; `os.cpu_count` returns None where it cannot tell."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert sweep_folder._cpus() == expected
