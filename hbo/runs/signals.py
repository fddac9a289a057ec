"""Signals that stop a run cleanly: recorded from the start, acted on after a batch,
once a checkpoint is written.

A scheduler may send its signal while the process is still importing. It is not lost: training starts, saves
and stops. Only Ctrl-C (SIGINT) ends a process at once before training. After a signal has been acted on it is
cleared, so that the next run in the same process, such as a notebook's, starts clean.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PREEMPTION = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # W&B's and SLURM's, Lightning's, submitit's
ALL = (*PREEMPTION, signal.SIGINT, signal.SIGHUP)  # SIGHUP: the terminal is gone
RESUMES = "the same command resumes from the last checkpoint, if there is one"
noted = 0  # the signal to act on
listening = 0  # the process that acts on it; its children that load images do not
presses = 0  # of Ctrl-C


def listen() -> None:
    """Record the schedulers' signals from now on, and let Ctrl-C exit without a traceback."""
    _set(_note)
    signal.signal(signal.SIGINT, _leave)


def listen_to_all(patient: bool = False) -> dict[int, Any]:
    """Record Ctrl-C too. Returns the previous handlers, for `restore`.

    Lightning's own SIGTERM handler communicates with other processes, which can hang. Outside the main thread
    Python allows no handler: then no signal is recorded, and the main thread must act on it.

    Args:
        patient: record any number of Ctrl-C; else the second one raises KeyboardInterrupt.
    """
    return _set(_count if patient else _note)


def restore(former: dict[int, Any]) -> None:
    """Restore handlers, and clear recorded signals."""
    global noted, presses
    for number, handler in former.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python
    if former:
        noted = presses = 0


@contextmanager
def hurried(grace: float) -> Iterator[None]:
    """While this is open, a signal that arrives after `grace` seconds ends the wait. For the main thread.

    Raises:
        TimeoutError: it did.
    """
    end = time.monotonic() + grace

    def hurry(number: int, frame: Any) -> None:
        _count(number, frame)
        if time.monotonic() > end:
            raise TimeoutError(f"{signal.Signals(number).name} ended the waiting")

    former = _set(hurry)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def follow_parent() -> Callable[[], None]:
    """For `preexec_fn`: on Linux, the process gets SIGTERM when its parent ends, even by SIGKILL."""
    if sys.platform != "linux":
        return lambda: None
    import ctypes

    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def follow() -> None:
        prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # the parent has just ended
            os._exit(128 + signal.SIGTERM)

    return follow


def _set(handler: Any) -> dict[int, Any]:
    global listening
    listening = os.getpid()
    if threading.current_thread() is not threading.main_thread():
        return {}
    unheeded = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()  # nohup
    return {number: signal.signal(number, handler) for number in ALL if number not in unheeded}


SAVING = (
    b"\nCtrl-C: saving after this batch, and after the evaluation if it ends the epoch;"
    b" again: stop without saving\n"
)


def _count(number: int, frame: Any) -> None:
    global noted, presses
    noted, presses = number, presses + (number == signal.SIGINT)


def _note(number: int, frame: Any) -> None:
    hurried = noted and number == signal.SIGINT  # a second Ctrl-C does not wait for the batch
    _count(number, frame)
    if hurried:
        raise KeyboardInterrupt("interrupted without saving; " + RESUMES)
    if number == signal.SIGINT and os.getpid() == listening:
        os.write(2, SAVING)


def _leave(number: int, frame: Any) -> None:
    print(f"interrupted; {RESUMES}", file=sys.stderr)
    raise SystemExit(128 + number)
