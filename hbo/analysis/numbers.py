"""Formats of numbers in tables, notes and pages: one each, and a dash for a missing number."""

import math
import re
from typing import Any

ABSENT = "—"
_NUMBER = r"[-+\N{MINUS SIGN}]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?(?: ?%)?"
# 71.2 ± 0.4 (n=6), 0.42 [0.04, 0.88], 73.1 to 75.9
_BETWEEN = r"(?: ± | to |\N{EN DASH}| ?\[|, |\] \(n=|\] ?| \(n=|\) ?| and )"
_CELL = re.compile(rf"[<>]? ?{_NUMBER}(?:{_BETWEEN}{_NUMBER})*[\])]?")


def mean(values: Any, scale: float = 100) -> str:
    """`71.2 ± 0.4`; without a standard deviation for one value; with n if some values are missing."""
    there = values.dropna().astype(float)
    if there.empty:
        return ABSENT
    deviation = f" ± {scale * there.std():.1f}" if len(there) > 1 else ""
    return f"{scale * there.mean():.1f}{deviation}" + f" (n={len(there)})" * (len(there) < len(values))


def p_value(p: float) -> str:
    """`0.034`, or `<0.001`: never 0."""
    return ABSENT if _absent(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def points(fraction: float, sign: str = "+") -> str:
    """A fraction in percentage points: `+1.2`, with two decimals below 0.1, so that an interval's end that
    excludes zero does not print as zero; zero has no sign.
    """
    if _absent(fraction):
        return ABSENT
    digits = 2 if 0 < abs(round(100 * fraction, 2)) < 0.1 else 1
    return f"{round(100 * fraction, digits) + 0.0:{sign}.{digits}f}"


def bounded(fraction: float) -> float:
    """Clip a difference of two shares to 100 points for display; intervals of few runs may exceed that."""
    return max(min(fraction, 1.0), -1.0)  # in this order nan stays nan


def interval(low: float, high: float) -> str:
    """Two fractions in percentage points: `-0.8 to +2.4`."""
    return ABSENT if _absent(low) or _absent(high) else f"{points(low)} to {points(high)}"


def plain(value: Any) -> str:
    """A value of a field or a cell: whole numbers without a decimal point, a dash for None."""
    if _absent(value):
        return ABSENT
    return (
        str(int(value))
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15
        else str(value)
    )


def order(value: Any) -> tuple[bool, float, str]:
    """Sort numbers by value, then words."""
    number = isinstance(value, (int, float)) and not math.isnan(value)
    return (not number, float(value) if number else 0.0, "" if number else str(value))


def is_number(cell: Any) -> bool:
    """Whether a cell is a number, an interval or a mean with standard deviation, as printed here."""
    text = str(cell).strip()
    return text == ABSENT or _CELL.fullmatch(text) is not None


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
