"""One test for all rows of a table: every row is tried, and all failures are reported together."""

import functools
from collections.abc import Callable, Iterable


def for_each(rows: Iterable[str]) -> Callable[[Callable[[str], None]], Callable[[], None]]:
    """Turn a test of one row into one test of all rows. For laws of one mechanism, which compile nothing for a row.

    A row that fails hides no other row. `return` skips a row; `pytest.skip` would skip those after it as well.

    Args:
        rows: the names of the rows, in order; at least one.

    Returns:
        A decorator for a function of a name; its test takes no arguments and raises an ExceptionGroup of all failures,
        each with the name of its row in a note.

    Raises:
        ValueError: if there are no rows, as then the test would pass whatever the law.
    """
    names = list(rows)
    if not names:
        raise ValueError("for_each: there are no rows")

    def decorate(law: Callable[[str], None]) -> Callable[[], None]:
        @functools.wraps(law)
        def test():
            failures = []
            for name in names:
                try:
                    law(name)
                except Exception as error:
                    error.add_note(f"in the row {name!r}")
                    failures.append(error)
            if failures:
                failed = ", ".join(error.__notes__[-1].removeprefix("in the row ") for error in failures)
                raise ExceptionGroup(f"{len(failures)} of {len(names)} rows: {failed}", failures)

        del test.__wrapped__  # pytest would look at its signature, and ask for a fixture called `name`
        return test

    return decorate
