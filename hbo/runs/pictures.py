"""The picture that W&B gets at a run's end, drawn by the task's command of `hbo.analysis`."""

import subprocess
import sys
from pathlib import Path

from hbo.config import Run
from hbo.errors import flat
from hbo.runs import code
from hbo.runs.tracking import Mirror
from hbo.tasks import TASKS

SECONDS = 600  # for the drawing


def send(mirror: Mirror, run: Run, folder: Path, step: int) -> None:
    """Draw what a finished run got wrong, or found, and send it; a failure does not affect the run.

    Args:
        mirror: the W&B run.
        run: all fields.
        folder: of the run, its row finished.
        step: updates done.
    """
    name = TASKS[run.task].picture
    if mirror.experiment is None:
        return
    path = folder / f"{name}.png"
    where = ["--data_dir", run.data_dir] if run.data_dir else []
    command = [*code.command(f"hbo.analysis.{name}"), str(folder), *where, "--to", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        said = "" if done.returncode == 0 else flat(done.stderr) or f"exit status {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if said:
        print(f"W&B: no picture of {name}: {said}", file=sys.stderr)
    else:
        mirror.picture(name, path, step)
