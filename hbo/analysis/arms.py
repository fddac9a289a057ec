"""The arms of runs, from their identities alone: names, the baseline, and what they share.

Rows have identities (`results.identities`), and so has a sweep file before its runs: `grouping` and
`hbo.sweep` both use this file.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

from hbo.block import Block
from hbo.config import Run
from hbo.runs import identity
from hbo.runs.identity import Identity
from hbo.tasks.classify import named

LONG = 40  # longest arm name, in characters, that lists all differences
# A field -> the field that sets its default: a short name omits it if all arms have that default.
FOLLOWS = {
    "eval_resize": "resolution",
    "crop_area": "crop",
    "divisor": "width",
    "milestones": "epochs",
    "warmup_from": "warmup",
}
BASE = "base"  # the arm with each field's most common value, in short names


def names(every: list[Identity], without: Collection[str] = ()) -> list[str]:
    """An arm's name for each identity: the fields in which its network's identities differ, except the seed,
    and the network.

    Identities share a name if and only if they differ only in the seed. Long names omit fields at their most
    common values (`base` lists these).

    Args:
        every: identities of finished rows, or of a sweep file's runs.
        without: fields to ignore, such as the one on a figure's axis.
    """
    long, short = (
        [_label(net, said) for net, said in _words(every, without, brief)] for brief in (False, True)
    )
    if max(map(len, long), default=0) <= LONG or len(set(short)) < len(set(long)):
        return long
    return short


def full_names(every: list[Identity]) -> list[str]:
    """The same, with all differences."""
    return [_label(net, said) for net, said in _words(every, (), brief=False)]


def base(every: list[Identity]) -> str:
    """What short names omit: the most common value of each field, per
    network; empty if names are complete.
    """
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
    """A name that two runs share if they have the same data and training; networks and seeds may differ.
    Initial weights count as part of the network.
    """
    return identity.group(one, {*Run.BACKBONE, "seed", "backbone"}) + " pretrained" * ("backbone" in one)


def usual(every: Sequence[Identity]) -> int:
    """The position of the default baseline: k = 0, else the arm with the fewest
    changes to the published switches.
    """
    k = [identity.value(one, "k") for one in every]
    if len(set(k)) > 1 and 0 in k:
        return k.index(0)
    switches = {f.name for f in fields(Block)} | {"net"}
    published = [
        i for i, one in enumerate(every) if all(identity.value(one, n) == getattr(Run, n) for n in switches)
    ]
    return min(published, key=lambda i: len(every[i]), default=0)  # names list non-default values


def _label(net: str, words: list[str]) -> str:
    return " ".join([net] * bool(net) + words) or BASE


def _words(every: list[Identity], without: Collection[str], brief: bool) -> list[tuple[str, list[str]]]:
    """For each identity: its network if needed, and its fields' values."""
    several = len({identity.value(one, "net") for one in every}) > 1
    found: list[tuple[str, list[str]]] = [("", [])] * len(every)
    for net in dict.fromkeys(identity.value(one, "net") for one in every):
        own = [i for i, one in enumerate(every) if identity.value(one, "net") == net]
        ones = [every[i] for i in own]
        names = [n for n in _differ(every, ones) if n not in without]
        common = _commonest(ones, names) if brief else {}
        names = [n for n in names if not (brief and follows(n, names, ones))]
        for i, one in zip(own, ones, strict=True):
            said = [
                identity.say(n, identity.value(one, n))
                for n in names
                if not brief or identity.value(one, n) != common[n]
            ]
            found[i] = (net if several or not names else "", said)
    return found


def _differ(every: list[Identity], ones: list[Identity]) -> list[str]:
    """The fields in which the arms of one network differ, and those of training in which any arms differ."""
    beside = [name for name in identity.varying(every) if name not in Run.BACKBONE]
    return by_recipe(
        [name for name in dict.fromkeys([*identity.varying(ones), *beside]) if name != "net"], ones
    )


def by_recipe(names: list[str], ones: Sequence[Identity]) -> list[str]:
    """Names in which identities differ; if each has a named recipe and these differ, `recipe` replaces the
    fields that it sets.
    """
    found = {identity.value(one, "recipe") for one in ones}
    if len(found) < 2 or None in found:
        return names
    rest = [name for name in names if name not in named.FIELDS]
    gone = [name for name in names if name in named.FIELDS and decided(name, ["recipe", *rest], ones)]
    return ["recipe", *(name for name in names if name not in gone)]


def decided(name: str, by: Sequence[str], ones: Sequence[Identity]) -> bool:
    """Whether a field's value follows from other fields', in all these runs."""
    values = {
        (tuple(repr(identity.value(one, other)) for other in by), repr(identity.value(one, name)))
        for one in ones
    }
    return len(values) == len({key for key, _ in values})


def _commonest(ones: list[Identity], names: Sequence[str]) -> dict[str, Any]:
    """Each field's most common value; in a tie the field's default, else the first."""
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
    """Whether a field is determined by another of the names, in all these runs."""
    leader = FOLLOWS.get(name)
    return leader in names and decided(name, [str(leader)], ones)
