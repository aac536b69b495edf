"""One test for all rows of a table: every row is tried, and all failures are reported together."""

import functools
from collections.abc import Callable, Iterable
from typing import TypeVar

Row = TypeVar("Row")


def for_each(rows: Iterable[Row]) -> Callable[[Callable[[Row], None]], Callable[[], None]]:
    """Turn a test of one row into one test of all rows. For laws of one mechanism, which compile nothing for a row.

    A row that fails hides no other row. `return` skips a row; `pytest.skip` would skip those after it as well.

    Args:
        rows: what the law takes, in order, most often the names of a table's rows; at least one.

    Returns:
        A decorator for a function of a row. The test that it makes takes no arguments and raises an ExceptionGroup of
        all failures, each with its row in a note.

    Raises:
        ValueError: if there are no rows, as then the test would pass whatever the law.
    """
    table = list(rows)
    if not table:
        raise ValueError("for_each: there are no rows")

    def decorate(law: Callable[[Row], None]) -> Callable[[], None]:
        @functools.wraps(law)
        def test():
            failures = []
            for row in table:
                try:
                    law(row)
                except Exception as error:
                    error.add_note(f"in the row {row!r}")
                    failures.append(error)
            if failures:
                failed = ", ".join(error.__notes__[-1].removeprefix("in the row ") for error in failures)
                raise ExceptionGroup(f"{len(failures)} of {len(table)} rows: {failed}", failures)

        del test.__wrapped__  # pytest would look at its signature, and ask for a fixture called `name`
        return test

    return decorate
