"""A finished run, reopened: its row, its outcomes per image, and its data set."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hbo import files
from hbo.config import Run, as_saved, resolve_saved
from hbo.data import Data
from hbo.errors import DataError, UserError
from hbo.runs import rows
from hbo.tasks.build import open_data

TRAINED = {"classify": "classifier", "detect": "detector", "reid": "re-identifier"}


class Opened(NamedTuple):
    """Row, data and outcomes of a run."""

    row: dict[str, Any]
    run: Run
    data: Data
    outcomes: dict[str, np.ndarray]
    """From outcomes.npz: one entry per image or query."""


def opened(folder: Path, task: str, data_dir: str | None = None) -> Opened:
    """A run's row, data and outcomes.

    Args:
        folder: the run's, or its key.
        task: the required task.
        data_dir: folder of its data, if it has moved.

    Raises:
        UserError: the folder has no finished run of that task, or its data have moved.
    """
    if (file := files.located(folder)).name == "last.ckpt":
        folder = file.parent
    row = rows.read(folder)
    if not row or row.get("state") != "done" or row.get("task") != task:
        raise UserError(
            f"{folder}: no finished run of a {TRAINED[task]}; give its key, or its folder OUT/STUDY/KEY"
        )
    asked = {name: value for name, value in as_saved(row).items() if name not in ("variant", "match_macs")}
    run = resolve_saved(**asked | ({"data_dir": data_dir} if data_dir else {}))
    try:
        data = open_data(run, reported=True, known=None if task == "reid" else row.get("classes"))
    except DataError as error:
        raise UserError(f"{error}; if it has moved, give --data_dir") from None
    with np.load(folder / "outcomes.npz", allow_pickle=False) as saved:
        return Opened(row, run, data, {name: saved[name] for name in saved.files})
