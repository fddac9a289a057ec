"""Outcome of each image, and the metrics of a data set; fractions in [0, 1]."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import classification as F
from torchmetrics.utilities import dim_zero_cat


class Outcomes(Metric):
    """Outcome of each image: index, label, prediction and its probability, loss, and whether the label was in
    the top 5.

    `compute()` raises if an image was counted twice, as a padded distributed evaluation would do.
    """

    FIELDS = ("index", "label", "prediction", "score", "loss", "top5")
    full_state_update = False
    index: list[Tensor]
    label: list[Tensor]
    prediction: list[Tensor]
    score: list[Tensor]
    loss: list[Tensor]
    top5: list[Tensor]

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        for name in self.FIELDS:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self, logits: Float[Tensor, "b classes"], label: Int[Tensor, " b"], index: Int[Tensor, " b"]
    ) -> None:
        """One batch."""
        logits = logits.float()
        self.index.append(index)
        self.label.append(label)
        self.prediction.append(logits.argmax(1))
        self.score.append(logits.softmax(1).amax(1))
        self.loss.append(torch.nn.functional.cross_entropy(logits, label, reduction="none"))
        likeliest = logits.topk(min(5, self.num_classes), dim=1).indices
        self.top5.append((likeliest == label[:, None]).any(1))

    def compute(self) -> dict[str, Tensor]:
        """The outcomes of all images, in the order of their index; each value (N,), on the CPU."""
        columns = {name: dim_zero_cat(getattr(self, name)).cpu() for name in self.FIELDS}
        order = columns["index"].argsort()
        columns = {name: column[order] for name, column in columns.items()}
        if len(columns["index"].unique()) != len(order):
            raise RuntimeError("an image was counted twice in the evaluation")
        return columns


def classification(outcomes: dict[str, Tensor], num_classes: int) -> dict[str, float]:
    """Metrics of a data set from the outcomes of its images.

    Returns:
        loss (nats), top1, top5 (with more than 5 classes), balanced_accuracy (mean recall of the classes
        that occur), f1 (two classes: class 1 is the positive one; more: the mean over those that occur),
        majority (share of the largest class).
    """
    prediction, label = outcomes["prediction"], outcomes["label"]
    top1 = (prediction == label).double().mean()
    metrics = {"loss": outcomes["loss"].double().mean(), "top1": top1}
    if num_classes > 5:
        metrics["top5"] = outcomes["top5"].double().mean()
    recall = F.multiclass_recall(prediction, label, num_classes, average="none")
    counts = torch.bincount(label, minlength=num_classes)
    metrics["balanced_accuracy"] = recall[counts > 0].double().mean()
    f1 = F.multiclass_f1_score(prediction, label, num_classes, average="none")
    metrics["f1"] = f1[1] if num_classes == 2 else f1[counts > 0].double().mean()
    metrics["majority"] = counts.max() / counts.sum()
    return {name: float(value) for name, value in metrics.items()}
