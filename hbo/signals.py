"""Signals that end a run well: noted from the first moment on, obeyed after a batch, once a checkpoint is written.

A scheduler may send its signal while the process still imports. It is not lost: training starts, saves and stops.
Only Ctrl-C (SIGINT) ends at once what has not begun to train.
"""

import signal
import sys
from typing import Any

PREEMPTION = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # W&B's and SLURM's, Lightning's, submitit's
noted = 0  # the signal to be obeyed


def listen() -> None:
    """Note the schedulers' signals from now on, and let Ctrl-C leave without a traceback."""
    for number in PREEMPTION:
        signal.signal(number, _note)
    signal.signal(signal.SIGINT, _leave)


def listen_to_all() -> dict[int, Any]:
    """Note Ctrl-C too; the handlers that were there before, for `restore`.

    Lightning's own SIGTERM handler talks to other processes inside it, which can hang.
    """
    return {number: signal.signal(number, _note) for number in (*PREEMPTION, signal.SIGINT)}


def restore(former: dict[int, Any]) -> None:
    """Put handlers back."""
    for number, handler in former.items():
        signal.signal(number, handler)


def _note(number: int, frame: Any) -> None:
    global noted
    if noted and number == signal.SIGINT:  # a second Ctrl-C does not wait for the batch
        raise KeyboardInterrupt
    noted = number


def _leave(number: int, frame: Any) -> None:
    print("interrupted; the same command goes on from the last checkpoint, if there is one", file=sys.stderr)
    raise SystemExit(128 + number)
