"""Sources of rows: folders of runs, CSV files, W&B. Each gives rows with their learning curves; `results`
makes tables of them.
"""

import contextlib
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Any

from hbo import files
from hbo.analysis.csv_rows import lines_of, parsed, read_csv
from hbo.config import Run
from hbo.errors import UserError, first_line
from hbo.runs import deployed, rows
from hbo.words import did_you_mean

ROWS = {"key", "state"}  # columns of every table of runs, which latencies and floors lack
CURVES = "_curves"  # NAME_curves.csv is next to NAME.csv
Read = Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]


def is_place(word: str) -> bool:
    """Whether an argument is a path of rows, such as runs/contraction or a CSV
    file; else it is a study's name.
    """
    return word.startswith("wandb:") or "/" in word or Path(word).exists()


def studies_at(source: str | Path) -> list[str]:
    """The studies with rows in a folder of runs or of CSV files, and in runs/, as an argument names them."""
    path = files.expanded(source)
    names = {p.parent.parent.name for p in path.glob("*/*/row.json")}
    for table in path.glob("*.csv"):
        with open(table, encoding="utf-8-sig", errors="replace") as file:
            names |= {table.stem} if set(file.readline().strip().split(",")) >= ROWS else set()
    own = {p.parent.parent for p in Path("runs").glob("*/*/row.json")}
    return sorted(names) + sorted(str(p) for p in own if Path("runs").resolve() != path.resolve())


def near(source: str | Path, studies: Sequence[str]) -> str:
    """A hint for studies that a folder lacks: the nearest name there, else all; empty for other sources."""
    there = studies_at(source) if files.expanded(source).is_dir() else []
    wrong = next((name for name in studies if name not in there), "")
    if not wrong or not there:
        return ""
    return did_you_mean(wrong, there) or f"; there are {', '.join(there)}"


def read(source: str, studies: tuple[str, ...]) -> Read:
    """Each row with its learning curve.

    Args:
        source: a folder of runs, of one study or of all; a CSV file or a folder of them; or
            wandb:ENTITY/PROJECT.
        studies: names select studies of the source; paths, such as runs/contraction, add all rows there.
            Empty: all.

    Raises:
        UserError: no such source, or no rows in it.
    """
    places = [word for word in studies if is_place(word)]
    names = tuple(word for word in studies if word not in places)
    return chain(
        *([_read(source, names)] if names or not places else []), *(_read(place, ()) for place in places)
    )


def _read(source: str, studies: tuple[str, ...]) -> Read:
    if source.startswith("wandb:"):
        from hbo.analysis import from_wandb

        return (
            (row, curve)
            for row, curve in from_wandb.read(source[6:])
            if not studies or row.get("study") in studies
        )
    path = files.expanded(source)
    if path.suffix == ".csv":
        if not path.is_file():
            raise UserError(f"{source}: no such file")
        cells = lines_of(path)
        if not set(cells[0]) >= ROWS:
            raise UserError(
                f"{source}: contains no rows of runs; the columns key and state are"
                f" missing{_separated(cells[0])}"
            )
        return _from_csv(path, parsed(path, cells), studies)
    if not path.is_dir():
        hint = (
            "; the committed rows are in HBO's checkout; for your own use --source runs"
            if path.name == "ablations"
            else ""
        )
        raise UserError(f"{source}: no such folder, CSV file, or wandb:ENTITY/PROJECT{hint}")
    found = [p.parent for p in sorted(path.rglob("row.json")) if not _is_no_run(p.parent)]
    if found:
        return _from_runs([p for p in found if not studies or p.parent.name in studies])
    paths = [
        p
        for p in sorted(path.glob("*.csv"))
        if not p.stem.endswith(CURVES) and (not studies or p.stem in studies)
    ]
    tables = [(p, lines) for p in paths if (lines := _lines(p, ROWS)) is not None]
    if not tables:
        own = [f"runs/{name}" for name in studies if Path("runs", name).is_dir()]
        planned = [f"sweeps/{name}.yaml" for name in studies if Path("sweeps", f"{name}.yaml").is_file()]
        planned = [] if own else planned
        raise UserError(
            f"{source}: contains no row.json and no CSV"
            + f" of {', '.join(studies)}" * bool(studies)
            + f"; did you mean {' '.join(own)}?" * bool(own)
            + f"; not run yet: python -m hbo.sweep run {' '.join(planned)}" * bool(planned)
            + (near(source, studies) if not own and not planned else "")
        )
    return (pair for table, lines in tables for pair in _from_csv(table, lines, studies))


def _is_no_run(folder: Path) -> bool:
    """Whether a folder with a row was set aside (`rows.set_aside`: STUDY/replaced/KEY-TIME), or is W&B's of
    what it sends (KEY/wandb/offline-run-TIME-KEY/files).
    """
    replaced = folder.parent.name == "replaced" and re.fullmatch(r".+-\d{8}T\d{6}", folder.name)
    return bool(replaced) or (folder.name == "files" and folder.parent.parent.name == "wandb")


def _lines(path: Path, columns: set[str]) -> list[dict[str, Any]] | None:
    """The lines of a CSV file; None if it lacks these columns, or, with a warning, if it cannot be read."""
    try:
        cells = lines_of(path)
        lines = parsed(path, cells)
    except UserError as error:
        rows.pass_over(f"{error}; skipped")
        return None
    return lines if columns <= set(cells[0]) else None


def _separated(head: list[str]) -> str:
    """A hint for a table that a spreadsheet saved with other separators."""
    other = next((mark for mark in (";", "\t") if len(head) == 1 and mark in head[0]), None)
    return (
        f"; its columns are separated by {other!r}, and its numbers may have decimal commas: save it with"
        f" commas between columns and decimal points" * bool(other)
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
            with contextlib.suppress(_Unread):  # a run older than that column
                row["correct"] = _else_passed_over(outcomes, rows.read_correct)
        with contextlib.suppress(_Unread):
            row |= _else_passed_over(folder / deployed.FILE, lambda path: deployed.read(path.parent))
        points = []
        if curve.exists():
            with contextlib.suppress(_Unread):
                points = _else_passed_over(curve, _curve)
        yield row, points


class _Unread(Exception):
    """A skipped file."""


def _else_passed_over(path: Path, reading: Callable[[Path], Any]) -> Any:
    try:
        return reading(path)
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        rows.pass_over(f"{path}: cannot be read ({first_line(error)}); skipped")
        raise _Unread from None


def _curve(path: Path) -> list[dict[str, Any]]:
    """The points of a metrics.csv, which must be numbers."""
    points = read_csv(path)
    for point in points:
        if bad := [value for value in point.values() if not isinstance(value, (int, float, NoneType))]:
            raise ValueError(f"{bad[0]!r} is not a number")
    return points


def _from_csv(path: Path, lines: list[dict[str, Any]], studies: tuple[str, ...]) -> Read:
    beside = path.with_name(f"{path.stem}{CURVES}.csv")
    points: dict[Any, list[dict[str, Any]]] = {}
    for point in (_lines(beside, set()) if beside.exists() else None) or []:
        points.setdefault((point.pop("study", None), point.pop("key", None)), []).append(point)
    asked = {f.name for f in fields(Run)}
    for number, row in enumerate(lines, 2):
        # A field's empty cell is None, such as the width of a network with a fixed width; a field without a
        # column has its default.
        kept = {
            name: value
            for name, value in row.items()
            if value is not None or (name in asked and name != "study")
        }
        row = {"study": path.stem} | kept
        if reason := rows.problem(row):
            rows.pass_over(f"{path}, line {number}, {row.get('key')}: not a row ({reason}); skipped")
        elif not studies or row["study"] in studies:
            yield row, points.get((row["study"], row.get("key")), [])
