"""A sweep file's question (`primary`), checked against the arms of its runs."""

import math
import shlex
import sys
from collections.abc import Collection
from dataclasses import replace

from hbo.analysis import arms as names
from hbo.analysis import families
from hbo.analysis.families import Arm, Family
from hbo.analysis.question import MACS, Question
from hbo.config import Run
from hbo.errors import UserError
from hbo.runs import identity, rows
from hbo.sweep import plan
from hbo.sweep.plan import Entry
from hbo.sweep.study import Sweep
from hbo.tasks import TASKS

MAKES_ARMS = {*Run.NETWORK, "match_macs", "variant", "resolution", "recipe"}  # what arms differ in


def arms(runs: list[Entry], costs: bool = True) -> list[Arm]:
    """The arms of the runs that are valid, in their order.

    Args:
        runs: of a sweep file.
        costs: count the multiply-adds of those that have none yet; else they may be nan.
    """
    if costs:
        plan.price([own[0] for own in by_arm(runs).values() if own[0].macs is None])
    return [
        Arm(label, own[0].identity, math.nan if own[0].macs is None else float(own[0].macs))
        for label, own in by_arm(runs).items()
    ]


def by_arm(runs: list[Entry]) -> dict[str, list[Entry]]:
    """An arm's name -> its valid runs, one a seed."""
    found: dict[str, list[Entry]] = {}
    for entry in runs:
        if entry.run is not None:
            found.setdefault(identity.group(entry.identity), []).append(entry)
    labels = names.names([own[0].identity for own in found.values()])
    return dict(zip(labels, found.values(), strict=True))


def where_to_read(runs: list[Entry]) -> str:
    """The command that prints a study's verdict, once all its runs are done and if it compares any."""
    folders = {entry.home.parent for entry in runs if entry.state == "done"}
    if len(folders) != 1 or any(entry.state != "done" for entry in runs) or len(by_arm(runs)) < 2:
        return ""
    return f"the verdict: python -m hbo.analysis.study {shlex.quote(str(folders.pop()))}\n"


def check(study: Sweep, runs: list[Entry], replaced: Collection[str] = ()) -> None:
    """Check that the file's arms answer its question; else a typo would only show as too few runs at the end.

    Args:
        study: the file.
        runs: all of it.
        replaced: the fields that `--set` replaced; if these change the arms, the runs may be a part of the
            study, and a warning is enough.

    Raises:
        UserError: a side without an arm, a pair without a partner, a metric that the task does not have.
    """
    try:
        if any(entry.run for entry in runs):
            metric(study, runs)
            _fitting(study.primary, runs)
    except UserError as error:
        if study.method == "grid" and not MAKES_ARMS.intersection(replaced):
            raise UserError(f"{study.path}: {error}") from None
        print(f"warning: {study.path}: {error}", file=sys.stderr)


def _fitting(asks: Question, runs: list[Entry], costs: bool = False) -> list[Arm]:
    """The arms, if they answer the question; multiply-adds take seconds to count, and are counted only if
    pairing needs them.
    """
    asks = (
        asks
        if costs or asks.trend != MACS
        else replace(asks, trend=None, judge=asks.judge if asks.judge != "trend" else "each")
    )
    found = arms(runs, costs)
    try:
        families.check_arms(asks, found)
    except UserError:
        families.check_arms(asks, found := arms(runs))
    return found


def metric(study: Sweep, runs: list[Entry]) -> str:
    """The column that is judged.

    Raises:
        UserError: the runs' task does not report it.
    """
    run = next(entry.run for entry in runs if entry.run)
    asked = study.primary.metric or rows.main_metric(vars(run))
    if asked not in (known := TASKS[run.task].columns):
        raise UserError(f"primary.metric={asked}: for task={run.task} choose from {', '.join(known)}")
    return asked


def primary(study: Sweep, runs: list[Entry]) -> Family:
    """The lines that the study is judged by.

    Raises:
        UserError: the question does not fit the arms, or nothing is compared.
    """
    check(study, runs)
    # An exploratory one.
    asks = study.primary if study.primary.judge == "trend" else replace(study.primary, trend=None)
    found = _fitting(asks, runs, costs=asks.trend == MACS)
    baseline = found[names.usual([arm.identity for arm in found])].label if found else None
    family = next(f for f in families.of(asks, found, baseline) if f.primary)
    if not family.contrasts:
        there = ", ".join(arm.label for arm in found)
        raise UserError(f"{study.path}: no comparison: its arms are {there or 'none, as no run is valid'}")
    return family
