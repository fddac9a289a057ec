"""Each claim of the paper, a line with a word: met, missed (by how much) or not run.

    python -m hbo.analysis.claims                     # against the rows in ablations/
    python -m hbo.analysis.claims --source runs

The claims are data (papers/hbonet/claims.yaml): cells of tables 2 to 9 with a tolerance, and comparisons. Costs are
counted each time. An accuracy is judged by rows of the paper's own protocol alone; what other data sets say stands beside.
"""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from hbo.analysis import published, results, stats, tables
from hbo.config import describe_net, resolve
from hbo.errors import UserError, one_line
from hbo.words import Parser

NAMES = stats.SHOWN | {"mmacs": "M multiply-adds"}


@dataclass(frozen=True)
class Verdict:
    """A claim and what became of it."""

    kind: str
    """cost, accuracy or comparison."""
    table: int
    claim: str
    word: str
    """met, missed or not run."""
    published: float
    found: float | None
    """What was counted or measured, in the published unit."""
    note: str = ""
    """By how much it was missed, of how many seeds, and what other data say."""

    def line(self) -> str:
        """As the command prints it."""
        found = "" if self.found is None else f", {self.found:.1f} {'counted' if self.kind == 'cost' else 'measured'}"
        note = f"; {self.note}" if self.note else ""
        said = f"{self.published:{ {'cost': '.0f', 'accuracy': '.1f', 'comparison': '+.1f'}[self.kind] }}"
        return f"{self.word:<8} table {self.table}  {self.claim}: {said} published{found}{note}"


def read(path: Path | None = None) -> dict[str, Any]:
    """The claims' file.

    Raises:
        UserError: it is not there, or a key is missing.
    """
    path = path or published.PAPER / "claims.yaml"
    if not path.exists():
        raise UserError(f"{path}: not there; it lies in a checkout, so install with `pip install -e .`")
    claims = yaml.safe_load(path.read_text())
    if missing := {"cells", "comparisons", "disagreements", "tolerance"} - claims.keys():
        raise UserError(f"{path}: lacks {', '.join(sorted(missing))}")
    return claims


def check(rows: pd.DataFrame | None = None, claims: dict[str, Any] | None = None) -> list[Verdict]:
    """Every claim judged: the cells table by table, then the comparisons.

    Raises:
        UserError: a comparison that no two published cells say.
    """
    claims = claims or read()
    evidence = Evidence(rows)
    found = []
    for number in range(2, 10):
        for i, row in enumerate(published.table(number).to_dict("records")):
            for cell in claims["cells"]:
                if number in cell["tables"] and not math.isnan(row.get(cell["column"], math.nan)):
                    found.append(_cell(number, i, row, cell["column"], cell["tolerance"], evidence))
    return found + [_comparison(claim, claims["tolerance"], evidence) for claim in claims["comparisons"]]


class Evidence:
    """What the rows say of each table, read once for all its claims."""

    def __init__(self, rows: pd.DataFrame | None) -> None:
        self.rows = rows
        self.known: dict[tuple[int, str], dict[str, dict[int, Any]]] = {}

    def of(self, number: int, metric: str, line: int) -> dict[str, Any]:
        """Column's title -> the line's rows."""
        if self.rows is None:
            return {}
        if (number, metric) not in self.known:
            self.known[number, metric] = tables.measured(self.rows, published.runs(number), metric)
        return {where: lines[line] for where, lines in self.known[number, metric].items() if line in lines}


def _cell(number: int, i: int, row: dict[str, Any], column: str, tolerance: float, evidence: Evidence) -> Verdict:
    claim = f"{published.name_of(number, row)}, {NAMES[column]}"
    said = float(row[column])
    if column == "mmacs":
        run = published.run_of(number, row)
        assert run is not None
        cost = published.cost_of(run)
        if cost is None:
            return Verdict("cost", number, claim, "not run", said, None, "pytorchcv is not installed (pip install -e '.[zoo]')")
        macs = cost.macs / 1e6
        missed = bool(abs(macs - said) > tolerance)
        return Verdict("cost", number, claim, "missed" if missed else "met", said, macs, f"by {macs - said:+.1f} M" * missed)
    column = tables.COLUMN.get(column, column)
    groups = evidence.of(number, column, i)
    notes = [f"{tables.said(group[column])} {where}" for where, group in groups.items() if where]
    if "" not in groups:
        return Verdict("accuracy", number, claim, "not run", said, None, "; ".join(notes))
    mean = 100 * groups[""][column].mean()
    missed = bool(abs(mean - said) > tolerance)
    notes = [f"n={len(groups[''])}"] + [f"by {mean - said:+.1f} points"] * missed + notes
    return Verdict("accuracy", number, claim, "missed" if missed else "met", said, mean, "; ".join(notes))


def _comparison(claim: dict[str, Any], tolerance: float, evidence: Evidence) -> Verdict:
    number, column = claim["table"], claim["column"]
    (i, a), (j, b) = (_row(number, claim[side]) for side in "ab")
    said = round(a[column] - b[column], 1)
    if abs(said - claim["by"]) > 0.05:
        raise UserError(f"claims.yaml: {claim['says']!r} says {claim['by']}, table {number} says {said}")
    column = tables.COLUMN.get(column, str(column))
    groups = [evidence.of(number, column, line) for line in (i, j)]
    both = [where for where in groups[0] if where in groups[1]]
    notes = [f"{_paired(groups[0][where], groups[1][where], column)} {where}" for where in both if where]
    if "" not in both:
        return Verdict("comparison", number, claim["says"], "not run", said, None, "; ".join(notes))
    found = 100 * (groups[0][""][column].mean() - groups[1][""][column].mean())
    missed = bool(found < said - tolerance)
    notes = [_paired(groups[0][""], groups[1][""], column)] + [f"by {said - found:.1f} points"] * missed + notes
    return Verdict("comparison", number, claim["says"], "missed" if missed else "met", said, found, "; ".join(notes))


def _paired(a: Any, b: Any, column: str) -> str:
    """The difference in points with its interval, over the seeds that both have."""
    pairs = a.set_index("seed")[column].to_frame("a").join(b.set_index("seed")[column].to_frame("b"), how="inner")
    if len(pairs) < 2:
        return f"{100 * (a[column].mean() - b[column].mean()):+.1f} (n={len(a)} and {len(b)})"
    found = stats.paired(pairs["a"], pairs["b"])
    return f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}] (n={found.n})"


def _row(number: int, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The one line of a table that has these values, and its place."""
    rows = published.table(number).to_dict("records")
    found = [(i, row) for i, row in enumerate(rows) if all(row[name] == value for name, value in wanted.items())]
    if len(found) != 1:
        raise UserError(f"claims.yaml: {wanted} names {len(found)} rows of table {number}, not one")
    return found[0]


def table(verdicts: list[Verdict]) -> tables.Table:
    """The verdicts to be read, a claim a line."""
    lines = [
        {
            "table": v.table, "claim": v.claim, "published": f"{v.published:.1f}",
            "counted or measured": tables.ABSENT if v.found is None else f"{v.found:.1f}", "verdict": v.word, "": v.note,
        }
        for v in verdicts
    ]  # fmt: skip
    return tables.Table("Claims", pd.DataFrame(lines), totals(verdicts).splitlines())


def disagreements(claims: dict[str, Any] | None = None) -> str:
    """Where paper, release and count disagree, with what is counted here and now."""
    lines = []
    for entry in (claims or read())["disagreements"]:
        lines.append(f"{entry['what']}: {entry['says']}")
        for fields in entry["counted"]:
            run = resolve(**{"data": "imagenet", **fields})
            cost = published.cost_of(run)
            assert cost is not None
            lines.append(
                f"    {cost.macs / 1e6:6.1f} M  {describe_net(run)}, first_stage={run.first_stage}, {run.resolution} px"
            )
    return "\n".join(lines)


def totals(verdicts: list[Verdict]) -> str:
    """How many of each word: the costs of tables 2 to 6, those of table 7's rivals, accuracies, comparisons."""
    groups = {
        "costs of tables 2 to 6": [v for v in verdicts if v.kind == "cost" and v.table < 7],
        "costs of table 7": [v for v in verdicts if v.kind == "cost" and v.table == 7],
        "accuracies": [v for v in verdicts if v.kind == "accuracy"],
        "comparisons": [v for v in verdicts if v.kind == "comparison"],
    }
    said = lambda vs: ", ".join(f"{n} {word}" for word, n in sorted(Counter(v.word for v in vs).items()))
    return "\n".join(f"{len(vs)} {name}: {said(vs)}" for name, vs in groups.items())


def main(argv: list[str] | None = None) -> None:
    """The command line. Exit status 0 whatever the verdicts are."""
    parser = Parser(prog="python -m hbo.analysis.claims", description="Each claim: met, missed or not run.")
    parser.add_argument("--source", default="ablations", help="Folder of runs, CSV, folder of CSVs, or wandb:ENTITY/PROJECT.")
    parser.add_argument("--json", action="store_true", help="Print an object a claim instead.")
    args = parser.parse_args(argv)
    with one_line():
        verdicts = check(results.load(args.source))
        if args.json:
            print(json.dumps([asdict(v) for v in verdicts], indent=1))
            return
        print("\n".join(v.line() for v in verdicts))
        print(f"\nPaper, release and count disagree:\n\n{disagreements()}\n\n{totals(verdicts)}")


if __name__ == "__main__":
    main()
