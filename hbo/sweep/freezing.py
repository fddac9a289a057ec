"""A study's question, recorded before its runs: `python -m hbo.sweep plan FILE --freeze`,
OUT/STUDY/frozen.json.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hbo import files
from hbo.analysis import frozen, question
from hbo.analysis.frozen import Frozen
from hbo.errors import UserError
from hbo.runs import rows
from hbo.sweep import asked
from hbo.sweep.plan import Entry
from hbo.sweep.study import Sweep


def freeze(
    study: Sweep,
    runs: list[Entry],
    looks: list[int] | None = None,
    max_seeds: int | None = None,
    expected: Mapping[str, Any] | None = None,
) -> Frozen:
    """Write the plan of a study, or find an equal one.

    Args:
        study: the file.
        runs: all of it, with their states; those that have finished already are counted in the plan.
        looks: numbers of seeds at which verdicts may be read; left out: all of them.
        max_seeds: of each arm; left out: the last look, else the file's own. Seeds beyond the file's continue
            from its largest.
        expected: the expected deviation and what the seeds should detect, if asked for.

    Returns:
        the plan; where the same was frozen before, that one, its file untouched.

    Raises:
        UserError: another plan was frozen; or the file makes none (arms of different seeds, looks that do not
            rise).
    """
    asked.check(study, runs)
    path, seeds = path_of(runs), _seeds(study, runs)
    most = max_seeds or (looks[-1] if looks else len(seeds))
    looks = looks or [most]
    _check_looks(study, looks, most, len(seeds))
    seeds += [max(seeds) + 1 + i for i in range(most - len(seeds))]
    plan = Frozen(
        study=path.parent.name, question=replace(study.primary, metric=asked.metric(study, runs)),
        seeds=seeds, looks=looks, keys=[entry.key for entry in runs if entry.key and entry.run],
        expected=dict(expected or {}), commit=rows.git_commit(),
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        finished=sum(entry.state == "done" for entry in runs),
    )  # fmt: skip
    before = frozen.read(path.parent.parent, plan.study)
    if before is not None:
        if differ := changes(before, plan):
            raise UserError(
                f"{path}: another plan was frozen on {before.when[:10]}: {'; '.join(differ)}; restore the"
                " sweep file, or remove the plan to freeze again"
            )
        return before
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, plan.text())
    return plan


def path_of(runs: list[Entry]) -> Path:
    """Where the plan of the runs lies.

    Raises:
        UserError: no run is valid, or they are of several studies.
    """
    places = list({(entry.run.out, entry.run.study) for entry in runs if entry.run})
    if len(places) != 1:
        raise UserError(
            f"--freeze: needs runs of one study in one folder; the file's valid runs have {len(places)}"
        )
    out, study = places[0]
    return files.expanded(out) / study / f"{frozen.NAME}.json"


def _seeds(study: Sweep, runs: list[Entry]) -> list[int]:
    """The seeds that each of the arms has, in their order."""
    by_arm = {arm: [entry.run.seed for entry in own if entry.run] for arm, own in asked.by_arm(runs).items()}
    (first, seeds), *others = by_arm.items()
    for arm, has in others:
        if set(has) != set(seeds):
            raise UserError(
                f"{study.path}: {first} has the seeds {seeds}, {arm} {has}; to freeze, give all arms the same"
            )
    return seeds


def _check_looks(study: Sweep, looks: list[int], most: int, own: int) -> None:
    said = ",".join(map(str, looks))
    if looks != sorted(set(looks)) or (len(looks) > 1 and looks[0] < 2):
        raise UserError(
            f"--looks {said}: must be numbers of seeds from 2 on, each larger than the one before, such as"
            " 6,10,16,24"
        )
    if looks[-1] != most:
        raise UserError(f"--looks {said}: the last look must be at all {most} seeds of --max_seeds")
    if most < own:
        raise UserError(
            f"--max_seeds {most}: {study.path} already has {own} seeds; use {own} or more, or fewer with"
            " --set seed"
        )


def said(plan: Frozen, path: Path) -> str:
    """What was frozen, in a line."""
    many, looks = len(plan.seeds), ", ".join(map(str, plan.looks))
    when = f"looks at {looks}" if len(plan.looks) > 1 else f"judged once, at {many}"
    after = f"; {plan.finished} of {len(plan.keys)} runs had already finished" * bool(plan.finished)
    seeds = f"{many} seed{'s' * (many != 1)} per arm"
    return f"frozen on {plan.when[:10]}: {path}, {seeds}, {when} (hash {plan.hash}){after}"


def changes(before: Frozen, now: Frozen) -> list[str]:
    """How two plans differ in what matters for verdicts; ignores date, commit,
    expectations and finished runs.
    """
    was, is_ = question.as_dict(before.question), question.as_dict(now.question)
    found = [f"{name} {was[name]!r}, now {is_[name]!r}" for name in was if was[name] != is_[name]]
    for name in ("seeds", "looks", "level"):
        if getattr(before, name) != getattr(now, name):
            found.append(f"{name} {getattr(before, name)}, now {getattr(now, name)}")
    gone, new = set(before.keys) - set(now.keys), set(now.keys) - set(before.keys)
    if gone or new:
        found.append(
            f"{len(before.keys)} runs, of which {len(gone)} are no longer in the file and {len(new)} are new"
        )
    return found


def leave_question(study: Sweep, runs: list[Entry]) -> None:
    """Store a sweep file's question and its words with its rows, OUT/STUDY/question.json, so that pages and
    verdicts do not need the file.
    """
    asked = {} if study.primary == question.Question() else question.as_dict(study.primary)
    asked[question.WORDS] = question.in_words(study.path)
    content = {name: value for name, value in asked.items() if value not in (None, [], "")}
    if not content:
        return
    for out, name in {(entry.run.out, entry.run.study) for entry in runs if entry.run}:
        folder = files.expanded(out) / name
        folder.mkdir(parents=True, exist_ok=True)
        files.write_atomically(folder / question.FILE, json.dumps(content, indent=1) + "\n")
