"""A run of `fit` in a directory: killed, damaged, changed, listed, resumed."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

pytest.importorskip("orbax.checkpoint")

import jaxopt_lite as jo
from jaxopt_lite.checkpoint import folder
from jaxopt_lite.checkpoint.store import Store
from jaxopt_lite.run import run_folder
from jaxopt_lite.run.folder import LOCK, is_running
from tests import killed_runs
from tests.train.tasks import RAMP, TRAIN, VALID, assert_same, init, loss

ROOT = Path(__file__).parents[1]
TASK = jo.Task(init, loss, TRAIN, VALID, VALID)
PLAN = {"steps": 40, "batch_size": 4, "eval_every": 2, "patience": 15, "restore_best": True, "save_steps": 4}


def train(directory=None, task=TASK, optimizer=None, until=None, **changes):
    """The run of these tests; `until` ends it early, as a signal does."""
    stop = [lambda point: point.step >= until] if until else []
    optimizer = optimizer or jo.adam(jo.cosine_decay_schedule(0.3, 40))
    return jo.fit(task, optimizer, **{**PLAN, **changes}, metric="valid.loss", directory=directory, callbacks=stop)


@pytest.fixture(scope="module")
def whole():
    return train()


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """The directory of a run that was interrupted after 20 steps."""
    directory = tmp_path_factory.mktemp("half") / "run"
    assert train(directory, until=20).status == "interrupted"
    return directory


def assert_runs_equal(a, b):
    assert_same((a.params, a.state, a.history), (b.params, b.state, b.history))
    assert (a.status, a.message, a.metrics, a.steps) == (b.status, b.message, b.metrics, b.steps)


def contents(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


# Resuming ------------------------------------------------------------------------------------------------------------


def test_the_same_call_resumes_and_then_returns_what_it_found(half, whole, tmp_path):
    copy = shutil.copytree(half, tmp_path / "run")
    seen = []
    resumed = jo.fit(
        TASK, jo.adam(jo.cosine_decay_schedule(0.3, 40)), **PLAN, metric="valid.loss", directory=copy,
        callbacks=[lambda point: seen.append(point.step)],
    )  # fmt: skip
    assert_runs_equal(resumed, whole)
    assert seen[0] == 22, "nothing is trained twice"
    rows = [json.loads(row) for row in (copy / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == whole.history["step"].tolist()
    assert [row["valid.loss"] for row in rows] == whole.history["valid.loss"].tolist()
    before = contents(copy / "checkpoints")
    assert_runs_equal(train(copy), whole)
    assert contents(copy / "checkpoints") == before


def test_more_steps_extend_a_run(half, whole, tmp_path):
    copy = shutil.copytree(half, tmp_path / "run")
    train(copy, patience=15)
    longer = train(copy, steps=50)
    assert longer.status == "max_steps" and longer.steps == 50
    assert_same(longer.state, train(steps=50).state)


def test_another_run_is_refused_with_what_differs(half, tmp_path):
    copy = shutil.copytree(half, tmp_path / "run")
    before = contents(copy)
    other = {"x": TRAIN["x"] + 1, "y": TRAIN["y"]}
    ones = lambda key: {"w": jnp.ones(4), "b": jnp.zeros(())}

    def doubled(params, batch, key):
        return 2 * loss(params, batch, key)

    for changes, message in (
        ({"optimizer": jo.adam(0.1)}, r"optimizer: 'adam\(cosine.* then, 'adam\(0.1,.* now"),
        ({"batch_size": 2}, "batch_size: 4 then, 2 now"),
        ({"patience": 4}, "patience: 15 then, 4 now"),
        ({"steps": 30}, "steps: 40 then, 30 now"),
        ({"seed": 1}, "seed: 0 then, 1 now"),
        ({"seeds": 2}, "seeds: None then, 2 now"),
        ({"params": ones(None)}, "begins_with: None then, '.*' now"),
        ({"task": jo.Task(init, loss, other, VALID, VALID)}, "the train data have changed"),
        ({"task": jo.Task(init, loss, TRAIN, VALID)}, "the test data have changed"),
        ({"task": jo.Task(init, doubled, TRAIN, VALID, VALID)}, "loss: "),
        ({"task": jo.Task(ones, loss, TRAIN, VALID, VALID)}, "init: "),
    ):
        with pytest.raises(ValueError, match=rf"holds another run; .*overwrite=True. What differs:\n  {message}"):
            train(copy, **changes)
    assert contents(copy) == before, "nothing was written"
    replaced = train(copy, seed=1, overwrite=True, until=4)
    assert replaced.steps == 4 and [c.step for c in jo.checkpoints(copy)] == [4]


def test_parameters_of_another_shape_are_refused_by_path(half, tmp_path):
    """The text of `init` is the same; what it closes over is not seen where a C function hides it."""
    copy = shutil.copytree(half, tmp_path / "run")
    about = json.loads((copy / "summary.json").read_text())
    about["contents"]["init"] = {}
    (copy / "summary.json").write_text(json.dumps(about))
    wide = jo.Task(lambda key: {"w": jnp.zeros(4), "b": jnp.zeros(()), "c": jnp.zeros(2)}, loss, TRAIN, VALID, VALID)
    with pytest.raises(
        ValueError, match=r"(?s)another structure:.*\.run\.state\.params\['c'\]: not in the file.*another"
    ):
        train(copy, task=wide)


def test_a_run_resumes_from_a_given_state_only_in_its_own_directory(whole, tmp_path):
    state = jo.fit(TASK, jo.adam(0.1), 4, 4).state
    on = lambda state, **more: jo.fit(TASK, None, 8, 4, eval_every=2, state=state, save_steps=2, **more)
    stop = [lambda point: point.step >= 8]
    on(state, directory=tmp_path, callbacks=stop)
    assert_same(on(state, directory=tmp_path).state, on(state).state)
    begun = lambda steps: train(tmp_path / "params", steps=steps, params=state.params, patience=None).steps
    assert (begun(2), begun(4)) == (2, 4), "those of the checkpoint take the place of those that were given"
    with pytest.raises(ValueError, match="begins_with"):
        on(whole.state, directory=tmp_path)


def test_saves_are_counted_from_the_first_step(tmp_path):
    run = lambda steps: jo.fit(
        RAMP, jo.sgd(1.0), steps, eval_every=1, directory=tmp_path, save_seconds=None, save_steps=2, keep=9,
        callbacks=[lambda point: None],
    )  # fmt: skip
    for steps, saved in ((5, [2, 4, 5]), (8, [2, 4, 5, 7, 8])):
        run(steps)
        assert [c.step for c in jo.checkpoints(tmp_path)] == saved


NOTES = []


def noted(params, batch, key):
    NOTES.append("a trace")
    return params["w"]


def test_a_run_with_an_optimizer_of_optax_and_a_loss_that_takes_notes_resumes(tmp_path):
    task = lambda: jo.Task(RAMP.init, noted)
    run = lambda rate, steps: jo.fit(task(), optax.adam(rate), steps, eval_every=2, directory=tmp_path)
    run(0.1, 2)
    about = json.loads((tmp_path / "summary.json").read_text())
    assert " at 0x" not in about["optimizer"], "an address differs in another process"
    assert run(0.1, 4).steps == 4
    with pytest.raises(ValueError, match=r"What differs:\n  optimizer: what it holds has changed$"):
        run(0.2, 4)


def test_another_machine_is_told_and_no_obstacle(half, whole, tmp_path):
    copy = shutil.copytree(half, tmp_path / "run")
    about = json.loads((copy / "summary.json").read_text())
    about["versions"]["jax"] = "0.9"
    about["contents"]["python"] = "cpython-399"
    (copy / "summary.json").write_text(json.dumps(about))
    with pytest.warns(UserWarning, match="fit: ") as warned:
        assert_runs_equal(train(copy), whole)
    told = " ".join(str(w.message) for w in warned)
    assert "began with jax 0.9 and resumes with" in told and "another Python, so whether the task's code" in told


def test_what_cannot_be_resumed_is_refused(tmp_path, half):
    run = lambda **more: jo.fit(RAMP, jo.sgd(1.0), 2, directory=tmp_path, **more)
    run(save_seconds=None)
    assert not (tmp_path / "checkpoints").exists()
    with pytest.raises(FileExistsError, match=r"holds a run already .* keeps no checkpoints; give"):
        run(save_seconds=None)
    before = contents(tmp_path)
    with pytest.raises(
        FileExistsError, match=r"run that has ended \(max_steps\), and no checkpoints of it; .*overwrite"
    ):
        run()
    assert contents(tmp_path) == before
    (tmp_path / "summary.json").write_text('{"optimizer": "sgd(1.0)", "status": "max_steps"}')
    with pytest.raises(FileExistsError, match=r"of an earlier version, which cannot be resumed; .* overwrite=True"):
        run()
    rest = '"data": {}, "contents": {}, "versions": {}}'
    for damage in ("", "[]", '{"arguments": 1, ' + rest, '{"arguments": {"steps": "2"}, ' + rest):
        (tmp_path / "summary.json").write_text(damage)
        with pytest.raises(ValueError, match=r"summary.json is damaged: .*; copy it back .*overwrite=True"):
            run()
    assert run(overwrite=True).status == "max_steps"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["drawn"])
def test_a_run_killed_at_random_moments_is_the_run(tmp_path, kind):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.killed_runs", str(tmp_path), kind, "4", "0"]
    said = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, timeout=300)
    assert said.stdout.split() == ["killed"] * 4 + ["ended"], said.stderr
    expected = killed_runs.answer(killed_runs.fit(kind))
    for found, whole in zip(pickle.loads((tmp_path / "result.pickle").read_bytes()), expected, strict=True):
        assert_same(found, whole) if isinstance(whole, (dict, tuple)) else None
        assert isinstance(whole, (dict, tuple)) or found == whole


# Damage --------------------------------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(half, whole, tmp_path):
    copy = shutil.copytree(half, tmp_path / "run")
    last = jo.checkpoints(copy)[-1]
    (last.path / "content" / "metadata").write_bytes(b"")
    with pytest.warns(UserWarning, match=rf"{last.path.name} is damaged .* the one before it is used"):
        assert_runs_equal(train(copy), whole)
    assert (last.path.parent / f"{last.path.name}.damaged").exists()
    for checkpoint in jo.checkpoints(copy):
        (checkpoint.path / "content" / "metadata").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be read: .* start again with overwrite=True"):
        train(copy)


def test_a_full_disk_costs_a_warning_and_no_steps(whole, tmp_path, monkeypatch):
    def full(*args):
        if sealed:
            raise OSError(errno.ENOSPC, "No space left on device")
        sealed.append(args)
        return seal(*args)

    sealed, seal = [], folder.seal
    monkeypatch.setattr(folder, "seal", full)
    with pytest.warns(UserWarning, match="checkpoints could not be written .*No space left") as warned:
        result = train(tmp_path)
    assert_runs_equal(result, whole)
    assert len(warned) == 1 and len(jo.checkpoints(tmp_path)) == 1
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="was not finished; the one before it is used"):
        assert_runs_equal(train(tmp_path), whole)


# Who may write -------------------------------------------------------------------------------------------------------


def test_one_process_at_a_time_writes_and_the_next_may_when_it_is_dead(half, whole, tmp_path):
    copy = shutil.copytree(half, tmp_path / "run")
    holding = "import sys, fcntl; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holding, copy / LOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        assert is_running(copy)
        for call in (train, lambda path: train(path, overwrite=True)):
            with pytest.raises(FileExistsError, match=r"another process, .* runs in .*; wait for its end, stop it"):
                call(copy)
        other.kill()
    assert_runs_equal(train(copy), whole)
    assert not (copy / LOCK).exists() and not is_running(copy)


def test_a_forked_child_does_not_hold_the_directory(tmp_path):
    """A loader's worker outlives the process that was killed."""
    program = """
        import os, pathlib, signal, sys
        from jaxopt_lite.run.folder import Folder
        Folder(pathlib.Path(sys.argv[1])).hold()
        if not os.fork():
            print(os.getpid(), flush=True)  # by the child, so that it has begun when its parent is killed
        signal.pause()
    """
    done = [sys.executable, "-c", textwrap.dedent(program), tmp_path]
    with subprocess.Popen(done, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        child = int(process.stdout.readline())
        assert is_running(tmp_path)
        process.kill()
        process.wait()
        assert (tmp_path / LOCK).exists() and not is_running(tmp_path)
        os.kill(child, signal.SIGKILL)


def test_a_run_killed_while_it_overwrites_is_not_stuck(half, whole, tmp_path, monkeypatch):
    copy = shutil.copytree(half, tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr("jaxopt_lite.run.folder.shutil.rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(copy, seed=1, overwrite=True)
    with pytest.raises(ValueError, match=r"holds another run; .*\n  seed: 1 then, 0 now"):
        train(copy)
    assert_runs_equal(train(copy, overwrite=True), whole)


# Listing and loading -------------------------------------------------------------------------------------------------


def test_checkpoints_are_listed_chosen_and_loaded(half, whole, monkeypatch):
    monkeypatch.chdir(half.parent)
    found = jo.checkpoints(half.name)
    monkeypatch.chdir("/")
    best = min(range(20), key=lambda i: whole.history["valid.loss"][i])
    assert [c.step for c in found][-1] == 20 and 2 <= len(found) <= 3
    assert found[-1].score == whole.history["valid.loss"][9] and whole.history["step"][9] == 20
    assert min(c.score for c in found) >= whole.history["valid.loss"][best]
    size = sum(p.stat().st_size for p in found[-1].path.rglob("*") if p.is_file() and p.name != folder.SEAL)
    assert found[-1].bytes == size and found[-1].saved.year >= 2026
    state = found[-1].load()
    assert_same(state.params, found[-1].params())
    assert_same(state.params, found[-1].params(like=state.params))
    shapes = jax.eval_shape(lambda: jo.init_state(TASK, jo.adam(jo.cosine_decay_schedule(0.3, 40))))
    assert_same(state._replace(monitor=None), found[-1].load(like=shapes)._replace(monitor=None))
    with pytest.raises(TypeError, match="like must be a TrainState"):
        found[-1].load(like=state.params)
    rest = jo.fit(TASK, None, 20, 4, eval_every=2, patience=15, restore_best=True, metric="valid.loss", state=state)
    assert_same((rest.state, rest.params), (whole.state, whole.params))
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        jo.checkpoints(half.name + "nowhere")
    assert jo.checkpoints(half / "checkpoints") == []


def test_parameters_of_an_average_and_of_a_rule_without_a_name(tmp_path):
    optimizer = jo.masked(jo.schedule_free_sgd(0.1), lambda params: {"w": True, "b": False})
    run = lambda **more: jo.fit(TASK, optimizer, 4, 4, eval_every=2, seeds=2, **more)
    result = run(directory=tmp_path)
    assert_same(run(directory=tmp_path).state, result.state)
    last = jo.checkpoints(tmp_path)[-1]
    assert_same(last.params(), result.params)
    with pytest.raises(ValueError, match="which has no name; give like="):
        last.load()
    assert_same(last.load(like=result.state), result.state)


def test_the_shell_shows_how_a_run_stands(half, tmp_path, capsys):
    main = pytest.importorskip("jaxopt_lite.cli").main
    copy = shutil.copytree(half, tmp_path / "run")

    def show():
        with pytest.raises(SystemExit):
            main(["show", str(copy)])
        return capsys.readouterr().out

    steps = ", ".join(str(checkpoint.step) for checkpoint in jo.checkpoints(copy))
    assert f"at step {steps}: 0." in show()
    about = json.loads((copy / "summary.json").read_text())
    unfinished = {name: about[name] for name in about if name not in ("metrics", "steps_done")} | {"status": "running"}
    (copy / "summary.json").write_text(json.dumps(unfinished))
    assert "it was killed, and the same call resumes it" in show() and f"at step {steps}" in show()


# Signals -------------------------------------------------------------------------------------------------------------


def test_a_signal_in_the_middle_of_a_point_ends_with_a_checkpoint(tmp_path):
    """The points are long calls: the run ends after the one under way, and its last checkpoint is that point's."""
    program = f"""
        import os, signal, threading, time, jax.numpy as jnp, jaxopt_lite as jo
        def loss(params, batch, key):
            return jnp.sin(params["w"] @ params["w"]).sum()
        task = jo.Task(lambda key: {{"w": jnp.ones((200, 200))}}, loss)
        def send(point):
            if point.step == 600:
                threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        result = jo.fit(task, jo.sgd(0.0), 100_000, eval_every=300, directory={str(tmp_path)!r}, callbacks=[send])
        print(result.status, result.steps, jo.checkpoints({str(tmp_path)!r})[-1].step)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=200, cwd=ROOT
    )
    status, steps, saved = done.stdout.split()
    assert status == "interrupted" and steps == saved and int(steps) <= 4000, done.stderr


def test_names_are_synced_to_the_disk(tmp_path, monkeypatch):
    synced, fsync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.add(os.fstat(number).st_ino), fsync(number)))
    directory = tmp_path / "a" / "b"
    jo.fit(RAMP, jo.sgd(1.0), 2, directory=directory)
    inside = [p for p in (directory / "checkpoints").rglob("*")]
    needed = [tmp_path, directory.parent, directory, directory / "checkpoints", directory / "summary.json", *inside]
    assert [str(p) for p in needed if p.stat().st_ino not in synced] == []


def test_a_second_signal_does_not_wait_for_a_stuck_disk(tmp_path, monkeypatch):
    stuck, write = threading.Event(), Store._write
    monkeypatch.setattr(Store, "_write", lambda *args: (stuck.wait(60), write(*args)))
    monkeypatch.setattr(run_folder, "_AT_ONCE", 0.1)

    def interrupt(point):
        if point.step == 6:
            raise KeyboardInterrupt  # as the second one does

    run = lambda **more: jo.fit(RAMP, jo.sgd(1.0), 8, eval_every=1, save_steps=4, directory=tmp_path, **more)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(callbacks=[interrupt])
    assert time.monotonic() - before < 30
    with pytest.raises(FileExistsError, match="another call in this one, runs in"):
        run()
    stuck.set()
    while is_running(tmp_path):
        time.sleep(0.01)
    assert [c.step for c in jo.checkpoints(tmp_path)] == [4] and run().steps == 8


def test_sweeps_and_runs_do_not_mix(tmp_path):
    """While a sweep holds the directory a run is refused, and the other way round."""
    refused = []

    def begin_a_sweep(point):
        with pytest.raises(FileExistsError):
            jo.sweep(lambda config: (RAMP, jo.sgd(config["rate"])), {"rate": jo.uniform(0.1, 1.0)}, 2, steps=2,
                     eval_every=1, directory=tmp_path)  # fmt: skip
        refused.append(point.step)

    jo.fit(RAMP, jo.sgd(1.0), 4, eval_every=2, directory=tmp_path, callbacks=[begin_a_sweep])
    assert refused == [2, 4]
