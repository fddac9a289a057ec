"""Shared by all tasks: the network on normalised images, the optimizer with its schedule, and a mean loss
that survives an interruption.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchmetrics import MeanMetric, Metric

from hbo.config import Run
from hbo.data.preprocess import MEAN, STD
from hbo.data.sampling import TrainBatches, hashed
from hbo.errors import UserError
from hbo.runs import checkpoint


class TaskModule(pl.LightningModule):
    """Train a network on batches of (images, labels or targets, indices), and collect
    outcomes per image in evaluation.

    A task defines `outcomes`, `training_loss`, `evaluate_batch` and `metrics`.

    Args:
        run: all fields; the checkpoint stores them as plain values (`hyper_parameters`).
        num_classes: without the background.
        steps_per_epoch: updates per epoch, for the schedule.
    """

    mean: Tensor
    std: Tensor
    outcomes: Metric
    headline = ""  # the main metric
    classes: Any = None  # names, in the order of the outputs; stored in the checkpoint
    # Values of the curve that must be finite unless the network has diverged.
    finite = (
        "train/loss",
        "val/loss",
    )

    def __init__(self, run: Run, num_classes: int, steps_per_epoch: int = 1) -> None:
        super().__init__()
        self.save_hyperparameters(asdict(run) | {"num_classes": num_classes}, logger=False)
        self.run, self.num_classes, self.steps_per_epoch = run, num_classes, steps_per_epoch
        self.net = self.network(run, num_classes)
        if run.channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1) * 255, persistent=False)
        self.averaged = copy.deepcopy(self.net).requires_grad_(False) if run.ema else None
        self.train_loss = MeanMetric()
        self.train_loss.persistent(True)  # an epoch's mean continues from a checkpoint within it
        self.curve_point: dict[str, float] = {}  # the latest value of each learning curve
        self.last_outcomes: dict[str, Tensor] | None = None  # of the latest evaluation

    @staticmethod
    def network(run: Run, num_classes: int) -> nn.Module:
        """The network of a run, with fresh weights."""
        raise NotImplementedError

    def train_batches(self, images: Any, **sampling: Any) -> TrainBatches:
        """Batches of training images, in random order unless a task groups them."""
        return TrainBatches(len(images), self.run.batch, **sampling)

    def training_loss(self, batch: Any) -> tuple[Tensor, int]:
        """The loss of a batch, and the number of items that it averages."""
        raise NotImplementedError

    def evaluate_batch(self, batch: Any) -> None:
        """Add a batch to the outcomes."""
        raise NotImplementedError

    def metrics(self, final: bool = True) -> dict[str, float]:
        """Metrics of the latest evaluation; slow ones only after the last epoch."""
        raise NotImplementedError

    @property
    def backbone(self) -> nn.Module | None:
        """The network that `backbone_checkpoint` initialises; None if the task uses no such file."""
        return None

    @property
    def current(self) -> Any:
        """The network in use now: in evaluation its moving average, if `ema` is set."""
        return self.net if self.averaged is None or self.training else self.averaged

    @property
    def evaluated(self) -> nn.Module:
        """The module whose outputs are evaluated, on normalised images."""
        return self.net

    @classmethod
    def load_from_checkpoint(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, checkpoint_path: Any, map_location: Any = None, **fields: Any
    ) -> "TaskModule":
        """Lightning's method, for any checkpoint that `hbo.load` accepts; fields and
        classes are read from the file.

        Args:
            checkpoint_path: a run's folder, or its last.ckpt.
            map_location: the device to move it to.
            fields: fields of `Run` that override the checkpoint's.

        Raises:
            UserError: no such file, a checkpoint of another task, or a field that contradicts it.
        """
        from hbo.tasks import build

        task = build.restored(checkpoint.trained(Path(checkpoint_path), fields))
        if not isinstance(task, cls):
            raise UserError(
                f"checkpoint {checkpoint_path}: trained with task={task.run.task}; use {type(task).__name__}"
            )
        return task.to(map_location)

    def begin(self) -> dict[str, Any]:
        """Load the initial weights, for the moving average too. Returns the row's columns about them."""
        said = self.start()
        if self.averaged is not None:
            self.averaged.load_state_dict(self.net.state_dict())
        return said

    def start(self) -> dict[str, Any]:
        """Load the backbone from `backbone_checkpoint`, if given. Returns the row's columns about it.

        Raises:
            UserError: the checkpoint belongs to another network.
        """
        if self.backbone is None:
            return {}
        from_file = (
            checkpoint.load_backbone(self.backbone, self.run) if self.run.backbone_checkpoint else "random"
        )
        return {"backbone_weights": from_file}

    @property
    def warming(self) -> bool:
        """Whether only the classifier is being trained (`classifier_epochs`)."""
        return self.global_step < (self.run.classifier_epochs or 0) * self.steps_per_epoch

    def columns(self) -> dict[str, Any]:
        """Further columns of the row, from the latest evaluation."""
        return {}

    def normalised(self, images: Tensor) -> Tensor:
        """Normalise images (B, 3, H, W), 0 to 255, for the network."""
        x = (images - self.mean).div_(self.std)
        return x.contiguous(
            memory_format=torch.channels_last if self.run.channels_last else torch.contiguous_format
        )

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> Any:
        """The network on images of 0 to 255, as stored on disk; in evaluation
        its average, if `ema` is set.
        """
        return self.current(self.normalised(images))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        # Dropout and the like (in other authors' networks) are a function of seed, update and rank, so a
        # resumed run needs no generator state.
        torch.manual_seed(hashed(self.run.seed, self.global_step, self.global_rank))
        loss, weight = self.training_loss(batch)
        self.train_loss.update(loss.detach(), weight)
        return loss

    def on_train_epoch_start(self) -> None:
        if self.run.eval_every > 1:  # Lightning's own count misses the last epoch
            last = self.current_epoch + 1 == self.run.all_epochs
            self.trainer.check_val_every_n_epoch = 1 if last else self.run.eval_every

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.averaged is not None:  # now, as a checkpoint may be written before any later hook
            move_average(
                self.averaged, self.net, min(self.run.ema, (1 + self.global_step) / (10 + self.global_step))
            )

    def lost(self) -> str:
        """The message for a loss that is infinite or NaN."""
        return (
            f"the loss is not finite at update {self.global_step} (epoch {self.current_epoch}): use an --lr"
            f" below {self.run.lr} or a --warmup above {self.run.warmup}"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.classes is not None:
            checkpoint["classes"] = list(self.classes)
        if self.trainer.world_size > 1:  # the sums of all ranks; rank 0 continues with them
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
        """Whether reading a number from the device costs nothing."""
        return self.device.type == "cpu"

    def on_validation_epoch_start(self) -> None:
        self.outcomes.reset()
        # Ranks have seen different images: all evaluate with rank 0's batch norm.
        if self.trainer.world_size > 1:
            for buffer in (
                *self.net.buffers(),
                *(self.averaged.buffers() if self.averaged is not None else ()),
            ):
                torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate_batch(batch)

    def on_validation_epoch_end(self) -> None:
        self.last_outcomes = self.outcomes.compute()
        self._report({f"val/{name}": value for name, value in self.metrics(final=False).items()})

    def on_train_epoch_end(self) -> None:
        rate = self.optimizers().param_groups[0]["lr"]  # pyright: ignore
        # No evaluation in this epoch: the metrics are an earlier one's.
        if (self.current_epoch + 1) % (self.trainer.check_val_every_n_epoch or 1):
            self.curve_point = {
                name: value for name, value in self.curve_point.items() if not name.startswith("val/")
            }
        self._report({"train/loss": float(self.train_loss.compute()), "lr": rate})
        self.train_loss.reset()

    def _report(self, numbers: dict[str, float]) -> None:
        """Add an epoch's numbers to the learning curve, and log them for the user's own
        Lightning callbacks and loggers.
        """
        self.curve_point |= numbers
        # All ranks have the same numbers; Lightning requires it.
        self.log_dict(numbers, sync_dist=self.trainer.world_size > 1)

    def weight_groups(self) -> Any:
        """The trained weights, in an optimizer's form. The first group has the run's own
        rate, which the curve shows.
        """
        return [weight for name, weight in self.named_parameters() if not name.startswith("averaged.")]

    def configure_optimizers(self) -> Any:
        run = self.run
        weights, decay = self.weight_groups(), run.weight_decay
        if run.no_decay_on_norm:
            weights = without_decay(weights)
        betas = (run.momentum, 0.999)
        # In mixed precision a fused step unscales the gradients itself, so Lightning cannot clip them before.
        fused = run.precision == "32-true" or not run.grad_clip
        if run.optimizer == "amsgrad":
            optimizer = torch.optim.Adam(
                weights, run.lr, betas, weight_decay=decay, amsgrad=True, fused=fused
            )
        elif run.optimizer == "adamw":
            optimizer = torch.optim.AdamW(weights, run.lr, betas, weight_decay=decay, fused=fused)
        else:
            # Torch's fused SGD fails if weights join that have no momentum yet.
            fused = fused and not run.classifier_epochs
            optimizer = torch.optim.SGD(
                weights, run.lr, run.momentum, weight_decay=decay, nesterov=run.nesterov, fused=fused
            )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, Schedule(run, self.steps_per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def without_decay(weights: Any) -> list[dict[str, Any]]:
    """Split each of an optimizer's groups in two: vectors (biases, batch norm's scales
    and shifts) get no weight decay.

    Args:
        weights: weights, or groups of them.
    """
    weights = list(weights)
    groups = weights if weights and isinstance(weights[0], dict) else [{"params": weights}]
    parted = []
    for group in groups:
        every = list(group["params"])
        parted.append(group | {"params": [weight for weight in every if weight.ndim > 1]})
        parted.append(
            group | {"params": [weight for weight in every if weight.ndim <= 1], "weight_decay": 0.0}
        )
    return parted


@torch.no_grad()
def move_average(averaged: nn.Module, net: nn.Module, decay: float) -> None:
    """Update a network's moving average: average = decay * average + (1 - decay) * value, batch norm's
    statistics included.
    """
    pairs = list(zip(averaged.state_dict().values(), net.state_dict().values(), strict=True))
    moving = [pair for pair in pairs if pair[0].is_floating_point()]
    get_ema_multi_avg_fn(decay)([mean for mean, _ in moving], [value for _, value in moving], 0)
    for mean, value in pairs:
        if not mean.is_floating_point():  # the number of batches seen
            mean.copy_(value)


class Schedule:
    """Factor of the peak learning rate at update t = 0, 1, ...: linear warm-up, then cosine to zero,
    constant, steps, or exponential.

    Before the warm-up it is 1 while only the classifier is trained (`classifier_epochs`).
    Steps come from the data, not from the trainer: reading the trainer's estimate loses the loader's state.
    """

    def __init__(self, run: Run, steps_per_epoch: int) -> None:
        self.warmup, self.total = round(run.warmup * steps_per_epoch), run.epochs * steps_per_epoch
        self.start, self.kind = run.warmup_from / run.lr, run.schedule
        self.drops = [round(epoch * steps_per_epoch) for epoch in run.drops]
        self.early = (run.classifier_epochs or 0) * steps_per_epoch

    def __call__(self, t: int) -> float:
        t -= self.early
        if t < 0:
            return 1.0
        if t < self.warmup:
            return self.start + (1 - self.start) * t / self.warmup if self.start else (t + 1) / self.warmup
        if self.kind == "step":
            return 0.1 ** sum(t >= drop for drop in self.drops)
        if self.kind == "constant":
            return 1.0
        if self.kind == "exponential":  # MobileNetV2's 0.98 in each of 300 epochs, scaled to the run's epochs
            return 0.98 ** (300 * (t - self.warmup) / (self.total - self.warmup))
        return 0.5 * (1 + math.cos(math.pi * (t - self.warmup) / (self.total - self.warmup)))


def lost(metrics: dict[str, float], finite: Iterable[str]) -> str:
    """The metrics that are not finite, as text; empty if all are finite.

    Args:
        metrics: a task's metrics.
        finite: the names that must be finite, as on the learning curve (`val/loss`).
    """
    values = {name: metrics.get(name.removeprefix("val/"), 0.0) for name in finite}
    return ", ".join(
        f"{name.removeprefix('val/')} {value}" for name, value in values.items() if not math.isfinite(value)
    )
