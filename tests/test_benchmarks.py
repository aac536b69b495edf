"""The page of benchmarks says what was measured, and contenders did the same work."""

import json

import pytest

from experiments.benchmarks import page


def test_page_is_made_from_the_results():
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run python -m experiments.benchmarks.page"


def test_results_are_whole():
    """Every row has a ratio, and every contender of a case ran on the same machine as its peer."""
    for name in page.SECTIONS:
        for path in page.RESULTS.glob(f"{name}-*.json"):
            rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
            assert rows and all(row["ratio"] > 0 for row in rows), path


@pytest.mark.slow
def test_contenders_of_sweeps_measure_the_same():
    pytest.importorskip("sklearn")
    from experiments.benchmarks import sweeps

    sweeps.check(sweeps.Setting(hidden=4, batch_size=16))
