"""A run is one row: OUT/STUDY/KEY/row.json. Tables are built from rows alone."""

import base64
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hbo import files
from hbo.config import Run, checked, key_of, to_yaml
from hbo.errors import UserError, first_line, flat
from hbo.files import write_atomically
from hbo.runs import identity, naming
from hbo.runs.lock import Lock
from hbo.tasks import COLUMNS, SETS, TASKS
from hbo.tasks.spec import percent
from hbo.values import field_types, shown

STATES = ("done", "unfinished", "interrupted", "failed", "stopped")
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "wandb", "numpy", "pillow")


def folder(run: Run, key: str | None = None) -> Path:
    """Where the run lives; a key that is known saves looking at its images again."""
    return files.expanded(run.out) / run.study / (key or run.key())


def read(where: Path) -> dict[str, Any] | None:
    """The row of a run's folder, if it has one.

    Raises:
        UserError: the file is no row, or one that was edited.
    """
    path, row = where / "row.json", None
    if not path.exists():
        return None
    try:
        row = json.loads(path.read_text())
        reason = problem(row, where.name)
    except (OSError, ValueError, RecursionError) as error:  # cut short, binary, a folder
        reason = first_line(error)
    if reason:
        raise UserError(f"{path}: not a row ({reason}); remove it to run again")
    return row


def sound(where: Path) -> dict[str, Any] | None:
    """The row of a folder that one looks at among others: None, and a warning that names it, where it is none."""
    try:
        return read(where)
    except UserError as error:
        pass_over(error)
        return None


_passed_over: set[str] = set()


def pass_over(reason: object) -> None:
    """Say once that a file is passed over, and why."""
    said = flat(f"warning: {reason}")
    if said not in _passed_over:
        _passed_over.add(said)
        print(said, file=sys.stderr)


def problem(row: Any, key: str | None = None) -> str:
    """Why this is no row of a run; nothing where it is one.

    Args:
        row: as read from a row.json or a line of a CSV file.
        key: that it must have; None where nothing says.
    """
    if not isinstance(row, dict) or row.get("state") not in STATES:
        return f"its state is none of {', '.join(STATES)}"
    kinds = field_types(Run)
    try:
        for name in kinds.keys() & row.keys():
            if row[name] is not None:
                checked(name, row[name])
    except UserError as error:
        return str(error)
    if row["state"] != "done":
        return ""
    numbers = {main_metric(row): row.get(main_metric(row), 0.0)} | ({} if key is None else {"seconds": row.get("seconds")})
    for name in ("seconds", *COLUMNS, "macs", "params", "images_per_second", "activation_bytes", "elementwise"):
        if row.get(name) is not None:
            numbers[name] = row[name]
    for name, value in numbers.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return f"{name}={shown(value)}: must be a number"
    return _edited(row, key)


def _edited(row: Mapping[str, Any], key: str | None) -> str:
    """What tells that the fields of a finished row are not those that it was trained with: its key follows from them."""
    if "git" not in row or row.get("net") is None:
        return ""  # no whole row
    found = identity.of_row(row)
    saved = row.get("identity")
    if isinstance(saved, dict) and (differ := identity.varying([found, saved])):
        return (
            f"edited: {differ[0]} is {shown(identity.value(found, differ[0]))}, was {shown(identity.value(saved, differ[0]))}"
        )
    known = not any(identity.UNKNOWN in str(found.get(name)) for name in ("images", "backbone"))
    own = key_of(found)
    if known and any(asked not in (None, own) for asked in (key, row.get("key"))):
        return f"edited: its fields make the key {own}"
    return ""


def write(where: Path, row: dict[str, Any]) -> None:
    """Write the row, whole or not at all."""
    write_atomically(where / "row.json", json.dumps(row, indent=1) + "\n")


def finished_in_other_study(run: Run) -> Path | None:
    """Where another study has the run's key finished."""
    for path in sorted(files.expanded(run.out).glob(f"*/{run.key()}/row.json")):
        if path.parent.parent.name != run.study and (sound(path.parent) or {}).get("state") == "done":
            return path.parent
    return None


def reuse(run: Run, source: Path) -> dict[str, Any]:
    """Take a finished run of another study over into this one: the same files, and a row that says where it comes from.

    Raises:
        UserError: the row's fields are not those asked for; or another process has the run.
    """
    found = read(source) or {}
    check_same_fields(found, keyed(run), source / "row.json", instead="--force runs it again")
    where = folder(run)
    lock = Lock(where).acquire()
    try:
        for path in source.iterdir():
            if path.suffix in (".csv", ".npz", ".ckpt"):
                part = where / f"{path.name}.part"
                part.unlink(missing_ok=True)
                try:
                    os.link(path, part)  # files are replaced, never written into, so that both may have the one
                except OSError:
                    shutil.copyfile(path, part)
                os.replace(part, where / path.name)
        write_atomically(where / "config.yaml", to_yaml(run))
        own = {name: getattr(run, name) for name in ("out", "study", "data_dir", "match_macs", "variant")}
        own["folder"] = naming.folder_name(run.data_dir)
        row = found | own | {"identity": run.identity(), "reused_from": source.parent.name}
        write(where, row)
    finally:
        lock.release()
    return row


def set_aside(where: Path) -> None:
    """Move a run's files out of the way, to OUT/STUDY/replaced/KEY-TIME, where no table looks; its lock stays."""
    target = where.parent / "replaced" / f"{where.name}-{time.strftime('%Y%m%dT%H%M%S')}"
    target.mkdir(parents=True)
    for path in sorted(where.iterdir(), key=lambda p: p.name != "row.json"):  # the row first: what is left is no finished run
        if not path.name.startswith("lock."):
            os.replace(path, target / path.name)


def keyed(run: Run) -> dict[str, Any]:
    """The fields that a checkpoint must share with the run that takes it up."""
    return {name: value for name, value in asdict(run).items() if name not in run.NOT_IN_KEY}


def check_same_fields(saved: Mapping[str, Any], asked: Mapping[str, Any], where: str | Path, instead: str) -> None:
    """Refuse a row or checkpoint whose fields are not those asked for; `instead` says what to type.

    Raises:
        UserError: naming each field that differs, saved and asked.
    """
    # A field that is newer than what was saved was at its default then.
    before = {name: saved.get(name, getattr(Run, name, None)) for name in asked}
    differ = [f"{name} ({before[name]!r} saved, {value!r} asked)" for name, value in asked.items() if before[name] != value]
    if differ:
        raise UserError(f"{where} is of another run: {', '.join(differ)}; {instead}")


def provenance(run: Run, trainer: Any) -> dict[str, Any]:
    """Key and identity, code, versions and machine."""
    own = run.identity()
    return {
        "key": key_of(own),
        "identity": own,
        "images_known_by": SETS[run.data].looked(run.data, run.data_dir)[1],
        "folder": naming.folder_name(run.data_dir),  # what the images are called: not part of the key
        "git": git_commit(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "machine": machine(),
        "device": device_name(trainer),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def git_commit() -> str | None:
    """The commit of this code, with a plus where it has been changed since.

    None outside a checkout, and where the repository around it does not have this file, such as another project's with hbo
    in its environment.
    """
    package = Path(__file__).parents[1]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # a hook's name its own
    run = lambda *args: subprocess.run(
        ["git", "-C", str(package), *args], capture_output=True, text=True, check=True, env=outer
    ).stdout.strip()
    try:
        run("ls-files", "--error-unmatch", "--", Path(__file__).relative_to(package))
        return run("rev-parse", "--short=12", "HEAD") + "+" * bool(run("status", "--porcelain", "--", "."))
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> str:
    """Processor and all its cores, by which times are compared: the same inside of a job that may use some of them."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def device_name(trainer: Any) -> str:
    """The device that trained, as its maker names it."""
    root = trainer.strategy.root_device
    return torch.cuda.get_device_name(root) if root.type == "cuda" else root.type


def built(net: Any) -> dict[str, Any]:
    """What each harmonious block really got, as columns: lists in the order of the blocks, with the stage of each."""
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
    """Which images were classified rightly, in the order of their index: base64 of a bit each, to compare two runs by."""
    return base64.b64encode(np.packbits(outcomes["prediction"] == outcomes["label"]).tobytes()).decode()


def read_correct(path: Path) -> str:
    """`correct` of a saved outcomes.npz."""
    with np.load(path, allow_pickle=False) as outcomes:
        return correct(outcomes)


def label(net: str, k: int, depths: list[int]) -> str:
    """The network for people to read, with its k where it has a block that contracts."""
    return f"{net} k={k}" if depths else net


def main_metric(row: Mapping[str, Any]) -> str:
    """The metric that tells most of a row's task. A row without a task is a classifier's."""
    task = row.get("task")
    return TASKS[task if task in TASKS else "classify"].headline


def headline(row: dict[str, Any]) -> str:
    """A finished row's main result in a few words."""
    name = main_metric(row)
    return f"{COLUMNS[name]} {percent(row, name)}" if name in row else ""


def stopped(row: Mapping[str, Any], where: Path) -> str:
    """What to say of a run that was stopped in W&B, and how it goes on all the same.

    Args:
        row: with state stopped.
        where: the run's folder.
    """
    return f"{where.name} was stopped in W&B at update {row.get('stopped_at', '?')}, and is not started again by a sweep; python -m hbo.fit --config {where / 'config.yaml'} goes on from there"


def summary(row: dict[str, Any], where: Path) -> str:
    """The few lines that a run ends with.

    Raises:
        UserError: the row lacks what they say.
    """
    try:
        return _summary(row, where)
    except (KeyError, TypeError) as error:
        raise UserError(f"{where / 'row.json'}: a finished row without {error}; --force runs it again") from None


def _summary(row: dict[str, Any], where: Path) -> str:
    lines = TASKS[row.get("task", "classify")].report(row)
    if row.get("left_out_boxes") or row.get("clipped_boxes"):
        lines.append(("faulty boxes", f"{row['left_out_boxes']} left out, {row['clipped_boxes']} clipped; named in the row"))
    if row.get("classifier_epochs"):
        lines.append(("classifier alone", f"{row['classifier_epochs']} epochs in advance"))
    if row.get("backbone_weights"):
        lines.append(("backbone's weights", row["backbone_weights"]))
    lines += [
        (
            "multiply-adds",
            f"{row['macs'] / 1e6:.1f} M at {row['resolution']} x {round(row['resolution'] / row.get('aspect', 1))}",
        ),
        ("parameters", f"{row['params'] / 1e6:.3f} M"),
        ("training", f"{row['images_per_second']:.0f} images/s" if row.get("images_per_second") else "-"),
        ("seconds", f"{row['seconds']:.0f}"),
        ("row", str(where / "row.json")),
    ]
    data = naming.data_name(identity.of_row(row), row.get("folder"))
    head = f"{label(row['net'], row['k'], row['depths'])} width={row['width']} on {data} ({row['val_images_seen']} images), epoch {row['epochs']}, seed {row['seed']}"
    return "\n".join([head, *(f"  {name:<18} {value}" for name, value in lines)])
