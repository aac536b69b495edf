"""`fit` drives the loop: files, signals, callbacks."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo
from jaxopt_lite.log.records import JsonLines, hold
from tests.train.tasks import LINEAR, RAMP, assert_same

FILES = {"metrics.jsonl", "summary.json", "curves.png", "checkpoints"}
OPTIMIZER = jo.chain(jo.clip_by_global_norm(10.0), jo.sgd(jo.linear_schedule(1.0, 0.5, 8)))

# Some runs break down at their second step, the others continue.
BREAKING = jo.Task(
    lambda key: {"w": -1.0 * jax.random.bernoulli(key)},
    lambda params, batch, key: jnp.where(params["w"] < -1.5, jnp.nan, params["w"]),
)


def read(folder):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    rows = (folder / "metrics.jsonl").read_text().splitlines()
    summary = (folder / "summary.json").read_text()
    return [json.loads(row, parse_constant=refuse) for row in rows], json.loads(summary, parse_constant=refuse)


def written(folder):
    return {path.name for path in folder.iterdir()}


def test_a_directory_holds_the_run(tmp_path):
    folder = tmp_path / "deep" / "run"
    result = jo.fit(RAMP, OPTIMIZER, 6, eval_every=4, directory=folder, target=100.0, seed=3)
    rows, summary = read(folder)
    assert written(folder) == FILES
    assert [row.pop("step") for row in rows] == [4, 6]
    for i, row in enumerate(rows):
        assert row == {name: column[i] for name, column in result.history.items() if name != "step"}
    assert jo.parse(summary["optimizer"]) == OPTIMIZER
    assert summary["metrics"] == result.metrics
    facts = {"status": "max_steps", "message": result.message, "steps_done": 6, "seed": 3, "seeds": None}
    given = {"steps": 6, "batch_size": 128, "eval_every": 4, "target": 100.0, "patience": None}
    assert summary.items() >= {**facts, **given}.items()
    assert summary["seconds"] > 0 and summary["versions"]["jax"] == jax.__version__


def test_what_is_not_finite_is_null(tmp_path):
    result = jo.fit(BREAKING, jo.sgd(1.0), 2, eval_every=1, directory=tmp_path, seeds=4)
    rows, summary = read(tmp_path)
    assert set(result.status) == {"non_finite", "max_steps"} and summary["status"] == result.status
    second = [None if status == "non_finite" else -1 for status in result.status]
    assert rows[1]["train.loss"] == summary["metrics"]["train.loss"] == second
    assert summary["steps_done"] == [2] * 4


def test_a_directory_with_a_run_is_refused_before_any_work(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("kept")
    with pytest.raises(FileExistsError, match=r"holds a run already \(metrics.jsonl\), .* overwrite=True"):
        jo.fit(RAMP, jo.sgd(1.0), 2, directory=tmp_path, callbacks=[pytest.fail])
    assert (tmp_path / "metrics.jsonl").read_text() == "kept" and written(tmp_path) == {"metrics.jsonl"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_sweep_is_not_replaced_by_a_run(tmp_path, overwrite):
    (tmp_path / "sweep.json").write_text("kept")
    with pytest.raises(FileExistsError, match=rf"{tmp_path} holds a sweep \(sweep.json\), .* give another directory"):
        jo.fit(RAMP, jo.sgd(1.0), 2, directory=tmp_path, overwrite=overwrite)
    assert written(tmp_path) == {"sweep.json"}


def test_a_run_is_overwritten_and_nothing_else(tmp_path):
    for name in ("summary.json", "notes.txt"):
        (tmp_path / name).write_text("old")
    seen = []
    look = lambda point: seen.append((written(tmp_path), json.loads((tmp_path / "summary.json").read_text())["status"]))
    jo.fit(RAMP, jo.sgd(1.0), 2, directory=str(tmp_path), overwrite=True, callbacks=[look])
    assert seen == [({".lock", "metrics.jsonl", "summary.json", "notes.txt"}, "running")], "no old summary or picture"
    assert written(tmp_path) == FILES | {"notes.txt"} and (tmp_path / "notes.txt").read_text() == "old"


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_runs_do_not_write_to_one_directory(tmp_path, overwrite):
    """The second is refused while the first one runs, with its files left as they are; later it may replace them."""
    second = lambda: jo.fit(RAMP, jo.sgd(2.0), 2, directory=tmp_path, overwrite=overwrite)

    def begin_another(point):
        with pytest.raises(FileExistsError, match=r"another call in this one, runs in|holds a run already"):
            second()

    result = jo.fit(RAMP, jo.sgd(1.0), 4, eval_every=2, directory=tmp_path, callbacks=[begin_another])
    rows, summary = read(tmp_path)
    assert [row["train.loss"] for row in rows] == result.history["train.loss"].tolist()
    assert jo.parse(summary["optimizer"]) == jo.sgd(1.0)
    if overwrite:
        second()
        assert jo.parse(read(tmp_path)[1]["optimizer"]) == jo.sgd(2.0)


def test_of_two_runs_that_begin_together_the_later_is_refused(tmp_path):
    """Both found the directory empty; the other one writes first."""

    def init(key):
        if not (tmp_path / "run").exists():
            (tmp_path / "run").mkdir()
            begun.append((tmp_path / "run" / ".lock").open("a"))
            assert hold(begun[0])
        return RAMP.init(key)

    begun = []
    with pytest.raises(FileExistsError, match="another process, or another call in this one, runs in"):
        jo.fit(jo.Task(init, RAMP.loss), jo.sgd(1.0), 2, directory=tmp_path / "run")
    begun[0].close()


@pytest.mark.parametrize(
    "given",
    [{"steps": 0}, {"metric": "valid.hits"}, {"params": {"w": "x"}}, {"optimizer": jo.sgd}, {"progress": "loud"}],
)
def test_bad_arguments_write_nothing(given, tmp_path):
    given = {"task": RAMP, "optimizer": jo.sgd(1.0), "steps": 2, **given}
    with pytest.raises((TypeError, ValueError)):
        jo.fit(**given, directory=tmp_path / "run")
    assert not written(tmp_path)


def test_a_directory_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(FileExistsError, match=r"directory .* cannot be made, .*file is a file"):
            jo.fit(RAMP, jo.sgd(1.0), 2, directory=path)


def test_a_run_that_goes_on_is_written_with_the_optimizer_of_its_state(tmp_path):
    state = jo.fit(RAMP, jo.sgd(1.0), 2).state
    jo.fit(RAMP, None, 2, directory=tmp_path, state=state)
    rows, summary = read(tmp_path)
    assert rows[-1]["step"] == 4 and summary["steps_done"] == 4
    assert jo.parse(summary["optimizer"]) == state.optimizer


def test_an_optimizer_of_optax_can_be_written_about(tmp_path):
    jo.fit(RAMP, optax.sgd(1.0), 2, directory=tmp_path)
    assert written(tmp_path) == FILES


def test_callbacks_see_every_point_and_its_state():
    points = []
    see = lambda point: points.append((point.step, float(point.metrics["train.loss"]), float(point.state.params["w"])))
    jo.fit(RAMP, jo.sgd(1.0), 5, eval_every=2, callbacks=[see])
    assert points == [(2, -0.5, -2), (4, -2.5, -4), (5, -4, -5)]


def test_callbacks_change_nothing():
    watched = jo.fit(LINEAR, jo.adam(0.1), 10, 4, eval_every=5, callbacks=[lambda point: None])
    assert_same(watched.state, jo.fit(LINEAR, jo.adam(0.1), 10, 4, eval_every=5).state)


@pytest.mark.parametrize("answer", [True, np.True_, jnp.array(True), np.array([True, True])], ids=repr)
def test_a_callback_that_says_true_stops_the_run(answer):
    others = []
    stops = [lambda point: answer if point.step == 2 else False, others.append]
    result = jo.fit(RAMP, jo.sgd(1.0), 5, eval_every=1, callbacks=stops)
    assert (result.status, result.steps) == ("interrupted", 2)
    assert result.history["step"].tolist() == [1, 2] and len(others) == 2


@pytest.mark.parametrize("answer", [None, 1, "stop", np.array([True, False])], ids=repr)
def test_any_other_answer_does_not(answer):
    assert jo.fit(RAMP, jo.sgd(1.0), 2, eval_every=1, callbacks=[lambda point: answer]).status == "max_steps"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_cleanly(number, tmp_path):
    before = signal.getsignal(number)
    send = lambda point: signal.raise_signal(number) if point.step == 2 else None
    result = jo.fit(RAMP, jo.sgd(1.0), 9, eval_every=1, callbacks=[send], directory=tmp_path)
    assert (result.status, result.steps) == ("interrupted", 2) and "interrupted" in result.message
    assert written(tmp_path) == FILES and len(read(tmp_path)[0]) == 2
    assert signal.getsignal(number) is before


def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been():
    send = lambda point: signal.raise_signal(signal.SIGINT) if point.step == 4 else None
    half = jo.fit(LINEAR, jo.adam(0.1), 10, 4, eval_every=2, callbacks=[send])
    assert half.steps == 4
    rest = jo.fit(LINEAR, None, 6, 4, eval_every=2, state=half.state)
    assert_same(rest.state, jo.fit(LINEAR, jo.adam(0.1), 10, 4, eval_every=2).state)


def test_a_second_signal_ends_the_run_at_once(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    twice = lambda point: [signal.raise_signal(signal.SIGINT) for _ in range(point.step)]
    with pytest.raises(KeyboardInterrupt):
        jo.fit(RAMP, jo.sgd(1.0), 9, eval_every=2, callbacks=[twice], directory=tmp_path)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_a_callback_that_fails_loses_nothing_that_was_measured(tmp_path):
    def fail(point):
        if point.step == 3:
            raise RuntimeError("the callback's own")

    with pytest.raises(RuntimeError, match="the callback's own"):
        jo.fit(RAMP, jo.sgd(1.0), 9, eval_every=1, callbacks=[fail], directory=tmp_path)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_run_works_in_any_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(jo.fit(RAMP, jo.sgd(1.0), 4, eval_every=2)))
    thread.start()
    thread.join()
    assert results[0].status == "max_steps"


def test_progress_counts_to_the_end_of_a_resumed_run(capsys):
    state = jo.fit(RAMP, jo.sgd(1.0), 2).state
    assert capsys.readouterr().err == "", "the default shows nothing without a terminal"
    jo.fit(RAMP, None, 3, state=state, progress="lines")
    assert capsys.readouterr().err.startswith("step 5/5  train.loss -3")


def test_progress_none_is_deprecated(capsys):
    with pytest.warns(DeprecationWarning, match="fit: progress=None is deprecated; give 'auto' .*, 'bar' or 'lines'"):
        jo.fit(RAMP, jo.sgd(1.0), 2, progress=None)
    assert "2/2" in capsys.readouterr().err


NAMED = jo.Task(
    RAMP.init,
    lambda params, batch, key: (params["w"], {r"$\err$": params["w"], "a_$": params["w"], "{x}^$_": params["w"]}),
)


def test_metrics_of_any_name_are_drawn(tmp_path):
    result = jo.fit(NAMED, jo.sgd(1.0), 4, eval_every=2, directory=tmp_path)
    assert written(tmp_path) == FILES and r"train.$\err$" in result.metrics


def remove(path):
    shutil.rmtree(path)


def replace_by_a_file(path):
    shutil.rmtree(path)
    path.write_text("")


def block_summary(path):
    (path / "summary.json.new").mkdir()


def block_picture(path):
    (path / "curves.png").mkdir()


@pytest.mark.parametrize("harm", [remove, replace_by_a_file, block_summary, block_picture], ids=lambda f: f.__name__)
@pytest.mark.parametrize("at", [2, 4], ids="at step {}".format)
def test_a_result_is_not_lost_where_its_files_cannot_be_written(tmp_path, harm, at):
    folder = tmp_path / "run"
    act = lambda point: harm(folder) if point.step == at else None
    with pytest.warns(
        UserWarning,
        match="fit: .*/(summary.json|curves.png|metrics.jsonl|checkpoints) could not be written .* not changed by it",
    ):
        result = jo.fit(RAMP, jo.sgd(1.0), 4, eval_every=2, directory=folder, callbacks=[act])
    assert result.params["w"] == -4 and result.status == "max_steps"


def test_a_callback_may_change_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jo.fit(RAMP, jo.sgd(1.0), 4, eval_every=2, directory="run", callbacks=[lambda point: os.chdir("/")])
    assert written(tmp_path / "run") == FILES


def test_a_signal_that_is_ignored_stays_so():
    """As in a background job of a shell, which the Ctrl-C that is meant for others reaches too."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        send = lambda point: signal.raise_signal(signal.SIGINT)
        assert jo.fit(RAMP, jo.sgd(1.0), 4, eval_every=2, callbacks=[send]).status == "max_steps"
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("fails", ["the directory", "the disk"])
def test_a_run_is_not_lost_where_its_points_cannot_be_written(tmp_path, monkeypatch, fails):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    if fails == "the disk" and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    if fails == "the directory":
        monkeypatch.setattr(Path, "mkdir", refuse)
    else:
        full = lambda path, rows: JsonLines(Path("/dev/full"))
        monkeypatch.setattr("jaxopt_lite.run.run_folder.JsonLines", types.SimpleNamespace(of=full))
    with pytest.warns(UserWarning, match="could not be written") as warned:
        result = jo.fit(RAMP, jo.sgd(1.0), 6, eval_every=2, directory=tmp_path / "run")
    assert result.steps == 6 and len(result.history["step"]) == 3
    found = [str(warning.message) for warning in warned if "metrics.jsonl" in str(warning.message)]
    assert len(found) == 1, "one warning, and not one for each point"
    assert ("No space left" if fails == "the disk" else "Permission denied") in found[0]


@pytest.mark.parametrize("handle", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_run_in_the_middle_of_a_point(handle):
    """A point of minutes in one call: neither the run nor the end of the process waits for it."""
    program = f"""
        import os, signal, threading, time, jax.numpy as jnp, jaxopt_lite as jo
        def loss(params, batch, key):
            return jnp.sin(params["w"] @ params["w"]).sum()
        task = jo.Task(lambda key: {{"w": jnp.ones((256, 256))}}, loss)
        jo.fit(task, jo.sgd(0.0), 1)
        def twice():
            for _ in range(2):
                time.sleep(0.5)
                os.kill(os.getpid(), {int(handle)})
        threading.Thread(target=twice, daemon=True).start()
        began = time.perf_counter()
        try:
            jo.fit(task, jo.sgd(0.0), 10**6, eval_every=10**6)
        except KeyboardInterrupt:
            print("interrupted after", time.perf_counter() - began, flush=True)
    """
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=env, timeout=100, capture_output=True, text=True
    )
    assert found.stdout.startswith("interrupted after"), found.stderr
    assert float(found.stdout.split()[-1]) < 30, "the point itself takes minutes"


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"progress": "loud"}, ValueError, "progress must be 'auto', 'bar', 'lines' or 'none', got 'loud'"),
        ({"callbacks": print}, TypeError, "callbacks must be a list of functions"),
        ({"callbacks": [3]}, TypeError, "callbacks must be a list of functions"),
        ({"directory": 3}, TypeError, "directory must be a path, got 3"),
    ],
)
def test_wrong_arguments_are_named(given, error, message):
    with pytest.raises(error, match=f"fit: {message}"):
        jo.fit(RAMP, jo.sgd(1.0), 2, **given)
