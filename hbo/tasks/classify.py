"""Image classification (section 4.1, tables 2-7)."""

import math
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torchmetrics import MeanMetric

from hbo.config import Run, build_net
from hbo.data.augment import Augment, Raw, unpack
from hbo.data.images import random_part
from hbo.data.sampling import hashed
from hbo.metrics import Outcomes, classification

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for every set


class Classify(pl.LightningModule):
    """SGD on cross-entropy; outcomes per image in evaluation.

    Args:
        run: all fields; they stand as plain values in the checkpoint (`hyper_parameters`).
        num_classes: outputs.
        steps_per_epoch: updates an epoch, for the schedule.
        class_weights: weight of each class in the training loss, by mean 1 over the images; None weighs all alike.
    """

    mean: Tensor
    std: Tensor
    class_weights: Tensor | None

    def __init__(self, run: Run, num_classes: int, steps_per_epoch: int = 1, class_weights: list[float] | None = None) -> None:
        super().__init__()
        self.save_hyperparameters(asdict(run) | {"num_classes": num_classes}, logger=False)
        self.run, self.num_classes, self.steps_per_epoch = run, num_classes, steps_per_epoch
        self.net: nn.Module = build_net(run, num_classes)
        if run.channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("class_weights", torch.tensor(class_weights) if class_weights else None, persistent=False)
        self.augment = Augment(random_part(run, train=True))  # of batches that the loader leaves to the device
        self.outcomes = Outcomes(num_classes)
        self.train_loss = MeanMetric()
        self.train_loss.persistent(True)  # an epoch's mean goes on where a checkpoint cut it
        self.curve_point: dict[str, float] = {}  # the latest of each number of the learning curve
        self.last_outcomes: dict[str, Tensor] | None = None  # of the latest evaluation

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Logits of images as they lie on disk, 0 to 255."""
        x = (images - self.mean).div_(self.std)
        order = torch.channels_last if self.run.channels_last else torch.contiguous_format
        return self.net(x.contiguous(memory_format=order))

    def loss(self, logits: Float[Tensor, "b classes"], labels: Int[Tensor, "b"]) -> Float[Tensor, ""]:
        """Mean over images of the weighted, smoothed cross-entropy; a sum over images, so that devices can share it."""
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.run.label_smoothing)
        if self.class_weights is not None:
            losses = losses * self.class_weights[labels]
        return losses.mean()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, *rest = batch
        return unpack(images, self.augment) if isinstance(images, Raw) else images, *rest

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels, _ = batch
        # Dropout and its like (in rivals' networks) as a function of seed, update and rank: resumable without a state.
        torch.manual_seed(hashed(self.run.seed, self.global_step, self.global_rank))
        loss = self.loss(self(images), labels)
        self.train_loss.update(loss.detach(), len(labels))
        return loss

    def lost(self) -> str:
        """What to say where the loss is infinite or not a number."""
        return (
            f"the loss is not finite at update {self.global_step} (epoch {self.current_epoch}): take a smaller --lr than"
            f" {self.run.lr} or a longer --warmup than {self.run.warmup}"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.trainer.world_size > 1:  # the sums of all ranks; rank 0 goes on with them
            for name in ("train_loss.mean_value", "train_loss.weight"):
                total = checkpoint["state_dict"][name].clone()
                torch.distributed.all_reduce(total)
                checkpoint["state_dict"][name] = total

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.global_rank:
            for name in ("train_loss.mean_value", "train_loss.weight"):
                checkpoint["state_dict"][name] = torch.zeros_like(checkpoint["state_dict"][name])

    @property
    def on_cpu(self) -> bool:
        """Where reading a number costs nothing."""
        return self.device.type == "cpu"

    def on_validation_epoch_start(self) -> None:
        self.outcomes.reset()
        if self.trainer.world_size > 1:  # each rank has seen other images: all evaluate with rank 0's batch norm
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, labels, index = batch
        self.outcomes.update(self(images), labels, index)

    def on_validation_epoch_end(self) -> None:
        self.last_outcomes = self.outcomes.compute()
        metrics = classification(self.last_outcomes, self.num_classes)
        self.curve_point |= {f"val/{name}": value for name, value in metrics.items()}

    def on_train_epoch_end(self) -> None:
        rate = self.optimizers().param_groups[0]["lr"]  # pyright: ignore
        self.curve_point |= {"train/loss": float(self.train_loss.compute()), "lr": rate}
        self.train_loss.reset()

    def configure_optimizers(self) -> Any:
        run = self.run
        optimizer = torch.optim.SGD(
            self.net.parameters(),
            lr=run.lr,
            momentum=run.momentum,
            weight_decay=run.weight_decay,
            nesterov=run.nesterov,
            fused=True,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, Schedule(run, self.steps_per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Schedule:
    """Share of the peak learning rate at update t = 0, 1, ...: linear warm-up, then cosine to zero or constant.

    Steps come from the data, not from the trainer: reading the trainer's estimate loses its loader's state.
    """

    def __init__(self, run: Run, steps_per_epoch: int) -> None:
        self.warmup, self.total = round(run.warmup * steps_per_epoch), run.epochs * steps_per_epoch
        self.cosine = run.schedule == "cosine"

    def __call__(self, t: int) -> float:
        if t < self.warmup:
            return (t + 1) / self.warmup
        if not self.cosine:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (t - self.warmup) / (self.total - self.warmup)))
