"""A run is one row: OUT/STUDY/KEY/row.json. Tables are built from rows alone."""

import base64
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hbo import files
from hbo.config import Run, checked, key_of
from hbo.errors import UserError, first_line, flat
from hbo.files import write_atomically
from hbo.runs import cluster, code, identity, naming
from hbo.runs.code import git_commit
from hbo.tasks import COLUMNS, SETS, TASKS
from hbo.values import field_types, shown

STATES = ("done", "unfinished", "interrupted", "failed", "stopped", "invalid")
# Field that names a trained network -> the column that counts the validation images which were not among that
# network's own (`hbo.runs.seen`), and what its weights are to the run.
VAL_NOT_IN = {
    "backbone_checkpoint": ("val_not_in_backbones", "the initial weights"),
    "distill": ("val_not_in_teachers", "the teacher"),
}
OTHER_VERSION = "which only the version that wrote it knows"
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "wandb", "numpy", "pillow")


def folder(run: Run, key: str | None = None) -> Path:
    """The run's folder; a known key avoids reading its images again."""
    return files.expanded(run.out) / run.study / (key or run.key())


def read(where: Path) -> dict[str, Any] | None:
    """The row of a run's folder, if it has one.

    Raises:
        UserError: the file is not a row, was edited, or was written by a version with other fields.
    """
    path, row = where / "row.json", None
    if not path.exists():
        return None
    try:
        row = json.loads(path.read_text())
        reason = problem(row, where.name)
    except (OSError, ValueError, RecursionError) as error:  # truncated, binary, a folder
        reason = first_line(error)
    if reason:
        instead = "use that version" if OTHER_VERSION in reason else "remove it to repeat the run"
        raise UserError(f"{path}: not a row ({reason}); {instead}")
    return row


def sound(where: Path) -> dict[str, Any] | None:
    """The row of one of many folders; None, with a warning that names the file, if it is not a row."""
    try:
        return read(where)
    except UserError as error:
        pass_over(error)
        return None


_passed_over: set[str] = set()


def pass_over(reason: object) -> None:
    """Warn once that a file is skipped, and why."""
    said = flat(f"warning: {reason}")
    if said not in _passed_over:
        _passed_over.add(said)
        print(said, file=sys.stderr)


def problem(row: Any, key: str | None = None) -> str:
    """Why this is not a row of a run; empty if it is one.

    Args:
        row: as read from a row.json or a line of a CSV file.
        key: the required key; None if unknown.
    """
    if not isinstance(row, dict) or row.get("state") not in STATES:
        return f"its state is not one of {', '.join(STATES)}"
    kinds = field_types(Run)
    try:
        for name in kinds.keys() & row.keys():
            if row[name] is not None:
                checked(name, row[name])
    except UserError as error:
        return str(error)
    if row["state"] != "done":
        return ""
    numbers = {main_metric(row): row.get(main_metric(row), 0.0)} | (
        {} if key is None else {"seconds": row.get("seconds")}
    )
    for name in (
        "seconds",
        *COLUMNS,
        "macs",
        "params",
        "images_per_second",
        "activation_bytes",
        "elementwise",
    ):
        if row.get(name) is not None:
            numbers[name] = row[name]
    for name, value in numbers.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return f"{name}={shown(value)}: must be a number"
    return _edited(row, key)


def unknown_fields(saved: Mapping[str, Any]) -> str:
    """Why a stored run cannot be read here: a switch that this code does not have; empty if it knows all."""
    own = {*identity.FIELDS, *identity.EXTRAS, "num_classes"}
    unknown = [f"{name}={shown(value)}" for name, value in saved.items() if name not in own]
    return f"has {', '.join(unknown)}, {OTHER_VERSION}" if unknown else ""


def _edited(row: Mapping[str, Any], key: str | None) -> str:
    """How a finished row's fields contradict its key, which shows that it was edited; empty if they agree."""
    if "git" not in row or row.get("net") is None:
        return ""  # not a complete row
    found = identity.of_row(row)
    saved = row.get("identity")
    if isinstance(saved, dict) and (unknown := unknown_fields(saved)):
        return unknown
    if isinstance(saved, dict) and (differ := identity.varying([found, saved])):
        now, before = (shown(identity.value(one, differ[0])) for one in (found, saved))
        return f"edited: {differ[0]} is {now}, was {before}"
    known = not any(identity.UNKNOWN in str(found.get(name)) for name in ("images", *identity.FROM_FILES))
    own = key_of(found)
    if known and any(asked not in (None, own) for asked in (key, row.get("key"))):
        return f"edited, or of a version with other fields: its fields make the key {own}"
    return ""


def write(where: Path, row: dict[str, Any]) -> None:
    """Write the row atomically, and to the disk before this returns."""
    write_atomically(where / "row.json", json.dumps(row, indent=1) + "\n", lasting=True)


def set_aside(where: Path) -> Path:
    """Move a run's files to OUT/STUDY/replaced/KEY-TIME, which no table reads; its lock stays. Returns that
    folder.
    """
    target = where.parent / "replaced" / f"{where.name}-{time.strftime('%Y%m%dT%H%M%S')}"
    target.mkdir(parents=True)
    # The row first, so that the rest is not a finished run.
    for path in sorted(where.iterdir(), key=lambda p: p.name != "row.json"):
        if not path.name.startswith("lock."):
            os.replace(path, target / path.name)
    return target


def bring_back(aside: Path, where: Path) -> None:
    """Undo `set_aside`: the run that should replace this one could not begin."""
    # The row last, when all is there.
    for path in sorted(aside.iterdir(), key=lambda p: p.name == "row.json"):
        if (where / path.name).is_dir():
            shutil.rmtree(where / path.name)
        os.replace(path, where / path.name)
    aside.rmdir()


def keyed(run: Run) -> dict[str, Any]:
    """The fields that a checkpoint must share with the run that resumes from it."""
    return {name: value for name, value in asdict(run).items() if name not in run.NOT_IN_KEY}


def check_same_fields(
    saved: Mapping[str, Any], asked: Mapping[str, Any], where: str | Path, instead: str
) -> None:
    """Check that a row or checkpoint has the fields asked for.

    Args:
        saved: its fields.
        asked: the same fields of the run.
        where: its path.
        instead: what to type; {flags} in it becomes the flags of the saved values that differ.

    Raises:
        UserError: names each field that differs, saved and asked.
    """
    # A field added after saving had its default then.
    before = {name: saved.get(name, getattr(Run, name, None)) for name in asked}
    differ = [
        f"{name} ({before[name]!r} saved, {value!r} asked)"
        for name, value in asked.items()
        if before[name] != value
    ]
    if differ:
        flags = as_flags({name: before[name] for name, value in asked.items() if before[name] != value})
        raise UserError(
            f"{where} belongs to another run: {', '.join(differ)}; {instead.replace('{flags}', flags)}"
        )


def as_flags(values: Mapping[str, Any]) -> str:
    """Fields as typed on a command line, without those that are None: a zoo's network has no width."""
    said = {name: str(value).lower() if isinstance(value, bool) else value for name, value in values.items()}
    return " ".join(f"--{name} {value}" for name, value in said.items() if value is not None)


def versions() -> dict[str, str]:
    """Of Python and the packages that can change a result; W&B's, too, where it is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if name != "wandb":  # LiteRT's environment has none
                raise
    return found


def provenance(run: Run, trainer: Any) -> dict[str, Any]:
    """Key and identity, code, versions and machine."""
    own = run.identity()
    return {
        "key": key_of(own),
        "identity": own,
        "images_known_by": SETS[run.data].looked(run.data, run.data_dir)[1],
        "folder": naming.folder_name(run.data_dir),  # name of the images: not part of the key
        "git": git_commit(),
        "code": code.digest(),
        "versions": versions(),
        "machine": machine(),
        "device": device_name(trainer),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # AVX2, AVX512: sums are in another order
        **({"runs_per_device": shared} if (shared := cluster.sharing()) > 1 else {}),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def machine() -> str:
    """Processor and its total number of cores, for comparing times: the
    same in a job that may use only some.
    """
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            name = next(
                (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name
            )
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def device_name(trainer: Any) -> str:
    """The training device, by its maker's name."""
    root = trainer.strategy.root_device
    return torch.cuda.get_device_name(root) if root.type == "cuda" else root.type


def built(net: Any) -> dict[str, Any]:
    """Each harmonious block as built, as columns: lists in the order of the blocks, with their stages."""
    blocks = [b for b in getattr(net, "built", []) if b.block == "hb"]
    columns = {
        "stages": "stage",
        "depths": "depth",
        "concat_channels": "concat_channels",
        "residual_channels": "residual_channels",
        "out_channels": "cout",
    }
    return {column: [getattr(b, field) for b in blocks] for column, field in columns.items()}


def correct(outcomes: Mapping[str, Any]) -> str:
    """Which images were classified correctly, in the order of their index: one bit each, base64, for
    comparing two runs.
    """
    return base64.b64encode(np.packbits(outcomes["prediction"] == outcomes["label"]).tobytes()).decode()


def read_correct(path: Path) -> str:
    """`correct` of a saved outcomes.npz."""
    with np.load(path, allow_pickle=False) as outcomes:
        return correct(outcomes)


def main_metric(row: Mapping[str, Any]) -> str:
    """The main metric of a row's task."""
    return task_of(row).headline


def task_of(row: Mapping[str, Any]) -> Any:
    """The declarations of a row's task; classify if the row has none."""
    task = row.get("task")
    return TASKS[task if task in TASKS else "classify"]
