"""Rivals measured in turns, so that a machine that slows down slows all of them, and their table.

A figure on its own says little; compare its ratio to the baseline's of the same turn.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing
from tqdm import tqdm

from hbo.runs import rows
from hbo.text import aligned


def processes(on_gpu: bool) -> Any:
    """How the processes of a bench start: forks of one that has imported the packages once; on a GPU each
    starts afresh, as CUDA does not survive a fork.
    """
    if on_gpu:
        return torch.multiprocessing.get_context("spawn")
    context: Any = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytorch_lightning", "torchvision"])
    return context


def take_turns(rivals: dict[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    """What each rival's call returns (a rate or a time), one per turn; a first turn warms up and does not
    count.
    """
    found: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in tqdm(range(turns + 1), desc="turns", leave=False):
        for name, measure in rivals.items():
            value = measure()
            if turn:
                found[name].append(value)
    return found


def ratios(found: dict[str, list[float]], base: str) -> dict[str, list[float]]:
    """Each rival's values over the baseline's, turn by turn."""
    return {name: [a / b for a, b in zip(values, found[base], strict=True)] for name, values in found.items()}


def where() -> dict[str, Any]:
    """The machine, the versions and the code, for the JSON file."""
    return {
        "machine": rows.machine(),
        "instructions": instructions(),
        "torch": torch.__version__,
        "git": rows.git_commit(),
    }


def instructions() -> str:
    """The vector instructions that PyTorch uses, and whether the processor has those for 8 bits (VNNI)."""
    has = getattr(torch.cpu, "get_capabilities", dict)()  # of newer versions
    vnni = has.get("avx512_vnni") or has.get("avx_vnni")
    return torch.backends.cpu.get_cpu_capability() + " with VNNI" * bool(vnni)


def spread(values: list[float], digits: int) -> tuple[str, str]:
    """Median and range, in two columns."""
    return f"{statistics.median(values):.{digits}f}", f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def table(
    unit: str,
    found: dict[str, list[float]],
    base: str,
    digits: int = 1,
    beside: dict[str, dict[str, str]] | None = None,
) -> str:
    """One rival per line: median and range of what was measured and of its ratio to the baseline, and the
    columns of `beside`.
    """
    columns = beside or {}
    lines = [("", unit, "range", "ratio", "range", *columns)]
    for name, values in ratios(found, base).items():
        cells = (column.get(name, "") for column in columns.values())
        lines.append((name, *spread(found[name], digits), *spread(values, 2), *cells))
    return "\n".join(aligned(lines, right=(1, 3, *range(5, 5 + len(columns)))))
