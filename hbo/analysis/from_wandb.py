"""Rows and learning curves from Weights & Biases, where each run mirrors a row (see hbo/runs/tracking.py).

Downloaded runs are cached in ~/.cache/hbo/wandb, one file per run, and are downloaded again only if they have
changed on the server; to clear the cache, remove the folder.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from hbo import files
from hbo.config import Run
from hbo.errors import UserError
from hbo.files import write_atomically
from hbo.runs.client import has_key

ASKED = frozenset(field.name for field in fields(Run))
# W&B's state of a run without a row -> ours.
STATES = {
    "running": "unfinished",
    "pending": "queued",
    "preempting": "interrupted",
    "preempted": "interrupted",
    "killed": "stopped",
}
FORM = 2  # of a cached file; form 1 kept W&B's shortened row if a download had failed
IN_A_POINT = ("attempt", "epoch", "step")  # a summary's entries of the curve's last point, not of the row


class Found(NamedTuple):
    """A W&B run: its row, and its learning curve without sampling."""

    row: dict[str, Any]
    curve: list[dict[str, Any]]


def read(path: str) -> list[Found]:
    """All runs of ENTITY/PROJECT, the oldest first; several runs of one key in one study give one row,
    finished if any is.

    Raises:
        UserError: no key for the server, no such project, or no answer.
    """
    import wandb

    if not has_key():
        raise UserError(f"wandb:{path}: no key for the W&B server; run `wandb login`, or set WANDB_API_KEY")
    with _one_line(path):
        api = wandb.Api()
        listed = list(api.runs(path, order="+created_at", per_page=200))
    host = str(api.settings["base_url"]).split("://")[-1].replace("/", "_").replace(":", "_")
    folder = files.expanded(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "hbo" / "wandb" / host / path
    once: dict[tuple[str, str], Found] = {}
    for run in listed:
        with _one_line(f"{path}/{run.id}"):
            found = _read(run, folder / f"{run.id}.json")
        place = str(found.row.get("study")), str(found.row["key"])
        if place not in once or found.row["state"] == "done" or once[place].row["state"] != "done":
            once[place] = found
    return list(once.values())


@contextlib.contextmanager
def _one_line(path: str) -> Iterator[None]:
    """Turn the client's errors into one line: the network, the server, the key, a truncated file."""
    try:
        yield
    except Exception as error:
        raise UserError(f"wandb:{path}: {type(error).__name__}: {error}") from None


def _read(run: Any, cached: Path) -> Found:
    stamp = [run.state, run.heartbeatAt, FORM]
    # Missing or damaged: download it again.
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        kept = json.loads(cached.read_text())
        if kept["stamp"] == stamp:
            return Found(kept["row"], kept["curve"])
    summary = dict(run.summary)
    config = {name: value for name, value in run.config.items() if name in ASKED}
    # The summary also has the curve's last point, whose `lr` hides the field's, and W&B's own entries.
    rest = {
        n: _plain(value) for n, value in summary.items() if n[0] != "_" and "/" not in n and n not in ASKED
    }
    if rest.get("state") == "invalid":  # a sweep's row that is not a valid run
        rest = {"key": run.id.partition("-")[0], "state": "invalid", "error": str(rest.get("error", ""))}
    elif "state" not in rest:
        rest = {
            "key": run.id.partition("-")[0],
            "state": STATES.get(run.state, "failed"),
            **{n: rest[n] for n in ("error",) if n in rest},
        }
    else:
        rest = {name: value for name, value in rest.items() if name not in (*IN_A_POINT, "error")}
        config, rest = _file(run) or (config, rest)
    attempt = summary.get("attempt", 1)  # earlier attempts have their own curves
    found = Found(config | rest, [_point(point) for point in run.scan_history() if _is_of(attempt, point)])
    cached.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(cached, json.dumps({"stamp": stamp, "row": found.row, "curve": found.curve}))
    return found


def _file(run: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The row from the run's file in W&B: fields, and the rest. None for an older run without the file: its
    summary has the row, except what W&B shortens there.
    """
    listed = list(run.files(names=["row.json"]))
    if not listed:
        return None
    with (
        tempfile.TemporaryDirectory() as folder,
        listed[0].download(root=folder, replace=True) as file,
    ):
        row = json.load(file)
    return {n: row[n] for n in row if n in ASKED}, {n: row[n] for n in row if n not in ASKED}


def _is_of(attempt: int, point: dict[str, Any]) -> bool:
    """Whether a point of W&B's history belongs to this attempt's learning curve."""
    return "epoch" in point and point.get("attempt", 1) == attempt


def _point(point: dict[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in point.items() if n[0] != "_" and "update/" not in n and n != "attempt"}


def _plain(value: Any) -> Any:
    """W&B's nested summaries as dicts."""
    return {name: _plain(v) for name, v in value.items()} if hasattr(value, "items") else value
