"""What a study judges: which arms against which, what difference does not matter, and which of its lines is the primary one.

A sweep file says it under a key of its own, which W&B passes over:

    primary: {metric: top1, versus: "net=hbonet against net=mobilenetv2", margin: 1.0, judge: mean}

and `python -m hbo.analysis.study` takes the same words as flags. `versus` is one of these, or a list of them:

    "k=1"                                  every other arm against this one
    "k=2 against k=1"                      two arms; where a side names several, each with its partner: the arm that differs in
                                           the named fields alone, else the one of nearest multiply-adds, within 10 %
    "net"                                  a field that pairs arms: its default against its other values

With `judge: effects` it names fields alone, and each is asked for its main effect: the mean over all arms of each value against
that of the field's default. Where a factorial is run in part, arms have no partners, and this is what it can say.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from hbo.analysis.contrasts import Contrast
from hbo.config import Run
from hbo.errors import UserError
from hbo.runs import identity
from hbo.runs.identity import Identity
from hbo.tasks import COLUMNS
from hbo.values import field_types, number, shown, typed
from hbo.words import did_you_mean, other_name

NEAR = 0.1  # of multiply-adds, within which two arms have one budget
AGAINST = re.compile(r"\s+against\s+")
MACS = "macs"
JUDGES = ("each", "mean", "trend", "effects")


@dataclass(frozen=True)
class Question:
    """The question of a study; what is left out has its usual."""

    metric: str | None = None
    """The column that is judged; left out: the task's."""
    versus: tuple[str, ...] = ()
    """Who is compared; left out: every arm against the usual baseline."""
    margin: float | None = None
    """Points of percent below which a difference does not matter; left out: nothing is called equivalent."""
    judge: Literal["each", "mean", "trend", "effects"] = "each"
    """The primary lines: each comparison, their mean, their trend, or the fields' main effects. The others are exploratory."""
    trend: str | None = None
    """What the comparisons are ordered by: a field that is a number, or `macs` (by halvings of multiply-adds: positive where it grows as the budget shrinks)."""

    @property
    def share(self) -> float | None:
        """The margin as a fraction."""
        return None if self.margin is None else self.margin / 100


@dataclass(frozen=True)
class Arm:
    """Runs that differ in the seed alone."""

    label: str
    identity: Identity
    macs: float


@dataclass(frozen=True)
class Family:
    """Contrasts that are judged together: a false alarm anywhere among them has at most 5 %."""

    kind: str
    """each, mean, trend or effects."""
    primary: bool
    contrasts: list[Contrast]


def parse(content: Any) -> Question:
    """The question under a sweep file's `primary`.

    Raises:
        UserError: an unknown key, or a value that none can have.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"primary={shown(content)}: must be a mapping of {', '.join(_names())}")
    given = {str(name): value for name, value in content.items()}
    if unknown := [name for name in given if name not in _names()]:
        raise UserError(f"primary.{unknown[0]}: no such key{did_you_mean(unknown[0], _names())}")
    if "versus" in given:
        versus = [given["versus"]] if isinstance(given["versus"], str) else given["versus"]
        if not isinstance(versus, list) or not versus or not all(isinstance(one, str) and one.strip() for one in versus):
            raise UserError(
                f"primary.versus={shown(given['versus'])}: must be text or a list of text, such as 'k=2 against k=1'"
            )
        given["versus"] = tuple(versus)
    if given.get("margin") is not None:
        margin = number(given["margin"])
        if margin is None or not 0 < margin < 100:
            raise UserError(f"primary.margin={shown(given['margin'])}: must be points of percent, above 0 and below 100")
        given["margin"] = margin
    found = Question(**given)
    _check(found)
    return found


def _names() -> list[str]:
    return [f.name for f in fields(Question)]


def _check(question: Question) -> None:
    """Words that are none, whoever wrote them.

    Raises:
        UserError: a metric, field, value or trend that does not exist.
    """
    choices = {"metric": (*COLUMNS, None), "judge": JUDGES, "trend": (*_numeric(), MACS, None)}
    for name, known in choices.items():
        value = getattr(question, name)
        if value not in known:
            words = [word for word in known if word]
            raise UserError(f"primary.{name}={shown(value)}: choose from {', '.join(words)}{did_you_mean(str(value), words)}")
    if question.judge == "trend" and question.trend is None:
        raise UserError(f"primary.judge=trend: primary.trend has to say of what: {MACS}, or a field that is a number")
    if question.judge == "effects" and not (question.versus and set(question.versus) <= field_types(Run).keys()):
        raise UserError(
            f"primary.judge=effects: primary.versus={list(question.versus)}: must name fields, such as [k, residual]"
        )
    for one in question.versus:
        for side in AGAINST.split(one):
            if side.strip() not in field_types(Run):
                _sides(side)
        if len(AGAINST.split(one)) > 2:
            raise UserError(f"primary.versus={one!r}: 'against' stands twice; write a line for each pair")


def _numeric() -> list[str]:
    return [name for name, kind in field_types(Run).items() if kind in (int, float, int | None, float | None)]


def _sides(text: str) -> dict[str, Any]:
    """`net=hbonet width=0.25` as fields of their types.

    Raises:
        UserError: not so written, an unknown field, or a value that it cannot have.
    """
    found = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(
                f"primary.versus={text!r}: {word!r} must be FIELD=VALUE{did_you_mean(word, list(field_types(Run)))}"
            )
        if name not in field_types(Run):
            raise UserError(f"primary.versus={text!r}: no field {name}{other_name(name, list(field_types(Run)))}")
        found[name] = typed(name, field_types(Run)[name], value)
    return found


# ------------------------------------------------------------ the arms that it names


def families(question: Question, arms: Sequence[Arm], baseline: str | None = None) -> list[Family]:
    """The study's lines, the primary family first.

    Args:
        question: what is asked.
        arms: of the study; a side that names none of them gives no line.
        baseline: the arm to compare with where `versus` names none; None: the first.

    Raises:
        UserError: a side names several arms of which one has no partner, or two; a trend over what does not vary.
    """
    if question.judge == "effects":
        return [Family("effects", True, [line for name in question.versus for line in _effects(name, arms)])]
    pairs = _pairs(question, arms, baseline)
    by_label = {arm.label: arm for arm in arms}
    each = [Contrast(f"{a} against {b}", {a: 1.0, b: -1.0}) for a, b in pairs]
    found = {"each": each}
    several = len({b for _, b in pairs}) > 1 and len(question.versus) == 1  # of one kind, so that a mean says something
    if len(pairs) > 1 and (several or question.judge == "mean"):
        weights = [(label, sign / len(pairs)) for pair in pairs for label, sign in zip(pair, (1, -1), strict=True)]
        found["mean"] = [Contrast(f"mean of {len(pairs)} differences", _summed(weights))]
    if question.trend is not None and len(pairs) > 1:
        found["trend"] = [_trend(question.trend, pairs, by_label)]
    primary = question.judge if question.judge in found else "each"  # of a single pair there is no mean and no trend
    return [Family(kind, kind == primary, found[kind]) for kind in sorted(found, key=lambda kind: kind != primary)]


def _pairs(question: Question, arms: Sequence[Arm], baseline: str | None) -> list[tuple[str, str]]:
    """(arm, what it is compared with), each pair once."""
    if not question.versus:
        base = baseline or (arms[0].label if arms else "")
        return [(arm.label, base) for arm in arms if arm.label != base]
    found: list[tuple[str, str]] = []
    for one in question.versus:
        left, *right = AGAINST.split(one.strip())
        if not right and left in field_types(Run):
            usual = getattr(Run, left)
            others = dict.fromkeys(identity.value(arm.identity, left) for arm in arms)
            for other in [value for value in others if value != usual]:
                found += _partners({left: usual}, {left: other}, arms, one)
        elif not right:
            base = _named(_sides(left), arms)
            rest = [arm for arm in arms if arm not in base]
            found += _matched(rest, base, list(_sides(left)), one)
        else:
            found += _partners(_sides(left), _sides(right[0]), arms, one)
    return list(dict.fromkeys(found))


def _named(wanted: Mapping[str, Any], arms: Sequence[Arm]) -> list[Arm]:
    return [arm for arm in arms if all(identity.value(arm.identity, name) == value for name, value in wanted.items())]


def _partners(left: dict[str, Any], right: dict[str, Any], arms: Sequence[Arm], said: str) -> list[tuple[str, str]]:
    return _matched(_named(left, arms), _named(right, arms), [*left, *right], said)


def _matched(left: Sequence[Arm], right: Sequence[Arm], names: Sequence[str], said: str) -> list[tuple[str, str]]:
    """Each arm of the left with its partner.

    Raises:
        UserError: an arm has no partner, or two.
    """
    if len(right) <= 1:
        return [(arm.label, base.label) for base in right for arm in left if arm is not base]
    found = []
    for arm in left:
        rest = lambda one: identity.group(one.identity, {"seed", *names})
        same = [other for other in right if rest(other) == rest(arm) and other is not arm]
        if not same:
            off = {
                other.label: abs(math.log(other.macs / arm.macs)) if other.macs and arm.macs else math.inf for other in right
            }
            near = sorted(right, key=lambda other: off[other.label])
            same = [near[0]] if off[near[0].label] <= math.log(1 + NEAR) and off[near[1].label] > off[near[0].label] else []
        if len(same) != 1:
            what = "several partners" if same else "no partner of the same multiply-adds"
            raise UserError(f"primary.versus={said!r}: {arm.label} has {what}; name the pairs, 'A against B', one by one")
        found.append((arm.label, same[0].label))
    return found


def _effects(name: str, arms: Sequence[Arm]) -> list[Contrast]:
    """A field's main effects: the mean over the arms of each value against that of the default, else of the first.

    None where the arms of its values differ in other fields too, on the whole: runs are missing, or the design confounds them.
    """
    ones = [arm.identity for arm in arms]
    values = list({repr(value): value for value in (identity.value(one, name) for one in ones)}.values())
    others = [other for other in identity.varying(ones) if other != name]
    of_value = [[one for one in ones if identity.value(one, name) == value] for value in values]
    mixes = [[Counter(repr(identity.value(one, other)) for one in part) for other in others] for part in of_value]
    if any(mix != mixes[0] for mix in mixes):
        return []
    usual = getattr(Run, name) if getattr(Run, name) in values else values[0]
    share = len(values) / len(arms)
    weight = lambda arm, value: (
        share * ((identity.value(arm.identity, name) == value) - (identity.value(arm.identity, name) == usual))
    )
    return [
        Contrast(
            f"{identity.say(name, value)} against {identity.say(name, usual)}",
            {arm.label: weight(arm, value) for arm in arms if weight(arm, value)},
        )
        for value in values
        if value != usual
    ]


def check_arms(question: Question, arms: Sequence[Arm]) -> None:
    """Refuse a question that the arms of a sweep file do not answer, a word that is wrong before all.

    Raises:
        UserError: a side names no arm, a field does not vary, its main effect is confounded with others; or as `families`.
    """
    there = ", ".join(arm.label for arm in arms)
    for one in question.versus:
        if one.strip() in field_types(Run):
            values = {repr(identity.value(arm.identity, one.strip())) for arm in arms}
            if len(values) < 2:
                raise UserError(f"primary.versus={one!r}: all arms have {one.strip()}={', '.join(values)}; there are: {there}")
            if question.judge != "effects" and repr(usual := getattr(Run, one.strip())) not in values:
                raise UserError(
                    f"primary.versus={one!r}: no arm has the default, {identity.say(one.strip(), usual)}; name the sides, 'A against B'"
                )
            if question.judge == "effects" and not _effects(one.strip(), arms):
                raise UserError(
                    f"primary.versus={one!r}: the arms of its values differ in other fields too, so that it has no main effect of"
                    " its own; run every combination, or `python -m hbo.sweep design fraction`"
                )
            continue
        for side in AGAINST.split(one.strip()):
            if not _named(_sides(side), arms):
                raise UserError(f"primary.versus={one!r}: no arm of the file has {side}; there are: {there}")
    families(question, arms)


def _summed(weights: Sequence[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for label, weight in weights:
        found[label] = found.get(label, 0.0) + weight
    return found


def _trend(over: str, pairs: Sequence[tuple[str, str]], arms: Mapping[str, Arm]) -> Contrast:
    """The slope of the differences over what orders them, by least squares; of the arms themselves where all have one baseline.

    Raises:
        UserError: it is not a positive number, or the same everywhere.
    """
    one_baseline = len({b for _, b in pairs}) == 1
    lines = [(a, None) for a in dict.fromkeys([pairs[0][1], *(a for a, _ in pairs)])] if one_baseline else list(pairs)
    x = []
    for a, b in lines:
        values = [_place(over, arms[label]) for label in (a, b) if label is not None]
        x.append(sum(values) / len(values))
    middle = sum(x) / len(x)
    spread = sum((value - middle) ** 2 for value in x)
    if not math.isfinite(spread) or spread == 0:
        raise UserError(f"primary.trend={over}: it is not a different number in each of the arms compared")
    slope = [(value - middle) / spread for value in x]
    weights = [(a, w) for (a, _), w in zip(lines, slope, strict=True)]
    weights += [(b, -w) for (_, b), w in zip(lines, slope, strict=True) if b is not None]
    step = "halving of multiply-adds" if over == MACS else f"step of {over}"
    what = "trend" if one_baseline else "trend of the difference"
    return Contrast(f"{what}, per {step}", {label: w for label, w in _summed(weights).items() if w})


def _place(over: str, arm: Arm) -> float:
    """Where an arm lies on the axis of a trend."""
    if over == MACS:
        return -math.log2(arm.macs) if arm.macs and arm.macs > 0 else math.nan
    value = identity.value(arm.identity, over)
    return math.nan if value is None else float(value)


def as_dict(question: Question) -> dict[str, Any]:
    """The question for JSON, as a sweep file has it."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(question).items()}
