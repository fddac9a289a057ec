"""Latencies measured by `python -m hbo.bench infer --studies STUDY ...`, joined to rows.

Deployed in ONNX Runtime, one image, one thread. Only times of the same measurement can be compared.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from hbo.analysis import results
from hbo.config import Run, resolve

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
    """Rows with `latency_ms`, if the folder has a latency.csv with their networks."""
    path = folder / FILE
    if not path.exists() or "num_classes" not in table:
        return table
    known = {_name(line): line["latency_ms"] for line in results.read_csv(path)}
    classifiers = (line if line["task"] == "classify" else None for line in table.to_dict("records"))
    return table.assign(
        latency_ms=[known.get(_name(line), float("nan")) if line else float("nan") for line in classifiers]
    )


def _name(line: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        str(float(v) if isinstance(v, int) and not isinstance(v, bool) else v) for v in (line[n] for n in NET)
    )
