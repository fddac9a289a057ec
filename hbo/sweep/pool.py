"""The runs of a study on this machine: each a process of its own, on a group of GPUs or a share of the cores.

Other launchers of the same study, here or on another machine, share it: a run's lock (hbo/runs/lock.py) lets
one process train it, and the others take the next.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hbo.errors import UserError
from hbo.runs import cluster, code, labels, signals
from hbo.runs.lock import BUSY
from hbo.sweep import plan
from hbo.sweep.board import Board
from hbo.sweep.elsewhere import Elsewhere
from hbo.sweep.plan import OVER, UNFINISHED, Entry
from hbo.sweep.study import Sweep
from hbo.text import counted

LOOK = 0.5  # seconds between looks at the processes
LOOK_FAR = 5.0  # and at the folders, which may lie on another machine's disk
PATIENCE = 90.0  # seconds for a run to save itself after Ctrl-C


@dataclass
class Worker:
    """A run's process, and the place that it takes."""

    entry: Entry
    process: subprocess.Popen
    place: dict[str, str]
    began: float = field(default_factory=time.monotonic)


def run(
    study: Sweep,
    runs: list[Entry],
    workers: int | None,
    retries: int,
    max_failures: float,
    on_a_device: int = 1,
) -> int:
    """Train what is not done, and wait for what others train; the exit status.

    However this ends (a signal, an error, a kill), the processes that it started save themselves and end with
    it.

    Args:
        study: for its name.
        runs: all of it.
        workers: runs at once; None: as many as there are places.
        retries: restarts of a run that ended without saying why (killed, out of memory).
        max_failures: no more runs are started after this many failed ones in a row; below 1, after more than
            this share of all runs.
        on_a_device: runs that share a GPU, or the GPUs of a run of several.

    Raises:
        UserError: fewer GPUs than a run needs.
    """
    pool = Workers(runs, places(runs, workers, on_a_device), retries, max_failures)
    for entry in runs:
        plan.reuse(entry)
        plan.run_again(entry)
    former = signals.listen_to_all(patient=True)
    try:
        with Board(study.name, runs, len(pool.free)) as board:
            try:
                while pool.goes_on():
                    board.update()
                    time.sleep(LOOK)
            finally:
                if pool.busy or signals.noted:
                    stop(pool.busy, board)
        if signals.noted:
            return 128 + signals.noted
    finally:
        signals.restore(former)
    plan.say_stopped(runs)
    failed = sum(entry.state == "invalid" or pool.failed_here(entry) for entry in runs)
    if pool.halted:
        print(
            f"stopped after {failed} failed runs (--max_failures {max_failures:g}); the same call continues",
            file=sys.stderr,
        )
    return 1 if failed else 0


class Workers:
    """The runs of a study, and the processes that work on them; `run` has the arguments."""

    def __init__(
        self, runs: list[Entry], free: list[dict[str, str]], retries: int, max_failures: float
    ) -> None:
        self.runs, self.free, self.retries, self.max_failures = runs, free, retries, max_failures
        self.tries: dict[str, int] = {}
        self.busy: list[Worker] = []
        self.halted, self.looked = False, 0.0
        self.elsewhere = Elsewhere()
        self.names = plan.varying(runs)
        self.in_a_row = 0  # failed runs since the last good one

    def failed_here(self, entry: Entry) -> bool:
        """Whether it failed in this call, and so is not started again."""
        return entry.state == "failed" and entry.key in self.tries

    def _failed_too_often(self) -> bool:
        if self.max_failures >= 1:
            return self.in_a_row >= self.max_failures
        return sum(map(self.failed_here, self.runs)) > self.max_failures * len(self.runs)

    def goes_on(self) -> bool:
        """Take note of what has ended and start what may be; False if nothing is left to wait for, or at a
        signal.
        """
        for worker in [w for w in self.busy if w.process.poll() is not None]:
            self.busy.remove(worker)
            self.free.append(worker.place)
            ended(worker, self.tries, self.retries)
            self.in_a_row = (
                0 if worker.entry.state in OVER else self.in_a_row + self.failed_here(worker.entry)
            )
        mine = {id(worker.entry) for worker in self.busy}
        if time.monotonic() - self.looked > LOOK_FAR:  # what others do; how far ours are
            self.looked = time.monotonic()
            self.elsewhere.look(self.runs)
            for entry in self.runs:
                begun = entry.state != "missing" or str(entry.key) in self.elsewhere.folders
                if begun and entry.state in ("running", *UNFINISHED) and not self.failed_here(entry):
                    watch(entry, self.elsewhere, id(entry) in mine)
        self.halted = self.halted or self._failed_too_often()
        todo = [entry for entry in self.runs if entry.state in UNFINISHED and not self.failed_here(entry)]
        while todo and self.free and not self.halted and not signals.noted:
            entry = todo.pop(0)
            watch(entry, self.elsewhere, False)  # another may have it since
            if entry.state in UNFINISHED:
                self.busy.append(start(entry, self.free.pop(0), self.names))
                self.tries.setdefault(entry.key or "", 0)
        if signals.noted:
            return False
        mine = {id(worker.entry) for worker in self.busy}
        others = any(entry.state == "running" and id(entry) not in mine for entry in self.runs)
        return bool(self.busy or (not self.halted and (todo or others)))


def places(runs: list[Entry], workers: int | None, on_a_device: int = 1) -> list[dict[str, str]]:
    """The environment of each place for a run: its GPUs, or its threads.

    Args:
        runs: all of a study.
        workers: runs at once; None: as many as there are places.
        on_a_device: places per GPU, or per group of the GPUs that a run takes.

    Raises:
        UserError: more devices than there are, or several places on a device and no GPU.
    """
    wanted = [entry.run for entry in runs if entry.run]
    if not wanted:
        return [{}]
    devices, threads = max(run.devices for run in wanted), max(run.threads for run in wanted)
    gpus = [] if all(run.accelerator == "cpu" for run in wanted) else cluster.visible_gpus()
    if not gpus:
        if on_a_device > 1:
            raise UserError(f"--runs_per_device {on_a_device}: these runs have no GPU here; use --workers N")
        count = workers or max(1, cluster.cores() // (threads * devices))
        return [{"OMP_NUM_THREADS": str(threads)} for _ in range(count)]
    groups = [gpus[i : i + devices] for i in range(0, len(gpus) - devices + 1, devices)]
    if len(groups) * on_a_device < (workers or 1):
        more = f"; use --runs_per_device {math.ceil((workers or 1) / len(groups))}" if groups else ""
        raise UserError(
            f"{workers or 1} runs of {devices} devices at once: this machine has {len(gpus)} GPUs{more}"
        )
    shared = {cluster.SHARED: str(on_a_device)} if on_a_device > 1 else {}
    found = [{"CUDA_VISIBLE_DEVICES": ",".join(group)} | shared for group in groups]
    return (found * on_a_device)[:workers]  # each GPU has one run before any has two


def start(entry: Entry, place: dict[str, str], names: Sequence[str] = ()) -> Worker:
    """Start a run; its output goes to log.txt in its folder.

    Args:
        entry: the run.
        place: its share of the machine, as environment variables.
        names: the fields that its study varies.
    """
    assert entry.run is not None
    folder = entry.home
    folder.mkdir(parents=True, exist_ok=True)
    # A session of its own: Ctrl-C comes through us, once.
    with open(folder / "log.txt", "a") as log:
        process = subprocess.Popen(
            code.fit(entry.fields),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=os.environ | {labels.VARIES: ",".join(names)} | place,
            start_new_session=True,
            preexec_fn=signals.follow_parent(),
        )
    entry.state, entry.step, entry.of = "running", 0, 0
    return Worker(entry, process, place)


def watch(entry: Entry, elsewhere: Elsewhere, mine: bool) -> None:
    """Look at the run's folder, and at the other studies'; take over what another study has finished."""
    plan.refresh(entry, elsewhere)
    if mine:
        entry.state = "running"  # it has not written its row yet, or waits for its lock
    plan.reuse(entry)


def ended(worker: Worker, tries: dict[str, int], retries: int) -> None:
    """What a process's end means for its run."""
    entry, code = worker.entry, worker.process.returncode
    assert entry.run is not None
    plan.refresh(entry)
    if entry.state == "done":
        entry.wall = time.monotonic() - worker.began
    if entry.state in ("done", "stopped") or code == BUSY:
        return
    says_why = code == 2 or entry.state == "failed"  # it would end the same way again
    if not says_why and tries[entry.key or ""] < retries:
        tries[entry.key or ""] += 1
        entry.state = "unfinished"
        return
    if not entry.error:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else last_line(entry.home / "log.txt")
        entry.error = how or f"exit status {code}"
    entry.state = "failed"


def last_line(log: Path) -> str:
    """The last line of a process's output."""
    lines = [
        line.strip()
        for line in log.read_text(errors="replace").replace("\r", "\n").splitlines()
        if line.strip()
    ]
    return lines[-1].removeprefix("error: ") if lines else ""


def stop(busy: list[Worker], board: Board) -> None:
    """Let the runs save themselves; a third Ctrl-C, or a minute and a half, kills them."""
    for worker in busy:
        worker.process.send_signal(signal.SIGINT)
    end, told = time.monotonic() + PATIENCE, False
    while any(w.process.poll() is None for w in busy) and time.monotonic() < end and signals.presses < 3:
        # Whatever fails here, such as a terminal that is gone, must not keep us from waiting.
        with contextlib.suppress(OSError, ValueError):
            if signals.presses == 2 and not told:
                told = True
                print(f"{len(busy)} runs are saving themselves; Ctrl-C once more kills them", file=sys.stderr)
            board.update()
        time.sleep(LOOK)
    killed = [worker for worker in busy if worker.process.poll() is None]
    for worker in killed:
        worker.process.kill()
        worker.process.wait()
    with contextlib.suppress(OSError, ValueError):  # a row that cannot be read (UserError) included
        for worker in busy:
            plan.refresh(worker.entry)
        board.update()
    lost = f"stopped; {len(killed)} runs were killed; the same call resumes them from their last checkpoints"
    fresh = [w for w in busy if w.entry.state in UNFINISHED and not (w.entry.home / "last.ckpt").is_file()]
    saved = "every run is saved, and the same call resumes"
    if fresh:
        start_over = f"start{'s' * (len(fresh) == 1)} over with the same call"
        others = "; the others are saved" * (len(fresh) < len(busy))
        saved = f"{len(fresh)} of {counted(len(busy), 'run')} had no checkpoint yet and {start_over}{others}"
    print(lost if killed else f"stopped; {saved}", file=sys.stderr)
