"""Weights & Biases, a mirror of the run's folder and never its only copy.

One W&B run a row: its config is the flat fields, its history the learning curve (metrics.csv), its summary the row.
"""

import math
import netrc
import os
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from hbo import signals
from hbo.config import Run, resolve
from hbo.errors import UserError

if TYPE_CHECKING:
    from wandb import Run as Experiment


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


def by_agent() -> bool:
    """Whether an agent of a W&B sweep started this process, and so waits for a W&B run."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def start(run: Run, folder: Path) -> "tuple[Experiment | None, str]":
    """The W&B run, None where W&B is disabled, and the mode that it is really in.

    Its id is the key, or what a sweep's agent says; its config the flat fields, once. With `auto` a server that does not
    answer is no reason to stop: the run goes on offline and says so.
    """
    kind = mode(run)
    if kind == "disabled":
        return None, kind
    os.environ.setdefault("WANDB_SILENT", "true")  # its own lines would break the bar
    try:
        experiment = _init(run, folder, kind)
    except Exception as error:  # whatever the client raises: the network, the server, the key
        if run.wandb != "auto" or kind == "offline":
            raise UserError(f"wandb={kind}: {type(error).__name__}: {error}; --wandb offline needs no server") from None
        kind = "offline"
        print(
            f"W&B: {type(error).__name__}, so this run is offline; `wandb sync` sends {folder / 'wandb'} later", file=sys.stderr
        )
        experiment = _init(run, folder, kind)
    return experiment, kind


def _init(run: Run, folder: Path, kind: Any) -> "Experiment":
    import wandb

    key, agent = run.key(), by_agent()  # in a sweep the agent's id and project count
    experiment = wandb.init(
        name=f"{run.study}-{name(run)}-{key}",
        dir=folder,
        id=None if agent else key,
        project=None if agent else run.project,
        resume="allow",
        group=run.study,
        mode=kind,
        config=asdict(run),
    )
    experiment.define_metric("step")
    experiment.define_metric("*", step_metric="step")
    return experiment


def log(experiment: "Experiment", curve: list[dict[str, Any]]) -> None:
    """Send the points of the learning curve that W&B does not have yet: all of them to a run that is new there."""
    have = experiment.summary.get("step", -1)
    for point in curve:
        if point["step"] > have:
            experiment.log({name: value for name, value in point.items() if not _missing(value)})


def summarise(experiment: "Experiment", row: dict[str, Any]) -> None:
    """The row, but for the fields that stand in the config; then W&B's run is over."""
    asked = {f.name for f in fields(Run)}
    experiment.summary.update({name: value for name, value in row.items() if name not in asked})
    experiment.finish()


def stopped(experiment: "Experiment", stop: BaseException) -> None:
    """Tell W&B what ended the run; one that a scheduler's signal ended is handed out again by its sweep."""
    number = getattr(stop, "number", 0)
    if number in signals.PREEMPTION:
        experiment.mark_preempting()
    if not number:
        experiment.summary["error"] = str(stop)
    experiment.finish(exit_code=128 + number if number else 1)


def mirror(run: Run, folder: Path, row: dict[str, Any]) -> None:
    """A finished row as a W&B run, for the agent that asked for it."""
    import pandas as pd

    experiment, _ = start(run, folder)
    if experiment is not None:
        log(experiment, pd.read_csv(folder / "metrics.csv", float_precision="round_trip").to_dict("records"))
        summarise(experiment, row)


def name(run: Run) -> str:
    """What tells the run from the default of its data set, for people to read: `k2-seed1`."""
    usual = asdict(resolve(data=run.data))
    parts = [f"{f}{v}" for f, v in asdict(run).items() if f not in run.NOT_IN_KEY and v != usual[f]]
    return "-".join(parts).replace("/", "_").replace(":", "_")[:80] or run.data


def _missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
