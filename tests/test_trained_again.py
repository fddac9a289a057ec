"""A retrained key gets its own W&B run: no old curve under a new summary."""

import json
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import call, only_row
from services import found_in_wandb, new_sweep, wandb_server, with_wandb
from test_agents import read_back
from test_mirror import Recorder

from hbo.config import resolve
from hbo.runs import tracking
from hbo.training import TrainingSession

pytestmark = pytest.mark.usefixtures("short_networks")

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


# ------------------------------------------------------------ under an agent, which chooses the W&B run


def curve(*top1: float, seconds: float) -> list[dict[str, Any]]:
    """A learning curve of three updates an epoch."""
    return [
        {"epoch": i, "step": 3 * i + 3, "val/top1": top1, "seconds": seconds + i}
        for i, top1 in enumerate(top1)
    ]


class Opened(Recorder):
    """A W&B run whose summary follows its log, as the client's does."""

    id = url = ""

    def __init__(self, **summary: Any) -> None:
        super().__init__()
        self.summary = summary
        self.points: list[dict[str, Any]] = []

    def log(self, point: dict[str, Any]) -> None:
        self.points.append(point)
        self.summary |= point


def mirror(monkeypatch, folder, run: Opened, over: Any = None) -> tracking.Mirror:
    """A mirror into this W&B run, which an agent handed out."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    client = SimpleNamespace(init=lambda **_: run, Settings=lambda **_: None)
    monkeypatch.setattr(tracking, "client", lambda: client)
    monkeypatch.setattr(tracking, "settings", lambda: SimpleNamespace(finish_timeout=None))
    return tracking.Mirror(resolve(data="digits", wandb="online"), folder, over)


FIRST = {"epoch": 1, "step": 6, "seconds": 6.0, "val/top1": {"last": 0.5, "max": 0.9}}


def test_a_second_training_in_an_agents_run_is_an_attempt_with_all_its_points(tmp_path, monkeypatch):
    """The folder has no checkpoint, so the two epochs in W&B belong to an earlier training."""
    run = Opened(**FIRST)
    it = mirror(monkeypatch, tmp_path, run)
    it.point(1, loss=2.0)
    it.log(curve(0.25, seconds=1.0))
    it.log(curve(0.25, 0.125, seconds=1.0))
    assert [(p["attempt"], p.get("epoch"), p["step"]) for p in run.points] == [
        (2, None, 1),
        (2, 0, 3),
        (2, 1, 6),
    ]
    assert run.summary["val/top1"] == {"last": 0.125, "max": 0.25}  # the first's 0.9 is not its best
    assert ("define_metric", "*") in run.told  # over W&B's own step, as `step` starts again
    # Preempted in its first epoch, and handed out once more.
    (tmp_path / "last.ckpt").touch()
    run = Opened(attempt=2, step=1)
    mirror(monkeypatch, tmp_path, run).log(curve(0.25, seconds=1.0))
    assert [(p["attempt"], p["epoch"]) for p in run.points] == [(2, 0)]


def test_a_run_that_goes_on_sends_what_is_new_and_its_best_is_of_all(tmp_path, monkeypatch):
    (tmp_path / "last.ckpt").touch()
    run = Opened(**FIRST)
    mirror(monkeypatch, tmp_path, run).log(curve(0.9, 0.5, 0.25, seconds=5.0))
    assert run.points == [{"epoch": 2, "step": 9, "val/top1": 0.25, "seconds": 7.0}]
    assert run.summary["val/top1"] == {"last": 0.25, "max": 0.9}
    assert ("define_metric", "*", "step") in run.told


@pytest.mark.parametrize(("seconds", "attempts"), [(5.0, [None]), (1.0, [2, 2, 2])])
def test_a_row_that_is_done_continues_its_own_curve_only(seconds, attempts, tmp_path, monkeypatch):
    """The agent's run was preempted, and the row was finished here or is another study's."""
    (tmp_path / "last.ckpt").touch()
    run, points = Opened(**FIRST), curve(0.9, 0.5, 0.25, seconds=seconds)
    mirror(monkeypatch, tmp_path, run, points).log(points)
    assert [point.get("attempt") for point in run.points] == attempts


AGENT = {"WANDB_RUN_ID": "agents", "WANDB_PROJECT": "hbo", "WANDB_ENTITY": "local"}
TWICE = """
import json, sys
from pathlib import Path
from hbo.config import resolve
from hbo.runs import swept, tracking
print(json.dumps(swept.parameters()))
for top1s in ((0.9, 0.5), (0.25, 0.125)):
    run = resolve(data="digits", wandb="online", study="twice", out=sys.argv[1])
    it = tracking.Mirror(run, Path(sys.argv[1]))
    for i in range(2):
        it.log([{"epoch": e, "step": 3 * e + 3, "val/top1": v, "seconds": 1.0 + e} for e, v in enumerate(top1s[: i + 1])])
    it.finish({"key": run.key(), "state": "done", "top1": top1s[-1]}) if top1s[0] < 0.5 else it.experiment.finish(1)
"""


@pytest.mark.slow
def test_wandb_keeps_both_attempts(tmp_path):
    with wandb_server(tmp_path) as env:
        sweep = new_sweep(tmp_path, env, k=1, threads=[1, 2]).split("/")[-1]
        out, _ = call("-c", TWICE, tmp_path, env=with_wandb(env | AGENT | {"WANDB_SWEEP_ID": sweep}))
        (run,) = read_back(env)
        ((row, curve),) = found_in_wandb(env, tmp_path)
    assert json.loads(out) == {"k": {"value": 1}, "threads": {"values": [1, 2]}}
    points = [(p["_step"], p.get("attempt"), p["epoch"], p["val/top1"]) for p in run["history"]]
    assert points == [(0, None, 0, 0.9), (1, None, 1, 0.5), (2, 2, 0, 0.25), (3, 2, 1, 0.125)]
    assert run["summary"]["val/top1"] == {"last": 0.125, "max": 0.25}
    assert [(p["epoch"], p["val/top1"]) for p in curve] == [(0, 0.25), (1, 0.125)]
    assert (row["top1"], "attempt" in row) == (0.125, False)
