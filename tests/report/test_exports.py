"""Every export is read back."""

import csv
import json
import sys

import numpy as np
import pytest

from jaxopt_lite.report import exports
from jaxopt_lite.sweeps.distributions import choice, log_uniform
from jaxopt_lite.sweeps.ledger import DIVERGED, FAILED, RUNNING, STOPPED, Copy

from .ledgers import SMALL, SPEC, ledger


@pytest.fixture
def mixed():
    """A trial of each status: 0 is stopped after a point, 1 diverged, 2 failed before it began, 3 is under way."""
    made = ledger(8, SPEC)
    made.status[:4] = STOPPED, DIVERGED, FAILED, RUNNING
    made.step[:4] = 10, 20, 0, 20
    for trial, points in enumerate((1, 2, 0, 2)):
        for curve in made.curves.values():
            curve[trial, :, points:] = np.nan
    made.curves["valid.accuracy"][1, 1, 1] = np.nan
    made.errors = {2: "ValueError: no such width"}
    return made


def test_the_csv_has_every_trial(mixed, tmp_path):
    exports.write_trials(mixed, tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows[:5]] == ["stopped", "diverged", "failed", "running", "finished"]
    for trial, row in enumerate(rows):
        encoded = mixed.space.encode(mixed.table[trial])
        for name in mixed.space.names:
            value = encoded.get(name)
            if isinstance(value, float):
                assert float(row[name]) == value and len(row[name]) <= 14
            elif isinstance(value, list):
                assert json.loads(row[name]) == value
            elif isinstance(value, int) and name != "optimizer.sgd.nesterov":
                assert float(row[name]) == value
            else:
                assert row[name] == ("" if value is None else str(value))
    assert rows[2]["score"] == rows[1]["score"] == "" and float(rows[0]["score"]) == pytest.approx(0.005)


def test_the_curves_are_as_they_were(mixed, tmp_path):
    exports.write_curves(mixed, tmp_path / "curves.npz")
    with np.load(tmp_path / "curves.npz") as saved:
        assert sorted(saved) == ["step", "train.loss", "valid.accuracy"]
        assert saved["step"].tolist() == [10, 20, 30]
        for name, curve in mixed.curves.items():
            assert saved[name].dtype == np.float32
            np.testing.assert_array_equal(saved[name], curve)


def test_a_dataframe_can_be_computed_with(mixed):
    pytest.importorskip("pandas")
    frame = exports.to_dataframe(mixed)
    assert len(frame) == 8 and frame["number"].tolist() == list(range(8))
    best = frame[frame.status == "finished"].sort_values("score").iloc[-1]
    assert best.number == 7 and best["depth"] == mixed.table[7, mixed.space.names.index("depth")]
    assert frame["optimizer.adam.b1"].isna().tolist() == (frame["optimizer.name"] != "adam").tolist()


def test_a_study_can_be_read_back(mixed, tmp_path):
    optuna = pytest.importorskip("optuna")
    mixed.lineage.append(Copy(6, 7, 10, mixed.table[6], False))
    storage = f"sqlite:///{tmp_path}/sweep.db"
    exports.to_optuna(mixed, storage, "digits")
    study = optuna.load_study(study_name="digits", storage=storage)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.user_attrs == {"metric": "valid.accuracy"}
    trials = study.get_trials()
    assert [t.user_attrs["number"] for t in trials] == [0, 1, 2, 4, 5, 6, 7]  # 3 is under way
    assert [t.state.name for t in trials] == ["PRUNED", "FAIL", "FAIL", *["COMPLETE"] * 4]
    assert study.best_trial.user_attrs["number"] == 7
    assert study.best_value == pytest.approx(7.205)
    assert trials[0].intermediate_values == pytest.approx({10: 0.005}) and trials[0].value == pytest.approx(0.005)
    assert trials[1].intermediate_values == pytest.approx({10: 1.005})
    assert trials[1].user_attrs["seeds"] == [pytest.approx(1.1), None]
    assert trials[2].user_attrs["error"] == "ValueError: no such width"
    assert trials[5].user_attrs["copies"] == [{"step": 10, "source": 7}]
    kinds = optuna.distributions
    for trial in trials:
        encoded = mixed.space.encode(mixed.table[trial.user_attrs["number"]])
        encoded["layers"] = {"wide": "wide"}.get(str(encoded["layers"]), str(encoded["layers"]))
        assert trial.params == encoded
        assert trial.distributions["width"] == kinds.IntDistribution(16, 1024, log=True)
        assert trial.distributions["optimizer.name"] == kinds.CategoricalDistribution(["adam", "sgd"])
        if encoded["optimizer.name"] == "adam":
            rate = trial.distributions["optimizer.adam.learning_rate"]
            assert rate == kinds.FloatDistribution(1e-4, 1e-1, log=True)
    with pytest.raises(ValueError, match="has a study named 'digits'; give another name="):
        exports.to_optuna(mixed, storage, "digits")


def test_a_study_minimizes_what_is_to_be_low():
    pytest.importorskip("optuna")
    study = exports.to_optuna(ledger(3, metric="valid.loss", highest=False), None, "sweep")
    assert study.best_trial.number == 0 and study.direction.name == "MINIMIZE"


def test_a_finished_trial_without_a_score_has_failed_for_optuna():
    pytest.importorskip("optuna")
    made = ledger(2)
    made.curves["valid.accuracy"][0, 0, -1] = np.nan
    study = exports.to_optuna(made, None, "sweep")
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE"]


def test_ends_of_ranges_fit_into_a_study():
    pytest.importorskip("optuna")
    made = ledger(2, {"x": log_uniform(1 / 3, 2 / 3)})
    made.table = made.space.from_unit(np.array([[0.0], [1.0]]))
    x = [trial.params["x"] for trial in exports.to_optuna(made, None, "sweep").trials]
    assert x == [pytest.approx(1 / 3), 2 / 3]  # as a float32, 2 / 3 is above it


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ([32, 64], [32, 64]),
        ([0.1, 2], [0.1, 2]),
        ([True, False], [True, False]),
        (["a", None, [8, 8]], ["a", "None", "[8, 8]"]),
        ([True, 1, 1.0, "1"], ["True", "1", "1.0", "'1'"]),
        ([0.5, float("inf"), -float("inf")], [0.5, float("inf"), -float("inf")]),
        (["nan", float("nan"), [float("inf")]], ["'nan'", "nan", "[inf]"]),
    ],
)
def test_options_stay_apart(options, written, tmp_path):
    pytest.importorskip("optuna")
    pytest.importorskip("tensorboard")
    made = ledger(len(options), {"which": choice(options)})
    made.table[:, 0] = np.arange(len(options))
    study = exports.to_optuna(made, None, "sweep")
    assert [trial.params["which"] for trial in study.trials] == written
    exports.to_tensorboard(made, tmp_path, 1)
    ((_, _, data),) = events(tmp_path)
    values = [getattr(v, v.WhichOneof("kind")) for v in data.experiment.hparam_infos[0].domain_discrete.values]
    assert sorted(values) == sorted(written)


def events(directory):
    """(step, tag, value or plugin data) of each event of a directory, in their order."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    (path,) = (p for p in directory.iterdir() if p.is_file())
    found = []
    for event in LegacyEventFileLoader(str(path)).Load():
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == metadata.PLUGIN_NAME:
                data = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
                found.append((event.step, value.tag, data))
            else:
                found.append((event.step, value.tag, value.simple_value))
    return found


def test_tensorboard_has_a_session_for_each_seed(mixed, tmp_path):
    pytest.importorskip("tensorboard")
    assert exports.to_tensorboard(mixed, tmp_path / "board", top=3) == tmp_path / "board"
    assert sorted(p.parent.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("events.*")) == [
        "board",
        *(f"board/trial-{trial}/seed-{seed}" for trial in (5, 6, 7) for seed in (0, 1)),
    ]
    ((_, _, data),) = events(tmp_path / "board")
    assert [info.name for info in data.experiment.hparam_infos] == list(mixed.space.names)
    assert [info.name.tag for info in data.experiment.metric_infos] == ["valid.accuracy", "train.loss"]
    start, *scalars, end = events(tmp_path / "board/trial-7/seed-1")
    begun = start[2].session_start_info
    assert begun.group_name == "trial-7"
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in begun.hparams.items()}
    encoded = mixed.space.encode(mixed.table[7])
    assert values == {**encoded, "layers": str(encoded["layers"])}
    assert end[2].session_end_info.status == 1  # success
    assert [(step, tag, round(value, 4)) for step, tag, value in scalars] == [
        *((step, "valid.accuracy", value) for step, value in ((10, 7.01), (20, 7.11), (30, 7.21))),
        *((step, "train.loss", -value) for step, value in ((10, 7.01), (20, 7.11), (30, 7.21))),
    ]


def test_tensorboard_finds_the_groups(mixed, tmp_path):
    """TensorBoard's own reader of HParams."""
    pytest.importorskip("tensorboard")
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    exports.to_tensorboard(mixed, tmp_path, top=100)
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    hparams = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]
    request = api_pb2.ListSessionGroupsRequest(slice_size=100, allowed_statuses=statuses)
    found = list_session_groups.Handler(context.RequestContext(), hparams, "", request).run().session_groups
    groups = {group.name: group for group in found}
    assert set(groups) == {f"trial-{i}" for i in (0, 1, 3, 4, 5, 6, 7)}  # 2 failed before it began
    assert [session.status for session in groups["trial-1"].sessions] == [api_pb2.STATUS_FAILURE] * 2
    metrics = {value.name.tag: value.value for value in groups["trial-7"].metric_values}
    assert metrics == pytest.approx({"valid.accuracy": 7.205, "train.loss": -7.205})


def test_tensorboard_writes_beside_nothing(tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        exports.to_tensorboard(ledger(1), tmp_path, top=0)
    exports.to_tensorboard(ledger(1, SMALL), tmp_path, top=1)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError, match="holds event files; give another directory"):
        exports.to_tensorboard(ledger(1), tmp_path, top=1)
    assert sorted(tmp_path.rglob("*")) == before


WITHOUT = {
    "pandas": ("tables", lambda path: exports.to_dataframe(ledger(1))),
    "optuna": ("optuna", lambda path: exports.to_optuna(ledger(1), None, "sweep")),
    "tensorboard.plugins.hparams": ("tensorboard", lambda path: exports.to_tensorboard(ledger(1), path / "board", 1)),
}


@pytest.mark.parametrize("package", WITHOUT)
def test_the_extra_is_named(package, monkeypatch, tmp_path):
    extra, call = WITHOUT[package]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'jaxopt-lite\[{extra}\]'"):
        call(tmp_path)
    assert not list(tmp_path.iterdir())
