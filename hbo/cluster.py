"""How this process was started: alone, by Lightning, or as one of srun's tasks."""

import os
from typing import Any

from hbo.config import Run
from hbo.errors import UserError


def tasks() -> int:
    """How many tasks srun started of this program; 1 outside of it, a batch script's own step included."""
    in_step = os.environ.get("SLURM_STEP_ID", "").isdigit()
    return int(os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS") or 1) if in_step else 1


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
