"""A study's question: which arms are compared, which difference does not matter, and which lines are primary.

A sweep file has it under a key of its own, which W&B ignores:

    primary: {metric: top1, versus: "net=hbonet against net=mobilenetv2", margin: 1.0, judge: mean}

and `python -m hbo.analysis.study` has the same words as flags. `versus` is one of these, or a list:

    "k=1"                                  every other arm against this one
    "k=2 against k=1"                      two arms; if a side matches several, each with its partner: the
               arm that differs only in the named fields, else the one with the
               nearest multiply-adds, within 10 %
    "net"                                  a field that pairs arms: its default against its other values

With `judge: effects` it names fields, and each line is a main effect: the mean over all arms of each value
against that of the field's default; "net x recipe" is an interaction. In a fractional factorial arms have no
partners, so this is the question to ask.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from hbo.analysis import contrasts, effects
from hbo.analysis.contrasts import Contrast
from hbo.config import Run
from hbo.errors import UserError
from hbo.runs import identity
from hbo.runs.identity import Identity
from hbo.tasks import COLUMNS
from hbo.tasks.classify import named
from hbo.values import field_types, number, shown, typed
from hbo.words import did_you_mean, other_name

AGAINST = re.compile(r"\s+against\s+")
MACS = "macs"
FILE = "question.json"  # in a study's folder, written by `hbo.sweep run`
JUDGES = ("each", "mean", "trend", "effects")


@dataclass(frozen=True)
class Question:
    """A study's question; unset entries have defaults."""

    metric: str | None = None
    """The judged column. Default: the task's."""
    versus: tuple[str, ...] = ()
    """The comparisons. Default: every arm against the default baseline."""
    margin: float | None = None
    """Percentage points below which a difference does not matter. Default: no verdict of equivalence."""
    judge: Literal["each", "mean", "trend", "effects"] = "each"
    """The primary lines: each comparison, their mean, their trend, or the fields' main effects. The others
    are exploratory."""
    trend: str | None = None
    """The axis of the trend: a numeric field, or `macs` (per halving of multiply-adds: positive if the
    difference grows as the budget shrinks)."""

    @property
    def share(self) -> float | None:
        """The margin as a fraction."""
        return None if self.margin is None else self.margin / 100


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


def parse(content: Any) -> Question:
    """The question under a sweep file's `primary`.

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"primary={shown(content)}: must be a mapping of {', '.join(_names())}")
    given = {str(name): value for name, value in content.items()}
    if unknown := [name for name in given if name not in _names()]:
        raise UserError(f"primary.{unknown[0]}: no such key{did_you_mean(unknown[0], _names())}")
    if "versus" in given:
        versus = [given["versus"]] if isinstance(given["versus"], str) else given["versus"]
        if (
            not isinstance(versus, list)
            or not versus
            or not all(isinstance(one, str) and one.strip() for one in versus)
        ):
            raise UserError(
                f"primary.versus={shown(given['versus'])}: must be text or a list of text, such as 'k=2"
                " against k=1'"
            )
        given["versus"] = tuple(versus)
    if given.get("margin") is not None:
        margin = number(given["margin"])
        if margin is None or not 0 < margin < 100:
            raise UserError(
                f"primary.margin={shown(given['margin'])}: must be percentage points, above 0 and below 100"
            )
        given["margin"] = margin
    found = Question(**given)
    _check(found)
    return found


def _names() -> list[str]:
    return [f.name for f in fields(Question)]


def _check(question: Question) -> None:
    """Check the question's words.

    Raises:
        UserError: a metric, field, value or trend that does not exist.
    """
    choices = {"metric": (*COLUMNS, None), "judge": JUDGES, "trend": (*_numeric(), MACS, None)}
    for name, known in choices.items():
        value = getattr(question, name)
        if value not in known:
            words = [word for word in known if word]
            raise UserError(
                f"primary.{name}={shown(value)}: choose from"
                f" {', '.join(words)}{did_you_mean(str(value), words)}"
            )
    if question.judge == "trend" and question.trend is None:
        raise UserError(f"primary.judge=trend: needs primary.trend, {MACS} or a numeric field")
    if question.judge == "effects":
        fields_ = [name for term in question.versus for name in effects.factors(term)]
        if not fields_ or not set(fields_) <= field_types(Run).keys():
            raise UserError(
                f"primary.judge=effects: primary.versus={list(question.versus)}: must name fields, such as"
                " [k, residual, k x residual]"
            )
        return
    for one in question.versus:
        for side in AGAINST.split(one):
            if side.strip() not in field_types(Run):
                _sides(side)
        if len(AGAINST.split(one)) > 2:
            raise UserError(f"primary.versus={one!r}: 'against' is repeated; write one line per pair")


def _numeric() -> list[str]:
    return [name for name, kind in field_types(Run).items() if kind in (int, float, int | None, float | None)]


def _sides(text: str) -> dict[str, Any]:
    """`net=hbonet width=0.25` as fields of their types.

    Raises:
        UserError: another form, an unknown field, or a value out of range.
    """
    found = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(
                f"primary.versus={text!r}: {word!r} must be"
                f" FIELD=VALUE{did_you_mean(word, list(field_types(Run)))}"
            )
        if name not in field_types(Run):
            raise UserError(
                f"primary.versus={text!r}: no field {name}{other_name(name, list(field_types(Run)))}"
            )
        found[name] = typed(name, field_types(Run)[name], value)
    return found


# ------------------------------------------------------------ the arms of a question


def families(question: Question, arms: Sequence[Arm], baseline: str | None = None) -> list[Family]:
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
    """Check that the arms of a sweep file answer the question; wrong words first.

    Raises:
        UserError: a side matches no arm, a field does not vary, its main effect is confounded with others; or
        as `families`.
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
            if not by_effects and repr(usual := getattr(Run, name)) not in values:
                raise UserError(
                    f"primary.versus={one!r}: no arm has the default, {identity.say(name, usual)}; name both"
                    " sides, 'A against B'"
                )
        if by_effects and not effects.of(one, arms):
            raise UserError(
                f"primary.versus={one!r}: the arms of its values also differ in other fields, so its main"
                " effect is confounded; run every combination, or use `python -m hbo.sweep design fraction`"
            )
        if named_fields:
            continue
        for side in AGAINST.split(one.strip()):
            if not _named(_sides(side), arms):
                raise UserError(f"primary.versus={one!r}: no arm has {side}; the arms are: {there}")
    if question.judge not in (kinds := [family.kind for family in families(question, arms)]):
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


def as_dict(question: Question) -> dict[str, Any]:
    """The question for JSON, as in a sweep file."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(question).items()
    }
