"""How a run is called in W&B: its name, tags, kind of job and notes."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hbo import files
from hbo.config import Run, resolve
from hbo.runs import swept

VARIES = "HBO_VARIES"  # the fields that a study varies, with commas between them, as its launcher says
LONGEST = 80  # characters of a name's middle part


def label(run: Run, names: list[str] | None = None) -> str:
    """What tells the run from others, for people to read: `k2-seed1`.

    Args:
        run: all fields.
        names: the fields that its study varies; None where nobody says: those that are not at the default
            of its data set, those that make the network first.
    """
    usual = asdict(resolve(data=run.data))
    if names is None:
        order = [*Run.NETWORK, "seed", *usual]
        names = [f for f in dict.fromkeys(order) if f not in run.NOT_IN_KEY and getattr(run, f) != usual[f]]
    parts = [f"{name}{getattr(run, name)}" for name in names]
    said = "-".join(parts).replace("/", "_").replace(":", "_").replace(" ", "-").replace("=", "")
    return said[:LONGEST].strip("-") or run.data


def varying() -> list[str] | None:
    """The fields that the study of this process varies, as its launcher or the W&B sweep says; None where
    nobody does.
    """
    if VARIES in os.environ:
        return [name for name in os.environ[VARIES].split(",") if name]
    given = swept.parameters()
    if given is None:
        return None
    return sorted(name for name, p in given.items() if len(p.get("values", "  ")) > 1 and "value" not in p)


def tags(run: Run) -> list[str]:
    """What to filter by: task, data set, network."""
    return list(dict.fromkeys([run.task, run.data, run.net]))


def notes(run: Run) -> str | None:
    """The question of the run's study, where its sweep file left one with the rows; else that of the W&B
    sweep.
    """
    try:
        asked = dict(json.loads((_study(run) / "question.json").read_text()))
    except (OSError, ValueError, TypeError):
        asked = swept.question()
    return "; ".join(f"{name}: {_plain(value)}" for name, value in asked.items()) or None


def _study(run: Run) -> Path:
    return files.expanded(run.out) / run.study


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
