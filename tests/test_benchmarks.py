"""The page of benchmarks shows the measured figures, and contenders did the same work."""

import json

import numpy as np
import pytest

from experiments.benchmarks import comparison, page, verdicts


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


def taken(**steps):
    return {name: {"one": np.array(values[:2]), "two": np.array(values[2:])} for name, values in steps.items()}


INF = np.inf


def test_steps_to_a_target():
    curves = np.array([[3.0, 2.0, 1.0], [3.0, np.nan, 0.5], [3.0, 3.0, 3.0], [1.0, 2.0, 2.0]])
    assert verdicts.to_target([10, 20, 30], curves, 2.0).tolist() == [20, 30, INF, 10]
    assert verdicts.at_target(best=1.0, start=3.0, share=0.25) == 1.5


def test_pairs_are_compared_seed_by_seed():
    gaps = verdicts.pairs(taken(a=[10, 20, 40, 40], b=[20, 40, 10, 80]), {"one": 100, "two": 100})
    assert gaps["a", "b"]["one"] == (-1, 0) and gaps["b", "a"]["one"] == (1, 0)
    mean, half = gaps["a", "b"]["two"]  # 2 and -1: mean 0.5, deviation 3 / √2, t(0.975, 1) = 12.706
    assert mean == 0.5 and half == pytest.approx(12.7062 * 1.5, rel=1e-5)


def test_what_is_not_reached_counts_as_the_budget():
    gaps = verdicts.pairs(taken(a=[INF, INF, 50, 50], b=[INF, INF, INF, INF]), {"one": 100, "two": 100})
    assert gaps["a", "b"]["one"] == (0, 0) and gaps["a", "b"]["two"] == (-1, 0)


@pytest.mark.parametrize(
    "gaps, verdict",
    [
        ({"a": (-1, 0.5), "b": (-1, 0.5), "c": (1, 0.5)}, (2, 1, True)),
        ({"a": (-1, 0.5), "b": (-1, 1.5), "c": (1, 0.5)}, (1, 1, False)),  # an interval that includes zero is nothing
        ({"a": (-1, 0.5), "b": (1, 1.5)}, (1, 0, False)),  # a half is not most
    ],
)
def test_a_claim_stands_on_most_workloads_or_not_at_all(gaps, verdict):
    assert verdicts.standing(gaps) == verdict


def test_profiles_by_hand():
    found = verdicts.profile(taken(a=[10, 20, 40, INF], b=[20, 20, 10, INF]), np.array([1.0, 2.0, 4.0]))
    assert found["a"].tolist() == [0.5, 0.5, 0.75] and found["b"].tolist() == [0.5, 0.75, 0.75]
    bands = verdicts.profiles(taken(a=[10, 10, 10, 10], b=[20, 20, 20, 20]), np.array([1.0, 2.0]), draws=20)
    assert bands["a"].tolist() == [[1, 1]] * 3 and bands["b"].tolist() == [[0, 1]] * 3


def test_the_comparison_is_made_from_its_result():
    assert comparison.PAGE.read_text(encoding="utf-8") == comparison.page(comparison.read())
