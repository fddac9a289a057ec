"""A retrained key gets its own W&B run: no old curve under a new summary."""

import json
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import call, only_row
from services import wandb_server
from test_agents import read_back

from hbo.config import resolve
from hbo.runs import tracking
from hbo.training import TrainingSession

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


@pytest.mark.slow
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


@pytest.mark.parametrize("agent", [False, True])
def test_a_row_names_no_wandb_run_whose_id_the_agent_chose(agent, tmp_path, monkeypatch):
    """Under an agent the second training's id is not KEY-2."""
    monkeypatch.setattr(tracking, "Mirror", lambda *_: SimpleNamespace(id="abc-2", mode="online"))
    monkeypatch.setattr(tracking, "by_agent", lambda: agent)
    session: Any = SimpleNamespace(
        run=resolve(data="digits"),
        folder=tmp_path,
        row={"key": "abc"},
        checkpointing=SimpleNamespace(progress=None),
    )
    TrainingSession._begin_row(session, SimpleNamespace())  # pyright: ignore[reportArgumentType]
    assert session.row.get("wandb_run") == (None if agent else "abc-2")
