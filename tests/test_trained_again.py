"""A retrained key gets its own W&B run: no old curve under a new summary."""

import json
import shutil

import pytest
from conftest import call, only_row
from services import wandb_server
from test_agents import read_back

pytestmark = pytest.mark.slow
FLAGS = [
    "--data",
    "digits",
    "--width",
    0.1,
    "--epochs",
    2,
    "--limit_batches",
    2,
    "--threads",
    1,
    "--accelerator",
    "cpu",
    "--wandb",
    "online",
]


def test_a_forced_run_and_one_whose_folder_was_removed(tmp_path):
    with wandb_server(tmp_path) as env:
        fit = lambda *more: call(
            "hbo.fit", *FLAGS, "--out", tmp_path / "runs", *more, env={**env, "WANDB_MODE": None}
        )
        fit()
        row, folder = only_row(tmp_path / "runs")
        key = row["key"]
        assert "wandb_run" not in row
        fit("--force")
        second = json.loads((folder / "row.json").read_text())
        assert second["wandb_run"] == f"{key}-2"
        shutil.rmtree(tmp_path / "runs")
        fit()
        third = json.loads((folder / "row.json").read_text())
        assert third["wandb_run"] == f"{key}-3"
        found = {run["id"]: run for run in read_back(env)}
    assert set(found) == {key, f"{key}-2", f"{key}-3"}
    for run, own in ((found[key], row), (found[f"{key}-2"], second), (found[f"{key}-3"], third)):
        assert [point["epoch"] for point in run["history"]] == [0, 1]
        assert run["summary"]["started"] == own["started"]
