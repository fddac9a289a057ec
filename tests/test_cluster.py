"""hbo.runs.cluster: the cores that a process may use, tested with real processes under taskset and in a
control group.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from hbo.config import resolve
from hbo.runs import cluster
from hbo.runs.cluster import data_workers
from hbo.sweep.pool import places

pytestmark = pytest.mark.usefixtures("short_networks")

CORES = "from hbo.runs.cluster import cores; print(cores())"
CGROUP = Path("/sys/fs/cgroup/cpu")
SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")


def said(code: str, *before: str, **env: str) -> str:
    """What a separate process prints, outside any job."""
    clean = {name: value for name, value in os.environ.items() if name not in SLURM}
    command = [*before, sys.executable, "-c", code]
    done = subprocess.run(command, env=clean | env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not shutil.which("taskset"), reason="needs taskset")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores to take one away")
def test_cores_are_those_of_the_affinity_everywhere():
    """With one core of several, the loaders, the runs at once, the plan's advice and the cache's pool use
    one; the row names the machine.
    """
    code = """
import sys
from types import SimpleNamespace
from hbo.runs import rows
from hbo.config import resolve
from hbo.runs.cluster import data_workers
from hbo.sweep.loading import verdict
from hbo.sweep.pool import places
from hbo.data import cache
run = resolve(data="imagenet", accelerator="cpu", threads=1)
ahead = []
pool = SimpleNamespace(submit=lambda make, i: ahead.append(i) or SimpleNamespace(result=lambda: i, cancel=lambda: None))
next(cache._in_order(pool, None, range(1000)))
print(len(places([SimpleNamespace(run=run)], None)), data_workers(run, False), len(ahead),
      verdict(run, 1.0, 400.0, 2).split()[-5:], rows.machine().split(", ")[-2])
"""
    core = str(min(os.sched_getaffinity(0)))
    words = said(code, "taskset", "-c", core)
    assert words.startswith("1 1 4 ")
    assert words.endswith(f"{os.cpu_count()} cores")  # the machine is the same, whatever is allotted


def test_cores_are_those_allocated_by_slurm():
    machine = len(os.sched_getaffinity(0))
    assert said(CORES, SLURM_CPUS_PER_TASK="1") == "1"
    assert said(CORES, SLURM_CPUS_ON_NODE="1") == "1"
    assert said(CORES, SLURM_CPUS_PER_TASK="1", SLURM_CPUS_ON_NODE="64") == "1"
    assert said(CORES, SLURM_CPUS_ON_NODE="100000") == str(machine)  # no more than the machine has


def test_each_of_sruns_tasks_has_its_own_cores(monkeypatch):
    """What SLURM allots to a task is not divided again between tasks, but between Lightning's processes."""
    run = resolve(data="imagenet", devices=2)
    monkeypatch.setattr(cluster, "cores", lambda: 6)
    for name in ("SLURM_STEP_ID", *SLURM):
        monkeypatch.delenv(name, raising=False)
    assert data_workers(run, in_memory=False) == 2
    for name, value in {
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_CPUS_PER_TASK": "6",
    }.items():
        monkeypatch.setenv(name, value)
    assert data_workers(run, in_memory=False) == 5


@pytest.mark.skipif(not os.access(CGROUP, os.W_OK), reason="needs to make a control group of version 1")
def test_cores_are_those_of_a_real_control_group():
    group = CGROUP / f"hbo-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_quota_us").write_text("100000")
        enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
        assert said(CORES, *enter) == "1"
    finally:
        group.rmdir()


@pytest.mark.parametrize(("files", "quotas"), [
    ({"proc/self/cgroup": "0::/job/step\n", "sys/fs/cgroup/job/cpu.max": "150000 100000\n",
      "sys/fs/cgroup/job/step/cpu.max": "max 100000\n"}, [1.5]),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, [4.0]),  # a container's own
    ({"proc/self/cgroup": "0::/named/outside\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, [2.0]),
    ({"proc/self/cgroup": "3:cpuset:/a\n2:cpu,cpuacct:/a\n", "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "300000\n",
      "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, [3.0]),
    ({"proc/self/cgroup": "0::/a\n"}, []),
    ({}, []),
], ids=["above", "container", "host path", "version 1", "no files", "no proc"])  # fmt: skip
def test_quotas_of_control_groups(files, quotas, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cluster.quotas(tmp_path) == quotas


@pytest.mark.parametrize(("named", "there", "gpus"), [
    (None, 2, ["0", "1"]),
    ("", 2, []),
    ("-1", 2, []),
    ("NoDevFiles", 2, []),
    ("none", 2, []),
    ("1,-1,0", 1, ["1"]),  # GPUs after a -1 are hidden
    ("3, 1", 2, ["3", "1"]),
    ("0,1,7", 2, ["0", "1"]),  # the third does not exist
    ("1,1", 0, []),
    ("GPU-8932f937,GPU-2ab19f01", 2, ["GPU-8932f937", "GPU-2ab19f01"]),
    ("MIG-a1,MIG-b2", 1, ["MIG-a1", "MIG-b2"]),  # each process uses only the first
])  # fmt: skip
def test_gpus_are_named_as_torch_reads_them(named, there, gpus, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    found = places([SimpleNamespace(run=resolve(data="digits"))], None)  # pyright: ignore[reportArgumentType]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in found if "CUDA_VISIBLE_DEVICES" in place] == gpus


@pytest.mark.parametrize(
    ("named", "each"), [("-1", ["-1"]), ("", [""]), ("NoDevFiles", ["NoDevFiles"]), ("4,5", ["4", "5"])]
)
def test_agents_are_started_on_the_gpus_that_torch_reads(named, each, tmp_path):
    """sweeps/agents.sh with an nvidia-smi that lists four GPUs."""
    tools = {"wandb": 'echo "agent:$CUDA_VISIBLE_DEVICES"', "nvidia-smi": r"printf '0\n1\n2\n3\n'"}
    for name, line in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    env = os.environ | {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": named,
    }
    command = [ROOT / "sweeps" / "agents.sh", "entity/project/sweep"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert sorted(done.stdout.split()) == [f"agent:{gpu}" for gpu in each], done.stderr
