"""What ends a training before its last epoch, and how all of its processes end at the same batch."""

import signal
from typing import NamedTuple

import pytorch_lightning as pl
import torch

from hbo.errors import UserError
from hbo.runs import signals
from hbo.runs.lock import Lock
from hbo.runs.tracking import Mirror

TAKEN_OVER = 99  # among the signals that processes tell each other: the lock is another's


class Interrupted(Exception):
    """A signal ended the run after a checkpoint was written."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"{signal.Signals(number).name} at update {step}")
        self.number, self.step = number, step


class NotFinite(UserError):
    """The training loss is infinite or not a number."""

    status = 1


class Agreed(NamedTuple):
    """What all processes of a run know after they have looked at each other."""

    signal: int
    """That any of them got: 0 none, `TAKEN_OVER` where rank 0 has lost its lock."""
    due: bool
    """Rank 0 finds a checkpoint due."""
    lost: bool
    """The loss of any of them is not finite."""


def agree(trainer: pl.Trainer, lock: Lock | None, mirror: Mirror | None, due: bool = False, lost: bool = False) -> Agreed:
    """Ask all processes; each must call it at the same batch. Signals are only noted, and obeyed here.

    Args:
        trainer: of the run.
        lock: of the run, in rank 0.
        mirror: the W&B run, in rank 0; that it was stopped counts as a SIGTERM.
        due: a checkpoint is.
        lost: the loss is not finite.
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
