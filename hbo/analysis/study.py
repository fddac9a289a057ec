"""Read a study: its question, arms, results, differences and conclusion.

    python -m hbo.analysis.study contraction mobilenetv2              # its page as Markdown
    python -m hbo.analysis.study contraction --versus "k=2 against k=1" --margin 1
    python -m hbo.analysis.study contraction --gate "k=2 against k=1 higher"          # exit status 0, 1 or 3

    study = read("contraction", "mobilenetv2", source="ablations")
    study.table(); study.differences(); print(study.verdict())

An arm is a set of runs that differ only in the seed. Notebooks and the report call this and contain no logic.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from hbo.analysis import families, frozen, latency, question, results
from hbo.analysis.frozen import Frozen
from hbo.analysis.grouping import by_setting, labels, usual_arm
from hbo.analysis.judged import ABLATIONS, SWEEPS, Study
from hbo.analysis.question import Question
from hbo.analysis.sources import is_place, studies_at
from hbo.analysis.stats import SHOWN
from hbo.analysis.study_tables import right
from hbo.errors import UserError, one_line
from hbo.runs.rows import main_metric, task_of
from hbo.values import load
from hbo.words import Parser

__all__ = ["Study", "labels", "read", "right", "settings"]
# Columns about its runs, if its source has them.
READ = ("macs", "params", "seconds", "depths", "train_images", "val_images", "val_images_seen", "versions",
        "git", "machine", "instructions", "device", "resumed_at", "started")  # fmt: skip


def read(
    *names: str,
    source: str | Path = ABLATIONS,
    baseline: str | None = None,
    metric: str | None = None,
    asked: Question | None = None,
    **where: Any,
) -> Study:
    """The study with this name; for several names, one study with the arms of all.

    Args:
        names: of studies, the first of which gives the question; or paths of rows, such as runs/contraction.
        source: as in `results.load`; latencies come from ablations/latency.csv, whatever the source.
        baseline: the arm to compare with; None: the question's, else k = 0, which contracts nothing, else the
            arm with the published switches, else the first.
        metric: the judged one, chosen before looking; the others are shown. None: the question's, else the
            task's.
        asked: the question; None: the frozen one, else the one that `hbo.sweep run` stored with the rows,
            else the one under `primary` in the sweep file of the first name.
        where: values of fields that a row must have, such as scheme="release".

    Raises:
        UserError: no such rows, no such arm, or runs with several settings (use `settings`).
    """
    found = settings(*names, source=source, baseline=baseline, metric=metric, asked=asked, **where)
    if len(found) > 1:
        which = "; ".join(it.which for it in found)
        raise UserError(
            f"{', '.join(names)}: runs with several settings, which cannot be compared: {which}; name"
            " studies with one setting, or give a field that selects it"
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
    """The same, one study per data set, task and protocol, whose arms are not compared with each other.

    Raises:
        UserError: no such rows; or an arm that is in no setting.
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
        first = Path(names[0])
        first = first.stem if first.suffix == ".csv" else first.name  # the study that gives the question
        source = names[0] if is_place(names[0]) else source
        names = tuple(sorted(dict.fromkeys(map(str, rows["study"])), key=lambda name: name != first))
    plan = frozen.read(source, names[0]) if len(names) == 1 else None
    stored, words = of_runs(source, names[0])
    asked = asked or (plan.question if plan else None) or stored or of_file(names[0])
    if baseline is not None:
        asked = replace(asked, versus=())
    parts = by_setting(rows)
    found = [
        replace(_study(names, part, curves, which, baseline, metric, asked, plan), words=words)
        for which, part in parts
    ]
    if baseline is not None and not any(baseline in it.arms for it in found):
        arms = ", ".join(arm for it in found for arm in it.arms)
        raise UserError(f"baseline={baseline!r}: the arms are {arms}")
    return found


def of_runs(source: str | Path, name: str) -> tuple[Question | None, str]:
    """The question that `hbo.sweep run` stored with the study's rows, and its words; None and "" for other
    rows, a CSV or W&B.

    Raises:
        UserError: its file is damaged.
    """
    if str(source).startswith("wandb:"):
        return None, ""
    folder = next((path for path in (Path(source), Path(source) / name) if path.name == name), Path(source))
    file = folder / question.FILE
    if not file.is_file():
        return None, ""
    try:
        content = load(file.read_text())
        words = content.pop(question.WORDS, "") if isinstance(content, dict) else ""
        return (question.parse(content) if content or not words else None), str(words)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not a question ({error}); remove it to use the sweep file's") from None


def of_file(name: str) -> Question:
    """The question in a study's sweep file, else the default one."""
    path = SWEEPS / f"{name}.yaml"
    content = load(path.read_text()) if path.exists() else {}
    return (
        question.parse(content["primary"])
        if isinstance(content, dict) and "primary" in content
        else Question()
    )


def _study(
    names: tuple[str, ...], rows: Any, curves: Any, which: str, baseline: str | None, metric: str | None,
        asked: Question, plan: Frozen | None
) -> Study:  # fmt: skip
    """The study of one setting; a baseline from another setting is replaced by the default."""
    done = rows["state"] == "done"
    has = lambda name: name in rows and rows.loc[done, name].notna().any()
    if metric is None:  # the question's, unless these runs' task does not have it
        first = rows[done].iloc[0]
        reported = asked.metric and asked.metric in task_of(first).columns
        metric = asked.metric if asked.metric and reported else main_metric(first)
    if not has(metric):
        raise UserError(f"metric={metric!r}: not in the runs of {', '.join(names)}")
    results.arms(rows[done])  # raises for a repeated seed
    rows = results.numbered(rows, metric).assign(arm="").reset_index(drop=True)
    done = rows["state"] == "done"
    rows.loc[done, "arm"] = labels(rows[done])
    arms = list(rows.loc[done, "arm"].unique())
    chosen = baseline if baseline is not None and baseline in arms else usual_arm(rows[done])
    return Study(names, rows, curves, chosen, metric, which, asked, plan)


# ------------------------------------------------------------ the command line


def add_arguments(parser: Parser) -> None:
    """Flags of all commands that read a study, for `from_arguments`."""
    parser.add_argument(
        "study",
        nargs="+",
        help="A study's name, or the folder or CSV of its rows, such as runs/STUDY. Several are compared.",
    )
    parser.known["study"] = lambda: studies_at(ABLATIONS)
    parser.add_argument(
        "--source", default=ABLATIONS, help="Folder of runs, CSV, or wandb:ENTITY/PROJECT. [ablations]"
    )
    parser.add_argument(
        "--baseline",
        help="The arm to compare with. [the question's, else k = 0, else the published switches]",
    )
    parser.add_argument(
        "--metric", help="The primary metric. [the question's; else top1, or map for detect and reid]"
    )
    parser.add_argument(
        "--versus", action="append", metavar="WHO",
        help="Comparison: 'k=1', 'k=2 against k=1', or a field: its other values against its"
        " default, else against the lowest; can be repeated. [the sweep file's]",
    )  # fmt: skip
    parser.add_argument(
        "--margin", help="Percentage points below which a difference does not matter. [the sweep file's]"
    )
    parser.add_argument(
        "--judge", help="The primary lines: each, mean, trend or effects. [the sweep file's, else each]"
    )
    parser.add_argument("--trend", help="Axis of the trend: a field, or macs. [the sweep file's]")


def from_arguments(args: argparse.Namespace) -> list[Study]:
    """The studies of a command line: one for each data set, task and protocol.

    Raises:
        UserError: as `settings`; or a question that the arms of no setting answer.
    """
    given = {
        name: getattr(args, name)
        for name in ("versus", "margin", "judge", "trend")
        if getattr(args, name) is not None
    }
    found = settings(*args.study, source=args.source, baseline=args.baseline, metric=args.metric)
    for study in found if given else []:
        study.typed = True
        asked = question.as_dict(study.asked) | given
        if study.asked.judge == "effects" and "=" in " ".join(given.get("versus", ())):
            asked["judge"] = given.get("judge", "each")  # two arms have a difference, not an effect
        study.asked = question.parse(
            {name: value for name, value in asked.items() if value not in (None, [])}
        )
    if given.keys() & {"versus", "judge"}:
        _check_asked(found, judged="judge" in given)
    return found


def _check_asked(found: list[Study], judged: bool) -> None:
    """Check that the arms of a setting answer the question of the command line; otherwise a typo would
    look like nothing to compare. Without `--judge`, a single pair may omit the file's mean or trend.
    """
    errors = []
    for study in found:
        asked = study.asked
        if not judged and asked.judge != "effects":
            asked = replace(asked, judge="each")
        try:
            families.check_arms(asked, study.compared())
        except UserError as error:
            errors.append(error)
    if len(errors) == len(found):
        raise errors[0]


def main(argv: list[str] | None = None) -> None:
    """The command line. Exit status: 0; with --gate 0 if the verdict
    holds, 1 if not, 3 if it is undecided.
    """
    from hbo.analysis import programs

    parser = Parser(prog="python -m hbo.analysis.study", description="A study's tables and verdict.")
    add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="Print every number of the page as JSON.")
    parser.add_argument(
        "--gate",
        metavar="'LINE VERDICT'",
        help="Exit status 0 if the verdict holds, 1 if not, 3 if undecided: 'k=2 against k=1 higher'.",
    )
    args = parser.parse_args(argv)
    status, said = 0, ""
    with one_line():
        found = from_arguments(args)
        if args.gate:
            status, said = programs.gate(found, args.gate)
            for warning in filter(None, (it.warning() for it in found)):
                print(warning, file=sys.stderr)
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
