"""Image classification (section 4.1, tables 2-7)."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hbo.config import Run
from hbo.data import Data
from hbo.data.augment import Augment, Raw, unpack
from hbo.runs import rows
from hbo.tasks import SETS
from hbo.tasks.base import TaskModule
from hbo.tasks.classify import layout, network
from hbo.tasks.classify.data import random_part
from hbo.tasks.classify.metrics import Outcomes, classification
from hbo.tasks.classify.spec import CLASSIFY


class Classify(TaskModule):
    """SGD on cross-entropy.

    Args:
        run: see `TaskModule`, as for the next two.
        num_classes: outputs.
        steps_per_epoch: for the schedule.
        class_weights: weight of each class in the training loss, by mean 1 over the images; None weighs all alike.
        classes: their names, in the order of the outputs.
    """

    class_weights: Tensor | None
    headline = CLASSIFY.headline
    network = staticmethod(network.build)

    def __init__(
        self,
        run: Run,
        num_classes: int,
        steps_per_epoch: int = 1,
        class_weights: list[float] | None = None,
        classes: list[str] | None = None,
    ) -> None:
        super().__init__(run, num_classes, steps_per_epoch)
        self.classes = classes
        self.register_buffer("class_weights", torch.tensor(class_weights) if class_weights else None, persistent=False)
        self.augment = Augment(random_part(run, train=True))  # of batches that the loader leaves to the device
        self.outcomes = Outcomes(num_classes)

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Logits."""
        return super().forward(images)

    def loss(self, logits: Float[Tensor, "b classes"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Mean over images of the weighted, smoothed cross-entropy; a sum over images, so that devices can share it."""
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.run.label_smoothing)
        if self.class_weights is not None:
            losses = losses * self.class_weights[labels]
        return losses.mean()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, *rest = batch
        return unpack(images, self.augment) if isinstance(images, Raw) else images, *rest

    def training_loss(self, batch: Any) -> tuple[Tensor, int]:
        images, labels, _ = batch
        return self.loss(self(images), labels), len(labels)

    def evaluate_batch(self, batch: Any) -> None:
        images, labels, index = batch
        self.outcomes.update(self(images), labels, index)

    def metrics(self, final: bool = True) -> dict[str, float]:
        assert self.last_outcomes is not None
        return classification(self.last_outcomes, self.num_classes)

    def columns(self) -> dict[str, Any]:
        assert self.last_outcomes is not None
        right = rows.correct({name: values.numpy() for name, values in self.last_outcomes.items()})
        return {"correct": right} | ({"classes": list(self.classes)} if self.classes else {})


def make(run: Run, data: Data, steps_per_epoch: int, num_classes: int | None) -> Classify:
    """The module of a run on its data.

    Raises:
        DataError: a folder of one class, to be trained on.
    """
    if data.train is not None and SETS[run.data].by_folder:
        layout.check_two(SETS[run.data].root(run.data, run.data_dir), data.classes)
    weights = data.class_weights() if run.class_weights == "balanced" and data.train is not None else None
    return Classify(run, num_classes or len(data.classes), steps_per_epoch, weights, data.classes)
