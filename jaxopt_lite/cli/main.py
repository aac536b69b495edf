"""The entry point. Errors are one line, with exit code 2."""

import contextlib
import os
import sys
import traceback
from pathlib import Path

import jax

import jaxopt_lite as jo
from jaxopt_lite.cli import runs, sweeps
from jaxopt_lite.cli.app import INTERRUPTED, app

__all__ = ["main"]

COMMANDS = (runs, sweeps)  # each adds its own to the app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and exit: with code 0 on success, 2 after a bad argument, 130 after Ctrl-C or SIGTERM."""
    sys.path.insert(0, str(Path.cwd()))  # experiments of this folder
    _keep_executables()
    _one_thread_for_lapack()
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = app(args=given or ["--help"], prog_name="jaxopt-lite", standalone_mode=False)
    except KeyboardInterrupt:
        code = _fail("interrupted", INTERRUPTED)
    except (ValueError, TypeError, ImportError, OSError) as error:
        code = _fail(f"{_place(error)}{error}{_notes(error)}", 2)
    except Exception as error:
        format_message = getattr(error, "format_message", None)  # of the errors that typer raises
        if format_message is not None:
            code = _fail(format_message(), 2)
        elif _notes(error):  # raised by the user's trial, such as a KeyError of its config
            code = _fail(f"{_place(error)}{type(error).__name__}: {error}{_notes(error)}", 2)
        else:
            raise
    sys.exit(code or 0)


def _keep_executables() -> None:
    """Cache compiled programs on disk for the next command, unless the user has set JAX's cache."""
    if jax.config.values["jax_compilation_cache_dir"] is None and "JAX_ENABLE_COMPILATION_CACHE" not in os.environ:
        with contextlib.suppress(RuntimeError):  # a user without a home directory
            home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            jax.config.update("jax_compilation_cache_dir", str(home / "jaxopt_lite"))


def _one_thread_for_lapack() -> None:
    """Give LAPACK one thread, unless the user says otherwise: its threads wait for each other and for those of XLA."""
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        with contextlib.suppress(ImportError):
            from threadpoolctl import threadpool_limits

            threadpool_limits(1, user_api="blas")


def _fail(message: str, code: int) -> int:
    message = message.replace("overwrite=True", "--overwrite")  # the remedy as this command spells it
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return code


def _notes(error: Exception) -> str:
    """What a sweep or a run has added to an error."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(("sweep: ", "fit: "))]
    return "".join("; " + note.partition(": ")[2] for note in notes)


def _place(error: Exception) -> str:
    """The line of the user's own code, in or under this folder, that the error passed last."""
    here, own = Path.cwd(), Path(jo.__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(here) and not path.is_relative_to(own) and "site-packages" not in path.parts:
            return f"{path.relative_to(here)}:{frame.lineno}: "
    return ""
