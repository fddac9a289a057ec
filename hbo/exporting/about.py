"""The metadata that a file needs to be used: classes, input, preprocessing, key, metrics, licence; no paths
of this machine.
"""

import json
from dataclasses import asdict, fields
from typing import Any

from hbo import config
from hbo.data.preprocess import MEAN, STD
from hbo.fields import Machine
from hbo.runs import rows
from hbo.runs.checkpoint import Trained
from hbo.tasks import COLUMNS, SETS

# Fields with paths, and those of the machine, which do not affect the weights.
ELSEWHERE = {"data_dir", "cache_dir", "backbone_checkpoint", "distill", *(f.name for f in fields(Machine))}
CODE = "MIT"


def facts(trained: Trained) -> dict[str, Any]:
    """Name -> value, for JSON; the same for every runtime.

    How it was trained, on what, and its metrics come from the checkpoint and its row, not from flags of the
    export; at another input size than the row's there are no metrics or multiply-adds.
    """
    run, row = trained.run, _row(trained)
    saved = trained.content.get("hyper_parameters", {}) if trained.ours else {}
    was = {name: saved.get(name, value) for name, value in asdict(run).items()}
    same = all(was[name] == getattr(run, name) for name in ("resolution", "eval_resize"))
    return {
        "network": config.describe_net(run),
        "classes": trained.classes or trained.num_classes,
        "input": {"name": "image", "shape": ["batch", 3, run.resolution, run.resolution], "type": "float32"},
        "resize": run.eval_resize or run.resolution,
        "preprocess": preprocess(run),
        "mean": MEAN,
        "std": STD,
        "key": row.get("key"),
        "metrics": {name: row[name] for name in COLUMNS if same and isinstance(row.get(name), (int, float))},
        "metrics_on": {
            "data": was["data"],
            "part": "holdout" if was["holdout"] else "val",
            "images": row.get("val_images_seen", row.get("val_images")),
        },
        "macs": row.get("macs") if same else None,
        "run": {
            name: value for name, value in was.items() if name not in ELSEWHERE and not _is_one(name, value)
        },
        "licence": licence(was["data"]),
    }


def _is_one(name: str, value: Any) -> bool:
    """Whether it is the usual number of devices or nodes, one, which says nothing about a file."""
    return name in ("devices", "num_nodes") and value == 1


def preprocess(run: config.Run) -> list[str]:
    """From a photograph to the input, one step per line."""
    side = run.eval_resize or run.resolution
    how = "bilinear on the tensor" if SETS[run.data].load is not None else "bilinear (PIL)"
    return [
        "turn as EXIF says, RGB, 8 bits",
        f"resize the short side to {side}, {how}, antialiased",
        f"crop the middle {run.resolution} x {run.resolution}",
        "(pixel / 255 - mean) / std, channels first",
    ]


def licence(data: str) -> dict[str, str]:
    """Licences of the code, and of the images that the weights were trained on."""
    return {"code": CODE, "images": SETS[data].licence or "not known here"}


def as_text(found: dict[str, Any]) -> dict[str, str]:
    """Name -> JSON, for a file's metadata."""
    return {name: json.dumps(value) for name, value in found.items()}


def _row(trained: Trained) -> dict[str, Any]:
    """The row next to a run's checkpoint; empty for a released one."""
    return (rows.sound(trained.path.parent) or {}) if trained.ours else {}
