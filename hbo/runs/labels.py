"""A run's labels in W&B: name, tags, kind of job and notes."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hbo import files
from hbo.config import Run, resolve
from hbo.runs import swept

VARIES = "HBO_VARIES"  # set by the launcher: the fields that a study varies, separated by commas
LONGEST = 80  # characters of a name's middle part


def label(run: Run, names: list[str] | None = None) -> str:
    """What distinguishes the run from others: `k2-seed1`.

    Args:
        run: all fields.
        names: the fields that its study varies; None if unknown: those that differ from its data set's
            defaults, the network's first.
    """
    usual = asdict(resolve(data=run.data))
    if names is None:
        order = [*Run.NETWORK, "seed", *usual]
        names = [f for f in dict.fromkeys(order) if f not in run.NOT_IN_KEY and getattr(run, f) != usual[f]]
    parts = [f"{name}{getattr(run, name)}" for name in names]
    said = "-".join(parts).replace("/", "_").replace(":", "_").replace(" ", "-").replace("=", "")
    return said[:LONGEST].strip("-") or run.data


def varying() -> list[str] | None:
    """The fields that the study of this process varies, as its launcher or the W&B sweep says; None if
    neither does.
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
    """The question of the run's study, if its sweep file left one with the rows, else the W&B sweep's."""
    try:
        asked = dict(json.loads((_study(run) / "question.json").read_text()))
    except (OSError, ValueError, TypeError):
        asked = swept.question()
    return "; ".join(f"{name}: {_plain(value)}" for name, value in asked.items()) or None


def _study(run: Run) -> Path:
    return files.expanded(run.out) / run.study


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
