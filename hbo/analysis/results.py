"""Rows as one table, from wherever they lie.

python -m hbo.analysis.results contraction            # rows of runs/contraction -> ablations/contraction.csv, and their means
python -m hbo.analysis.results runs/default           # mean, deviation and n over the seeds
python -m hbo.analysis.results wandb:ENTITY/PROJECT --study contraction
"""

import contextlib
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any

import pandas as pd

from hbo import files
from hbo.analysis.csv_rows import lines_of, parsed, read_csv, to_csv
from hbo.config import Run
from hbo.errors import UserError, first_line, one_line
from hbo.runs import identity, rows
from hbo.tasks import COLUMNS, MORE
from hbo.words import Parser

METRICS = (*COLUMNS, *MORE, "seconds")
PLACES = {"out", "data_dir"}  # where a run and its data lay on the machine; not part of what it is
FIRST = ("study", "key", "state")
ROWS = {"key", "state"}  # columns of a table of runs: latencies and floors have none
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
    return pd.DataFrame(lines, columns=None if lines else pd.Index(["study", "key"]))


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
        if row.get("net") is not None:  # else it failed before it was a run
            line["identity"] = identity.of_row(row)
        lines.append({n: float(v) if n in floats and isinstance(v, int) else v for n, v in line.items()})
    rest = sorted({name for line in lines for name in line} - {*asked, *FIRST})
    table = pd.DataFrame(lines, columns=pd.Index([*FIRST, *asked, *rest]))
    differ = identity.varying([line["identity"] for line in lines if "identity" in line])
    by = ["study", "net", *(name for name in differ if name in table and name != "net"), "seed", "key"]
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
    path = files.expanded(source)
    if path.suffix == ".csv":
        if not path.is_file():
            raise UserError(f"{source}: no such file")
        cells = lines_of(path)
        if not set(cells[0]) >= ROWS:
            raise UserError(f"{source}: holds no rows of runs; their columns key and state are missing{_separated(cells[0])}")
        return _from_csv(path, parsed(path, cells), studies)
    if not path.is_dir():
        raise UserError(f"{source}: no such folder, CSV file, or wandb:ENTITY/PROJECT")
    found = [p.parent for p in sorted(path.rglob("row.json")) if not _set_aside(p.parent)]
    if found:
        return _from_runs([p for p in found if not studies or p.parent.name in studies])
    paths = [p for p in sorted(path.glob("*.csv")) if not p.stem.endswith(CURVES) and (not studies or p.stem in studies)]
    tables = [(p, lines) for p in paths if (lines := _lines(p, ROWS)) is not None]
    if not tables:
        raise UserError(f"{source}: holds no row.json and no CSV" + f" of {', '.join(studies)}" * bool(studies))
    return (pair for table, lines in tables for pair in _from_csv(table, lines, studies))


def _set_aside(folder: Path) -> bool:
    """Whether a run was moved out of the way (`rows.set_aside`): STUDY/replaced/KEY-TIME."""
    return folder.parent.name == "replaced" and re.fullmatch(r".+-\d{8}T\d{6}", folder.name) is not None


def _lines(path: Path, columns: set[str]) -> list[dict[str, Any]] | None:
    """The lines of a CSV file; None where it lacks these columns, and, with a warning, where it cannot be read."""
    try:
        cells = lines_of(path)
        lines = parsed(path, cells)
    except UserError as error:
        rows.pass_over(f"{error}; passed over")
        return None
    return lines if columns <= set(cells[0]) else None


def _separated(head: list[str]) -> str:
    """What to say of a table that a spreadsheet saved with other separators."""
    other = next((mark for mark in (";", "\t") if len(head) == 1 and mark in head[0]), None)
    return f"; its columns are separated by {other!r}, and its numbers may have commas: save it with commas and points" * bool(
        other
    )


def _from_runs(folders: list[Path]) -> Read:
    for folder in folders:
        row = rows.sound(folder)
        if row is None:
            continue
        row |= {"study": folder.parent.name, "key": folder.name}
        classified = row.get("task", "classify") == "classify" and row.get("state") == "done"
        outcomes, curve = folder / "outcomes.npz", folder / "metrics.csv"
        if "correct" not in row and classified and outcomes.exists():
            with contextlib.suppress(_Unread):  # of a run older than that column
                row["correct"] = _else_passed_over(outcomes, rows.read_correct)
        points = []
        if curve.exists():
            with contextlib.suppress(_Unread):
                points = _else_passed_over(curve, _curve)
        yield row, points


class _Unread(Exception):
    """A file that was passed over."""


def _else_passed_over(path: Path, reading: Callable[[Path], Any]) -> Any:
    try:
        return reading(path)
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        rows.pass_over(f"{path}: cannot be read ({first_line(error)}); passed over")
        raise _Unread from None


def _curve(path: Path) -> list[dict[str, Any]]:
    """The points of a metrics.csv: numbers alone."""
    points = read_csv(path)
    for point in points:
        if bad := [value for value in point.values() if not isinstance(value, (int, float, NoneType))]:
            raise ValueError(f"{bad[0]!r} is no number")
    return points


def _from_csv(path: Path, lines: list[dict[str, Any]], studies: tuple[str, ...]) -> Read:
    beside = path.with_name(f"{path.stem}{CURVES}.csv")
    points: dict[Any, list[dict[str, Any]]] = {}
    for point in (_lines(beside, set()) if beside.exists() else None) or []:
        points.setdefault((point.pop("study", None), point.pop("key", None)), []).append(point)
    asked = {f.name for f in fields(Run)}
    for number, row in enumerate(lines, 2):
        # A field's empty cell is None, as the width of a network that comes in one; a field without a column is at its default.
        kept = {name: value for name, value in row.items() if value is not None or (name in asked and name != "study")}
        row = {"study": path.stem} | kept
        if reason := rows.problem(row):
            rows.pass_over(f"{path}, line {number}, {row.get('key')}: not a row ({reason}); passed over")
        elif not studies or row["study"] in studies:
            yield row, points.get((row["study"], row.get("key")), [])


# ------------------------------------------------------------ means


def identities(table: pd.DataFrame) -> list[identity.Identity]:
    """Of each row, by its fields as they stand in the table."""
    return [identity.of_row(row) for row in table.to_dict("records")]


def varying(table: pd.DataFrame) -> list[str]:
    """The names, of fields but for the seed and of what folders and files hold, in which the runs differ."""
    return identity.varying(identities(table))


def arms(table: pd.DataFrame) -> list[tuple[identity.Identity, pd.DataFrame]]:
    """Runs that differ in the seed alone, and the identity that they share; a run that two studies have counts once.

    Raises:
        UserError: as `check_seeds`.
    """
    table = table.drop_duplicates("key")
    every = identities(table)
    places: dict[str, list[int]] = {}
    for i, one in enumerate(every):
        places.setdefault(identity.group(one), []).append(i)
    return [(every[where[0]], check_seeds(table.iloc[where])) for where in places.values()]


def check_seeds(arm: Any) -> Any:
    """The rows of an arm, a seed each.

    Raises:
        UserError: two of them have one seed; names their keys.
    """
    twice = arm[arm["seed"].duplicated(keep=False)]
    if len(twice):
        first, second, *_ = twice[twice["seed"] == twice["seed"].iloc[0]]["key"]
        raise UserError(
            f"keys {first} and {second}: the same run with the same seed, {twice['seed'].iloc[0]}, under two keys; one of the rows"
            " was edited or damaged: remove it"
        )
    return arm


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
    groups = arms(done)
    by = identity.varying([one for one, _ in groups]) or ["net"]
    lines = []
    for one, group in groups:
        line = {identity.EXTRAS.get(name, name): identity.value(one, name) for name in by} | {"n": len(group)}
        for name in METRICS:
            if name in group and group[name].notna().all():
                line[name] = mean(group[name], 1 if name == "seconds" else 100)
        lines.append(line)
    return pd.DataFrame(lines, dtype=object)  # an absent number is None, and makes no floats of the others


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
            files.write_atomically(where, to_csv(new))
    return kept


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(
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
        print(to_csv(table).rstrip() if args.csv else f"{markdown(summary(table))}{_left_out(table)}")


def _left_out(table: pd.DataFrame) -> str:
    """The runs that no mean counts, by name: of each state at most ten."""
    rest = table[table["state"] != "done"]
    said = [f"{len(group)} {state} ({', '.join(map(str, group['key'][:10]))})" for state, group in rest.groupby("state")]
    return f"\n\nNot in the table: {'; '.join(said)}." if said else ""


if __name__ == "__main__":
    main()
