"""The unfinished run that a changed flag leaves behind: a user who wants it resumed sees that it is not."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hbo import files
from hbo.config import Run
from hbo.errors import UserError
from hbo.runs import identity, lock, rows

# Parts of an identity that are the contents of a folder or a file -> the field that names it, and its words.
CONTENTS = {
    "images": ("data_dir", "the photographs in"),
    "backbone": ("backbone_checkpoint", "the weights in"),
    "teacher": ("distill", "the weights in"),
}
NEWEST = 20  # folders looked at: a study may have thousands


def unfinished(run: Run, folder: Path) -> str | None:
    """A line about the newest interrupted run of the study that differs in one or two fields besides the
    seed; None if there is none, or if this run has a row itself.

    Args:
        run: about to begin.
        folder: its own.
    """
    if (folder / "row.json").exists():
        return None
    found = sorted(folder.parent.glob("*/last.ckpt"), key=_changed, reverse=True)
    for other in (path.parent for path in found[:NEWEST]):
        try:
            row = rows.read(other)
        except UserError:
            continue
        if not row or row["state"] not in ("interrupted", "unfinished"):
            continue
        if (lock.read(other) or {}).get("alive"):  # it is being trained
            continue
        here, there = json.loads(json.dumps(run.identity(), default=str)), identity.of_row(row)
        names = identity.varying([here, there])
        if 1 <= len(names) <= 2:
            changed = [name for name in names if _same_place(run, row, name)]
            theirs = ", ".join(
                f"{identity.say(name, identity.value(there, name))}"
                f" (here {identity.say(name, identity.value(here, name)).partition('=')[2]})"
                for name in names
                if name not in changed
            )
            said = f"new run {folder.name}; run {other.name} of this study is unfinished"
            said += f" and has {theirs}" if theirs else ""
            resumes = f"python -m hbo.fit --config {other / 'config.yaml'} resumes it"
            if not changed:
                return f"{said}: {resumes}"
            what = " and ".join(f"{CONTENTS[name][1]} {row[CONTENTS[name][0]]}" for name in changed)
            return f"{said}, but {what} have changed since; restore them, then {resumes}"
    return None


def _same_place(run: Run, row: Mapping[str, Any], name: str) -> bool:
    """Whether both name one folder or file, so that a difference means that its contents have changed."""
    if name not in CONTENTS:
        return False
    paths = [getattr(run, CONTENTS[name][0]), row.get(CONTENTS[name][0])]
    return None not in paths and len({files.expanded(path).resolve() for path in paths}) == 1


def _changed(path: Path) -> float:
    """When a file changed; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
