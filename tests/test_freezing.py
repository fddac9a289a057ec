"""A question frozen before its runs: what is frozen, what is an error, and what the study's page says about
it.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, make_runs

from hbo.analysis import frozen, programs, study
from hbo.analysis.results import main as results_main
from hbo.config import key_of
from hbo.errors import UserError
from hbo.runs import identity
from hbo.sweep import plan, timing
from hbo.sweep.__main__ import main
from hbo.sweep.freezing import freeze
from hbo.sweep.study import read

FILE = ROOT / "sweeps" / "contraction.yaml"
AS_COMMITTED = {"resolution": 64, "epochs": 20}  # how its rows in ablations/ were made
LATER = "2099-01-01T00:00:00Z"


def opened(out: Path, path: Path = FILE, **overrides):
    sweep = read(path, {"out": str(out), **(AS_COMMITTED if path == FILE else {}), **overrides})
    return sweep, plan.entries(sweep)


def run_it(out: Path, started: str = LATER, seeds: int = 6) -> Path:
    """The study's committed rows as its runs, all with this start time; seeds beyond 6 are copies of seed 0
    with other values.
    """
    make_runs(out, "contraction")
    for path in list(out.glob("contraction/*/row.json")):
        row = json.loads(path.read_text()) | {"started": started}
        path.write_text(json.dumps(row))
        for seed in range(6, seeds) if row["seed"] == 0 else ():
            more = row | {"seed": seed, "top1": row["top1"] + 0.001 * seed}
            more["identity"] = identity.of_row(more)
            more["key"] = key_of(more["identity"])
            (out / "contraction" / more["key"]).mkdir()
            (out / "contraction" / more["key"] / "row.json").write_text(json.dumps(more))
    return out


def test_a_plan_has_the_question_the_seeds_and_the_runs(tmp_path):
    sweep, runs = opened(tmp_path)
    found = freeze(sweep, runs, expected={"sd": 0.015, "from": "--sd"})
    assert found.question == sweep.primary
    assert (found.seeds, found.looks, found.finished) == ([0, 1, 2, 3, 4, 5], [6], 0)
    assert found.keys == [entry.key for entry in runs]
    assert frozen.read(tmp_path, "contraction") == found
    assert json.loads((tmp_path / "contraction" / "frozen.json").read_text())["expected"] == {
        "sd": 0.015,
        "from": "--sd",
    }
    run_it(tmp_path)
    assert set(found.keys) == {path.parent.name for path in tmp_path.glob("*/*/row.json")}


def test_the_metric_of_the_task_is_filled_in(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "method: grid\nparameters: {data: {value: digits}, k: {values: [1, 2]}, seed: {values: [3, 5]}}\n"
    )
    found = freeze(*opened(tmp_path / "runs", file))
    assert (found.study, found.question.metric, found.seeds) == ("tiny", "top1", [3, 5])


def test_freezing_the_same_plan_again_keeps_the_file(tmp_path):
    first = freeze(*opened(tmp_path))
    path = tmp_path / "contraction" / "frozen.json"
    before = path.read_bytes(), path.stat().st_mtime_ns
    run_it(tmp_path)
    # Finished runs and the expected standard deviation are not compared.
    again = freeze(*opened(tmp_path), expected={"sd": 0.02})
    assert again == first
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize(("more", "overrides", "said"), [
    ({}, {"seed": [0, 1, 2]}, r"seeds \[0, 1, 2, 3, 4, 5\], now \[0, 1, 2\]; looks \[6\], now \[3\]"),
    ({"looks": [3, 6]}, {}, r"looks \[6\], now \[3, 6\]"),
    ({}, {"epochs": 30}, "18 runs, of which 18 are no longer in the file and 18 are new"),
])  # fmt: skip
def test_another_plan_is_an_error_that_names_the_differences(tmp_path, more, overrides, said):
    freeze(*opened(tmp_path))
    with pytest.raises(UserError, match=said):
        freeze(*opened(tmp_path, **overrides), **more)


def test_another_question_is_an_error(tmp_path):
    freeze(*opened(tmp_path / "runs"))
    file = tmp_path / "contraction.yaml"
    file.write_text(FILE.read_text().replace("margin: 1.0", "margin: 3.0"))
    with pytest.raises(
        UserError,
        match=r"another plan was frozen on .*: margin 1.0, now 3.0; .*remove the plan to freeze again",
    ):
        freeze(*opened(tmp_path / "runs", file, **AS_COMMITTED))


def test_seeds_are_added_upwards_to_the_last_look(tmp_path):
    found = freeze(*opened(tmp_path, seed=[0, 7, 1]), looks=[3, 5, 6], max_seeds=6)
    assert (found.seeds, found.looks) == ([0, 7, 1, 8, 9, 10], [3, 5, 6])


@pytest.mark.parametrize(("looks", "most", "said"), [
    ([6, 4], None, "--looks 6,4: must be numbers of seeds from 2 on, each larger"),
    ([1, 6], None, "--looks 1,6: must be numbers of seeds from 2 on"),
    ([6, 10], 24, "--looks 6,10: the last look must be at all 24 seeds of --max_seeds"),
    (None, 4, "--max_seeds 4: .* already has 6 seeds"),
])  # fmt: skip
def test_invalid_looks_are_errors(tmp_path, looks, most, said):
    with pytest.raises(UserError, match=said):
        freeze(*opened(tmp_path), looks=looks, max_seeds=most)


def test_arms_with_different_seeds_are_an_error(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(
        'method: grid\nparameters: {data: {value: digits}, variant: {values: ["k=1 seed=0", "k=1 seed=1", "k=2 seed=0"]}}\n'
    )
    with pytest.raises(
        UserError, match=r"k=1 has the seeds \[0, 1\], k=2 \[0\]; to freeze, give all arms the same"
    ):
        freeze(*opened(tmp_path / "runs", file))


def test_runs_finished_before_freezing_are_counted_and_reported(tmp_path):
    run_it(tmp_path, started="2026-11-24T00:00:00Z")
    kept = {
        path.parent
        for path in tmp_path.glob("contraction/*/row.json")
        if json.loads(path.read_text())["seed"] == 0
    }
    for path in tmp_path.glob("contraction/*/row.json"):
        if path.parent not in kept:
            path.unlink()
    assert freeze(*opened(tmp_path)).finished == 3
    run_it(tmp_path / "all")
    (tmp_path / "all" / "contraction" / "frozen.json").write_text(
        (tmp_path / "contraction" / "frozen.json").read_text()
    )
    said = study.read("contraction", source=tmp_path / "all").provision()
    assert said.endswith("it was frozen after 3 of 18 runs had finished.")


# ------------------------------------------------------------ the study's page


def test_the_page_reports_a_followed_plan(tmp_path):
    plan_ = freeze(*opened(tmp_path))
    run_it(tmp_path)
    it = study.read("contraction", source=tmp_path)
    assert it.provision().startswith(
        f"Question, margin, level, looks and seeds are as frozen on {plan_.when[:10]}"
    )
    assert plan_.hash in it.provision()


def test_the_page_names_a_metric_that_was_not_frozen(tmp_path):
    freeze(*opened(tmp_path))
    run_it(tmp_path)
    said = study.read("contraction", source=tmp_path, metric="f1").provision()
    assert said.startswith("Not as frozen on ")
    assert said.endswith(": metric: 'top1' was frozen, 'f1' is judged.")


def test_the_page_names_seeds_that_were_added(tmp_path):
    freeze(*opened(tmp_path))
    run_it(tmp_path, seeds=8)
    assert (
        study.read("contraction", source=tmp_path)
        .provision()
        .endswith(": seeds 6, 7 were added to the 6 frozen.")
    )


def test_the_page_names_runs_that_started_before_the_plan(tmp_path):
    freeze(*opened(tmp_path))
    run_it(tmp_path, started="2020-01-01T00:00:00Z")
    assert (
        "its first run started at 2020-01-01T00:00:00Z, before the plan was frozen"
        in study.read("contraction", source=tmp_path).provision()
    )


def test_an_edited_plan_is_an_error(tmp_path):
    freeze(*opened(tmp_path))
    run_it(tmp_path)
    path = tmp_path / "contraction" / "frozen.json"
    path.write_text(path.read_text().replace('"finished": 0', '"finished": 1'))
    with pytest.raises(UserError, match="was edited after it was frozen"):
        study.read("contraction", source=tmp_path)


def test_results_copy_the_plan_beside_the_csv(tmp_path, capsys):
    plan_ = freeze(*opened(tmp_path / "runs"))
    run_it(tmp_path / "runs")
    argv = ["contraction", "--runs", str(tmp_path / "runs"), "--to", str(tmp_path / "tables")]
    for _ in range(2):  # the second time it already exists
        results_main(argv)
        assert capsys.readouterr().out.startswith(f"{tmp_path}/tables/contraction.csv: 18 done")
    assert frozen.read(tmp_path / "tables", "contraction") == plan_
    assert (
        study.read("contraction", source=tmp_path / "tables")
        .provision()
        .startswith("Question, margin, level, looks and seeds are as frozen on ")
    )
    (tmp_path / "runs" / "contraction" / "frozen.json").unlink()
    freeze(*opened(tmp_path / "runs"), looks=[3, 6])
    with pytest.raises(SystemExit):
        results_main(argv)
    assert "contraction_frozen.json: differs from" in capsys.readouterr().err


# ------------------------------------------------------------ the command line


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(timing, "calibrate", lambda run: 0.001)


@pytest.mark.usefixtures("quick")
def test_the_command_freezes_the_seeds_it_computed(tmp_path, capsys):
    argv = [
        "plan",
        str(FILE),
        "--set",
        f"out={tmp_path}",
        "--set",
        "resolution=64",
        "--set",
        "epochs=20",
        "--freeze",
    ]
    with pytest.raises(SystemExit):
        main([*argv, "--detect", "3", "--looks", "6,10,16", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["frozen"] == json.loads((tmp_path / "contraction" / "frozen.json").read_text())
    assert said["frozen"]["expected"]["detect"] == 0.03
    assert said["frozen"]["expected"]["sd"] == said["detect"]["deviation"]["sd"]
    assert said["frozen"]["seeds"] == list(range(16))
    with pytest.raises(SystemExit) as stop:
        main([*argv, "--max_seeds", "16", "--looks", "6,10,16"])
    assert stop.value.code == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(
        f"{tmp_path}/contraction/frozen.json, 16 seeds per arm, looks at 6, 10, 16 (hash"
        f" {said['frozen']['hash']})"
    )
    with pytest.raises(SystemExit) as stop:
        main([*argv, "--sd", "1.5"])
    assert stop.value.code == 2
    assert "another plan was frozen" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--looks", "6,10"], ["--max_seeds", "24"]])
def test_looks_without_a_plan_are_an_error(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan", str(FILE), *flags])
    assert stop.value.code == 2
    assert "need --freeze" in capsys.readouterr().err


def test_a_page_before_the_end_says_that_it_is_not_complete():
    """Without looks a verdict on some of the runs could be read as often as one likes; an arm that has no run
    yet is missing too.
    """
    it = study.read("reid_omniglot", source=ROOT / "ablations")
    assert it.provision().startswith("Question, margin, level, looks and seeds are as frozen")
    whole = len(it.rows)
    line = next(line.label for family, lines in it.judged() if family.primary for line in lines)
    assert programs.gate([it], f"{line} lower")[0] == 0
    first = it.rows["arm"].iloc[0]
    for left, rows in ((2, it.rows[2:]), (5, it.rows[it.rows["arm"] != first])):
        some = replace(it, rows=rows)
        assert some.provision().startswith(f"Not complete: {left} of the {whole} runs frozen")
        assert not some.is_firm()
    status, said = programs.gate([replace(it, rows=it.rows[2:])], f"{line} lower")
    assert status == 3
    assert "Not complete" in said
