"""From photographs to boxes, in COCO's format."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms import v2

from hbo import files
from hbo.config import Run
from hbo.data.preprocess import Preprocess
from hbo.errors import UserError
from hbo.tasks.detect.draw import LIKELY
from hbo.tasks.detect.module import Detect


def preprocess(run: Run) -> Preprocess:
    """The whole photograph resized to R x R, whatever its shape, as in evaluation."""
    return Preprocess(v2.Resize((run.resolution, run.resolution), antialias=True), of_tensors=True)


class Predictions:
    """The boxes of each photograph, in its own pixels.

    Args:
        task: a trained detector.
        score: minimum score of a box, in [0, 1].
    """

    suffix = ".json"

    def __init__(self, task: Detect, score: float = LIKELY) -> None:
        self.task, self.score, self.classes = task, score, list(task.classes)
        self.images: list[dict[str, Any]] = []
        self.boxes: list[dict[str, Any]] = []

    def add(
        self, paths: Sequence[str], sizes: Sequence[tuple[int, int]], pixels: UInt8[Tensor, "b 3 h w"]
    ) -> list[str]:
        """Add a batch; returns one line per box, highest score first: class, score and corners."""
        logits, offsets = self.task(pixels)
        if not (logits.isfinite().all() and offsets.isfinite().all()):
            raise UserError(f"{paths[0]}: the network's outputs are not finite; use another checkpoint")
        lines = []
        for path, (width, height), found in zip(
            paths, sizes, self.task.detector.detections(logits, offsets), strict=True
        ):
            number = len(self.images) + 1
            self.images.append({"id": number, "file_name": path, "width": width, "height": height})
            scale = torch.tensor([width, height] * 2) / self.task.run.resolution
            likely = found["scores"] >= self.score
            boxes = (found["boxes"][likely].cpu() * scale).tolist()
            labels, scores = (found[name][likely].tolist() for name in ("labels", "scores"))
            for label, score, (x1, y1, x2, y2) in zip(labels, scores, boxes, strict=True):
                self.boxes.append(
                    {
                        "id": len(self.boxes) + 1,
                        "image_id": number,
                        "category_id": label + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                        "score": score,
                    }
                )
                lines.append(
                    f"{path}  {self.classes[label]} {score:.3f}  {x1:.1f} {y1:.1f} {x2:.1f} {y2:.1f}"
                )
            if not boxes:
                lines.append(f"{path}  no box of at least {self.score:g}")
        return lines

    def save(self, path: Path) -> None:
        """COCO's JSON: images, categories (from 1), and annotations with x, y, width,
        height in pixels and score.
        """
        categories = [{"id": place, "name": name} for place, name in enumerate(self.classes, start=1)]
        held = {"images": self.images, "categories": categories, "annotations": self.boxes}
        files.write_atomically(path, json.dumps(held))

    def summary(self) -> str:
        """Number of boxes of each class."""
        counts = Counter(self.classes[box["category_id"] - 1] for box in self.boxes).most_common()
        told = ", ".join(f"{name} {n}" for name, n in counts) or "none"
        return f"{len(self.images)} photographs, boxes of at least {self.score:g}: {told}"
