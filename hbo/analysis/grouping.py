"""Which rows are judged together: the settings of a study, the arms within one, and the baseline."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import combinations
from typing import Any

from hbo.analysis import arms, results
from hbo.config import Run
from hbo.runs import identity, naming

# Runs that differ in these have different validation images and are never compared
IMAGES = ("task", "data", "images", "holdout", "limit_batches")


def by_setting(rows: Any) -> list[tuple[str, Any]]:
    """Rows by setting, each with its name: images, task, and fields that vary
    between studies but not within one.
    """
    done = rows[rows["state"] == "done"]
    every = results.identities(done)
    within = {
        name
        for study in done["study"].unique()
        for name in identity.varying(
            [one for one, is_its in zip(every, done["study"] == study, strict=True) if is_its]
        )
    }
    apart = [n for n in identity.varying(every) if n in IMAGES or not (n in within or n in Run.NETWORK)]
    if not apart:
        return [("", rows)]
    which = _settings(rows, apart)
    finished = dict.fromkeys(w for w, state in zip(which, rows["state"], strict=True) if state == "done")
    # A run that failed early has no such fields.
    which = [w if w in finished else next(iter(finished)) for w in which]
    return [(one, rows[[w == one for w in which]]) for one in finished]


def _settings(rows: Any, apart: Sequence[str]) -> list[str]:
    """The name of each row's setting: its data set, if there are several, and what else distinguishes
    settings on one data set.
    """
    every, data = results.identities(rows), naming.data_names(rows.to_dict("records"))
    own: dict[str, list[str]] = {}
    for called in dict.fromkeys(data):
        ones = [one for one, its in zip(every, data, strict=True) if its == called]
        differ = [n for n in identity.varying(ones) if n in apart and n not in ("data", "images")]
        own[called] = [n for n in differ if not arms.follows(n, differ, ones)]
    words = lambda one, called: [identity.say(n, identity.value(one, n)) for n in own[called]]
    return [" ".join([d] * (len(own) > 1) + words(one, d)) for one, d in zip(every, data, strict=True)]


def labels(rows: Any, without: Collection[str] = ()) -> list[str]:
    """An arm's name for each finished row, from `arms.names`."""
    return arms.names(results.identities(rows), without)


def full_labels(rows: Any) -> dict[str, str]:
    """An arm's name -> its full name, for tooltips."""
    return dict(zip(rows["arm"], arms.full_names(results.identities(rows)), strict=True))


def base(rows: Any) -> str:
    """What short names omit, from `arms.base`."""
    return arms.base(results.identities(rows))


def usual_arm(rows: Any) -> str:
    """The default baseline, from `arms.usual`."""
    return rows["arm"].iloc[arms.usual(results.identities(rows))]


def crossed(rows: Any, factors: list[str]) -> bool:
    """Whether every combination of the factors' values has runs."""
    values = [[str(identity.value(one, name)) for name in factors] for one in results.identities(rows)]
    return len({tuple(line) for line in values}) == math.prod(
        len(set(column)) for column in zip(*values, strict=True)
    )


def balanced(rows: Any, factors: list[str]) -> bool:
    """Whether all pairs of values of two factors occur in the same number of arms, so that main effects are
    not confounded with each other.
    """
    arms = {identity.group(one): one for one in results.identities(rows)}.values()
    values = {name: [str(identity.value(one, name)) for one in arms] for name in factors}
    for a, b in combinations(factors, 2):
        met = Counter(zip(values[a], values[b], strict=True))
        if len(met) < len(set(values[a])) * len(set(values[b])) or len(set(met.values())) > 1:
            return False
    return True
