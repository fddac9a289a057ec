"""A run on two nodes, simulated on this machine: one is lost midway, the job is requeued, the run resumes."""

import json
import os
import subprocess

import pytest
from conftest import call
from services import needs_slurm, slurm, wait_for
from test_pool import LR, study, write

asked = pytest.mark.skipif("HBO_TWO_NODES" not in os.environ, reason="takes minutes: HBO_TWO_NODES=1 runs it")
pytestmark = [pytest.mark.slow, needs_slurm, asked]
LONG = {
    "data": "digits",
    "width": 0.1,
    "threads": 1,
    "epochs": 6,
    "lr": LR,
    "checkpoint_every": 1.0,
    "accelerator": "cpu",
    "wandb": "disabled",
}


def said(*command: object) -> str:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


def test_a_run_on_two_nodes_survives_the_loss_of_one(tmp_path, monkeypatch):
    """The result is that of an uninterrupted run on two devices of one machine: the same key, metrics and
    loss.
    """
    runs = tmp_path / "runs"
    with slurm(tmp_path / "slurm", cpus=2, nodes=2) as environment:
        for name, value in (environment | {"MASTER_ADDR": "127.0.0.1"}).items():  # n1 and n2 have no address
            monkeypatch.setenv(name, value)
        file = write(tmp_path / "two.yaml", **LONG, num_nodes=2, out=str(runs))
        call("hbo.sweep", "run", file, "--slurm", "partition=low,time=10", env=dict(os.environ))

        def story() -> str:
            logs = [path.read_text(errors="replace")[-3000:] for path in runs.glob("*/slurm/*_log.*")]
            return "\n".join([said("squeue"), said("sinfo", "-N"), *logs])

        (note,) = runs.glob("*/*/slurm.json")
        job = json.loads(note.read_text())["job"]
        wait_for(lambda: (note.parent / "last.ckpt").exists(), 300, story)
        assert "NodeList=n[1-2]" in said("scontrol", "show", "job", job)
        said("scontrol", "update", "nodename=n2", "state=down", "reason=lost")
        wait_for(lambda: said("squeue", "-h", "-t", "R", "-o", "%i").split() == [], 600, story)
        assert study(runs)[note.parent.name]["state"] in ("unfinished", "interrupted")
        said("scontrol", "update", "nodename=n2", "state=resume")
        wait_for(lambda: not said("squeue", "-h").strip(), 600, story)
        (row,) = study(runs).values()
        assert row["state"] == "done", story()
    assert row["resumed_at"], "it began anew"
    assert (row["num_nodes"], row["devices"], row["val_images_seen"]) == (2, 1, row["val_images"])
    words = [
        word
        for name, value in {**LONG, "devices": 2, "out": tmp_path / "here"}.items()
        for word in (f"--{name}", value)
    ]
    call("hbo.fit", *words)
    (whole,) = study(tmp_path / "here").values()
    assert {n: whole[n] for n in ("key", "top1", "loss")} == {n: row[n] for n in ("key", "top1", "loss")}
