"""The command line: `jaxopt-lite list | show | train | sweep | resume`."""

from jaxopt_lite.cli.main import main

__all__ = ["main"]
