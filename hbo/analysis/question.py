"""A study's question: which arms are compared, which difference does not matter, and which lines are primary.

A sweep file has it under a key of its own, which W&B ignores:

    primary: {metric: top1, versus: "net=hbonet against net=mobilenetv2", margin: 1.0, judge: mean}

and `python -m hbo.analysis.study` has the same words as flags. `versus` is one of these, or a list:

    "k=1"               every other arm against this one
    "k=2 against k=1"   two arms; if a side matches several, each with its partner: the arm that differs only
                        in the named fields, else the one with the nearest multiply-adds, within 10 %
    "net"               a field that pairs arms: its other values against its default; if no arm has that,
                        against the lowest number or the first word of the alphabet

With `judge: effects` it names fields, and each line is a main effect: the mean over all arms of each value
against that of the same baseline; "net x recipe" is an interaction. In a fractional factorial arms have no
partners, so this is the question to ask.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from hbo import nets
from hbo.analysis import effects
from hbo.config import Run
from hbo.errors import UserError
from hbo.runs import naming
from hbo.tasks import COLUMNS
from hbo.values import field_types, number, shown, typed
from hbo.words import did_you_mean, other_name

AGAINST = re.compile(r"\s+against\s+")
MACS = "macs"
FILE = "question.json"  # in a study's folder, written by `hbo.sweep run`
WORDS = "asks"  # there, the question in words
JUDGES = ("each", "mean", "trend", "effects")


@dataclass(frozen=True)
class Question:
    """A study's question; unset entries have defaults."""

    metric: str | None = None
    """The primary metric, a column. Default: the task's."""
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


def in_words(path: Path) -> str:
    """The first comment of a sweep file, without the lines on what it regenerates and costs; empty if there
    is none.
    """
    if not path.is_file():
        return ""
    lines = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
    ends = (i for i, line in enumerate(lines) if line.startswith(("Regenerates", "Cost")))
    return " ".join(lines[: next(ends, len(lines))])


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
        wrong = [name for name in fields_ if name not in field_types(Run)]
        if wrong or not fields_:
            pair = any("=" in name or AGAINST.search(name) for name in wrong)
            raise UserError(
                f"primary.judge=effects: primary.versus={list(question.versus)}: must name fields, such as"
                " [k, residual, k x residual]"
                + ("; judge: each compares two arms" if pair else "")
                + ("" if pair or not wrong else did_you_mean(wrong[0], list(field_types(Run))))
            )
        return
    for one in question.versus:
        for side in AGAINST.split(one):
            if side.strip() not in field_types(Run):
                fields_of_side(side)
        if len(AGAINST.split(one)) > 2:
            raise UserError(f"primary.versus={one!r}: 'against' is repeated; write one line per pair")


def _numeric() -> list[str]:
    return [name for name, kind in field_types(Run).items() if kind in (int, float, int | None, float | None)]


def fields_of_side(text: str) -> dict[str, Any]:
    """`net=hbonet width=0.25` as fields of their types; a network's name alone, as in an arm's, is its `net`.

    Raises:
        UserError: another form, an unknown field, or a value out of range.
    """
    found = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals and (net := _net(word)):
            name, equals, value = "net", "=", net
        if not equals:
            if word.lower().rstrip(".") in ("vs", "versus", ">", "<", "-"):
                pair = re.sub(rf"\s{re.escape(word)}\s", " against ", text)
                raise UserError(f"primary.versus={text!r}: write {pair!r}")
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


def _net(word: str) -> str | None:
    """The network of this name, as typed or as a page prints it; None if there is none."""
    if word.partition(":")[0] in nets.ZOOS:
        return word
    printed = {said.lower(): net for net, said in naming.NETS.items() if net in nets.TABLES or ":" in net}
    return word if word in nets.TABLES else printed.get(word.lower())


def as_dict(question: Question) -> dict[str, Any]:
    """The question for JSON, as in a sweep file."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(question).items()
    }
