"""`jo.sweep` and `jo.resume` as they are used: what they refuse, what they write, and what they leave alone."""

import csv
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.report.exports import write_trials
from jaxopt_lite.sweeps.engine import Outcome
from jaxopt_lite.sweeps.ledger import Copy
from jaxopt_lite.sweeps.pool import Winner
from tests.sweeps import small

ROOT = Path(__file__).parents[1]
RUN = {"trials": 6, "steps": small.STEPS, "batch_size": small.BATCH, "eval_every": small.EVAL_EVERY, "seeds": 2}


def sweep(trial=small.trial, space=small.SPACE, **given):
    return jo.sweep(trial, space, **{**RUN, **given})


def same_trial(config):
    return small.trial(config)


def other_trial(config):
    return small.task(hidden=3), jo.sgd(config["learning_rate"], momentum=config["momentum"])


@jo.policy
def worse_half():
    def decide(ledger):
        middle = ledger.points // 2 * ledger.eval_every
        if (ledger.step[ledger.running] == 0).any():
            return jo.Decision(target=middle)
        scores = ledger.score_at(middle)
        return jo.Decision(target=ledger.steps, stop=scores > np.median(scores))

    return decide


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A finished sweep, and its directory."""
    folder = tmp_path_factory.mktemp("sweep") / "kept"
    return sweep(policy=worse_half(), directory=folder), folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.ledger.saved(), other.ledger.saved())
    jax.tree.map(np.testing.assert_array_equal, one.best.params, other.best.params)


def test_a_result_says_what_was_found(kept):
    result, _ = kept
    assert [trial.number for trial in result.trials] == list(range(6))
    assert result.best.score == min(t.score for t in result.trials if t.status == "finished")
    assert {t.status for t in result.trials} == {"finished", "stopped"}
    assert result.curves["valid.loss"].shape == (6, 2, small.STEPS // small.EVAL_EVERY)
    assert result.best.params["w"].shape == (2, 5, 4) and "test.loss" in result.best.metrics
    assert str(result.best.number) in result.summary()


def test_progress_ends_with_the_end(kept, capsys):
    result = sweep(policy=worse_half(), progress="lines")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "6 trials in 1 group, 2 seeds each" and lines[1].startswith("all trials: 6 trials, 8 at a time")
    assert lines[-1].startswith("6/6 trials") and lines[-1].endswith(f"(trial {result.best.number})")


def ledger_of(scores, highest=False, lineage=()):
    """A finished ledger of one seed with these curves, [trials, points]."""
    curve = np.array(scores, np.float32)[:, None, :]
    made = jo.Ledger(jo.space(small.SPACE), "valid.loss", highest, 10 * curve.shape[2], 10, 1, 0)
    made.extend(made.space.from_unit(np.full((len(curve), 2), 0.5)))
    made.curves = {"valid.loss": curve}
    made.step[:], made.status[:], made.lineage = made.steps, 1, list(lineage)
    return made


BETTER_BEFORE = {  # curves of the best trial, whether high is good, steps of copies: the step that is pointed out
    "overfitted": ([0.5, 0.1, 0.3], False, (), 20),
    "first": ([0.1, 0.2, 0.3], False, (), 10),
    "accuracy": ([0.8, 0.9, 0.7], True, (), 20),
    "negative": ([-3.0, -5.0, -4.0], False, (), 20),
    "with a gap": ([0.1, np.nan, 0.3], False, (), 10),
    "best at the end": ([0.5, 0.3, 0.1], False, (), None),
    "as good before": ([0.5, 0.1, 0.1], False, (), None),
    "as good in four digits": ([0.5, 0.1234501, 0.1234502], False, (), None),
    "copied since": ([0.1, 0.4, 0.3], False, (10,), None),
    "copied before": ([0.1, 0.2, 0.3], False, (10,), 20),
    "one point": ([0.5], False, (), None),
}


@pytest.mark.parametrize("name", BETTER_BEFORE)
def test_a_winner_that_was_better_before_is_pointed_out(name):
    curve, highest, copies, step = BETTER_BEFORE[name]
    made = ledger_of([curve], highest, [Copy(0, 0, at, np.zeros(2), False) for at in copies])
    result = jo.SweepResult.of(Outcome(made, Winner(0, {}, None, {}), True), 1.0, None, [])
    notes = [line for line in result.summary().splitlines() if "had its best valid.loss" in line]
    assert len(notes) == (step is not None) and all(f"{curve[step // 10 - 1]:.4g}, at step {step};" in s for s in notes)


def test_the_summary_of_an_interrupted_sweep_says_what_is_unfinished():
    made = ledger_of([[0.5, 0.4], [0.3, np.nan], [np.nan, np.nan]])
    made.status[1:], made.step[:] = 0, (20, 10, 0)
    result = jo.SweepResult.of(Outcome(made, None, False), 1.0, None, [])
    assert "interrupted" in result.message and "2 unfinished, 1 finished" in result.message
    assert "running" not in result.summary() and result.summary().count("unfinished") == 3


def test_errors_stand_beside_their_trials(tmp_path):
    result = sweep(raising, on_error="continue", directory=tmp_path)
    with (tmp_path / "trials.csv").open(newline="", encoding="utf-8") as file:
        assert [row["error"] for row in csv.DictReader(file)] == ["RuntimeError: no such file"] * 6
    assert result.to_dataframe()["error"].tolist() == ["RuntimeError: no such file"] * 6
    made = ledger_of([[0.5], [0.4]])
    made.errors = {1: 'ValueError: "a", b\nc'}
    write_trials(made, tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="", encoding="utf-8") as file:
        assert [row["error"] for row in csv.DictReader(file)] == ["", 'ValueError: "a", b\nc']


# What is refused -----------------------------------------------------------------------------------------------------


def from_data(config):
    task = small.task()
    return dataclasses.replace(task, train=jax.tree.map(lambda x: x * config["momentum"], task.train)), jo.sgd(0.1)


def raising(config):
    raise RuntimeError("no such file")


REFUSED = {
    "empty space": ({"space": {}}, ValueError, "space: spec is empty"),
    "constants": ({"space": {"learning_rate": 0.1}}, ValueError, "6 trials would all be the same"),
    "unhashable": ({"space": {"a": np.ones(3)}}, TypeError, "the constant 'a' must be hashable"),
    "no trials": ({"trials": 0}, ValueError, "sweep: trials must be an int of at least 1, got 0"),
    "no number of trials": ({"trials": None}, ValueError, r"sweep: trials must be given: sobol\(\) has no end"),
    "no seeds": ({"seeds": 0}, ValueError, "sweep: seeds must be an int of at least 1, got 0"),
    "a seed of 33 bits": ({"seed": 2**32}, ValueError, "seed must be at most 4294967294, because .* 32 bits"),
    "a last seed of 33 bits": ({"seed": 2**32 - 1}, ValueError, "seed must be at most 4294967294, .*got 4294967295"),
    "too many steps": ({"steps": 3 * 10**9}, ValueError, "steps must be at most 2147483647, .*got 3000000000"),
    "too rare": ({"steps": 2**31, "eval_every": 2**31}, ValueError, "steps must be at most 2147483647"),
    "too many seeds": ({"seeds": 2**32}, ValueError, "seeds must be at most 2147483647"),
    "too large batches": ({"batch_size": 2**40}, ValueError, "batch_size must be at most 2147483647"),
    "too wide": ({"width": 2**40}, ValueError, "width must be at most 2147483647"),
    "too many trials": ({"trials": 2**31}, ValueError, "trials must be at most 2147483647"),
    "too many points": ({"trials": 2**30 + 1}, ValueError, r"sobol: there are at most 2\*\*30 points"),
    "steps": ({"steps": 15}, ValueError, "steps=15 must be a multiple of eval_every=2, such as 16"),
    "metric": (
        {"metric": "valid.los"},
        ValueError,
        "sweep: there is no metric 'valid.los'; did you mean valid.loss",
    ),
    "test": ({"metric": "test.loss"}, ValueError, "test data are evaluated for the winner alone"),
    "mode": ({"mode": "maximum"}, ValueError, "mode must be 'min' or 'max', got 'maximum'"),
    "factory": ({"policy": jo.successive_halving}, TypeError, r"call it: successive_halving\(...\)"),
    "sampler": ({"sampler": "sobol"}, TypeError, "sampler must be a sampler, got the string 'sobol'"),
    "width": ({"width": 0}, ValueError, "width must be an int of at least 1, got 0"),
    "initial": ({"initial": [{"learning_rate": 0.01}]}, ValueError, r"initial\[0\]: momentum is missing"),
    "initial, many": (
        {"initial": [{"learning_rate": 0.01, "momentum": 0.5}] * 7},
        ValueError,
        "trials=6 has no room for the 7 configs of initial",
    ),
    "save_seconds": ({"save_seconds": "60"}, ValueError, "save_seconds must be a number of at least 0"),
    "devices": ({"devices": "cpu"}, TypeError, "devices must be a list of devices"),
    "no devices": ({"devices": []}, TypeError, "devices must be a list of devices"),
    "independent": ({"independent": "no"}, TypeError, "independent must be True or False, got the string 'no'"),
    "batch": ({"batch_size": 100}, ValueError, "batch_size=100 is more than the 20 training examples"),
    "groups": (
        {"space": {**small.SPACE, "hidden": jo.int_uniform(1, 999)}, "max_groups": 4},
        ValueError,
        "6 groups, .* more than max_groups=4: 'hidden' is static and has 6 values",
    ),
    "nothing": ({"trial": lambda config: None}, TypeError, r"trial must return \(task, optimizer\), got None"),
    "no call": ({"trial": lambda config: (small.task(), jo.adam)}, TypeError, r"call it: adam\(...\)"),
    "no function": ({"trial": small.task()}, TypeError, "trial must be a function of a config"),
    "raises": ({"trial": raising}, RuntimeError, "no such file"),
    "data": ({"trial": from_data}, ValueError, "train data depend on a traced number .*momentum"),
    "interval": (
        {"policy": jo.population_based(interval=3)},
        ValueError,
        "interval=3 must be a multiple of eval_every=2",
    ),
    "interval too long": ({"policy": jo.population_based(interval=16)}, ValueError, "interval=16 must be below steps"),
    "first rung": ({"policy": jo.successive_halving(min_steps=16)}, ValueError, "min_steps=16 must be below steps=16"),
    "decision": ({"policy": jo.policy(lambda: lambda ledger: 5)()}, TypeError, "must return a Decision, got 5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_leaves_nothing_behind(tmp_path, name):
    given, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        sweep(**given, directory=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_refused_overwrites_nothing(kept, overwrite):
    _, folder = kept
    before = contents(folder)
    with pytest.raises(RuntimeError, match="no such file"):
        sweep(raising, policy=worse_half(), directory=folder, overwrite=overwrite)
    assert contents(folder) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_is_not_replaced_by_a_sweep(tmp_path, overwrite):
    (tmp_path / "metrics.jsonl").write_text("kept")
    with pytest.raises(FileExistsError, match=rf"{tmp_path} holds a run of fit \(metrics.jsonl\), .* give another"):
        sweep(directory=tmp_path, overwrite=overwrite)
    assert contents(tmp_path) == {"metrics.jsonl": b"kept"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_somebody_else_are_not_touched(tmp_path, overwrite):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine").write_text("precious")
    with pytest.raises(FileExistsError, match="holds checkpoints, which does not belong to a sweep; give another"):
        sweep(directory=tmp_path, overwrite=overwrite)
    assert contents(tmp_path) == {"checkpoints/mine": b"precious"}


@pytest.mark.parametrize(
    "make", [lambda n: jnp.zeros(n), lambda n: np.zeros(n), lambda n: list(range(n))], ids=["jax", "numpy", "range"]
)
def test_a_traced_number_that_decides_a_shape_is_explained(make):
    def trial(config):
        make(config["layers"])
        return small.task(), jo.sgd(0.1)

    with pytest.raises(TypeError) as caught:
        sweep(trial, {"layers": jo.int_uniform(2, 4, traced=True)})
    assert any("are here layers; what decides about shapes" in note for note in caught.value.__notes__)


def test_trials_that_fail_are_counted_and_explained():
    result = sweep(raising, on_error="continue")
    assert [trial.status for trial in result.trials] == ["failed"] * 6 and result.best is None
    assert result.trials[0].error == "RuntimeError: no such file"
    assert re.search(r"6 trials failed, first trial 0 with learning_rate=\S+, .*no such file", result.summary())


# What is kept --------------------------------------------------------------------------------------------------------


def test_the_same_call_and_resume_read_a_finished_sweep_back(kept):
    result, folder = kept
    equal(sweep(policy=worse_half(), directory=folder), result)
    equal(jo.resume(folder), result)
    status = json.loads((folder / "sweep.json").read_text())
    assert status["arguments"]["policy_from"] == "tests.test_sweep:worse_half" and status["status"] == "finished"


def test_options_that_are_not_finite_are_read_back(tmp_path):
    space = {**small.SPACE, "clip": jo.choice([0.5, float("inf"), float("nan")])}
    for clip in (float("inf"), float("nan")):
        initial = [{"learning_rate": 0.01, "momentum": 0.5, "clip": clip}]
        call = lambda i=initial, c=clip: sweep(space=space, initial=i, trials=1, directory=tmp_path / str(c))
        first = call()
        equal(call(), first)
        equal(jo.resume(tmp_path / str(clip)), first)
        read = json.loads((tmp_path / str(clip) / "sweep.json").read_text(), parse_constant=pytest.fail)
        assert read["best"]["config"]["clip"] == {"inf": "Infinity", "nan": "NaN"}[str(clip)]


def test_another_sweep_is_refused_with_what_differs(kept):
    _, folder = kept
    before = contents(folder)
    with pytest.raises(ValueError, match=r"holds another sweep(.|\n)*seed: 0 then, 1 now"):
        sweep(policy=worse_half(), directory=folder, seed=1)
    assert contents(folder) == before


def test_a_trial_may_move_but_not_change(kept):
    result, folder = kept
    equal(jo.resume(folder, same_trial), result)
    with pytest.raises(ValueError, match="the program of all trials changed"):
        jo.resume(folder, other_trial)


def test_whole_numbers_of_numpy_are_ints(kept):
    result, folder = kept
    numbers = {name: np.int64(value) for name, value in RUN.items()}
    equal(sweep(policy=worse_half(), directory=folder, seed=np.int32(0), **numbers), result)


def test_overwrite_begins_anew(kept, tmp_path):
    result, _ = kept
    sweep(directory=tmp_path, seed=1)
    equal(sweep(policy=worse_half(), directory=tmp_path, overwrite=True), result)
    events = [json.loads(line)["event"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events[0] == "proposed" and events[-1] == "finished" and events.count("finished") == 1


def test_more_trials_extend_a_sweep(tmp_path):
    few = sweep(directory=tmp_path, trials=3, width=8)
    more = sweep(directory=tmp_path, trials=6, width=8)
    np.testing.assert_array_equal(more.ledger.table[:3], few.ledger.table)
    np.testing.assert_array_equal(more.curves["valid.loss"][:3], few.curves["valid.loss"])
    assert [trial.status for trial in more.trials] == ["finished"] * 6
    with pytest.raises(ValueError, match="trials: 6 then, 3 now"):
        sweep(directory=tmp_path, trials=3, width=8)


def test_a_folder_without_a_sweep_cannot_be_resumed(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(FileNotFoundError, match="there is no sweep in"):
            jo.resume(path)


SCRIPT = """
import jaxopt_lite as jo
from tests.sweeps import small

def trial(config):
    return small.trial(config)

if __name__ == "__main__":
    result = jo.sweep(trial, small.SPACE, 6, 1_000_000, small.BATCH, 1000, directory="out", progress="lines")
    print(result.status)
"""


def test_a_signal_ends_a_script_that_another_process_goes_on_with(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert any("member-steps" in line for line in process.stderr)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0 and out == "interrupted\n"
    about = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert about["status"] == "interrupted" and about["arguments"]["trial"] == "__main__:trial"
    with pytest.raises(
        ValueError, match=r"trial '__main__:trial' cannot be imported by name; .*resume\(directory, trial="
    ):
        jo.resume(tmp_path / "out")
