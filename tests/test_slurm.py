"""`hbo.sweep run --slurm` on a real one-node SLURM: an array of four with one requeued and one preempted; two
tasks; a signal during start-up; the lock of a killed process.
"""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from services import needs_slurm, resume, slurm, suspend
from test_lock import elsewhere
from test_pool import LR, same, study, write

import hbo
from hbo.runs import lock

pytestmark = [pytest.mark.usefixtures("short_networks"), pytest.mark.slow, needs_slurm]
SHORT = {
    "data": "digits",
    "width": 0.1,
    "threads": 1,
    "epochs": 4,
    "limit_batches": 12,
    "lr": LR,
    "checkpoint_every": 0.1,
    "accelerator": "cpu",
    "wandb": "disabled",
}
BRIEF = {**SHORT, "epochs": 1, "limit_batches": 3}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[None]:
    """SLURM's daemons on this machine, as one node with four cores; jobs in partition `high` preempt those in
    `low`.
    """
    before = dict(os.environ)
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        os.environ |= environment
        yield
    os.environ.clear()
    os.environ |= before


def said(*command: object) -> str:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


def wait_for(test: Callable[[], Any], seconds: float, what: str, every: float = 0.2) -> Any:
    end = time.monotonic() + seconds
    while not (found := test()):
        assert time.monotonic() < end, f"{what}\n{said('squeue')}"
        time.sleep(every)
    return found


def jobs(runs: Path) -> dict[str, Path]:
    """SLURM's id of each run's job -> the run's folder."""
    return {json.loads(path.read_text())["job"]: path.parent for path in runs.glob("*/*/slurm.json")}


def story(runs: Path) -> str:
    """Context for a failure: each row's state and error, and the end of each job's log."""
    said = [
        f"{row['key']} {row['state']} at {row.get('resumed_at')}: {row.get('error')}"
        for row in study(runs).values()
    ]
    logs = [
        f"== {path}\n{path.read_text(errors='replace')[-4000:]}"
        for path in sorted(runs.glob("*/slurm/*_log.*"))
    ]
    return "\n".join(["", *said, *logs])


def running() -> list[str]:
    return said("squeue", "-h", "-r", "-t", "R", "-o", "%i").split()


def test_an_array_of_four_one_requeued_and_one_preempted(cluster, tmp_path):
    file = write(tmp_path / "four.yaml", **SHORT, k=[1, 2], seed=[0, 1])
    runs = tmp_path / "runs"
    asked = "partition=low,time=10,parallel=2"
    out, _ = call("hbo.sweep", "run", file, "--set", f"out={runs}", "--slurm", asked)
    assert "4 runs of 1 devices: job array" in out
    assert len(jobs(runs)) == 4
    again, _ = call("hbo.sweep", "run", file, "--set", f"out={runs}", "--slurm", asked)
    assert "nothing is left to submit" in again
    wait_for(lambda: len(running()) == 2, 600, "two are started")
    first, second = running()
    suspended = suspend(runs, 2)
    text, _ = call("hbo.sweep", "status", file, "--set", f"out={runs}")
    assert "2 running, 2 queued" in text
    said("scontrol", "requeue", first)
    resume(suspended[jobs(runs)[first]])
    wait_for(lambda: first not in running(), 600, "the first is requeued")
    said("sbatch", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2")
    resume(suspended[jobs(runs)[second]])
    wait_for(lambda: second not in running(), 600, "the second is preempted")
    assert {study(runs)[jobs(runs)[job].name]["state"] for job in (first, second)} <= {
        "interrupted",
        "unfinished",
    }, story(runs)
    wait_for(lambda: not said("squeue", "-h").strip(), 900, "all jobs end")
    found = study(runs)
    assert [row["state"] for row in found.values()] == ["done"] * 4, story(runs)
    for job in (first, second):
        assert found[jobs(runs)[job].name]["resumed_at"], f"{job} started anew" + story(runs)
    text, _ = call("hbo.sweep", "status", file, "--set", f"out={runs}")
    assert "4 runs: 4 done" in text
    # The cluster's rows are the same as this process's.
    for job, folder in jobs(runs).items():
        if job in (first, second):
            row = found[folder.name]
            hbo.train(**SHORT, study="four", k=row["k"], seed=row["seed"], out=str(tmp_path / "here"))
        else:
            shutil.rmtree(folder)
    same(tmp_path / "here", runs)


def test_a_run_of_two_tasks_is_one_row_and_is_resumed(cluster, tmp_path):
    file = write(tmp_path / "two.yaml", **SHORT, devices=2, seed=0)
    runs = tmp_path / "runs"
    call("hbo.sweep", "run", file, "--set", f"out={runs}", "--slurm", "partition=low,time=10")
    ((job, folder),) = jobs(runs).items()
    suspended = suspend(runs, 1)
    said("scontrol", "requeue", job)
    resume(suspended[folder])
    wait_for(lambda: not running(), 600, "it is requeued")
    wait_for(lambda: not said("squeue", "-h").strip(), 900, "it ends")
    (row,) = study(runs).values()
    assert row["state"] == "done", story(runs)
    assert (row["devices"], row["val_images_seen"]) == (2, min(row["val_images"], 12 * row["batch"]))
    assert row["resumed_at"], story(runs)


def importing(runs: Path) -> int | None:
    """The process of submitit, before it handles SIGUSR2."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            caught = re.search(r"SigCgt:\s*(\w+)", (path / "status").read_text())
        except OSError:
            continue
        listens = caught and int(caught[1], 16) >> (signal.SIGUSR2 - 1) & 1
        ours = b"submitit.core._submit" in words and any(bytes(runs) in word for word in words)
        if ours and b"python" in words[0] and not listens:
            return int(path.name)
    return None


def test_a_preemption_signal_during_the_imports_ends_nothing(cluster, tmp_path):
    file = write(tmp_path / "early.yaml", **BRIEF, seed=0)
    runs = tmp_path / "runs"
    call("hbo.sweep", "run", file, "--set", f"out={runs}", "--slurm", "partition=low,time=10")
    os.kill(wait_for(lambda: importing(runs), 600, "it starts", every=0.01), signal.SIGUSR2)
    wait_for(lambda: not said("squeue", "-h").strip(), 900, "it ends")
    assert [row["state"] for row in study(runs).values()] == ["done"], story(runs)


def test_a_requeued_run_waits_for_the_lock_of_a_lost_process(cluster, tmp_path):
    """A process killed on another node cannot be checked: its lock is valid until its last heartbeat is a
    minute old. Here the heartbeats go on until the job has met the lock.
    """
    file = write(tmp_path / "dead.yaml", **BRIEF, seed=0)
    runs = tmp_path / "runs"
    call("hbo.sweep", "run", file, "--set", f"out={runs}", "--slurm", "partition=low,time=10")
    ((job, folder),) = jobs(runs).items()
    wait_for(running, 600, "it starts")
    said("scontrol", "requeue", job)
    wait_for(lambda: not running(), 600, "it is requeued")

    beaten = elsewhere(folder, age=0, number=9)

    def met() -> bool:
        os.utime(beaten)
        logs = "".join(path.read_text() for path in runs.glob("*/slurm/*_log.err"))
        return "process 1 on other is training this run" in logs

    wait_for(met, 300, "it meets the lock")
    os.utime(beaten, (time.time() - lock.STALE,) * 2)
    wait_for(lambda: not said("squeue", "-h").strip(), 900, "it ends")
    assert [row["state"] for row in study(runs).values()] == ["done"], story(runs)


def test_rows_beyond_the_longest_array_are_a_second_array(cluster, tmp_path):
    """Arrays of this SLURM have at most 1,001 tasks, like most clusters'; at most three of all tasks run at a
    time.
    """
    runs = tmp_path / "runs"
    over = subprocess.run(["sbatch", "--array=0-1001", "--wrap", "true"], capture_output=True, text=True)
    assert "Invalid job array" in over.stderr
    file = write(tmp_path / "many.yaml", **SHORT, seed=list(range(1003)))
    asked = ("run", file, "--set", f"out={runs}", "--slurm", "partition=low,time=10", "--max_parallel", 3)
    try:
        out, _ = call("hbo.sweep", *asked)
        assert [line.split()[0] for line in out.splitlines()] == ["1001", "2"]
        pending = said("squeue", "-h", "-r", "-o", "%i").split()
        assert sorted(pending) == sorted(jobs(runs))
        assert len(pending) == 1003
        again, _ = call("hbo.sweep", *asked)
        assert again == "nothing is left to submit\n"
        assert len(running()) <= 3
    finally:
        subprocess.run(["scancel", "--user", "root"], check=True)
        wait_for(lambda: not said("squeue", "-h").strip(), 600, "all are cancelled")
    text, _ = call("hbo.sweep", "status", file, "--set", f"out={runs}")
    assert "ended (CANCELLED) before its first row: " in text
    # Without accounting, SLURM forgets how tasks ended that never started.
    assert text.count("ended before its first row: it left no log") >= 900


def test_an_error_of_sbatch_is_one_line(cluster, tmp_path):
    file = write(tmp_path / "one.yaml", **SHORT, seed=0)
    _, err = call(
        "hbo.sweep",
        "run",
        file,
        "--set",
        f"out={tmp_path / 'runs'}",
        "--slurm",
        "partition=none,time=10",
        expect=2,
    )
    assert err.strip().splitlines()[-1].startswith("error: sbatch: ")  # after sbatch's own message
    assert "invalid partition" in err
    assert "Traceback" not in err
    _, err = call(
        "hbo.sweep", "run", file, "--set", f"out={tmp_path / 'runs'}", "--slurm", "gpus=2,time=10", expect=2
    )
    assert "--devices_per_run 2" in err
    _, err = call(
        "hbo.sweep", "run", file, "--set", f"out={tmp_path / 'runs'}", "--slurm", "partition=low", expect=2
    )
    assert "add time=HOURS:MINUTES:SECONDS" in err


def test_each_call_submits_a_look_until_all_is_decided(cluster, tmp_path):
    """`--until decided`: each call submits what the next look needs; the verdict is the same as on one
    machine, and nothing runs twice.
    """
    file = write(tmp_path / "grow.yaml", **BRIEF, k=[1, 2], seed=[0, 1])
    command = ("run", file, "--until", "decided", "--looks", "2,3")
    queue = ("--set", f"out={tmp_path / 'runs'}", "--slurm", "partition=low,time=10")
    for seeds in (2, 3):
        out, _ = call("hbo.sweep", *command, *queue)
        assert len(jobs(tmp_path / "runs")) == 2 * seeds, out
        wait_for(lambda: not said("squeue", "-h").strip(), 300, f"the look with {seeds} seeds ends")
        assert [row["state"] for row in study(tmp_path / "runs").values()] == ["done"] * 2 * seeds, story(
            tmp_path / "runs"
        )
    there, _ = call("hbo.sweep", *command, *queue)
    for k, seed in itertools.product((1, 2), range(3)):
        hbo.train(**BRIEF, study="grow", k=k, seed=seed, out=str(tmp_path / "here"))
    here, _ = call("hbo.sweep", *command, "--set", f"out={tmp_path / 'here'}")
    assert there.splitlines()[-1] == here.splitlines()[-1]
    assert there.splitlines()[-1].endswith("6 runs; all seeds of all arms are 6.")
    same(tmp_path / "here", tmp_path / "runs")
