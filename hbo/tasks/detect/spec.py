"""Object detection (section 4.2, table 8), declared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hbo.tasks.detect import layout
from hbo.tasks.spec import DataSet, Look, Task, percent, require

VOC = {  # table 8
    "task": "detect", "resolution": 320, "epochs": 560, "batch": 32, "lr": 1e-3, "weight_decay": 5e-4, "schedule": "step",
    "milestones": "360,480", "warmup": 5.0, "warmup_from": 1e-6,
}  # fmt: skip


@dataclass(frozen=True)
class DetectFields:
    """What detection alone obeys."""

    head: Literal["separable", "full"] = "separable"
    """detect: the convolutions that predict classes and boxes: depthwise-separable as in SSDLite (table 8), or full 3x3."""
    min_scale: float = 0.2
    """detect: side of the smallest anchors, over the image's; the largest ones are 0.95. In (0, 0.9)."""
    ssd_augment: bool = True
    """detect: SSD's zoom-out, IoU crop and photometric distortion in training; false: the whole image. Flips are --flip."""
    freeze_bn: bool = False
    """detect: keep the backbone's batch norm as the checkpoint has it."""


def check(run: Any) -> None:
    """Refuse values that no detection can obey.

    Raises:
        UserError: naming the field.
    """
    require(run, "eval_resize", run.eval_resize in (None, run.resolution), "detection takes the whole image")
    require(run, "compile", not run.compile, "not for detection, whose feature maps are taken by hooks")
    require(run, "min_scale", 0 < run.min_scale < 0.9, "must lie in (0, 0.9)")
    fresh = run.freeze_bn and run.backbone_checkpoint is None
    require(run, "freeze_bn", not fresh, "needs a --backbone_checkpoint: fresh batch norm has no statistics to keep")


def report(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Three mean average precisions, and each class's own."""
    lines = [
        ("mAP, 11 points", percent(row, "map")),
        ("mAP, area", percent(row, "map_area")),
        ("mAP, COCO", percent(row, "coco_map")),
    ]
    return lines + [(f"AP {name}", percent(row, f"ap_{name}")) for name in row["classes"] if f"ap_{name}" in row]


def _look_at_voc(root: Path | None) -> Look:
    assert root is not None
    return layout.look(layout.devkit(root), layout.PUBLISHED_LISTS)


def _look_at_folder(root: Path | None) -> Look:
    assert root is not None
    return layout.look(layout.one_folder(root))


DETECT = Task(
    fields=DetectFields,
    idle=frozenset(["cache", "label_smoothing"]),
    sets={
        "voc": DataSet(
            VOC, images=(16551, 4952), classes=20, look=_look_at_voc, marks=("VOC2007", "VOC2012"), title="PASCAL VOC"
        ),
        "vocfolder": DataSet(VOC, look=_look_at_folder, count=layout.count, marks=("Annotations", "JPEGImages")),
    },
    headline="map",
    columns={"map": "mAP", "voc07_map": "mAP", "map_area": "mAP (area)", "coco_map": "mAP (COCO)"},
    report=report,
    paper_classes=20,
    check=check,
)
