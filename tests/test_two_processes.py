"""A run with two processes: what they see, and that they stop and resume together."""

import signal

import numpy as np
import pytest
import torch
from conftest import call, only_row, start
from resumed import same_run, wait_for, weights

pytestmark = [pytest.mark.usefixtures("short_networks"), pytest.mark.slow]


def test_two_processes_see_what_one_sees(tmp_path):
    """The same global batch on one process and on two: the same images, and the same weights within float
    error, as ConvNeXt's layer norm sees one image at a time.
    """
    args = ["--data", "digits", "--epochs", 1, "--batch", 32, "--limit_batches", 6, "--lr", 0.01]
    args += ["--threads", 1, "--net", "timm:convnext_atto", "--accelerator", "cpu"]
    for name, more in (("one", []), ("two", ["--devices", 2, "--strategy", "ddp"])):
        text, err = call("hbo.fit", *args, *more, "--out", tmp_path / name)
        assert text.count("row.json") == 1
        assert "Traceback" not in err
    (one, folder_one), (two, folder_two) = (only_row(tmp_path / name) for name in ("one", "two"))
    a, b = np.load(folder_one / "outcomes.npz"), np.load(folder_two / "outcomes.npz")
    assert two["val_images_seen"] == one["val_images_seen"] == 6 * 32
    np.testing.assert_array_equal(a["index"], b["index"])
    np.testing.assert_array_equal(a["label"], b["label"])
    assert one["key"] != two["key"]
    theirs = weights(folder_two)
    for key, value in weights(folder_one).items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-3, atol=1e-4)


def test_two_processes_resume_exactly(tmp_path):
    """HBONet: with batch norm each half of a batch has its own statistics, yet each image is evaluated once."""
    args = ["--data", "digits", "--epochs", 2, "--batch", 32, "--width", 0.1, "--threads", 1]
    args += ["--devices", 2, "--accelerator", "cpu"]
    call("hbo.fit", *args, "--out", tmp_path / "whole")
    row, folder = only_row(tmp_path / "whole")
    assert row["val_images_seen"] == row["val_images"]
    assert np.load(folder / "outcomes.npz")["index"].tolist() == list(range(row["val_images"]))
    process = start("hbo.fit", *args, "--out", tmp_path / "cut")
    wait_for(lambda: list((tmp_path / "cut").glob("*/*/metrics.csv")), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, err
    call("hbo.fit", *args, "--out", tmp_path / "cut")
    row, _ = only_row(tmp_path / "cut")
    assert row["resumed_at"][0] % row["steps_per_epoch"], "taken at an epoch's end; the middle was not tested"
    same_run(tmp_path / "whole", tmp_path / "cut", loss_rtol=1e-6)
