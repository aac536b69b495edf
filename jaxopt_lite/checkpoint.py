"""Saving arrays to disk: a process killed at any moment leaves the last save or the one before it complete.

    DIRECTORY/000006/{meta.json, arrays/}     the save before
    DIRECTORY/000007/{meta.json, arrays/}     the last one
    DIRECTORY/000008.new/...                  being written; it is renamed when it is complete

Arrays are written by Orbax (extra `checkpoints`) as NumPy arrays, so that no dtype changes, float64 without x64
included. meta.json holds their names, dtypes and shapes, the metadata, and a digest of all files. A save that does not
match its digest is damaged: it is not passed to Orbax, the save before it is loaded, and a warning is returned.

Orbax interprets some characters of a path differently from the file system: it takes `[` `]` for a pattern, a backslash
for a separator and `gs:` for a bucket. So where a path holds anything beyond `_PLAIN`, it is given a symbolic link.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

__all__ = ["Saved", "load", "require_orbax", "save"]

_PLAIN = re.compile(r"([A-Za-z]:)?[\w/ .,#%+=@~^-]*")  # as a path is written with slashes; with a drive on Windows
_SAVE, _LEFTOVER = re.compile(r"\d{6,}"), re.compile(r"\d{6,}\.new")


class Saved(NamedTuple):
    """What was saved.

    Attributes:
        arrays: NumPy arrays, in the nested dict that was given.
        meta: the metadata, as JSON gives it back: tuples are lists, keys are strings.
        path: the folder of the save.
        warnings: what was wrong with later saves, one sentence each; empty when the last one was complete.
    """

    arrays: dict[str, Any]
    meta: dict[str, Any]
    path: Path
    warnings: tuple[str, ...]


def save(directory: Path | str, arrays: dict[str, Any], meta: dict[str, Any], keep: int = 2) -> Path:
    """Write a new save beside the earlier ones, and remove all but the last ones.

    Args:
        directory: where saves are; it is made when it is missing. One process at a time may write to it.
        arrays: a nested dict, with strings as keys, of NumPy or JAX arrays.
        meta: a dict that JSON can hold.
        keep: number of saves to keep, at least 1.

    Returns:
        The folder of the new save.

    Raises:
        ImportError: if Orbax is not installed.
        TypeError: if a key is not a string, a leaf is not an array of numbers, or JSON cannot hold `meta`.
        ValueError: if keep is below 1.
        OSError: if the directory cannot be written, or Orbax cannot reach it; see `require_orbax`.
    """
    orbax = _orbax()
    if keep < 1:
        raise ValueError(f"save: keep must be at least 1, got {keep}")
    leaves: list[np.ndarray] = []
    # The digest is computed after a round trip through JSON, because `load` computes it from what JSON returns.
    content = json.loads(json.dumps({"tree": _index(arrays, "", leaves), "meta": meta}))

    directory = Path(directory).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path)
    earlier = _saves(directory)
    path = directory / f"{int(earlier[-1].name) + 1 if earlier else 1:06d}"
    beside = path.with_name(f"{path.name}.new")
    beside.mkdir()
    written = {str(i): leaf for i, leaf in enumerate(leaves) if leaf.size}  # Orbax refuses empty arrays
    if written:
        with _quiet(), _reachable(beside) as folder, orbax.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(folder / "arrays", written)
    with (beside / "meta.json").open("w", encoding="utf-8") as file:
        json.dump({**content, "digest": _digest(content, beside / "arrays")}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    for old in [*earlier, path][:-keep]:
        shutil.rmtree(old)
    return path


def load(directory: Path | str) -> Saved | None:
    """Read the last complete save.

    Args:
        directory: where saves are. Nothing in it is changed.

    Returns:
        The save, or None if the directory has no save.

    Raises:
        ImportError: if Orbax is not installed.
        ValueError: if there are saves, and all are damaged.
    """
    directory = Path(directory).absolute()
    faults: list[str] = []
    for path in reversed(_saves(directory)):
        try:
            content = _content(path)
            arrays = _arrays(content["tree"], path)
        except _Unreachable:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            faults.append(f"the save {path} is damaged ({type(error).__name__}: {str(error)[:200]})")
            continue
        warnings = tuple(f"{fault}; the save before it is loaded, {path.name}" for fault in faults)
        return Saved(arrays, content["meta"], path, warnings)
    if faults:
        raise ValueError(
            f"no save in {directory} can be read: {'; '.join(faults)}. Copy one back from a backup, or remove the "
            "directory (or name another one) to start again"
        )
    return None


def require_orbax(directory: Path | str) -> None:
    """Raise now, rather than at the first save, if saves in a directory could not be written and read again.

    Raises:
        ImportError: if Orbax is not installed.
        OSError: if its path has a character that Orbax misreads, and the system makes no symbolic links.
    """
    _orbax()
    with _reachable(Path(directory).absolute()):
        pass


def _content(path: Path) -> dict[str, Any]:
    """The content of meta.json; raises if a file is missing or has changed."""
    content = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    if content.pop("digest") != _digest(content, path / "arrays"):
        raise ValueError("its files do not match their digest")
    return content


def _arrays(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    orbax = _orbax()
    leaves = [np.empty(shape, jnp.dtype(dtype)) for dtype, shape in _entries(tree)]
    as_numpy = {str(i): orbax.RestoreArgs(restore_type=np.ndarray) for i, leaf in enumerate(leaves) if leaf.size}
    if as_numpy:
        with _quiet(), _reachable(path) as folder, orbax.PyTreeCheckpointer() as checkpointer:
            read = checkpointer.restore(folder / "arrays", restore_args=as_numpy)
        leaves = [read.get(str(i), leaf) for i, leaf in enumerate(leaves)]
    return _fill(tree, iter(leaves))


def _index(node: Any, name: str, leaves: list[np.ndarray]) -> Any:
    """The tree with [dtype, shape] in place of the arrays, which are appended to `leaves` in its order."""
    if isinstance(node, dict):
        for key in node:
            if not isinstance(key, str):
                raise TypeError(f"save: the keys of arrays must be strings, got {key!r} in {name or 'arrays'}")
        return {key: _index(child, f"{name}[{key!r}]", leaves) for key, child in node.items()}
    dtype: Any = getattr(node, "dtype", object)
    if not (jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)):
        raise TypeError(
            f"save: arrays{name} must be an array of numbers, got {type(node).__name__}; what is not an array "
            "belongs in meta (and of random keys, jax.random.key_data)"
        )
    leaf = np.asarray(node, dtype.newbyteorder("="), order="C")
    leaves.append(leaf)
    return [leaf.dtype.name, list(leaf.shape)]


def _entries(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        for child in tree.values():
            yield from _entries(child)
    else:
        yield tree


def _fill(tree: Any, leaves: Iterator[np.ndarray]) -> Any:
    return {key: _fill(child, leaves) for key, child in tree.items()} if isinstance(tree, dict) else next(leaves)


def _digest(content: dict[str, Any], folder: Path) -> str:
    """SHA-256 of the content of meta.json, and of the name and the bytes of each file of the folder."""
    digest = hashlib.sha256(json.dumps(content).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest.update(
                f"{path.relative_to(folder).as_posix()} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode()
            )
    return digest.hexdigest()


def _saves(directory: Path) -> list[Path]:
    """The folders of all saves that were completed, damaged ones included, in order."""
    found = [path for path in directory.iterdir() if _SAVE.fullmatch(path.name)] if directory.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


class _Unreachable(OSError):
    pass


@contextlib.contextmanager
def _reachable(folder: Path) -> Iterator[Path]:
    """A path to an absolute folder, which need not exist, that Orbax reads as the file system does."""
    if _PLAIN.fullmatch(folder.as_posix()):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="jaxopt_lite-") as beside:
        link = Path(beside).absolute() / "link"
        try:
            if not _PLAIN.fullmatch(link.as_posix()):
                raise OSError(f"the temporary folder {beside} has such a character too")
            link.symlink_to(folder, target_is_directory=True)
        except OSError as error:
            odd = sorted(set(_PLAIN.sub("", folder.as_posix())))
            raise _Unreachable(
                f"no saves can be kept in {folder}: Orbax misreads {' '.join(odd)} in a path, and no symbolic link to "
                f"it can be made ({error}); give another directory, or set TMPDIR"
            ) from None
        yield link


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Orbax, which logs its progress as warnings of absl; errors are still raised."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _orbax() -> Any:
    try:
        import orbax.checkpoint as orbax
    except ImportError as error:
        raise ImportError(
            f"saving and loading need the package orbax-checkpoint: pip install 'jaxopt-lite[checkpoints]' ({error})"
        ) from None
    return orbax
