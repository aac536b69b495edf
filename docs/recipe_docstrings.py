"""Shows the docstrings of recipes in the built documentation as Python sees them.

Griffe reads sources without running them, so it misses the descriptions of arguments that `@recipe` adds at import.
"""

import inspect
from typing import Any

import griffe

from jaxopt_lite import optimizers


class RecipeDocstrings(griffe.Extension):
    """Replaces the docstring of each recipe by that of the imported function."""

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Called by Griffe for every function that it has read."""
        if func.docstring and func.parent and func.parent.path.rpartition(".")[0] == optimizers.__name__:
            func.docstring.value = inspect.getdoc(getattr(optimizers, func.name)) or ""
