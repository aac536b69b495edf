"""`save` and `load`: any run, state, result, optimizer or solution, in a folder of its own."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxopt_lite.checkpoint import folder
from jaxopt_lite.checkpoint.folder import DAMAGE, Saved, orbax, quiet, reachable
from jaxopt_lite.checkpoint.packing import pack
from jaxopt_lite.checkpoint.unpacking import named_arrays, unpack
from jaxopt_lite.core.arguments import check_bool

__all__ = ["load", "save"]

_FORM = 1  # of the description; a later version reads earlier ones


def save(path: Path | str, value: Any, overwrite: bool = False) -> Path:
    """Save a value: the state or the result of a run, an optimizer, a solution, parameters, any pytree.

    Arrays keep their dtypes, 16-bit and smaller ones too, and random keys are kept. What is saved is complete on the
    disk when the call returns; a process that is killed meanwhile leaves what was there before.

    Args:
        path: a folder, which is made.
        value: dicts, lists, tuples, named tuples and dataclasses of arrays, numbers and strings, and values of this
            package (an optimizer is saved as the call that makes it). Functions in them must be those of a module.
            Other classes that JAX knows as pytrees, such as Equinox's modules, can be saved, and loaded with `like`.
        overwrite: replace what was saved there before.

    Returns:
        The path.

    Raises:
        ImportError: if Orbax is not installed.
        TypeError: if the value holds a tracer, a dtype that cannot be kept (dates, bytes, more than 64 bits), or
            something that has no description; the path in it is named.
        FileExistsError: if there is something at the path already.
        OSError: if it cannot be written.
    """
    package, target = orbax(), _target(path)
    check_bool("save", "overwrite", overwrite)
    arrays, description = pack(value)
    if target.exists() and not (target / folder.SEAL).exists():
        raise FileExistsError(f"save: {path} exists, and save did not write it; give another path")
    if target.exists() and not overwrite:
        raise FileExistsError(f"save: {path} exists already; give another path, or overwrite=True")
    saved = Saved(folder.on_host(arrays), described(description))
    folder.make_folder(target.parent)
    beside, before = _beside(target, "new"), _beside(target, "old")
    for leftover in (beside, before) if target.exists() else (beside,):
        if leftover.exists():
            shutil.rmtree(leftover)
    handler = package.CompositeCheckpointHandler(*folder.ITEMS)
    with quiet(), reachable(target.parent) as reached, package.Checkpointer(handler) as checkpointer:
        checkpointer.save(reached / beside.name, args=folder.arguments_of(saved))
    folder.seal(beside)
    if target.exists():
        target.rename(before)
    beside.rename(target)
    folder.sync_folder(target.parent)
    if before.exists():
        shutil.rmtree(before)
    return Path(path)


def load(path: Path | str, like: Any = None) -> Any:
    """Load what `save` saved, the same bits.

    Args:
        path: the folder.
        like: a value of the same structure, or its shapes as `jax.eval_shape` gives them: what is loaded gets its
            structure and classes from it, and is placed as its leaves are where they have a sharding. It is needed only
            for classes and functions that cannot be found by name. None makes the value from its description; JAX
            arrays in 64 bits are returned as NumPy's where 64 bits are not enabled.

    Raises:
        ImportError: if Orbax is not installed.
        FileNotFoundError: if there is nothing.
        ValueError: if it is damaged, or differs from `like`; the message has the paths that differ.
    """
    target = _target(path)
    if not target.exists() and (before := _beside(target, "old") / folder.SEAL).exists():
        target = before.parent  # the process was killed while it replaced this one
    return read(target, lambda arrays, content: unpack(content["value"], arrays, {} if like is None else {"": like}))


def _target(path: Path | str) -> Path:
    """The folder itself: a symbolic link to it stays when it is replaced."""
    return Path(os.path.realpath(path))


def _beside(target: Path, word: str) -> Path:
    """A folder beside another, of a name that Orbax reads as the file system does."""
    return target.with_name(f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}.{word}")


def described(description: Any, **facts: Any) -> dict[str, Any]:
    """The content of a checkpoint that holds a described value."""
    return {"form": _FORM, "value": description, **facts}


def read(
    path: Path, make: Callable[[dict, dict], Any], choose: Callable[[dict[str, Any]], str] = lambda content: ""
) -> Any:
    """What `make` makes of the arrays and the content of a checkpoint.

    Args:
        path: its folder.
        make: a function (arrays by name, content).
        choose: from the content, how the paths of the arrays begin that are to be loaded.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or was written by a newer version.
    """
    if not (path / folder.SEAL).exists():
        what = "was not finished, or not written by save" if path.exists() else "does not exist"
        raise FileNotFoundError(f"load: {path} {what}")
    try:
        arrays, content = folder.read(path, lambda content: _names(content["value"], choose(content)))
    except DAMAGE as error:
        raise ValueError(
            f"load: {path} is damaged ({type(error).__name__}: {error}); copy it back from a backup"
        ) from None
    if content.get("form") != _FORM:
        raise ValueError(f"load: {path} was written by another version, in form {content.get('form')!r}")
    return make(arrays, content)


def _names(description: Any, prefix: str) -> set[str]:
    """The names of the arrays whose paths begin so; without a prefix, also of those that have no path."""
    return {node[kind] for path, node, kind in named_arrays(description) if (path or "").startswith(prefix)}
