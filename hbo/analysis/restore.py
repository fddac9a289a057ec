"""Write a table's rows back as runs, so that a study can continue from its CSV alone.

python -m hbo.analysis.results contraction --restore runs      # ablations/contraction.csv -> runs/contraction
"""

from pathlib import Path
from typing import Any

import pandas as pd

from hbo import files
from hbo.analysis import frozen, sources
from hbo.analysis.csv_rows import to_csv
from hbo.errors import UserError
from hbo.runs import rows


def restore(source: str, study: str, out: Path) -> tuple[int, int]:
    """Write a study's finished rows as OUT/STUDY/KEY/row.json, with their curves, and its frozen plan.

    A sweep and `hbo.fit` count such a run as done. It has no weights, and commands that need them say so.

    Args:
        source: as for `results.load`.
        study: its name.
        out: a folder of runs.

    Returns:
        The numbers of rows that were written and that existed.

    Raises:
        UserError: no finished rows of that study; or the folder has one of the runs unfinished or with
            another result, or another plan of the study. Then nothing is written.
    """
    found = [(row, curve) for row, curve in sources.read(source, (study,)) if row["state"] == "done"]
    if not found:
        raise UserError(f"{source}: contains no finished rows of {study}")
    path = files.expanded(source)
    csv = path / f"{study}.csv" if path.is_dir() and (path / f"{study}.csv").exists() else path
    plan, target = frozen.read(csv, study), out / study / f"{frozen.NAME}.json"
    there = frozen.read(out, study)
    if plan is not None and there is not None and there.hash != plan.hash:
        raise UserError(f"{target}: differs from the plan of {source}; remove the one that was not followed")
    new = [(out / study / row["key"], row, curve) for row, curve in found if _is_new(out, study, row, source)]
    for folder, row, curve in new:
        folder.mkdir(parents=True, exist_ok=True)
        if curve:
            files.write_atomically(folder / "metrics.csv", to_csv(pd.DataFrame(curve)))
        rows.write(folder, {name: value for name, value in row.items() if value is not None})
    if plan is not None and there is None:
        files.write_atomically(target, plan.text())
    return len(new), len(found) - len(new)


def _is_new(out: Path, study: str, row: dict[str, Any], source: str) -> bool:
    if Path(row["key"]).name != row["key"]:
        raise UserError(f"{source}: key {row['key']!r}: must be the name of a folder")
    folder, metric = out / study / row["key"], rows.main_metric(row)
    there = rows.read(folder)
    if (folder / "last.ckpt").exists() and (there is None or there["state"] != "done"):
        # With the row these weights would look like a finished run's.
        raise UserError(f"{folder}: this run is unfinished here; finish it, or remove the folder")
    if there is not None and there["state"] == "done" and there.get(metric) != row[metric]:
        raise UserError(
            f"{folder}: its {metric} is {there.get(metric)}, and {row[metric]} in {source}; remove one of the"
            " two"
        )
    return there is None or there["state"] != "done"
