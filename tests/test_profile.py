"""A trace of some steps of a run: it is there, it can be read, and it changes no number."""

import json
import sys

import jax
import pytest

import jaxopt_lite as jo
from jaxopt_lite.cli import main
from tests.train.tasks import LINEAR, TRAIN, VALID, assert_same, init, loss


def planes_of(folder):
    """The events of each plane of the only trace there is."""
    (path,) = folder.glob("profile/**/*.xplane.pb")
    found = jax.profiler.ProfileData.from_file(str(path))
    return {plane.name: sum(len(list(line.events)) for line in plane.lines) for plane in found.planes}


def test_a_window_of_steps_is_traced_and_changes_nothing(tmp_path):
    settings = {"batch_size": 4, "eval_every": 10}
    batches = lambda: iter([{"x": TRAIN["x"][:4], "y": TRAIN["y"][:4]}] * 40)
    for name, train in {"drawn": TRAIN, "stream": batches}.items():
        task = jo.Task(init, loss, train, VALID)
        whole = jo.fit(task, jo.adam(0.1), 30, **settings)
        folder = tmp_path / name
        traced = jo.fit(task, jo.adam(0.1), 30, **settings, directory=folder, profile=(13, 23), save_seconds=None)
        assert_same((traced.state, traced.params), (whole.state, whole.params))
        assert_same(traced.history, whole.history)
        assert sum(planes_of(folder).values()) > 10
    again = jo.fit(task, jo.adam(0.1), 30, **settings, directory=folder, profile=(25, 99), overwrite=True)
    assert len(list(folder.glob("profile/**/*.xplane.pb"))) == 1, (
        "overwrite removes the old one, and the run's end stops"
    )
    assert_same(again.params, whole.params)


def test_a_pause_is_yielded_where_it_was_asked_for():
    events = list(jo.training(LINEAR, jo.sgd(0.1), jo.Plan(12, 4, 6), pauses=(2, 6, 7, 12)))
    assert [e.step for e in events if isinstance(e, jo.Pause)] == [2, 6, 7]
    assert [e.step for e in events if isinstance(e, jo.Point)] == [6, 12]


def test_a_window_is_checked_and_what_goes_wrong_is_a_warning(tmp_path):
    for wrong in [(5, 5), (-1, 3), (1, 2, 3), 7, (1.0, 2), "a:b"]:
        with pytest.raises(ValueError, match=r"fit: profile must be two ints \(first, last\) with 0 <= first < last"):
            jo.fit(LINEAR, jo.sgd(0.1), 10, 4, profile=wrong, directory=tmp_path / "no")
    with pytest.raises(ValueError, match="profile needs directory="):
        jo.fit(LINEAR, jo.sgd(0.1), 10, 4, profile=(1, 2))
    assert not (tmp_path / "no").exists()
    settings = {"batch_size": 4, "eval_every": 10, "save_seconds": None}
    with pytest.warns(UserWarning, match=r"no trace was written to .*profile \(the run has no step after 10\)"):
        jo.fit(LINEAR, jo.sgd(0.1), 10, **settings, directory=tmp_path / "early", profile=(10, 20))
    jax.profiler.start_trace(tmp_path / "mine")
    try:
        with pytest.warns(UserWarning, match="no trace was written to .*RuntimeError"):
            result = jo.fit(LINEAR, jo.sgd(0.1), 10, **settings, directory=tmp_path / "twice", profile=(2, 4))
    finally:
        jax.profiler.stop_trace()
    assert result.steps == 10


def test_the_shell_takes_a_window(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command adds the folder
    (tmp_path / "own_ramp.py").write_text("from tests.train.tasks import RAMP as task\n")
    command = ["train", "own_ramp", "--optimizer", "sgd(1.0)", "--steps", "6", "--eval-every", "3"]
    try:
        for window, code in [("2:4", 0), ("2-4", 2), ("4:2", 2)]:
            with pytest.raises(SystemExit) as end:
                main([*command, "--directory", "run", "--overwrite", "--profile", window])
            assert end.value.code == code, capsys.readouterr()
    finally:
        sys.modules.pop("own_ramp", None)
    assert "profile must be two ints" in (said := capsys.readouterr().err) or "FIRST:LAST" in said
    assert list((tmp_path / "run").glob("profile/**/*.xplane.pb"))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "max_steps"
