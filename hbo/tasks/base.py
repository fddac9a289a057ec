"""What the tasks share: the network on normalised images, SGD with its schedule, the mean loss that a cut does not disturb."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from hbo.config import Run
from hbo.data.sampling import TrainBatches, hashed
from hbo.runs import checkpoint

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for every set


class TaskModule(pl.LightningModule):
    """A network that is trained on batches of (images, labels or targets, indices), and outcomes per image in evaluation.

    A task defines `outcomes`, `training_loss` and `evaluate_batch`, and `metrics` of the outcomes.

    Args:
        run: all fields; they stand as plain values in the checkpoint (`hyper_parameters`).
        num_classes: without a background.
        steps_per_epoch: updates an epoch, for the schedule.
    """

    mean: Tensor
    std: Tensor
    outcomes: Metric
    headline = ""  # the metric that tells most
    classes: Any = None  # names, in the order of the outputs; a checkpoint holds them
    finite = ("train/loss", "val/loss")  # numbers of the curve that are so unless the network is lost

    def __init__(self, run: Run, num_classes: int, steps_per_epoch: int = 1) -> None:
        super().__init__()
        self.save_hyperparameters(asdict(run) | {"num_classes": num_classes}, logger=False)
        self.run, self.num_classes, self.steps_per_epoch = run, num_classes, steps_per_epoch
        self.net = self.network(run, num_classes)
        if run.channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1) * 255, persistent=False)
        self.train_loss = MeanMetric()
        self.train_loss.persistent(True)  # an epoch's mean goes on where a checkpoint cut it
        self.curve_point: dict[str, float] = {}  # the latest of each number of the learning curve
        self.last_outcomes: dict[str, Tensor] | None = None  # of the latest evaluation

    @staticmethod
    def network(run: Run, num_classes: int) -> nn.Module:
        """The network of a run, with fresh weights."""
        raise NotImplementedError

    def train_batches(self, images: Any, **sampling: Any) -> TrainBatches:
        """The batches of training images: all in random order, unless a task groups them."""
        return TrainBatches(len(images), self.run.batch, **sampling)

    def training_loss(self, batch: Any) -> tuple[Tensor, int]:
        """The loss of a batch, and of how many it is a mean."""
        raise NotImplementedError

    def evaluate_batch(self, batch: Any) -> None:
        """Take a batch into the outcomes."""
        raise NotImplementedError

    def metrics(self, final: bool = True) -> dict[str, float]:
        """Of the latest evaluation; those that take long only if it is the final one."""
        raise NotImplementedError

    @property
    def backbone(self) -> nn.Module | None:
        """The network that `backbone_checkpoint` starts; None of a task that takes no such file."""
        return None

    def begin(self) -> dict[str, Any]:
        """Take the backbone's weights from `backbone_checkpoint`, if there is one; what the row says of it.

        Raises:
            UserError: the checkpoint is of another network.
        """
        if self.backbone is None:
            return {}
        from_file = checkpoint.load_backbone(self.backbone, self.run) if self.run.backbone_checkpoint else "random"
        return {"backbone_weights": from_file}

    def columns(self) -> dict[str, Any]:
        """What else the row gets from the latest evaluation."""
        return {}

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> Any:
        """The network on images as they lie on disk, 0 to 255."""
        x = (images - self.mean).div_(self.std)
        order = torch.channels_last if self.run.channels_last else torch.contiguous_format
        return self.net(x.contiguous(memory_format=order))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        # Dropout and its like (in rivals' networks) as a function of seed, update and rank: resumable without a state.
        torch.manual_seed(hashed(self.run.seed, self.global_step, self.global_rank))
        loss, weight = self.training_loss(batch)
        self.train_loss.update(loss.detach(), weight)
        return loss

    def lost(self) -> str:
        """What to say where the loss is infinite or not a number."""
        return (
            f"the loss is not finite at update {self.global_step} (epoch {self.current_epoch}): take a smaller --lr than"
            f" {self.run.lr} or a longer --warmup than {self.run.warmup}"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.classes is not None:
            checkpoint["classes"] = list(self.classes)
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
        self.evaluate_batch(batch)

    def on_validation_epoch_end(self) -> None:
        self.last_outcomes = self.outcomes.compute()
        self._report({f"val/{name}": value for name, value in self.metrics(final=False).items()})

    def on_train_epoch_end(self) -> None:
        rate = self.optimizers().param_groups[0]["lr"]  # pyright: ignore
        self._report({"train/loss": float(self.train_loss.compute()), "lr": rate})
        self.train_loss.reset()

    def _report(self, numbers: dict[str, float]) -> None:
        """Take numbers of an epoch into the learning curve, and log them for the user's own Lightning callbacks and loggers."""
        self.curve_point |= numbers
        self.log_dict(numbers, sync_dist=self.trainer.world_size > 1)  # all ranks have the same numbers; Lightning asks for it

    def configure_optimizers(self) -> Any:
        run = self.run
        weights, decay = self.parameters(), run.weight_decay
        if run.optimizer == "amsgrad":
            optimizer = torch.optim.Adam(weights, run.lr, (run.momentum, 0.999), weight_decay=decay, amsgrad=True)
        else:
            fused = not run.classifier_epochs  # torch's fused one fails where weights join that have no momentum yet
            optimizer = torch.optim.SGD(weights, run.lr, run.momentum, weight_decay=decay, nesterov=run.nesterov, fused=fused)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, Schedule(run, self.steps_per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Schedule:
    """Share of the peak learning rate at update t = 0, 1, ...: linear warm-up, then cosine to zero, constant, or by steps.

    Before that it is 1 for as long as a classifier is trained alone (`classifier_epochs`).
    Steps come from the data, not from the trainer: reading the trainer's estimate loses its loader's state.
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
        return 0.5 * (1 + math.cos(math.pi * (t - self.warmup) / (self.total - self.warmup)))


def lost(metrics: dict[str, float], finite: Iterable[str]) -> str:
    """What to say of a network whose outputs are no numbers: the metric that shows it; nothing where all is well.

    Args:
        metrics: of a task.
        finite: the task's, names on the learning curve (`val/loss`).
    """
    values = {name: metrics.get(name.removeprefix("val/"), 0.0) for name in finite}
    return ", ".join(f"{name.removeprefix('val/')} {value}" for name, value in values.items() if not math.isfinite(value))
