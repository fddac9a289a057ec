"""A run that another study has finished or is training: its row is reused, so a key is trained once."""

import os
import shutil
from pathlib import Path
from typing import Any

from hbo import files
from hbo.config import Run, to_yaml
from hbo.files import write_atomically
from hbo.runs import deployed, naming, rows
from hbo.runs import lock as locks
from hbo.runs.lock import Lock


def finished(run: Run) -> Path | None:
    """The folder of another study with a finished run of this key."""
    for path in sorted(files.expanded(run.out).glob(f"*/{run.key()}/row.json")):
        if path.parent.parent.name != run.study and (rows.sound(path.parent) or {}).get("state") == "done":
            return path.parent
    return None


def held(run: Run) -> Path | None:
    """Where another study is training the run's key: a living process holds its lock there."""
    own = rows.folder(run)
    for other in sorted({path.parent for path in files.expanded(run.out).glob(f"*/{own.name}/lock.*")}):
        if other.parent.name != run.study and (locks.read(other) or {}).get("alive"):
            return other
    return None


def reuse(run: Run, source: Path) -> dict[str, Any]:
    """Reuse another study's finished run in this one: the same files, and a row that names the source.

    Raises:
        UserError: the row's fields are not those asked for; or another process holds the run.
    """
    found = rows.read(source) or {}
    rows.check_same_fields(found, rows.keyed(run), source / "row.json", instead="--force repeats it")
    where = rows.folder(run)
    lock = Lock(where).acquire()
    try:
        for path in source.iterdir():
            if path.suffix in (".csv", ".npz", ".ckpt") or path.name == deployed.FILE:
                part = where / f"{path.name}.part"
                part.unlink(missing_ok=True)
                try:
                    os.link(path, part)  # files are replaced, never modified, so that both can share one
                except OSError:
                    shutil.copyfile(path, part)
                os.replace(part, where / path.name)
        write_atomically(where / "config.yaml", to_yaml(run))
        own = {
            name: getattr(run, name)
            for name in ("out", "study", "data_dir", "match_macs", "variant", "recipe")
        }
        own["folder"] = naming.folder_name(run.data_dir)
        if "backbone_arm" in found or run.backbone_arm():
            own["backbone_arm"] = run.backbone_arm()
        row = found | own | {"identity": run.identity(), "reused_from": source.parent.name}
        rows.write(where, row)
    finally:
        lock.release()
    return row
