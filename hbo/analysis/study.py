"""A study read: its question, its arms, what they reached, how they differ, and what may be concluded.

    python -m hbo.analysis.study contraction mobilenetv2              # the same as Markdown
    python -m hbo.analysis.study contraction --versus "k=2 against k=1" --margin 1 --gate "k=2 higher"
    study = read("contraction", "mobilenetv2", source="ablations")
    study.table(); study.differences(); print(study.verdict())

An arm is all runs that differ in nothing but the seed. Notebooks and the report call this and hold no logic.
"""

import argparse
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from hbo.analysis import contrasts, frozen, latency, looks, question, results, sentences, study_tables
from hbo.analysis.contrasts import Judged
from hbo.analysis.frozen import Frozen
from hbo.analysis.grouping import by_setting, labels, usual_arm
from hbo.analysis.question import Arm, Family, Question
from hbo.analysis.stats import SHOWN
from hbo.analysis.study_tables import LEVEL, right
from hbo.analysis.tables import Markdown, Table
from hbo.errors import UserError, one_line
from hbo.runs.rows import main_metric
from hbo.values import load
from hbo.words import Parser

__all__ = ["Study", "labels", "read", "right", "settings"]
SWEEPS, ABLATIONS = (Path(__file__).parents[2] / name for name in ("sweeps", "ablations"))
READ = ("macs", "params", "seconds", "depths", "train_images", "val_images", "versions", "git", "machine", "device",
        "resumed_at", "started")  # fmt: skip  # what it says of its runs, where its source has it


@dataclass
class Study:
    """Rows of one study or of several, by arm."""

    names: tuple[str, ...]
    rows: pd.DataFrame
    """All of them, with the column `arm`."""
    curves: pd.DataFrame
    baseline: str
    """The arm that the others are compared with, where the question names none."""
    metric: str = "top1"
    which: str = ""
    """What sets its runs apart from those of the same studies on other data, or trained otherwise."""
    asked: Question = field(default_factory=Question)
    """What is judged."""
    plan: Frozen | None = None
    """The question as it was frozen before the runs."""

    @property
    def done(self) -> Any:
        """The finished rows."""
        return results.finished(self.rows)

    @property
    def arms(self) -> list[str]:
        """Arms with a finished run, in order."""
        return list(self.done["arm"].unique())

    @property
    def stem(self) -> str:
        """What its setting adds to the name of a file: nothing where there is one setting."""
        return "_" + re.sub(r"[^\w.+]+", "-", self.which).strip("-") if self.which else ""

    def question(self) -> str:
        """What the study's sweep file asks."""
        path = SWEEPS / f"{self.names[0]}.yaml"
        if not path.exists():
            return f"Study {self.names[0]}."
        lines = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
        until = next((i for i, line in enumerate(lines) if line.startswith(("Regenerates", "Cost"))), len(lines))
        return " ".join(lines[:until])

    # ------------------------------------------------------------ judged

    def samples(self, metric: str | None = None) -> dict[str, dict[int, float]]:
        """Arm -> seed -> the metric, a fraction; runs without a finite one are left out (`left_out` names them).

        Raises:
            UserError: an arm has a seed twice.
        """
        metric, done = metric or self.metric, self.done
        found: dict[str, dict[int, float]] = {arm: {} for arm in self.arms}
        for arm, group in done.groupby("arm", sort=False):
            results.check_seeds(group)
            values = pd.to_numeric(group[metric], errors="coerce") if metric in group else []
            found[arm] = {int(s): float(v) for s, v in zip(group["seed"], values, strict=False) if math.isfinite(v)}
        return found

    def left_out(self, metric: str | None = None) -> list[str]:
        """Finished runs without a finite metric, by arm and key."""
        metric, done = metric or self.metric, self.done
        if metric not in done:
            return []
        values: Any = pd.to_numeric(done[metric], errors="coerce")
        return [
            f"{row['arm']} ({row['key']})"
            for row, v in zip(done.to_dict("records"), values, strict=True)
            if not math.isfinite(v)
        ]

    def families(self) -> list[Family]:
        """What is compared, the primary family first; arms that the question leaves out are compared with the baseline, exploratory."""
        first = self.done.drop_duplicates("arm")
        arms = [
            Arm(arm, one, float(macs) if pd.notna(macs) else math.nan)
            for arm, one, macs in zip(first["arm"], results.identities(first), first["macs"], strict=True)
        ]
        found = question.families(self.asked, arms, self.baseline)
        named = {arm for family in found for one in family.contrasts for arm in one.weights}
        if self.asked.versus and (rest := [arm for arm in arms if arm.label not in named | {self.baseline}]):
            base = next(arm for arm in arms if arm.label == self.baseline)
            found += [replace(f, primary=False) for f in question.families(Question(), [base, *rest], self.baseline)]
        return found

    def judged(self, metric: str | None = None) -> list[tuple[Family, list[Judged]]]:
        """Each family with its lines judged. At looks that were frozen, by the levels that they spend."""
        samples, found = self.samples(metric), []
        sequential = self.plan if self.plan is not None and len(self.plan.looks) > 1 and metric in (None, self.metric) else None
        for family in self.families():
            if family.primary and sequential:
                each = contrasts.levels(len(family.contrasts), LEVEL)
                at = looks.judge_at_looks(
                    samples, family.contrasts, self.asked.share, sequential.looks, sequential.seeds, each
                )  # fmt: skip
                found.append((family, [line for line, _ in at]))
            else:
                found.append((family, contrasts.judge(samples, family.contrasts, self.asked.share)))
        return found

    def comparisons(self, metric: str | None = None) -> pd.DataFrame:
        """Every line that is judged: `family`, `primary`, and the fields of `contrasts.Judged`."""
        lines = [
            {"family": family.kind, "primary": family.primary and metric in (None, self.metric)} | vars(line)
            for family, judged in self.judged(metric)
            for line in judged
        ]
        return pd.DataFrame(lines, columns=None if lines else pd.Index(["family", "primary", *Judged.__dataclass_fields__]))

    def findings(self) -> list[str]:
        """What may be concluded from the primary lines, a sentence each."""
        return self._sentences(primary=True)

    def explored(self) -> list[str]:
        """What the other lines say: each family is judged at 5 % of its own, so that they suggest and do not decide."""
        return self._sentences(primary=False)

    def _sentences(self, primary: bool) -> list[str]:
        share = self.asked.share
        return [
            sentences.sentence(line, self.metric, None if family.kind == "trend" else share)
            for family, lines in self.judged()
            if family.primary == primary
            for line in lines
        ]

    def conclusion(self) -> str:
        """The primary findings in one line."""
        found = [line for family, lines in self.judged() if family.primary for line in lines]
        if not found:
            return f"{self.arms[0]} alone has finished runs: there is nothing to compare."
        if all(line.verdict == "too few" for line in found):
            return "Too few runs to judge: each arm needs two seeds, and six are better."
        few = min(line.n[0] for line in found if line.verdict != "too few")
        decided = [f"{line.label}: {line.verdict}" for line in found if line.verdict in ("higher", "lower", "equivalent")]
        still = [line.label for line in found if line.verdict in ("undecided", "too few")]
        said = "; ".join(decided) + f" on {few} seeds" * bool(decided and few < sentences.FEW) + "." * bool(decided)
        if still:
            said += " " * bool(decided) + f"Undecided: {'; '.join(still)}."
        return said

    def provision(self) -> str:
        """Whether the study is judged as it was frozen."""
        if self.plan is None:
            return "No plan was frozen before the runs."
        started = self.done["started"].dropna().map(str).min() if self.done["started"].notna().any() else None
        differ = frozen.differences(self.plan, self.asked, self.metric, sorted(map(int, self.done["seed"])), started)
        if not differ:
            commit = f", commit {self.plan.commit[:10]}" if self.plan.commit else ""
            return (
                f"As frozen on {self.plan.when[:10]}{commit}: question, margin, level, looks and seeds (hash {self.plan.hash})."
            )
        return f"Not as frozen on {self.plan.when[:10]}: {'; '.join(differ)}."

    # ------------------------------------------------------------ to be read

    def table(self) -> Table:
        """An arm a line: mean ± deviation, n and the mean's interval, costs and time."""
        return study_tables.arms(self)

    def differences(self, metric: str | None = None) -> Table:
        """The comparisons to be read, in points of percent."""
        return study_tables.differences(self, metric)

    def images(self) -> Table | None:
        """Each pair of arms over new seeds and new images; None where the source lacks outcomes."""
        return study_tables.images(self)

    def effects(self) -> Table | None:
        """Main effects and interactions, where at least two switches are crossed, and nothing else differs."""
        return study_tables.effects(self)

    def provenance(self) -> Table:
        """How it was run: a line a study."""
        return study_tables.provenance(self)

    def setting(self) -> str:
        """Data and protocol, as far as all runs share them."""
        return study_tables.setting(self)

    def verdict(self) -> Markdown:
        """Findings and conclusion, and what else the runs suggest."""
        lines = [*(f"- {line}" for line in self.findings()), "", f"**{self.conclusion()}** {self.provision()}"]
        if more := self.explored():
            lines += ["", "Exploratory, each family of lines at 5 % of its own:", "", *(f"- {line}" for line in more)]
        return Markdown("\n".join([*lines, "", sentences.pairing(contrasts.pairing(self.samples()))]))


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
        names: of studies, the first giving the question.
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
    for name, value in where.items():
        rows = rows[rows[name] == value]
    if rows[rows["state"] == "done"].empty:
        raise UserError(f"{source}: no finished run of {', '.join(names)}" + f" where {where}" * bool(where))
    rows = rows.drop_duplicates(["key", "state"]).reset_index(drop=True)
    curves = results.curves(source, *names)
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
    metric = metric or asked.metric or main_metric(rows[done].iloc[0])
    if metric not in rows or rows.loc[done, metric].isna().all():
        raise UserError(f"metric={metric!r}: the runs of {', '.join(names)} have none")
    results.arms(rows[done])  # refuses a seed twice
    rows = rows.assign(arm="").reset_index(drop=True)
    done = rows["state"] == "done"
    rows.loc[done, "arm"] = labels(rows[done])
    arms = list(rows.loc[done, "arm"].unique())
    chosen = baseline if baseline is not None and baseline in arms else usual_arm(rows[done], arms)
    return Study(names, rows, curves, chosen, metric, which, asked, plan)


# ------------------------------------------------------------ the command line


def add_arguments(parser: Parser) -> None:
    """What the commands that read a study share; `from_arguments` reads it."""
    parser.add_argument("study", nargs="+", help="The study; further ones beside it.")
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
    parser.add_argument("--judge", help="The primary lines: each, mean or trend. [the sweep file's, else each]")
    parser.add_argument("--trend", help="What the comparisons are ordered by: a field, or macs. [the sweep file's]")


def from_arguments(args: argparse.Namespace) -> list[Study]:
    """The study that a command line names: one for each data set, task and protocol."""
    given = {name: getattr(args, name) for name in ("versus", "margin", "judge", "trend") if getattr(args, name) is not None}
    plan = frozen.read(args.source, args.study[0]) if given and len(args.study) == 1 else None
    asked = None
    if given:
        before = question.as_dict(plan.question if plan else of_file(args.study[0]))
        asked = question.parse({name: value for name, value in (before | given).items() if value not in (None, [])})
    return settings(*args.study, source=args.source, baseline=args.baseline, metric=args.metric, asked=asked)


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
    status = 0
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
    raise SystemExit(status)


def _page(study: Study) -> list[str]:
    return [
        *[f"## {study.which}"] * bool(study.which), study.table().markdown(), study.differences().markdown(), study.verdict()
    ]  # fmt: skip


if __name__ == "__main__":
    main()
