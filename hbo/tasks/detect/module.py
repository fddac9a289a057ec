"""Object detection: SSD on the network's feature maps (section 4.2, table 8)."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from hbo.config import Run
from hbo.data import Data
from hbo.tasks.base import TaskModule
from hbo.tasks.detect import network
from hbo.tasks.detect.metrics import Detections, detection
from hbo.tasks.detect.spec import DETECT


class Detect(TaskModule):
    """Training on SSD's losses; detections per image in evaluation.

    Args:
        run: see `TaskModule`, as for the last.
        classes: class names.
        steps_per_epoch: for the schedule.
    """

    headline = DETECT.headline
    network = staticmethod(network.build)

    def __init__(self, run: Run, classes: list[str], steps_per_epoch: int = 1) -> None:
        super().__init__(run, len(classes), steps_per_epoch)
        self.classes = classes
        self.outcomes = Detections()
        self.detector: Any = self.net
        if run.freeze_bn:
            for layer in self._frozen():
                layer.requires_grad_(False)

    @property
    def backbone(self) -> nn.Module:
        return self.detector.net

    def _frozen(self) -> list[nn.Module]:
        return [m for m in self.detector.net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def on_train_start(self) -> None:  # Lightning restores each module's mode after an evaluation
        if self.run.freeze_bn:
            for layer in self._frozen():
                layer.eval()

    def forward(
        self, images: UInt8[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b a classes"], Float[Tensor, "b a 4"]]:
        """Logits, the background first, and offsets from the anchors."""
        return super().forward(images)

    def training_loss(self, batch: Any) -> tuple[Tensor, int]:
        images, targets, _ = batch
        loss, matched = self.detector.loss(*self(images), targets)
        if self.trainer.world_size > 1:  # average over the matches of all devices, as on one
            mine = max(matched, 1)
            total = torch.tensor(matched, device=self.device)
            torch.distributed.all_reduce(total)
            loss = loss * (mine * self.trainer.world_size / max(int(total), 1))
        return loss, len(images)

    def evaluate_batch(self, batch: Any) -> None:
        images, targets, index = batch
        logits, offsets = self(images)
        # As in training.
        counted = [{name: values[~t["difficult"]] for name, values in t.items()} for t in targets]
        losses = [
            self.detector.loss(logits[i : i + 1], offsets[i : i + 1], [t]) for i, t in enumerate(counted)
        ]
        self.outcomes.update(self.detector.detections(logits, offsets), targets, index, losses)

    def metrics(self, final: bool = True) -> dict[str, float]:
        assert self.last_outcomes is not None
        return detection(self.last_outcomes, self.classes, coco=final)

    def columns(self) -> dict[str, Any]:
        return {"classes": list(self.classes)}


def make(run: Run, data: Data, steps_per_epoch: int, num_classes: int | None) -> Detect:
    """The module of a run and its data set, whose classes it has."""
    return Detect(run, data.classes, steps_per_epoch)
