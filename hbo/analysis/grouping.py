"""Which rows are judged together: the settings of a study, the arms within one, and the arm that the others are compared with."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

from hbo.analysis import results
from hbo.block import Block
from hbo.config import Run
from hbo.runs import identity, naming
from hbo.runs.identity import Identity

# Runs that differ in these report other images: never judged against each other
IMAGES = ("task", "data", "images", "holdout", "limit_batches")
LONG = 40  # characters of an arm's name up to which it says all that the arms differ in
# A field -> the one that it goes by unless it is given: a short name leaves it out where it does so throughout.
FOLLOWS = {
    "eval_resize": "resolution",
    "crop_area": "crop",
    "divisor": "width",
    "milestones": "epochs",
    "warmup_from": "warmup",
}
BASE = "base"  # the arm that has each field's commonest value, where names are short


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
        own[called] = [n for n in differ if not _follows(n, differ, ones)]
    words = lambda one, called: [identity.say(n, identity.value(one, n)) for n in own[called]]
    return [" ".join([d] * (len(own) > 1) + words(one, d)) for one, d in zip(every, data, strict=True)]


def labels(rows: Any, without: Collection[str] = ()) -> list[str]:
    """An arm's name for each row: what the runs of its network differ in, but for the seed, and what tells networks apart.

    Rows have one label where their identities differ in the seed alone, and only then. Where names would be long, fields at their
    commonest values are left out (`base` says which those are).

    Args:
        rows: finished ones.
        without: fields that make no difference, such as the one of a figure's axis.
    """
    every = results.identities(rows)
    long, short = ([_label(net, words) for net, words in _words(every, without, brief)] for brief in (False, True))
    if max(map(len, long), default=0) <= LONG or len(set(short)) < len(set(long)):
        return long
    return short


def full_labels(rows: Any) -> dict[str, str]:
    """An arm's name -> all that it differs in; for who points at it."""
    words = _words(results.identities(rows), (), brief=False)
    return dict(zip(rows["arm"], (_label(net, said) for net, said in words), strict=True))


def base(rows: Any) -> str:
    """What short names leave out: the commonest value of each field, network by network; nothing where names are whole."""
    if set(full_labels(rows).items()) <= {(name, name) for name in rows["arm"]}:
        return ""
    every = results.identities(rows)
    nets = dict.fromkeys(identity.value(one, "net") for one in every)
    said = []
    for net in nets:
        ones = [one for one in every if identity.value(one, "net") == net]
        common = _commonest(ones, _differ(every, ones))
        words = " ".join(identity.say(name, value) for name, value in common.items())
        said.append(f"{net if len(nets) > 1 else BASE}: {words}")
    return "; ".join(said)


def _label(net: str, words: list[str]) -> str:
    return " ".join([net] * bool(net) + words) or BASE


def _words(every: list[Identity], without: Collection[str], brief: bool) -> list[tuple[str, list[str]]]:
    """Of each identity: its network where that has to be said, and its fields' values."""
    several = len({identity.value(one, "net") for one in every}) > 1
    found: list[tuple[str, list[str]]] = [("", [])] * len(every)
    for net in dict.fromkeys(identity.value(one, "net") for one in every):
        own = [i for i, one in enumerate(every) if identity.value(one, "net") == net]
        ones = [every[i] for i in own]
        names = [n for n in _differ(every, ones) if n not in without]
        common = _commonest(ones, names) if brief else {}
        names = [n for n in names if not (brief and _follows(n, names, ones))]
        for i, one in zip(own, ones, strict=True):
            said = [identity.say(n, identity.value(one, n)) for n in names if not brief or identity.value(one, n) != common[n]]
            found[i] = (net if several or not names else "", said)
    return found


def _differ(every: list[Identity], ones: list[Identity]) -> list[str]:
    """In what the arms of one network differ, and those of all networks in how they were trained."""
    beside = [name for name in identity.varying(every) if name not in Run.BACKBONE]
    return [name for name in dict.fromkeys([*identity.varying(ones), *beside]) if name != "net"]


def _commonest(ones: list[Identity], names: Sequence[str]) -> dict[str, Any]:
    """The value of each field that most arms have; of several the field's default, else the first."""
    arms = list({identity.group(one): one for one in ones}.values())
    common = {}
    for name in names:
        values = [identity.value(one, name) for one in arms]
        counts = Counter(map(repr, values))
        most = [v for v in values if counts[repr(v)] == max(counts.values())]
        usual = getattr(Run, name, None)
        common[name] = usual if usual in most else most[0]
    return common


def _follows(name: str, names: Sequence[str], ones: list[Identity]) -> bool:
    """Whether a field goes by another one of the names, in all these runs."""
    leader = FOLLOWS.get(name)
    pairs = {(repr(identity.value(one, str(leader))), repr(identity.value(one, name))) for one in ones}
    return leader in names and len({first for first, _ in pairs}) == len(pairs)


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
