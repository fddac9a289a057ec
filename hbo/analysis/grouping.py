"""Which rows are judged together: the settings of a study, the arms within one, and the arm that the others are compared with."""

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from hbo.analysis import results
from hbo.block import Block
from hbo.config import Run
from hbo.runs import identity

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
    which = [" ".join(identity.say(name, identity.value(one, name)) for name in apart) for one in results.identities(rows)]
    finished = dict.fromkeys(w for w, state in zip(which, rows["state"], strict=True) if state == "done")
    which = [w if w in finished else next(iter(finished)) for w in which]  # a run that failed early has no fields to go by
    return [(one, rows[[w == one for w in which]]) for one in finished]


def labels(rows: Any) -> list[str]:
    """An arm's name for each row: what the runs of its network differ in, but for the seed, and what tells networks apart.

    Rows have one label where their identities differ in the seed alone, and only then.
    """
    every = results.identities(rows)
    several = len({one.get("net", Run.net) for one in every}) > 1
    beside = [name for name in identity.varying(every) if name not in Run.BACKBONE]  # how they were trained differs, too
    own = {}
    for net in rows["net"].unique():
        names = identity.varying([one for one, is_its in zip(every, rows["net"] == net, strict=True) if is_its])
        own[net] = list(dict.fromkeys([*(n for n in names if n != "net"), *beside]))
    return [
        " ".join([net] * (several or not own[net]) + [identity.say(n, identity.value(one, n)) for n in own[net]])
        for net, one in zip(rows["net"], every, strict=True)
    ]


def usual_arm(rows: Any, arms: Sequence[str]) -> str:
    """The arm that others are compared with unless one is named: k = 0 where it is, else the published switches, changed least."""
    if rows["k"].nunique() > 1 and (rows["k"] == 0).any():
        return rows.loc[rows["k"] == 0, "arm"].iloc[0]
    usual = rows
    for name in (f.name for f in fields(Block)):
        usual = usual[usual[name] == getattr(Run, name)]
    usual = usual[usual["net"] == Run.net]
    if not len(usual):
        return arms[0]
    changed = [len(one) for one in results.identities(usual)]  # names that are not at their defaults
    return usual["arm"].iloc[changed.index(min(changed))]


def crossed(rows: Any, factors: list[str]) -> bool:
    """Whether every combination of the factors' values has runs."""
    values = [[str(identity.value(one, name)) for name in factors] for one in results.identities(rows)]
    return len({tuple(line) for line in values}) == math.prod(len(set(column)) for column in zip(*values, strict=True))
