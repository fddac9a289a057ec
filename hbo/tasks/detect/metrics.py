"""Detections and ground truth of each image, and the metrics of a data set; fractions in [0, 1]."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from hbo.tasks.detect.voc_map import VOCMeanAveragePrecision


class Detections(Metric):
    """Detections and ground truth of each image: columns per image, per detection and per true object.

    `compute()` raises if an image was counted twice, as a padded distributed evaluation would do.
    """

    # Per image: its loss summed over anchors, and the number of matched anchors.
    IMAGES = (
        "index",
        "loss",
        "matched",
    )
    FOUND = ("image", "box", "score", "label")
    TRUTH = ("true_image", "true_box", "true_label", "difficult")
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in self.IMAGES + self.FOUND + self.TRUTH:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        found: list[dict[str, Tensor]],
        target: list[dict[str, Tensor]],
        index: Int[Tensor, " b"],
        losses: list[tuple[Tensor, int]],
    ) -> None:
        """Add a batch: detections and ground truth, one dict per image; each image's mean
        loss and its number of anchors.
        """
        for image, (has, truth, (loss, matched)) in enumerate(zip(found, target, losses, strict=True)):
            of = index[image : image + 1]
            columns = {
                "index": of,
                "loss": loss.reshape(1) * matched,
                "matched": torch.full_like(of, matched),
            }
            columns |= {"image": of.expand(len(has["scores"])), "true_image": of.expand(len(truth["labels"]))}
            columns |= {"box": has["boxes"], "score": has["scores"], "label": has["labels"]}
            columns |= {
                "true_box": truth["boxes"],
                "true_label": truth["labels"],
                "difficult": truth["difficult"],
            }
            for name, values in columns.items():
                getattr(self, name).append(values)

    def compute(self) -> dict[str, Tensor]:
        """All columns, in the order of the images; on the CPU."""
        columns = {
            name: dim_zero_cat(getattr(self, name)).cpu() for name in self.IMAGES + self.FOUND + self.TRUTH
        }
        if len(columns["index"].unique()) != len(columns["index"]):
            raise RuntimeError("an image was counted twice in the evaluation")
        for names in (self.IMAGES, self.FOUND, self.TRUTH):
            order = columns[names[0]].argsort(stable=True)
            columns |= {name: columns[name][order] for name in names}
        return columns


def by_image(outcomes: dict[str, Tensor]) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Detections and ground truth in the metrics' form, one dict per image."""
    parts = []
    for names in (Detections.FOUND, Detections.TRUTH):
        counts = (
            outcomes[names[0]]
            .bincount(minlength=int(outcomes["index"].max()) + 1)[outcomes["index"]]
            .tolist()
        )
        parts += [outcomes[name].split(counts) for name in names[1:]]
    boxes, scores, labels, true_boxes, true_labels, difficult = parts
    preds = [{"boxes": b, "scores": s, "labels": n} for b, s, n in zip(boxes, scores, labels, strict=True)]
    truth = zip(true_boxes, true_labels, difficult, strict=True)
    return preds, [{"boxes": b, "labels": n, "difficult": d} for b, n, d in truth]


def detection(outcomes: dict[str, Tensor], classes: list[str], coco: bool = True) -> dict[str, float]:
    """Metrics of a data set from the outcomes of its images.

    Returns:
        loss (SSD's, over all matched anchors); map (VOC 2007's, 11 points, IoU 0.5) and each
        class's ap_CLASS; map_area (VOC 2010's). With `coco` also coco_map (mean over overlaps of 0.5 to
        0.95) and coco_map50, in which difficult objects are crowds: ignored, found or not. All are NaN if
        the network's outputs are not finite.
    """
    preds, target = by_image(outcomes)
    metrics = {"loss": float(outcomes["loss"].double().sum() / outcomes["matched"].sum().clamp(min=1))}
    if not (
        math.isfinite(metrics["loss"])
        and outcomes["box"].isfinite().all()
        and outcomes["score"].isfinite().all()
    ):
        names = ["loss", "map", "map_area", *(["coco_map", "coco_map50"] if coco else [])]
        return dict.fromkeys(names, math.nan)
    kinds: list[tuple[str, Literal["11point", "area"]]] = [("map", "11point"), ("map_area", "area")]
    for name, interpolation in kinds:
        voc = VOCMeanAveragePrecision(len(classes), interpolation, sync_on_compute=False)
        voc.update(preds, target)
        found = voc.compute()
        metrics[name] = float(found["map"])
        if name == "map":
            averages = zip(classes, found["per_class"].tolist(), strict=True)
            # NaN: no object to find.
            metrics |= {f"ap_{c}": average for c, average in averages if average == average}
    if coco:
        from torchmetrics.detection import MeanAveragePrecision

        whole = MeanAveragePrecision(sync_on_compute=False)
        whole.warn_on_many_detections = False  # 200 per image, of which COCO uses the best 100
        whole.update(preds, [{**t, "iscrowd": t["difficult"].long()} for t in target])
        found = whole.compute()
        for name, value in (("coco_map", float(found["map"])), ("coco_map50", float(found["map_50"]))):
            metrics[name] = value if value >= 0 else math.nan  # -1: no object to find
    return metrics
