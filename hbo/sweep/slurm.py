"""The runs of a study as SLURM job arrays, through submitit: requeued at the time limit and at preemption,
each going on from its checkpoint.

A run of several devices is a job of as many tasks a node, each a process of Lightning's own SLURM support.
"""

import importlib.util
import json
import math
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from hbo import files
from hbo.errors import UserError
from hbo.runs import labels
from hbo.runs.code import START
from hbo.runs.lock import Lock
from hbo.sweep import plan, queued, snapshot
from hbo.sweep.job import Fit
from hbo.sweep.plan import UNFINISHED, Entry
from hbo.sweep.study import Sweep
from hbo.words import did_you_mean

KEYS = ("partition", "time", "gpus", "cpus", "mem", "account", "qos", "constraint", "parallel", "notice")
NOTICE = 120  # seconds before the time limit at which a run is told to save
# submitit's own process must also survive a signal that comes before it listens: else SLURM marks the job as
# failed.
PYTHON = f'sh -c \'trap "" USR2; exec "$0" "$@"\' {shlex.quote(sys.executable)}'
TIMEOUTS = 1000  # requeues of a run at its time limit: it resumes each time, so there is no reason to stop


def submit(
    study: Sweep, runs: list[Entry], text: str, at_once: int | None = None, on_a_device: int = 1
) -> int:
    """Submit what is neither done nor queued, as arrays no longer than the cluster takes; does not wait. The
    exit status.

    Args:
        study: for its name.
        runs: all of it.
        text: KEY=VALUE,KEY=VALUE, see `parse`.
        at_once: jobs at a time, of all arrays together; None: as many as SLURM starts.
        on_a_device: runs that share a job and its device.

    Raises:
        UserError: a key or value that is wrong; no SLURM here; what squeue or sbatch says.
    """
    asked = parse(text)
    if at_once is not None and asked.setdefault("parallel", at_once) != at_once:
        raise UserError(
            f"--max_parallel {at_once}: --slurm parallel={asked['parallel']} says otherwise; give one of them"
        )
    if "time" not in asked:  # submitit would ask for 5 minutes
        raise UserError("--slurm: has no time limit; add time=HOURS:MINUTES:SECONDS")
    notice = asked.get("notice", NOTICE)
    if 60 * asked["time"] <= notice:
        raise UserError(
            f"--slurm time: {asked['time']} minutes must exceed the notice of {notice} seconds, in which a"
            f" run saves and stops; try time={notice // 60 + 2}, or set notice=SECONDS"
        )
    if importlib.util.find_spec("submitit") is None:
        raise UserError("--slurm: submitit is not installed; pip install -e '.[slurm]'")
    if shutil.which("sbatch") is None:
        raise UserError(
            "--slurm: there is no sbatch here; submit from a SLURM login node, or leave --slurm out"
        )
    groups = [entry.run for entry in runs if entry.run]
    folder = files.expanded(groups[0].out).resolve() / groups[0].study if groups else Path()
    lock = Lock(folder / "slurm")
    try:
        if groups:
            lock.acquire()  # two calls at once would both find the rows missing
        for entry in runs:
            plan.reuse(entry)
            plan.run_again(entry)
        queued.mark(runs, submitting=True)
        todo = [entry for entry in runs if entry.state in UNFINISHED]
        _submit_all(study.name, folder, todo, asked, on_a_device, plan.varying(runs))
    finally:
        lock.release()
    invalid = [entry for entry in runs if entry.state == "invalid"]
    for entry in invalid:
        print(f"not submitted: {plan.describe(entry)}")
    plan.say_stopped(runs)
    if not todo:
        print("nothing is left to submit")
    return 1 if invalid else 0


def _submit_all(
    name: str, folder: Path, todo: list[Entry], asked: dict[str, Any], on_a_device: int, varies: list[str]
) -> None:
    """Arrays for each number of devices, each as long as the cluster allows; if several share a throttle,
    each waits for the one before.
    """
    groups: dict[tuple[int, int, int], list[Entry]] = {}
    for entry in todo:
        assert entry.run is not None
        groups.setdefault((entry.run.devices, entry.run.num_nodes, entry.run.threads), []).append(entry)
    for devices, nodes, _ in groups:
        if asked.get("gpus", devices) != devices:
            raise UserError(
                f"gpus={asked['gpus']}: these runs have devices={devices}; add --devices_per_run"
                f" {asked['gpus']}"
            )
        if on_a_device > 1 and devices * nodes > 1:
            raise UserError(
                f"--runs_per_device {on_a_device}: these runs take {devices * nodes} devices each;"
                " leave it out"
            )
    code = snapshot.take(folder) if todo else Path()
    longest, before = (queued.longest_array() if todo else 1), ""
    for (devices, nodes, threads), group in groups.items():
        jobs = [group[i : i + on_a_device] for i in range(0, len(group), on_a_device)]
        given = parameters(asked, name, devices, nodes, threads * on_a_device)
        given["slurm_setup"] = [f"export {labels.VARIES}={shlex.quote(','.join(varies))}"]
        for start in range(0, len(jobs), longest):
            part = jobs[start : start + longest]
            if before and "parallel" in asked:
                given["slurm_additional_parameters"]["dependency"] = f"afterany:{before}"
            before = _submit_array(folder, code, part, given)
            runs = sum(map(len, part))
            print(f"{runs} runs of {devices * nodes} devices: job array {before}, logs in {folder / 'slurm'}")


def _submit_array(folder: Path, code: Path, jobs: list[list[Entry]], given: dict[str, Any]) -> str:
    """SLURM's number of an array of these jobs; each of their runs notes its own."""
    import submitit
    from submitit.core.utils import FailedJobError

    executor = submitit.AutoExecutor(
        folder=folder / "slurm",
        cluster="slurm",
        slurm_max_num_timeout=TIMEOUTS,
        slurm_python=f"{PYTHON} {shlex.quote(str(code / START))}",
    )
    executor.update_parameters(**{"slurm_array_parallelism": len(jobs), **given})
    try:
        with executor.batch():
            submitted = [executor.submit(Fit(*(entry.fields for entry in job))) for job in jobs]
    except FailedJobError as error:
        raise UserError(f"sbatch: {' '.join(str(error).split())}") from None
    for entries, job in zip(jobs, submitted, strict=True):
        for entry in entries:
            entry.home.mkdir(parents=True, exist_ok=True)
            note = {"job": job.job_id, "log": str(job.paths.stderr), "code": code.name}
            files.write_atomically(entry.home / queued.NOTE, json.dumps(note) + "\n")
    return str(submitted[0].job_id).split("_")[0]


def parse(text: str) -> dict[str, Any]:
    """`partition=gpu,gpus=2,time=24:00:00`, parsed; `time` in minutes.

    Raises:
        UserError: an unknown key, or an invalid value.
    """
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in KEYS or not value:
            raise UserError(
                f"--slurm {part}: must be KEY=VALUE with a key of"
                f" {', '.join(KEYS)}{did_you_mean(key, list(KEYS))}"
            )
        if key in found:
            raise UserError(f"--slurm {part}: {key} is set twice; give one of them")
        if key in ("gpus", "cpus", "parallel", "notice"):
            if not value.isdigit() or int(value) < 1:
                raise UserError(f"--slurm {part}: must be a whole number of at least 1")
            found[key] = int(value)
        else:
            found[key] = minutes(value) if key == "time" else value
    return found


def minutes(text: str) -> int:
    """SLURM's times in minutes, seconds rounded up: MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, with or
    without DAYS-.

    Raises:
        UserError: not such a time.
    """
    days, dash, rest = text.rpartition("-")
    try:
        numbers = [int(n) for n in rest.split(":")]
        day = int(days) if dash else 0
    except ValueError:
        raise UserError(
            f"--slurm time={text}: must be MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS:MINUTES:SECONDS"
        ) from None
    if len(numbers) > 3:
        raise UserError(f"--slurm time={text}: has more parts than DAYS-HOURS:MINUTES:SECONDS")
    # With days or three parts it starts at the hours, else at the minutes.
    before = 0 if dash or len(numbers) == 3 else 1
    hours, mins, secs = ([0] * before + numbers + [0, 0])[:3]
    return math.ceil(day * 1440 + hours * 60 + mins + secs / 60)


def parameters(asked: dict[str, Any], name: str, devices: int, nodes: int, threads: int) -> dict[str, Any]:
    """The request as submitit's parameters."""
    named = {"partition": "slurm_partition", "time": "timeout_min"}
    named |= {name: f"slurm_{name}" for name in ("account", "qos", "constraint", "mem")}
    named |= {"parallel": "slurm_array_parallelism"}
    found = {submitits: asked[ours] for ours, submitits in named.items() if ours in asked}
    found |= {
        "name": name,
        "nodes": nodes,
        "tasks_per_node": devices,
        "cpus_per_task": asked.get("cpus", threads),
    }
    if "gpus" in asked:
        found["slurm_gpus_per_node"] = asked["gpus"]
    return found | {
        "slurm_signal_delay_s": asked.get("notice", NOTICE),
        "slurm_additional_parameters": {"requeue": True},
        # One task alone would wait for the other for half an hour.
        "slurm_srun_args": ["--kill-on-bad-exit=1"],
    }
