"""Arms of classifiers that may have learned nothing: their differences say nothing about a switch."""

from typing import Any

import pandas as pd

from hbo.runs import one_answer
from hbo.runs.one_answer import OneAnswer

MEANS = ["top1", "majority", "balanced_accuracy", "num_classes"]


def warning(done: Any) -> str:
    """A warning that names the arms whose mean is not above that of one answer for every image; empty if
    there are none, and for other tasks.

    Args:
        done: a study's finished rows, with the column `arm`.
    """
    stuck: dict[str, OneAnswer] = {}
    for arm, group in done.groupby("arm", sort=False):
        means = group.reindex(columns=MEANS).apply(pd.to_numeric, errors="coerce").mean().to_dict()
        found = one_answer.against(means | {"class_weights": group.iloc[0].get("class_weights")})
        if found is not None and not found.beaten:
            stuck[str(arm)] = found
    if not stuck:
        return ""
    whole = len(stuck) == done["arm"].nunique()
    above = "above" if whole else "not above"
    measures = " or ".join(
        dict.fromkeys(f"mean {one.measure} is {above} {one.what}" for one in stuck.values())
    )
    if whole:
        return (
            f"warning: no arm's {measures}: the arms may have learned nothing, so the results here may say"
            " nothing about a switch; train longer"
        )
    return (
        f"warning: {', '.join(stuck)}: {measures}: these arms may have learned nothing, so differences from"
        " them may say nothing about a switch; train longer"
    )
