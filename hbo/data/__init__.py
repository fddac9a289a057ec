"""What all data sets share: order, sources, transforms, the cache, loading ahead."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Data:
    """A set, ready to be loaded: training and reported images, the names of the
    classes, and what a row says of it.
    """

    # Images, Boxes (detect) or Sightings (reid); None if only the evaluated images were asked for
    train: Any
    val: Any
    classes: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    """Warnings for whoever opens it, one per line."""

    @property
    def majority(self) -> float:
        """Share of the largest class among the validation images: the accuracy of always predicting it."""
        return max(Counter(self.val.labels).values()) / len(self.val)

    def class_weights(self) -> list[float]:
        """Weights that let each class count the same in the training loss; their mean over the images is 1.

        A class without images (a part of a set, or the held-out share) weighs 0.
        """
        counter = Counter(self.train.labels)
        counts = [counter[label] for label in range(len(self.classes))]
        present = sum(count > 0 for count in counts)
        return [len(self.train) / (present * count) if count else 0.0 for count in counts]
