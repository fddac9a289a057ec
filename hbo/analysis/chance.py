"""Arms of classifiers that may have learned nothing: their differences say nothing about a switch."""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from hbo.runs import one_answer
from hbo.runs.one_answer import OneAnswer

MEANS = ["top1", "majority", "balanced_accuracy", "num_classes"]


def stuck(done: Any) -> dict[str, OneAnswer]:
    """The arms whose mean is not above that of one answer for every image; empty for other tasks.

    Args:
        done: a study's finished rows, with the column `arm`.
    """
    found: dict[str, OneAnswer] = {}
    for arm, group in done.groupby("arm", sort=False):
        means = group.reindex(columns=MEANS).apply(pd.to_numeric, errors="coerce").mean().to_dict()
        one = one_answer.against(means | {"class_weights": group.iloc[0].get("class_weights")})
        if one is not None and not one.beaten:
            found[str(arm)] = one
    return found


def aside(of_line: Collection[str], those: Mapping[str, OneAnswer]) -> str:
    """What to add to a verdict of equivalence: which of the line's arms may have learned nothing; empty if
    none.

    Args:
        of_line: the line's arms.
        those: from `stuck`.
    """
    found = {arm: those[arm] for arm in of_line if arm in those}
    if not found:
        return ""
    what = " or ".join(dict.fromkeys(one.what for one in found.values()))
    if len(found) == len(of_line):
        return f"but no arm is above {what}"
    return f"but {', '.join(found)} {'is' if len(found) == 1 else 'are'} not above {what}"


def warning(done: Any) -> str:
    """A warning that names these arms; empty if there are none.

    Args:
        done: as for `stuck`.
    """
    those = stuck(done)
    if not those:
        return ""
    whole = len(those) == done["arm"].nunique()
    above = "above" if whole else "not above"
    measures = " or ".join(
        dict.fromkeys(f"mean {one.measure} is {above} {one.what}" for one in those.values())
    )
    if whole:
        return (
            f"warning: no arm's {measures}: the arms may have learned nothing, so the results here may say"
            " nothing about a switch; train longer"
        )
    return (
        f"warning: {', '.join(those)}: {measures}: these arms may have learned nothing, so differences from"
        " them may say nothing about a switch; train longer"
    )
