"""Reasons to stop a training before its last epoch, and how all its processes stop at the same batch."""

import signal
from typing import NamedTuple

import pytorch_lightning as pl
import torch

from hbo.errors import UserError
from hbo.runs import signals
from hbo.runs.lock import Lock
from hbo.runs.tracking import Mirror

TAKEN_OVER = 99  # sent among processes like a signal: another process has the lock


class Interrupted(Exception):
    """A signal stopped the run after a checkpoint was written."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"{signal.Signals(number).name} at update {step}")
        self.number, self.step = number, step


class NotFinite(UserError):
    """The training loss is infinite or not a number."""

    status = 1


class Agreed(NamedTuple):
    """What all processes of a run know after synchronising."""

    signal: int
    """The signal that any of them got: 0 none, `TAKEN_OVER` if rank 0 has lost its lock."""
    due: bool
    """A checkpoint is due on rank 0."""
    lost: bool
    """The loss of any process is not finite."""


def agree(
    trainer: pl.Trainer, lock: Lock | None, mirror: Mirror | None, due: bool = False, lost: bool = False
) -> Agreed:
    """Synchronise all processes; each must call it at the same batch. Recorded signals are acted on here.

    Args:
        trainer: the run's.
        lock: the run's, in rank 0.
        mirror: the W&B run, in rank 0; a stop there counts as a SIGTERM.
        due: whether a checkpoint is due.
        lost: whether the loss is not finite.
    """
    number = signals.noted
    if mirror is not None and mirror.asked_to_stop:
        number = number or int(signal.SIGTERM)
    if lock is not None and lock.lost:
        number = TAKEN_OVER
    if trainer.world_size == 1:
        return Agreed(number, due, lost)
    flags = torch.tensor([number, due and trainer.is_global_zero, lost], device=trainer.strategy.root_device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return Agreed(int(flags[0]), bool(flags[1]), bool(flags[2]))
