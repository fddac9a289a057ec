"""When a launcher starts no more runs: after too many failures in a row, or too large a share of failures;
not after a few among thousands.
"""

import subprocess
import sys

import pytest

from hbo.config import Run
from hbo.runs import rows
from hbo.sweep import pool
from hbo.sweep.__main__ import parser
from hbo.sweep.plan import Entry


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
