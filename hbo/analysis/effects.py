"""Main effects and interactions of a factorial's fields, as contrasts of its arms.

"k" is a main effect: the mean over all arms of each value against that of the default. "net x recipe" is an
interaction: how much larger the effect of one field is at a value of the other than at its default. Both
need arms in which each value, or each pair of values, is combined with the same values of the other fields.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from hbo.analysis import arms as names
from hbo.analysis import numbers
from hbo.analysis.contrasts import Contrast
from hbo.config import Run
from hbo.runs import identity
from hbo.runs.identity import Identity

if TYPE_CHECKING:
    from hbo.analysis.families import Arm

# A field -> the fields that it may determine: a network's published divisor, and the width with the
# multiply-adds asked for.
COME_WITH = {"net": ("divisor", "width")}


def factors(term: str) -> list[str]:
    """The fields of a term: `net`, `recipe` of "net x recipe"."""
    return [name.strip() for name in term.split(" x ")]


def baseline(name: str, values: Sequence[Any]) -> Any:
    """The value of a field against which its others are compared: the default if it is among them, else the
    lowest number or the first word of the alphabet. The order of a file's values is not in its rows.
    """
    usual = getattr(Run, name)
    return usual if usual in values else min(values, key=numbers.order)


def of(term: str, arms: "Sequence[Arm]") -> list[Contrast]:
    """A term's contrasts: one for each value, or pair of values, against the baseline.

    None if the arms of its values also differ in other fields: runs are missing,
    or the design confounds them.
    """
    own, ones = factors(term), [arm.identity for arm in arms]
    levels = {name: _values(name, ones) for name in own}
    usual = {name: baseline(name, found) for name, found in levels.items()}
    here = lambda one, place: all(identity.value(one, n) == at for n, at in zip(own, place, strict=True))
    cells = [[one for one in ones if here(one, place)] for place in product(*levels.values())]
    others = _others(own, ones)
    mixes = [
        [Counter(repr(identity.value(one, other)) for one in cell) for other in others] for cell in cells
    ]
    if not all(cells) or any(mix != mixes[0] for mix in mixes):
        return []
    found = []
    for place in product(*([value for value in levels[name] if value != usual[name]] for name in own)):
        at = dict(zip(own, place, strict=True))
        weights = {arm.label: _sign(arm.identity, at, usual) * len(cells) / len(arms) for arm in arms}
        found.append(
            Contrast(_label(at, usual), {label: weight for label, weight in weights.items() if weight})
        )
    return found


def _values(name: str, ones: Sequence[Identity]) -> list[Any]:
    return list({repr(value): value for value in (identity.value(one, name) for one in ones)}.values())


def _others(own: Sequence[str], ones: list[Identity]) -> list[str]:
    """The other fields that vary, without those that the term's fields determine."""
    with_them = [
        other for name in own for other in COME_WITH.get(name, ()) if names.decided(other, [name], ones)
    ]
    return [n for n in names.by_recipe(identity.varying(ones), ones) if n not in (*own, *with_them)]


def _sign(one: Identity, at: dict[str, Any], usual: dict[str, Any]) -> int:
    return math.prod(
        (identity.value(one, name) == at[name]) - (identity.value(one, name) == usual[name]) for name in at
    )


def _label(at: dict[str, Any], usual: dict[str, Any]) -> str:
    first, *rest = at
    said = f"{identity.say(first, at[first])} against {identity.say(first, usual[first])}"
    return said + "".join(
        f", more at {identity.say(n, at[n])} than at {identity.say(n, usual[n])}" for n in rest
    )
