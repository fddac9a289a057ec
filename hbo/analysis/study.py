"""A study read: its question, its arms, what they reached, how they differ, and what may be concluded.

    python -m hbo.analysis.study contraction mobilenetv2              # the same as Markdown
    python -m hbo.analysis.study contraction --versus "k=2 against k=1" --margin 1 --gate "k=2 higher"
    study = read("contraction", "mobilenetv2", source="ablations")
    study.table(); study.differences(); print(study.verdict())

An arm is all runs that differ in nothing but the seed. Notebooks and the report call this and hold no logic.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from hbo.analysis import frozen, latency, question, results
from hbo.analysis.frozen import Frozen
from hbo.analysis.grouping import by_setting, labels, usual_arm
from hbo.analysis.judged import ABLATIONS, SWEEPS, Study
from hbo.analysis.question import Question
from hbo.analysis.sources import is_place
from hbo.analysis.stats import SHOWN
from hbo.analysis.study_tables import right
from hbo.errors import UserError, one_line
from hbo.runs.rows import main_metric
from hbo.values import load
from hbo.words import Parser

__all__ = ["Study", "labels", "read", "right", "settings"]
READ = ("macs", "params", "seconds", "depths", "train_images", "val_images", "val_images_seen", "versions", "git", "machine", "device",
        "resumed_at", "started")  # fmt: skip  # what it says of its runs, where its source has it


def read(
    *names: str,
    source: str | Path = ABLATIONS,
    baseline: str | None = None,
    metric: str | None = None,
    asked: Question | None = None,
    **where: Any,
) -> Study:
    """The study of these names; of several, their arms beside each other.

    Args:
        names: of studies, the first giving the question; or places of their rows, such as runs/contraction.
        source: as in `results.load`; latencies come from ablations/latency.csv, whatever the source.
        baseline: the arm to compare with; left out: what the question names, else k = 0, which contracts nothing, else the
            arm of the published switches, else the first.
        metric: the one that is judged, chosen before looking; the others are shown. Left out: the question's, else the task's.
        asked: the question; left out: as it was frozen, else as the sweep file of the first name has it under `primary`.
        where: fields that a row must have, such as scheme="release".

    Raises:
        UserError: no such rows, no such arm, or runs of several settings, which `settings` reads one by one.
    """
    found = settings(*names, source=source, baseline=baseline, metric=metric, asked=asked, **where)
    if len(found) > 1:
        which = "; ".join(it.which for it in found)
        raise UserError(
            f"{', '.join(names)}: of several settings, which are not judged against each other: {which}; name studies of one, or give"
            " a field that picks it"
        )
    return found[0]


def settings(
    *names: str,
    source: str | Path = ABLATIONS,
    baseline: str | None = None,
    metric: str | None = None,
    asked: Question | None = None,
    **where: Any,
) -> list[Study]:
    """The same, a study for each data set, task and protocol: their arms are not compared with each other.

    Raises:
        UserError: no such rows; or an arm that no setting has.
    """
    if metric not in (None, *SHOWN):
        raise UserError(f"metric={metric!r}: choose from {', '.join(SHOWN)}")
    rows: Any = latency.join(results.load(source, *names), ABLATIONS)
    rows = rows.assign(**{name: None for name in READ if name not in rows})
    rows["depths"] = rows["depths"].map(lambda depths: depths if isinstance(depths, list) else [])
    if unknown := [name for name in where if name not in rows]:
        raise UserError(f"{unknown[0]}: the rows of {', '.join(names)} have no such column")
    for name, value in where.items():
        rows = rows[rows[name] == value]
    if rows[rows["state"] == "done"].empty:
        raise UserError(f"{source}: no finished run of {', '.join(names)}" + f" where {where}" * bool(where))
    rows = rows.drop_duplicates(["key", "state"]).reset_index(drop=True)
    curves = results.curves(source, *names)
    if any(map(is_place, names)):
        source, names = names[0], tuple(dict.fromkeys(map(str, rows["study"])))
    plan = frozen.read(source, names[0]) if len(names) == 1 else None
    asked = asked or (plan.question if plan else None) or of_file(names[0])
    if baseline is not None:
        asked = replace(asked, versus=())
    parts = by_setting(rows)
    found = [_study(names, part, curves, which, baseline, metric, asked, plan) for which, part in parts]
    if baseline is not None and not any(baseline in it.arms for it in found):
        arms = ", ".join(arm for it in found for arm in it.arms)
        raise UserError(f"baseline={baseline!r}: the arms are {arms}")
    return found


def of_file(name: str) -> Question:
    """The question of a study's sweep file; the usual one where there is none."""
    path = SWEEPS / f"{name}.yaml"
    content = load(path.read_text()) if path.exists() else {}
    return question.parse(content["primary"]) if isinstance(content, dict) and "primary" in content else Question()


def _study(
    names: tuple[str, ...], rows: Any, curves: Any, which: str, baseline: str | None, metric: str | None, asked: Question, plan: Frozen | None
) -> Study:  # fmt: skip
    """The study of one setting; a baseline that is another setting's leaves this one its usual."""
    done = rows["state"] == "done"
    has = lambda name: name in rows and rows.loc[done, name].notna().any()
    if metric is None:  # a study that stands beside may be of another task, which the question does not know
        metric = asked.metric if asked.metric and has(asked.metric) else main_metric(rows[done].iloc[0])
    if not has(metric):
        raise UserError(f"metric={metric!r}: the runs of {', '.join(names)} have none")
    results.arms(rows[done])  # refuses a seed twice
    rows = results.numbered(rows, metric).assign(arm="").reset_index(drop=True)
    done = rows["state"] == "done"
    rows.loc[done, "arm"] = labels(rows[done])
    arms = list(rows.loc[done, "arm"].unique())
    chosen = baseline if baseline is not None and baseline in arms else usual_arm(rows[done])
    return Study(names, rows, curves, chosen, metric, which, asked, plan)


# ------------------------------------------------------------ the command line


def add_arguments(parser: Parser) -> None:
    """What the commands that read a study share; `from_arguments` reads it."""
    parser.add_argument(
        "study", nargs="+", help="The study, by name or where its rows lie, such as runs/STUDY; further ones beside it."
    )
    parser.add_argument("--source", default=ABLATIONS, help="Folder of runs, CSV, or wandb:ENTITY/PROJECT. [ablations]")
    parser.add_argument(
        "--baseline", help="The arm to compare with. [the question's; k = 0 where it is, else the published switches]"
    )
    parser.add_argument("--metric", help="What is judged. [the question's; top1; map where the runs detect or retrieve]")
    parser.add_argument(
        "--versus", action="append", metavar="WHO",
        help="Who is compared: 'k=1', 'k=2 against k=1', or a field such as net. May be repeated. [the sweep file's primary]",
    )  # fmt: skip
    parser.add_argument("--margin", help="Points of percent below which a difference does not matter. [the sweep file's]")
    parser.add_argument("--judge", help="The primary lines: each, mean, trend or effects. [the sweep file's, else each]")
    parser.add_argument("--trend", help="What the comparisons are ordered by: a field, or macs. [the sweep file's]")


def from_arguments(args: argparse.Namespace) -> list[Study]:
    """The study that a command line names: one for each data set, task and protocol."""
    given = {name: getattr(args, name) for name in ("versus", "margin", "judge", "trend") if getattr(args, name) is not None}
    found = settings(*args.study, source=args.source, baseline=args.baseline, metric=args.metric)
    for study in found if given else []:
        asked = question.as_dict(study.asked) | given
        study.asked = question.parse({name: value for name, value in asked.items() if value not in (None, [])})
    return found


def main(argv: list[str] | None = None) -> None:
    """The command line. Exit status: 0; with --gate 0 where it is so, 1 where not, 3 where it is undecided."""
    from hbo.analysis import programs

    parser = Parser(prog="python -m hbo.analysis.study", description="A study's tables and verdict.")
    add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="Print every number of the page as JSON instead.")
    parser.add_argument(
        "--gate", metavar="'ARM VERDICT'", help="Exit status 0 where it is so, 1 where not, 3 where undecided: 'k=2 higher'."
    )
    args = parser.parse_args(argv)
    status, said = 0, ""
    with one_line():
        found = from_arguments(args)
        if args.gate:
            status, said = programs.gate(found, args.gate)
        if args.json:
            print(programs.as_json(found))
        elif args.gate:
            print(said)
        else:
            print("\n\n".join([found[0].question(), *(part for study in found for part in _page(study))]))
    if status:
        raise SystemExit(status)


def _page(study: Study) -> list[str]:
    tables = [study.table(), study.differences()]
    return [
        *[f"## {study.which}"] * bool(study.which),
        *(table.markdown() for table in tables if len(table.frame)),
        study.verdict(),
    ]


if __name__ == "__main__":
    main()
