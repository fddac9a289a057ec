"""From photographs to classes and their probabilities."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from hbo import files
from hbo.config import Run
from hbo.data.preprocess import Preprocess
from hbo.errors import UserError
from hbo.tasks import SETS
from hbo.tasks.classify.data import fixed_part
from hbo.tasks.classify.module import Classify

IMAGENET = 1000  # classes of a released network, in torchvision's order


def preprocess(run: Run) -> Preprocess:
    """The centre of the photograph, as in evaluation."""
    return Preprocess(fixed_part(run, train=False), of_tensors=SETS[run.data].load is not None)


def named(classes: list[str] | None, num_classes: int) -> list[str]:
    """Class names: the checkpoint's; ImageNet's for a released network with 1000 classes; else numbers."""
    if classes:
        return classes
    if num_classes == IMAGENET:
        from torchvision.models import ResNet18_Weights

        return list(ResNet18_Weights.DEFAULT.meta["categories"])
    return [str(i) for i in range(num_classes)]


class Predictions:
    """The most likely classes of each photograph.

    Args:
        task: a trained classifier.
        top: number of classes for each, at least 1.
    """

    suffix = ".csv"

    def __init__(self, task: Classify, top: int = 5) -> None:
        self.task, self.classes = task, named(task.classes, task.num_classes)
        self.top = min(top, len(self.classes))
        self.rows: list[tuple[str, list[tuple[str, float]]]] = []

    def add(
        self, paths: Sequence[str], sizes: Sequence[tuple[int, int]], pixels: UInt8[Tensor, "b 3 h w"]
    ) -> list[str]:
        """Add a batch; returns one line per photograph, most likely class first."""
        probabilities = self.task(pixels).float().softmax(1)
        if not probabilities.isfinite().all():
            raise UserError(f"{paths[0]}: the network's outputs are not finite; use another checkpoint")
        values, places = (found.cpu().tolist() for found in probabilities.topk(self.top, dim=1))
        lines = []
        for path, own, which in zip(paths, values, places, strict=True):
            likely = [(self.classes[place], value) for place, value in zip(which, own, strict=True)]
            self.rows.append((path, likely))
            lines.append(f"{path}  " + "  ".join(f"{name} {100 * value:.1f} %" for name, value in likely))
        return lines

    def save(self, path: Path) -> None:
        """CSV: path, class, probability, then class_2, probability_2 and so on; probabilities in [0, 1]."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        after = [f"{name}_{place}" for place in range(2, self.top + 1) for name in ("class", "probability")]
        writer.writerow(["path", "class", "probability", *after])
        for file, likely in self.rows:
            writer.writerow([file, *(part for name, value in likely for part in (name, f"{value:.6g}"))])
        files.write_atomically(path, text.getvalue())

    def summary(self) -> str:
        """Number of photographs of each class, largest first."""
        counts = Counter(likely[0][0] for _, likely in self.rows).most_common()
        more = f" and {len(counts) - 10} more classes" if len(counts) > 10 else ""
        return f"{len(self.rows)} photographs: " + ", ".join(f"{name}: {n}" for name, n in counts[:10]) + more
