"""One checkpoint: a folder that Orbax writes, and a seal that says that it is complete.

    FOLDER/arrays/          the arrays, by Orbax (extra `checkpoints`), as NumPy arrays, so that no dtype changes
    FOLDER/content/         one JSON object, by Orbax
    FOLDER/complete.json    written last: a SHA-256 of each file, the bytes in all, when it was saved, and a score

A folder without complete.json was being written when its process ended. One whose files do not match it is damaged,
and is not given to Orbax. Files and folders are synced to the disk before complete.json is.

Orbax interprets some characters of a path differently from the file system: it takes `[` `]` for a pattern, a backslash
for a separator and `gs:` for a bucket. So where a path holds anything beyond `_PLAIN`, it is given a symbolic link.
"""

import contextlib
import datetime
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

__all__ = []

SEAL = "complete.json"
ITEMS = ("arrays", "content")
DAMAGE = (OSError, ValueError, TypeError, KeyError, AttributeError)  # what reading damaged files raises
_PLAIN = re.compile(r"([A-Za-z]:)?[\w/ .,#%+=@~^-]*")  # as a path is written with slashes; with a drive on Windows


class Saved(NamedTuple):
    """What was saved: NumPy arrays by name, and a JSON object."""

    arrays: dict[str, np.ndarray]
    content: dict[str, Any]


class Seal(NamedTuple):
    """What complete.json says.

    Attributes:
        files: SHA-256 by name.
        bytes: size of all files.
        saved: date and time in UTC, ISO 8601.
        score: of the checkpoint, lower is better; None where it has none.
    """

    files: dict[str, str]
    bytes: int
    saved: str
    score: float | None


def orbax() -> Any:
    """The package Orbax.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise ImportError(
            f"saving and loading need the package orbax-checkpoint: pip install 'jaxopt-lite[checkpoints]' ({error})"
        ) from None
    return orbax.checkpoint


def require_orbax(path: Path | str) -> None:
    """Raise now, rather than at the first save, if what is saved under a path could not be written and read again.

    Raises:
        ImportError: if Orbax is not installed.
        OSError: if the path has a character that Orbax misreads, and the system makes no symbolic links.
    """
    orbax()
    with reachable(Path(path).absolute()):
        pass


def arguments_of(saved: Saved) -> Any:
    """What Orbax is told to save."""
    filled = {name: array for name, array in saved.arrays.items() if array.size}  # it refuses empty arrays
    empty = {name: [array.dtype.name, list(array.shape)] for name, array in saved.arrays.items() if not array.size}
    content = {"content": saved.content, "empty": empty}
    args = orbax().args
    return args.Composite(**({"arrays": args.PyTreeSave(filled)} if filled else {}), content=args.JsonSave(content))


def seal(path: Path, score: float | None = None) -> Seal:
    """Sync all files of a checkpoint to the disk, and write its complete.json."""
    files, size = {}, 0
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        with file.open("rb") as opened:
            files[file.relative_to(path).as_posix()] = hashlib.file_digest(opened, "sha256").hexdigest()
            size += os.fstat(opened.fileno()).st_size
            os.fsync(opened.fileno())
    for folder in [*(p for p in path.rglob("*") if p.is_dir()), path, path.parent]:
        sync_folder(folder)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made = Seal(files, size, now, score)
    beside = path / f"{SEAL}.new"
    with beside.open("w", encoding="utf-8") as opened:
        content = made._asdict()
        json.dump({**content, "digest": _digest(content)}, opened)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(beside, path / SEAL)
    sync_folder(path)
    return made


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are missing; their names are synced to the disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Sync the names in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders, and syncs them by itself
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def read_seal(path: Path) -> Seal:
    """The seal of a checkpoint.

    Raises:
        OSError, ValueError, TypeError, KeyError: if there is none, or it is damaged.
    """
    content = json.loads((path / SEAL).read_text(encoding="utf-8"))
    if content.pop("digest") != _digest(content):
        raise ValueError(f"{SEAL} does not match its digest")
    return Seal(**content)


def read(path: Path, choose: Callable[[dict], Collection[str]] | None = None) -> Saved:
    """Read a checkpoint.

    Args:
        path: its folder. Nothing in it is changed.
        choose: from the content, the names of the arrays to read; None reads all.

    Raises:
        OSError, ValueError, TypeError, KeyError, AttributeError: if a file is missing or has changed.
    """
    path = path.absolute()  # Orbax finds nothing at a relative one
    for name, digest in read_seal(path).files.items():
        with (path / name).open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                raise ValueError(f"the file {name} has changed since it was written")
    package = orbax()
    with quiet(), reachable(path) as folder:
        with package.Checkpointer(package.JsonCheckpointHandler()) as checkpointer:
            written = checkpointer.restore(folder / "content")
        names = None if choose is None else choose(written["content"])
        arrays = {name: np.empty(shape, jnp.dtype(dtype)) for name, (dtype, shape) in written["empty"].items()}
        if (path / "arrays").is_dir():
            with package.PyTreeCheckpointer() as checkpointer:
                there = checkpointer.metadata(folder / "arrays").item_metadata.tree
                chosen = [name for name in there if names is None or name in names]
                if chosen:
                    as_numpy = {name: package.RestoreArgs(restore_type=np.ndarray) for name in chosen}
                    args = package.args.PyTreeRestore(
                        {name: 0 for name in chosen}, restore_args=as_numpy, partial_restore=True
                    )
                    arrays |= checkpointer.restore(folder / "arrays", args=args)
    return Saved({name: a for name, a in arrays.items() if names is None or name in names}, written["content"])


def on_host(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    """Copies as NumPy arrays: the next steps use up the memory of what they are copied from."""
    return {name: np.array(leaf, leaf.dtype.newbyteorder("="), order="C", copy=True) for name, leaf in arrays.items()}


@contextlib.contextmanager
def reachable(folder: Path) -> Iterator[Path]:
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
            raise UnreachableError(
                f"no checkpoints can be kept in {folder}: Orbax misreads {' '.join(odd)} in a path, and no symbolic "
                f"link to it can be made ({error}); give another directory, or set TMPDIR"
            ) from None
        yield link


class UnreachableError(OSError):
    """A path that Orbax cannot be given."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Orbax, which logs its progress as warnings of absl; errors are still raised."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
