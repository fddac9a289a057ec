"""W&B's agents as a SLURM array: one task is preempted and requeued, its run resumes, and each row is done
once.
"""

import signal
import subprocess

import pytest
from conftest import ROOT
from services import needs_slurm, new_sweep, rows, send, signalled, slurm, suspend, wait_for, wandb_server
from test_agents import TINY, mirrors, read_back

pytestmark = [pytest.mark.usefixtures("short_networks"), pytest.mark.slow, needs_slurm]
SHORT = {**TINY, "epochs": 4, "limit_batches": 12}


def test_an_array_of_agents_one_preempted(tmp_path):
    runs, log = tmp_path / "runs", str(tmp_path / "agent-%a.log")
    with wandb_server(tmp_path) as server, slurm(tmp_path / "slurm") as cluster:
        env = server | {"SLURM_CONF": cluster["SLURM_CONF"]}

        def ask(*command: str) -> str:
            return subprocess.run(
                command, env=env, cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout

        def said() -> str:
            return ask("squeue") + "".join(path.read_text() for path in tmp_path.glob("agent-*.log"))

        def states() -> list[str]:
            return [row["state"] for row in rows(runs).values()]

        sweep = new_sweep(
            tmp_path, server, **SHORT, checkpoint_every=0.1, out=str(runs), k=[1, 2], seed=[0, 1]
        )
        ask("sbatch", "--array=0-1", "--partition=low", f"--output={log}", "sweeps/slurm/agent.sbatch", sweep)
        suspended = suspend(runs, 2).values()  # both tasks train
        high = ["--partition=high", "--ntasks=3", "--output=/dev/null"]  # one of the two tasks must go
        ask("sbatch", *high, "--wrap", "sleep 1")
        wait_for(lambda: any(map(signalled, suspended)), what=said)
        send(signal.SIGCONT, *suspended)
        wait_for(lambda: "interrupted" in states(), what=said)
        wait_for(lambda: not ask("squeue", "-h"), 900, said)
        found = rows(runs)
        assert states() == ["done"] * 4, said()
        assert any(row["resumed_at"] for row in found.values()), said()
        kept = {run["summary"].get("key"): run for run in read_back(env, sweep=sweep.split("/")[-1])}
        assert kept.keys() == found.keys()
        for key, run in kept.items():
            mirrors(run, found[key])
        assert "Traceback" not in said()
