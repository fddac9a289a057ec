"""A finished run opened again: its row, its outcomes per image, and the data set that it reports on."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hbo.config import Run, resolve
from hbo.data import Data
from hbo.errors import DataError, UserError
from hbo.runs import rows
from hbo.tasks.build import open_data

TRAINED = {"detect": "detector", "reid": "re-identifier"}


class Opened(NamedTuple):
    """What a picture of a run is made from."""

    row: dict[str, Any]
    run: Run
    data: Data
    outcomes: dict[str, np.ndarray]
    """Of outcomes.npz: an entry an image, or a query."""


def opened(folder: Path, task: str, data_dir: str | None = None) -> Opened:
    """A run's row, data and outcomes.

    Args:
        folder: of the run.
        task: what it must have been trained for: detect or reid.
        data_dir: where its data lie now, if not where they lay.

    Raises:
        UserError: the folder holds no finished run of that task, or its data lie elsewhere now.
    """
    row = rows.read(folder)
    if not row or row.get("state") != "done" or row.get("task") != task:
        raise UserError(f"{folder}: no finished {TRAINED[task]}'s run; take a folder of one, OUT/STUDY/KEY")
    asked = {name: row[name] for name in Run.__dataclass_fields__ if name in row and name not in ("variant", "match_macs")}
    run = resolve(**asked | ({"data_dir": data_dir} if data_dir else {}))
    try:
        data = open_data(run, reported=True, known=row["classes"] if task == "detect" else None)
    except DataError as error:
        raise UserError(f"{error}; --data_dir says where it lies now") from None
    with np.load(folder / "outcomes.npz", allow_pickle=False) as saved:
        return Opened(row, run, data, {name: saved[name] for name in saved.files})
