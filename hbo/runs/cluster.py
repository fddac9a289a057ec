"""How this process was started: alone, by Lightning, or as one of srun's tasks; and the cores and GPUs that
it may use.
"""

import os
from pathlib import Path
from typing import Any

import torch

from hbo.config import Run
from hbo.errors import UserError

SHARED = "HBO_RUNS_PER_DEVICE"  # how many runs a launcher has put on a run's device, itself included


def sharing() -> int:
    """How many runs share this one's device, as its launcher says; 1 without a launcher."""
    said = os.environ.get(SHARED, "")
    return max(1, int(said)) if said.isdigit() else 1


def tasks() -> int:
    """Number of tasks that srun started; 1 without srun, and in a batch script's own step."""
    in_step = os.environ.get("SLURM_STEP_ID", "").isdigit()
    return (
        int(os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS") or 1) if in_step else 1
    )


def cores() -> int:
    """CPU cores that this process may use; a job, a container or `taskset` may limit them."""
    allowed = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    allowed += [
        int(n)
        for n in [os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")]
        if n.isdigit()
    ]
    return max(1, int(min([*allowed, *quotas()])))


def cores_a_process(devices: int) -> int:
    """Cores of each of a run's processes on this machine: SLURM assigns cores to each of srun's tasks, else
    the processes share them.
    """
    each = tasks() > 1 and "SLURM_CPUS_PER_TASK" in os.environ
    return cores() if each else max(1, cores() // devices)


def data_workers(run: Run, in_memory: bool) -> int:
    """`run.workers`, or the cores that training does not use, at most 8."""
    if run.workers is not None:
        return run.workers
    return 0 if in_memory else max(1, min(8, cores_a_process(run.devices) - 1))


def quotas(root: Path = Path("/")) -> list[float]:
    """CPU limit of the process's control groups (versions 1 and 2), in cores.

    Args:
        root: where /proc and /sys are.
    """
    found = []
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    for _, controllers, path in groups:
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = top / path.strip("/")  # in a container it may have its outside name, and be at the top
        for folder in [group, *group.parents]:
            try:
                if controllers:
                    quota, period = (
                        (folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
                    )
                else:
                    quota, period = (folder / "cpu.max").read_text().split()
                if float(quota) > 0:
                    found.append(float(quota) / float(period))
            except (OSError, ValueError):  # no such group, or "max"
                pass
            if folder == top:
                break
    return found


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, from CUDA_VISIBLE_DEVICES, parsed as in
    torch: none after a -1 or a word.
    """
    there = torch.cuda.device_count()
    if os.environ.get("CUDA_VISIBLE_DEVICES") is None:
        return [str(i) for i in range(there)]
    named = [str(name) for name in torch.cuda._parse_visible_devices()]
    if named and named[0].startswith("MIG-"):  # a process gets one of them, and counts no more
        return named
    return named[: there or None]  # without a driver to ask, believe the variable


def is_first(run: Run) -> bool:
    """Whether this process writes the run's row; only one of a run's processes does."""
    return run.world == 1 or rank() == 0


def rank() -> int:
    """0 in the first process that was started of this program, above 0 in the others."""
    names = ["RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"] + ["SLURM_PROCID"] * (tasks() > 1)
    return max(int(os.environ.get(name) or 0) for name in names)


def plugins(run: Run) -> list[Any] | None:
    """Lightning's plugin for SLURM; None outside SLURM.

    By default Lightning treats any process inside SLURM as one of srun's tasks, and requeues the job itself.

    Raises:
        UserError: srun's number of tasks differs from the run's number of devices.
    """
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    if run.world > 1 and tasks() > 1:
        if tasks() != run.world:
            raise UserError(
                f"devices={run.devices}, num_nodes={run.num_nodes}: srun started {tasks()} tasks; use"
                f" --ntasks-per-node={run.devices} and --nodes={run.num_nodes}"
            )
        return [SLURMEnvironment(auto_requeue=False)]
    return [LightningEnvironment()] if SLURMEnvironment.detect() else None
