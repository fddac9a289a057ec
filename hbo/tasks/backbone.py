"""A backbone from a study: `--backbone_checkpoint runs/table2` means that study's
classifier with the run's own network.

One value then serves every network and width of a sweep, here and in W&B.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hbo import files
from hbo.errors import UserError


def of_study(path: str, network: Mapping[str, Any], usual: Mapping[str, Any], seed: int) -> str:
    """The run's folder for a study's folder; any other path is returned unchanged.

    If the study has several finished classifiers of the network, the one with the run's seed.

    Args:
        path: OUT/STUDY, or any other value of `backbone_checkpoint`.
        network: the fields that define the network, with values.
        usual: their defaults, for rows older than a field.
        seed: of the run.

    Raises:
        UserError: the study has no finished classifier of the network, or several and none with this seed.
    """
    same = _of_network(path, network, usual)
    if same is None:
        return path
    chosen = _of_seed(same, seed)
    if len(chosen) > 1:
        raise UserError(
            f"backbone_checkpoint={path}: has {len(chosen)} finished classifiers of {_said(network)}, none"
            f" with seed {seed}; name one of {', '.join(sorted(chosen)[:3])}"
        )
    return next(iter(chosen))


def chosen_by_seed(
    path: str, network: Mapping[str, Any], usual: Mapping[str, Any], seed: int
) -> dict[str, Any] | None:
    """The identity, without its seed, of the classifier that `of_study` chooses by the run's seed from
    several; None for a file, for a single classifier, and for rows without an identity.

    Raises:
        UserError: as `of_study`.
    """
    same = _of_network(path, network, usual)
    if same is None or len(same) < 2 or len(chosen := _of_seed(same, seed)) != 1:
        return None
    own = next(iter(chosen.values())).get("identity")
    return {name: value for name, value in own.items() if name != "seed"} if isinstance(own, dict) else None


def _of_network(
    path: str, network: Mapping[str, Any], usual: Mapping[str, Any]
) -> dict[str, dict[str, Any]] | None:
    """Folders of a study's finished classifiers of the network -> their rows; None if the path is not
    a study's folder.

    Raises:
        UserError: there is none.
    """
    root = files.expanded(path, "backbone_checkpoint")
    if files.located(root).is_file() or not root.is_dir():
        return None
    found = files.looked_up(("classifiers", str(root)), lambda: _classifiers(root))
    same = {
        where: row
        for where, row in found.items()
        if all(row.get(n, usual[n]) == v for n, v in network.items())
    }
    if not same:
        differing = lambda row: [n for n, v in network.items() if row.get(n, usual[n]) != v]
        there = dict.fromkeys(_said(usual | row, differing(row)) for row in found.values())
        also = dict.fromkeys(name for row in found.values() for name in differing(row))
        raise UserError(
            f"backbone_checkpoint={path}: this folder has no last.ckpt, and no finished classifier of"
            f" {_said(network, also)} below it (found: {', '.join(there) or 'none of any network'}); "
            + ("add the flags of one of them, train one" if there else "train one first")
            + ", or name a run's folder or a file"
        )
    return same


def _of_seed(same: dict[str, dict[str, Any]], seed: int) -> dict[str, dict[str, Any]]:
    """Classifiers with the seed; all if none has it, or if there is only one."""
    if len(same) == 1:
        return same
    return {where: row for where, row in same.items() if row.get("seed", 0) == seed} or same


def _classifiers(root: Path) -> dict[str, dict[str, Any]]:
    """Folders of a study's finished classifiers -> their rows; files that are not rows are skipped."""
    found = {}
    for path in sorted(root.glob("*/row.json")):
        try:
            row = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(row, dict) and row.get("state") == "done" and row.get("task", "classify") == "classify":
            found[str(path.parent)] = row
    return found


def _said(network: Mapping[str, Any], also: Iterable[str] = ()) -> str:
    """Net and width, and the fields named, as NAME=VALUE."""
    names = dict.fromkeys(["net", "width", *also])
    return " ".join(f"{name}={network.get(name)}" for name in names if network.get(name) is not None)
