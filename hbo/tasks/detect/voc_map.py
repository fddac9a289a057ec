"""Mean average precision as defined by PASCAL VOC's devkit, as a torchmetrics class
(exported by `hbo.metrics`).

Boxes are (x1, y1, x2, y2) in continuous coordinates: their area is (x2 - x1) * (y2
- y1), without adding a pixel.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchvision.ops import box_iou

from hbo.errors import UserError

FALSE, TRUE, IGNORED = 0, 1, -1  # outcome of a detection
SLACK = 1e-9  # tolerance of a recall level: 3 of 10 reaches 0.3
# The eleven recalls: `exact` fractions, or rounded as in `numpy`'s np.arange(0, 1.1, 0.1).
LEVELS = {"exact": np.arange(11) / 10 - SLACK, "numpy": np.arange(0.0, 1.1, 0.1)}


class Matched(NamedTuple):
    """Detections of one class in one image, in the order given."""

    outcome: np.ndarray  # (D,) FALSE, TRUE or IGNORED
    truth: np.ndarray  # (D,) the ground truth with the largest overlap, -1 if below the threshold


def match(boxes: Tensor, scores: Tensor, truth: Tensor, difficult: Tensor, threshold: float) -> Matched:
    """The devkit's rule: match each detection, highest score first, to the ground
    truth with the largest overlap.

    If the overlap reaches the threshold, the detection is true if that ground truth is still free, false if
    it is taken, ignored if it is difficult; below the threshold it is false. Equal scores keep their order;
    equal overlaps choose the first ground truth.

    Args:
        boxes: (D, 4), of the detections.
        scores: (D,).
        truth: (G, 4), of the ground truth.
        difficult: (G,).
        threshold: minimum intersection over union, compared with >=.
    """
    detections = len(scores)
    if not len(truth) or not detections:
        return Matched(np.full(detections, FALSE), np.full(detections, -1))
    overlap = np.nan_to_num(box_iou(boxes.double(), truth.double()).numpy())  # two boxes without area: 0 / 0
    best = overlap.argmax(1)
    reached = overlap[np.arange(detections), best] >= threshold
    hard = difficult.numpy().astype(bool)[best]
    outcome = np.where(reached & hard, IGNORED, FALSE)
    order = np.argsort(-scores.double().numpy(), kind="stable")
    taking = order[(reached & ~hard)[order]]
    _, first = np.unique(best[taking], return_index=True)  # the highest score of each ground truth
    outcome[taking[first]] = TRUE
    return Matched(outcome, np.where(reached, best, -1))


class VOCMeanAveragePrecision(Metric):
    """Mean over classes of the area under precision against recall.

    Detections that match a difficult ground truth are not on the curve; a class without a ground truth that
    counts is not in the mean, and NaN in `per_class`. Equal scores keep their order, rank by rank.

    Args:
        num_classes: labels are 0 to num_classes - 1; the background has no label.
        interpolation: "11point", the mean of the best precision at recalls of 0, 0.1, ..., 1 and more (VOC
            2007), or "area" under the monotone envelope of the curve (VOC 2010 and later).
            iou_threshold: minimum intersection over union of a match.
            levels: recalls of "11point". The devkit defines the precision at recall r as the best one "at a
            recall of r or more", for eleven equally spaced r: 3 objects of 10 have a recall of 0.3 and count
            at that level ("exact"). Widely used Python code compares with `np.arange(0, 1.1, 0.1)`, whose
            0.3, 0.6 and 0.7 are too large by the last bit, so that exactly these recalls miss their level;
            "numpy" reproduces that, for comparison with its figures.

    Raises:
        UserError: an argument out of range; in `update`, a label that is not a class, a value that is not
        finite, a box with swapped corners, or dicts that do not match each other.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    score: list[Tensor]  # (D,) of the detections that count, with their
    label: list[Tensor]  # classes, and
    true: list[Tensor]  # whether each is a true one
    positives: Tensor  # (num_classes,) ground truths that count

    def __init__(
        self,
        num_classes: int,
        interpolation: Literal["11point", "area"] = "11point",
        iou_threshold: float = 0.5,
        levels: Literal["exact", "numpy"] = "exact",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if interpolation not in ("11point", "area"):
            raise UserError(f"interpolation={interpolation!r}: choose from 11point, area")
        if levels not in LEVELS:
            raise UserError(f"levels={levels!r}: choose from {', '.join(LEVELS)}")
        if type(num_classes) is not int or num_classes < 1:
            raise UserError(f"num_classes={num_classes}: must be a whole number of at least 1")
        if not 0 < iou_threshold <= 1:
            raise UserError(f"iou_threshold={iou_threshold}: must be in (0, 1]")
        self.num_classes, self.interpolation, self.iou_threshold = num_classes, interpolation, iou_threshold
        self.levels: Literal["exact", "numpy"] = levels
        for name in ("score", "label", "true"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.add_state("positives", default=torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: list[dict[str, Tensor]], target: list[dict[str, Tensor]]) -> None:
        """Add a batch: one dict per image.

        Args:
            preds: `boxes` (D, 4), `scores` (D,), `labels` (D,).
            target: `boxes` (G, 4), `labels` (G,), and optionally `difficult` (G,).
        """
        if len(preds) != len(target):
            raise UserError(
                f"preds, target: {len(preds)} and {len(target)} images; each needs a dict in both"
            )
        for found, truth in zip(preds, target, strict=True):
            self._image(found, truth)

    def _image(self, found: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
        boxes, scores, labels = (found[name].detach().cpu() for name in ("boxes", "scores", "labels"))
        true_boxes, true_labels = truth["boxes"].cpu().reshape(-1, 4), truth["labels"].cpu()
        difficult = truth.get("difficult", torch.zeros(len(true_labels))).cpu().bool()
        boxes = boxes.reshape(-1, 4)
        if not len(boxes) == len(scores) == len(labels) or not len(true_boxes) == len(true_labels) == len(
            difficult
        ):
            raise UserError(
                "preds, target: boxes, scores, labels and difficult of an image must have the same length"
            )
        if scores.isnan().any():
            raise UserError(
                "preds: a score is not a number, so detections have no order; the network has diverged"
            )
        for name, given, corners in (("preds", labels, boxes), ("target", true_labels, true_boxes)):
            check_boxes(name, corners)
            # NaN is unequal to itself.
            if len(given) and given.is_floating_point() and not (given == given.round()).all():
                odd = float(given[given != given.round()][0])
                raise UserError(
                    f"{name}: label {odd:g}; must be a whole number from 0 to {self.num_classes - 1}"
                )
            if len(given) and not 0 <= int(given.min()) <= int(given.max()) < self.num_classes:
                odd = next(int(n) for n in given if not 0 <= n < self.num_classes)
                raise UserError(f"{name}: label {odd}; must be from 0 to {self.num_classes - 1}")
        counted = true_labels[~difficult].long()
        self.positives += torch.bincount(counted, minlength=self.num_classes).to(self.positives.device)
        outcome = torch.empty(len(labels), dtype=torch.long)
        for label in labels.unique():
            mine, theirs = labels == label, true_labels == label
            of_class = match(
                boxes[mine], scores[mine], true_boxes[theirs], difficult[theirs], self.iou_threshold
            )
            outcome[mine] = torch.from_numpy(of_class.outcome)
        counts = outcome != IGNORED
        self.score.append(scores[counts].to(self.device, self._float))
        self.label.append(labels[counts].to(self.device, torch.long))
        self.true.append(outcome[counts].to(self.device))

    @property
    def _float(self) -> torch.dtype:
        return torch.float32 if self.device.type == "mps" else torch.float64

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As in any metric; a process without images contributes empty columns of the right type."""
        for name, kind in (("score", self._float), ("label", torch.long), ("true", torch.long)):
            if not getattr(self, name):
                setattr(self, name, [torch.empty(0, dtype=kind, device=self.device)])
        super().sync(*args, **kwargs)

    def _wrap_compute(self, compute: Callable) -> Callable:
        """Torchmetrics turns a tensor with one element into a scalar; keep a list for a single class."""
        wrapped = super()._wrap_compute(compute)

        @wraps(compute)
        def whole(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
            value = wrapped(*args, **kwargs)
            return value | {"per_class": value["per_class"].reshape(self.num_classes)}

        return whole

    def compute(self) -> dict[str, Tensor]:
        """`map`, a fraction in [0, 1], NaN if no class counts; `per_class`, (num_classes,)."""
        columns = [
            dim_zero_cat(part).cpu().numpy() if len(part) else np.empty(0)
            for part in (self.score, self.label, self.true)
        ]
        score, label, true = columns
        order = np.argsort(-score, kind="stable")
        label, true = label[order], true[order]
        average = [
            average_precision(true[label == c], int(n), self.interpolation, self.levels) if n else np.nan
            for c, n in enumerate(self.positives.tolist())
        ]
        per_class = torch.tensor(average, dtype=self._float, device=self.device)
        return {"map": per_class.nanmean(), "per_class": per_class}


def check_boxes(name: str, boxes: Tensor) -> None:
    """Check boxes; a box without area is allowed.

    Raises:
        UserError: a corner that is not finite, or swapped corners.
    """
    if not boxes.isfinite().all():
        odd = boxes[~boxes.isfinite().all(1)][0].tolist()
        raise UserError(f"{name}: box {odd} has a corner that is not a finite number")
    if (boxes[:, 2:] < boxes[:, :2]).any():
        odd = boxes[(boxes[:, 2:] < boxes[:, :2]).any(1)][0].tolist()
        raise UserError(
            f"{name}: box {odd} has swapped corners; must be (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2"
        )


def average_precision(
    true: np.ndarray, positives: int, interpolation: str, levels: Literal["exact", "numpy"] = "exact"
) -> float:
    """Average precision of a class.

    Args:
        true: (D,) whether each detection is true, highest score first.
        positives: ground truths that count, at least one.
        interpolation: "11point" or "area".
        levels: of "11point", "exact" or "numpy".
    """
    hits = np.cumsum(true)
    recall, precision = hits / positives, hits / np.arange(1, len(true) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or more
    if interpolation == "area":
        return float(np.sum(np.diff(recall, prepend=0.0) * best))
    reached = np.searchsorted(recall, LEVELS[levels])  # the first point that reaches each level
    return float(np.append(best, 0.0)[reached].sum() / 11)
