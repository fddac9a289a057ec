"""Runs in separate processes: rows, resuming, signals, kills, a loss that becomes NaN."""

import json
import os
import random
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import call, make_folder, only_row, released_state, start
from flagged import flags
from resumed import same_run, wait_for, weights
from short import VARIABLE

from hbo.config import resolve
from hbo.tasks.base import Schedule

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_networks")]
DIGITS = ["--data", "digits", "--epochs", 4, "--batch", 64, "--width", 0.1, "--k", 2, "--threads", 1]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    text, err = call("hbo.fit", *DIGITS, "--out", out)
    return out, text, err


def test_a_run_leaves_its_row_and_files(unbroken):
    out, text, err = unbroken
    row, folder = only_row(out)
    assert row["state"] == "done"
    assert row["key"] == folder.name
    run = resolve(data="digits", epochs=4, batch=64, width=0.1, k=2, threads=1, out=str(out))
    assert run.key() == folder.name
    assert yaml.safe_load((folder / "config.yaml").read_text())["divisor"] == row["divisor"] == 4
    outcomes = np.load(folder / "outcomes.npz")
    assert outcomes["index"].tolist() == list(range(row["val_images"]))
    assert (outcomes["label"] == outcomes["prediction"]).mean() == pytest.approx(row["top1"])
    assert outcomes["loss"].mean() == pytest.approx(row["loss"])
    curve = pd.read_csv(folder / "metrics.csv")
    assert curve["epoch"].tolist() == [0, 1, 2, 3]
    assert curve["val/top1"].iloc[-1] == pytest.approx(row["top1"])  # the last epoch, not the best
    assert curve["train/loss"].is_monotonic_decreasing
    assert row["top1"] > 0.3  # chance is 0.1
    assert row["depths"] == [2, 2]
    assert len(row["concat_channels"]) == len(row["residual_channels"]) == 2
    assert row["resumed_at"] == []
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    assert all(
        v is None or isinstance(v, (str, int, float, bool)) for v in checkpoint["hyper_parameters"].values()
    )
    assert "top-5" in text
    assert str(folder / "row.json") in text
    assert "epoch=4/4" in err
    assert "Warning" not in err


def test_a_finished_run_is_not_repeated_unless_forced(unbroken, tmp_path):
    out, text, _ = unbroken
    _, folder = only_row(out)
    before = (folder / "last.ckpt").stat().st_mtime_ns
    again, _ = call("hbo.fit", *DIGITS, "--out", out)
    assert again == text
    assert (folder / "last.ckpt").stat().st_mtime_ns == before
    fake = ["--data", "fake", "--width", 0.1, "--resolution", 32, "--limit_batches", 2, "--out", tmp_path]
    call("hbo.fit", *fake)
    first, folder = only_row(tmp_path)
    files = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    nobody = {
        "WANDB_API_KEY": "",
        "WANDB_CONFIG_DIR": str(tmp_path),
        "HOME": str(tmp_path),
        "WANDB_MODE": None,
    }
    call("hbo.fit", *fake, "--force", "--wandb", "online", expect=2, env=nobody)  # no key: it cannot begin
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name in files} == files
    assert not list((folder.parent / "replaced").iterdir())
    _, said = call("hbo.fit", *fake, "--force")
    second, _ = only_row(tmp_path)
    assert second["started"] >= first["started"]
    assert second["val_images_seen"] == 64
    (kept,) = (folder.parent / "replaced").iterdir()  # moved aside, not lost
    assert json.loads((kept / "row.json").read_text()) == first
    assert f"the former run is in {kept}" in said


def stamp(out) -> int:
    """When the last checkpoint was written, in nanoseconds."""
    return max((p.stat().st_mtime_ns for p in out.glob("*/*/last.ckpt")), default=0)


def test_killed_at_three_random_moments_it_ends_as_the_unbroken_run(unbroken, tmp_path):
    draw = random.Random(0)
    args = [*DIGITS, "--out", tmp_path, "--checkpoint_every", 0.05]
    for attempt in range(3):
        process = start("hbo.fit", *args)
        before = stamp(tmp_path)
        wait_for(lambda b=before: stamp(tmp_path) > b, process)  # it trains, and has saved something new
        time.sleep(draw.uniform(0, 0.5))
        process.kill()
        process.communicate()
        row, _ = only_row(tmp_path)
        assert row["state"] == "unfinished", f"kill {attempt} came too late"
    call("hbo.fit", *args)
    row, _ = only_row(tmp_path)
    assert len(row["resumed_at"]) == 3
    assert row["resumed_at"] == sorted(row["resumed_at"])
    assert any(step % 21 for step in row["resumed_at"]), (
        "every kill fell on an epoch's end; the middle was not tested"
    )
    same_run(unbroken[0], tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_the_same_command_goes_on(unbroken, tmp_path, number):
    args = [*DIGITS, "--out", tmp_path]
    process = start("hbo.fit", *args)
    wait_for(lambda: list(tmp_path.glob("*/*/metrics.csv")), process)  # after the first epoch
    time.sleep(0.3)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 128 + number, err
    assert "the same command resumes" in err
    assert "Traceback" not in err
    row, folder = only_row(tmp_path)
    assert row["state"] == "interrupted"
    if number == signal.SIGTERM:  # its numbers are not a result
        _, err = call("hbo.evaluate", folder)
        assert f"warning: {folder / 'last.ckpt'}: unfinished, stopped at update" in err
    _, err = call("hbo.fit", *args)
    row, _ = only_row(tmp_path)
    assert len(row["resumed_at"]) == 1
    assert f"resumes at update {row['resumed_at'][0]} of 84" in err
    assert row["resumed_at"][0] >= 21
    same_run(unbroken[0], tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_the_whole_group_spares_the_loaders(tmp_path, number):
    """Ctrl-C and schedulers signal the workers too; they must live until the checkpoint is written."""
    root = make_folder(tmp_path / "set", {"a": 80, "b": 80}, {"a": 3, "b": 2})
    args = flags(data="imagefolder", data_dir=root, width=0.1, resolution=64, batch=4, epochs=9)
    args += flags(threads=1, workers=2, checkpoint_every=0)
    process = start("hbo.fit", *args, "--out", tmp_path / "runs", start_new_session=True)
    wait_for(lambda: list(tmp_path.glob("runs/*/*/last.ckpt")), process)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert only_row(tmp_path / "runs")[0]["state"] == "interrupted"


def test_killed_after_its_last_epoch_it_only_evaluates(unbroken, tmp_path):
    call("hbo.fit", *DIGITS, "--out", tmp_path)
    row, folder = only_row(tmp_path)
    (folder / "outcomes.npz").unlink()
    (folder / "row.json").write_text(json.dumps({**row, "state": "unfinished"}))
    call("hbo.fit", *DIGITS, "--out", tmp_path)
    assert only_row(tmp_path)[0]["resumed_at"] == [84]
    same_run(unbroken[0], tmp_path)
    _, err = call("hbo.fit", *DIGITS, "--out", tmp_path)
    assert "finished earlier, nothing is trained" in err
    _, err = call("hbo.evaluate", folder)
    assert "unfinished" not in err


def test_dropout_is_resumed_exactly(tmp_path):
    """A rival with dropout draws its noise from (seed, update, rank), so a restart does not show."""
    args = flags(data="fake", net="torchvision:squeezenet1_1", resolution=64, epochs=2, lr=0.001, threads=1)
    call("hbo.fit", *args, "--out", tmp_path / "whole")
    process = start("hbo.fit", *args, "--out", tmp_path / "cut", "--checkpoint_every", 0)
    wait_for(lambda: list((tmp_path / "cut").glob("*/*/last.ckpt")), process)
    process.kill()
    process.communicate()
    call("hbo.fit", *args, "--out", tmp_path / "cut")
    same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_checkpoint_of_another_run_is_refused(unbroken, tmp_path):
    _, folder = only_row(unbroken[0])
    run = resolve(data="digits", epochs=4, batch=64, width=0.1, k=3, out=str(tmp_path))
    other = tmp_path / "default" / run.key()
    other.mkdir(parents=True)
    (other / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes())
    _, err = call("hbo.fit", *DIGITS, "--k", 3, "--out", tmp_path, expect=2)
    assert len(err.strip().splitlines()) == 1
    assert "k (2 saved, 3 asked)" in err


def test_a_loss_that_is_lost_ends_the_run_and_stands_in_the_row(tmp_path):
    _, err = call("hbo.fit", *DIGITS, "--lr", 1e8, "--out", tmp_path, expect=1)
    row, folder = only_row(tmp_path)
    assert row["state"] == "failed"
    assert "use an --lr below" in row["error"]
    assert err.strip().splitlines()[-1] == f"error: {row['error']}"
    assert "Traceback" not in err
    if (folder / "last.ckpt").exists():
        assert all(t.isfinite().all() for k, t in weights(folder).items() if k.endswith("weight"))


def test_evaluate_ours_and_the_releases(unbroken, tmp_path):
    row, folder = only_row(unbroken[0])
    out, _ = call("hbo.evaluate", folder, "--json")
    ours = json.loads(out)
    assert ours["images"] == row["val_images"]
    for name in ("top1", "top5", "loss", "balanced_accuracy", "f1"):
        assert ours[name] == pytest.approx(row[name], rel=1e-6)
    out, _ = call("hbo.evaluate", folder, "--resolution", 48)
    assert "at 48, " in out
    told = [unbroken[1], out]
    assert {text.split(" on ")[0] for text in told} == {"hbonet k=2 width=0.1"}
    names = [{line[2:20].strip() for line in text.splitlines()[1:]} for text in told]
    assert names[1] - {"loss"} == names[0] & {
        "top-1",
        "top-5",
        "balanced accuracy",
        "mean F1",
        "largest class",
    }
    _, err = call("hbo.evaluate", folder, "--k", 3, expect=2)
    assert "k (2 saved, 3 asked)" in err

    released, whole = tmp_path / "hbonet.pth", {VARIABLE: None}
    torch.save(released_state("width0.1_div4_k1"), released)
    classes = {f"n{i:04d}": 1 for i in range(1000)}
    root = make_folder(tmp_path / "imagenet", classes, classes)
    out, _ = call(
        "hbo.evaluate",
        released,
        "--data",
        "imagenet",
        "--data_dir",
        root,
        "--resolution",
        64,
        "--limit_batches",
        1,
        env=whole,
    )
    assert "hbonet k=1 width=0.1 on imagenet" in out
    assert "256 images" in out
    _, err = call("hbo.evaluate", released, "--data", "digits", env=whole, expect=2)
    assert "has 1000 classes, digits has 10" in err
    _, err = call("hbo.evaluate", released, env=whole, expect=2)
    assert "--data imagenet" in err


def test_offline_wandb_keeps_the_run_under_its_key(tmp_path):
    args = flags(data="digits", epochs=1, limit_batches=2, width=0.1, threads=1, out=tmp_path)
    env = {"WANDB_MODE": None, "WANDB_API_KEY": None, "NETRC": str(tmp_path / "none"), "HOME": str(tmp_path)}
    _, err = call("hbo.fit", *args, env=env)
    row, folder = only_row(tmp_path)
    assert row["wandb_mode"] == "offline"
    (kept,) = folder.glob("wandb/offline-run-*")
    assert kept.name.endswith(row["key"])
    assert "Traceback" not in err
    assert "WARNING" not in err


def test_an_image_folder_trains_from_the_command_line(tmp_path):
    root = make_folder(tmp_path / "set", {"a": 8, "b": 8}, {"a": 3, "b": 2})
    args = flags(data="imagefolder", data_dir=root, resolution=32, batch=4, epochs=1, threads=1)
    call("hbo.fit", *args, "--out", tmp_path / "runs")
    row, _ = only_row(tmp_path / "runs")
    assert (row["train_images"], row["val_images_seen"], row["num_classes"]) == (16, 5, 2)


@pytest.mark.parametrize(("argv", "word"), [
    (["--resolution", 32, "--data", "fake", "--net", "torchvision:alexnet"], "not supported by"),
    (["--data", "imagenet", "--data_dir", "/none"], "/none"),
    (["--data", "fake", "--precision", "16-mixed", "--accelerator", "cpu"], "bf16-mixed"),
    (["--accelerator", "gpu"] if not torch.cuda.is_available() else ["--devices", 99, "--batch", 99], "accelerator"),
])  # fmt: skip
def test_what_cannot_be_is_one_line_and_leaves_no_row(argv, word, tmp_path):
    _, err = call("hbo.fit", *argv, "--out", tmp_path, expect=2)
    assert len(err.strip().splitlines()) == 1
    assert word in err
    assert not list(tmp_path.glob("*/*"))


def test_a_folder_that_cannot_be_written_is_one_line():
    _, err = call("hbo.fit", "--data", "fake", "--out", "/dev/null", expect=2)
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1


def test_the_schedule_is_the_papers():
    schedule = Schedule(resolve(data="imagenet", epochs=10, warmup=1.0), steps_per_epoch=100)
    assert schedule(0) == 0.01
    assert schedule(99) == schedule(100) == 1
    assert schedule(550) == pytest.approx(0.5)
    assert schedule(1000) == pytest.approx(0)
    assert Schedule(resolve(schedule="constant"), 10)(77) == 1
