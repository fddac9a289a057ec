"""Display names of data sets and networks, used in titles, columns, axes and pages.

Names that users type (fields, arms, studies) are not changed.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hbo.runs import identity
from hbo.runs.identity import Identity
from hbo.tasks import SETS

# `images` of an identity -> data set, for the folders whose runs are in ablations/
# (`hbo.tasks.spec.BEFORE`).
KNOWN = {"0184971aab": "CIFAR-10", "b52f060a84": "BCCD", "8274bdc54a": "COIL-20"}
# Folder names that do not identify a data set: the parent's name is used.
GENERIC = {
    "data",
    "dataset",
    "datasets",
    "images",
    "img",
    "imgs",
    "set",
    "train",
    "training",
    "trainval",
    "val",
    "valid",
    "test",
}
NETS = {  # the paper's names, and names for networks that it does not have
    "hbonet": "HBONet",
    "hbonet_ir": "HBONet-IR",
    "mobilenetv2": "MobileNetV2",
    "mobilenetv2_hbo": "MobileNetV2-HBO",
    "mobilenet": "MobileNet",
    "fd-mobilenet": "FD-MobileNet",
    "pelee": "Pelee",
    "resnet50": "ResNet-50",
    "torchvision:resnet50": "ResNet-50",
    "torchvision:shufflenet_v2_x1_5": "ShuffleNetV2",
    "pytorchcv:mobilenet_w3d4": "MobileNetV1",
    "pytorchcv:condensenet74_c8_g8": "CondenseNet",
    "pytorchcv:shufflenet_g3_w3d2": "ShuffleNetV1",
    "pytorchcv:igcv3_w1": "IGCV3-D",
}
_NET = re.compile(
    rf"(?<![\w:=./-])({'|'.join(sorted(map(re.escape, NETS), key=len, reverse=True))})(?![\w:=/-])"
)


def with_net_names(text: str) -> str:
    """`hbonet k=1` as printed in a paper: `HBONet k=1`."""
    return _NET.sub(lambda found: NETS[found[1]], text)


def folder_name(path: str | None) -> str | None:
    """Name of a run's data folder on this machine; None without a folder."""
    return None if path is None else last_name(os.path.abspath(os.path.expanduser(path)))


def last_name(path: str) -> str | None:
    """The last meaningful part of a path: `birds` in photos/birds/train."""
    parts = [part for part in Path(path).parts if part not in (os.sep, ".", "~")]
    return next(
        (part for part in reversed(parts) if part.lower() not in GENERIC), parts[-1] if parts else None
    )


def data_name(one: Identity, folder: Any = None) -> str:
    """The data set of an identity: `CIFAR-10`, the name of its folder, else the value of `--data`.

    Args:
        one: a run's identity; a published data set has no `images` in it.
        folder: the row's column `folder`, None or NaN if missing.
    """
    data, images = identity.value(one, "data"), one.get("images")
    title = SETS[data].title if data in SETS else ""
    if images is None:
        return title or data
    if images in KNOWN:
        return KNOWN[images]
    return folder if isinstance(folder, str) and folder else f"part of {title}" if title else data


def data_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same for each row of a table: one name for the same images,
    different names for different images.
    """
    every = [identity.of_row(row) for row in rows]
    names: dict[tuple[Any, Any], str] = {}
    for one, row in zip(every, rows, strict=True):
        names.setdefault(_images(one), data_name(one, row.get("folder")))
    called = list(names.values())
    apart = {
        key: f"{name} ({key[1]})" if called.count(name) > 1 and key[1] else name
        for key, name in names.items()
    }
    return [apart[_images(one)] for one in every]


def _images(one: Identity) -> tuple[Any, Any]:
    return identity.value(one, "data"), one.get("images")
