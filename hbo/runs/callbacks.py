"""Work around the updates: checkpoints, signals, the learning curve."""

import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from tqdm import tqdm

from hbo.files import write_atomically
from hbo.runs import signals, tracking
from hbo.runs.clock import Clock
from hbo.runs.lock import Busy, Lock
from hbo.runs.stopping import TAKEN_OVER, Interrupted, NotFinite, agree

SYNC_EVERY = 10  # batches between checks of other processes' signals and of the loss, if a check costs time


class Checkpointing(Checkpoint):
    """Writes `last.ckpt` and `metrics.csv` in a run's folder.

    A checkpoint is written every `every` seconds, at the end of each epoch and at a signal, under
    another name and then renamed, so that a complete one always exists. It includes the learning
    curve, the seconds spent and the updates at which the run was resumed: a resumed run leaves the
    same files as an uninterrupted one.

    Args:
        folder: the run's.
        every: seconds between checkpoints within an epoch.
        log_every: updates between points for W&B besides the epochs'; 0: none.
    """

    def __init__(self, folder: Path, every: float, log_every: int = 0) -> None:
        self.folder, self.every, self.log_every = folder, every, log_every
        self.lock: Lock | None = None  # in rank 0
        self.mirror: tracking.Mirror | None = None  # the W&B run, in rank 0
        self.clock = Clock()
        self.curve: list[dict[str, float]] = []
        self.resumed_at: list[int] = []
        self.saved_at = time.monotonic()
        self.rate = 0.0  # of the present update
        self.step, self.of = 0, 0  # updates done, and their total
        self.former: dict[int, Any] = {}  # signal handlers, to be restored

    @property
    def state_key(self) -> str:
        """Its name in checkpoints; it is the class's former name, so that older checkpoints load."""
        return "Keep"

    def progress(self) -> dict[str, Any]:
        """Progress for other processes that read the lock."""
        return {"step": self.step, "of": self.of, "seconds": round(self.clock.seconds, 1)}

    def facts(self) -> dict[str, Any]:
        """Columns of the row: the run's seconds, and the updates at which it was resumed."""
        return {"resumed_at": self.resumed_at, "seconds": self.clock.seconds}

    def state_dict(self) -> dict[str, Any]:
        return {
            "curve": self.curve,
            "resumed_at": self.resumed_at,
            "seconds": self.clock.seconds,
            "step": self.step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curve, self.clock.seconds_before = state_dict["curve"], state_dict["seconds"]
        self.resumed_at = [*state_dict["resumed_at"], state_dict["step"]]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.former = signals.listen_to_all()
        self.of = int(trainer.num_training_batches) * (trainer.max_epochs or 0)
        self.step = trainer.global_step
        if self.resumed_at and self.lock is not None:
            tqdm.write(f"resumes at update {self.step} of {self.of}", file=sys.stderr)  # a line of its own
        if self.mirror is not None:
            self.mirror.log(self.curve)  # points that an earlier part of the run could not send

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.teardown(trainer, pl_module, "")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        signals.restore(self.former)
        self.former = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.clock.start_epoch()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.log_every:  # at the batch's end it is that of the next
            self.rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.clock.end_batch(len(batch[0]) * trainer.world_size)
        self.step = trainer.global_step
        if self.mirror is not None and self.log_every and self.step % self.log_every == 0:
            loss = float(outputs["loss"].detach())  # of this process's share of the batch
            self.mirror.point(
                self.step, loss=loss, lr=self.rate, images_per_second=self.clock.images_per_second
            )
        if batch_idx + 1 == trainer.num_training_batches:
            return  # the end of the epoch follows, and writes its own
        apart = trainer.world_size > 1 or not pl_module.on_cpu
        if apart and (batch_idx + 1) % SYNC_EVERY:  # communication, or reading a GPU's loss, stalls its queue
            return
        due = time.monotonic() - self.saved_at >= self.every
        agreed = agree(
            trainer, self.lock, self.mirror, due, lost=not math.isfinite(float(outputs["loss"].detach()))
        )
        if agreed.lost:
            raise NotFinite(pl_module.lost())
        self._check_lock(agreed.signal)
        if agreed.signal or agreed.due:
            self.save(trainer)
        if agreed.signal:
            raise Interrupted(agreed.signal, trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        numbers = pl_module.curve_point
        # Over all processes.
        if not all(math.isfinite(numbers[name]) for name in pl_module.finite if name in numbers):
            raise NotFinite(pl_module.lost())
        self.curve.append(
            {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                **numbers,
                "seconds": self.clock.seconds,
            }
        )
        agreed = agree(trainer, self.lock, self.mirror)
        self._check_lock(agreed.signal)
        if trainer.is_global_zero:
            write_atomically(self.folder / "metrics.csv", pd.DataFrame(self.curve).to_csv(index=False))
        self.save(trainer)
        if self.mirror is not None:
            self.mirror.log(self.curve)
        if agreed.signal and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            raise Interrupted(agreed.signal, trainer.global_step)

    def _check_lock(self, number: int) -> None:
        if number == TAKEN_OVER:  # this process was suspended for a minute: the folder now belongs to another
            raise Busy(f"{self.folder}: another process has taken over this run")

    def save(self, trainer: pl.Trainer) -> None:
        """Write `last.ckpt`; all processes must call it."""
        self.step = trainer.global_step
        part = self.folder / "last.ckpt.part"
        trainer.save_checkpoint(part, weights_only=False)
        if trainer.is_global_zero:
            os.replace(part, self.folder / "last.ckpt")
        trainer.strategy.barrier("last.ckpt")
        self.saved_at = time.monotonic()
