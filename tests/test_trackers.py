"""Trackers are told all of a run, in order, and never end it."""

import json
import logging
import math
import re
import signal
import struct
import sys
import threading
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.log import relay
from jaxopt_lite.log.progress import Progress
from jaxopt_lite.log.records import JsonLines
from jaxopt_lite.log.tables import CsvTable
from jaxopt_lite.log.trackers import Spread
from jaxopt_lite.run.tracking import examples_of_step
from tests.train.tasks import LINEAR, RAMP

# With sgd(1.0), w is minus the number of steps, from 0, or from -1 for seed 1 of 0 to 3; below -1.5 the loss is NaN.
BREAKING = jo.Task(
    lambda key: {"w": -1.0 * jax.random.bernoulli(key)},
    lambda params, batch, key: (
        jnp.where(params["w"] < -1.5, jnp.nan, params["w"]),
        {r"$\e$": jnp.where(params["w"] < -1.5, jnp.inf, 2.0)},
    ),
    test=np.zeros((1, 1)),
    evaluate=lambda params, data: {"loss": params["w"]},
)


class Recorder:
    """Keeps what it is told; `on` names a method that first does something."""

    def __init__(self, on=None, act=None):
        self.told, self._on, self._act = [], on, act

    def _keep(self, name, *arguments):
        if name == self._on:
            self._act()
        self.told.append((name, *arguments))

    def begin(self, about):
        self._keep("begin", about)

    def log(self, step, metrics):
        self._keep("log", step, metrics)

    def end(self, summary):
        self._keep("end", summary)


def raise_error():
    raise OSError("the server is gone")


def ramp(*trackers, steps=6, **given):
    return jo.fit(RAMP, jo.sgd(1.0), steps, eval_every=2, trackers=list(trackers), **given)


def breaking(*trackers, **given):
    return jo.fit(BREAKING, jo.sgd(1.0), 3, eval_every=1, trackers=list(trackers), **given)


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_table_gains_columns_and_loses_no_row(tmp_path):
    path = tmp_path / "metrics.csv"
    table = CsvTable(path)
    table.write(2, {"train.loss": 0.1})
    table.write(4, {"train.loss": math.nan, 'a "name", odd\n': math.inf})
    table.write(6, {"valid.loss": np.float64(-math.inf)})
    assert path.read_text().endswith("\n6,,,-inf\n"), "rows are there as soon as they are written"
    table.close()
    pandas = pytest.importorskip("pandas")
    got = pandas.read_csv(path)
    assert list(got) == ["step", "train.loss", 'a "name", odd\n', "valid.loss"] and got["step"].tolist() == [2, 4, 6]
    np.testing.assert_array_equal(got["train.loss"], [0.1, math.nan, math.nan])
    np.testing.assert_array_equal(got["valid.loss"], [math.nan, math.nan, -math.inf])
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


TORN = ["", "st", "step", "step,lo", "step,loss\n", "step,loss\n2,0.5\n4,0.2", "step,loss\n2,0.5\n"]


@pytest.mark.parametrize("left", TORN)
def test_a_torn_line_of_a_table_is_removed(tmp_path, left):
    path = tmp_path / "metrics.csv"
    path.write_text(left)
    table = CsvTable(path, append=True)
    table.write(4, {"loss": 0.25})
    table.close()
    assert path.read_text() == "step,loss\n" + "2,0.5\n" * ("2,0.5" in left) + "4,0.25\n"


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,loss\n1,2\n")
    with pytest.raises(ValueError, match="first column must be step; give another path"):
        CsvTable(tmp_path / "metrics.csv", append=True)
    assert (tmp_path / "metrics.csv").read_text() == "epoch,loss\n1,2\n"


@pytest.mark.parametrize("torn", ["", '{"step": 6, "lo', "\x00\x00", '{"step": 8}'])
def test_rows_after_a_step_are_removed(tmp_path, torn):
    """So a resumed run repeats no step; a lock on the rows stays."""
    rows, table = JsonLines(tmp_path / "metrics.jsonl"), CsvTable(tmp_path / "metrics.csv")
    for step in (2, 4, 6):
        rows.write({"step": step})
        table.write(step, {"loss": step / 10})
    rows.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    rows = JsonLines(tmp_path / "metrics.jsonl", append=True)
    before = (tmp_path / "metrics.jsonl").stat().st_ino
    for step in (5, 4, 1, 0):
        rows.rewind(step)
        table.rewind(step)
        kept = [s for s in (2, 4) if s <= step]
        assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == kept
        assert (tmp_path / "metrics.csv").read_text() == "step,loss\n" + "".join(f"{s},{s / 10}\n" for s in kept)
    rows.write({"step": 1})
    table.write(1, {"loss": 0.1})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert (tmp_path / "metrics.csv").read_text() == "step,loss\n1,0.1\n"
    assert (tmp_path / "metrics.jsonl").stat().st_ino == before
    rows.close()
    table.close()


def test_a_last_row_is_kept_if_it_is_whole(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 2}\n{"step": 4}')
    rows = JsonLines(tmp_path / "metrics.jsonl", append=True)
    rows.rewind(4)
    rows.write({"step": 6})
    rows.file.write('{"step": 8, "lo')
    rows.file.flush()
    rows.rewind(9)
    rows.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 2}\n{"step": 4}\n{"step": 6}\n'


# What trackers are told ----------------------------------------------------------------------------------------------


def test_a_tracker_is_told_all_in_order(tmp_path):
    recorder = Recorder()
    result = ramp(recorder, seed=3, target=99.0, callbacks=[lambda point: point.metrics.clear()])
    (_, about), *logged, (_, summary) = recorder.told
    assert [(name, step) for name, step, _ in logged] == [("log", 2), ("log", 4), ("log", 6)]
    for i, (_, _, metrics) in enumerate(logged):
        assert metrics == {name: column[i] for name, column in result.history.items() if name != "step"}
        assert all(type(value) is float for value in metrics.values())
    assert about == json.loads(json.dumps(about)), "all of it can be written anywhere"
    assert jo.parse(about["optimizer"]) == jo.sgd(1.0) and about["hyperparameters"]["sgd.learning_rate"] == 1.0
    assert about["plan"]["steps"] == 6 and about["plan"]["target"] == 99.0
    assert (about["seed"], about["seeds"], about["step"]) == (3, None, 0) and about["versions"]["jax"]
    assert summary["metrics"] == result.metrics and summary["seconds"] > 0
    assert (summary["status"], summary["message"], summary["steps"]) == ("max_steps", result.message, 6)

    again = Recorder()
    jo.fit(RAMP, None, 2, eval_every=2, state=result.state, trackers=[again])
    assert again.told[0][1]["step"] == 6 and jo.parse(again.told[0][1]["optimizer"]) == result.state.optimizer
    assert [told[0] for told in again.told] == ["begin", "log", "end"] and again.told[1][1] == 8


def test_the_mean_and_each_seed_are_told():
    recorder = Recorder()
    result = breaking(recorder, seed=0, seeds=4)
    _, *logged, (_, summary) = recorder.told
    found = {(step, name): value for _, step, metrics in logged for name, value in metrics.items()}
    losses = result.history["train.loss"]
    assert np.isnan(losses[1, 1]) and np.isnan(losses[0, 2]), "seed 1 ends a point before the others"
    assert found[2, "train.loss"] == np.nanmean(losses[:, 1]) == -1 and math.isnan(found[3, "train.loss"])
    assert found[1, "seed-2/train.loss"] == losses[2, 0]
    assert math.isnan(found[2, "seed-1/train.loss"]) and math.isinf(found[2, r"seed-1/train.$\e$"])
    assert math.isnan(found[3, "seed-1/learning_rate"]), "the end of a seed is told once"
    spread = Spread(5)
    ended = {"a": np.array([1.0, np.nan]), "b": np.array([2.0, np.nan])}
    assert "seed-6/a" in spread(ended) and "seed-6/a" not in spread(ended) and spread(ended)["seed-5/b"] == 2.0
    assert summary["metrics"]["seed-3/test.loss"] == -2 and summary["status"] == result.status


def test_what_is_not_finite_is_told_before_the_end():
    recorder = Recorder()
    assert breaking(recorder).status == "non_finite"
    *_, (_, step, metrics), (_, summary) = recorder.told
    assert step == 3 and math.isnan(metrics["train.loss"]) and metrics[r"train.$\e$"] == math.inf
    assert summary["status"] == "non_finite"


def test_a_run_that_fails_is_told():
    def fail(point):
        if point.step == 4:
            raise RuntimeError("the callback's own")

    recorder = Recorder()
    with pytest.raises(RuntimeError, match="the callback's own"):
        ramp(recorder, callbacks=[fail])
    assert [told[0] for told in recorder.told] == ["begin", "log", "log", "end"]
    facts = {"status": "failed", "message": "RuntimeError: the callback's own", "metrics": {}}
    assert recorder.told[-1][1] == facts


def test_bad_arguments_tell_nothing():
    recorder = Recorder()
    with pytest.raises(ValueError, match="there is no metric"):
        ramp(recorder, metric="valid.hits")
    assert not recorder.told
    for given, wrong in ((3, "list of trackers, got 3"), ([3], "log and end, .* got 3"), ([Recorder], "methods")):
        with pytest.raises(TypeError, match=f"fit: trackers must be .*{wrong}"):
            jo.fit(RAMP, jo.sgd(1.0), 2, trackers=given)


# Trackers that fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["begin", "log", "end"])
def test_a_tracker_that_fails_costs_one_warning(method):
    bad, good = Recorder(method, raise_error), Recorder()
    wait = lambda point: time.sleep(0.05)  # so that the failure is known before the end
    message = f"the tracker Recorder raised OSError: the server is gone in {method}, and is left out from now on"
    with pytest.warns(UserWarning, match=message) as warned:
        result = ramp(bad, good, callbacks=[wait])
    assert len(warned) == 1 and warned[0].filename == __file__
    assert result.steps == 6 and len(good.told) == 5
    assert len(bad.told) == {"begin": 0, "log": 1, "end": 4}[method]


def test_a_run_that_cannot_be_described_is_not_lost(monkeypatch):
    monkeypatch.setattr("jaxopt_lite.run.tracking.versions", raise_error)
    with pytest.warns(UserWarning, match="could not be told of the run .OSError: the server is gone"):
        assert ramp(Recorder()).steps == 6


def test_a_tracker_that_ends_its_thread_costs_a_warning():
    with pytest.warns(UserWarning, match="raised SystemExit: 1 in log"):
        assert ramp(Recorder("log", lambda: sys.exit(1))).steps == 6


def test_a_tracker_that_is_far_behind_is_left_out(monkeypatch):
    monkeypatch.setattr(relay, "_BEHIND", 2)
    go_on = threading.Event()
    slow, good = Recorder("begin", go_on.wait), Recorder()
    wait = lambda point: time.sleep(0.02)
    with pytest.warns(UserWarning, match="is 2 points behind, and is left out"):
        assert ramp(slow, good, steps=16, callbacks=[wait]).steps == 16
    go_on.set()
    assert len(good.told) == 10


def test_a_stuck_tracker_is_waited_for_only_so_long(monkeypatch):
    monkeypatch.setattr(relay, "_PATIENCE", 0.3)
    go_on = threading.Event()
    stuck, good = Recorder("log", go_on.wait), Recorder()
    began = time.monotonic()
    with pytest.warns(UserWarning, match="has not ended yet, and gets 5 s more when the process ends") as warned:
        assert ramp(stuck, good).status == "max_steps"
    assert time.monotonic() - began < 5 and len(warned) == 1 and warned[0].filename == __file__
    assert len(good.told) == 5 and len(stuck.told) == 1
    go_on.set()
    relay._drain()  # as at the end of the process
    assert [told[0] for told in stuck.told] == [told[0] for told in good.told], "and nothing is lost"


def test_signals_do_not_wait_for_a_stuck_tracker(monkeypatch):
    monkeypatch.setattr(relay, "_AT_ONCE", 0.2)
    go_on, began = threading.Event(), time.monotonic()
    once = lambda point: signal.raise_signal(signal.SIGINT)
    twice = lambda point: (once(point), once(point))
    with pytest.warns(UserWarning, match="has not ended yet"):
        assert ramp(Recorder("begin", go_on.wait), callbacks=[once]).status == "interrupted"
    with pytest.warns(UserWarning, match="has not ended yet"), pytest.raises(KeyboardInterrupt):
        ramp(Recorder("begin", go_on.wait), callbacks=[twice])
    assert time.monotonic() - began < 10, "the usual patience is a minute for each"
    go_on.set()
    relay._drain()


def test_the_steps_do_not_wait_for_trackers():
    at, slow = [], Recorder("log", lambda: time.sleep(0.1))
    ramp(slow, steps=20, callbacks=[lambda point: at.append(time.monotonic())])
    assert at[-1] - at[0] < 0.5, "ten points of a tenth of a second each"
    assert len(slow.told) == 12, "all of them at the end"


# The trackers themselves ---------------------------------------------------------------------------------------------


def test_a_csv_is_a_row_for_each_point_and_is_continued(tmp_path):
    path = tmp_path / "deep" / "run.csv"
    half = ramp(jo.trackers.csv(path), steps=4)
    on = jo.trackers.csv(path)
    jo.fit(RAMP, None, 2, eval_every=1, state=half.state, trackers=[on])
    jo.fit(RAMP, None, 2, eval_every=2, state=half.state, trackers=[on])  # again, from there
    lines = [line.split(",") for line in path.read_text().splitlines()]
    assert lines[0][:2] == ["step", "train.loss"] and [line[0] for line in lines[1:]] == ["2", "4", "6"]
    with pytest.warns(UserWarning, match="Csv raised FileExistsError: .* exists; give another path, or overwrite=True"):
        ramp(jo.trackers.csv(path))
    breaking(jo.trackers.csv(path, overwrite=True))
    last = path.read_text().splitlines()
    assert len(last) == 4 and {"nan", "inf"} < set(last[-1].split(","))


def test_the_console_has_a_line_for_each_point(capsys):
    breaking(jo.trackers.console(), seeds=4)
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first.startswith("sgd(1.0") and last.startswith("The loss or a parameter is no longer finite")
    assert len(lines) == 3 and lines[0].startswith("step 1  train.") and "seed-" not in lines[0]
    assert "train.loss nan" in lines[-1]


def accumulated(directory):
    """{tag: [(step, value)]} by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_reads_the_curves(tmp_path):
    pytest.importorskip("tensorboard")
    result = breaking(jo.trackers.tensorboard(tmp_path / "one"))
    found = accumulated(tmp_path / "one")
    columns = {name: column for name, column in result.history.items() if name != "step"}
    assert found.keys() == {*columns, "test.loss"} and found["test.loss"] == [(3, -2.0)]
    for name, column in columns.items():
        np.testing.assert_array_equal(found[name], list(zip([1, 2, 3], column)))  # NaN and inf as they are

    half = ramp(jo.trackers.tensorboard(tmp_path / "two"), steps=4)
    for steps in (4, 2):  # resumed twice from the same step
        jo.fit(RAMP, None, steps, eval_every=2, state=half.state, trackers=[jo.trackers.tensorboard(tmp_path / "two")])
    assert [step for step, _ in accumulated(tmp_path / "two")["train.loss"]] == [2, 4, 6]


def test_tensorboard_has_a_run_for_each_seed_and_one_group(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    ramp(jo.trackers.tensorboard(tmp_path / "ramp"), seeds=2, seed=7)
    breaking(jo.trackers.tensorboard(tmp_path / "breaking"))
    assert accumulated(tmp_path / "ramp" / "seed-8")["valid.loss"] == [(2, 1.0), (4, 1.0), (6, 3.0)]
    assert accumulated(tmp_path / "ramp")["valid.loss"] == [(2, 1.0), (4, 1.0), (6, 3.0)]

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    hparams = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]
    request = api_pb2.ListSessionGroupsRequest(slice_size=100, allowed_statuses=statuses)
    found = list_session_groups.Handler(context.RequestContext(), hparams, "", request).run().session_groups
    groups = {group.name.rpartition("/")[2]: group for group in found}
    assert [s.status for s in groups["ramp"].sessions] == [api_pb2.STATUS_SUCCESS] * 2
    assert [s.status for s in groups["breaking"].sessions] == [api_pb2.STATUS_FAILURE]
    assert groups["ramp"].hparams["sgd.learning_rate"].number_value == 1.0
    assert groups["ramp"].hparams["optimizer"].string_value.startswith("sgd(")
    metrics = {value.name.tag: value.value for value in groups["ramp"].metric_values}
    assert metrics["valid.loss"] == 3.0


@pytest.mark.filterwarnings("ignore", "error:fit")  # other packages may warn
def test_mlflow_reads_the_run(tmp_path):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = jo.trackers.mlflow("tests", uri=uri, run_name="a", tags={"team": "b"})
    breaking(tracker, seeds=4)
    client = MlflowClient(uri)
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.info.run_name, run.data.tags["team"]) == ("FAILED", "a", "b")
    assert run.data.params["sgd.learning_rate"] == "1.0" and run.data.params["steps"] == "3"
    values = lambda name: [(m.step, m.value) for m in client.get_metric_history(tracker.run_id, name)]
    history = {name: values(name) for name in run.data.metrics}
    assert history["train.loss"][:2] == [(1, -0.25), (2, -1.0)] and math.isnan(history["train.loss"][2][1])
    assert history["seed-0/train.__e_"][:2] == [(1, 2.0), (2, 2.0)]
    assert history["seed-0/train.__e_"][2][1] == sys.float_info.max, "SQLite's infinity"
    assert history["seed-3/test.loss"] == [(3, -2.0)]

    half = ramp(jo.trackers.mlflow(uri=uri))
    on = jo.trackers.mlflow(uri=uri, run_id=tracker.run_id)
    jo.fit(RAMP, None, 2, eval_every=2, state=half.state, trackers=[on])
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
    assert client.get_metric_history(tracker.run_id, "train.loss")[-1].step == 8


def wandb_records(path):
    """The records of an offline run: LevelDB's log format, chunks of (checksum 4, length 2, kind 1) in blocks."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        if at + 7 + length > len(data):  # not all of it is there yet
            return
        whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


@pytest.mark.filterwarnings("ignore", "error:fit")  # other packages may warn
def test_wandb_reads_the_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracker = jo.trackers.wandb(project="tests", mode="offline", dir=str(tmp_path), config={"mine": 1})
    breaking(tracker, seeds=4)
    (path,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    until = time.monotonic() + 10  # its own process writes the file, and may do so after `finish`
    while not any(record.HasField("exit") for record in wandb_records(path)) and time.monotonic() < until:
        time.sleep(0.1)
    rows, config, code = {}, {}, None
    for record in wandb_records(path):
        if record.HasField("history"):
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            rows[record.history.step.num] = items
        elif record.HasField("run"):
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif record.HasField("exit"):
            code = record.exit.exit_code
    assert list(rows) == [1, 2, 3] and rows[1]["train.loss"] == -0.25 and rows[2]["seed-0/train.loss"] == -1.0
    assert math.isnan(rows[3]["train.loss"]) and rows[3][r"train.$\e$"] == math.inf
    assert config["mine"] == 1 and config["plan"]["steps"] == 3 and code == 1


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_the_extra_is_named(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf"trackers.{name} needs .*: pip install 'jaxopt-lite\[{name}\]'"):
        getattr(jo.trackers, name)(*["place"] * (name == "tensorboard"))


# Progress ------------------------------------------------------------------------------------------------------------


def test_progress_has_examples_per_second(capsys):
    stream = jo.Task(LINEAR.init, LINEAR.loss, iter([LINEAR.train]))
    for task, batch, seeds, examples in (
        (LINEAR, 4, None, 4),
        (LINEAR, None, 3, 42),
        (RAMP, 4, 2, 0),
        (stream, 4, 2, 0),
    ):
        assert examples_of_step(task, jo.Plan(batch_size=batch), seeds) == examples
    progress = Progress(100, "lines", examples=42)
    progress.update(10, {"train.loss": np.float32(0.5)})
    time.sleep(0.01)
    progress.update(20, {"train.loss": np.float32(0.25)})
    progress.close()
    line = capsys.readouterr().err.strip().splitlines()[-1]
    found = re.search(r"([\d,]+) steps/s  .* left  train.loss 0.25  ([\d,]+) examples/s$", line)
    steps, examples = (float(number.replace(",", "")) for number in found.groups())
    assert examples == pytest.approx(42 * steps, abs=42)


class Handle(list):
    """What a notebook shows in one place, in turn."""

    def update(self, data, raw):
        self.append(data["text/plain"])


def test_progress_is_one_line_in_a_notebook_without_widgets(monkeypatch, capsys):
    shown = Handle()
    display = lambda data, raw, display_id: shown.update(data, raw) or shown
    shell = type("ZMQInteractiveShell", (), {})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=shell))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    progress = Progress(100, "auto")
    for step in (10, 20, 30):
        progress.update(step, {"train.loss": np.float32(0.5)})
    progress.close()
    assert [line.partition("  ")[0] for line in shown] == ["step 10/100", "step 30/100"]
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_a_log(caplog, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # a program without a console has logs all the same
    with caplog.at_level(logging.INFO, "jaxopt_lite"):
        jo.fit(RAMP, jo.sgd(1.0), 6, eval_every=2, progress="log")
    first, last = (record.getMessage() for record in caplog.records)
    assert first == "step 2/6  train.loss -0.5  valid.accuracy 0.2  valid.loss 1" and last.startswith("step 6/6  ")
    assert {record.name for record in caplog.records} == {"jaxopt_lite"}
    Progress(2, "log").close()
    assert len(caplog.records) == 2
