"""Weights & Biases, a mirror of the run's folder and never its only copy."""

import netrc
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from hbo.config import Run
from hbo.errors import UserError

if TYPE_CHECKING:
    from pytorch_lightning.loggers import WandbLogger


def mode(run: Run) -> str:
    """online, offline or disabled. auto is W&B's own WANDB_MODE where set; else online where a key is set up, else offline."""
    if run.wandb != "auto":
        return run.wandb
    if wanted := os.environ.get("WANDB_MODE"):
        return {"dryrun": "offline", "run": "online"}.get(wanted, wanted)
    return "online" if has_key() else "offline"


def has_key() -> bool:
    """Whether a key for the server is in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def start(run: Run, folder: Path) -> "tuple[WandbLogger | None, str]":
    """The logger of a run, None where W&B is disabled, and the mode that it is really in.

    The run's id is the key, its config the flat fields, once. With `auto` a server that does not answer is no reason to
    stop: the run goes on offline and says so.
    """
    kind = mode(run)
    if kind == "disabled":
        return None, kind
    os.environ.setdefault("WANDB_SILENT", "true")  # its own lines would break the bar
    try:
        logger = _logger(run, folder, kind)
    except Exception as error:  # whatever the client raises: the network, the server, the key
        if run.wandb != "auto" or kind == "offline":
            raise UserError(f"wandb={kind}: {type(error).__name__}: {error}; --wandb offline needs no server") from None
        kind = "offline"
        print(
            f"W&B: {type(error).__name__}, so this run is offline; `wandb sync` sends {folder / 'wandb'} later", file=sys.stderr
        )
        logger = _logger(run, folder, kind)
    return logger, kind


def _logger(run: Run, folder: Path, kind: Any) -> "WandbLogger":
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    key = run.key()
    experiment = wandb.init(
        name=f"{run.study}-{name(run)}-{key}",
        project=run.project,
        dir=folder,
        id=key,
        resume="allow",
        group=run.study,
        mode=kind,
        config=asdict(run),
    )
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=experiment, save_dir=str(folder))


def name(run: Run) -> str:
    """What tells the run from the default of its data set, for people to read: `k2-seed1`."""
    from hbo.config import resolve

    usual = asdict(resolve(data=run.data))
    parts = [f"{f}{v}" for f, v in asdict(run).items() if f not in run.NOT_IN_KEY and v != usual[f]]
    return "-".join(parts).replace("/", "_").replace(":", "_")[:80] or run.data
