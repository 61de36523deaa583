"""The grammar of numbers in tables."""

import pytest

from langue.text.numerals import value_of


@pytest.mark.parametrize(
    ("written", "point", "comma"),
    [
        ("1100.5", 1100.5, 1100.5),
        ("1,100.5", 1100.5, 1100.5),
        ("1.100,5", None, 1100.5),
        ("1,100", 1100.0, 1.1),
        ("1,5", None, 1.5),
        ("1,10,000", None, None),
        ("12%", 0.12, 0.12),
        (" -.5 % ", -0.005, -0.005),
        ("1e-3", 0.001, 0.001),
        ("\N{MINUS SIGN}3", -3.0, -3.0),
        ("1_5", None, None),
        ("inf", None, None),
        ("nan", None, None),
        ("0x10", None, None),
        ("1 100", None, None),
        ("", None, None),
        ("%", None, None),
        (True, None, None),
        (None, None, None),
        (3, 3.0, 3.0),
    ],
)
def test_what_is_a_number(written, point, comma):
    assert value_of(written) == pytest.approx(point)
    assert value_of(written, decimal_comma=True) == pytest.approx(comma)
