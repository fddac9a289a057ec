"""Identity and camera of an image, from its name.

| set | name | identity, camera |
| --- | --- | --- |
| Market-1501 | `0002_c1s1_000451_03.jpg` | 0002, 1; -1 is junk, 0000 a distractor |
| DukeMTMC | `0001_c2_f0046182.jpg` | 0001, 2 |
| VeRi-776 | `0002_c002_00030600_0.jpg` | 0002, 2 |
| MSMT17 | `0000_000_01_0303morning_0015_0.jpg` | identity from its list; 1 |

Any ID_cCAMERA or ID_cCAMERA_... is read in this way, in upper or lower case; an ID is a number or a word
without an underscore. In every form -1 is junk. Identity 0000 is a distractor if the whole name has
Market-1501's form, else an ordinary identity.
"""

import re
from typing import Literal, NamedTuple

from hbo.names import same_name

MARKET = re.compile(r"(-1|[0-9]{4,})_c([0-9]{1,9})s[0-9]+_[0-9]+_[0-9]+", re.IGNORECASE)
ANY = re.compile(r"(-1|[^\W_][^_]*)_c([0-9]{1,9})(?:s[0-9]+)?(?:_.*)?", re.IGNORECASE)
MSMT17 = re.compile(r"[0-9]+_[0-9]+_([0-9]{1,9})_.*", re.IGNORECASE)
NUMBER = re.compile(r"[0-9]{1,9}")
FORMS = "ID_cCAMERA_..., such as 0002_c1s1_000451_03.jpg, 0001_c2_f0046182.jpg or 0002_c002_00030600_0.jpg"
Kind = Literal["identity", "junk", "distractor"]


class Shown(NamedTuple):
    """Identity and camera of an image."""

    who: str
    """The identity's name; numbers of at least four digits."""
    camera: int
    kind: Kind = "identity"


def by_name(stem: str) -> Shown | None:
    """Identity and camera in a file's name without suffix; None for an unknown form."""
    found = ANY.fullmatch(stem)
    if found is None:
        return None
    who, camera = named(found[1]), int(found[2])
    if found[1] == "-1":
        return Shown(who, camera, "junk")
    return Shown(who, camera, "distractor" if MARKET.fullmatch(stem) and who == "0000" else "identity")


def by_list(stem: str, label: str) -> Shown | None:
    """The same with the identity from a list and the camera from the name, in MSMT17's form or another."""
    if found := MSMT17.fullmatch(stem):
        return Shown(named(label), int(found[1]))
    other = by_name(stem)
    return other and Shown(named(label), other.camera)


def named(word: str) -> str:
    """An identity's name in one form: 7, 0007 and 00007 are equal."""
    return f"{int(word):04d}" if NUMBER.fullmatch(word) else same_name(word)


def ordered(names: set[str]) -> list[str]:
    """Sort names of identities: numbers by value, then words."""
    return sorted(names, key=lambda name: (0, int(name), "") if NUMBER.fullmatch(name) else (1, 0, name))


def numbers(names: set[str]) -> dict[str, int]:
    """A number for each retrieved identity, from 1: its own, and for 0000 and
    words numbers above the largest.

    0 means distractor in the metric (`hbo.tasks.reid.metrics`), so no identity may have it.
    """
    own = {name: int(name) for name in names if NUMBER.fullmatch(name) and int(name) > 0}
    start = max(own.values(), default=0) + 1
    return own | {name: start + i for i, name in enumerate(ordered(names - own.keys()))}
