"""Many runs: `jaxopt-lite sweep | resume`, and what `show` prints for a sweep's directory."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import jaxopt_lite as jo
from jaxopt_lite.cli.app import INTERRUPTED, app
from jaxopt_lite.cli.names import called, config_of_text, space_of_text, trial_of
from jaxopt_lite.run.folder import is_running
from jaxopt_lite.run.sweep_folder import read_about

__all__ = []


@app.command()
def sweep(
    module: Annotated[str, Argument(metavar="MODULE[:TRIAL]", help="a module with a function of a config")],
    space: Annotated[
        list[str] | None,
        Option(help='a dimension, such as "learning_rate=log_uniform(1e-4, 1e-1)"; without, the module\'s SPACE'),
    ] = None,
    trials: Annotated[int | None, Option(min=1, help="number of configs; without it, all of a grid")] = None,
    steps: Annotated[int, Option(min=1, help="steps of a whole trial")] = 1000,
    batch_size: Annotated[int, Option(min=0, help="examples in a batch; 0 takes all of them")] = 128,
    eval_every: Annotated[int, Option(min=1, help="steps between evaluations")] = 100,
    seeds: Annotated[int, Option(min=1, help="runs of each config")] = 1,
    sampler: Annotated[
        str, Option(help="grid, random, sobol, halton, tpe, cma_es, or the module's own, or a call of one")
    ] = "sobol",
    policy: Annotated[str, Option(help="such as successive_halving(4), or the module's own")] = "run_all",
    metric: Annotated[str | None, Option(help="the watched curve, such as valid.loss")] = None,
    mode: Annotated[str | None, Option(help="min or max")] = None,
    seed: Annotated[int, Option(min=0, help="of configs, initialisation and data order")] = 0,
    width: Annotated[int | None, Option(min=1, help="trials in a cohort")] = None,
    initial: Annotated[
        list[str] | None, Option(help='a config that goes first, such as "learning_rate=0.01, b1=0.9", or a dict')
    ] = None,
    independent: Annotated[
        bool, Option("--independent", help="each trial has keys and a data order of its own")
    ] = False,
    compute_dtype: Annotated[str | None, Option(help="dtype of the loss, such as bfloat16")] = None,
    accumulate: Annotated[int, Option(min=1, help="pieces in which a batch is worked, to save memory")] = 1,
    eval_batch_size: Annotated[int | None, Option(min=1, help="evaluate in pieces of so many examples")] = None,
    remat: Annotated[bool, Option("--remat", help="compute again what the gradient needs, to save memory")] = False,
    max_groups: Annotated[int, Option(min=1, help="more groups of equal shapes are an error")] = 32,
    on_error: Annotated[
        str, Option(help="raise, or continue with the other configs when the trial raises for one")
    ] = "raise",
    save_seconds: Annotated[float, Option(min=0, help="seconds between two saves")] = 60.0,
    save_calls: Annotated[int | None, Option(min=1, help="calls of a program between two saves")] = None,
    directory: Annotated[
        Path | None, Option(help="where the sweep is saved; the same command again resumes it")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", "--fresh", help="start over, instead of resuming")] = False,
) -> int:
    """Train many configs side by side, and show the best."""
    trial, home = trial_of(module)
    chosen = space_of_text(space, home) if space else getattr(home, "SPACE", None)
    if chosen is None:
        raise ValueError(f"{module} names no SPACE; give one: --space 'learning_rate=log_uniform(1e-4, 1e-1)'")
    result = jo.sweep(
        trial,
        chosen,
        trials=trials,
        steps=steps,
        batch_size=batch_size or None,
        eval_every=eval_every,
        seeds=seeds,
        sampler=called(sampler, jo.Sampler, "sampler", home),
        policy=called(policy, jo.Policy, "policy", home),
        metric=metric,
        mode=mode,
        seed=seed,
        width=width,
        initial=[config_of_text(text, home) for text in initial or ()],
        independent=independent,
        compute_dtype=compute_dtype,
        accumulate=accumulate,
        eval_batch_size=eval_batch_size,
        remat=remat,
        max_groups=max_groups,
        on_error=on_error,
        save_seconds=save_seconds,
        save_calls=save_calls,
        directory=directory,
        overwrite=overwrite,
        progress="auto",
    )
    return _show(result, directory)


@app.command()
def resume(
    directory: Annotated[Path, Argument(help="of a sweep that was interrupted")],
    trial: Annotated[str | None, Option(metavar="MODULE[:TRIAL]", help="where its function is now")] = None,
) -> int:
    """Resume a sweep, from the middle of its trials."""
    function = None if trial is None else trial_of(trial)[0]
    return _show(jo.resume(directory, function, progress="auto"), directory)


def show_sweep(directory: Path) -> None:
    """Print the status and the best trial of a sweep, from the files that it wrote last."""
    about = read_about(directory)
    arguments, status = about["arguments"], about["status"]
    if status == "running" and not is_running(directory):  # the process was killed, or the trial raised an error
        status = "interrupted"
    print(f"{arguments['trial']}: {status}, {arguments['trials']} trials of {arguments['steps']} steps")
    for name in ("space", "sampler", "policy", "seeds"):
        print(f"  {name:10}{arguments[name]}")
    print(f"  {'metric':10}{about.get('metric') or arguments['metric'] or 'not known yet'}")
    for name, value in (about.get("best") or {}).items():
        print(f"  best {name}: {f'{value:.5g}' if isinstance(value, float) else value}")
    if status not in ("finished", "running"):
        print(f"resume with: jaxopt-lite resume {directory}")


def _show(result: jo.SweepResult, directory: Path | None) -> int:
    """Print how a sweep ended, and return the exit code."""
    print(result.summary())
    if directory is not None:
        print(f"written to {directory}")
    return INTERRUPTED if result.status == "interrupted" else 0
