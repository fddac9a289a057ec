"""When a launcher starts no more runs: after too many failures in a row, or too large a share of failures;
not after a few among thousands. What it says when it stops, and about the time left.
"""

import subprocess
import sys
import time

import pytest

from hbo.config import Run
from hbo.runs import rows
from hbo.sweep import pool
from hbo.sweep.__main__ import parser
from hbo.sweep.board import Board
from hbo.sweep.plan import Entry
from hbo.sweep.timing import START


def launched(tmp_path, monkeypatch, outcomes: str, max_failures: float) -> str:
    """The outcomes of the runs that were started, one at a time: `.` done, `x` failed."""
    run, started = Run(out=str(tmp_path), study="s"), []
    runs = [Entry({}, run, key=f"{i:010x}", state="missing") for i in range(len(outcomes))]
    for entry in runs:
        entry.where = entry.home

    def start(entry, place, names=()):
        outcome = outcomes[len(started)]
        started.append(outcome)
        state = {
            ".": {"state": "done", "seconds": 1.0, "top1": 0.5},
            "x": {"state": "failed", "error": "lost"},
        }[outcome]
        entry.home.mkdir(parents=True)
        rows.write(entry.home, state)
        process = subprocess.Popen([sys.executable, "-S", "-c", ""] if outcome == "." else ["false"])
        process.wait()
        entry.state = "running"
        return pool.Worker(entry, process, place)

    monkeypatch.setattr(pool, "start", start)
    launcher = pool.Workers(runs, [{}], 0, max_failures)
    while launcher.goes_on():
        pass
    return "".join(started)


@pytest.mark.parametrize(
    ("outcomes", "max_failures", "expected"),
    [
        ("x.x.x.x.", 2, "x.x.x.x."),  # never two in a row
        ("x.xx....", 2, "x.xx"),
        (".x.x.x..", 0.25, ".x.x.x"),  # three of eight are more than a quarter
        (".x.x....", 0.25, ".x.x...."),
        ("x.......", 1, "x"),
    ],
)
def test_a_sweep_stops_after_failures_in_a_row_or_a_share_of_failures(
    tmp_path, monkeypatch, outcomes, max_failures, expected
):
    assert launched(tmp_path, monkeypatch, outcomes, max_failures) == expected


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "few", "nan"])
def test_a_limit_that_is_neither_is_an_error(text, capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["run", "x.yaml", "--max_failures", text])
    assert "such as 5, or a share of all, such as 0.1" in capsys.readouterr().err


def entries(tmp_path, states: list[str]) -> list[Entry]:
    run = Run(out=str(tmp_path), study="s")
    runs = [Entry({}, run, key=f"{i:010x}", state=state) for i, state in enumerate(states)]
    for entry in runs:
        entry.where = entry.home
    return runs


def test_a_run_stopped_before_its_first_checkpoint_is_not_called_saved(tmp_path, capsys):
    runs = entries(tmp_path, ["running", "running"])
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    runs[0].home.mkdir(parents=True)
    rows.write(runs[0].home, {"state": "interrupted"})
    (runs[0].home / "last.ckpt").touch()
    for busy, said in (
        (runs[:1], "every run is saved, and the same call resumes"),
        (runs, "1 of 2 runs had no checkpoint yet and starts over with the same call; the others are saved"),
        (runs[1:], "1 of 1 run had no checkpoint yet and starts over with the same call"),
    ):
        pool.stop([pool.Worker(entry, ended, {}) for entry in busy], Board("s", runs, 1))
        assert capsys.readouterr().err == f"stopped; {said}\n"


def test_the_time_left_counts_the_starts_of_processes(tmp_path):
    """Rows say that runs train for 5 seconds; their processes took 25 and 15."""
    runs = entries(tmp_path, ["done", "done", "missing", "missing", "missing"])
    runs[0].seconds = runs[1].seconds = 5.0
    assert Board("s", runs, 1).left() == 3 * (5 + START)
    runs[0].wall, runs[1].wall = 25.0, 15.0
    assert Board("s", runs, 1).left() == 3 * (5 + (20 + 10) / 2)
    runs[1].wall = 1.0  # resumed: its row counts the seconds of both processes
    assert Board("s", runs, 1).left() == 3 * 25


def test_a_process_is_timed_from_its_start_to_its_end(tmp_path):
    (entry,) = entries(tmp_path, ["running"])
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    entry.home.mkdir(parents=True)
    rows.write(entry.home, {"state": "done", "seconds": 1.0, "top1": 0.5})
    pool.ended(pool.Worker(entry, process, {}, time.monotonic() - 30), {}, 0)
    assert entry.wall is not None
    assert entry.wall >= 30
