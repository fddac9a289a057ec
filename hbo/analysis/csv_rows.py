"""Rows in a CSV file: numbers to the last bit, lists and dicts as JSON, text as text."""

import csv
import io
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from hbo.config import Run
from hbo.errors import UserError, first_line

WORDS = {
    "key",
    "study",
    "state",
    "git",
    "error",
    "reused_from",
    "backbone_weights",
    "backbone_arm",
    "teacher",
    "started",
    "folder",
} | {
    f.name for f in fields(Run) if f.type in (str, str | None)
}  # text columns, even if a cell looks like a number: 31246e1835 is a key, 60 a milestone


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Lines of a CSV file as they were written: exact numbers, lists and dicts from
    JSON, None for an empty cell.

    Raises:
        UserError: not UTF-8 text, or a line with more or fewer cells than columns.
    """
    return parsed(path, lines_of(path))


def parsed(path: Path, cells: list[list[str]]) -> list[dict[str, Any]]:
    """The same for a file's cells (`lines_of`)."""
    head, *lines = cells
    for number, line in enumerate(lines, 2):
        if line and len(line) != len(head):
            raise UserError(f"{path}: line {number} has {len(line)} cells, the header {len(head)}")
    return [
        {name: _value(cell, name in WORDS) for name, cell in zip(head, line, strict=True)}
        for line in lines
        if line
    ]


def lines_of(path: Path) -> list[list[str]]:
    """The cells of each line; at least a header."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return list(csv.reader(file)) or [[]]
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file ({first_line(error)})") from None


def to_csv(table: pd.DataFrame) -> str:
    """The text that `read_csv` reads back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(
        [_cell(value) for value in line] for line in table.astype(object).itertuples(index=False)
    )
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        # A key may look like a number.
        return value if value and isinstance(_value(value), str) else json.dumps(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return repr(value)
    return str(value) if isinstance(value, bool) else json.dumps(value)


def _value(cell: str | None, word: bool = False) -> Any:
    if not cell:
        return None
    if cell in ("True", "False") and not word:
        return cell == "True"
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return cell if word and not isinstance(value, str) else value
