"""One run, and lists of what is available: `jaxopt-lite list | show | train`."""

import ast
import collections
import os
import re
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from typer import Argument, Option

import jaxopt_lite as jo
from jaxopt_lite import optimizers
from jaxopt_lite.cli.app import INTERRUPTED, app
from jaxopt_lite.cli.names import optimizer_of, own_optimizer, task_of, tracker_of
from jaxopt_lite.cli.sweeps import show_sweep
from jaxopt_lite.core.hyperparameters import rules
from jaxopt_lite.log.records import read_json
from jaxopt_lite.run.folder import is_running

__all__ = []

_SUMMARY = {"optimizer": str, "status": (str, list), "steps_done": (int, list), "metrics": dict}
_EXPERIMENT = re.compile(r"^(def )?(task|trial|main)\b|\bTask\(", re.M)  # other files there are helper modules


@app.command("list")
def list_() -> None:
    """List methods with their defaults, and experiments."""
    for title, module, folder in (
        ("Optimizers", optimizers, ""),
        ("\nSolvers", jo.solvers, "solvers."),
        ("\nGlobal search", jo.search, "search."),
    ):
        print(title)
        for name in module.__all__:
            arguments = [
                p.name if p.default is p.empty else f"{p.name}={p.default!r}"
                for p in getattr(module, name).spec.signature.parameters.values()
            ]
            print(f"  {folder}{name}({', '.join(arguments)})")
    sources = {path.stem: path.read_text(encoding="utf-8") for path in sorted(Path("experiments").glob("[!_]*.py"))}
    found = {name: source for name, source in sources.items() if _EXPERIMENT.search(source)}
    print("\nExperiments" + ("" if found else ": none in ./experiments"))
    for name, source in found.items():
        print(f"  {'experiments.' + name:32}{_first_line(source)}".rstrip())


@app.command()
def show(
    text: Annotated[
        str, Argument(metavar="METHOD|DIRECTORY", help='such as "adamw(1e-3)", "solvers.lbfgs()", or of a run or sweep')
    ],
    of: Annotated[str | None, Option("--task", metavar="MODULE[:TASK]", help="for the parameters of this task")] = None,
) -> None:
    """Show an optimizer, a solver, or the status of a run or sweep."""
    if os.path.isdir(text):  # False for a text of any length, where Path.is_dir raises
        directory = Path(text)
        show_sweep(directory) if (directory / "sweep.json").exists() else _show_run(directory)
        return
    method = optimizer_of(text, or_solver=True)
    print(method)
    if isinstance(method, jo.GradientTransformation):
        print("\nchains")
        for rule in rules(method):
            print(f"  {rule}")
    print("\nhyperparameters")
    values = jo.hyperparameters(method)
    width = max(map(len, values), default=0)
    for path, value in values.items():
        print(f"  {path:{width}}  {value:g}" if np.ndim(value) == 0 else f"  {path:{width}}  {np.asarray(value)}")
    if isinstance(method, jo.GradientTransformation):
        print(f"\nstate\n  {_bytes_of_state(method, of)}, acts on: {method.acts_on}")


def _bytes_of_state(optimizer: jo.GradientTransformation, where: str | None) -> str:
    """Bytes of the state for each parameter of a task, or of a large float32 matrix."""
    if where is None:
        params, of = {"w": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}, "float32 parameter"
    else:
        task, _ = task_of(where)
        made = jax.eval_shape(task.init, jax.random.key(0))
        params = made[0] if task.stateful else made
        of = f"parameter of {where}"
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    total = jo.state_bytes(optimizer, params)
    every = f" ({number} parameters, {total} bytes)" if where else ""
    return f"{total / max(number, 1):.3g} bytes for each {of}{every}"


@app.command()
def train(
    module: Annotated[str, Argument(metavar="MODULE[:TASK]", help="a module with a Task or a function that makes one")],
    optimizer: Annotated[str | None, Option(help='such as "adamw(1e-3)"; without it the module\'s OPTIMIZER')] = None,
    steps: Annotated[int, Option(min=1, help="number of steps")] = 2000,
    batch_size: Annotated[int, Option(min=0, help="examples in a batch; 0 takes all of them")] = 128,
    seed: Annotated[int, Option(min=0, help="of initialisation and data order")] = 0,
    seeds: Annotated[int | None, Option(min=1, help="train this many runs side by side")] = None,
    eval_every: Annotated[int, Option(min=1, help="steps between evaluations")] = 200,
    target: Annotated[float | None, Option(help="stop when the watched metric reaches this")] = None,
    patience: Annotated[int | None, Option(min=1, help="stop after this many points without improvement")] = None,
    min_grad_norm: Annotated[float | None, Option(min=0, help="stop at this norm of the gradient")] = None,
    metric: Annotated[str | None, Option(help="the watched metric, such as valid.loss")] = None,
    mode: Annotated[str | None, Option(help="min or max")] = None,
    restore_best: Annotated[bool, Option("--restore-best", help="keep the parameters of the best point")] = False,
    compute_dtype: Annotated[str | None, Option(help="dtype of the loss, such as bfloat16")] = None,
    accumulate: Annotated[int, Option(min=1, help="pieces in which a batch is worked, to save memory")] = 1,
    eval_batch_size: Annotated[int | None, Option(min=1, help="evaluate in pieces of so many examples")] = None,
    remat: Annotated[bool, Option("--remat", help="compute again what the gradient needs, to save memory")] = False,
    directory: Annotated[Path | None, Option(help="where the run is kept; the same command resumes it")] = None,
    overwrite: Annotated[bool, Option("--overwrite", "--fresh", help="start over, instead of resuming")] = False,
    save_seconds: Annotated[float, Option(min=0, help="seconds between two checkpoints")] = 60.0,
    save_steps: Annotated[int | None, Option(min=1, help="steps between two checkpoints")] = None,
    keep: Annotated[int, Option(min=1, help="how many of the latest checkpoints to keep")] = 2,
    tracker: Annotated[
        list[str] | None, Option(help="console, csv:PATH, tensorboard:DIRECTORY, mlflow[:URI] or wandb[:PROJECT]")
    ] = None,
    progress: Annotated[str, Option(help="auto (a bar on a terminal), bar, lines or none")] = "auto",
    prefetch: Annotated[int, Option(min=0, help="stacks of an iterator's batches that are made ahead")] = 2,
    profile: Annotated[
        str | None, Option(metavar="FIRST:LAST", help="write a trace of these steps to DIRECTORY/profile")
    ] = None,
) -> int:
    """Train the task of a module, and print how it ended."""
    task, home = task_of(module)
    rule = optimizer_of(optimizer, home) if optimizer else own_optimizer(home)
    result = jo.fit(
        task,
        rule,
        steps=steps,
        batch_size=batch_size or None,
        seed=seed,
        seeds=seeds,
        eval_every=eval_every,
        target=target,
        patience=patience,
        min_grad_norm=min_grad_norm,
        metric=metric,
        mode=mode,
        restore_best=restore_best,
        compute_dtype=compute_dtype,
        accumulate=accumulate,
        eval_batch_size=eval_batch_size,
        remat=remat,
        directory=directory,
        overwrite=overwrite,
        save_seconds=save_seconds,
        save_steps=save_steps,
        keep=keep,
        trackers=[tracker_of(text) for text in tracker or []],
        progress=progress,
        prefetch=prefetch,
        profile=_window(profile),
    )
    print(f"{rule}: {result.message}" + (f" Mean ± standard deviation of {seeds} runs:" if (seeds or 1) > 1 else ""))
    _print_metrics(result.metrics)
    if directory is not None:
        print(f"written to {directory}")
    return INTERRUPTED if "interrupted" in result.status else 0  # a status, or a list of them


def _window(text: str | None) -> tuple[int, int] | None:
    """The steps of FIRST:LAST."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None:
        raise ValueError(f"--profile takes FIRST:LAST, such as 100:110, got {text!r}")
    return int(found[1]), int(found[2])


def _show_run(directory: Path) -> None:
    """Print how a run ended, from its summary."""
    if not (directory / "metrics.jsonl").exists():
        raise FileNotFoundError(f"there is no sweep in {directory} (no sweep.json), and no run (no metrics.jsonl)")
    path = directory / "summary.json"
    rows = f"the points are in {directory / 'metrics.jsonl'}"
    if not path.exists():
        print(f"a run under way, or one that failed: its points so far are in {directory / 'metrics.jsonl'}")
        return
    about = read_json(path, {"optimizer": str, "status": (str, list)}, rows)
    if about["status"] == "running":
        print(about["optimizer"])
        is_dead = "it was killed, and the same call resumes it"
        print(f"  {'status':20} {'running' if is_running(directory) else is_dead}")
        _print_checkpoints(directory)
        print(rows)
        return
    about = read_json(path, _SUMMARY, rows)
    several = isinstance(about["status"], list)
    status = collections.Counter(about["status"] if several else [about["status"]])
    done = sorted(set(about["steps_done"])) if several else [about["steps_done"]]
    print(about["optimizer"])
    print(f"  {'status':20} " + ", ".join(f"{n} {name}" if several else name for name, n in status.items()))
    print(f"  {'steps':20} {' to '.join(map(str, dict.fromkeys((done[0], done[-1]))))}")
    _print_metrics(about["metrics"])
    _print_checkpoints(directory)
    print(rows)


def _print_checkpoints(directory: Path) -> None:
    """Print the steps of the checkpoints, and what they take on the disk."""
    found = jo.checkpoints(directory)
    if found:
        steps, size = ", ".join(str(checkpoint.step) for checkpoint in found), sum(c.bytes for c in found)
        print(f"  {'checkpoints':20} at step {steps}: {size / 1e6:.3g} MB")


def _print_metrics(metrics: dict[str, Any]) -> None:
    for name, value in metrics.items():
        print(f"  {name:20} {_mean(np.asarray(value, float))}")  # a file has None for what is not finite


def _mean(value: Any) -> str:
    if np.ndim(value) == 0:
        return f"{value:.4g}"
    return f"{np.mean(value):.4g}" + (f" ± {np.std(value, ddof=1):.2g}" if len(value) > 1 else "")


def _first_line(source: str) -> str:
    docstring = ast.get_docstring(ast.parse(source))
    return docstring.splitlines()[0] if docstring else ""
