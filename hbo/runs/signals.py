"""Signals that end a run well: noted from the first moment on, obeyed after a batch, once a checkpoint is written.

A scheduler may send its signal while the process still imports. It is not lost: training starts, saves and stops.
Only Ctrl-C (SIGINT) ends at once what has not begun to train. A signal that was obeyed is forgotten: the next run of the
same process, such as a notebook's, starts clean.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

PREEMPTION = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # W&B's and SLURM's, Lightning's, submitit's
ALL = (*PREEMPTION, signal.SIGINT, signal.SIGHUP)  # SIGHUP: the terminal is gone
noted = 0  # the signal to be obeyed
presses = 0  # of Ctrl-C


def listen() -> None:
    """Note the schedulers' signals from now on, and let Ctrl-C leave without a traceback."""
    _set(_note)
    signal.signal(signal.SIGINT, _leave)


def listen_to_all(patient: bool = False) -> dict[int, Any]:
    """Note Ctrl-C too; the handlers that were there before, for `restore`.

    Lightning's own SIGTERM handler talks to other processes inside it, which can hang. In a thread Python lets nobody set a
    handler: there nothing is listened to, and a signal is the main thread's to obey.

    Args:
        patient: any number of Ctrl-C is noted; else the second one raises KeyboardInterrupt.
    """
    return _set(_count if patient else _note)


def restore(former: dict[int, Any]) -> None:
    """Put handlers back, and forget what they noted."""
    global noted, presses
    for number, handler in former.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: set by another language
    if former:
        noted = presses = 0


def follow_parent() -> Callable[[], None]:
    """For `preexec_fn`: the process gets SIGTERM when its parent ends, even by SIGKILL (on Linux; elsewhere it does not)."""
    if sys.platform != "linux":
        return lambda: None
    import ctypes

    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def follow() -> None:
        prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it has just ended
            os._exit(128 + signal.SIGTERM)

    return follow


def _set(handler: Any) -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    unheeded = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()  # by nohup
    return {number: signal.signal(number, handler) for number in ALL if number not in unheeded}


def _count(number: int, frame: Any) -> None:
    global noted, presses
    noted, presses = number, presses + (number == signal.SIGINT)


def _note(number: int, frame: Any) -> None:
    hurried = noted and number == signal.SIGINT  # a second Ctrl-C does not wait for the batch
    _count(number, frame)
    if hurried:
        raise KeyboardInterrupt


def _leave(number: int, frame: Any) -> None:
    print("interrupted; the same command goes on from the last checkpoint, if there is one", file=sys.stderr)
    raise SystemExit(128 + number)
