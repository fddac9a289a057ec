"""The progress bar of a run."""

import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm


class Bar(ProgressBar):
    """One bar over the whole run, with the time left, the loss and the task's latest metric."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label, self.bar, self.hidden = label, None, False

    def disable(self) -> None:  # Lightning calls it on all ranks except the first
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

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.bar is not None
        if self.bar.update(1) and pl_module.on_cpu:
            self.bar.set_postfix(
                self._numbers(trainer, pl_module) | {"loss": f"{float(outputs['loss'].detach()):.3f}"},
                refresh=False,
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

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.teardown(trainer, pl_module, "")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()
