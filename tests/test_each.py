"""A loop over a table reports every row that fails, and only those."""

import pytest

from tests.each import for_each


def test_a_row_that_fails_hides_no_other():
    seen = []

    @for_each({"a": 0, "b": 1, "c": 2})
    def test_of_a_law(name):
        seen.append(name)
        assert name == "b", "not b"

    with pytest.raises(ExceptionGroup, match=r"2 of 3 rows: 'a', 'c'") as caught:
        test_of_a_law()
    assert seen == ["a", "b", "c"]
    assert [error.__notes__ for error in caught.value.exceptions] == [["in the row 'a'"], ["in the row 'c'"]]


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        for_each([])
