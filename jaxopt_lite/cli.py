"""The command line: `jaxopt-lite list | show | train`. Errors are one line, with exit code 2."""

import ast
import difflib
import importlib
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jo
from jaxopt_lite import optimizers
from jaxopt_lite.core.hyperparameters import rules

try:
    import typer
    from typer import Argument, Option
except ImportError:  # pragma: no cover
    sys.exit("the command line needs typer: pip install 'jaxopt-lite[cli]'")

__all__ = ["main"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def _about() -> None:
    """Optimizers as values, for everything that JAX differentiates."""


@app.command("list")
def list_() -> None:
    """List optimizers with their defaults, and experiments."""
    print("Optimizers")
    for name in optimizers.__all__:
        factory = getattr(optimizers, name)
        arguments = [
            p.name if p.default is p.empty else f"{p.name}={p.default!r}"
            for p in factory.spec.signature.parameters.values()
        ]
        print(f"  {name}({', '.join(arguments)})")
    found = [path for path in sorted(Path("experiments").glob("*.py")) if path.stem != "__init__"]
    print("\nExperiments" + ("" if found else ": none in ./experiments"))
    for path in found:
        print(f"  {'experiments.' + path.stem:32}{_first_line(path)}")


@app.command()
def show(text: Annotated[str, Argument(metavar="OPTIMIZER", help='such as "adamw(1e-3)"')]) -> None:
    """Show what an optimizer chains and remembers."""
    optimizer = _optimizer(text)
    print(optimizer)
    print("\nchains")
    for rule in rules(optimizer):
        print(f"  {rule}")
    print("\nhyperparameters")
    values = jo.hyperparameters(optimizer)
    width = max(map(len, values), default=0)
    for path, value in values.items():
        print(f"  {path:{width}}  {value:g}" if np.ndim(value) == 0 else f"  {path:{width}}  {np.asarray(value)}")
    size = 1024
    state = jax.eval_shape(optimizer.init, {"w": jax.ShapeDtypeStruct((size, size), jnp.float32)})
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state) if hasattr(leaf.dtype, "itemsize"))
    print(f"\nstate\n  {total / size**2:.3g} bytes for each float32 parameter")


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
    restore_best: Annotated[bool, Option("--restore-best", help="keep the parameters of the best point")] = False,
    directory: Annotated[Path | None, Option(help="where metrics.jsonl, summary.json and curves.png go")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="replace what an earlier run left there")] = False,
) -> None:
    """Train the task of a module, and say how it ended."""
    task, default = _task(module)
    text = optimizer or default
    if text is None:
        raise ValueError(f"{module} names no OPTIMIZER; give one: --optimizer 'adamw(1e-3)'")
    rule = _optimizer(text)
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
        restore_best=restore_best,
        directory=directory,
        overwrite=overwrite,
        progress=None,
    )
    print(f"{rule}: {result.message}" + (f" Mean ± standard deviation of {seeds} runs:" if (seeds or 1) > 1 else ""))
    for name, value in result.metrics.items():
        print(f"  {name:20} {_mean(value)}")
    if directory is not None:
        print(f"written to {directory}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and exit: 0 when all is well, 2 after a bad argument, 130 after a second Ctrl-C."""
    sys.path.insert(0, str(Path.cwd()))  # experiments of this folder
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = app(args=given or ["--help"], prog_name="jaxopt-lite", standalone_mode=False)
    except KeyboardInterrupt:
        code = _fail("interrupted", 130)
    except (ValueError, TypeError, ImportError, OSError) as error:
        code = _fail(f"{_place(error)}{error}", 2)
    except Exception as error:
        said = getattr(error, "format_message", None)  # the command line's own errors have it
        if said is None:
            raise
        code = _fail(said(), 2)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return code


def _place(error: Exception) -> str:
    """The line of the user's own code, in or under this folder, that the error passed last."""
    here, own = Path.cwd(), Path(jo.__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(here) and not path.is_relative_to(own) and "site-packages" not in path.parts:
            return f"{path.relative_to(here)}:{frame.lineno}: "
    return ""


def _optimizer(text: str) -> jo.GradientTransformation:
    value = jo.parse(text)
    if not isinstance(value, jo.GradientTransformation):
        raise ValueError(f"{text!r} is no optimizer; give a call such as adamw(1e-3)")
    return value


def _task(where: str) -> tuple[jo.Task, str | None]:
    """The task that MODULE[:TASK] names, and the module's own choice of optimizer."""
    name, _, attribute = where.partition(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith(error.name or " "):
            raise
        known = [f"experiments.{path.stem}" for path in Path("experiments").glob("*.py") if path.stem != "__init__"]
        near = difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known)) or 'none here'}"
        raise ValueError(f"there is no module {name!r}; {hint}") from None
    attribute = attribute or "task"
    found = getattr(module, attribute, None)
    task = found() if callable(found) else found
    if not isinstance(task, jo.Task):
        known = [n for n, v in vars(module).items() if isinstance(v, jo.Task) or n == "task"]
        near = difflib.get_close_matches(attribute, known, 1)
        hint = f"did you mean {near[0]}?" if near else "it must be a jaxopt_lite.Task, or a function that makes one"
        raise ValueError(f"{name} has no task {attribute!r}; {hint}")
    return task, getattr(module, "OPTIMIZER", None)


def _mean(value: Any) -> str:
    if np.ndim(value) == 0:
        return f"{value:.4g}"
    return f"{np.mean(value):.4g}" + (f" ± {np.std(value, ddof=1):.2g}" if len(value) > 1 else "")


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return docstring.splitlines()[0] if docstring else ""
