"""sweeps/agents.sh with stand-ins: which GPU each agent gets, and that wandb's failure guard is off."""

import os
import subprocess

import pytest
from conftest import ROOT


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
        timeout=60,
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
        ("0 1", ["s", "3"], "3 agents for 2 GPUs; take 2 or fewer, or --runs_per_device 2"),
        ("", ["--runs_per_device", "2", "s"], "there is no GPU here; take s 2"),
    ],
)
def test_more_than_there_are_places_is_refused_with_what_to_type(tmp_path, gpus, words, said):
    status, agents, err = started(tmp_path, gpus, *words)
    assert (status, agents) == (2, [])
    assert said in err
