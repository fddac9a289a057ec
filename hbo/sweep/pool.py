"""The runs of a study on this machine: each a process of its own, on a group of GPUs or a share of the cores.

Who else works on the same study, from here or from another machine, shares it: a run's lock (hbo/lock.py) lets one
process train it, and the others take the next.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbo import cluster, rows, signals
from hbo.errors import UserError
from hbo.lock import BUSY
from hbo.sweep import plan
from hbo.sweep.board import Board
from hbo.sweep.plan import UNFINISHED, Entry
from hbo.sweep.study import Study

LOOK = 0.5  # seconds between looks at the processes
LOOK_FAR = 5.0  # and at the folders, which may lie on another machine's disk
PATIENCE = 90.0  # seconds for a run to save itself after Ctrl-C


@dataclass
class Worker:
    """A run's process, and the place that it takes."""

    entry: Entry
    process: subprocess.Popen
    place: dict[str, str]


def run(study: Study, runs: list[Entry], workers: int | None, retries: int, max_failures: int) -> int:
    """Run what is not done, and wait for what others run; the exit status.

    Args:
        study: for its name.
        runs: all of it.
        workers: runs at once; None: as many as there are places.
        retries: times that a run is started again that ended without saying why (killed, out of memory).
        max_failures: no more runs are started after so many failed ones.

    Raises:
        UserError: fewer GPUs than a run wants.
    """
    free = places(runs, workers)
    tries: dict[str, int] = {}
    busy: list[Worker] = []
    halted, looked = False, 0.0
    for entry in runs:
        plan.adopt(entry)
    former = signals.listen_to_all()
    try:
        with Board(study.name, runs, len(free)) as board:
            while True:
                stopping = signals.noted
                for worker in [w for w in busy if w.process.poll() is not None]:
                    busy.remove(worker)
                    free.append(worker.place)
                    ended(worker, tries, retries)
                mine = {id(worker.entry) for worker in busy}
                if time.monotonic() - looked > LOOK_FAR:  # what others do; how far ours are
                    looked = time.monotonic()
                    done = plan.finished_elsewhere(runs)
                    for entry in runs:
                        if entry.state in ("running", *UNFINISHED) and not (entry.state == "failed" and entry.key in tries):
                            watch(entry, done, id(entry) in mine)
                failed = sum(e.state == "invalid" or (e.state == "failed" and e.key in tries) for e in runs)
                halted = halted or bool(stopping) or sum(e.state == "failed" and e.key in tries for e in runs) >= max_failures
                todo = [e for e in runs if e.state in UNFINISHED and not (e.state == "failed" and e.key in tries)]
                while todo and free and not halted:
                    entry = todo.pop(0)
                    watch(entry, None, False)  # another may have it since
                    if entry.state in UNFINISHED:
                        busy.append(start(entry, free.pop(0)))
                        tries.setdefault(entry.key or "", 0)
                if stopping:
                    stop(busy, board)
                    return 128 + stopping
                board.update()
                others = any(e.state == "running" and id(e) not in {id(w.entry) for w in busy} for e in runs)
                if not busy and (halted or (not todo and not others)):
                    break
                time.sleep(LOOK)
    finally:
        signals.restore(former)
    if halted:
        print(f"stopped after {failed} failed runs (--max_failures {max_failures}); the same call goes on", file=sys.stderr)
    return 1 if failed else 0


def places(runs: list[Entry], workers: int | None) -> list[dict[str, str]]:
    """The environment of each run at a time: its GPUs, or its threads.

    Raises:
        UserError: more devices than there are.
    """
    wanted = [entry.run for entry in runs if entry.run]
    if not wanted:
        return [{}]
    devices, threads = max(run.devices for run in wanted), max(run.threads for run in wanted)
    gpus = [] if all(run.accelerator == "cpu" for run in wanted) else cluster.visible_gpus()
    if not gpus:
        count = workers or max(1, cluster.cores() // (threads * devices))
        return [{"OMP_NUM_THREADS": str(threads)} for _ in range(count)]
    groups = [gpus[i : i + devices] for i in range(0, len(gpus) - devices + 1, devices)]
    if len(groups) < (workers or 1):
        raise UserError(f"{workers or 1} runs of {devices} devices at once: this machine has {len(gpus)} GPUs")
    return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups[:workers]]


def start(entry: Entry, place: dict[str, str]) -> Worker:
    """Start a run; what it says goes to log.txt in its folder."""
    assert entry.run is not None
    folder = rows.folder(entry.run)
    folder.mkdir(parents=True, exist_ok=True)
    # A session of its own: Ctrl-C comes through us, once.
    with open(folder / "log.txt", "a") as log:
        process = subprocess.Popen(
            command(entry.fields),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=os.environ | place,
            start_new_session=True,
        )
    entry.state, entry.step, entry.of = "running", 0, 0
    return Worker(entry, process, place)


def command(fields: dict[str, Any]) -> list[str]:
    """How a run of a study is started, here and on SLURM."""
    return [sys.executable, "-m", "hbo.fit", "--config", json.dumps(fields)]


def watch(entry: Entry, finished: dict[str, Path] | None, mine: bool) -> None:
    """Look at the run's folder; take over what another study has finished."""
    plan.refresh(entry, finished)
    if mine:
        entry.state = "running"  # it has not written its row yet, or waits for its lock
    plan.adopt(entry)


def ended(worker: Worker, tries: dict[str, int], retries: int) -> None:
    """What a process's end means for its run."""
    entry, code = worker.entry, worker.process.returncode
    assert entry.run is not None
    plan.refresh(entry)
    if entry.state == "done" or code == BUSY:
        return
    says_why = code == 2 or entry.state == "failed"  # it would say the same again
    if not says_why and tries[entry.key or ""] < retries:
        tries[entry.key or ""] += 1
        entry.state = "unfinished"
        return
    if not entry.error:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else last_line(rows.folder(entry.run) / "log.txt")
        entry.error = how or f"exit status {code}"
    entry.state = "failed"


def last_line(log: Path) -> str:
    """What a process said last."""
    lines = [line.strip() for line in log.read_text(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""


def stop(busy: list[Worker], board: Board) -> None:
    """Let the runs save themselves; a second Ctrl-C, or a minute and a half, kills them."""
    for worker in busy:
        worker.process.send_signal(signal.SIGINT)
    end = time.monotonic() + PATIENCE
    try:
        while any(w.process.poll() is None for w in busy) and time.monotonic() < end:
            board.update()
            time.sleep(LOOK)
    except KeyboardInterrupt:
        pass
    for worker in busy:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()
        plan.refresh(worker.entry)
    board.update()
    print("stopped; every run is saved, and the same call goes on", file=sys.stderr)
