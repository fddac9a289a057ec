"""What goes on around the updates: checkpoints, signals, the learning curve, the bar."""

import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from tqdm import tqdm

from hbo.errors import UserError
from hbo.files import write_atomically
from hbo.runs import signals, tracking
from hbo.runs.lock import Busy, Lock

TAKEN_OVER = 99  # among the signals that processes tell each other: the lock is another's
SYNC_EVERY = 10  # batches between looks at the others' signals and at the loss, where a look costs something


class Interrupted(Exception):
    """A signal ended the run after a checkpoint was written."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"{signal.Signals(number).name} at update {step}")
        self.number = number


class NotFinite(UserError):
    """The training loss is infinite or not a number."""

    status = 1


class Keep(Checkpoint):
    """Keeps `last.ckpt` and `metrics.csv` of a run's folder.

    A checkpoint is written every `seconds`, at each epoch's end and at a signal, under another name and then renamed, so
    that there is always a whole one. The learning curve, the seconds spent and the steps at which the run was taken up
    travel in the checkpoint: a resumed run leaves the files of an unbroken one.

    Signals are only noted; all processes look at each other's and act at the same batch.

    Args:
        folder: of the run.
        every: seconds between checkpoints within an epoch.
    """

    def __init__(self, folder: Path, every: float) -> None:
        self.folder, self.every = folder, every
        self.lock: Lock | None = None  # of rank 0
        self.mirror: tracking.Mirror | None = None  # in W&B, of rank 0
        self.curve: list[dict[str, float]] = []
        self.resumed_at: list[int] = []
        self.seconds_before = 0.0
        self.saved_at, self.started = time.monotonic(), time.monotonic()
        self.busy, self.images, self.mark, self.warm = 0.0, 0, 0.0, False  # of this process's training, for images/s
        self.step, self.of = 0, 0  # updates done, of how many
        self.former: dict[int, Any] = {}

    def progress(self) -> dict[str, Any]:
        """What a waiting reader of the lock is told."""
        return {"step": self.step, "of": self.of, "seconds": round(self.seconds, 1)}

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run so far, those before an interruption included."""
        return self.seconds_before + time.monotonic() - self.started

    def state_dict(self) -> dict[str, Any]:
        return {"curve": self.curve, "resumed_at": self.resumed_at, "seconds": self.seconds, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curve, self.seconds_before = state_dict["curve"], state_dict["seconds"]
        self.resumed_at = [*state_dict["resumed_at"], state_dict["step"]]

    # ------------------------------------------------------------ signals

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.former = signals.listen_to_all()
        self.of = int(trainer.num_training_batches) * (trainer.max_epochs or 0)
        self.step = trainer.global_step
        if self.mirror is not None:
            self.mirror.log(self.curve)  # what an earlier part of the run could not send

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        signals.restore(self.former)
        self.former = {}

    def _agreed(self, trainer: pl.Trainer, due: bool, lost: bool) -> tuple[int, bool, bool]:
        """The signal that any process got, whether rank 0 finds a checkpoint due, and whether any loss is lost."""
        number = TAKEN_OVER if self.lock is not None and self.lock.lost else signals.noted
        if trainer.world_size == 1:
            return number, due, lost
        flags = torch.tensor([number, due and trainer.is_global_zero, lost], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        return int(flags[0]), bool(flags[1]), bool(flags[2])

    # ------------------------------------------------------------ batches and epochs

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.mark = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.monotonic()
        if self.warm:  # the first batch pays for starting up
            self.busy, self.images = self.busy + now - self.mark, self.images + len(batch[0]) * trainer.world_size
        self.warm, self.mark, self.step = True, now, trainer.global_step
        if batch_idx + 1 == trainer.num_training_batches:
            return  # the epoch's end comes next, and keeps its own
        apart = trainer.world_size > 1 or not pl_module.on_cpu
        if apart and (batch_idx + 1) % SYNC_EVERY:  # to talk, or to look at a GPU's loss, costs its queue
            return
        lost = not math.isfinite(float(outputs["loss"].detach()))
        number, due, lost = self._agreed(trainer, now - self.saved_at >= self.every, lost)
        if lost:
            raise NotFinite(pl_module.lost())
        self._yield_to(number)
        if number or due:
            self.save(trainer)
        if number:
            raise Interrupted(number, trainer.global_step)

    def _yield_to(self, number: int) -> None:
        if number == TAKEN_OVER:  # this process stood still for a minute: what is in the folder is another's now
            raise Busy(f"{self.folder}: another process has taken this run over")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        numbers = pl_module.curve_point
        if not all(math.isfinite(numbers[name]) for name in pl_module.finite):  # of all processes together
            raise NotFinite(pl_module.lost())
        self.curve.append(
            {"epoch": trainer.current_epoch, "step": trainer.global_step, **pl_module.curve_point, "seconds": self.seconds}
        )
        number, *_ = self._agreed(trainer, False, False)
        self._yield_to(number)
        if trainer.is_global_zero:
            write_atomically(self.folder / "metrics.csv", pd.DataFrame(self.curve).to_csv(index=False))
        self.save(trainer)
        if self.mirror is not None:
            self.mirror.log(self.curve)
        if number and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            raise Interrupted(number, trainer.global_step)

    def save(self, trainer: pl.Trainer) -> None:
        """Write `last.ckpt`; all processes must call it."""
        self.step = trainer.global_step
        part = self.folder / "last.ckpt.part"
        trainer.save_checkpoint(part, weights_only=False)
        if trainer.is_global_zero:
            os.replace(part, self.folder / "last.ckpt")
        trainer.strategy.barrier("last.ckpt")
        self.saved_at = time.monotonic()


class Bar(ProgressBar):
    """One bar over the whole run, with the time left, the loss and the task's latest metric."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label, self.bar, self.hidden = label, None, False

    def disable(self) -> None:  # Lightning calls it on all ranks but the first
        self.hidden = True

    def enable(self) -> None:
        self.hidden = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total = int(trainer.num_training_batches) * (trainer.max_epochs or 0)
        watched = sys.stderr.isatty()
        self.bar = tqdm(
            total=total, initial=trainer.global_step, desc=self.label, unit="batch", disable=self.hidden,
            mininterval=0.2 if watched else 10, dynamic_ncols=watched,
        )  # fmt: skip

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert self.bar is not None
        if self.bar.update(1) and pl_module.on_cpu:
            self.bar.set_postfix(
                self._numbers(trainer, pl_module) | {"loss": f"{float(outputs['loss'].detach()):.3f}"}, refresh=False
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        assert self.bar is not None
        self.bar.set_postfix(self._numbers(trainer, pl_module), refresh=True)

    def _numbers(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, str]:
        numbers = {"epoch": f"{trainer.current_epoch + 1}/{trainer.max_epochs}"}
        name = pl_module.headline
        if f"val/{name}" in pl_module.curve_point:
            numbers[name] = f"{100 * pl_module.curve_point[f'val/{name}']:.1f}%"
        return numbers

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()
