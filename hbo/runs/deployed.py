"""Measurements of a finished run's deployed files: OUT/STUDY/KEY/deployed.json, next to the row, which does
not change. Every reader of the row gets these columns with it.

    int8_top1_RUNTIME         of the int8 file on the validation images, a fraction
    latency_ms_RUNTIME        of the float file, one image, one thread, the median over turns
    latency_ms_RUNTIME_int8   of the int8 file
    latency_measured          when and where: times of one measurement can be compared with each other alone
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from hbo import files

FILE = "deployed.json"
TOP1, LATENCY, INT8, MEASURED = "int8_top1_", "latency_ms_", "_int8", "latency_measured"


def read(folder: Path) -> dict[str, float | str]:
    """Column -> value; empty where nothing was measured.

    Raises:
        OSError, ValueError: the file cannot be read, or holds something else.
    """
    path = folder / FILE
    found = json.loads(path.read_text()) if path.exists() else {}
    if not isinstance(found, dict):
        raise ValueError("holds no object")
    for name, value in found.items():
        known = name == MEASURED and isinstance(value, str)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        if not known and not (name.startswith((TOP1, LATENCY)) and number):
            raise ValueError(f"{name} is {value!r}")
    return found


def add(folder: Path, found: Mapping[str, float | str]) -> None:
    """Add these columns; a file that cannot be read is replaced, with a warning."""
    try:
        before = read(folder)
    except (OSError, ValueError) as error:
        print(f"warning: {folder / FILE}: {error}; replaced", file=sys.stderr)
        before = {}
    files.write_atomically(folder / FILE, json.dumps(before | dict(found), indent=1) + "\n")


def runtimes(columns: Mapping[str, object] | list[str], start: str) -> list[str]:
    """The runtimes that columns with this prefix name, in order."""
    names = [name.removeprefix(start).removesuffix(INT8) for name in columns if name.startswith(start)]
    return list(dict.fromkeys(names))
