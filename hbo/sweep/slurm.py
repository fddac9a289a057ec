"""The runs of a study as a SLURM job array, through submitit: requeued at the time limit and at preemption, each going on
from its checkpoint.

A run of several devices is a job of as many tasks a node, each a process of Lightning's own SLURM support.
"""

import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hbo import files
from hbo.errors import UserError, first_line
from hbo.runs import rows, signals
from hbo.runs.lock import BEAT, BUSY, STALE
from hbo.sweep import plan
from hbo.sweep.plan import UNFINISHED, Entry
from hbo.sweep.pool import command
from hbo.sweep.study import Sweep
from hbo.words import did_you_mean

KEYS = ("partition", "time", "gpus", "cpus", "mem", "account", "qos", "constraint", "parallel", "notice")
NOTICE = 120  # seconds before the time limit at which a run is told to save
# submitit's own process too must outlive a signal that comes before it listens: else SLURM takes the job for failed.
PYTHON = f'sh -c \'trap "" USR2; exec "$0" "$@"\' {shlex.quote(sys.executable)}'
TIMEOUTS = 1000  # times that a run may be requeued at its time limit: it goes on each time, so there is no reason to stop


class Fit:
    """A run as submitit's job: `hbo.fit` in a process of its own, in each task."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self.process: subprocess.Popen | None = None

    def __call__(self) -> str:
        """Train; "done" (or stopped in W&B), or "busy" where another process does.

        The lock of a process that SLURM killed on another node counts for a minute: a requeued job waits for it.

        Raises:
            RuntimeError: the run failed; its last line stands above in the job's log.
        """
        end = time.monotonic() + STALE + 2 * BEAT if os.environ.get("SLURM_RESTART_COUNT") else 0.0
        code = self._train()
        while code == BUSY and time.monotonic() < end:
            time.sleep(BEAT)
            code = self._train()
        if code - 128 in signals.PREEMPTION:  # preempted, or cancelled: SLURM says which by what it does next
            time.sleep(900)
        if code not in (0, BUSY):
            raise RuntimeError(f"hbo.fit ended with exit status {code}")
        return "done" if code == 0 else "busy"

    def _train(self) -> int:
        """Exit status of `hbo.fit`."""

        def ignore() -> None:  # until the child listens: SLURM signals all processes of a job, its first moment included
            for number in signals.PREEMPTION:
                signal.signal(number, signal.SIG_IGN)

        self.process = subprocess.Popen(command(self.fields), preexec_fn=ignore)
        while not self._over():
            time.sleep(0.2)
        return self.process.wait()

    def checkpoint(self) -> Any:
        """What submitit calls at its signal, to requeue the job: let the run save itself first."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None and not self._over():
            self.process.send_signal(signal.SIGUSR1)
            while not self._over():
                time.sleep(0.1)
        return DelayedSubmission(Fit(self.fields))

    def _over(self) -> bool:
        # Not poll(): submitit calls `checkpoint` inside a signal handler, and Popen's lock is not for that.
        assert self.process is not None
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def submit(study: Sweep, runs: list[Entry], text: str) -> int:
    """Submit what is neither done nor queued, an array for each number of devices; does not wait. The exit status.

    Args:
        study: for its name.
        runs: all of it.
        text: KEY=VALUE,KEY=VALUE, see `parse`.

    Raises:
        UserError: a key or value that is wrong; no SLURM here; what sbatch says.
    """
    asked = parse(text)
    if "time" not in asked:  # submitit would ask for 5 minutes
        raise UserError("--slurm: names no time limit; add time=HOURS:MINUTES:SECONDS")
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise UserError("--slurm: submitit is not installed; pip install -e '.[slurm]'") from None
    if shutil.which("sbatch") is None:
        raise UserError("--slurm: there is no sbatch here; submit from a SLURM login node, or leave --slurm out")
    mark_queued(runs)
    for entry in runs:
        plan.reuse(entry)
    todo = [entry for entry in runs if entry.state in UNFINISHED]
    groups: dict[tuple[int, int, int], list[Entry]] = {}
    for entry in todo:
        assert entry.run is not None
        groups.setdefault((entry.run.devices, entry.run.num_nodes, entry.run.threads), []).append(entry)
    for (devices, nodes, threads), group in groups.items():
        if asked.get("gpus", devices) != devices:
            raise UserError(f"gpus={asked['gpus']}: these runs have devices={devices}; add --devices_per_run {asked['gpus']}")
        assert group[0].run is not None
        logs = files.expanded(group[0].run.out).resolve() / group[0].run.study / "slurm"
        try:
            executor = submitit.AutoExecutor(folder=logs, cluster="slurm", slurm_max_num_timeout=TIMEOUTS, slurm_python=PYTHON)
            executor.update_parameters(**parameters(asked, study.name, devices, nodes, threads))
            with executor.batch():
                jobs = [executor.submit(Fit(entry.fields)) for entry in group]
        except FailedJobError as error:
            raise UserError(f"sbatch: {' '.join(str(error).split())}") from None
        for entry, job in zip(group, jobs, strict=True):
            assert entry.run is not None
            folder = entry.home
            folder.mkdir(parents=True, exist_ok=True)
            files.write_atomically(folder / "slurm.json", json.dumps({"job": job.job_id, "log": str(job.paths.stderr)}) + "\n")
        print(f"{len(group)} runs of {devices * nodes} devices: job array {jobs[0].job_id.split('_')[0]}, logs in {logs}")
    invalid = [entry for entry in runs if entry.state == "invalid"]
    for entry in invalid:
        print(f"not submitted: {plan.describe(entry)}")
    plan.say_stopped(runs)
    if not todo:
        print("nothing is left to submit")
    return 1 if invalid else 0


def parse(text: str) -> dict[str, Any]:
    """`partition=gpu,gpus=2,time=24:00:00` as what it means; `time` in minutes.

    Raises:
        UserError: an unknown key, or a value that is none.
    """
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in KEYS or not value:
            raise UserError(f"--slurm {part}: must be KEY=VALUE with a key of {', '.join(KEYS)}{did_you_mean(key, list(KEYS))}")
        if key in ("gpus", "cpus", "parallel", "notice"):
            if not value.isdigit() or int(value) < 1:
                raise UserError(f"--slurm {part}: must be a whole number from 1")
            found[key] = int(value)
        else:
            found[key] = minutes(value) if key == "time" else value
    return found


def minutes(text: str) -> int:
    """SLURM's times in minutes, seconds rounded up: MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, with or without DAYS-.

    Raises:
        UserError: not such a time.
    """
    days, dash, rest = text.rpartition("-")
    try:
        numbers = [int(n) for n in rest.split(":")]
        day = int(days) if dash else 0
    except ValueError:
        raise UserError(f"--slurm time={text}: must be MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS:MINUTES:SECONDS") from None
    if len(numbers) > 3:
        raise UserError(f"--slurm time={text}: has more parts than DAYS-HOURS:MINUTES:SECONDS")
    before = 0 if dash or len(numbers) == 3 else 1  # with days or three parts it starts at the hours, else at the minutes
    hours, mins, secs = ([0] * before + numbers + [0, 0])[:3]
    return math.ceil(day * 1440 + hours * 60 + mins + secs / 60)


def parameters(asked: dict[str, Any], name: str, devices: int, nodes: int, threads: int) -> dict[str, Any]:
    """What is asked in submitit's words."""
    named = {"partition": "slurm_partition", "time": "timeout_min", "account": "slurm_account", "qos": "slurm_qos",
             "constraint": "slurm_constraint", "mem": "slurm_mem", "parallel": "slurm_array_parallelism"}  # fmt: skip
    found = {submitits: asked[ours] for ours, submitits in named.items() if ours in asked}
    found |= {"name": name, "nodes": nodes, "tasks_per_node": devices, "cpus_per_task": asked.get("cpus", threads)}
    if "gpus" in asked:
        found["slurm_gpus_per_node"] = asked["gpus"]
    return found | {
        "slurm_signal_delay_s": asked.get("notice", NOTICE),
        "slurm_additional_parameters": {"requeue": True},
        "slurm_srun_args": ["--kill-on-bad-exit=1"],  # one task alone would wait for the other for half an hour
    }


def mark_queued(runs: list[Entry]) -> None:
    """Mark the runs whose jobs SLURM still has: queued, or running before their first word."""
    jobs = {}
    for entry in runs:
        if entry.run and entry.state in UNFINISHED:
            path = entry.home / "slurm.json"
            if path.exists() and (job := _job(path)):
                jobs[job] = entry
    if not jobs or shutil.which("squeue") is None:
        return
    arrays = ",".join(sorted({job.split("_")[0] for job in jobs}))
    said = subprocess.run(["squeue", "-h", "-r", "-o", "%i %T", "-j", arrays], capture_output=True, text=True).stdout
    for line in said.splitlines():
        job, state = line.split()
        if job in jobs:
            jobs[job].state = "running" if state in ("RUNNING", "COMPLETING") else "queued"


def _job(path: Path) -> str:
    """The job that a run was submitted as; nothing, and a warning, where the file does not say."""
    try:
        return str(json.loads(path.read_text())["job"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        rows.pass_over(f"{path}: names no job ({first_line(error)}); passed over")
        return ""
