"""The command line: what it prints, what it writes, and how it ends."""

import inspect
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import pytest

import jaxopt_lite as jo
from jaxopt_lite.log.records import hold

pytest.importorskip("typer")
from jaxopt_lite import cli

ROOT = Path(__file__).parents[1]
MODULE = '''"""A sum of squares goes to zero."""

import jax.numpy as jnp

import jaxopt_lite as jo

OPTIMIZER = "sgd(0.1)"
RATE = 3


def init(key):
    return {"w": jnp.ones(3)}


def loss(params, batch, key):
    return jnp.sum(params["w"] ** 2)


def task():
    return jo.Task(init, loss)


def faulty():
    return jo.Task(init, lambda params, batch, key: params["w"] @ jnp.ones(4))


def stopped():
    raise KeyboardInterrupt


fixed = jo.Task(init, loss)


@jo.schedule
def soft_step(value: jo.Scalar):
    return lambda t: value / (1 + t)


@jo.transformation
def soft_sgd(learning_rate: jo.LearningRate):
    return jo.sgd(learning_rate)


@jo.sampler
def corners(low: float = 0.0):
    def ask(space, seed, start, count, points, scores):
        return jnp.full((count, 1), low)
    return ask


@jo.policy
def halfway():
    return lambda ledger: jo.Decision(target=ledger.steps // 2)

HALF = halfway()


SPACE = {"rate": jo.log_uniform(1e-2, 1.0)}


def trial(config):
    return task(), jo.sgd(config["rate"])
'''


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command in a folder with a module and an experiment: (exit code, what was printed, what was complained)."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if Path(p) != ROOT])
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tiny", "experiments")]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "experiments").mkdir()
    for path in (tmp_path / "tiny.py", tmp_path / "experiments" / "squares.py"):
        path.write_text(MODULE)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main(list(arguments))
        shown = capsys.readouterr()
        return end.value.code, shown.out, shown.err

    return run


@pytest.mark.parametrize("arguments", [[], ["--help"]], ids=["nothing", "--help"])
def test_help_names_the_commands(run, arguments):
    code, out, err = run(*arguments)
    assert code == 0 and not err
    assert all(re.search(rf"^  {name}  ", out, re.MULTILINE) for name in ("list", "show", "train"))
    assert "..." not in out.split("Commands:")[1], "nothing is cut off"


def test_help_names_the_options(run):
    code, out, _ = run("train", "--help")
    assert code == 0
    options = "optimizer steps batch-size seed seeds eval-every target patience min-grad-norm metric mode restore-best"
    assert all(f"--{name}" in out for name in [*options.split(), "directory", "overwrite", "tracker", "progress"])


def test_list_names_optimizers_and_experiments(run, tmp_path):
    for name, source in {"helper": "x = 1\n", "__main__": "def main(): pass\n", "plain": "def main(): pass\n"}.items():
        (tmp_path / "experiments" / f"{name}.py").write_text(source)
    code, out, _ = run("list")
    assert code == 0
    assert "  adam(learning_rate, b1=0.9, b2=0.999, " in out
    assert re.search(r"experiments\.squares +A sum of squares goes to zero\.\n", out)
    assert "experiments.plain\n" in out and "helper" not in out and "__main__" not in out


def test_list_says_that_there_are_no_experiments(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "experiments")
    assert "Experiments: none in ./experiments" in run("list")[1]


def test_show_tells_what_an_optimizer_is(run):
    code, out, _ = run("show", "chain(clip_by_global_norm(1.0), adamw(1e-3))")
    assert code == 0
    for words in (
        "chain(clip_by_global_norm(1.0), adamw(0.001))",
        "scale_by_adam()",
        "add_decayed_weights(",
        "adamw.learning_rate ",
        "8 bytes for each float32 parameter",
    ):
        assert words in out
    code, out, _ = run("show", "quantize_state(adamw(1e-3))")
    assert code == 0 and "2.03 bytes for each float32 parameter, acts on: leaf" in out
    code, out, _ = run("show", "quantize_state(adamw(1e-3))", "--task", "tiny:fixed")
    assert code == 0 and "8 bytes for each parameter of tiny:fixed (3 parameters, 24 bytes)" in out


def test_solvers_are_listed_and_shown(run):
    assert "  solvers.lbfgs(c1=0.0001, c2=0.9, " in run("list")[1]
    code, out, _ = run("show", "solvers.lbfgs(first_step=0.5)")
    assert code == 0 and "lbfgs.first_step  0.5" in out and "bytes" not in out


def test_train_says_how_it_ended(run):
    code, out, err = run("train", "tiny", "--steps", "40", "--eval-every", "20")
    assert code == 0
    assert out.startswith("sgd(0.1): All steps were done.\n")
    assert re.search(r"\n  train\.loss +\d\.\d+e-", out)
    assert err == "", "progress is shown on a terminal only"


def test_train_takes_a_task_and_an_optimizer_by_name(run):
    code, out, _ = run("train", "experiments.squares:fixed", "--optimizer", "adam(0.5)", "--steps", "2")
    assert code == 0 and out.startswith("adam(0.5): All steps")


def test_train_shows_the_spread_of_several_runs(run):
    code, out, _ = run("train", "tiny:fixed", "--steps", "2", "--seeds", "3")
    assert code == 0 and "Mean ± standard deviation of 3 runs:\n" in out
    assert re.search(r"\n  learning_rate +0\.1 ± 0\n", out)


def test_train_stops_as_it_is_told(run):
    flags = ["--target", "0.5", "--metric", "train.loss", "--eval-every", "1", "--restore-best", "--batch-size", "0"]
    code, out, _ = run("train", "tiny", "--steps", "50", *flags)
    assert code == 0 and "The target was reached." in out


def test_train_writes_a_directory_once(run, tmp_path):
    code, out, _ = run("train", "tiny", "--steps", "4", "--directory", "out/run")
    assert code == 0 and "written to out/run" in out
    files = {"metrics.jsonl", "metrics.csv", "summary.json", "curves.png", "checkpoints"}
    assert {p.name for p in (tmp_path / "out" / "run").iterdir()} == files
    assert run("train", "tiny", "--steps", "4", "--directory", "out/run")[:2] == (0, out), "the result is read back"
    code, _, err = run("train", "tiny", "--steps", "4", "--seed", "1", "--directory", "out/run")
    assert code == 2 and "or --overwrite. What differs: seed: 0 then, 1 now\n" in err
    assert run("train", "tiny", "--steps", "4", "--seed", "1", "--directory", "out/run", "--fresh")[0] == 0


def test_lapack_gets_one_thread(run, monkeypatch):
    pools = pytest.importorskip("threadpoolctl")
    threads = lambda: {pool["num_threads"] for pool in pools.threadpool_info() if pool["user_api"] == "blas"}
    with pools.threadpool_limits(2, user_api="blas"):
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
        assert run("list")[0] == 0 and threads() == {2}, "unless the user says otherwise"
        monkeypatch.delenv("OPENBLAS_NUM_THREADS")
        assert run("list")[0] == 0 and threads() == {1}


def test_train_has_trackers(run, tmp_path):
    flags = ["--steps", "4", "--eval-every", "2", "--tracker", "csv:out.csv", "--tracker", "console"]
    code, out, err = run("train", "tiny", *flags, "--progress", "lines")
    assert code == 0 and "step 2  train.loss" in out and "step 4/4" in err
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3
    for text in ("csv", "tensorbord:x", "console:x"):
        code, _, err = run("train", "tiny", "--tracker", text)
        assert code == 2 and f"'{text}' is not a tracker; give console, csv:PATH, tensorboard:DIRECTORY," in err


ERRORS = {
    ("trian",): "No such command 'trian'. Did you mean 'train'?",
    ("train",): "Missing argument 'MODULE[:TASK]'.",
    ("train", "tiny", "--stepz", "3"): "No such option: --stepz (Possible options: ",
    ("train", "tiny", "--steps", "0"): "Invalid value for '--steps'",
    ("train", "tiny", "--steps", "many"): "Invalid value for '--steps'",
    ("train", "tiny:tusk"): "tiny has no task 'tusk'; did you mean task?",
    ("train", "tiny:RATE"): "tiny has no task 'RATE'; it must be a jaxopt_lite.Task",
    ("train", "experiments.sqares"): "there is no module 'experiments.sqares'; did you mean experiments.squares?",
    ("train", "nowhere.at_all"): "there is no module 'nowhere.at_all'; there are experiments.squares (looked in /",
    ("train", "tiny.py"): "there is no module 'tiny.py'; did you mean tiny?",
    ("train", "tiny", "--optimizer", "adm(0.1)"): "there is no 'adm'; did you mean adam",
    ("train", "tiny", "--optimizer", "own(0.1)"): "there is no 'own'; tiny may define it (@jo.transformation, ",
    ("train", "tiny", "--optimizer", "soft_sg(0.1)"): "there is no 'soft_sg'; did you mean soft_sgd",
    ("train", "tiny", "--optimizer", "soft_sgd"): "write soft_sgd(...)",
    ("train", "tiny", "--optimizer", "sgd(-0.1)"): "sgd: learning_rate must be ",
    (
        "train",
        "tiny",
        "--optimizer",
        "cosine_decay_schedule(0.1, 9)",
    ): "is not an optimizer; give a call such as ",
    ("train", "tiny", "--metric", "train.los"): "there is no metric 'train.los'; did you mean train.loss?",
    ("train", "tiny:faulty"): "tiny.py:24: dot_general requires",
    ("train", "tiny", "--directory", "tiny.py"): "directory tiny.py cannot be made",
    ("sweep", "tiny"): "trials must be given: sobol() has no end of points",
    ("sweep", "tiny:trail"): "tiny has no trial 'trail'; did you mean trial?",
    ("sweep", "tiny:RATE"): "tiny has no trial 'RATE'; it must be a function: config -> (task, optimizer)",
    ("sweep", "tiny", "--sampler", "sobl"): "there is no 'sobl'; did you mean sobol?",
    ("sweep", "tiny", "--policy", "sobol"): "--policy 'sobol' is not a policy",
    ("sweep", "tiny", "--policy", "cornr"): "there is no 'cornr'; did you mean corners",
    (
        "sweep",
        "tiny",
        "--policy",
        "owned",
    ): "tiny may define it (@jo.transformation, @jo.schedule, @jo.sampler, @jo.policy, @jo.solver)",
    ("sweep", "tiny", "--policy", "corners"): "--policy 'corners' is not a policy",
    ("sweep", "tiny", "--trials", "2", "--on-error", "stop"): "on_error must be 'raise' or 'continue', got 'stop'",
    ("sweep", "tiny", "--trials", "2", "--compute-dtype", "int8"): "compute_dtype",
    ("sweep", "tiny", "--trials", "2", "--initial", "rate"): "--initial 'rate' must be NAME=VALUE, NAME=VALUE, ...",
    ("sweep", "tiny", "--trials", "2", "--initial", "rate=1e-1, rate=2"): "--initial rate is given twice",
    ("sweep", "tiny", "--trials", "2", "--initial", "rate=(1"): "--initial 'rate=(1' cannot be read",
    (
        "sweep",
        "tiny",
        "--trials",
        "2",
        "--initial",
        "{'rate'}}",
    ): "cannot be read; give a dict of literals, or NAME=VALUE",
    ("sweep", "tiny", "--trials", "2", "--initial", "ratio=0.1"): "initial[0]: ",
    ("sweep", "tiny", "--trials", "2", "--initial", "rate=5.0"): "initial[0]: ",
    ("sweep", "tiny", "--space", "a.b=1", "--space", "a.b.c=2"): "--space a.b.c is given twice",
    ("show", "adam(1e-3, " + "b1=0.9, " * 60): "cannot read 'adam(1e-3, b1",
    ("show", "x" * 300): "there is no 'xxx",
    ("show", "a/" * 3000): "cannot read 'a/a/",
    ("resume", "x" * 300): "there is no sweep in xxx",
    ("train", "x" * 300): "there is no module 'xxx",
    ("train", "tiny", "--optimizer", "x" * 300): "there is no 'xxx",
    ("sweep", "tiny", "--policy", "successive_halving(1)"): "factor must be an int of at least 2, got 1",
    ("sweep", "tiny", "--space", "rate"): "--space 'rate' must be NAME=DISTRIBUTION",
    ("sweep", "tiny", "--space", "rate="): "--space 'rate=' must be NAME=DISTRIBUTION",
    ("sweep", "tiny", "--space", "rate=log_unif(1, 2)"): "there is no 'log_unif'; did you mean log_uniform",
    ("sweep", "tiny", "--trials", "2", "--space", "lr=uniform(0, 1)"): "KeyError: 'rate'; trial was called with {'lr'",
    ("sweep", "tiny", "--trials", "2", "--metric", "train.los", "--mode", "min"): "'train.los'; did you mean train",
    ("sweep", "tiny", "--trials", "2", "--steps", "150"): "steps=150 must be a multiple of eval_every=100, such as 200",
    ("sweep", "tiny", "--trials", "2", "--width", "wide"): "'--width': Input should be a valid integer",
    ("resume", "nowhere"): "there is no sweep in nowhere: it has no sweep.json",
    ("resume", "tiny.py"): "there is no sweep in tiny.py",
    ("show", "experiments"): "there is no sweep in experiments (no sweep.json), and no run (no metrics.jsonl)",
    ("show", "owns(1e-3)"): "there is no 'owns'; jaxopt_lite does not define it",
    ("show", "adamx(1e-3)"): "there is no 'adamx'; did you mean adamax",
    ("show", "adam("): "cannot read 'adam('",
    ("show", "adam"): "write adam(...)",
}


@pytest.mark.parametrize("arguments", ERRORS, ids=lambda arguments: " ".join(arguments)[:60])
def test_an_error_is_one_line_that_names_what_was_meant(run, arguments):
    code, out, err = run(*arguments)
    assert code == 2 and not out
    assert err.startswith("error: ") and err.count("\n") == 1 and ERRORS[arguments] in err


def test_sweep_show_and_resume(run, tmp_path):
    given = ["--trials", "4", "--steps", "4", "--eval-every", "2", "--policy", "successive_halving(2)"]
    code, out, err = run("sweep", "tiny", *given, "--directory", "out")
    assert code == 0 and err == ""
    assert re.search(r"trial +train.loss +steps +status +config\n", out) and "rate=" in out
    assert out.endswith("written to out\n") and (tmp_path / "out" / "trials.csv").exists()
    code, shown, _ = run("show", "out")
    assert code == 0 and shown.startswith("tiny:trial: finished, 4 trials of 4 steps\n")
    assert re.search(r"metric +train.loss\n", shown) and "best trial: " in shown and "resume with" not in shown
    assert run("resume", "out")[:2] == (0, out)
    assert run("resume", "out", "--trial", "tiny")[:2] == (0, out)
    code, _, err = run("sweep", "tiny", *given[2:], "--trials", "3", "--directory", "out")
    assert code == 2 and "trials: 4 then, 3 now" in err


def test_a_space_can_be_given_by_the_command(run):
    given = ["--trials", "2", "--steps", "2", "--eval-every", "2", "--sampler", "grid(2)", "--width", "2"]
    code, out, _ = run("sweep", "tiny", *given, "--space", "rate=uniform(0.1, 0.2)", "--space", "name=out")
    assert code == 2 and not out  # a name is a text, and is written as one
    code, out, _ = run("sweep", "tiny", *given, "--space", "rate=uniform(0.1, 0.2)", "--space", "name='out'")
    assert code == 0 and "rate=0.2" in out and "rate=0.1" in out


def test_a_sweep_takes_what_the_function_takes(run):
    """Except for what is no text: the trial is the module's, and devices and progress are the command's own."""
    names = inspect.signature(jo.sweep).parameters.keys() - {"trial", "devices", "progress"}
    code, out, _ = run("sweep", "--help")
    assert code == 0 and not [name for name in names if f"--{name.replace('_', '-')}" not in out]
    names = inspect.signature(jo.fit).parameters.keys() - {"task", "params", "state", "callbacks", "trackers"}
    code, out, _ = run("train", "--help")
    assert code == 0 and not [name for name in names if f"--{name.replace('_', '-')}" not in out]


def test_what_is_given_arrives(run, monkeypatch):
    seen = {}

    def sweep(trial, space, **given):
        seen.update(given, space=space)
        raise ValueError("seen")

    monkeypatch.setattr(jo, "sweep", sweep)
    own = ["--sampler", "corners(0.5)", "--policy", "HALF", "--independent", "--on-error", "continue"]
    numbers = ["--compute-dtype", "bfloat16", "--max-groups", "3", "--save-seconds", "5", "--save-calls", "2"]
    texts = ["rate=0.5", "rate=0.1, rule.name='a,b', rule.sizes=[1, 2]", '{"rate": 0.5, "on": true}', "{'rate': None}"]
    texts += ["rate=inf, low=-inf"]
    initial = [word for text in texts for word in ("--initial", text)]
    assert (
        run("sweep", "tiny", "--space", "rule=choice([soft_sgd(0.1)])", *own, *numbers, *initial)[2] == "error: seen\n"
    )
    assert [repr(seen[name]) for name in ("sampler", "policy")] == ["corners(low=0.5)", "halfway()"]
    assert repr(seen["space"]["rule"]) == "choice([soft_sgd(0.1)])"
    assert (seen["independent"], seen["on_error"], seen["compute_dtype"]) == (True, "continue", "bfloat16")
    assert (seen["max_groups"], seen["save_seconds"], seen["save_calls"]) == (3, 5.0, 2)
    nested = {"rate": 0.1, "rule": {"name": "a,b", "sizes": [1, 2]}}
    assert seen["initial"][:2] == [{"rate": 0.5}, nested]
    assert seen["initial"][2:] == [{"rate": 0.5, "on": True}, {"rate": None}, {"rate": math.inf, "low": -math.inf}]


def test_a_sweep_with_a_policy_of_the_module_is_shown_and_resumed(run, tmp_path):
    given = ["--trials", "2", "--steps", "4", "--eval-every", "2", "--policy", "halfway", "--sampler", "corners"]
    code, out, _ = run("sweep", "tiny", *given, "--initial", "rate=0.5", "--directory", "out")
    assert code == 0 and out.count("stopped  rate=") == 2 and "rate=0.5" in out and "rate=0.01" in out
    assert run("resume", "out")[:2] == (0, out)
    (tmp_path / "tiny.py").write_text(MODULE.replace("ledger.steps // 2", "ledger.steps"))
    del sys.modules["tiny"]
    code, _, err = run("resume", "out")
    assert code == 2 and "policy: halfway has changed" in err
    about = json.loads((tmp_path / "out" / "sweep.json").read_text())
    for status, shown in (("running", "interrupted"), ("interrupted", "interrupted")):  # its process has ended
        (tmp_path / "out" / "sweep.json").write_text(json.dumps({**about, "status": status}))
        code, out, _ = run("show", "out")
        assert code == 0 and out.startswith(f"tiny:trial: {shown}, 2 trials") and "jaxopt-lite resume out" in out
    with (tmp_path / "out" / ".lock").open("a") as lock:
        assert hold(lock)
        (tmp_path / "out" / "sweep.json").write_text(json.dumps({**about, "status": "running"}))
        assert run("show", "out")[1].startswith("tiny:trial: running, 2 trials")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"optimizer": 3}', '"text"'])
def test_damaged_files_are_named(run, tmp_path, text):
    for name, other in (("sweep.json", "events.jsonl"), ("summary.json", "metrics.jsonl")):
        (tmp_path / name[:3]).mkdir()
        (tmp_path / name[:3] / name).write_text(text)
        (tmp_path / name[:3] / other).touch()
        code, out, err = run("show", name[:3])
        assert code == 2 and not out and f"{name} is damaged: " in err and err.count("\n") == 1


def test_a_user_without_a_home_can_use_it(run, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setattr(jax.config, "update", lambda *args: pytest.fail("there is nowhere to keep it"))
    assert run("show", "adam(1e-3)")[0] == 0


def test_a_module_without_a_choice_asks_for_an_optimizer(run, tmp_path):
    (tmp_path / "tiny.py").write_text(MODULE.replace("OPTIMIZER", "CHOICE"))
    code, _, err = run("train", "tiny")
    assert code == 2 and "tiny names no OPTIMIZER; give one: --optimizer 'adamw(1e-3)'" in err


@pytest.mark.parametrize("given", ["jo.sgd(0.1)", "'sgd(soft_step(0.1))'", "optax.sgd(0.1)", "soft_sgd(0.1)"])
def test_a_module_chooses_by_text_or_by_value(run, tmp_path, given):
    (tmp_path / "tiny.py").write_text(MODULE + f"\nimport optax\nOPTIMIZER = {given}\n")
    code, out, _ = run("train", "tiny", "--steps", "2")
    assert code == 0 and ": All steps were done.\n  train.loss " in out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("3", "tiny: OPTIMIZER must be a transformation, got 3"),
        ("jo.adam", "tiny: OPTIMIZER must be a transformation, got the function adam; call it: adam(...)"),
        ("'adm(0.1)'", "OPTIMIZER of tiny: cannot read 'adm' in 'adm(0.1)': there is no 'adm'; did you mean adam"),
        ("'soft_step(0.1)'", "OPTIMIZER of tiny: 'soft_step(0.1)' is not an optimizer"),
    ],
)
def test_a_choice_that_is_no_optimizer_is_named(run, tmp_path, given, message):
    (tmp_path / "tiny.py").write_text(MODULE + f"\nOPTIMIZER = {given}\n")
    code, _, err = run("train", "tiny")
    assert code == 2 and message in err and err.count("\n") == 1


def test_an_optimizer_may_name_what_the_module_defines_or_imports(run, tmp_path):
    (tmp_path / "other.py").write_text("from tiny import soft_sgd, soft_step, task\n")
    for module in ("tiny", "other"):
        code, out, _ = run("train", module, "--optimizer", "soft_sgd(soft_step(0.1))", "--steps", "2")
        assert code == 0 and out.startswith("soft_sgd(soft_step(0.1)): All steps")


@pytest.mark.parametrize("seeds", [[], ["--seeds", "2"]], ids=["one", "two"])
def test_show_tells_how_a_run_ended(run, tmp_path, seeds):
    _, trained, _ = run("train", "tiny", "--steps", "4", "--directory", "out", *seeds)
    code, out, err = run("show", "out")
    assert code == 0 and not err and out.startswith("sgd(0.1, momentum=None, ")
    assert re.search(r"\n  status +2 max_steps\n  steps +4\n" if seeds else r"\n  status +max_steps\n  steps +4\n", out)
    assert [line for line in trained.splitlines() if line.startswith("  ")] == out.splitlines()[3:-2]
    assert re.search(r"\n  checkpoints +at step 4: 0\.\d+ MB\n", out)
    (tmp_path / "out" / "summary.json").unlink()
    code, out, _ = run("show", "out")
    assert code == 0 and out == "a run under way, or one that failed: its points so far are in out/metrics.jsonl\n"


def test_a_fault_in_a_module_is_not_mistaken_for_a_missing_module(run, tmp_path):
    (tmp_path / "tiny.py").write_text("import nothing_of_that_name\n")
    code, _, err = run("train", "tiny")
    assert code == 2 and err.startswith("error: tiny.py:1: No module named 'nothing_of_that_name'")


def test_an_interrupt_before_training_leaves_no_traceback(run):
    code, _, err = run("train", "tiny:stopped")
    assert code == 130 and "Traceback" not in err


def test_an_interrupted_sweep_has_the_exit_code_of_an_interrupted_run(run, monkeypatch):
    result = types.SimpleNamespace(summary=lambda: "half of it", status="interrupted")
    monkeypatch.setattr(jo, "resume", lambda *args, **kwargs: result)
    assert run("resume", "out") == (130, "half of it\nwritten to out\n", "")
    result.status = "finished"
    assert run("resume", "out")[0] == 0


def test_ctrl_c_ends_a_run_with_what_was_measured(tmp_path):
    (tmp_path / "tiny.py").write_text(MODULE)
    command, metrics = "from jaxopt_lite.cli import main; main()", tmp_path / "out" / "metrics.jsonl"
    arguments = ["train", "tiny", "--steps", "1000000000", "--directory", "out"]
    with subprocess.Popen(
        [sys.executable, "-c", command, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while process.poll() is None and not (metrics.exists() and metrics.read_text()):
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and "The run was interrupted" in out and "Traceback" not in err
    rows = metrics.read_text().splitlines()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["status"] == "interrupted" and summary["steps_done"] == 200 * len(rows)
    assert jo.parse(summary["optimizer"]) == jo.sgd(0.1)
    assert (tmp_path / "out" / "curves.png").exists()
