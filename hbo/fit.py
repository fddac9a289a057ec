"""python -m hbo.fit: train one network on one data set and leave one row.

    python -m hbo.fit --k 2
    python -m hbo.fit --data imagenet --data_dir /data/imagenet --width 0.5 --devices 4

The folder OUT/STUDY/KEY/ gets config.yaml, metrics.csv, row.json, outcomes.npz and last.ckpt. A finished run is not
repeated, an unfinished one goes on from its last checkpoint: the same command does either.
"""

import logging
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hbo.runs import signals

if __name__ == "__main__":
    signals.listen()  # before the seconds of importing

from hbo import config, files, flags
from hbo.config import Run
from hbo.errors import DataError, UserError, one_line
from hbo.runs import rows
from hbo.runs.lock import Lock


def main(argv: list[str] | None = None) -> None:
    """The command line.

    Exit status: 0 done, 1 failed (the row says why), 2 wrong flag or data, 75 trained by another process, 128 + n at
    signal n.
    """
    run = flags.parse(argv)
    with one_line(), files.one_look():
        said = rows.summary(fit(run), rows.folder(run))
    print(said)


def fit(run: Run) -> dict[str, Any]:
    """Take over what is finished, here or in another study; else train, alone on this row.

    Images and backbone are looked at once: the key stays what it was when the run started.

    Raises:
        UserError: the run cannot be built, or its checkpoint is of another run.
        Busy: another process trains it.
        SystemExit: a signal, or a loss that is not finite.
    """
    with files.one_look():
        return _fit(run)


def _fit(run: Run) -> dict[str, Any]:
    from hbo.runs import cluster

    folder = rows.folder(run)
    if not cluster.is_first(run):
        if not run.force and ((rows.read(folder) or {}).get("state") == "done" or rows.elsewhere(run)):
            raise SystemExit(0)  # srun starts all; the first shows what is there
        return train(run, folder, None)
    row = finished(run, folder)
    if row is None:
        lock = Lock(folder)
        existed = folder.exists()
        try:
            lock.acquire()
            row = finished(run, folder)  # it may have ended a moment ago
            return train(run, folder, lock) if row is None else row
        finally:
            lock.release()
            if not existed and folder.exists() and not any(folder.iterdir()):
                folder.rmdir()  # refused before there was anything to keep
    return row


def finished(run: Run, folder: Path) -> dict[str, Any] | None:
    """The row, where this study or another has it done; W&B's agent, who asked for it, gets it too."""
    if run.force:
        return None
    row = rows.read(folder)
    if row and row["state"] == "done":
        rows.guard(row, rows.keyed(run), folder / "row.json", instead="--force runs it again")
    elif source := rows.elsewhere(run):
        row = rows.adopt(run, source)
    else:
        return None
    from hbo.runs import tracking

    if tracking.by_agent():
        tracking.mirror(run, folder, row)
    return row


def train(run: Run, folder: Path, lock: Lock | None) -> dict[str, Any]:
    """Train, evaluate the last epoch, write the row; all processes of the run are here, the first with the lock."""
    import numpy as np
    import pytorch_lightning as pl

    from hbo import cost
    from hbo.data.prefetch import prefetched
    from hbo.data.sampling import EvalBatches, TrainBatches, loader
    from hbo.nets import size
    from hbo.runs import checkpoint, tracking
    from hbo.runs.callbacks import Bar, Interrupted, Keep, NotFinite
    from hbo.tasks import build
    from hbo.tasks.base import lost

    prepare(run)
    data = build.open_data(run)
    pl.seed_everything(run.seed, verbose=False)
    steps = len(TrainBatches(len(data.train), run.batch, run.seed, limit=run.limit_batches))
    task = build.make(run, data, steps)
    costs = cost.count(task.net, run.size)["total"]  # refuses a resolution that is too small, before training

    changed = {}  # fields outside the key that an earlier part of the run had otherwise; its bits may differ
    last, keep = folder / "last.ckpt", Keep(folder, run.checkpoint_every)
    trainer = make_trainer(run, folder, [keep, Bar(rows.label(run.net, run.k, rows.built(task.net)["depths"]))])
    if run.force and lock and (rows.read(folder) or {}).get("state") == "done":  # the other ranks start after this one
        rows.set_aside(folder)
    if last.exists():
        saved = checkpoint.read(last).get("hyper_parameters", {})
        asked = rows.keyed(run) | {"num_classes": len(data.classes)}
        rows.guard(saved, asked, last, instead="remove it, or take another --out or --study")
        changed = {name: saved[name] for name in ("threads", "accelerator") if saved[name] != getattr(run, name)}
    row = asdict(run) | rows.provenance(run, trainer) | asdict(costs) | rows.built(task.net)
    if run.match_macs:
        assert run.divisor is not None
        _, row["matched_macs"] = size.width_for(run.match_macs, run.net, config.block_of(run), run.divisor, run.first_stage)
    row |= {
        "num_classes": len(data.classes),
        "train_images": len(data.train),
        "val_images": len(data.val),
        "steps_per_epoch": steps,
        "before_resuming": changed,
        **data.facts,
        **task.begin(),
    }
    if trainer.is_global_zero:
        assert lock is not None
        files.write_atomically(folder / "config.yaml", config.to_yaml(run))
        keep.mirror = tracking.Mirror(run, folder)
        row["wandb_mode"] = keep.mirror.mode
        if keep.mirror.id != row["key"]:
            row["wandb_run"] = keep.mirror.id
        rows.write(folder, row | {"state": "unfinished"})
        keep.lock, lock.progress = lock, keep.progress
    if run.compile:
        task.net.compile()

    share: dict[str, Any] = {"rank": trainer.global_rank, "world": run.world, "limit": run.limit_batches}
    train = task.train_batches(data.train, seed=run.seed, progress=lambda: trainer.global_step, **share)
    workers = data_workers(run, data.train.in_memory)
    device = trainer.strategy.root_device
    train_loader, val_loader = (
        prefetched(loader(images, order, workers), device)
        for images, order in ((data.train, train), (data.val, EvalBatches(len(data.val), run.batch, **share)))
    )
    try:
        trainer.fit(task, train_loader, val_loader, ckpt_path=last if last.exists() else None)
        if task.last_outcomes is None:  # taken up after its last epoch
            trainer.validate(task, val_loader, verbose=False)
            if lost(task.metrics(), task.finite):
                raise NotFinite(task.lost())
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # a second Ctrl-C, of which Lightning makes a 1
            raise KeyboardInterrupt from None
        raise
    except (Interrupted, NotFinite, DataError) as stop:
        if trainer.is_global_zero:
            state = {"state": "interrupted"} if isinstance(stop, Interrupted) else {"state": "failed", "error": str(stop)}
            rows.write(folder, row | state | {"resumed_at": keep.resumed_at, "seconds": keep.seconds})
            if keep.mirror is not None:
                keep.mirror.stopped(stop, keep.curve)
        elif not isinstance(stop, DataError):
            # All ranks are here; one that ends otherwise than well makes Lightning kill rank 0, which may still be writing.
            raise SystemExit(0) from None
        if not isinstance(stop, Interrupted):
            raise
        print(f"{stop}: saved in {last}; the same command goes on from there", file=sys.stderr)
        raise SystemExit(128 + stop.number) from None

    assert task.last_outcomes is not None
    if not trainer.is_global_zero:
        raise SystemExit(0)
    outcomes = {name: values.numpy() for name, values in task.last_outcomes.items()}
    seen = min(len(data.val), run.limit_batches * run.batch) if run.limit_batches else len(data.val)
    if len(outcomes["index"]) != seen:
        raise RuntimeError(f"{len(outcomes['index'])} images were evaluated, not {seen}")
    row |= task.metrics() | task.columns()
    row |= {"val_images_seen": len(outcomes["index"]), "resumed_at": keep.resumed_at, "seconds": keep.seconds}
    row |= {"images_per_second": keep.images / keep.busy if keep.busy else None, "state": "done"}
    np.savez_compressed(folder / "outcomes.npz", allow_pickle=False, **outcomes)
    rows.write(folder, row)
    if keep.mirror is not None:
        keep.mirror.finish(row)
    return row


def prepare(run: Run) -> None:
    """Threads, memory and warnings of this process."""
    import torch

    from hbo.kernels import allocator

    quieten()
    allocator.keep_freed_memory()
    torch.set_num_threads(run.threads)


def make_trainer(run: Run, folder: Path, callbacks: list[Any]):
    """Lightning's trainer, its own logging, sampling and checkpoints off: ours are exact on resume."""
    import pytorch_lightning as pl
    import torch
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from pytorch_lightning.strategies import DDPStrategy

    from hbo.runs import cluster

    on_cpu = run.accelerator == "cpu" or (run.accelerator == "auto" and not torch.accelerator.is_available())
    if run.precision == "16-mixed" and on_cpu:  # Lightning would take bf16-mixed
        raise UserError("precision=16-mixed: needs a GPU; take bf16-mixed on a CPU")
    try:
        return pl.Trainer(
            max_epochs=run.all_epochs,
            accelerator=run.accelerator,
            devices=run.devices,
            num_nodes=run.num_nodes,
            # Rank 0's batch norm is the run's: no broadcast before each batch, but one before each evaluation (see Task).
            strategy=DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
            if run.strategy == "ddp" or run.world > 1
            else "auto",
            precision=run.precision,
            logger=False,
            plugins=cluster.plugins(run),
            callbacks=callbacks,
            enable_progress_bar=bool(callbacks),
            enable_checkpointing=bool(callbacks),
            default_root_dir=folder,  # one root a run: under SLURM Lightning loads the newest checkpoint of it by itself
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
        )
    except MisconfigurationException as error:
        raise UserError(f"accelerator={run.accelerator}, devices={run.devices}: {str(error).splitlines()[0]}") from None


def data_workers(run: Run, in_memory: bool) -> int:
    """`run.workers`, or the cores that training leaves over, at most 8."""
    from hbo.runs import cluster

    if run.workers is not None:
        return run.workers
    return 0 if in_memory else max(1, min(8, cluster.cores_a_process(run.devices) - 1))


def quieten() -> None:
    """Leave Lightning's notices out: what they say is said in the row, or does not hold here."""
    import pytorch_lightning  # noqa: F401  # importing it sets its loggers' levels: later, it would undo this

    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*your dataloader is not resumable.*",  # order is a function of the updates done (sampling.py)
        ".*does not have many workers.*",
        ".*This DataLoader will create .* worker processes.*",  # as asked
        ".*could be improved by increasing the value of the `num_workers`.*",
        ".*GPU available but not used.*",
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*`srun` command is available on your system but is not used.*",  # cluster.py says what Lightning must know
        ".*isinstance.treespec, LeafSpec.*",  # Lightning's own use of torch
    ):
        warnings.filterwarnings("ignore", message)


if __name__ == "__main__":
    main()
