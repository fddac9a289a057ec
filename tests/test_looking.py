"""What a launcher reads from the file system: each done row once, however often it looks; and two
studies with the same keys at the same time.
"""

import json
import os
import sys
import time
from pathlib import Path

import pytest
from conftest import call, start
from services import wait_for
from test_lock import elsewhere
from test_pool import BASE, study, write

from hbo import files
from hbo.config import Run, resolve
from hbo.runs import lock, rows
from hbo.sweep import plan, pool
from hbo.sweep.board import Board
from hbo.sweep.plan import Entry
from hbo.sweep.study import read

pytestmark = pytest.mark.usefixtures("short_networks")

opened: dict[str, list[str]] = {"files": [], "folders": [], "asked": []}
counting = False


def _note(event: str, args: tuple) -> None:
    if counting and event in ("open", "os.scandir", "os.listdir"):
        opened["files" if event == "open" else "folders"].append(str(args[0]))


sys.addaudithook(_note)


@pytest.fixture
def counted(monkeypatch):
    """The files that this process opens, and those whose existence it checks, during the test."""
    global counting
    for calls in opened.values():
        calls.clear()
    for name in ("stat", "lstat", "access"):  # these raise no audit event; pathlib and os.path call them here

        def noted(path, *args, _call=getattr(os, name), **more):
            opened["asked"].append(str(path))
            return _call(path, *args, **more)

        monkeypatch.setattr(os, name, noted)
    counting = True
    yield opened
    counting = False


def drawn(out: Path, n: int, done: int) -> list[Entry]:
    """A study of `n` runs, of which `done` have a small finished row; keys and results are made up."""
    run = Run(out=str(out), study="many")
    found = [Entry({}, run, key=f"{i:010x}", state="missing") for i in range(n)]
    for entry in found:
        entry.where = entry.home
    for entry in found[:done]:
        entry.home.mkdir(parents=True)
        (entry.home / "row.json").write_text('{"state": "done", "seconds": 1.0, "top1": 0.5}')
    return found


def test_ten_thousand_finished_rows_are_read_once(tmp_path, counted, monkeypatch):
    """Twenty later looks list the study's folders only: no file is opened or checked."""
    runs = drawn(tmp_path, 10_001, 10_000)
    for calls in counted.values():
        calls.clear()
    for entry in runs:
        plan.refresh(entry)
    assert sum(path.endswith("row.json") for path in counted["files"]) == 10_000
    assert sum(path.endswith("row.json") for path in counted["asked"]) <= 2 * 10_001
    monkeypatch.setattr(pool, "start", lambda entry, place: pytest.fail("nothing is to be started here"))
    launcher = pool.Workers(runs, [], 0, 5)  # no place is free, so it only looks
    for entry in runs:
        plan.reuse(entry)
        plan.run_again(entry)
    for calls in counted.values():
        calls.clear()
    with Board("many", runs, 1) as board:
        for _ in range(20):
            launcher.looked = -1e9
            assert launcher.goes_on()
            board.update()
    assert (counted["files"], counted["asked"]) == ([], [])
    assert len(counted["folders"]) == 20 * 2  # the folder of all studies, and its one study


def test_a_study_without_runs_costs_little_per_look(tmp_path, counted):
    launcher = pool.Workers(drawn(tmp_path, 2000, 0), [], 0, 5)
    (tmp_path / "many").mkdir()
    for _ in range(5):
        launcher.looked = -1e9
        launcher.goes_on()
    assert (counted["files"], counted["asked"], len(counted["folders"])) == ([], [], 5 * 2)


def test_a_row_that_changes_is_read_again(tmp_path):
    (entry,) = drawn(tmp_path, 1, 0)
    entry.home.mkdir(parents=True)
    for state in ("unfinished", "interrupted", "done"):
        rows.write(entry.home, {"state": state, "seconds": 2.0, "top1": 0.5})
        plan.refresh(entry)
        assert entry.state == state


def test_the_file_systems_clock_is_read_once_a_minute(tmp_path, counted, monkeypatch):
    """One probe for all folders: each creates and removes a file."""
    now = time.monotonic()
    monkeypatch.setattr(lock, "_offsets", {})
    monkeypatch.setattr(lock.time, "monotonic", lambda: now)
    holders = []
    for i in range(50):
        (tmp_path / str(i)).mkdir()
        holders.append(elsewhere(tmp_path / str(i), age=20 if i % 2 else 100))
    probes = lambda: sum(".now-" in path for path in counted["files"])
    alive = lambda: [(lock.read(path.parent) or {})["alive"] for path in holders]
    for _ in range(3):
        assert alive() == [i % 2 == 1 for i in range(50)]
    touched = probes()
    now += lock.PROBED + 1
    assert alive() == [i % 2 == 1 for i in range(50)]  # the file system's own time has not changed
    assert (touched, probes()) == (1, 2)


def test_a_row_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """Sync the text before the file gets the row's name, and the folder afterwards."""
    calls: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        files.os,
        "fsync",
        lambda fd: (calls.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file"), sync(fd)),
    )
    monkeypatch.setattr(files.os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    rows.write(tmp_path, {"state": "unfinished"})
    assert calls == ["file", "rename", "folder"]


@pytest.mark.slow
def test_two_studies_with_the_same_keys_at_once_train_each_once(tmp_path):
    """The second study waits for the run that the first one is training, and reuses its row."""
    long = {**BASE, "epochs": 6, "seed": [0, 1]}
    first = start(
        "hbo.sweep",
        "run",
        write(tmp_path / "one.yaml", **long),
        "--set",
        f"out={tmp_path / 'runs'}",
        "--workers",
        1,
    )
    wait_for(lambda: list((tmp_path / "runs" / "one").glob("*/lock.*")))
    second = start(
        "hbo.sweep",
        "run",
        write(tmp_path / "two.yaml", **long),
        "--set",
        f"out={tmp_path / 'runs'}",
        "--workers",
        2,
    )
    for process in (first, second):
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out + err
    taken = {
        name: [
            json.loads(p.read_text()).get("reused_from")
            for p in (tmp_path / "runs" / name).glob("*/row.json")
        ]
        for name in ("one", "two")
    }
    assert sorted(map(str, taken["one"] + taken["two"])) in (
        sorted(["None", "None", "one", "one"]),
        sorted(["None", "None", "one", "two"]),
    ), taken
    logs = [path.read_text() for path in (tmp_path / "runs").glob("*/*/log.txt")]
    assert sum(log.count("row.json") for log in logs) == 2, "a key was trained twice"


def test_a_key_in_training_in_another_study_is_busy(tmp_path):
    flags = ["--data", "digits", "--out", tmp_path, "--study", "mine", "--threads", 1]
    folder = tmp_path / "other" / resolve(data="digits").key()
    folder.mkdir(parents=True)
    elsewhere(folder, age=-3600)  # alive for the whole test
    _, err = call("hbo.fit", *flags, expect=lock.BUSY)
    assert err.endswith("is training this run; when it is done, the same command reuses its result\n")
    assert str(folder) in err
    assert study(tmp_path) == {}
    (entry,) = plan.entries(read(write(tmp_path / "mine.yaml", data="digits"), {"out": str(tmp_path)}))
    assert plan.describe(entry) == "running 33 %, 0 s left in other"
