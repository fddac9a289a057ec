"""The command that gives a row: what one types to run it again."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hbo.config import Run, resolve
from hbo.errors import UserError
from hbo.runs import identity
from hbo.tasks import SETS

ALSO = ("devices", "num_nodes", "cache", "cache_size")  # in no key by themselves; what they make together is


def command(row: Mapping[str, Any]) -> str:
    """`python -m hbo.fit ...` with no flag too many; DIR and FILE stand for where its images and its checkpoint lie.

    Args:
        row: of `results.load`, finished.
    """
    wanted = {f.name: identity.typed(f.name, row.get(f.name, getattr(Run, f.name))) for f in fields(Run)}
    if identity.of_row(row).get("cached_side") is None:
        wanted |= {"cache": Run.cache, "cache_size": None}  # it changed no pixel
    flags = _flags(wanted)
    one = SETS.get(wanted["data"])
    flags |= {"data_dir": "DIR"} if one is not None and one.takes_folder else {}
    flags |= {"backbone_checkpoint": "FILE"} if wanted["backbone_checkpoint"] else {}
    return " ".join(["python -m hbo.fit", *(f"--{name} {_shown(value)}" for name, value in flags.items())])


def _flags(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that make a run with these fields, as far as they count; others follow from those that are given."""
    names = [name for name in wanted if name not in Run.NOT_IN_KEY or name in ALSO]
    given = {"backbone_checkpoint": wanted["backbone_checkpoint"]}

    def missed(flags: dict[str, Any]) -> list[str]:
        try:
            run = resolve(**{**given, **flags})
        except UserError:  # they make no run without the others
            return [name for name in names if name not in flags and wanted[name] != getattr(Run, name)] or ["?"]
        return [name for name in names if getattr(run, name) != wanted[name]]

    flags = {} if wanted["data"] == Run.data else {"data": wanted["data"]}
    while lacking := [name for name in missed(flags) if name in wanted and name not in flags]:
        flags[lacking[0]] = wanted[lacking[0]]
    for name in list(flags):
        fewer = {other: value for other, value in flags.items() if other != name}
        flags = flags if missed(fewer) else fewer
    return flags


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return shlex.quote(f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value))
