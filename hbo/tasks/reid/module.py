"""Re-identification: features learnt by classifying training identities, used to retrieve others (section
4.3, table 9).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from hbo.config import Run
from hbo.data import Data
from hbo.data.sampling import IdentityBatches, TrainBatches
from hbo.tasks.base import TaskModule
from hbo.tasks.reid import network
from hbo.tasks.reid.embedding import Feature
from hbo.tasks.reid.metrics import Rankings, summary
from hbo.tasks.reid.spec import REID

MARGIN = 0.3  # of the triplet loss


class Reid(TaskModule):
    """Training with cross-entropy over the identities; in evaluation, queries are ranked against the gallery.

    In the first `classifier_epochs` only the classifier (and the neck) is trained, on the features of the
    checkpoint's backbone, with its batch norm frozen.

    Args:
        run: see `TaskModule`, as for the last.
        num_classes: training identities.
        steps_per_epoch: for the schedule.
    """

    headline = REID.headline
    network = staticmethod(network.build)
    finite = ("train/loss", "val/map")

    def __init__(self, run: Run, num_classes: int, steps_per_epoch: int = 1) -> None:
        super().__init__(run, num_classes, steps_per_epoch)
        self.classifier = nn.Linear(self.embedding.channels, num_classes, bias=not run.bn_neck)
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        if not run.bn_neck:
            nn.init.zeros_(self.classifier.bias)
        self.outcomes = Rankings(run.distance, run.rerank)

    @property
    def backbone(self) -> nn.Module:
        return self.embedding.backbone

    @property
    def evaluated(self) -> nn.Module:
        return Feature(self.embedding, self.run.flip_features)

    @property
    def embedding(self) -> Any:
        """The network without its classifier."""
        return self.net

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """The feature before the neck."""
        return super().forward(images).float()

    def retrieved_by(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """The feature by which images are compared; with `flip_features`
        averaged with the mirrored image's.
        """
        return Feature(self.current, self.run.flip_features)(self.normalised(images))

    def train_batches(self, images: Any, **sampling: Any) -> TrainBatches:
        """P x K batches if `instances` is set."""
        if not self.run.instances:
            return super().train_batches(images, **sampling)
        return IdentityBatches(images.labels, self.run.batch, instances=self.run.instances, **sampling)

    def training_loss(self, batch: Any) -> tuple[Tensor, int]:
        images, labels, _ = batch
        warming, backbone = self.warming, self.embedding.backbone
        if backbone.training == warming:
            backbone.train(not warming)
        with torch.set_grad_enabled(not warming):
            feature = self(images)
        logits = self.classifier(self.embedding.neck(feature))
        loss = F.cross_entropy(logits, labels, label_smoothing=self.run.label_smoothing)
        if self.run.triplet:
            loss = loss + triplet(feature, labels)
        if warming:  # DDP, even with one process, waits for a gradient of every weight; see below
            loss = loss + 0 * sum(p.sum() for p in backbone.parameters())
        return loss, len(images)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.warming:
            for weight in self.embedding.backbone.parameters():
                weight.grad = None  # so that the optimizer skips it, weight decay and moments included

    def evaluate_batch(self, batch: Any) -> None:
        images, shown, index = batch
        identity, camera, query = shown.unbind(1)
        self.outcomes.update(self.retrieved_by(images), identity, camera, query.bool(), index)

    def metrics(self, final: bool = True) -> dict[str, float]:
        assert self.last_outcomes is not None
        return summary(self.last_outcomes)


def triplet(
    feature: Float[Tensor, "b d"], labels: Int[Tensor, " b"], margin: float = MARGIN
) -> Float[Tensor, ""]:
    """Batch-hard triplet loss (Hermans et al. 2017): each image against the farthest of its identity and the
    nearest of another.

    Mean over the images of max(0, farthest - nearest + margin), Euclidean distances.
    """
    # In half precision the difference would lose all digits.
    with torch.autocast(feature.device.type, enabled=False):
        feature = feature.float() if feature.dtype in (torch.bfloat16, torch.float16) else feature
        squares = feature.square().sum(1)
        distances = (squares[:, None] + squares - 2 * feature @ feature.T).clamp(min=1e-12).sqrt()
    same = labels[:, None] == labels
    farthest = distances.masked_fill(~same, -torch.inf).amax(1)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    return F.relu(farthest - nearest + margin).mean()


def make(run: Run, data: Data, steps_per_epoch: int, num_classes: int | None) -> Reid:
    """The module of a run; a trained one has its training identities, not those of the data set."""
    return Reid(run, num_classes or len(data.classes), steps_per_epoch)
