"""What SLURM says of a study's jobs: which are still queued or running, how those without a row ended, and
how long an array may be.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hbo.errors import UserError, first_line, flat
from hbo.runs import rows
from hbo.sweep.plan import UNFINISHED, Entry

NOTE = "slurm.json"  # in a run's folder: the job that it was submitted as, and its log
GONE = "Invalid job id specified"  # squeue fails so where it has forgotten the one job that it is asked for


def mark(runs: list[Entry], submitting: bool = False) -> None:
    """Mark the runs whose jobs SLURM still has (queued, or running but not yet started), and those whose jobs
    ended before the first row (failed, with the reason).

    Args:
        runs: with the states that their folders say.
        submitting: what is not queued is to be submitted.

    Raises:
        UserError: `submitting`, and squeue fails: what it has would be submitted a second time.
    """
    jobs: dict[str, list[tuple[Entry, dict[str, Any]]]] = {}
    for entry in runs:
        if entry.run and entry.state in UNFINISHED:
            path = entry.home / NOTE
            if path.exists() and (note := _note(path)):
                jobs.setdefault(str(note["job"]), []).append((entry, note))
    if not jobs or shutil.which("squeue") is None:
        return
    states, error = _squeue(sorted({job.split("_")[0] for job in jobs}))
    if error and submitting:
        raise UserError(
            f"squeue: {error}; nothing is submitted, as what is queued would be submitted twice; try again"
        )
    if error:
        print(f"warning: squeue: {error}; the state of {len(jobs)} jobs is unknown", file=sys.stderr)
    ended = [
        job for job, them in jobs.items() if job not in states and any(e.state == "missing" for e, _ in them)
    ]
    how = {} if error else _sacct(ended)
    for job, them in jobs.items():
        for entry, note in them:
            if job in states:
                entry.state = "running" if states[job] in ("RUNNING", "COMPLETING") else "queued"
            elif error:
                entry.state = "unknown"
            elif entry.state == "missing":
                entry.state, entry.error = (
                    "failed",
                    _ending(
                        job, how.get(job) or how.get(f"{job.split('_')[0]}_[", ""), Path(str(note.get("log")))
                    ),
                )


def others(runs: list[Entry]) -> dict[Path, int]:
    """Folder of a study that lacks a run -> its number of runs outside the list, if it has any: begun, or
    submitted before the file was changed.
    """
    own = {entry.key for entry in runs}
    folders = {entry.home.parent for entry in runs if entry.state in ("missing", "queued")}
    found = {}
    for folder in sorted(folders):
        keys = {path.parent.name for name in ("row.json", NOTE) for path in folder.glob(f"*/{name}")}
        if more := len(keys - own):
            found[folder] = more
    return found


def longest_array() -> int:
    """Tasks that an array of this cluster may have.

    Raises:
        UserError: SLURM does not say.
    """
    done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True)
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", done.stdout)
    if done.returncode or found is None:
        raise UserError(f"scontrol show config: {flat(done.stderr) or 'names no MaxArraySize'}; try again")
    return max(1, int(found[1]))


def _squeue(arrays: list[str]) -> tuple[dict[str, str], str]:
    """Job -> its state, of those that SLURM still has; and why it did not answer, else nothing."""
    done = subprocess.run(
        ["squeue", "-h", "-r", "-o", "%i %T", "-j", ",".join(arrays)], capture_output=True, text=True
    )
    if (done.returncode or "error" in done.stderr) and GONE not in done.stderr:  # some exit with 0
        return {}, flat(done.stderr) or f"exit status {done.returncode}"
    found = [line.split() for line in done.stdout.splitlines() if line.strip()]
    if odd := [words for words in found if len(words) != 2]:
        return {}, f"{' '.join(odd[0])!r} is not a job and its state"
    return dict(found), ""


def _sacct(jobs: list[str]) -> dict[str, str]:
    """Job -> how it ended, such as CANCELLED, where the cluster keeps accounts; under `12_[` those tasks of
    an array that never began, which sacct gives as one.
    """
    if not jobs or shutil.which("sacct") is None:
        return {}
    done = subprocess.run(
        ["sacct", "-X", "--parsable2", "-o", "JobID,State", "-j", ",".join(jobs)],
        capture_output=True,
        text=True,
    )
    lines = [line.split("|") for line in done.stdout.splitlines()]
    ends = {words[0]: words[1].split()[0] for words in lines if len(words) == 2 and words[1]}
    return {f"{job.partition('[')[0]}[" if "[" in job else job: how for job, how in ends.items()}


def _ending(job: str, how: str, log: Path) -> str:
    """`job 12_3 ended (FAILED) before its first row: what its log says last`."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = (errors or lines or ["it left no log"])[-1]
    return f"job {job} ended{f' ({how})' * bool(how)} before its first row: {flat(said)}"


def _note(path: Path) -> dict[str, Any]:
    """The job that a run was submitted as; nothing, and a warning, if the file does not say."""
    try:
        note = json.loads(path.read_text())
        if not isinstance(note["job"], str):
            raise TypeError("its job is not text")
        return note
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        rows.pass_over(f"{path}: names no job ({first_line(error)}); skipped")
        return {}
