"""For tests that kill a run and resume it: the moment to kill it, and whether two runs are the same."""

import signal
import time

import numpy as np
import pandas as pd
import torch
from conftest import only_row


def weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


def same_run(a, b, loss_rtol: float = 0) -> None:
    """Weights, outcomes and learning curve are bit-identical; so is the row, except for when and how long it
    ran.

    `loss_rtol` applies only to the curve's mean training loss, which several ranks sum in another order after
    a restart.
    """
    (row_a, folder_a), (row_b, folder_b) = only_row(a), only_row(b)
    theirs = weights(folder_b)
    for name, tensor in weights(folder_a).items():
        assert torch.equal(tensor, theirs[name]), name
    curves = [pd.read_csv(folder / "metrics.csv").drop(columns="seconds") for folder in (folder_a, folder_b)]
    np.testing.assert_allclose(*(curve.pop("train/loss") for curve in curves), rtol=loss_rtol, atol=0)
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    outcomes = [np.load(folder / "outcomes.npz") for folder in (folder_a, folder_b)]
    for name in outcomes[0]:
        np.testing.assert_array_equal(outcomes[0][name], outcomes[1][name])
    varies = {"seconds", "started", "git", "resumed_at", "images_per_second", "out", "checkpoint_every"}
    assert {k: v for k, v in row_a.items() if k not in varies} == {
        k: v for k, v in row_b.items() if k not in varies
    }


def wait_for(test, process, seconds: float = 600) -> None:
    """The process is halted while the test looks, so that what it sees is still so when this returns."""

    def seen() -> bool:
        process.send_signal(signal.SIGSTOP)
        try:
            return test()
        finally:
            process.send_signal(signal.SIGCONT)

    end = time.monotonic() + seconds
    while not seen():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
