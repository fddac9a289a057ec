"""A question asked of a study's arms: the lines that answer it, in families that are judged together.

`hbo.analysis.question` has the question's words.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hbo.analysis import contrasts, effects
from hbo.analysis.contrasts import Contrast
from hbo.analysis.question import AGAINST, MACS, Question, fields_of_side
from hbo.config import Run
from hbo.errors import UserError
from hbo.runs import identity
from hbo.runs.identity import Identity
from hbo.tasks.classify import named
from hbo.values import field_types


@dataclass(frozen=True)
class Arm:
    """Runs that differ only in the seed."""

    label: str
    identity: Identity
    macs: float


@dataclass(frozen=True)
class Family:
    """Contrasts that are judged together, with a probability of any false positive of at most 5 %."""

    kind: str
    """each, mean, trend or effects."""
    primary: bool
    contrasts: list[Contrast]


def of(question: Question, arms: Sequence[Arm], baseline: str | None = None) -> list[Family]:
    """The study's lines, the primary family first.

    Args:
        question: the question.
        arms: of the study; a side without a matching arm gives no line.
        baseline: the arm to compare with if `versus` names none; None: the first.

    Raises:
        UserError: a side matches several arms, and one has no partner, or two; a trend over a constant.
    """
    if question.judge == "effects":
        return [
            Family("effects", True, [line for term in question.versus for line in effects.of(term, arms)])
        ]
    pairs = _pairs(question, arms, baseline)
    by_label = {arm.label: arm for arm in arms}
    each = [Contrast(f"{a} against {b}", {a: 1.0, b: -1.0}) for a, b in pairs]
    found = {"each": each}
    # Of one kind, so that their mean is meaningful.
    several = len({b for _, b in pairs}) > 1 and len(question.versus) == 1
    if len(pairs) > 1 and (several or question.judge == "mean"):
        weights = [
            (label, sign / len(pairs)) for pair in pairs for label, sign in zip(pair, (1, -1), strict=True)
        ]
        found["mean"] = [Contrast(f"mean of {len(pairs)} differences", _summed(weights))]
    if question.trend is not None and len(pairs) > 1:
        found["trend"] = [_trend(question.trend, pairs, by_label)]
    primary = question.judge if question.judge in found else "each"  # a single pair has no mean and no trend
    return [
        Family(kind, kind == primary, found[kind]) for kind in sorted(found, key=lambda kind: kind != primary)
    ]


def _pairs(question: Question, arms: Sequence[Arm], baseline: str | None) -> list[tuple[str, str]]:
    """(arm, baseline), each pair once."""
    if not question.versus:
        base = baseline or (arms[0].label if arms else "")
        return [(arm.label, base) for arm in arms if arm.label != base]
    found: list[tuple[str, str]] = []
    for one in question.versus:
        left, *right = AGAINST.split(one.strip())
        if not right and left in field_types(Run):
            values = list(dict.fromkeys(identity.value(arm.identity, left) for arm in arms))
            usual = effects.baseline(left, values) if values else None
            for other in [value for value in values if value != usual]:
                found += [(b, a) for a, b in _partners({left: usual}, {left: other}, arms, one)]
        elif not right:
            base = _named(fields_of_side(left), arms)
            rest = [arm for arm in arms if arm not in base]
            found += _matched(rest, base, list(fields_of_side(left)), one)
        else:
            sides = fields_of_side(left), fields_of_side(right[0])
            if sides[0] == sides[1]:
                raise UserError(f"primary.versus={one!r}: compares {left} with itself; name two arms")
            found += _partners(*sides, arms, one)
    return list(dict.fromkeys(found))


def _named(wanted: Mapping[str, Any], arms: Sequence[Arm]) -> list[Arm]:
    return [
        arm
        for arm in arms
        if all(identity.value(arm.identity, name) == value for name, value in wanted.items())
    ]


def _partners(
    left: dict[str, Any], right: dict[str, Any], arms: Sequence[Arm], said: str
) -> list[tuple[str, str]]:
    return _matched(_named(left, arms), _named(right, arms), [*left, *right], said)


def _matched(
    left: Sequence[Arm], right: Sequence[Arm], names: Sequence[str], said: str
) -> list[tuple[str, str]]:
    """Each arm on the left with its partner.

    Raises:
        UserError: an arm has no partner, or two.
    """
    if len(right) <= 1:
        return [(arm.label, base.label) for base in right for arm in left if arm is not base]
    found = []
    for arm in left:
        rest = lambda one: identity.group(
            one.identity, {"seed", *names, *(named.FIELDS if "recipe" in names else ())}
        )
        same = [other for other in right if rest(other) == rest(arm) and other is not arm]
        if not same:
            off = {
                other.label: abs(math.log(other.macs / arm.macs)) if other.macs and arm.macs else math.inf
                for other in right
            }
            near = sorted(right, key=lambda other: off[other.label])
            alone = off[near[1].label] > off[near[0].label]
            same = [near[0]] if alone and contrasts.same_budget(near[0].macs, arm.macs) else []
        if len(same) != 1:
            what = "several partners" if same else "no partner with the same multiply-adds"
            raise UserError(f"primary.versus={said!r}: {arm.label} has {what}; name each pair, 'A against B'")
        found.append((arm.label, same[0].label))
    return found


def check_arms(question: Question, arms: Sequence[Arm]) -> None:
    """Check that the arms of a sweep file answer the question; the question's words are checked first.

    Raises:
        UserError: a side matches no arm, a field does not vary, its main effect is confounded with others; or
        as `of`.
    """
    there = ", ".join(arm.label for arm in arms)
    for one in question.versus:
        by_effects = question.judge == "effects"
        named_fields = (
            effects.factors(one) if by_effects else [one.strip()] * (one.strip() in field_types(Run))
        )
        for name in named_fields:
            values = {repr(identity.value(arm.identity, name)) for arm in arms}
            if len(values) < 2:
                raise UserError(
                    f"primary.versus={one!r}: all arms have {name}={', '.join(values)}; the arms are: {there}"
                )
        if by_effects and not effects.of(one, arms):
            raise UserError(
                f"primary.versus={one!r}: the arms of its values also differ in other fields, so its main"
                " effect is confounded; run every combination, or use `python -m hbo.sweep design fraction`"
            )
        if named_fields:
            continue
        for side in AGAINST.split(one.strip()):
            if not _named(fields_of_side(side), arms):
                raise UserError(f"primary.versus={one!r}: no arm has {side}; the arms are: {there}")
    if question.judge not in (kinds := [family.kind for family in of(question, arms)]):
        raise UserError(
            f"primary.judge={question.judge}: a single comparison has no {question.judge}; use judge:"
            f" {kinds[0]}"
        )


def _summed(weights: Sequence[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for label, weight in weights:
        found[label] = found.get(label, 0.0) + weight
    return found


def _trend(over: str, pairs: Sequence[tuple[str, str]], arms: Mapping[str, Arm]) -> Contrast:
    """The least-squares slope of the differences over the trend's axis; of the arms themselves if all have
    the same baseline.

    Raises:
        UserError: the axis is not a positive number, or is constant.
    """
    one_baseline = len({b for _, b in pairs}) == 1
    lines = (
        [(a, None) for a in dict.fromkeys([pairs[0][1], *(a for a, _ in pairs)])]
        if one_baseline
        else list(pairs)
    )
    x = []
    for a, b in lines:
        values = [_place(over, arms[label]) for label in (a, b) if label is not None]
        x.append(sum(values) / len(values))
    if not all(map(math.isfinite, x)) or len(set(x)) < 2:
        raise UserError(f"primary.trend={over}: must be a different number in each of the compared arms")
    slope = contrasts.slope(x).tolist()
    weights = [(a, w) for (a, _), w in zip(lines, slope, strict=True)]
    weights += [(b, -w) for (_, b), w in zip(lines, slope, strict=True) if b is not None]
    step = "halving of multiply-adds" if over == MACS else f"step of {over}"
    what = "trend" if one_baseline else "trend of the difference"
    return Contrast(f"{what}, per {step}", {label: w for label, w in _summed(weights).items() if w})


def _place(over: str, arm: Arm) -> float:
    """An arm's position on the axis of a trend."""
    if over == MACS:
        return -math.log2(arm.macs) if arm.macs and arm.macs > 0 else math.nan
    value = identity.value(arm.identity, over)
    return math.nan if value is None else float(value)
