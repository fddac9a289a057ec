"""The arms of runs, asked of their identities alone: their names, the one that the others are compared with, what they share.

Rows have identities (`results.identities`), and so has a sweep file before its runs: `grouping` and `hbo.sweep` both ask here.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

from hbo.block import Block
from hbo.config import Run
from hbo.runs import identity
from hbo.runs.identity import Identity

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


def names(every: list[Identity], without: Collection[str] = ()) -> list[str]:
    """An arm's name for each identity: what those of its network differ in, but for the seed, and what tells networks apart.

    Identities have one name where they differ in the seed alone, and only then. Where names would be long, fields at their
    commonest values are left out (`base` says which those are).

    Args:
        every: of finished rows, or of a sweep file's runs.
        without: fields that make no difference, such as the one of a figure's axis.
    """
    long, short = ([_label(net, said) for net, said in _words(every, without, brief)] for brief in (False, True))
    if max(map(len, long), default=0) <= LONG or len(set(short)) < len(set(long)):
        return long
    return short


def full_names(every: list[Identity]) -> list[str]:
    """The same, with all that the arms differ in."""
    return [_label(net, said) for net, said in _words(every, (), brief=False)]


def base(every: list[Identity]) -> str:
    """What short names leave out: the commonest value of each field, network by network; nothing where names are whole."""
    if names(every) == full_names(every):
        return ""
    nets = dict.fromkeys(identity.value(one, "net") for one in every)
    said = []
    for net in nets:
        ones = [one for one in every if identity.value(one, "net") == net]
        common = _commonest(ones, _differ(every, ones))
        words = " ".join(identity.say(name, value) for name, value in common.items())
        said.append(f"{net if len(nets) > 1 else BASE}: {words}")
    return "; ".join(said)


def protocol(one: Identity) -> str:
    """Equal for two runs on the same data that are trained alike, whatever their networks and seeds; weights to start from are the network's."""
    return identity.group(one, {*Run.BACKBONE, "seed", "backbone"}) + " pretrained" * ("backbone" in one)


def usual(every: Sequence[Identity]) -> int:
    """The place of the arm that others are compared with unless one is named: k = 0, else the published switches, changed least."""
    k = [identity.value(one, "k") for one in every]
    if len(set(k)) > 1 and 0 in k:
        return k.index(0)
    switches = {f.name for f in fields(Block)} | {"net"}
    published = [i for i, one in enumerate(every) if all(identity.value(one, n) == getattr(Run, n) for n in switches)]
    return min(published, key=lambda i: len(every[i]), default=0)  # names that are not at their defaults


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
        names = [n for n in names if not (brief and follows(n, names, ones))]
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


def follows(name: str, names: Sequence[str], ones: list[Identity]) -> bool:
    """Whether a field goes by another one of the names, in all these runs."""
    leader = FOLLOWS.get(name)
    pairs = {(repr(identity.value(one, str(leader))), repr(identity.value(one, name))) for one in ones}
    return leader in names and len({first for first, _ in pairs}) == len(pairs)
