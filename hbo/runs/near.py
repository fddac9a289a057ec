"""The unfinished run that a changed flag leaves behind: a user who wants it resumed sees that it is not."""

import json
from pathlib import Path

from hbo.config import Run
from hbo.errors import UserError
from hbo.runs import identity, lock, rows

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
            theirs = ", ".join(
                f"{identity.say(name, identity.value(there, name))}"
                f" (here {identity.say(name, identity.value(here, name)).partition('=')[2]})"
                for name in names
            )
            return (
                f"new run {folder.name}; run {other.name} of this study is unfinished and has {theirs}:"
                f" python -m hbo.fit --config {other / 'config.yaml'} resumes it"
            )
    return None


def _changed(path: Path) -> float:
    """When a file changed; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
