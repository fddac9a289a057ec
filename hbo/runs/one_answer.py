"""Whether a classifier does better than one answer for every image."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

ROUNDING = 1e-6  # rows have top-1 in double and the largest class's share in single precision


class OneAnswer(NamedTuple):
    """What one answer for every image gets, and whether a row is above it."""

    measure: str
    what: str
    beaten: bool


def against(row: Mapping[str, Any]) -> OneAnswer | None:
    """Top-1 against the share of the largest class; balanced accuracy against 1 / classes where the classes
    weighed the same in the loss, which may give up top-1 for it. None if the row does not say.

    Args:
        row: of a run, or an arm's means.
    """
    weighted = row.get("class_weights") == "balanced"
    name, measure = ("balanced_accuracy", "balanced accuracy") if weighted else ("top1", "top-1")
    value, share = (_number(row.get(one)) for one in (name, "num_classes" if weighted else "majority"))
    if math.isnan(value) or not share > 0:
        return None
    share = 1 / share if weighted else share
    what = "that of one answer for every image" if weighted else "the largest class"
    return OneAnswer(measure, f"{what} ({100 * share:.1f} %)", value > share + ROUNDING)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
