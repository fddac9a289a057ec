"""Lightning's own callbacks and loggers work with our tasks: they get an epoch's values under the learning
curve's names.
"""

import pandas as pd
import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from hbo.config import resolve
from hbo.data.sampling import EvalBatches, TrainBatches, loader
from hbo.runs.trainer import quieten
from hbo.tasks import build
from hbo.tasks.build import open_data

EPOCHS, BATCHES = 3, 4


def _train(tmp_path, callbacks: list, **settings):
    quieten()
    run = resolve(
        data="digits",
        epochs=EPOCHS,
        batch=64,
        width=0.1,
        k=1,
        threads=1,
        limit_batches=BATCHES,
        accelerator="cpu",
    )
    data = open_data(run)
    pl.seed_everything(0, verbose=False)
    task = build.make(run, data, BATCHES)
    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", callbacks=callbacks, default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False, **settings,
    )  # fmt: skip
    train = TrainBatches(
        len(data.train), run.batch, run.seed, limit=BATCHES, progress=lambda: trainer.global_step
    )
    evaluated = EvalBatches(len(data.val), run.batch, limit=BATCHES)
    trainer.fit(task, loader(data.train, train, 0), loader(data.val, evaluated, 0))
    return trainer, task


def test_a_model_checkpoint_keeps_the_best_epoch_and_a_logger_has_the_curve(tmp_path):
    best = ModelCheckpoint(tmp_path / "best", monitor="val/top1", mode="max", filename="{epoch}")
    trainer, task = _train(
        tmp_path,
        [best, LearningRateMonitor("step")],
        logger=CSVLogger(tmp_path, name="csv"),
        log_every_n_steps=1,
    )
    table = pd.read_csv(tmp_path / "csv" / "version_0" / "metrics.csv")
    by_epoch = table.dropna(subset=["val/top1"]).set_index("epoch")
    assert list(by_epoch.index) == list(range(EPOCHS))
    assert best.best_model_score == pytest.approx(by_epoch["val/top1"].max())
    assert best.best_model_path.endswith(f"epoch={int(by_epoch['val/top1'].idxmax())}.ckpt")
    # the callbacks saw each value of the curve's last point
    assert {"train/loss", "lr", "val/loss", "val/top1"} <= task.curve_point.keys()
    for name, value in task.curve_point.items():
        assert float(trainer.callback_metrics[name]) == pytest.approx(value, rel=1e-6)
    assert table["lr-SGD"].notna().sum() == EPOCHS * BATCHES
    assert not [name for name in table if name.endswith(("_step", "_epoch"))]


def test_early_stopping_stops(tmp_path):
    never_better = EarlyStopping("val/top1", mode="max", min_delta=2.0, patience=1)
    trainer, _ = _train(tmp_path, [never_better], logger=False, enable_checkpointing=False)
    assert never_better.stopped_epoch == 1
    assert trainer.global_step == 2 * BATCHES
