"""Seeds until decided: only open comparisons get more seeds, a kill changes no verdict, and the frozen plan
is followed.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import call, start
from services import wait_for

import hbo
from hbo.analysis import frozen, study
from hbo.errors import UserError
from hbo.files import write_atomically
from hbo.runs import rows
from hbo.sweep import plan, until
from hbo.sweep.study import read

pytestmark = pytest.mark.usefixtures("short_networks")

FIELDS = {
    "data": "digits",
    "width": 0.1,
    "threads": 1,
    "wandb": "disabled",
    "epochs": 1,
    "limit_batches": 3,
    "lr": 0.01,
}
GAIN = {1: 0.0, 2: 0.05, 3: 0.001}  # of k over k = 1; the standard deviation over seeds is a point


@pytest.fixture
def file(tmp_path) -> Path:
    parameters = {name: {"value": value} for name, value in FIELDS.items()}
    parameters |= {
        "out": {"value": str(tmp_path / "runs")},
        "k": {"values": [1, 2, 3]},
        "seed": {"values": [0, 1]},
    }
    content = {"method": "grid", "primary": {"versus": "k=1"}, "parameters": parameters}
    (tmp_path / "grow.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "grow.yaml"


def opened(file: Path, looks: list[int] | None = None, most: int | None = None) -> until.Sequential:
    sweep = read(file)
    return until.opened(sweep, plan.entries(sweep), looks, most)


def pretend(runs: list[plan.Entry]) -> int:
    """What training would leave: rows whose top-1 depends on k and the seed."""
    for entry in runs:
        assert entry.run is not None
        top1 = (
            0.7
            + GAIN[entry.run.k]
            + float(np.random.default_rng([entry.run.k, entry.run.seed]).normal(0, 0.01))
        )
        row = entry.fields | {
            "state": "done",
            "top1": top1,
            "seconds": 1.0,
            "key": entry.key,
            "macs": 10**6,
            "params": 10**5,
        }
        entry.home.mkdir(parents=True, exist_ok=True)
        write_atomically(entry.home / "row.json", json.dumps(row))
    return 0


def counts(growing: until.Sequential) -> dict[int, int]:
    done = [entry.run.k for entry in growing.runs if entry.run and rows.sound(entry.home)]
    return {k: done.count(k) for k in (1, 2, 3)}


def test_only_open_comparisons_get_seeds(file, capsys):
    growing = opened(file, [6, 9, 12])
    assert until.run(growing, pretend) == 0
    assert counts(growing) == {1: 12, 2: 6, 3: 12}  # k = 2 is decided at the first look
    out, err = capsys.readouterr()
    assert "k=2 against k=1: higher at 6 seeds" in out
    assert "k=3 against k=1: undecided at 12 seeds, the most that were asked for" in out
    assert out.count("look 1 of 3, 6 seeds; a line's level here is ") == 1
    assert "frozen on " in err
    assert growing.seeds == list(range(12))  # the file's own two, and the following ones


def test_stopping_and_resuming_anywhere_changes_nothing(file, tmp_path, capsys):
    """Stopped after each number of runs in turn: the same rows, the same last line."""
    until.run(opened(file, [6, 9, 12]), pretend)
    whole = capsys.readouterr().out.splitlines()[-1]
    for path in (tmp_path / "runs").glob("*/*/row.json"):
        path.unlink()

    def some(runs: list[plan.Entry]) -> int:
        pretend(runs[:3])
        return 130 if len(runs) > 3 else 0

    for _ in range(40):
        status = until.run(opened(file), some)  # the looks are the frozen ones
        if not status:
            break
    assert status == 0
    assert capsys.readouterr().out.splitlines()[-1] == whole


def test_the_page_has_the_same_verdicts(file, tmp_path):
    growing = opened(file, [6, 9, 12])
    until.run(growing, pretend)
    it = study.read("grow", source=tmp_path / "runs")
    lines = {line["label"]: line for line in it.comparisons().to_dict("records")}
    for line, _ in growing.judged():
        assert lines[line.label]["verdict"] == line.verdict
        assert (lines[line.label]["low"], lines[line.label]["high"]) == pytest.approx((line.low, line.high))
    assert it.provision().startswith("Question, margin, level, looks and seeds are as frozen on ")
    assert any("repeated" in note for note in it.differences().notes)


def test_seeds_beyond_a_look_wait_for_the_next_one(file, tmp_path):
    growing = opened(file, [6, 9, 12])
    many = {1: 6, 2: 6, 3: 8}
    pretend([entry for entry in growing.runs if entry.run and entry.run.seed < many[entry.run.k]])
    it = study.read("grow", source=tmp_path / "runs")
    assert (
        it.differences().notes[-1] == "Seeds beyond a look wait for the next one: k=3 (8 seeds, look at 9)."
    )
    assert it.conclusion().endswith("Undecided at look 1 of 3 (next: 9 seeds): k=3 against k=1.")


def test_a_frozen_plan_is_binding(file, tmp_path):
    opened(file, [4, 8])
    kept = frozen.read(tmp_path / "runs", "grow")
    assert kept is not None
    assert (kept.looks, kept.seeds) == ([4, 8], list(range(8)))
    with pytest.raises(UserError, match=r"another plan was frozen .*looks \[4, 8\], now \[6, 8\]"):
        opened(file, [6, 8])
    file.write_text(file.read_text().replace("versus: k=1", "versus: k=2"))
    with pytest.raises(UserError, match=r"another plan was frozen .*versus"):
        opened(file)


@pytest.mark.parametrize(
    ("looks", "most", "said"),
    [
        ([1, 4], None, "2 on"),
        ([6, 4], None, "each larger"),
        ([4, 8], 6, "the last look"),
        ([1], None, "already has 2 seeds"),
    ],
)
def test_impossible_looks_are_errors(file, looks, most, said):
    with pytest.raises(UserError, match=said):
        opened(file, looks, most)


def test_a_run_without_a_number_stops_the_look(file):
    def lost(runs: list[plan.Entry]) -> int:
        pretend(runs)
        (runs[0].home / "row.json").unlink()
        return 0

    with pytest.raises(UserError, match=r"has no top1 \(missing\), so the look with 4 seeds is not possible"):
        until.run(opened(file, [4, 8]), lost)


@pytest.mark.slow
def test_a_killed_launcher_resumes_to_the_same_verdict(file, tmp_path):
    """With real processes and a SIGKILL during the second look: the runs save themselves, and the same call
    finishes. The verdict and the rows are those of runs that were trained one by one.
    """
    command = ("run", file, "--set", "k=[1,2]", "--until", "decided", "--looks", "2,3", "--workers", "2")
    for k, seed in itertools.product((1, 2), range(3)):
        hbo.train(**FIELDS, k=k, seed=seed, study="grow", out=str(tmp_path / "whole"))
    whole, _ = call("hbo.sweep", *command, "--set", f"out={tmp_path / 'whole'}")
    process = start("hbo.sweep", *command)
    states = lambda: [json.loads(p.read_text())["state"] for p in (tmp_path / "runs").glob("*/*/row.json")]
    wait_for(lambda: states().count("done") >= 4)
    process.kill()
    process.communicate()
    out, _ = call("hbo.sweep", *command)
    assert out.splitlines()[-1] == whole.splitlines()[-1]
    tops = [
        {p.parent.name: json.loads(p.read_text())["top1"] for p in (tmp_path / root).glob("*/*/row.json")}
        for root in ("runs", "whole")
    ]
    assert tops[0] == tops[1]
    assert len(tops[0]) == 6


def test_a_call_does_not_wait_for_submitted_runs(file):
    """With SLURM a call submits a look's runs and exits; the same call continues once they are done."""
    asked: list[list[plan.Entry]] = []

    def submit(runs: list[plan.Entry]) -> int:
        asked.append(runs)
        return 0

    for look, seeds in enumerate((6, 9)):
        assert until.run(opened(file, [6, 9, 12]), submit, submitted=True) == 0
        assert len(asked) == look + 1
        assert {entry.run.seed for entry in asked[-1] if entry.run} == set(range(seeds)) - set(
            range(6 * look)
        )
        pretend(asked[-1])
