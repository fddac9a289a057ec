"""Sweeps with W&B's own command line and agents, against a local server: each row runs once and can be read
back unchanged.
"""

import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT, call, start
from services import (
    AGENT,
    Environment,
    family,
    new_sweep,
    rows,
    send,
    started,
    wait_for,
    wandb_command,
    wandb_server,
    with_patience,
    with_wandb,
)
from test_pool import LR, same

from hbo.analysis import results
from hbo.config import Run
from hbo.sweep import drafting

pytestmark = [pytest.mark.usefixtures("short_networks"), pytest.mark.slow]
FIELDS = {field.name for field in fields(Run)}
TINY = {"data": "digits", "width": 0.1, "threads": 1, "lr": LR, "accelerator": "cpu"}
SHORT = {**TINY, "epochs": 2, "limit_batches": 3}
LONG = {**TINY, "epochs": 8, "k": 2}
# Too long to finish: these runs are stopped.
MANY = {
    **TINY,
    "epochs": 2000,
    "k": 2,
    "limit_batches": 3,
    "checkpoint_every": 1.0,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Environment]:
    with wandb_server(tmp_path_factory.mktemp("wandb")) as env:
        yield env


def read_back(env: Environment, **filters: Any) -> list[dict[str, Any]]:
    """Runs as `wandb.Api()` returns them, in a process of its own: W&B's settings do not leak into this one."""
    code = f"""
import json, wandb
runs = wandb.Api().runs("local/hbo", filters={filters!r})
parts = lambda r: dict(id=r.id, state=r.state, config=r.config, summary=dict(r.summary), history=list(r.scan_history()))
print(json.dumps([parts(run) for run in runs], default=dict))
"""
    return json.loads(call("-c", code, env=with_wandb(env))[0])


def mirrors(run: dict[str, Any], row: dict[str, Any]) -> None:
    """Assert that the W&B run holds the row: fields in the config, the learning curve in the history, the
    rest in the summary.
    """
    assert run["state"] == "finished"
    assert run["config"] == {name: row[name] for name in FIELDS}
    rest = {name: value for name, value in row.items() if name not in FIELDS}
    assert {name: run["summary"].get(name) for name in rest} == rest
    expected = curve(row)
    points = [
        {name: value for name, value in point.items() if not name.startswith("_")} for point in run["history"]
    ]
    pd.testing.assert_frame_equal(
        pd.DataFrame(points)[expected.columns], expected, check_exact=True, check_dtype=False
    )
    assert [point["_step"] for point in run["history"]] == list(range(row["epochs"]))  # one record per epoch


def folder(row: dict[str, Any]) -> Path:
    return Path(row["out"]) / row["study"] / row["key"]


def curve(row: dict[str, Any]) -> pd.DataFrame:
    """metrics.csv to the last bit: pandas' own parser is exact only in newer releases."""
    return pd.read_csv(folder(row) / "metrics.csv", dtype=str).map(float)


@pytest.fixture(scope="module")
def grid(server, tmp_path_factory) -> tuple[str, Path, str]:
    """A grid of three valid rows and one invalid one, with a question, run by two agents at once: the sweep,
    the runs, the agents' log.
    """
    root = tmp_path_factory.mktemp("grid")
    asks = {"metric": "top1", "versus": ["k=2 against k=1"], "margin": 1.0}
    sweep = new_sweep(root, server, asks, **SHORT, out=str(root / "runs"), study="grid", k=[1, 4, 2, 0])
    log = root / "agents.log"
    with started([str(ROOT / "sweeps" / "agents.sh"), sweep, "2"], server, log) as agents:
        assert with_patience(agents, 900) == 0, log.read_text()
    return sweep, root / "runs", log.read_text()


def test_two_agents_run_each_row_once(server, grid):
    sweep, out, said = grid
    found = rows(out)
    assert sorted(row["k"] for row in found.values()) == [0, 1, 2]
    assert all(row["state"] == "done" and row["resumed_at"] == [] for row in found.values())
    (error,) = [line for line in said.splitlines() if line.startswith("invalid: ")]
    assert "k=4" in error
    assert "Traceback" not in said
    assert said.count("About to run command") == 4
    runs = read_back(server, sweep=sweep.split("/")[-1])
    (bad,) = [run for run in runs if run["summary"]["state"] != "done"]
    assert (bad["state"], bad["config"]["k"], bad["history"]) == ("finished", 4, [])
    assert (bad["summary"]["state"], bad["summary"]["error"][:4]) == ("invalid", "k=4:")
    good = {run["summary"]["key"]: run for run in runs if run is not bad}
    assert good.keys() == found.keys()
    assert len(runs) == 4
    for key, run in good.items():
        mirrors(run, found[key])


def test_rows_come_back_from_wandb_and_the_invalid_one_says_so(server, grid, tmp_path):
    """The three rows match their folders; the invalid one has the sweep's fields and an error."""
    environment = server | {"XDG_CACHE_HOME": str(tmp_path)}
    out, _ = call("hbo.analysis.results", "wandb:local/hbo", "--study", "grid", "--csv", env=environment)
    (tmp_path / "grid.csv").write_text(out)
    table = results.load(tmp_path / "grid.csv")
    assert table["state"].value_counts().to_dict() == {"done": 3, "invalid": 1}
    (failed,) = table[table["state"] == "invalid"].to_dict("records")
    assert (failed["k"], failed["study"], failed["width"]) == (4, "grid", TINY["width"])
    assert failed["error"].startswith("k=4: ")
    done = table[table["state"] == "done"].drop(columns="error").reset_index(drop=True)
    pd.testing.assert_frame_equal(done, results.load(grid[1], "grid"), check_exact=True, check_dtype=False)


def test_without_a_server_the_same_file_leaves_the_same_rows(grid, tmp_path):
    """Bit for bit: rows, weights, per-image outcomes, learning curve."""
    _, out, _ = grid
    (file,) = out.parent.glob("*.yaml")
    call("hbo.sweep", "run", file, "--set", f"out={tmp_path / 'here'}", "--set", "k=[0,1,2]", "--workers", 2)
    same(out, tmp_path / "here")


def test_wandb_sweep_accepts_every_sweep_file(server, tmp_path):
    """Files with questions or notes, and files from hbo.sweep, cause no complaint of a malformed file."""
    files = sorted((ROOT / "sweeps").glob("*.yaml"))
    for kind in drafting.KINDS:
        files.append(
            drafting.write(kind, str(ROOT / "sweeps" / "factorial.yaml"), str(tmp_path / f"{kind}.yaml"))[0]
        )
    noted = tmp_path / "noted.yaml"
    noted.write_text((ROOT / "sweeps" / "contraction.yaml").read_text() + "x-note: for readers\n")
    files.append(noted)
    assert all("primary" in path.read_text() for path in files)
    code = "import sys\nfrom wandb.cli.cli import cli\nfor path in sys.argv[1:]:\n    cli.main(['sweep', '--project', 'hbo', path], standalone_mode=False)"
    _, said = call("-c", code, *files, env=with_wandb(server), cwd=ROOT)
    assert said.count("Creating sweep with ID") == len(files)
    assert "alformed" not in said


def test_a_finished_row_is_mirrored_and_two_processes_are_one_wandb_run(server, grid, tmp_path):
    """A previous sweep already finished the first row; two processes train the second."""
    former, out, _ = grid
    (done,) = [row for row in rows(out).values() if row["k"] == 1]
    written = (folder(done) / "last.ckpt").stat().st_mtime_ns
    sweep = new_sweep(tmp_path, server, **SHORT, out=str(out), study="grid", k=1, devices=[1, 2])
    with started([*AGENT, sweep], server, tmp_path / "log") as agent:
        assert with_patience(agent, 900) == 0, (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    found = rows(out)
    assert found[done["key"]] == done
    assert (folder(done) / "last.ckpt").stat().st_mtime_ns == written
    runs = read_back(server, sweep=sweep.split("/")[-1])
    again, both = sorted(runs, key=lambda run: run["config"]["devices"])
    mirrors(again, done)
    mirrors(both, found[both["summary"]["key"]])
    assert both["config"]["devices"] == 2
    assert both["summary"]["val_images_seen"] == done["val_images_seen"]
    assert read_back(server, **{"config.devices": 2}) == [both]  # only one run, not one per rank
    assert again["id"] not in [run["id"] for run in read_back(server, sweep=former.split("/")[-1])]


def test_an_interrupted_run_is_one_wandb_run_and_a_synced_offline_run_equals_it(server, tmp_path):
    """A run interrupted by SIGUSR1 and SIGTERM is one W&B run in the end, equal to an uninterrupted offline
    run that was synced.
    """
    flags = [word for name, value in (LONG | {"study": "long"}).items() for word in (f"--{name}", value)]
    whole = start("hbo.fit", *flags, "--out", tmp_path / "whole", env=server | {"WANDB_MODE": "offline"})
    sweep = new_sweep(tmp_path, server, **LONG, study="long", out=str(tmp_path / "cut"))
    log = tmp_path / "agent.log"

    def epochs() -> int:
        return sum(
            len(curve(row))
            for row in rows(tmp_path / "cut").values()
            if (folder(row) / "metrics.csv").exists()
        )

    def state() -> str:
        return next((row["state"] for row in rows(tmp_path / "cut").values()), "missing")

    with started([*AGENT, sweep], server, log) as agent:
        wait_for(epochs, what=log.read_text)
        agent.send_signal(signal.SIGUSR1)  # passed on to the run; the agent stays and gets the run again
        wait_for(lambda: state() == "interrupted", what=log.read_text)
        before = epochs()
        wait_for(lambda: epochs() > before, what=log.read_text)
        # As when SLURM ends a job: W&B's own process gets the signal too, and ends at once.
        send(signal.SIGTERM, *family(agent.pid))
        assert with_patience(agent, 300) is not None
    assert state() == "interrupted"
    (run,) = read_back(server, sweep=sweep.split("/")[-1])
    assert run["state"] == "preempted", log.read_text()
    name = run["id"]
    with started([*AGENT, sweep], server, log) as agent:
        assert with_patience(agent, 900) == 0, log.read_text()
    (row,) = rows(tmp_path / "cut").values()
    assert len(row["resumed_at"]) == 2
    (run,) = read_back(server, sweep=sweep.split("/")[-1])
    assert run["id"] == name
    mirrors(run, row)

    _, err = whole.communicate(timeout=900)
    assert whole.returncode == 0, err
    (undisturbed,) = rows(tmp_path / "whole").values()
    same(tmp_path / "cut", tmp_path / "whole")
    (kept,) = folder(undisturbed).glob("wandb/offline-run-*")
    wandb_command("sync", kept, env=server)
    (synced,) = read_back(server, name=undisturbed["key"])
    mirrors(synced, undisturbed)
    assert synced["summary"].keys() == run["summary"].keys()
    assert [point.keys() for point in synced["history"]] == [point.keys() for point in run["history"]]


def stop(env: Environment, name: str) -> None:
    """Press Stop on the run's page."""
    code = f"import wandb; wandb.Api().run('local/hbo/{name}').stop()"
    call("-c", code, env=with_wandb(env))


def test_a_run_that_is_stopped_in_wandb_ends_for_good(server, tmp_path):
    """The first of two rows is stopped midway: the agent takes the next, `hbo.sweep run` skips it, `hbo.fit`
    resumes it.
    """
    out, log = tmp_path / "runs", tmp_path / "log"
    sweep = new_sweep(tmp_path, server, **MANY, out=str(out), study="stop", seed=[0, 1])
    with started([*AGENT, sweep], server, log) as agent:
        for row_number in (1, 2):
            wait_for(lambda n=row_number: len(list(out.glob("*/*/last.ckpt"))) == n, what=log.read_text)
            (running,) = [
                run for run in read_back(server, sweep=sweep.split("/")[-1]) if run["state"] == "running"
            ]
            stop(server, running["id"])
            wait_for(
                lambda n=row_number: [row["state"] for row in rows(out).values()] == n * ["stopped"],
                what=log.read_text,
            )
        assert with_patience(agent, 300) == 0, log.read_text()
    said = log.read_text()
    assert "Traceback" not in said
    assert said.count("About to run command") == 2  # neither was handed out again
    found = rows(out)
    for key, row in found.items():
        assert 0 < row["stopped_at"] < 6000
        assert f"{key} was stopped in W&B at update {row['stopped_at']}" in said
    for run in read_back(server, sweep=sweep.split("/")[-1]):
        assert (run["state"], run["summary"]["state"]) == ("killed", "stopped")
        assert run["summary"]["stopped_at"] == found[run["summary"]["key"]]["stopped_at"]
        assert len(run["history"]) == len(curve(found[run["summary"]["key"]]))

    (file,) = tmp_path.glob("*.yaml")
    shown, _ = call("hbo.sweep", "status", file)
    assert shown.count("stopped in W&B at update ") == 2
    assert "2 runs: 2 stopped" in shown
    ran, _ = call("hbo.sweep", "run", file)
    assert rows(out) == found
    for key in found:
        assert f"python -m hbo.fit --config {out / 'stop' / key / 'config.yaml'} resumes from there" in ran
    call("hbo.analysis.results", out / "stop", expect=2)  # no run has finished


def test_a_run_without_a_sweep_is_stopped_and_resumes_on_request(server, tmp_path):
    """The client notices the stop; the resumed run is a new W&B run with the whole curve."""
    flags = [
        word
        for name, value in {**MANY, "study": "alone", "wandb": "online"}.items()
        for word in (f"--{name}", value)
    ]
    env: dict[str, str | None] = {**server, "WANDB_MODE": None}
    alone = start("hbo.fit", *flags, "--out", tmp_path, env=env)
    wait_for(lambda: list(tmp_path.glob("*/*/last.ckpt")))
    ((key, _),) = rows(tmp_path).items()
    stop(server, key)
    _, err = alone.communicate(timeout=300)
    assert alone.returncode == 0, err
    (row,) = rows(tmp_path).values()
    assert row["state"] == "stopped"
    config = folder(row) / "config.yaml"
    assert f"{key} was stopped in W&B at update {row['stopped_at']}" in err
    assert err.strip().endswith(f"python -m hbo.fit --config {config} resumes from there")

    again = start("hbo.fit", "--config", config, env=env)
    wait_for(lambda: len(curve(row)) > row["stopped_at"] // 3 + 1)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=300)
    assert again.returncode == 130
    (more,) = rows(tmp_path).values()
    assert (more["state"], more["wandb_run"], more["resumed_at"]) == (
        "interrupted",
        f"{key}-2",
        [row["stopped_at"]],
    )
    assert "stopped_at" not in more
    first, second = sorted(read_back(server, **{"config.study": "alone"}), key=lambda run: run["id"])
    assert (first["id"], first["state"], second["id"]) == (key, "killed", f"{key}-2")
    assert [point["epoch"] for point in second["history"]] == list(range(len(curve(more))))


FUNCTION = f"""
import sys, wandb
from hbo.config import resolve
from hbo.fit import fit
wandb.agent(sys.argv[1], function=lambda: fit(resolve(**{MANY!r}, study="function", out=sys.argv[2])), count=1)
"""


def test_a_function_of_an_agent_is_stopped(server, tmp_path):
    """`wandb.agent(function=...)` raises an exception in the training thread."""
    sweep, log = new_sweep(tmp_path, server, seed=0), tmp_path / "log"
    with started([sys.executable, "-c", FUNCTION, sweep, str(tmp_path)], server, log) as agent:
        wait_for(lambda: list(tmp_path.glob("*/*/last.ckpt")), what=log.read_text)
        (run,) = read_back(server, sweep=sweep.split("/")[-1])
        stop(server, run["id"])
        assert with_patience(agent, 300) == 0, log.read_text()
    (row,) = rows(tmp_path).values()
    assert (row["state"], row["stopped_at"] > 0) == ("stopped", True), log.read_text()
    (run,) = read_back(server, sweep=sweep.split("/")[-1])
    assert (run["state"], run["summary"]["stopped_at"]) == ("killed", row["stopped_at"])
