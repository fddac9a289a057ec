"""The paper's claims on the data available to this project: each claim next to the study that tests it.

    python -m hbo.analysis.holds                        # papers/hbonet/HOLDS.md, from the rows in ablations/

`here` in papers/hbonet/claims.yaml says which study tests which claims, and why a claim was not tested.
Verdicts, intervals, seeds and hours come from the rows. The paper's figure is the mean of the claims'
published differences, at the study's width if table 8 or 9 has it.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from hbo.analysis import claims, published, results, sentences, stats, study, tables
from hbo.analysis.contrasts import Judged
from hbo.analysis.numbers import ABSENT, points
from hbo.analysis.printed import Table
from hbo.analysis.study import Study
from hbo.analysis.study_tables import setting
from hbo.errors import UserError, one_line
from hbo.files import write_atomically
from hbo.words import Parser

PAGE = published.PAPER / "HOLDS.md"
INTRODUCTION = """# Which claims of the paper hold here

Each claim of the paper that can be tested without ImageNet, PASCAL VOC or Market-1501, and the results
of the runs in [ablations/](../../ablations). Differences are in percentage points of the named metric,
with 95 % intervals: adjusted for all primary lines of the study or, if exploratory, for all lines of their
family. A verdict holds for the data set and the recipe in its line.
**None is a result on ImageNet**: the photographs are fewer and smaller, and the runs shorter.

Written by `python -m hbo.analysis.holds`; the claims are data ([claims.yaml](claims.yaml)). Each study's
page and log entry have the rest ([LOG.md](../../ablations/LOG.md)).
"""


def holds(source: str | Path = study.ABLATIONS, all_claims: dict[str, Any] | None = None) -> Table:
    """One line for each claim and each primary line of the study that tests it.

    Args:
        source: as in `results.load`.
        all_claims: as `claims.read` gives them.

    Raises:
        UserError: a claim that is not in claims.yaml.
    """
    known = all_claims or claims.read()
    by_name = {claim["says"]: claim for claim in [*known["comparisons"], *known["trends"]]}
    lines = []
    for entry in known["here"]:
        if unknown := [said for said in entry["of"] if said not in by_name]:
            raise UserError(f"claims.yaml: here: {unknown[0]!r} is not among its comparisons and trends")
        by = [float(by_name[said]["by"]) for said in entry["of"]]
        paper = f"{sum(by) / len(by):+.1f}" + f" ({min(by):+.1f} to {max(by):+.1f})" * (len(by) > 1)
        first = by_name[entry["of"][0]]
        each = " per halving" * (first in known["trends"])
        paper += f" {_metric(first['column'])}{each}"
        asked = {"claim": entry["says"], "in the paper": paper}
        if "study" not in entry:
            lines.append(
                asked
                | dict.fromkeys(("here", "difference", "n", "hours"), ABSENT)
                | {"verdict": "not tested", "to settle it": entry["needs"]}
            )
            continue
        it = study.read(entry["study"], source=source)
        found = _lines(it, entry.get("lines"))
        if not found:
            raise UserError(f"claims.yaml: here: {entry['study']} has no judged line {entry.get('lines')!r}")
        lines += [
            asked | _here(it, line, f"{line.label}, " * (len(found) > 1), each, own) for line, own in found
        ]
    return Table("Which claims of the paper hold here", pd.DataFrame(lines))


def _lines(it: Study, wanted: str | None) -> list[tuple[Judged, bool]]:
    """The study's primary lines, or those of one kind of family, or those whose labels contain some words;
    and whether they are primary.
    """
    found = []
    for family, lines in it.judged():
        if wanted is None and not family.primary:
            continue
        found += [
            (sentences.shown(line, family.kind), family.primary)
            for line in lines
            if wanted in (None, family.kind) or wanted in line.label
        ]
    return found


def _metric(column: str) -> str:
    """Title of the metric of a published column or of a row."""
    return stats.SHOWN.get(tables.COLUMN.get(column, column), column)


def _here(it: Study, line: Judged, label: str, each: str, primary: bool) -> dict[str, str]:
    """The study's result for the line; with its label if the claim has several."""
    hours = sum(it.done["seconds"].dropna().astype(float)) / 3600
    return {
        "here": f"{label}[{it.names[0]}](../../ablations/{it.names[0]}.ipynb): {setting(it)}",
        "difference": f"{points(line.difference)} [{points(line.low)}, {points(line.high)}]"
        f" {_metric(it.metric)}{each}",
        "verdict": line.verdict + ", exploratory" * (not primary),
        "n": sentences.seeds(line),
        "hours": f"{hours:.1f}",
        "to settle it": _settles(line, primary),
    }


def _settles(line: Judged, primary: bool) -> str:
    """What would decide an undecided line; an exploratory one suggests an answer and decides nothing."""
    if line.verdict == "too few":
        return f"at least {line.looks[0] if line.looks else 2} seeds per arm"
    if line.verdict != "undecided":
        return "decided here" if primary else "a study with this as its primary question"
    if line.next_look is not None:
        return f"the next look, at {line.next_look} seeds per arm"
    return f"about {line.needed} seeds per arm" if line.needed else "more than 1,000 seeds per arm"


def page(source: str | Path = study.ABLATIONS) -> str:
    """The page as Markdown."""
    return f"{INTRODUCTION}\n{results.markdown(holds(source).frame)}\n"


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(
        prog="python -m hbo.analysis.holds",
        description="Write the page of the paper's claims on the available data.",
    )
    parser.add_argument(
        "--source", default=study.ABLATIONS, help="Folder of runs, CSV, or wandb:ENTITY/PROJECT. [ablations]"
    )
    parser.add_argument("--to", type=Path, default=PAGE, help="File of the page. [papers/hbonet/HOLDS.md]")
    args = parser.parse_args(argv)
    with one_line():
        write_atomically(args.to, page(args.source))
    print(args.to)


if __name__ == "__main__":
    main()
