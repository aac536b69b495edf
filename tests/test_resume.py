"""A sweep's directory over time: what may change between two calls, what is damaged, and who may write it."""

import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import pytest

import jaxopt_lite as jo
from jaxopt_lite.checkpoint import store
from tests.sweeps import small
from tests.test_contents import CHANGED, SOURCE, module
from tests.test_sweep import contents, equal, raising, sweep, worse_half


@pytest.fixture(scope="module", autouse=True)
def without_pictures():
    """They take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jo.SweepResult, "plot", lambda self, path: None)
        yield


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A finished sweep, and its directory."""
    folder = tmp_path_factory.mktemp("sweep") / "kept"
    return sweep(policy=worse_half(), trials=3, directory=folder), folder


again = functools.partial(sweep, policy=worse_half(), trials=3)


# What has changed ----------------------------------------------------------------------------------------------------


def both(made):
    spec = jo.space(small.SPACE, where=made.where)
    return {"space": spec, "policy": made.own_policy(), "sampler": made.own_sampler()}


@pytest.mark.parametrize("old, message", {
    "ledger.steps": "policy: own_policy has changed",
    "[0.05, 0.5]": "policy: TABLE, used by own_policy has changed",
    "default_rng(seed)": "sampler: own_sampler has changed",
    "< LIMIT": "where: where has changed",
    "arange(3.0)": "where: ARRAY, used by where has changed",
    "# a comment": None,
}.items())  # fmt: skip
def test_a_policy_sampler_or_constraint_that_changed_is_refused(own, old, message):
    result, folder = own
    new = CHANGED[old][0] if old in CHANGED else "< 2 * LIMIT" if "LIMIT" in old else "# another"
    before = contents(folder)
    changed = both(module(SOURCE.replace(old, new), "__main__"))
    if message is None:
        equal(sweep(**changed, trials=2, directory=folder), result)
        return
    with pytest.raises(ValueError, match=f"holds another sweep(.|\n)*  {message}"):
        sweep(**changed, trials=2, directory=folder)
    assert contents(folder) == before


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "own"
    return sweep(**both(module()), trials=2, directory=folder), folder


def test_notes_that_a_policy_takes_are_no_change_of_it(tmp_path):
    seen = []

    @jo.policy
    def watching():
        def decide(ledger):
            seen.append(ledger.step.tolist())
            return jo.Decision(target=ledger.steps)

        return decide

    first = sweep(policy=watching(), trials=2, directory=tmp_path)
    assert seen
    equal(sweep(policy=watching(), trials=2, directory=tmp_path), first)


def test_what_prints_its_address_is_the_same_in_another_process(tmp_path):
    def call():  # makes functions at other addresses
        where = lambda config, most: bool(config["learning_rate"] < most)
        wide, narrow = (functools.partial(lambda x, k: x * k, k=k) for k in (1, 2))
        spec = jo.space({**small.SPACE, "act": jo.choice([wide, narrow])}, where=functools.partial(where, most=1.0))
        initial = [{"learning_rate": 0.01, "momentum": 0.5, "act": narrow}]
        return sweep(space=spec, initial=initial, trials=2, directory=tmp_path)

    equal(call(), call())


def with_data(change):
    def trial(config):
        task, optimizer = small.trial(config)
        return dataclasses.replace(task, **change(task)), optimizer

    return trial


plus = lambda data: jax.tree.map(lambda x: x + 1, data)
unscored = lambda task: {"valid": None, "evaluate": lambda params, data: {"loss": params["v"].sum() + data["x"].sum()}}
otherwise = lambda task: {"valid": None, "evaluate": lambda params, data: {"loss": params["v"].sum() - data["x"].sum()}}


@pytest.mark.parametrize("before, after, what", [
    (lambda task: {}, lambda task: {"test": plus(task.test)}, "test data"),
    (lambda task: {}, lambda task: {"test": None}, "test data"),
    (lambda task: {"test": None}, lambda task: {}, "test data"),
    (lambda task: {}, lambda task: {"valid": plus(task.valid)}, "data"),
    (lambda task: {}, lambda task: {"train": plus(task.train)}, "data"),
    (unscored, otherwise, "evaluation of the test data"),
], ids=["test", "no test", "first test", "valid", "train", "evaluate"])  # fmt: skip
def test_other_data_are_refused(tmp_path, before, after, what):
    first = sweep(with_data(before), trials=1, directory=tmp_path)
    equal(sweep(with_data(before), trials=1, directory=tmp_path), first)
    saved = contents(tmp_path)
    with pytest.raises(ValueError, match=f"the {what}( and the .*)? of all trials changed since the sweep"):
        sweep(with_data(after), trials=1, directory=tmp_path)
    assert contents(tmp_path).keys() == saved.keys()


def test_what_an_earlier_version_saved_can_be_resumed(own, tmp_path):
    result, folder = own
    copy = edited(folder, tmp_path / "copy", without("contents"))
    path, saved, _ = store.latest(copy / "checkpoints")
    for group in saved.content["facts"]["groups"]:
        del group["test data"]
    writer = store.Store(path.parent, keep=1)
    writer.save(int(path.name), *saved)
    writer.close()
    resumed = sweep(**both(module()), trials=2, directory=copy)
    equal(resumed, result)
    assert "saved by jaxopt_lite 0.1.0, so whether the code of sampler, policy, where changed" in resumed.warnings[0]
    with pytest.raises(ValueError, match="policy: own_policy has changed"):
        sweep(**both(module(SOURCE.replace("ledger.steps", "ledger.eval_every"))), trials=2, directory=copy)
    other = edited(folder, tmp_path / "other", put("cpython-399", "contents", "python"))
    assert "saved by cpython-399, so whether" in sweep(**both(module()), trials=2, directory=other).warnings[0]


# What is damaged, and who may write ----------------------------------------------------------------------------------


def edited(folder, to, change):
    """A copy of a sweep's directory in which the text of sweep.json is another one."""
    shutil.copytree(folder, to, dirs_exist_ok=True)
    (to / "sweep.json").write_text(change((folder / "sweep.json").read_text()))
    return to


def without(*keys):
    def change(text):
        about = json.loads(text)
        inside = functools.reduce(lambda node, key: node[key], keys[:-1], about)
        del inside[keys[-1]]
        return json.dumps(about)

    return change


def put(value, *keys):
    def change(text):
        about = json.loads(text)
        functools.reduce(lambda node, key: node[key], keys[:-1], about)[keys[-1]] = value
        return json.dumps(about)

    return change


DAMAGED = [
    *(lambda text, new=new: new for new in ("", "{", "[]", "null", "3", '"text"', "{}", '{"arguments": {}}')),
    lambda text: text[: len(text) // 2],
    *(without(*keys) for keys in (("arguments",), ("versions",), ("versions", "threads"), ("arguments", "steps"))),
    *(put(None, *keys) for keys in (("arguments",), ("versions", "jax"), ("arguments", "trials"), ("status",))),
    *(put([], *keys) for keys in (("arguments", "space"), ("arguments", "seed"), ("versions",))),
]


def test_a_damaged_sweep_json_is_named_with_the_remedy(kept, tmp_path):
    _, folder = kept
    for i, change in enumerate(DAMAGED):
        copy = edited(folder, tmp_path / str(i), change)
        before = contents(copy)
        for call in (jo.resume, lambda directory: sweep(policy=worse_half(), directory=directory)):
            with pytest.raises(ValueError, match=r"sweep.json is damaged: .*; copy it back .*overwrite=True"):
                call(copy)
        assert contents(copy) == before
    shutil.rmtree(tmp_path)


def test_a_saved_argument_that_cannot_be_read_is_named(kept, tmp_path):
    _, folder = kept
    changes = {
        "policy": put("worse_half(", "arguments", "policy"),
        "sampler": put("sobol(scrumble=True)", "arguments", "sampler"),
        "space": put("uniform('a', [])", "arguments", "space"),
        "initial configs": put([3], "arguments", "initial"),
        "'..:x'": put("..:x", "arguments", "policy_from"),
    }
    for i, (what, change) in enumerate(changes.items()):
        with pytest.raises(ValueError, match=rf"resume: the .*{what}.* call sweep\(...\) again"):
            jo.resume(edited(folder, tmp_path / str(i), change))


def test_another_process_on_the_same_directory_is_refused(kept, tmp_path):
    result, folder = kept
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / ".lock").touch()
    before = contents(copy)
    holding = "import sys, fcntl; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    pytest.importorskip("fcntl")
    with subprocess.Popen(
        [sys.executable, "-c", holding, copy / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        for overwrite in (False, True):
            with pytest.raises(FileExistsError, match=r"another process, .* runs in .*; wait for its end"):
                sweep(policy=worse_half(), directory=copy, overwrite=overwrite)
        assert contents(copy) == before
        other.kill()
    equal(jo.resume(copy), result)


def test_a_directory_is_let_go_however_a_call_ends(kept, tmp_path):
    result, folder = kept
    copy = shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(ValueError, match="another sweep") as kept_alive:
        sweep(policy=worse_half(), directory=copy, seed=1)
    with pytest.raises(RuntimeError, match="no such file") as raised:
        sweep(raising, policy=worse_half(), directory=copy)
    equal(jo.resume(copy), result)
    assert kept_alive and raised


def fails(self, path):
    raise RuntimeError("no fonts")


def removed(self, path):
    shutil.rmtree(path.parent)
    path.touch()


@pytest.mark.parametrize("plot, message", [(fails, "RuntimeError: no fonts"), (removed, "FileNotFoundError: ")])
def test_what_was_computed_is_returned_whatever_becomes_of_the_files(kept, tmp_path, monkeypatch, plot, message):
    monkeypatch.setattr(jo.SweepResult, "plot", plot)
    with pytest.warns(RuntimeWarning, match=f"sweep: not all of .* could be written at the end .{message}"):
        result = again(directory=tmp_path / "out")
    assert message in result.warnings[-1]
    equal(result, kept[0])


def test_two_sweeps_that_begin_in_one_directory_do_not_mix(tmp_path, monkeypatch):
    def meanwhile(config):
        if not (tmp_path / "sweep.json").exists():
            sweep(trials=2, directory=tmp_path, seed=1)
        return small.trial(config)

    with pytest.raises(FileExistsError, match=r"another sweep began in .* meanwhile; give another directory"):
        sweep(meanwhile, trials=2, directory=tmp_path)
    assert json.loads((tmp_path / "sweep.json").read_text())["arguments"]["seed"] == 1


def test_a_sweep_killed_before_its_first_word_begins_anew(tmp_path):
    (tmp_path / "events.jsonl").touch()
    assert sweep(trials=2, directory=tmp_path).status == "finished"


def test_a_sweep_is_kept_where_the_system_does_not_say_which_cpus_it_may_use(tmp_path, monkeypatch):
    for name in ("sched_getaffinity", "process_cpu_count", "register_at_fork", "sync", "getuid", "fchmod"):
        monkeypatch.delattr(os, name, raising=False)  # as on macOS and Windows
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    result = sweep(trials=2, directory=tmp_path)
    assert json.loads((tmp_path / "sweep.json").read_text())["versions"]["threads"] == str(os.cpu_count())
    equal(jo.resume(tmp_path), result)


@pytest.mark.skipif(os.name == "nt", reason="these characters are in no path there")
def test_a_sweep_in_a_directory_of_any_name_can_be_read_back(tmp_path):
    folder = tmp_path / "lr[0.1]" / "a\\b" / "gs:"
    result = sweep(trials=2, directory=folder)
    assert {path.name for path in folder.iterdir()} >= {"sweep.json", "checkpoints", "trials.csv", "curves.npz"}
    equal(jo.resume(folder), result)


def test_trials_that_failed_alone_are_told_again_and_their_group_takes_others(tmp_path):
    initial = [{"learning_rate": 0.01, "momentum": momentum} for momentum in (0.5, 1.5)]
    space = {**small.SPACE, "momentum": jo.uniform(0.0, 2.0)}
    call = functools.partial(sweep, space=space, initial=initial, on_error="continue", directory=tmp_path, save_calls=9)
    first, message = call(trials=2), "with learning_rate=0.01, momentum=1.5: ValueError: sgd: momentum must be"
    assert f"trial 1 failed, {message}" in first.summary() and first.trials[0].status == "finished"
    more = call(trials=6)
    assert re.search(f"[234] trials failed, first trial 1 {message}", more.summary())
    assert all((trial.status == "failed") == (trial.config["momentum"] >= 1) for trial in more.trials)
