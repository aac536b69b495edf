"""Checks of plain arguments: what they return, and what they refuse with which message."""

import numpy as np
import pytest

from jaxopt_lite.core.arguments import INT32_MAX, check_int, check_number


def test_check_int_returns_the_int_in_its_range():
    assert check_int("f", "n", 1) == 1
    assert check_int("f", "n", INT32_MAX, most=INT32_MAX) == INT32_MAX
    assert check_int("f", "n", 0, 0) == 0
    assert check_int("f", "n", None, none=True) is None
    assert type(check_int("f", "n", np.int64(3))) is int


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((True,), TypeError, "f: n must be an int of at least 1, got True"),
        ((2.0,), TypeError, "f: n must be an int of at least 1, got 2.0"),
        ((None,), TypeError, "f: n must be an int of at least 1, got None"),
        (("1", 1, None, True), TypeError, "f: n must be an int of at least 1, got the string '1'"),
        ((0,), ValueError, "f: n must be an int of at least 1, got 0"),
        ((9, 1, 8), ValueError, "f: n must be at most 8, got 9"),
        (
            (2**31, 1, INT32_MAX),
            ValueError,
            "f: n must be at most 2147483647, got 2147483648",
        ),
        ((9, 1, 8, False, "it is a byte"), ValueError, "f: n must be at most 8, because it is a byte, got 9"),
    ],
)
def test_check_int_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        check_int("f", "n", *arguments)


def test_check_number_returns_the_number_in_its_range():
    assert check_number("f", "x", 0) == 0
    assert check_number("f", "x", 0.5, 0, 0.5, open_low=True) == 0.5
    assert check_number("f", "x", np.float32(0.5), 0, 1) == 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((True,), TypeError, "f: x must be a number, got True"),
        (("1",), TypeError, "f: x must be a number, got the string '1'"),
        ((float("nan"),), ValueError, "f: x must be a number, got nan"),
        ((0, 0, 1, True), ValueError, "f: x must be a number above 0 and at most 1, got 0"),
        ((-1.0, 0), ValueError, "f: x must be a number of at least 0, got -1.0"),
        ((2, -1, 1), ValueError, "f: x must be a number of at least -1 and at most 1, got 2"),
    ],
)
def test_check_number_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        check_number("f", "x", *arguments)
