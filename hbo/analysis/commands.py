"""The command that reproduces a row."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hbo.config import Run, resolve_saved
from hbo.errors import UserError
from hbo.runs import identity
from hbo.tasks import SETS
from hbo.tasks.classify.recipes import SAYS

# The key contains their effect, not the fields themselves.
ALSO = (
    "devices",
    "num_nodes",
    "cache",
    "cache_size",
    "weights",
)


def command(row: Mapping[str, Any]) -> str:
    """`python -m hbo.fit ...` with the fewest flags; DIR, FILE and TEACHER stand for the
    places of images and checkpoints.

    Args:
        row: a finished row of `results.load`.
    """
    wanted = {f.name: identity.typed(f.name, row.get(f.name, getattr(Run, f.name))) for f in fields(Run)}
    if identity.of_row(row).get("cached_side") is None:
        wanted |= {"cache": Run.cache, "cache_size": None}  # the cache changed no pixel
    flags = _flags(wanted)
    one = SETS.get(wanted["data"])
    flags |= {"data_dir": "DIR"} if one is not None and one.takes_folder else {}
    flags |= {"backbone_checkpoint": "FILE"} if wanted["backbone_checkpoint"] else {}
    flags |= (
        {"distill": wanted["distill"] if ":" in wanted["distill"] else "TEACHER"} if wanted["distill"] else {}
    )
    return " ".join(["python -m hbo.fit", *(f"--{name} {_shown(value)}" for name, value in flags.items())])


def _flags(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a run with these fields; values that follow from other flags are omitted."""
    names = [name for name in wanted if name not in Run.NOT_IN_KEY or name in ALSO]
    given = {name: wanted[name] for name in ("backbone_checkpoint", "distill")}

    def missed(flags: dict[str, Any]) -> list[str]:
        try:
            run = resolve_saved(**{**given, **flags})
        except UserError:  # not a valid run without the other fields
            return [name for name in names if name not in flags and wanted[name] != getattr(Run, name)] or [
                "?"
            ]
        return [name for name in names if getattr(run, name) != wanted[name]]

    flags = {name: wanted[name] for name in ("data", "recipe") if wanted[name] != getattr(Run, name)}
    while lacking := [name for name in missed(flags) if name in wanted and name not in flags]:
        flags[lacking[0]] = wanted[lacking[0]]
    for name in list(flags):
        fewer = {other: value for other, value in flags.items() if other != name}
        flags = flags if missed(fewer) else fewer
    # A small folder has its own recipe, which these flags together replace.
    if wanted["data"] == "imagefolder":
        flags |= {name: wanted[name] for name in SAYS}
    return flags


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return shlex.quote(
        f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
    )
