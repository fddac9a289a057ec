"""A study for other programs: every number of its page as JSON, and a gate for scripts."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from hbo.analysis import contrasts, families, outliers, question, results, stats
from hbo.analysis.contrasts import Judged
from hbo.analysis.study import Study
from hbo.errors import UserError
from hbo.words import did_you_mean

VERDICTS = ("higher", "lower", "equivalent", "undecided")
SO, NOT_SO, UNDECIDED = 0, 1, 3


def as_json(settings: Sequence[Study]) -> str:
    """A JSON object with the study and its settings; fractions instead of the page's
    percent, null for missing numbers.
    """
    found = {
        "study": list(settings[0].names),
        "asks": settings[0].question(),
        "settings": [_setting(it) for it in settings],
    }
    return json.dumps(_plain(found), indent=1)


def _setting(study: Study) -> dict[str, Any]:
    done, odd = study.done, outliers.odd(study.done, study.metric)
    arms = []
    for arm in study.arms:
        group: Any = done[done["arm"] == arm]
        values: Any = pd.to_numeric(group[study.metric], errors="coerce")
        about = stats.describe(values.dropna()) if values.notna().any() else None
        runs = [
            {"key": k, "seed": int(s), study.metric: v}
            for k, s, v in zip(group["key"], group["seed"], values, strict=True)
        ]
        arms.append(
            {
                "arm": arm, "identity": results.identities(group)[0] | {"seed": None},
                **(asdict(about) if about else {"n": 0}),
                "macs": group["macs"].iloc[0], "params": group["params"].iloc[0], "runs": runs,
                "odd": {key: why for key, why in odd.items() if key in set(group["key"])},
            }
        )  # fmt: skip
    judged = study.judged()
    return {
        "which": study.which, "setting": study.setting(), "metric": study.metric, "baseline": study.baseline,
        "question": question.as_dict(study.asked), "arms": arms,
        "pairing": asdict(contrasts.pairing(study.samples())),
        "families": [
            {"family": family.kind, "primary": family.primary,
             "lines": [_line(one, line) for one, line in zip(family.contrasts, lines, strict=True)]}
            for family, lines in judged
        ],
        "warning": study.warning() or None, "conclusion": study.conclusion(), "provision": study.provision(),
        "frozen": study.plan.content() | {"hash": study.plan.hash} if study.plan else None,
    }  # fmt: skip


def _line(one: contrasts.Contrast, line: contrasts.Judged) -> dict[str, Any]:
    """A judged line with its weights."""
    own = {"weights": dict(one.weights), "sd": line.sd, "detectable": line.detectable, "needed": line.needed}
    return asdict(line) | own


def _plain(value: Any) -> Any:
    """Values that JSON allows: no NaN, no NumPy."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (bool, str)) or value is None:
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) else str(value)


def gate(settings: Sequence[Study], wanted: str) -> tuple[int, str]:
    """Check a line's verdict; returns the exit status and the line's sentence.

    Args:
        settings: from `study.settings`.
        wanted: a line and a verdict, such as `k=2 against k=1 higher`; an arm alone means its only primary
            line, and a comparison as the question has it the primary line that answers it.

    Raises:
        UserError: no such line or verdict, or several lines.
    """
    name, _, verdict = wanted.strip().rpartition(" ")
    if verdict not in VERDICTS or not name:
        raise UserError(
            f"gate={wanted!r}: must be a line and a verdict, such as 'k=2 against k=1"
            f" higher'{did_you_mean(verdict, list(VERDICTS))}"
        )
    lines = [
        (it, line, family, one)
        for it in settings
        for family, found in it.judged()
        for one, line in zip(family.contrasts, found, strict=True)
    ]
    exact = [one for one in lines if one[1].label == name]
    exact = exact or [one for one in lines if one[2].primary and one[1].label in _answers(one[0], name)]
    primary = [one for one in lines if one[2].primary and one[1].label.startswith(f"{name} against ")]
    chosen = exact or primary or [one for one in lines if one[1].label.startswith(f"{name} against ")]
    if len(chosen) != 1:
        there = "; ".join(dict.fromkeys(line.label for _, line, *_ in lines))
        raise UserError(f"gate={wanted!r}: {name!r} names {len(chosen)} lines, not one; there are: {there}")
    study, line, family, one = chosen[0]
    if family.primary and study.missing():  # an early look would find too many verdicts
        return UNDECIDED, f"{study.sentence(family, line)} {study.provision()}"
    if line.verdict == "equivalent" and (but := study.but(one)):
        why = f"This gate is undecided: {but.removeprefix('but ')}, so equal arms show nothing."
        return UNDECIDED, f"{study.sentence(family, line)} {why}"
    return _status(line, verdict), study.sentence(family, line)


def _answers(it: Study, comparison: str) -> set[str]:
    """The lines that answer a comparison of the question, as it is written there."""
    if comparison not in it.asked.versus:
        return set()
    found = families.of(replace(it.asked, versus=(comparison,)), it.compared(), it.baseline)
    return {line.label for family in found if family.primary for line in family.contrasts}


def _status(line: Judged, wanted: str) -> int:
    if line.verdict == wanted:
        return SO
    return UNDECIDED if line.verdict in ("undecided", "too few") else NOT_SO
