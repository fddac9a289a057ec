"""Images that a network may have been trained on: a split is drawn anew once its folder has changed."""

import filecmp
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hbo.config import Run
from hbo.files import expanded
from hbo.runs import rows


def outside_val(run: Run, names: Sequence[str] | None, path: Path) -> int | None:
    """How many images of a drawn split (`val_split`, `holdout`) were not among the validation images of the
    run that trained a checkpoint; None if the split is not drawn, if the run does not say, or if its images
    are others.

    Args:
        run: the run that is evaluated or trained.
        names: the images it is evaluated on, as in `outcomes.npz`.
        path: the checkpoint. The names of its validation images are in `outcomes.npz` beside it.
    """
    if not (run.val_split or run.holdout) or not names or path.name != "last.ckpt":
        return None
    row = rows.sound(path.parent)
    if row is None or row.get("val_images") != row.get(
        "val_images_seen"
    ):  # unfinished, or with limit_batches
        return None
    try:
        with np.load(path.parent / "outcomes.npz", allow_pickle=False) as saved:
            known = set(saved["name"].tolist())
    except (OSError, ValueError, KeyError):  # removed, damaged, or of a set without files
        return None
    if not _same_images(run, row, names, known):
        return None
    return sum(name not in known for name in names)


def _same_images(run: Run, row: dict[str, Any], names: Sequence[str], known: set[str]) -> bool:
    """Whether a run's folder is a row's, or holds photographs of it: one of the images `names` has the same
    bytes under the same name there; if the row's folder is gone, one has the name of an image `known`.
    """
    if None in (run.data_dir, row.get("data_dir")):
        return False
    here, there = (_root(path) for path in (str(run.data_dir), str(row["data_dir"])))
    if here == there:
        return True
    if not there.is_dir():
        return bool(known & set(names))
    pairs = [(here / name, there / name) for name in names]
    return any(filecmp.cmp(*pair, shallow=False) for pair in pairs if pair[0].is_file() and pair[1].is_file())


def _root(path: str) -> Path:
    """The folder that names are relative to: the set's, or the one of its list."""
    whole = expanded(path).resolve()
    return whole.parent if whole.is_file() else whole
