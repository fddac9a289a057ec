"""Object detection (section 4.2, table 8), declared."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hbo.tasks.detect import formats, layout
from hbo.tasks.spec import DataSet, Look, Task, percent, require

VOC = {  # table 8
    "task": "detect", "resolution": 320, "epochs": 560, "batch": 32, "lr": 1e-3, "weight_decay": 5e-4,
    "schedule": "step",
    "milestones": "360,480", "warmup": 5.0, "warmup_from": 1e-6, "anchors": "ssdlite",
    "matching": "bipartite",
}  # fmt: skip
DEVKIT, LAYOUT = ("VOC2007", "VOC2012"), ("Annotations", "JPEGImages")  # folders that show VOC's layouts


@dataclass(frozen=True)
class DetectFields:
    """Fields of detection."""

    head: Literal["separable", "full"] = "separable"
    """detect: convolutions that predict classes and boxes: depthwise-separable as in
    SSDLite (table 8), or full 3x3."""
    min_scale: float = 0.2
    """detect: side of the first map's anchors relative to the image's, in (0, 0.9); the largest are 0.95."""
    anchors: Literal["ssdlite", "torchvision"] = "torchvision"
    """detect: anchors of the first map: ssdlite, three per cell, a square of min_scale / 2 and two rectangles
    of min_scale, as in MobileNetV2's SSD (table 8; the default of every detection data set); torchvision, six
    as on the other maps."""
    strides: Literal["16,32", "8,16,32", "4,8,16,32"] = "16,32"
    """detect: strides of the maps that SSD uses; a finer first map finds smaller objects, and costs more."""
    matching: Literal["argmax", "bipartite"] = "argmax"
    """detect: objects with the same best anchor: bipartite, each gets an anchor of its own, as
    in SSD's code (the default of every detection data set); argmax, the last object gets it
    and the others may have none."""
    ssd_augment: bool = True
    """detect: SSD's zoom-out, IoU crop and photometric distortion in training; false: the whole image. For
    flips see --flip."""


def check(run: Any) -> None:
    """Check the fields of detection.

    Raises:
        UserError: naming the field.
    """
    require(run, "eval_resize", run.eval_resize in (None, run.resolution), "detection uses the whole image")
    require(
        run, "compile", not run.compile, "not supported for detection, which reads feature maps with hooks"
    )
    require(
        run,
        "val_split",
        not run.val_split or run.data != "voc",
        "PASCAL VOC is already split; remove --val_split",
    )
    require(run, "min_scale", 0 < run.min_scale < 0.9, "must be in (0, 0.9)")
    fresh = run.freeze_bn and run.backbone_checkpoint is None
    require(
        run,
        "freeze_bn",
        not fresh,
        "needs --backbone_checkpoint: fresh batch norm has no statistics to keep",
    )


def meant(root: Path) -> str:
    """The data set of a folder: voc for its devkit or a part of it, and if there is no folder yet."""
    if not root.is_dir() or any((root / name).exists() for name in ("VOCdevkit", *DEVKIT)):
        return "voc"
    return "vocfolder" if all((root / name).is_dir() for name in LAYOUT) else "detectfolder"


def recipe(own: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A warm-up that would last as long as the given epochs, or longer, takes a fifth of them instead."""
    epochs = given.get("epochs")
    return own | {"warmup": _fifth(epochs)} if epochs is not None and 0 < epochs <= own["warmup"] else own


def advice(run: Any) -> str:
    """A note if `recipe` made the warm-up shorter."""
    if run.epochs > VOC["warmup"] or run.warmup != _fifth(run.epochs):
        return ""
    return (
        f"warmup={run.warmup:g}: a fifth of --epochs {run.epochs}, as the recipe's {VOC['warmup']:g} would"
        " fill it; --warmup overrides it"
    )


def _fifth(epochs: int) -> float:
    return round(0.2 * epochs, 3)


def report(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Three mean average precisions, and each class's average precision."""
    lines = [
        ("mAP, 11 points", percent(row, "map")),
        ("mAP, area", percent(row, "map_area")),
        ("mAP, COCO", percent(row, "coco_map")),
    ]
    return lines + [
        (f"AP {name}", percent(row, f"ap_{name}")) for name in row["classes"] if f"ap_{name}" in row
    ]


def _look_at_voc(root: Path | None) -> Look:
    assert root is not None
    return layout.look(layout.devkit(root), layout.PUBLISHED_LISTS)


def _look_at_folder(root: Path | None, only: str | None = None) -> Look:
    assert root is not None
    return formats.opened(root, only).look()


DETECT = Task(
    fields=DetectFields,
    idle=frozenset(["cache", "label_smoothing", "classifier_epochs"]),
    sets={
        "voc": DataSet(
            VOC,
            images=(16551, 4952),
            classes=20,
            look=_look_at_voc,
            marks=DEVKIT,
            title="PASCAL VOC",
        ),
        "vocfolder": DataSet(
            VOC,
            look=partial(_look_at_folder, only="VOC"),
            count=partial(formats.count, only="VOC"),
            marks=LAYOUT,
        ),
        "detectfolder": DataSet(VOC, look=_look_at_folder, count=formats.count, holds="images with boxes"),
    },
    headline="map",
    picture="detections",
    columns={"map": "mAP", "voc07_map": "mAP", "map_area": "mAP (area)", "coco_map": "mAP (COCO)"},
    report=report,
    paper_classes=20,
    meant=meant,
    recipe=recipe,
    advice=advice,
    check=check,
)
