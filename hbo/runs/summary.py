"""A row in words, for the terminal."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hbo.errors import UserError
from hbo.runs import identity, naming, one_answer, rows
from hbo.tasks import COLUMNS, TASKS
from hbo.tasks.spec import percent
from hbo.text import counted


def label(net: str, k: int, depths: list[int]) -> str:
    """The network's label, with k if it has a contracting block."""
    return f"{net} k={k}" if depths else net


def network(net: str, k: int, depths: list[int], width: float | None) -> str:
    """The network's label, with its width if it has one."""
    return label(net, k, depths) + (f" width={width}" if width is not None else "")


def headline(row: dict[str, Any]) -> str:
    """A finished row's main result, short."""
    name = rows.main_metric(row)
    return f"{COLUMNS[name]} {percent(row, name)}" if name in row else ""


def stopped(row: Mapping[str, Any], where: Path) -> str:
    """The message for a run that was stopped in W&B, with the command that resumes it.

    Args:
        row: with state stopped.
        where: the run's folder.
    """
    return (
        f"{where.name} was stopped in W&B at update {row.get('stopped_at', '?')}, and a sweep does not"
        f" restart it; python -m hbo.fit --config {where / 'config.yaml'} resumes from there"
    )


def of(row: dict[str, Any], where: Path) -> str:
    """The lines printed at the end of a run.

    Raises:
        UserError: the row lacks a value.
    """
    try:
        return _text(row, where)
    except (KeyError, TypeError) as error:
        raise UserError(f"{where / 'row.json'}: a finished row without {error}; --force repeats it") from None


def _with_digest(words: str) -> str:
    """Say that the digits at the end of a description are a file's hash, not a run's key."""
    return re.sub(r"\(([0-9a-f]{10})\)$", r"(hash of the file: \1)", words)


def _text(row: dict[str, Any], where: Path) -> str:
    lines = TASKS[row.get("task", "classify")].report(row)
    if row.get("left_out_boxes") or row.get("clipped_boxes"):
        lines.append(
            (
                "faulty boxes",
                f"{row['left_out_boxes']} dropped, {row['clipped_boxes']} clipped; named in the row",
            )
        )
    if row.get("classifier_epochs"):
        lines.append(("classifier only", f"{counted(row['classifier_epochs'], 'epoch')} before these"))
    if row.get("backbone_weights"):
        lines.append(("initial weights", _with_digest(row["backbone_weights"])))
    if row.get("teacher"):
        lines.append(("teacher", _with_digest(row["teacher"])))
    lines += [
        (
            "multiply-adds",
            f"{row['macs'] / 1e6:.1f} M at {row['resolution']} x"
            f" {round(row['resolution'] / row.get('aspect', 1))}",
        ),
        ("parameters", f"{row['params'] / 1e6:.3f} M"),
        ("training", f"{row['images_per_second']:.0f} images/s" if row.get("images_per_second") else "-"),
        ("seconds", f"{row['seconds']:.0f}"),
        ("row", str(where / "row.json")),
    ]
    if (found := one_answer.against(row)) and not found.beaten:
        lines.append(
            ("note", f"{found.measure} is not above {found.what}: it may have learned nothing; train longer")
        )
    for column, what in rows.VAL_NOT_IN.values():
        if row.get(column):
            lines.append(
                ("note", f"{what} may have been trained on {counted(row[column], 'validation image')}")
            )
    data = naming.data_name(identity.of_row(row), row.get("folder"))
    head = (
        f"{network(row['net'], row['k'], row['depths'], row['width'])} on {data}"
        f" ({row['val_images_seen']} images), epoch {row['epochs']}, seed {row['seed']}"
    )
    return "\n".join([head, *(f"  {name:<18} {value}" for name, value in lines)])
