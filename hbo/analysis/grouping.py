"""Which rows are judged together: the settings of a study, the arms within one, and the arm that the others are compared with."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import combinations
from typing import Any

from hbo.analysis import arms, results
from hbo.config import Run
from hbo.runs import identity, naming

# Runs that differ in these report other images: never judged against each other
IMAGES = ("task", "data", "images", "holdout", "limit_batches")


def by_setting(rows: Any) -> list[tuple[str, Any]]:
    """Rows by setting, each with what is its own: the images, the task, and what no study varies but studies differ in."""
    done = rows[rows["state"] == "done"]
    every = results.identities(done)
    within = {
        name
        for study in done["study"].unique()
        for name in identity.varying([one for one, is_its in zip(every, done["study"] == study, strict=True) if is_its])
    }
    apart = [n for n in identity.varying(every) if n in IMAGES or not (n in within or n in Run.NETWORK)]
    if not apart:
        return [("", rows)]
    which = _settings(rows, apart)
    finished = dict.fromkeys(w for w, state in zip(which, rows["state"], strict=True) if state == "done")
    which = [w if w in finished else next(iter(finished)) for w in which]  # a run that failed early has no fields to go by
    return [(one, rows[[w == one for w in which]]) for one in finished]


def _settings(rows: Any, apart: Sequence[str]) -> list[str]:
    """The name of each row's setting: its data set, where there are several, and what else sets those of one data set apart."""
    every, data = results.identities(rows), naming.data_names(rows.to_dict("records"))
    own: dict[str, list[str]] = {}
    for called in dict.fromkeys(data):
        ones = [one for one, its in zip(every, data, strict=True) if its == called]
        differ = [n for n in identity.varying(ones) if n in apart and n not in ("data", "images")]
        own[called] = [n for n in differ if not arms.follows(n, differ, ones)]
    words = lambda one, called: [identity.say(n, identity.value(one, n)) for n in own[called]]
    return [" ".join([d] * (len(own) > 1) + words(one, d)) for one, d in zip(every, data, strict=True)]


def labels(rows: Any, without: Collection[str] = ()) -> list[str]:
    """An arm's name for each finished row, as `arms.names` makes them."""
    return arms.names(results.identities(rows), without)


def full_labels(rows: Any) -> dict[str, str]:
    """An arm's name -> all that it differs in; for who points at it."""
    return dict(zip(rows["arm"], arms.full_names(results.identities(rows)), strict=True))


def base(rows: Any) -> str:
    """What short names leave out, as `arms.base` says it."""
    return arms.base(results.identities(rows))


def usual_arm(rows: Any) -> str:
    """The arm that others are compared with unless one is named, as `arms.usual` finds it."""
    return rows["arm"].iloc[arms.usual(results.identities(rows))]


def crossed(rows: Any, factors: list[str]) -> bool:
    """Whether every combination of the factors' values has runs."""
    values = [[str(identity.value(one, name)) for name in factors] for one in results.identities(rows)]
    return len({tuple(line) for line in values}) == math.prod(len(set(column)) for column in zip(*values, strict=True))


def balanced(rows: Any, factors: list[str]) -> bool:
    """Whether each value of a factor meets each of every other factor in as many arms, so that main effects are clear of each other."""
    arms = {identity.group(one): one for one in results.identities(rows)}.values()
    values = {name: [str(identity.value(one, name)) for one in arms] for name in factors}
    for a, b in combinations(factors, 2):
        met = Counter(zip(values[a], values[b], strict=True))
        if len(met) < len(set(values[a])) * len(set(values[b])) or len(set(met.values())) > 1:
            return False
    return True
