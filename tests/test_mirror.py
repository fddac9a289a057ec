"""What W&B gets besides the row: invalid rows with their errors, points for each update, distinct names. And
what happens when the server goes away.
"""

import io
import json
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import ROOT, call, start
from services import (
    Environment,
    found_in_wandb,
    new_sweep,
    rows,
    started,
    wait_for,
    wandb_server,
    with_patience,
    with_wandb,
)
from test_agents import SHORT, TINY, folder, read_back

from hbo.config import resolve
from hbo.errors import DataError, UserError
from hbo.runs import labels, signals, tracking
from hbo.runs.stopping import Interrupted, NotFinite

pytestmark = pytest.mark.usefixtures("short_networks")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Environment]:
    with wandb_server(tmp_path_factory.mktemp("wandb")) as env:
        yield env


@pytest.mark.slow
def test_rows_that_cannot_be_runs_do_not_end_a_sweep(server, tmp_path):
    """Three networks without a contraction come first: each W&B run is finished, invalid, and has the error;
    the fourth is trained.
    """
    sweep = new_sweep(
        tmp_path,
        server,
        **SHORT,
        out=str(tmp_path / "runs"),
        study="nets",
        primary={"versus": ["net"], "margin": 1.0},
        k=2,
        net=["mobilenetv2", "mobilenet", "pelee", "hbonet"],
    )
    log = tmp_path / "agents.log"
    with started([str(ROOT / "sweeps" / "agents.sh"), sweep, "1"], server, log) as agents:
        assert with_patience(agents, 900) == 0, log.read_text()
    said = log.read_text()
    (row,) = rows(tmp_path / "runs").values()
    assert (row["net"], row["state"]) == ("hbonet", "done"), said
    runs = {run["config"]["net"]: run for run in read_back(server, sweep=sweep.split("/")[-1])}
    assert runs.keys() == {"mobilenetv2", "mobilenet", "pelee", "hbonet"}
    assert {run["state"] for run in runs.values()} == {"finished"}, said
    for net in ("mobilenetv2", "mobilenet", "pelee"):
        summary = runs[net]["summary"]
        assert summary["state"] == "invalid"
        why = (
            "k=2: mobilenetv2 has no harmonious"
            if net == "mobilenetv2"
            else f"width, divisor: {net} has a fixed width"
        )
        assert summary["error"].startswith(why)
    assert "Traceback" not in said
    notes = json.loads(_about(server, runs["hbonet"]["id"]))[-1]
    assert sorted(notes.split("; ")) == ["margin: 1.0", "versus: net"]  # in the order that W&B keeps
    out, _ = call(
        "hbo.analysis.results",
        "wandb:local/hbo",
        "--study",
        "nets",
        "--csv",
        env=server | {"XDG_CACHE_HOME": str(tmp_path)},
    )
    assert sorted(pd.read_csv(io.StringIO(out))["state"]) == ["done", *["invalid"] * 3]


@pytest.mark.slow
def test_a_wandb_run_has_its_folder_and_points_per_update(server, tmp_path):
    """Two epochs of three updates: the two points of metrics.csv, and six points for the updates."""
    (tmp_path / "runs" / "points").mkdir(parents=True)
    (tmp_path / "runs" / "points" / "question.json").write_text(
        json.dumps({"versus": ["k=2 against k=1"], "margin": 1.0})
    )
    config = {
        **SHORT,
        "k": 2,
        "log_every": 1,
        "wandb_media": True,
        "study": "points",
        "wandb": "online",
        "out": str(tmp_path / "runs"),
    }
    _, err = call(
        "hbo.fit", "--config", json.dumps(config), env=server | {"WANDB_MODE": None, labels.VARIES: "k,seed"}
    )
    (row,) = rows(tmp_path / "runs").values()
    (run,) = read_back(server, **{"config.study": "points"})
    assert f"W&B: {server['WANDB_BASE_URL']}/local/hbo/runs/{row['key']}" in err
    points = [point for point in run["history"] if "update/loss" in point]
    assert [point["step"] for point in points] == [1, 2, 3, 4, 5, 6]
    rates = [point["update/lr"] for point in points]
    assert (rates[0], rates) == (row["lr"], sorted(rates, reverse=True))  # cosine without a warm-up
    assert min([*rates, *(point["update/loss"] for point in points)]) > 0
    assert all(point["update/images_per_second"] > 0 for point in points[1:])
    epochs = [point for point in run["history"] if "epoch" in point]
    curve = pd.read_csv(folder(row) / "metrics.csv")
    assert [point["val/top1"] for point in epochs] == curve["val/top1"].tolist()
    assert run["summary"]["val/top1"] == {"last": curve["val/top1"].iloc[-1], "max": curve["val/top1"].max()}
    (picture,) = [point["pictures/mistakes"] for point in run["history"] if "pictures/mistakes" in point]
    assert (picture["_type"], picture["format"]) == ("image-file", "png"), err
    about = json.loads(_about(server, row["key"]))
    assert about == [
        "points-k2-seed0-" + row["key"],
        ["classify", "digits", "hbonet"],
        "train",
        "versus: k=2 against k=1; margin: 1.0",
    ]
    (found,) = [found for row, found in found_in_wandb(server, tmp_path) if row["study"] == "points"]
    assert set(found[0]) == set(curve.columns)


def _about(server: Environment, name: str) -> str:
    code = f"""
import json, wandb
run = wandb.Api().run("local/hbo/{name}")
print(json.dumps([run.name, sorted(run.tags), run.job_type, run.notes]))
"""
    return call("-c", code, env=with_wandb(server))[0]


@pytest.mark.slow
def test_a_lost_server_does_not_block_a_run(tmp_path):
    """The row is written, the client gives up after its time limit, and the command that uploads the rest is
    named.
    """
    config = {**TINY, "k": 2, "epochs": 3, "wandb": "online", "out": str(tmp_path / "runs")}
    with wandb_server(tmp_path) as env:
        limit = {"WANDB_MODE": None, "WANDB_FINISH_TIMEOUT": "5"}
        run = start("hbo.fit", "--config", json.dumps(config), env={**env, **limit})
        wait_for(lambda: list((tmp_path / "runs").glob("*/*/last.ckpt")))
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    (row,) = rows(tmp_path / "runs").values()
    assert row["state"] == "done"
    assert f"the row in {folder(row)} stays as it is, and `wandb sync {folder(row)}/wandb" in err
    assert "Traceback" not in err


def test_an_agents_run_cannot_be_offline(monkeypatch, tmp_path):
    """Its agent would wait for a W&B run that never comes."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    for mode in ("offline", "disabled"):
        with pytest.raises(UserError, match=f"wandb={mode}: an agent of a W&B sweep"):
            tracking.Mirror(resolve(data="digits", wandb=mode), tmp_path)


def test_a_row_is_invalid_only_in_a_sweep_and_by_its_own_fault(monkeypatch):
    """Outside a sweep no row is invalid; in a sweep, a missing folder is the machine's fault."""
    tracking.refuse(UserError("k=2: no"))
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    tracking.refuse(DataError("data_dir=x: no such folder"))


@pytest.mark.parametrize("mode", ["offline", "disabled", "online"])
def test_an_invalid_row_that_wandb_cannot_know_is_an_error(monkeypatch, tmp_path, mode):
    """Offline, or with a server that does not answer, nobody would learn that the run is invalid."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_MODE", mode)
    lost = lambda **given: (_ for _ in ()).throw(ConnectionError("no route"))
    monkeypatch.setattr(tracking, "client", lambda: SimpleNamespace(init=lost, Settings=dict))
    monkeypatch.setattr(tracking, "settings", lambda: SimpleNamespace(finish_timeout=1))
    said = (
        "W&B does not know of it .ConnectionError: no route"
        if mode == "online"
        else f"wandb={mode}: an agent"
    )
    with pytest.raises(UserError, match=f"k=2: no; {said}"):
        tracking.refuse(UserError("k=2: no"))


def test_a_signal_ends_the_wait_after_its_first_seconds():
    """Schedulers send two signals at once: the second one has no effect."""
    with signals.hurried(60):
        assert callable(signal.getsignal(signal.SIGTERM))  # else this would end the whole suite's process
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(TimeoutError, match="SIGTERM ended the waiting"), signals.hurried(-1):
        signal.raise_signal(signal.SIGTERM)
    signals.noted = signals.presses = 0


def test_names_list_the_varied_fields(monkeypatch):
    run = resolve(data="digits", k=2, seed=3, width=0.1, epochs=2, limit_batches=3, lr=0.01)
    assert labels.label(run, ["k", "seed"]) == "k2-seed3"
    assert labels.label(run).startswith("k2-width0.1-divisor4-seed3-")  # without a list: the network first
    assert labels.label(resolve(data="digits")) == "digits"
    assert (
        labels.label(resolve(data="digits", variant="net=hbonet k=2"), ["variant"]) == "variantnethbonet-k2"
    )
    monkeypatch.setenv(labels.VARIES, "k,seed")
    assert labels.varying() == ["k", "seed"]
    monkeypatch.delenv(labels.VARIES)
    assert labels.varying() is None


def test_runs_of_every_sweep_file_have_distinct_names():
    """What varies in a sweep file distinguishes its runs within the 80 characters of a name."""
    from hbo.sweep import plan
    from hbo.sweep.study import read

    for path in ("contraction", "table2", "factorial"):
        study = read(ROOT / "sweeps" / f"{path}.yaml", {"seed": [0, 1]})
        runs = [plan.Entry(fields, resolve(**fields)) for fields in study.rows]
        names = {labels.label(entry.run, plan.varying(runs)) for entry in runs if entry.run}
        assert len(names) == len(runs), path


class Recorder:
    """A W&B run that records the calls to it."""

    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.summary: dict = {}

    def __getattr__(self, name: str):
        return lambda *args, **given: self.told.append((name, *args, *given.values()))


@pytest.mark.parametrize(
    ("stop", "told"),
    [
        (
            NotFinite("the loss is nan"),
            [("alert", "default: KEY is lost", "the loss is nan", "ERROR"), ("finish", 1)],
        ),
        (Interrupted(signal.SIGUSR1, 7), [("mark_preempting",), ("finish", 128 + signal.SIGUSR1)]),
    ],
    ids=["lost", "preempted"],
)
def test_the_owner_of_a_lost_run_is_reported(stop, told, tmp_path, monkeypatch):
    """A preempted run continues, so it sends no alert."""
    run = resolve(data="digits", wandb="disabled")
    mirror = tracking.Mirror(run, tmp_path)
    mirror.experiment = Recorder()
    mirror.stopped(stop, [])
    name = lambda word: word.replace("KEY", run.key()) if isinstance(word, str) else word
    assert mirror.experiment.told == [tuple(map(name, line)) for line in told]


def test_a_stop_that_comes_while_w_and_b_is_told_ends_the_run(monkeypatch, tmp_path):
    """`wandb.agent(function=...)` raises a bare Exception in the run's thread, which may be inside the client."""
    mirror = object.__new__(tracking.Mirror)
    mirror.experiment, mirror.folder = SimpleNamespace(), tmp_path
    monkeypatch.setattr(tracking, "client", lambda: SimpleNamespace(teardown=lambda: None))
    monkeypatch.setattr(tracking.Mirror, "_init", lambda self: None)
    calls = []

    def interrupted() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise Exception

    monkeypatch.setattr(tracking, "by_agent", lambda: True)
    with pytest.raises(Exception, match=r"^$") as stop:
        mirror._tell(interrupted)
    assert type(stop.value) is Exception
    calls.clear()
    monkeypatch.setattr(tracking, "by_agent", lambda: False)
    mirror._tell(interrupted)  # without an agent it is the client's own, and is tried again
    assert len(calls) == 2
