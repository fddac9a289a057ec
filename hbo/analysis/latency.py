"""Latencies measured by `python -m hbo.bench infer --studies STUDY ...`, joined to rows.

Deployed in ONNX Runtime, one image, one thread. Only times of the same measurement can be compared.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from hbo.analysis import results
from hbo.block import Block
from hbo.config import Run, resolve
from hbo.errors import UserError

# Only classifiers; parts that other tasks add are not measured.
NET = [
    *Run.BACKBONE,
    "resolution",
    "num_classes",
]
FILE = "latency.csv"


def run_of(network: dict[str, Any]) -> Run:
    """A run with a row's network; `network` has the fields `NET`."""
    given = {name: network[name] for name in NET if name != "num_classes" and not pd.isna(network[name])}
    given |= {name: int(given[name]) for name in ("k", "kernel", "resolution", "divisor") if name in given}
    return resolve(data="imagenet", **given)


def join(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Rows with `latency_ms`, if the folder has a latency.csv with their networks.

    Raises:
        UserError: it lacks a column that every file has.
    """
    path = folder / FILE
    if not path.exists() or "num_classes" not in table:
        return table
    known = measured(path)
    classifiers = (line if line["task"] == "classify" else None for line in table.to_dict("records"))
    return table.assign(
        latency_ms=[known.get(name_of(line), float("nan")) if line else float("nan") for line in classifiers]
    )


def measured(path: Path) -> dict[tuple[str, ...], float]:
    """Milliseconds of each network of a latency.csv. A switch added after the measurement had its default
    then.

    Raises:
        UserError: it lacks a column that every file has.
    """
    lines = [asdict(Block()) | line for line in results.read_csv(path)]
    if missing := [name for name in (*NET, "latency_ms") if any(name not in line for line in lines)]:
        raise UserError(f"{path}: has no column {missing[0]}; measure it again, or move it away")
    return {name_of(line): line["latency_ms"] for line in lines}


def name_of(line: dict[str, Any]) -> tuple[str, ...]:
    """A network's fields, the same from a row and from a latency.csv."""
    return tuple(
        str(float(v) if isinstance(v, int) and not isinstance(v, bool) else v) for v in (line[n] for n in NET)
    )
