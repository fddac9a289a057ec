"""A SLURM job of a study: it trains its row, or several rows that share its device, each in a process of its
own.
"""

import os
import signal
import subprocess
import time
from typing import Any

from hbo.runs import code, signals
from hbo.runs.lock import BEAT, BUSY, STALE


class Fit:
    """Runs as a job for submitit: `hbo.fit` in a process of its own for each, in each task.

    Args:
        runs: the fields of each; those of several run at once.
    """

    def __init__(self, *runs: dict[str, Any]) -> None:
        self.runs = runs
        self.processes: list[subprocess.Popen] = []

    def __call__(self) -> str:
        """Train; "done" (or stopped in W&B), or "busy" if another process does.

        The lock of a process that SLURM killed on another node counts for a minute: a requeued job waits for
        it.

        Raises:
            RuntimeError: a run failed; its last line is above in the job's log.
        """
        end = time.monotonic() + STALE + 2 * BEAT if os.environ.get("SLURM_RESTART_COUNT") else 0.0
        codes = self._train(self.runs)
        while BUSY in codes and time.monotonic() < end:
            time.sleep(BEAT)
            busy = [run for run, code in zip(self.runs, codes, strict=True) if code == BUSY]
            again = iter(self._train(busy))
            codes = [next(again) if code == BUSY else code for code in codes]
        # Preempted, or cancelled: SLURM says which by what it does next.
        if any(code - 128 in signals.PREEMPTION for code in codes):
            time.sleep(900)
        if failed := [code for code in codes if code not in (0, BUSY)]:
            raise RuntimeError(f"hbo.fit ended with exit status {failed[0]}")
        return "busy" if BUSY in codes else "done"

    def _train(self, runs: Any) -> list[int]:
        """Exit statuses of `hbo.fit`."""

        # Until the child listens: SLURM signals all processes of a job, its first moment included.
        def ignore() -> None:
            for number in signals.PREEMPTION:
                signal.signal(number, signal.SIG_IGN)

        place = dict(os.environ)
        if len(self.runs) > 1:
            from hbo.runs.cluster import SHARED  # torch, for seconds

            place[SHARED] = str(len(self.runs))
        self.processes = [subprocess.Popen(code.fit(run), preexec_fn=ignore, env=place) for run in runs]
        while not all(map(_over, self.processes)):
            time.sleep(0.2)
        return [process.wait() for process in self.processes]

    def checkpoint(self) -> Any:
        """What submitit calls at its signal, to requeue the job: let the runs save themselves first."""
        from submitit.helpers import DelayedSubmission

        for process in self.processes:
            if not _over(process):
                process.send_signal(signal.SIGUSR1)
        while not all(map(_over, self.processes)):
            time.sleep(0.1)
        return DelayedSubmission(Fit(*self.runs))


def _over(process: subprocess.Popen) -> bool:
    # Not poll(): submitit calls `checkpoint` inside a signal handler, and Popen's lock is not for that.
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
