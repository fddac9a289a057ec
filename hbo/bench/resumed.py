"""How far a killed and resumed run is from an uninterrupted one, on this device (`hbo.bench gpu`)."""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from hbo.runs.weights import read

WAIT = 120  # seconds for a first checkpoint
RUN = (
    *("--data", "digits", "--width", "0.1", "--epochs", "3", "--limit_batches", "8"),
    *("--threads", "1", "--wandb", "disabled"),
)


def resumed(accelerator: str) -> dict[str, Any]:
    """Largest differences between the weights of two equal runs, and between a run and one that got SIGKILL
    after its first checkpoint and was resumed; 0 if they agree bit for bit.
    """
    with tempfile.TemporaryDirectory() as folder:
        once, again, killed = (Path(folder) / name for name in ("once", "again", "killed"))
        for out in (once, again):
            _run(accelerator, out).wait()
        process = _run(accelerator, killed)
        end = time.monotonic() + WAIT
        while not list(killed.glob("*/*/last.ckpt")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        interrupted = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        _run(accelerator, killed).wait()
        weights = [_weights(out) for out in (once, again, killed)]
    if not all(weights):
        return {"failed": "a run of hbo.fit failed; run it by itself"}
    first, second, third = weights
    return {
        "run_again": _apart(first, second),
        "killed_and_resumed": _apart(first, third),
        "was_killed": interrupted,
    }


def _run(accelerator: str, out: Path) -> Any:
    command = (sys.executable, "-m", "hbo.fit", *RUN, "--accelerator", accelerator, "--out", out)
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _weights(out: Path) -> dict[str, torch.Tensor]:
    found = list(out.glob("*/*/last.ckpt"))
    return read(found[0])["state_dict"] if found else {}


def _apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference of any number."""
    return max(float((value.double() - other[name].double()).abs().max()) for name, value in one.items())
