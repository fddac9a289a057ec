"""Data sets. One file a family; `open_data(run)` finds the one that `--data` names."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hbo.config import Run
from hbo.data.images import folder, imagenette
from hbo.data.stacks import stacked
from hbo.errors import DataError


@dataclass(frozen=True)
class Data:
    """A set, ready to be loaded: training and reported images, the names of the classes, and what a row says of it."""

    train: Any  # Images, or Boxes to detect, or Sightings to re-identify
    val: Any
    classes: list[str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def majority(self) -> float:
        """Share of the reported part's largest class: the accuracy of always saying that."""
        return max(Counter(self.val.labels).values()) / len(self.val)

    def class_weights(self) -> list[float]:
        """Weights that let each class count the same in the training loss; their mean over the images is 1.

        A class without images (a part of a set, or the held-out share) weighs 0.
        """
        counter = Counter(self.train.labels)
        counts = [counter[label] for label in range(len(self.classes))]
        present = sum(count > 0 for count in counts)
        return [len(self.train) / (present * count) if count else 0.0 for count in counts]


def open_data(run: Run) -> Data:
    """The data set of a run, checked as far as can be known before training.

    Raises:
        DataError: a missing folder, an empty class, a class in val that train lacks, a file that is no image, too few
            images for a batch; names the path and says what to do.
    """
    if run.data == "imagenet":
        data = folder(run, classes=1000)
    elif run.data == "imagefolder":
        data = folder(run)
    elif run.data == "imagenette":
        data = imagenette(run)
    elif run.data in ("voc", "vocfolder"):
        from hbo.data.voc import opened

        data = opened(run)
    elif run.task == "reid":
        from hbo.data.market import opened

        data = opened(run)
    else:
        data = stacked(run)
    train, val, classes, *more = data
    facts: dict[str, Any] = more[0] if more else data[0].upsampled()  # pyright: ignore[reportAttributeAccessIssue]
    if len(train) < run.batch:
        raise DataError(
            f"batch={run.batch}: more than the {len(train)} training images of {run.data}; take --batch {len(train) // 2}"
        )
    return Data(train, val, classes, facts)
