"""What a phone's own benchmark programs print, as rows: `benchmark_model` of LiteRT and
`executor_runner` of ExecuTorch.

The formats are those of their sources; no phone was at hand, so that nothing here was run on one.
"""

import re
from pathlib import Path
from typing import Any

from hbo.errors import UserError
from hbo.text import aligned

# Written by the script of --to android-bench.
BEGIN = re.compile(r"^# hbo: file=(\S+) runtime=(\S+) threads=(\d+)")
NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
LITERT = re.compile(rf"Inference timings in us: .*?Inference \(avg\): {NUMBER}")
EXECUTORCH = re.compile(rf"executed successfully(?: ([1-9]\d*) time\(s\))? in {NUMBER} ms")


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a log: file, runtime, threads, latency_ms; None if a program began but printed no timing.

    Raises:
        UserError: no such file, or one without a measurement.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise UserError(f"from={path}: {error.strerror}") from None
    rows: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    for line in text.splitlines():
        if begun := BEGIN.match(line):
            about = {"file": begun[1], "runtime": begun[2], "threads": int(begun[3])}
            rows.append({**about, "latency_ms": None})
            continue
        if timed := LITERT.search(line):
            row = {**_known(about, "litert"), "latency_ms": float(timed[1]) / 1000}
        elif timed := EXECUTORCH.search(line):
            row = {**_known(about, "executorch"), "latency_ms": float(timed[2]) / int(timed[1] or 1)}
        else:
            continue
        if rows and rows[-1]["latency_ms"] is None:
            rows.pop()  # of the program that has just printed
        rows.append(row)
    if all(row["latency_ms"] is None for row in rows):
        raise UserError(f"from={path}: holds no timing of benchmark_model or executor_runner")
    return rows


def _known(about: dict[str, Any], runtime: str) -> dict[str, Any]:
    return about or {"file": "", "runtime": runtime, "threads": None}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [("file", "runtime", "threads", "ms")]
    lines += [
        (
            row["file"],
            row["runtime"],
            str(row["threads"] or ""),
            "failed" if row["latency_ms"] is None else f"{row['latency_ms']:.2f}",
        )
        for row in rows
    ]
    return "\n".join(aligned(lines, right=(2, 3)))
