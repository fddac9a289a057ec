"""`hbo.sweep run` on one machine: processes killed at random moments, two runners at once, Ctrl-C, rows of
other studies.
"""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import call, start
from services import send, wait_for

pytestmark = [pytest.mark.usefixtures("short_networks"), pytest.mark.slow]
# At the recipe's rate of 0.05 a network this narrow may lose all its features within an epoch or two; whether
# its gradient then overflows depends on the last bit of the processor's arithmetic.
LR = 0.01
BASE = {"data": "digits", "width": 0.1, "threads": 1, "lr": LR, "epochs": 2, "checkpoint_every": 0.3}


def write(path: Path, **parameters) -> Path:
    content = {
        "method": "grid",
        "parameters": {n: {"values" if isinstance(v, list) else "value": v} for n, v in parameters.items()},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def study(out: Path) -> dict[str, dict]:
    """Key -> row, over all studies."""
    found = [json.loads(path.read_text()) for path in out.glob("*/*/row.json")]
    assert len({row["key"] for row in found}) == len(found), "a key twice"
    return {row["key"]: row for row in found}


def fits(out: Path) -> list[int]:
    """Processes that log to a run below this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            log = Path(os.readlink(path / "fd" / "1"))
        except OSError:
            continue
        if log.name == "log.txt" and out in log.parents:
            found.append(int(path.name))
    return found


def same(a: Path, b: Path) -> None:
    """Two folders of runs hold bit-identical rows."""
    rows_a, rows_b = study(a), study(b)
    assert rows_a.keys() == rows_b.keys()
    varies = {"seconds", "started", "git", "resumed_at", "images_per_second", "out", "study", "wandb_mode"}
    for key, row in rows_a.items():
        assert row["state"] == "done"
        assert {n: v for n, v in row.items() if n not in varies} == {
            n: v for n, v in rows_b[key].items() if n not in varies
        }
        (one,), (two,) = a.glob(f"*/{key}"), b.glob(f"*/{key}")
        weights = [torch.load(folder / "last.ckpt", weights_only=True)["state_dict"] for folder in (one, two)]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
        outcomes = [np.load(folder / "outcomes.npz") for folder in (one, two)]
        assert all(np.array_equal(outcomes[0][name], outcomes[1][name]) for name in outcomes[0])
        curves = [pd.read_csv(folder / "metrics.csv").drop(columns="seconds") for folder in (one, two)]
        pd.testing.assert_frame_equal(*curves, check_exact=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Four short runs without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    file = write(folder / "four.yaml", **BASE, k=[1, 2], seed=[0, 1])
    out, err = call("hbo.sweep", "run", file, "--set", f"out={folder / 'runs'}", "--workers", 2)
    assert "Traceback" not in err
    assert out.strip().splitlines()[-1] == "four: 4 done of 4"
    return folder / "runs", file


def test_workers_and_runner_killed_at_random_moments_leave_the_same_rows(whole, tmp_path):
    undisturbed, file = whole
    draw = random.Random(1)
    args = ["run", file, "--set", f"out={tmp_path / 'runs'}", "--workers", 2, "--retries", 9]
    runner = start("hbo.sweep", *args, start_new_session=True)
    killed = 0

    def under_way() -> bool:
        """Whether a training run has a checkpoint to resume from."""
        rows = study(tmp_path / "runs").items()
        kept = [
            tmp_path / "runs" / "four" / key / "last.ckpt"
            for key, row in rows
            if row["state"] == "unfinished"
        ]
        return bool(fits(tmp_path)) and any(path.exists() for path in kept)

    for moment in range(4):  # some while starting, some while training, on a machine of any speed
        wait_for(under_way if moment % 2 else lambda: fits(tmp_path))
        time.sleep(draw.uniform(0, 0.5 if moment % 2 else 2))
        killed += send(signal.SIGKILL, *fits(tmp_path))
    runner.kill()
    runner.communicate()
    killed += send(signal.SIGKILL, *fits(tmp_path))  # the runner's death does not end them
    assert killed >= 4
    done = {key for key, row in study(tmp_path / "runs").items() if row["state"] == "done"}
    assert len(done) < 4, "all was over before the kills"
    before = {key: (tmp_path / "runs" / "four" / key / "row.json").stat().st_mtime_ns for key in done}
    call("hbo.sweep", *args)
    same(undisturbed, tmp_path / "runs")
    assert any(row["resumed_at"] for row in study(tmp_path / "runs").values()), (
        "no kill met a run that had a checkpoint"
    )
    for key, stamp in before.items():
        assert (tmp_path / "runs" / "four" / key / "row.json").stat().st_mtime_ns == stamp, "run again"


def test_two_runners_share_the_rows_and_ctrl_c_saves_them(whole, tmp_path):
    undisturbed, file = whole
    args = ["run", file, "--set", f"out={tmp_path / 'runs'}", "--workers", 1]
    first, second = (start("hbo.sweep", *args, start_new_session=True) for _ in range(2))
    wait_for(lambda: len(list((tmp_path / "runs").glob("*/*/last.ckpt"))) >= 2)
    os.killpg(first.pid, signal.SIGINT)
    _, err = first.communicate(timeout=300)
    assert first.returncode == 128 + signal.SIGINT, err
    assert err.strip().splitlines()[-1] == "stopped; every run is saved, and the same call resumes"
    assert "Traceback" not in err
    out, err = second.communicate(timeout=900)
    assert second.returncode == 0, out + err
    found = study(tmp_path / "runs")
    assert len(found) == 4
    reference = study(undisturbed)
    for key, row in found.items():
        assert (row["state"], row["top1"], row["loss"]) == (
            "done",
            reference[key]["top1"],
            reference[key]["loss"],
        )
    # Each run started only once: a second process would have written to the log.
    logs = [path.read_text() for path in (tmp_path / "runs").glob("*/*/log.txt")]
    assert sum(log.count("row.json") for log in logs) == 4


def test_rows_of_another_study_are_reused(whole, tmp_path):
    runs, _ = whole
    file = write(tmp_path / "other.yaml", **BASE, k=[1], seed=[0, 1])
    out, _ = call("hbo.sweep", "run", file, "--set", f"out={runs}")
    try:
        assert "running" not in out
        found = [json.loads(path.read_text()) for path in (runs / "other").glob("*/row.json")]
        assert len(found) == 2
        for row in found:
            original = json.loads((runs / "four" / row["key"] / "row.json").read_text())
            assert row == original | {"study": "other", "reused_from": "four"}
            assert (runs / "other" / row["key"] / "outcomes.npz").exists()
        text, _ = call(
            "hbo.fit", "--config", json.dumps({**BASE, "k": 2, "seed": 1}), "--study", "third", "--out", runs
        )
        assert "third" in text
        (third,) = (runs / "third").glob("*/row.json")
        assert json.loads(third.read_text())["reused_from"] == "four"
    finally:
        for name in ("other", "third"):
            shutil.rmtree(runs / name, ignore_errors=True)


def test_a_failed_row_says_why_and_the_others_finish(tmp_path):
    few = {**BASE, "limit_batches": 2, "lr": [LR, 1e12]}
    file = write(tmp_path / "some.yaml", **few, net=["hbonet", "mobilenetv2"], k=2)
    args = ["run", file, "--set", f"out={tmp_path / 'runs'}", "--workers", 2]
    out, err = call("hbo.sweep", *args, expect=1)
    assert "Traceback" not in out + err
    states = [row["state"] for row in study(tmp_path / "runs").values()]
    assert sorted(states) == ["done", "failed"]
    assert "use an --lr below" in out
    said = call("hbo.sweep", "status", *args[1:4])[0]
    assert said.count("invalid: k=2: mobilenetv2 has no harmonious bottleneck") == 2
    assert said.strip().splitlines()[-1] == "4 runs: 1 done, 2 invalid, 1 failed"
    _, err = call(
        "hbo.sweep",
        *args,
        "--set",
        "lr=[1e13,1e14,1e15]",
        "--set",
        "net=hbonet",
        "--max_failures",
        1,
        expect=1,
    )
    assert "stopped after" in err
    assert len(study(tmp_path / "runs")) <= 4, "one was started after a failure"


def test_the_row_of_a_missing_folder_says_so(tmp_path):
    file = write(tmp_path / "none.yaml", data="imagenet", data_dir=str(tmp_path / "gone"), k=[1], width=0.25)
    out, _ = call("hbo.sweep", "run", file, "--set", f"out={tmp_path / 'runs'}", expect=1)
    assert f"failed: data_dir={tmp_path / 'gone'}: no such folder" in out
