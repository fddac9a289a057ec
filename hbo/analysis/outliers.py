"""Runs that count but need a look: far from their arm's median, or with one class for all images."""

from typing import Any

import numpy as np
import pandas as pd

from hbo.runs.one_answer import ROUNDING

FAR = 5.0  # median absolute deviations from an arm's median


def odd(done: Any, metric: str) -> dict[str, str]:
    """Key -> why a finished run is odd.

    The deviations of a few seeds vary by chance, so their median is taken over the whole study: over each
    run's deviation from its arm's median, without the runs that are the median. Two runs are equally far from
    their median, so an arm needs three.

    Args:
        done: finished rows with `arm`, `seed`, `key`, the metric, and `predicted_classes` or, in older rows,
            `balanced_accuracy`, `top1` and `majority`, if present.
        metric: the judged column.
    """
    values: Any = pd.to_numeric(done[metric], errors="coerce")
    away: Any = (values - values.groupby(done["arm"]).transform("median")).abs()
    typical = float(np.median(away[away > 0])) if (away > 0).any() else 0.0
    runs = done["arm"].map(done["arm"].value_counts())
    found: dict[str, str] = {}
    for row, far, beside in zip(done.to_dict("records"), away, runs, strict=True):
        if why := one_class(row):
            found[row["key"]] = why
        elif typical and far > FAR * typical and beside > 2:
            found[row["key"]] = (
                f"{100 * far:.1f} points from its arm's median,"
                f" {far / typical:.0f} times the median deviation"
            )
    return found


def one_class(row: dict[str, Any]) -> str:
    """Says that a classifier predicted one class for all images; empty if it did not. Older rows do not count
    the classes: for them the sign is a balanced accuracy of 1 / classes and the largest class's top-1.
    """
    classes: Any = row.get("predicted_classes")
    if pd.notna(classes):
        return "predicts one class for every image" if classes == 1 else ""
    balanced, names = row.get("balanced_accuracy"), row.get("class_names")
    largest, top1 = row.get("majority"), row.get("top1")
    if pd.isna([balanced, top1]).any() or not balanced:  # pyright: ignore
        return ""
    share = 1 / float(balanced)
    whole = abs(share - round(share)) < 1e-9 and round(share) > 1
    counted = len(names) == round(share) if isinstance(names, list) and names else True
    unknown = largest is None or pd.isna(largest)
    at_largest = unknown or abs(float(top1) - float(largest)) < ROUNDING  # pyright: ignore
    return "as good as one class for every image" if whole and counted and at_largest else ""


def sentence(done: Any, metric: str) -> str | None:
    """The odd runs in one sentence, those of one class together; None if there are none."""
    found = odd(done, metric)
    if not found:
        return None
    by_reason: dict[str, list[Any]] = {}
    for row in done.to_dict("records"):
        if row["key"] in found:
            by_reason.setdefault(one_class(row) or row["key"], []).append(row)
    said = [_grouped(found[of_it[0]["key"]], of_it, len(done)) for of_it in by_reason.values()]
    return f"Included, but check these runs: {'; '.join(said)}."


def _grouped(why: str, of_it: list[Any], runs: int) -> str:
    """The runs with one reason: all of the study, or by arm; a single one with its key."""
    if len(of_it) == 1:
        return f"{of_it[0]['arm']}, seed {of_it[0]['seed']} ({of_it[0]['key']}): {why}"
    if len(of_it) == runs:
        return f"all {runs} runs: {why}"
    seeds: dict[str, list[str]] = {}
    for row in of_it:
        seeds.setdefault(row["arm"], []).append(str(row["seed"]))
    named = "; ".join(f"{arm}, seed{'s' * (len(own) > 1)} {', '.join(own)}" for arm, own in seeds.items())
    return f"{len(of_it)} runs ({named}): {why}"
