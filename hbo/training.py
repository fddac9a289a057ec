"""Train one run: prepare, loop, finish. `hbo.fit` calls it if the run is not finished yet."""

import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from hbo import config, files
from hbo.config import Run
from hbo.data.audit import names_of
from hbo.data.prefetch import prefetched
from hbo.data.sampling import EvalBatches, TrainBatches, loader
from hbo.errors import DataError, plain
from hbo.nets import counting, size
from hbo.runs import cluster, pictures, rows, summary, tracking, weights
from hbo.runs.bar import Bar
from hbo.runs.callbacks import Checkpointing
from hbo.runs.lock import Lock
from hbo.runs.seen import outside_val
from hbo.runs.stopping import Interrupted, NotFinite
from hbo.runs.trainer import make_trainer, prepare_process
from hbo.tasks import TASKS, build
from hbo.tasks.base import lost


def train(run: Run, folder: Path, lock: Lock | None) -> dict[str, Any]:
    """Train, evaluate the last epoch, write the row. Called in all processes of the
    run; the first holds the lock.

    Raises:
        UserError: the run cannot be built, its checkpoint belongs to another run, or its loss is not finite.
        SystemExit: a signal, after a checkpoint; and in every process but the first, at the end.
    """
    session = TrainingSession(run, folder, lock)
    session.loop()
    return session.finish()


class TrainingSession:
    """One training; the constructor prepares data, network, trainer and an unfinished row.

    Args:
        run: all fields.
        folder: of the run.
        lock: of the folder, in the first process.
    """

    def __init__(self, run: Run, folder: Path, lock: Lock | None) -> None:
        self.run, self.folder = run, folder
        prepare_process(run)
        self.data = build.open_data(run)
        pl.seed_everything(run.seed, verbose=False)
        self.steps = len(TrainBatches(len(self.data.train), run.batch, run.seed, limit=run.limit_batches))
        self.task = build.make(run, self.data, self.steps)
        # Raises before training if the resolution is too small.
        costs = counting.count(self.task.net, run.size)["total"]
        self.last, self.checkpointing = (
            folder / "last.ckpt",
            Checkpointing(folder, run.checkpoint_every, run.log_every),
        )
        bar = Bar(summary.label(run.net, run.k, rows.built(self.task.net)["depths"]))
        self.trainer = make_trainer(run, folder, [self.checkpointing, bar])
        # The other ranks start after this one.
        again = run.force and lock and (rows.read(folder) or {}).get("state") == "done"
        aside = rows.set_aside(folder) if again else None
        try:
            self._begin(costs, lock)
        except BaseException:
            if aside:
                rows.bring_back(aside, folder)
            raise
        if aside:
            print(f"the former run is in {aside}", file=sys.stderr)
        if run.compile:
            self.task.net.compile()

    def _begin(self, costs: Any, lock: Lock | None) -> None:
        """Check the checkpoint, write the unfinished row, and open the run in W&B."""
        run, before_resuming = self.run, self._check_checkpoint()
        self.row = (
            asdict(run) | rows.provenance(run, self.trainer) | asdict(costs) | rows.built(self.task.net)
        )
        self.row |= self._facts() | {"before_resuming": before_resuming} | self.data.facts | self.task.begin()
        if arm := run.backbone_arm():
            self.row["backbone_arm"] = arm
        if self.trainer.is_global_zero:
            assert lock is not None
            self.row |= self._seen_by_others()
            self._begin_row(lock)
            if told := TASKS[run.task].advice(run):
                print(told, file=sys.stderr)

    def _seen_by_others(self) -> dict[str, int]:
        """Columns about a backbone or a teacher that may have seen validation images; warns of it."""
        run, found = self.run, {}
        start = run.backbone_checkpoint and run.start_file()
        for name, file in (("backbone_checkpoint", start), ("distill", run.distill)):
            path = None if file is None else files.located(file)
            new = path and outside_val(run, names_of(self.data.val, run.data_dir), path)
            if new is None:
                continue
            found[rows.VAL_NOT_IN[name][0]] = new
            if new:
                were = "was" if new == 1 else "were"
                print(
                    f"warning: {name}={getattr(run, name)}: {new} of the {len(self.data.val)} validation"
                    f" images {were} not validation images of that run, which may have been trained on them;"
                    " make train/ and val/ yourself, with only that run's validation images and new"
                    " photographs in val/",
                    file=sys.stderr,
                )
        return found

    def _check_checkpoint(self) -> dict[str, Any]:
        """Fields outside the key that differed in an earlier part of the run, so that bits may differ.

        Raises:
            UserError: the checkpoint in the folder belongs to another run.
        """
        if not self.last.exists():
            return {}
        run = self.run
        content = weights.read(self.last)
        saved = content.get("hyper_parameters", {})
        asked = rows.keyed(run) | {"num_classes": len(self.data.classes)}
        # A published set is identified by its counts: its folders may have been renamed.
        if "classes" in content:
            saved, asked = saved | {"classes": content["classes"]}, asked | {"classes": self.data.classes}
        rows.check_same_fields(saved, asked, self.last, instead="remove it, or use another --out or --study")
        return {name: saved[name] for name in ("threads", "accelerator") if saved[name] != getattr(run, name)}

    def _facts(self) -> dict[str, Any]:
        """The row's columns about the data and, with match_macs, about the multiply-adds reached."""
        run, facts = self.run, {}
        if run.match_macs:
            assert run.divisor is not None
            _, met = size.width_for(
                run.match_macs, run.net, config.block_of(run), run.divisor, run.first_stage
            )
            facts["matched_macs"] = met
        return facts | {
            "num_classes": len(self.data.classes),
            "train_images": len(self.data.train),
            "val_images": len(self.data.val),
            "steps_per_epoch": self.steps,
        }

    def _begin_row(self, lock: Lock) -> None:
        checkpointing = self.checkpointing
        files.write_atomically(self.folder / "config.yaml", config.to_yaml(self.run))
        checkpointing.mirror = tracking.Mirror(self.run, self.folder)
        self.row["wandb_mode"] = checkpointing.mirror.mode
        if checkpointing.mirror.id != self.row["key"] and not tracking.by_agent():  # it chooses the id
            self.row["wandb_run"] = checkpointing.mirror.id
        rows.write(self.folder, self.row | {"state": "unfinished"})
        checkpointing.lock, lock.progress = lock, checkpointing.progress

    def loop(self) -> None:
        """Train from the last checkpoint, and evaluate.

        Raises:
            NotFinite, DataError: the row says so.
            SystemExit: a signal.
        """
        train_loader, val_loader = self._loaders()
        try:
            with build.advised(self.run):
                self.trainer.fit(
                    self.task, train_loader, val_loader, ckpt_path=self.last if self.last.exists() else None
                )
                if self.task.last_outcomes is None:  # resumed after its last epoch
                    self.trainer.validate(self.task, val_loader, verbose=False)
                    if lost(self.task.metrics(), self.task.finite):
                        raise NotFinite(self.task.lost())
        except SystemExit as stop:
            # A second Ctrl-C, which Lightning turns into status 1.
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise stop.__context__ from None
            raise
        except Interrupted as stop:
            if self._stopped(stop):
                print(summary.stopped(self.row, self.folder), file=sys.stderr)
                raise SystemExit(
                    0
                ) from None  # stopped on request; an agent counts any other status as a failure, and gives up
            print(f"{stop}: saved in {self.last}; the same command resumes from there", file=sys.stderr)
            raise SystemExit(128 + stop.number) from None
        except (NotFinite, DataError) as stop:
            self._stopped(stop)
            raise
        except Exception as stop:
            mirror = self.checkpointing.mirror
            # wandb.agent(function=...) raises this in the thread of a function whose run was stopped.
            if type(stop) is Exception and mirror is not None and mirror.was_stopped(signal.SIGTERM):
                self._stopped(Interrupted(signal.SIGTERM, self.checkpointing.step))
            raise

    def _loaders(self) -> tuple[Any, Any]:
        run, data = self.run, self.data
        share: dict[str, Any] = {
            "rank": self.trainer.global_rank,
            "world": run.world,
            "limit": run.limit_batches,
        }
        train = self.task.train_batches(
            data.train, seed=run.seed, progress=lambda: self.trainer.global_step, **share
        )
        val = EvalBatches(len(data.val), run.batch, **share)
        workers = cluster.data_workers(run, data.train.in_memory)
        device = self.trainer.strategy.root_device
        return (
            prefetched(loader(data.train, train, workers), device),
            prefetched(loader(data.val, val, workers), device),
        )

    def _stopped(self, stop: Exception) -> bool:
        """Write the row of a run that ended early, and tell W&B. Returns whether W&B asked for the end.

        The other processes exit with 0 if the first still has work to do.
        """
        if self.trainer.is_global_zero:
            state = (
                {"state": "interrupted"}
                if isinstance(stop, Interrupted)
                else {"state": "failed", "error": plain(stop)}
            )
            self.row |= self.checkpointing.facts()
            rows.write(self.folder, self.row | state)  # first, as a server may be slow
            mirror = self.checkpointing.mirror
            if mirror is not None and isinstance(stop, Interrupted) and mirror.was_stopped(stop.number):
                self.row |= {"state": "stopped", "stopped_at": stop.step}
                rows.write(self.folder, self.row)
                mirror.log(self.checkpointing.curve)
                mirror.finish(self.row, tracking.KILLED)
                return True
            if mirror is not None:
                mirror.stopped(stop, self.checkpointing.curve)
        elif not isinstance(stop, DataError):
            # All ranks are here; if one exits with a non-zero status, Lightning kills rank 0, which may
            # still be writing.
            raise SystemExit(0) from None
        return False

    def finish(self) -> dict[str, Any]:
        """The row of the finished run, and its outcomes per image in `outcomes.npz`."""
        task, run, n = self.task, self.run, len(self.data.val)
        assert task.last_outcomes is not None
        if not self.trainer.is_global_zero:
            raise SystemExit(0)
        outcomes = {name: values.numpy() for name, values in task.last_outcomes.items()}
        seen = min(n, run.limit_batches * run.batch) if run.limit_batches else n
        if len(outcomes["index"]) != seen:
            raise RuntimeError(f"{len(outcomes['index'])} images were evaluated, not {seen}")
        row = self.row | task.metrics() | task.columns()
        row |= {"val_images_seen": seen, **self.checkpointing.facts()}
        row |= {"images_per_second": self.checkpointing.clock.images_per_second, "state": "done"}
        if names := names_of(self.data.val, run.data_dir):
            outcomes["name"] = np.array([names[place] for place in outcomes["index"]])
        np.savez_compressed(self.folder / "outcomes.npz", allow_pickle=False, **outcomes)
        rows.write(self.folder, row)
        if (mirror := self.checkpointing.mirror) is not None:
            if run.wandb_media:
                pictures.send(mirror, run, self.folder, self.checkpointing.step)
            mirror.finish(row)
        return row
