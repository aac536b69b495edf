"""The metrics of a run as a CSV, a row for each point."""

import csv
import io
import os
from pathlib import Path
from typing import Any

__all__ = ["CsvTable"]


class CsvTable:
    """A CSV with a column `step` and one for each metric, flushed as rows come. It may gain columns.

    A cell is empty where a point has no such metric. What is not finite is written as nan, inf or -inf, which NumPy and
    pandas read. When a new name comes, the whole file is written again with a column more: beside it first, so that a
    crash leaves the old file or the new one.

    Args:
        path: of the file.
        append: keep the rows that are there, except a torn last line, which a killed process may leave.

    Raises:
        ValueError: if the file to append to is another kind of table.
    """

    def __init__(self, path: Path, append: bool = False):
        self.path, self._file = path, None
        names, rows = self._read() if append and path.exists() else (["step"], [])
        self._rewrite(names, rows)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append a row.

        Args:
            step: the number of steps done.
            values: numbers by the names of their columns.
        """
        new = [name for name in values if name not in self.names]
        if new:
            self._rewrite([*self.names, *new], self._read()[1])
        self._writer.writerow([step, *(values.get(name, "") for name in self.names[1:])])
        self._file.flush()

    def rewind(self, step: int) -> None:
        """Remove the rows after a step, for a run that resumes there.

        Args:
            step: the last one to keep.
        """
        names, rows = self._read()
        self._rewrite(names, [row for row in rows if int(row[0]) <= step])

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _read(self) -> tuple[list[str], list[list[str]]]:
        """The names of the columns, and the rows."""
        with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
            text = file.read()
        whole = text[: text.rfind("\n") + 1]  # without a torn last line
        names, *rows = list(csv.reader(io.StringIO(whole, newline=""))) or [["step"]]
        if names[:1] != ["step"]:
            raise ValueError(f"{self.path} is no table of a run: its first column must be step; give another path")
        return names, [row for row in rows if row and row[0].isdecimal()]

    def _rewrite(self, names: list[str], rows: list[list[str]]) -> None:
        """Replace the file by one with these columns and rows."""
        self.close()
        beside = self.path.with_name(self.path.name + ".new")
        with beside.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(names)
            table.writerows([*row, *[""] * (len(names) - len(row))] for row in rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.path)
        self.names = names
        self._file: Any = self.path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")
