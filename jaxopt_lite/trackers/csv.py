"""Metrics in a CSV."""

from pathlib import Path
from typing import Any

from jaxopt_lite.log.tables import CsvTable

__all__ = ["csv"]


def csv(path: Path | str, overwrite: bool = False) -> "Csv":
    """A CSV with a row for each point: `step`, and a column for each metric; with `seeds`, the means come first.

    A run that resumes with `fit(..., state=...)` removes the rows after its first step, and appends. The file may gain
    columns. Without a tracker, `fit(..., directory=...)` writes such a file too, metrics.csv.

    Args:
        path: of the file; its folder is made.
        overwrite: replace what a file of that name holds, where a new run begins.

    Returns:
        A tracker, for `fit(..., trackers=[...])`. It fails, with a warning, where a new run finds a file and overwrite
        is False.
    """
    return Csv(Path(path), overwrite)


class Csv:
    """The tracker that `csv` returns."""

    def __init__(self, path: Path, overwrite: bool):
        self._path, self._overwrite = path.absolute(), overwrite

    def begin(self, about: dict[str, Any]) -> None:
        """Open the file."""
        resumed = about["step"] > 0
        if self._path.exists() and not (resumed or self._overwrite):
            raise FileExistsError(f"{self._path} exists; give another path, or overwrite=True")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._table = CsvTable(self._path, append=resumed)
        self._table.rewind(about["step"])

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append a row."""
        self._table.write(step, metrics)

    def end(self, summary: dict[str, Any]) -> None:
        """Close the file."""
        self._table.close()
