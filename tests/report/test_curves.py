"""Every history can be drawn."""

import struct
import sys

import numpy as np
import pytest

from jaxopt_lite.report.curves import plot_history

pytest.importorskip("matplotlib")


def column(*shape):
    return np.random.default_rng(0).uniform(0.1, 10, shape).astype(np.float32)


def history(*runs, points=5, **others):
    names = ["train.loss", "valid.loss", "valid.accuracy", "learning_rate", "grad_norm", "update_norm"]
    return {"step": np.arange(1, points + 1) * 10, **{name: column(*runs, points) for name in names}, **others}


UNFINISHED = np.where(np.tri(5, dtype=bool), column(5, 5), np.nan)
HISTORIES = {
    "one run": history(),
    "five runs": history(5),
    "one point": history(points=1),
    "runs that ended apart": history(5, **{"train.loss": UNFINISHED}),
    "nothing finite": history(**{"train.loss": np.full(5, np.nan), "valid.loss": np.full(5, np.inf)}),
    "zeros and negative values": history(**{"train.loss": np.linspace(-1, 1, 5), "grad_norm": np.zeros(5)}),
    "many metrics": history(**{f"train.metric_{i}": column(5) for i in range(7)}),
    "two learning rates": history(**{"adam.learning_rate": column(5), "sgd.learning_rate": column(5)}),
    "names like formulas": history(
        **{r"train.$\err$": column(5), "valid.a_$b": column(5), "$\\x$.learning_rate": column(5)}
    ),
    "losses alone": {"step": np.array([1, 2]), "train.loss": column(2)},
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_is_drawn(name, tmp_path):
    path = plot_history(HISTORIES[name], tmp_path / "curves.png", title=f"{name}: costs $5_000 " + "or more, " * 60)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert width <= 2800 and height <= 1600


def test_without_matplotlib_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxopt-lite\[plots\]'"):
        plot_history(history(), tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())
