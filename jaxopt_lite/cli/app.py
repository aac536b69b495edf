"""The application to which commands are added."""

import sys

try:
    import typer
except ImportError:  # pragma: no cover
    sys.exit("the command line needs typer: pip install 'jaxopt-lite[cli]'")

__all__ = []

INTERRUPTED = 130  # the exit code of a command that Ctrl-C or SIGTERM ended, as that of shells after Ctrl-C

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def _about() -> None:
    """Optimizers as values, for everything that JAX differentiates."""
