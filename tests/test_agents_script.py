"""sweeps/agents.sh and sweeps/slurm/agent.sbatch with stand-ins: which agents are started, and how they end."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from services import wait_for


def started(folder, gpus: str, *words: str) -> tuple[int, list[str], str]:
    """Exit status, one line per agent (its GPUs, how many agents share one, the guard), and the messages."""
    for name, line in (
        ("python", f"echo {gpus}"),
        ("wandb", 'echo "$CUDA_VISIBLE_DEVICES;$HBO_RUNS_PER_DEVICE;$WANDB_AGENT_DISABLE_FLAPPING"'),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [ROOT / "sweeps" / "agents.sh", *words],
        env=env | {"PATH": f"{folder}:{env['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.returncode, sorted(done.stdout.split()), done.stderr


@pytest.mark.parametrize(
    ("gpus", "words", "agents"),
    [
        ("0 1", ["s"], ["0;;true", "1;;true"]),
        ("0 1", ["s", "1"], ["0,1;;true"]),
        ("0 1", ["--runs_per_device", "2", "s"], ["0;2;true", "0;2;true", "1;2;true", "1;2;true"]),
        ("0 1", ["--runs_per_device", "2", "s", "3"], ["0;2;true", "0;2;true", "1;2;true"]),
        ("", ["s", "2"], [";;true", ";;true"]),
    ],
)
def test_each_agent_has_its_place(tmp_path, gpus, words, agents):
    assert started(tmp_path, gpus, *words)[:2] == (0, agents)


@pytest.mark.parametrize(
    ("gpus", "words", "said"),
    [
        ("0 1", ["s", "3"], "3 agents for 2 GPUs; use 2 or fewer, or --runs_per_device 2"),
        ("", ["--runs_per_device", "2", "s"], "there is no GPU here; use s 2"),
        ("0 1", ["s", "0"], "N=0: must be whole numbers from 1"),
        ("0 1", ["--runs_per_device", "two", "s"], "--runs_per_device two, N=: must be whole numbers from 1"),
    ],
)
def test_more_than_there_are_places_is_refused_with_what_to_type(tmp_path, gpus, words, said):
    status, agents, err = started(tmp_path, gpus, *words)
    assert (status, agents) == (2, [])
    assert said in err


# ------------------------------------------------------------ as a task of a SLURM array

TOLD = 'echo "$*;${HBO_RUNS_PER_DEVICE:-};$WANDB_AGENT_DISABLE_FLAPPING" >> told'
UNTIL_TERM = "trap 'echo TERM >> told; exit' TERM; for _ in {1..600}; do sleep 0.05; done"


def task(folder: Path, agent: str, *words: str) -> subprocess.Popen:
    """The batch script of one task; `agent` is what its agents do."""
    for name, line in (("wandb", f"{TOLD}; {agent}"), ("scontrol", 'echo "scontrol $*" >> told')):
        (folder / name).write_text(f"#!/bin/bash\n{line}\n")
        (folder / name).chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "HBO_"))}
    with open(folder / "said", "w") as said:
        return subprocess.Popen(
            ["bash", ROOT / "sweeps" / "slurm" / "agent.sbatch", *words],
            env=env | {"PATH": f"{folder}:{env['PATH']}", "SLURM_JOB_ID": "7"},
            cwd=folder,
            stderr=said,
        )


def told(folder: Path) -> list[str]:
    return (folder / "told").read_text().splitlines() if (folder / "told").exists() else []


AGENT = "agent --forward-signals --term-timeout 240 s"


@pytest.mark.parametrize(
    ("words", "agents"), [(["s"], [f"{AGENT};;true"]), (["s", "1"], [f"{AGENT};;true"]), (["s", "3"], 3 * [f"{AGENT};3;true"])]
)  # fmt: skip
def test_a_task_has_as_many_agents_as_are_asked_for_and_says_so_to_their_rows(tmp_path, words, agents):
    """And waits for all of them; a task that ends by itself is not requeued."""
    script = task(tmp_path, "sleep 0.2; echo ended >> told", *words)
    assert script.wait(600) == 0
    assert sorted(told(tmp_path)) == sorted([*agents, *["ended"] * len(agents)])


def test_before_the_time_limit_every_agent_is_told_and_the_task_is_requeued(tmp_path):
    script = task(tmp_path, UNTIL_TERM, "s", "3")
    wait_for(lambda: len(told(tmp_path)) == 3, 600)
    script.send_signal(signal.SIGUSR1)
    assert script.wait(600) == 0
    assert told(tmp_path)[3:] == [*["TERM"] * 3, "scontrol requeue 7"]


@pytest.mark.parametrize("number", ["0", "two"])
def test_a_number_of_agents_that_is_none_is_an_error(tmp_path, number):
    script = task(tmp_path, "", "s", number)
    assert (script.wait(600), told(tmp_path)) == (2, [])
    assert f"R={number}: must be a whole number of at least 1" in (tmp_path / "said").read_text()
