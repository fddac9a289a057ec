"""How this process was started: alone, by Lightning, or as one of srun's tasks; and what it may use of the machine."""

import os
from pathlib import Path
from typing import Any

import torch

from hbo.config import Run
from hbo.errors import UserError


def tasks() -> int:
    """How many tasks srun started of this program; 1 outside of it, a batch script's own step included."""
    in_step = os.environ.get("SLURM_STEP_ID", "").isdigit()
    return int(os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS") or 1) if in_step else 1


def cores() -> int:
    """CPU cores that this process may use, which a job, a container or `taskset` may make fewer than the machine has."""
    allowed = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    allowed += [
        int(n) for n in [os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")] if n.isdigit()
    ]
    return max(1, int(min([*allowed, *quotas()])))


def cores_a_process(devices: int) -> int:
    """Those of each of a run's processes on this machine: SLURM allots cores to each of srun's tasks, else they share."""
    each = tasks() > 1 and "SLURM_CPUS_PER_TASK" in os.environ
    return cores() if each else max(1, cores() // devices)


def data_workers(run: Run, in_memory: bool) -> int:
    """`run.workers`, or the cores that training leaves over, at most 8."""
    if run.workers is not None:
        return run.workers
    return 0 if in_memory else max(1, min(8, cores_a_process(run.devices) - 1))


def quotas(root: Path = Path("/")) -> list[float]:
    """Cores' worth of time that the process's control groups grant it, of versions 1 and 2.

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
        group = top / path.strip("/")  # in a container it may be named as outside, and lie at the top
        for folder in [group, *group.parents]:
            try:
                if controllers:
                    quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
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
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them, read as torch reads it: none after a -1 or a word."""
    there = torch.cuda.device_count()
    if os.environ.get("CUDA_VISIBLE_DEVICES") is None:
        return [str(i) for i in range(there)]
    named = [str(name) for name in torch.cuda._parse_visible_devices()]
    if named and named[0].startswith("MIG-"):  # a process is given one of them, and counts no more
        return named
    return named[: there or None]  # where no driver can be asked, what is named is believed


def is_first(run: Run) -> bool:
    """Whether this process writes the run's row; the others of a run that several processes train do not."""
    names = ["RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"] + ["SLURM_PROCID"] * (tasks() > 1)
    return run.world == 1 or not any(int(os.environ.get(name) or 0) for name in names)


def plugins(run: Run) -> list[Any] | None:
    """What Lightning must be told of SLURM; None where there is none of it.

    Lightning takes any process inside of SLURM for one of srun's tasks, and would requeue the job by itself.

    Raises:
        UserError: srun started another number of tasks than the run has devices.
    """
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    if run.world > 1 and tasks() > 1:
        if tasks() != run.world:
            raise UserError(
                f"devices={run.devices}, num_nodes={run.num_nodes}: srun started {tasks()} tasks; take --ntasks-per-node={run.devices} "
                f"and --nodes={run.num_nodes}"
            )
        return [SLURMEnvironment(auto_requeue=False)]
    return [LightningEnvironment()] if SLURMEnvironment.detect() else None
