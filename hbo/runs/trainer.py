"""Lightning's trainer for a run, and the settings of this process."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.strategies import DDPStrategy

from hbo.config import Run
from hbo.errors import UserError
from hbo.kernels import allocator
from hbo.runs import cluster


def prepare_process(run: Run) -> None:
    """Threads, memory and warnings of this process."""
    quieten()
    allocator.keep_freed_memory()
    torch.set_num_threads(run.threads)


def slowed(threads: int) -> str:
    """A hint on a busy machine, where threads that share a core wait for each other; empty on an idle one."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if threads == 1 or load <= cores:
        return ""
    return (
        f"the load is {load:.1f} on {cores} cores: with --threads 1 a run may be many times as fast; Ctrl-C,"
        " then the same command with --threads 1, resumes it"
    )


def make_trainer(run: Run, folder: Path, callbacks: list[Any]):
    """Lightning's trainer without its logging, sampling and checkpoints; ours resume exactly."""
    on_cpu = run.accelerator == "cpu" or (run.accelerator == "auto" and not torch.accelerator.is_available())
    if run.precision == "16-mixed" and on_cpu:  # Lightning would use bf16-mixed
        raise UserError("precision=16-mixed: needs a GPU; use bf16-mixed on a CPU")
    has = torch.backends.cpu.get_cpu_capability()
    if run.precision == "bf16-mixed" and on_cpu and "AVX512" not in has:
        print(
            f"precision=bf16-mixed: this processor ({has}) has no bf16 instructions, so this may be slower"
            " than --precision 32-true",
            file=sys.stderr,
        )
    if callbacks and on_cpu and cluster.is_first(run) and (slow := slowed(run.threads)):
        print(slow, file=sys.stderr)
    try:
        return pl.Trainer(
            max_epochs=run.all_epochs,
            accelerator=run.accelerator,
            devices=run.devices,
            num_nodes=run.num_nodes,
            # Rank 0's batch norm is the run's: it is broadcast before each evaluation, not before each batch
            # (see TaskModule).
            strategy=DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
            if run.strategy == "ddp" or run.world > 1
            else "auto",
            precision=run.precision,
            gradient_clip_val=run.grad_clip or None,
            logger=False,
            plugins=cluster.plugins(run),
            callbacks=callbacks,
            enable_progress_bar=bool(callbacks),
            enable_checkpointing=bool(callbacks),
            default_root_dir=folder,  # one per run: under SLURM Lightning loads the newest checkpoint in it
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
        )
    except MisconfigurationException as error:
        raise UserError(
            f"accelerator={run.accelerator}, devices={run.devices}: {str(error).splitlines()[0]}"
        ) from None


def quieten() -> None:
    """Silence Lightning's notices: the row has the information, or it does not apply here."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*your dataloader is not resumable.*",  # the order depends only on the updates done (sampling.py)
        ".*does not have many workers.*",
        ".*This DataLoader will create .* worker processes.*",  # as asked
        ".*could be improved by increasing the value of the `num_workers`.*",
        ".*GPU available but not used.*",
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*`srun` command is available on your system but is not used.*",  # cluster.py configures SLURM
        ".*isinstance.treespec, LeafSpec.*",  # from Lightning's own code
    ):
        warnings.filterwarnings("ignore", message)
