"""Rows as one table, from wherever they lie.

python -m hbo.analysis.results contraction            # rows of runs/contraction -> ablations/contraction.csv, and their means
python -m hbo.analysis.results runs/default           # mean, deviation and n over the seeds
python -m hbo.analysis.results wandb:ENTITY/PROJECT --study contraction
"""

import argparse
import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from hbo import rows
from hbo.config import Run
from hbo.errors import UserError, one_line

METRICS = (
    "top1", "top5", "balanced_accuracy", "f1", "map", "map_area", "coco_map", "rank1", "rank5", "rank10", "rank20", "seconds",
)  # fmt: skip
PLACES = {"out", "data_dir"}  # where a run and its data lay on the machine; not part of what it is
FIRST = ("study", "key", "state")
CURVES = "_curves"  # NAME_curves.csv lies beside NAME.csv


def load(source: str | Path, *studies: str) -> pd.DataFrame:
    """A row a run, unfinished and failed ones included (column `state`); the same columns whatever the source.

    Args:
        source: a folder of runs, of one study or of all; a CSV file or a folder of them; or wandb:ENTITY/PROJECT.
        studies: only these; all, where none is named.

    Raises:
        UserError: no such source, or no rows of those studies in it.
    """
    found = [row for row, _ in _read(str(source), studies)]
    if not found:
        raise UserError(f"{source}: holds no rows" + f" of {', '.join(studies)}" * bool(studies))
    return frame(found)


def curves(source: str | Path, *studies: str) -> pd.DataFrame:
    """Learning curves: a line an epoch of a run, with study and key. None where the source has rows alone."""
    lines = [
        {"study": row["study"], "key": row["key"], **point} for row, curve in _read(str(source), studies) for point in curve
    ]
    return pd.DataFrame(lines)


def frame(found: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table: study, key and state, the fields asked for, then what came of it by name.

    A field that is newer than a row was at its default then; a row that failed before it was one stays without.
    """
    asked = [f.name for f in fields(Run) if f.name not in {*PLACES, *FIRST}]
    floats = {f.name for f in fields(Run) if f.type in (float, float | None)}
    lines = []
    for row in found:
        usual = {name: getattr(Run, name) for name in asked} if "git" in row else {}
        line = usual | {name: value for name, value in row.items() if name not in PLACES}
        lines.append({n: float(v) if n in floats and isinstance(v, int) else v for n, v in line.items()})
    rest = sorted({name for line in lines for name in line} - {*asked, *FIRST})
    table = pd.DataFrame(lines, columns=pd.Index([*FIRST, *asked, *rest]))
    by = ["study", "net", *(name for name in varying(table) if name != "net"), "seed", "key"]
    return table.sort_values(by, key=lambda column: column.map(_order), kind="stable", ignore_index=True)


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by their size, then words."""
    number = isinstance(value, (int, float)) and not math.isnan(value)
    return (not number, float(value) if number else 0.0, "" if number else str(value))


# ------------------------------------------------------------ sources

Read = Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]


def _read(source: str, studies: tuple[str, ...]) -> Read:
    """Each row with its learning curve."""
    if source.startswith("wandb:"):
        from hbo.analysis import from_wandb

        return ((row, curve) for row, curve in from_wandb.read(source[6:]) if not studies or row.get("study") in studies)
    path = Path(source).expanduser()
    if path.suffix == ".csv":
        if not path.is_file():
            raise UserError(f"{source}: no such file")
        return _from_csv(path, studies)
    if not path.is_dir():
        raise UserError(f"{source}: no such folder, CSV file, or wandb:ENTITY/PROJECT")
    found = [p.parent for p in sorted(path.rglob("row.json")) if "replaced" not in p.parts]
    if found:
        return _from_runs([p for p in found if not studies or p.parent.name in studies])
    files = [p for p in sorted(path.glob("*.csv")) if not p.stem.endswith(CURVES) and (not studies or p.stem in studies)]
    if not files:
        raise UserError(f"{source}: holds no row.json and no CSV" + f" of {', '.join(studies)}" * bool(studies))
    return (pair for file in files for pair in _from_csv(file, studies))


def _from_runs(folders: list[Path]) -> Read:
    for folder in folders:
        row = (rows.read(folder) or {}) | {"study": folder.parent.name, "key": folder.name}
        classified = row.get("task", "classify") == "classify" and row.get("state") == "done"
        if "correct" not in row and classified and (folder / "outcomes.npz").exists():
            row["correct"] = rows.read_correct(folder / "outcomes.npz")  # of a run older than that column
        curve = read_csv(folder / "metrics.csv") if (folder / "metrics.csv").exists() else []
        yield row, curve


def _from_csv(path: Path, studies: tuple[str, ...]) -> Read:
    beside = path.with_name(f"{path.stem}{CURVES}.csv")
    points: dict[Any, list[dict[str, Any]]] = {}
    for point in read_csv(beside) if beside.exists() else []:
        points.setdefault((point.pop("study"), point.pop("key")), []).append(point)
    asked = {f.name for f in fields(Run)}
    for row in read_csv(path):
        # A field's empty cell is None, as the width of a network that comes in one; a field without a column is at its default.
        kept = {name: value for name, value in row.items() if value is not None or (name in asked and name != "study")}
        row = {"study": path.stem} | kept
        if not studies or row["study"] in studies:
            yield row, points.get((row["study"], row.get("key")), [])


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Lines of a CSV file as they were written: numbers to the last bit, lists and dicts from JSON, None for an empty cell."""
    with open(path, newline="") as file:
        return [{name: _value(cell) for name, cell in line.items()} for line in csv.DictReader(file)]


def to_csv(table: pd.DataFrame) -> str:
    """The text that `read_csv` reads back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([_cell(value) for value in line] for line in table.astype(object).itertuples(index=False))
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value if value and isinstance(_value(value), str) else json.dumps(value)  # a key may look like a number
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return repr(value)
    return str(value) if isinstance(value, bool) else json.dumps(value)


def _value(cell: str | None) -> Any:
    if not cell:
        return None
    if cell in ("True", "False"):
        return cell == "True"
    try:
        return json.loads(cell)
    except ValueError:
        return cell


# ------------------------------------------------------------ means


def varying(table: pd.DataFrame) -> list[str]:
    """The fields, but for the seed, in which the runs differ."""
    left_out = Run.NOT_IN_KEY - {"devices", "num_nodes"} | {"seed"}
    names = [f.name for f in fields(Run) if f.name not in left_out and f.name in table]
    return [name for name in names if table[name].nunique(dropna=False) > 1]


def finished(table: pd.DataFrame) -> Any:
    """The rows that are done.

    Raises:
        UserError: none is.
    """
    done: Any = table[table["state"] == "done"]
    if done.empty:
        raise UserError(f"none of the {len(table)} runs is finished: {', '.join(map(str, table['state'].unique()))}")
    return done


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, sample deviation and n of each metric over the seeds of the finished runs, in percent and seconds."""
    done = finished(table)
    by = varying(done) or ["net"]
    lines = []
    for values, group in done.groupby(by, dropna=False, sort=False):
        line: dict[str, Any] = dict(zip(by, values, strict=True)) | {"n": len(group)}
        for name in METRICS:
            if name in group and group[name].notna().all():
                line[name] = mean(group[name], 1 if name == "seconds" else 100)
        lines.append(line)
    return pd.DataFrame(lines)


def mean(values: Any, scale: float = 100) -> str:
    """`71.2 ± 0.4`; without a deviation where there is one value."""
    deviation = f" ± {scale * values.std():.1f}" if len(values) > 1 else ""
    return f"{scale * values.mean():.1f}{deviation}"


def markdown(table: pd.DataFrame) -> str:
    """The table as Markdown, without a package for it."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(object).values.tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


# ------------------------------------------------------------ the command line


def save(table: pd.DataFrame, points: pd.DataFrame, path: Path) -> int:
    """Write NAME.csv and NAME_curves.csv; rows that are there already and not in the table stay. How many those are."""
    kept = 0
    for new, where in ((table, path), (points, path.with_name(f"{path.stem}{CURVES}.csv"))):
        if where.exists():
            keys = set(new["key"]) if len(new) else set()
            before = [line for line in read_csv(where) if line["key"] not in keys]
            kept = max(kept, len({line["key"] for line in before}))
            lines = [*before, *new.astype(object).where(new.notna(), None).to_dict("records")]
            new = frame(lines) if where == path else pd.DataFrame(lines)
        if len(new):
            where.parent.mkdir(parents=True, exist_ok=True)
            rows.write_atomically(where, to_csv(new))
    return kept


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hbo.analysis.results",
        description="Rows as one table: mean ± deviation over the seeds. A study's bare name also writes TO/STUDY.csv.",
    )
    parser.add_argument("source", help="A study's name; or a folder of runs, a CSV file, wandb:ENTITY/PROJECT.")
    parser.add_argument("--study", action="append", default=[], help="Only this study of the source; may be repeated.")
    parser.add_argument("--runs", default="runs", help="Where a study given by its name lies: as a source. [runs]")
    parser.add_argument("--to", default="ablations", help="Where the CSV of a study given by its name goes. [ablations]")
    parser.add_argument("--csv", action="store_true", help="Print the rows as CSV instead.")
    args = parser.parse_args(argv)
    with one_line():
        by_name = not (args.source.startswith("wandb:") or Path(args.source).exists() or "/" in args.source)
        source, studies = (args.runs, [args.source]) if by_name else (args.source, args.study)
        table = load(source, *studies)
        if by_name:
            path = Path(args.to) / f"{args.source}.csv"
            kept = save(table, curves(source, *studies), path)
            states = ", ".join(f"{n} {state}" for state, n in table["state"].value_counts().items())
            print(f"{path}: {states}" + f"; {kept} that were there already" * bool(kept), end="\n\n")
        print(to_csv(table).rstrip() if args.csv else markdown(summary(table)))


if __name__ == "__main__":
    main()
