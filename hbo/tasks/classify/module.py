"""Image classification (section 4.1, tables 2-7)."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from hbo.config import Run
from hbo.data import Data, augment, batched
from hbo.data.augment import Augment, Raw
from hbo.runs import checkpoint, rows
from hbo.tasks import SETS
from hbo.tasks.base import TaskModule
from hbo.tasks.classify import layout, network
from hbo.tasks.classify.data import random_part
from hbo.tasks.classify.metrics import Outcomes, classification
from hbo.tasks.classify.mixing import erased, mixed
from hbo.tasks.classify.spec import CLASSIFY
from hbo.tasks.classify.teacher import Teacher, distilled


class Gate:
    """A hook before a classifier; when closed, it detaches the backbone's output."""

    closed = False
    only_in_training = True

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return tuple(x.detach() if isinstance(x, Tensor) else x for x in inputs) if self.closed else None


class Classify(TaskModule):
    """Training on cross-entropy and, with a teacher, on its outputs (`hbo.tasks.classify.teacher`).

    In the first `classifier_epochs` only the classifier is trained, on the initial network: batch norm keeps
    its statistics, and dropout is off.

    Args:
        run: see `TaskModule`, as for the next two.
        num_classes: outputs.
        steps_per_epoch: for the schedule.
        class_weights: weight of each class in the training loss, with a mean of 1 over the
        images; None: equal weights.
        classes: names, in the order of the outputs.
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
        self.register_buffer(
            "class_weights", torch.tensor(class_weights) if class_weights else None, persistent=False
        )
        # For batches that the loader leaves to the device.
        self.augment = Augment(random_part(run, train=True))
        self.outcomes = Outcomes(num_classes)
        self.gate = Gate()
        self.teacher: Teacher | None = None  # only in training: not part of the module or of its checkpoint
        self.classifier: frozenset[str] = frozenset()  # names of the weights that depend on the classes
        if run.pretrained or run.backbone_lr_factor != 1:
            self.classifier = network.classifier_of(self.net, run, num_classes)
        if run.classifier_epochs:
            for module in {name.rpartition(".")[0] for name in self.classifier}:
                self.net.get_submodule(module).register_forward_pre_hook(self.gate)
        if run.freeze_bn:
            for layer in self._frozen():
                layer.requires_grad_(False)

    def start(self) -> dict[str, Any]:
        """Load the initial weights and the teacher, if asked for. Returns the row's columns about them."""
        said = {}
        if self.run.pretrained:
            said["backbone_weights"] = checkpoint.load_backbone(
                self.net, self.run, self.classifier, self.classes
            )
        if self.run.distill:
            self.teacher = Teacher(self.run, self.num_classes, self.classes)
            said["teacher"] = self.teacher.words
        return said

    def _frozen(self) -> list[nn.Module]:
        frozen = self.run.freeze_bn
        return [m for m in self.net.modules() if frozen and isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def _backbone_weights(self) -> list[nn.Parameter]:
        return [weight for name, weight in self.net.named_parameters() if name not in self.classifier]

    def weight_groups(self) -> Any:
        """Optimizer groups: the classifier at the run's rate, the rest at `backbone_lr_factor` times it."""
        if self.run.backbone_lr_factor == 1:
            return super().weight_groups()
        own = [weight for name, weight in self.net.named_parameters() if name in self.classifier]
        return [
            {"params": own},
            {"params": self._backbone_weights(), "lr": self.run.lr * self.run.backbone_lr_factor},
        ]

    def on_train_start(self) -> None:
        self._set_modes()

    def _set_modes(self) -> None:
        """Set the modes of batch norm and dropout for this phase; Lightning restores each module's mode after
        an evaluation.
        """
        self.gate.closed = self.warming
        self.net.train(not self.warming)
        for layer in self._frozen():
            layer.eval()

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Logits."""
        return super().forward(images)

    def loss(self, logits: Float[Tensor, "b classes"], labels: Tensor) -> Float[Tensor, ""]:
        """Mean over images of the weighted, smoothed cross-entropy; normalised by the number of images, so
        that devices can average it.

        Args:
            logits: of the images.
            labels: their classes (B,), or shares of classes (B, classes) if images are mixed.
        """
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.run.label_smoothing)
        if self.class_weights is not None:
            weights = self.class_weights
            losses = losses * (labels @ weights if labels.is_floating_point() else weights[labels])
        return losses.mean()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, *rest = batch
        if isinstance(images, Raw):
            images = (batched if images.pixels.is_cuda else augment).unpack(images, self.augment)
        return images, *rest

    def training_loss(self, batch: Any) -> tuple[Tensor, int]:
        images, labels, _ = batch
        if self.net.training == self.warming:
            self._set_modes()
        run = self.run
        if run.random_erasing:
            images = erased(images.float(), run.random_erasing)
        if run.mixup or run.cutmix:
            images, labels = mixed(images.float(), labels, self.num_classes, run.mixup, run.cutmix)
        x = self.normalised(images)
        logits = self.net(x)
        loss = self.loss(logits, labels)
        if self.teacher is not None:
            taught = distilled(logits, self.teacher(x), run.distill_temperature)
            loss = (1 - run.distill_weight) * loss + run.distill_weight * taught
        if self.warming:  # DDP, even with one process, waits for a gradient of every weight; see below
            loss = loss + 0 * sum(weight.sum() for weight in self._backbone_weights() if weight.requires_grad)
        return loss, len(labels)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.warming:
            for weight in self._backbone_weights():
                weight.grad = None  # so that the optimizer skips it, weight decay included

    def evaluate_batch(self, batch: Any) -> None:
        images, labels, index = batch
        self.outcomes.update(self(images), labels, index)

    def metrics(self, final: bool = True) -> dict[str, float]:
        assert self.last_outcomes is not None
        return classification(self.last_outcomes, self.num_classes)

    def columns(self) -> dict[str, Any]:
        assert self.last_outcomes is not None
        right = rows.correct({name: values.numpy() for name, values in self.last_outcomes.items()})
        said = len(self.last_outcomes["prediction"].unique())
        return {"correct": right, "predicted_classes": said} | (
            {"classes": list(self.classes)} if self.classes else {}
        )


def make(run: Run, data: Data, steps_per_epoch: int, num_classes: int | None) -> Classify:
    """The module of a run and its data set.

    Raises:
        DataError: a training folder with one class.
    """
    if data.train is not None and SETS[run.data].by_folder:
        layout.check_two(SETS[run.data].root(run.data, run.data_dir), data.classes)
    weights = data.class_weights() if run.class_weights == "balanced" and data.train is not None else None
    return Classify(run, num_classes or len(data.classes), steps_per_epoch, weights, data.classes)
