"""`hbo.sweep run --slurm` on a real SLURM of one node: an array of four, one requeued midway, one preempted; two tasks."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import call
from services import needs_slurm, slurm
from test_pool import same, study, write

pytestmark = [pytest.mark.slow, needs_slurm]
LONG = {
    "data": "digits",
    "width": 0.1,
    "threads": 1,
    "epochs": 12,
    "checkpoint_every": 1.0,
    "accelerator": "cpu",
    "wandb": "disabled",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[None]:
    """SLURM's daemons on this machine, as a node of four cores, with partitions `low` (preempted by) `high`."""
    before = dict(os.environ)
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        os.environ |= environment
        yield
    os.environ.clear()
    os.environ |= before


def said(*command: object) -> str:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


def wait_for(test, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, f"{what}\n{said('squeue')}"
        time.sleep(0.5)


def jobs(runs: Path) -> dict[str, Path]:
    """SLURM's name of each run's job -> the run's folder."""
    return {json.loads(path.read_text())["job"]: path.parent for path in runs.glob("*/*/slurm.json")}


def running() -> list[str]:
    return said("squeue", "-h", "-r", "-t", "R", "-o", "%i").split()


def test_an_array_of_four_one_requeued_and_one_preempted(cluster, tmp_path):
    file = write(tmp_path / "four.yaml", **LONG, k=[1, 2], seed=[0, 1])
    runs = tmp_path / "runs"
    asked = "partition=low,time=10,parallel=2"
    out, _ = call("hbo.sweep", "run", file, "--set", f"out={runs}", "--slurm", asked)
    assert "4 runs of 1 devices: job array" in out
    assert len(jobs(runs)) == 4
    again, _ = call("hbo.sweep", "run", file, "--set", f"out={runs}", "--slurm", asked)
    assert "nothing is left to submit" in again
    trained = lambda: [job for job in running() if (jobs(runs).get(job, tmp_path) / "last.ckpt").exists()]
    wait_for(lambda: len(trained()) == 2, 90, "two train")
    text, _ = call("hbo.sweep", "status", file, "--set", f"out={runs}")
    assert "2 running, 2 queued" in text
    first, second = trained()[:2]
    said("scontrol", "requeue", first)
    wait_for(lambda: first not in running(), 30, "the first is requeued")
    said("sbatch", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2")
    wait_for(lambda: second not in running(), 60, "the second is preempted")
    wait_for(lambda: not said("squeue", "-h").strip(), 240, "all jobs end")
    found = study(runs)
    assert [row["state"] for row in found.values()] == ["done"] * 4
    for job in (first, second):
        assert found[jobs(runs)[job].name]["resumed_at"], f"{job} began anew"
    text, _ = call("hbo.sweep", "status", file, "--set", f"out={runs}")
    assert "4 runs: 4 done" in text
    # What a cluster left is what one machine leaves.
    only = write(tmp_path / "four_again.yaml", **LONG, study="four", k=[1, 2], seed=0)
    call("hbo.sweep", "run", only, "--set", f"out={tmp_path / 'here'}", "--workers", 2)
    for row in found.values():
        if row["seed"]:
            shutil.rmtree(runs / "four" / row["key"])
    same(tmp_path / "here", runs)


def test_a_run_of_two_tasks_is_one_row_and_is_taken_up(cluster, tmp_path):
    file = write(tmp_path / "two.yaml", **LONG, devices=2, seed=0)
    runs = tmp_path / "runs"
    call("hbo.sweep", "run", file, "--set", f"out={runs}", "--slurm", "partition=low,time=10")
    ((job, folder),) = jobs(runs).items()
    wait_for(lambda: (folder / "last.ckpt").exists(), 90, "it trains")
    said("scontrol", "requeue", job)
    wait_for(lambda: not running(), 30, "it is requeued")
    wait_for(lambda: not said("squeue", "-h").strip(), 180, "it ends")
    (row,) = study(runs).values()
    assert (row["state"], row["devices"], row["val_images_seen"]) == ("done", 2, row["val_images"])
    assert row["resumed_at"]


def test_what_sbatch_refuses_is_one_line(cluster, tmp_path):
    file = write(tmp_path / "one.yaml", **LONG, seed=0)
    _, err = call("hbo.sweep", "run", file, "--set", f"out={tmp_path / 'runs'}", "--slurm", "partition=none,time=1", expect=2)
    assert err.strip().splitlines()[-1].startswith("error: sbatch: ")  # after sbatch's own words
    assert "invalid partition" in err
    assert "Traceback" not in err
    _, err = call("hbo.sweep", "run", file, "--set", f"out={tmp_path / 'runs'}", "--slurm", "gpus=2", expect=2)
    assert "--devices_per_run 2" in err
