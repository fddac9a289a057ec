"""Each claim of the paper in one line with a verdict: met, missed (by how much),
undecided (trends only) or not run with the paper's protocol.

    python -m hbo.analysis.claims                     # against the rows in ablations/
    python -m hbo.analysis.claims --source runs

The claims are data (papers/hbonet/claims.yaml): cells of tables 2 to 9 with a tolerance, comparisons, and a
trend. Costs are counted each time. An accuracy is judged only by rows with the paper's own protocol; results
on other data sets are mentioned.
"""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from hbo.analysis import gains, published, results, rivals, stats, tables
from hbo.analysis.protocols import measured
from hbo.config import describe_net, resolve
from hbo.errors import UserError, one_line
from hbo.words import Parser

FORMATS = {"cost": ".0f", "accuracy": ".1f", "comparison": "+.1f", "trend": "+.1f"}
NAMES = stats.SHOWN | {"mmacs": "M multiply-adds"}


@dataclass(frozen=True)
class Verdict:
    """A claim and its verdict."""

    kind: str
    """cost, accuracy, comparison or trend."""
    table: int
    claim: str
    word: str
    """met, missed, undecided or not run."""
    published: float
    found: float | None
    """The counted or measured value, in the published unit."""
    note: str = ""
    """By how much it was missed, the number of seeds, and results on other data."""

    def line(self) -> str:
        """As the command prints it."""
        found = (
            ""
            if self.found is None
            else f", {self.found:.1f} {'counted' if self.kind == 'cost' else 'measured'}"
        )
        if self.word == "not run" and self.kind != "cost":
            found = f" on {published.DATA.get(self.table, 'ImageNet')}, not run with its protocol"
        note = f"; {self.note}" if self.note else ""
        said = f"{self.published:{FORMATS[self.kind]}}"
        return f"{self.word:<8} table {self.table}  {self.claim}: {said} published{found}{note}"


def read(path: Path | None = None) -> dict[str, Any]:
    """The claims' file.

    Raises:
        UserError: no such file, or a key is missing.
    """
    path = path or published.PAPER / "claims.yaml"
    if not path.exists():
        raise UserError(f"{path}: missing; it is part of a checkout, so install with `pip install -e .`")
    claims = yaml.safe_load(path.read_text())
    if missing := {"cells", "comparisons", "trends", "here", "disagreements", "tolerance"} - claims.keys():
        raise UserError(f"{path}: lacks {', '.join(sorted(missing))}")
    return claims


def check(rows: pd.DataFrame | None = None, claims: dict[str, Any] | None = None) -> list[Verdict]:
    """Judge every claim: the cells table by table, then comparisons and trends.

    Raises:
        UserError: a comparison or a trend that contradicts the published cells.
    """
    claims = claims or read()
    evidence = Evidence(rows)
    found = []
    for number in range(2, 10):
        for i, row in enumerate(published.table(number).to_dict("records")):
            for cell in claims["cells"]:
                if number in cell["tables"] and not math.isnan(row.get(cell["column"], math.nan)):
                    found.append(_cell(number, i, row, cell["column"], cell["tolerance"], evidence))
    found += [_comparison(claim, claims["tolerance"], evidence) for claim in claims["comparisons"]]
    return found + [_trend(claim, evidence) for claim in claims["trends"]]


class Evidence:
    """The rows of each table, read once for all its claims."""

    def __init__(self, rows: pd.DataFrame | None) -> None:
        self.rows = rows
        self.known: dict[tuple[int, str], dict[str, dict[int, Any]]] = {}

    def of(self, number: int, metric: str, line: int) -> dict[str, Any]:
        """Column's title -> the line's rows."""
        if self.rows is None:
            return {}
        if (number, metric) not in self.known:
            self.known[number, metric] = measured(self.rows, published.runs(number), metric)
        return {where: lines[line] for where, lines in self.known[number, metric].items() if line in lines}


def _cell(
    number: int, i: int, row: dict[str, Any], column: str, tolerance: float, evidence: Evidence
) -> Verdict:
    claim = f"{published.name_of(number, row)}, {NAMES[column]}"
    said = float(row[column])
    if column == "mmacs":
        run = published.run_of(number, row)
        cost = published.cost_of(run)
        if cost is None:
            return Verdict(
                "cost",
                number,
                claim,
                "not run",
                said,
                None,
                "pytorchcv is not installed (pip install -e '.[zoo]')",
            )
        macs = cost.macs / 1e6
        missed = bool(abs(macs - said) > tolerance)
        return Verdict(
            "cost",
            number,
            claim,
            "missed" if missed else "met",
            said,
            macs,
            f"by {macs - said:+.1f} M" * missed,
        )
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
    found = {where: gains.gain(groups[0][where][column], groups[1][where][column]) for where in both}
    notes = [f"{gain} {where}" for where, gain in found.items() if where]
    if "" not in both:
        return Verdict("comparison", number, claim["says"], "not run", said, None, "; ".join(notes))
    points = 100 * found[""].value
    missed = bool(points < said - tolerance)
    notes = [str(found[""])] + [f"by {said - points:.1f} points"] * missed + notes
    return Verdict(
        "comparison", number, claim["says"], "missed" if missed else "met", said, points, "; ".join(notes)
    )


def _trend(claim: dict[str, Any], evidence: Evidence) -> Verdict:
    """Whether the gain grows with each halving of the budget: decided if
    the slope's interval excludes zero.
    """
    number, column = claim["table"], claim["column"]
    table, pairs = published.table(number), published.pairs(number)
    costs = [math.sqrt(table["mmacs"][i] * table["mmacs"][j]) for i, j in pairs]
    said = float(gains.halving(costs) @ [table[column][i] - table[column][j] for i, j in pairs])
    if abs(said - claim["by"]) > 0.05:
        raise UserError(f"claims.yaml: {claim['says']!r} says {claim['by']}, table {number} says {said:.1f}")
    column = tables.COLUMN.get(column, str(column))
    budgets: dict[str, list[tuple[float, Any, Any]]] = {}
    for i, j in pairs:
        a, b = evidence.of(number, column, i), evidence.of(number, column, j)
        for where in (where for where in a if where in b):
            if (cost := math.sqrt(_macs(a[where]) * _macs(b[where]))) > 0:
                budgets.setdefault(where, []).append((cost, a[where][column], b[where][column]))
    found = {
        where: gains.trend(lines)
        for where, lines in budgets.items()
        if len({cost for cost, _, _ in lines}) > 1
    }
    words = {
        where: f"{slope}, {len(budgets[where])} budgets{f' {where}' * bool(where)}"
        for where, slope in found.items()
    }
    notes = "; ".join([words[where] for where in sorted(words)])
    if "" not in found:
        return Verdict("trend", number, claim["says"], "not run", said, None, notes)
    slope = found[""]
    word = "met" if slope.low > 0 else "missed" if slope.high < 0 else "undecided"
    return Verdict("trend", number, claim["says"], word, said, 100 * slope.value, notes)


def _macs(rows: Any) -> float:
    """A line's multiply-adds; nan if its rows have none."""
    return float(rows["macs"].mean()) if "macs" in rows else math.nan


def _row(number: int, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The only line of a table with these values, and its position."""
    rows = published.table(number).to_dict("records")
    found = [
        (i, row) for i, row in enumerate(rows) if all(row[name] == value for name, value in wanted.items())
    ]
    if len(found) != 1:
        raise UserError(f"claims.yaml: {wanted} names {len(found)} rows of table {number}, not one")
    return found[0]


def table(verdicts: list[Verdict]) -> tables.Table:
    """The verdicts as a table, one line per claim."""
    lines = [
        {
            "table": v.table, "claim": v.claim, "published": f"{v.published:.1f}",
            "counted or measured": tables.ABSENT if v.found is None else f"{v.found:.1f}", "verdict": v.word,
            "": v.note,
        }
        for v in verdicts
    ]  # fmt: skip
    return tables.Table("Claims", pd.DataFrame(lines), totals(verdicts).splitlines())


def disagreements(claims: dict[str, Any] | None = None) -> str:
    """Disagreements of paper, release and count, with a fresh count."""
    lines = []
    for entry in (claims or read())["disagreements"]:
        lines.append(f"{entry['what']}: {entry['says']}")
        lines += [f"    {_counted(dict(network))}" for network in entry["counted"]]
    return "\n".join(lines)


def _counted(network: dict[str, Any]) -> str:
    """A network's multiply-adds, with the terms of `rivals` that its authors include."""
    also = network.pop("also", [])
    run = resolve(**{"data": "imagenet", **network})
    own = "" if ":" in run.net else f", first_stage={run.first_stage}"
    name = f"{describe_net(run)}{own}, {run.resolution} px"
    cost = published.cost_of(run)
    if cost is None:
        return f"not counted, as pytorchcv is not installed (pip install -e '.[zoo]')  {name}"
    macs = cost.macs / 1e6
    terms = {term: number / 1e6 for term, number in rivals.terms(run).items() if term in also} if also else {}
    parts = "".join(f" + {millions:.1f} {term}" for term, millions in terms.items())
    return f"{macs + sum(terms.values()):6.1f} M  {name}" + (f": {macs:.1f}{parts}" if also else "")


def totals(verdicts: list[Verdict]) -> str:
    """Number of each verdict: costs of tables 2 to 6, costs of table 7, accuracies, comparisons, trends."""
    groups = {
        "costs of tables 2 to 6": [v for v in verdicts if v.kind == "cost" and v.table < 7],
        "costs of table 7": [v for v in verdicts if v.kind == "cost" and v.table == 7],
        "accuracies": [v for v in verdicts if v.kind == "accuracy"],
        "comparisons": [v for v in verdicts if v.kind == "comparison"],
    }
    trends = [v for v in verdicts if v.kind == "trend"]
    groups["trend" + "s" * (len(trends) > 1)] = trends
    said = lambda vs: ", ".join(f"{n} {word}" for word, n in sorted(Counter(v.word for v in vs).items()))
    return "\n".join(f"{len(vs)} {name}: {said(vs)}" for name, vs in groups.items() if vs)


def main(argv: list[str] | None = None) -> None:
    """The command line. Exit status 0 whatever the verdicts are."""
    parser = Parser(prog="python -m hbo.analysis.claims", description="Each claim: met, missed or not run.")
    parser.add_argument(
        "--source", default="ablations", help="Folder of runs, CSV, folder of CSVs, or wandb:ENTITY/PROJECT."
    )
    parser.add_argument("--json", action="store_true", help="Print JSON, one object per claim.")
    args = parser.parse_args(argv)
    with one_line():
        verdicts = check(results.load(args.source))
        if args.json:
            print(json.dumps([asdict(v) for v in verdicts], indent=1))
            return
        print(f"{totals(verdicts)}\n")
        print("\n".join(v.line() for v in verdicts))
        print(f"\nPaper, release and count disagree:\n\n{disagreements()}\n")
        print("Each interval is of its comparison alone; hbo.analysis.study adjusts for all that it judges.")


if __name__ == "__main__":
    main()
