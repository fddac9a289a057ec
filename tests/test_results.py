"""Rows are the same wherever they are read from, and none is lost on the way to a CSV."""

import json
from dataclasses import asdict

import pandas as pd
import pytest
from conftest import ROOT, call, make_runs

from hbo.analysis import csv_rows, results, sources
from hbo.config import resolve
from hbo.errors import UserError

ABLATIONS = ROOT / "ablations"
ODD = [
    "12e4567890", "1234567890", "True", "null", "nan", "[1]", '{"a": 1}', "a,b", 'say "x"', "two\nlines",
    "ü", " ", "elpv",
    1, 0, -3, 2**60, 0.1 + 0.2, 1e-05, 1e300, 5.0, True, False, [], [1, 2.5, "a"], {},
    {"torch": "2.6", "n": [1]},
]  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_csv_cell_round_trips(tmp_path, value):
    path = tmp_path / "x.csv"
    path.write_text(
        results.to_csv(pd.DataFrame({"a": pd.Series([value], dtype=object), "b": ["x"]})), newline=""
    )
    ((cell, _),) = (line.values() for line in results.read_csv(path))
    assert cell == value
    assert type(cell) is type(value)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_none_is_an_empty_cell(tmp_path, value):
    (tmp_path / "x.csv").write_text(
        results.to_csv(pd.DataFrame({"a": pd.Series([value], dtype=object), "b": [1]}))
    )
    assert results.read_csv(tmp_path / "x.csv") == [{"a": None, "b": 1}]


@pytest.mark.parametrize("line", ["1,2", "1", "1,2,3,4"])
def test_a_line_with_more_or_fewer_cells_than_the_head_is_an_error(tmp_path, line):
    """A copy that was cut off ends in such a line."""
    (tmp_path / "x.csv").write_text(f"a,b,c\n1,2,3\n\n{line}\n")
    with pytest.raises(UserError, match=rf"line 4 has {line.count(',') + 1} cells, the header 3"):
        results.read_csv(tmp_path / "x.csv")


def test_a_folder_of_runs_and_its_csv_give_the_same_table(tmp_path):
    """Same columns, same order, same bits, also in the learning curves."""
    root = make_runs(tmp_path / "runs", "contraction", "mobilenetv2")
    for studies in (["contraction"], ["mobilenetv2", "contraction"]):
        pd.testing.assert_frame_equal(
            results.load(root, *studies), results.load(ABLATIONS, *studies), check_exact=True
        )
        order = lambda table: table.sort_values(["study", "key", "epoch"], ignore_index=True)
        one, other = (results.curves(source, *studies) for source in (root, ABLATIONS))
        pd.testing.assert_frame_equal(order(one), order(other), check_exact=True)
    one = results.load(ABLATIONS / "contraction.csv")
    pd.testing.assert_frame_equal(one, results.load(ABLATIONS, "contraction"), check_exact=True)
    assert len(one) == len(pd.read_csv(ABLATIONS / "contraction.csv"))


def test_unfinished_and_failed_rows_are_kept_and_marked(tmp_path):
    root = make_runs(tmp_path / "runs", "contraction", k=[1])
    first, second, *rest = sorted(root.glob("*/*/row.json"))
    row = json.loads(first.read_text())
    lost = (
        "state",
        "top1",
        "loss",
        "f1",
        "balanced_accuracy",
        "correct",
        "majority",
        "val_images_seen",
        "images_per_second",
    )
    started = {name: value for name, value in row.items() if name not in lost}
    first.write_text(json.dumps(started | {"state": "interrupted"}))
    second.write_text(json.dumps({"state": "failed", "error": "lost", "seed": 1, "k": 1}))
    table = results.load(root)
    assert sorted(table["state"]) == ["done"] * len(rest) + ["failed", "interrupted"]
    assert set(table.columns) == {*results.load(ABLATIONS, "contraction").columns, "error"}
    assert len(results.finished(table)) == len(rest)
    call("hbo.analysis.results", "contraction", "--runs", root, "--to", tmp_path)
    again = results.load(tmp_path / "contraction.csv")
    pd.testing.assert_frame_equal(again, table, check_exact=True, check_dtype=False)


def test_a_stopped_run_is_named_and_not_averaged(tmp_path):
    root = make_runs(tmp_path, "contraction", k=[1], scheme=["release"])
    whole, _ = call("hbo.analysis.results", root)
    first, *rest = sorted(root.glob("*/*/row.json"))
    row = json.loads(first.read_text())
    first.write_text(json.dumps({**row, "state": "stopped", "stopped_at": 7, "top1": 0.0}))
    out, _ = call("hbo.analysis.results", root)
    assert f"\n\nNot in the table: 1 stopped ({row['key']})." in out
    assert f"| hbonet | {len(rest)} |" in out
    assert f"| hbonet | {len(rest) + 1} |" in whole
    assert "Not in the table" not in whole


def test_replaced_runs_are_not_rows(tmp_path):
    root = make_runs(tmp_path, "mobilenetv2")
    n = len(results.load(root))
    (one, *_) = root.glob("*/*")
    (root / "mobilenetv2" / "replaced").mkdir()
    one.rename(root / "mobilenetv2" / "replaced" / f"{one.name}-20260101T000000")
    assert len(results.load(root)) == n - 1


def test_wandbs_copy_of_a_row_is_not_a_second_row(tmp_path):
    """Offline it links to row.json in a folder of its own, below the run's."""
    root = make_runs(tmp_path, "mobilenetv2")
    n = len(results.load(root))
    for row in list(root.glob("*/*/row.json")):
        copy = row.parent / "wandb" / "offline-run-1" / "files" / "row.json"
        copy.parent.mkdir(parents=True)
        copy.symlink_to(row)
    _, err = call("hbo.analysis.results", root)
    assert "warning" not in err
    assert len(results.load(root)) == n


def test_a_csv_keeps_the_rows_that_the_source_no_longer_has(tmp_path):
    """A study is saved while it runs, from machines that each have a part of it."""
    for k in (1, 3):
        make_runs(tmp_path / str(k), "contraction", k=[k])
        out, _ = call("hbo.analysis.results", "contraction", "--runs", tmp_path / str(k), "--to", tmp_path)
    assert "6 existing rows kept" in out
    make_runs(tmp_path / "2", "contraction", k=[2])
    call("hbo.analysis.results", "contraction", "--runs", tmp_path / "2", "--to", tmp_path)
    both = (results.load(folder, "contraction") for folder in (tmp_path / "contraction.csv", ABLATIONS))
    pd.testing.assert_frame_equal(*both, check_exact=True)
    curves = (results.curves(folder, "contraction") for folder in (tmp_path / "contraction.csv", ABLATIONS))
    pd.testing.assert_frame_equal(
        *(curve.sort_values(["key", "epoch"], ignore_index=True) for curve in curves), check_exact=True
    )


def test_a_flag_that_would_be_ignored_is_an_error(tmp_path, capsys):
    for words, says in (
        (("contraction", "--study", "other"), "--study other: selects from a folder"),
        ((str(ABLATIONS), "--to", str(tmp_path)), "--runs, --to: need a study's name"),
    ):
        with pytest.raises(SystemExit) as stop:
            results.main([*words])
        assert stop.value.code == 2
        assert says in capsys.readouterr().err


def test_csv_prints_only_the_csv(tmp_path, capsys):
    words = ["contraction", "--runs", str(ABLATIONS / "contraction.csv"), "--to", str(tmp_path), "--csv"]
    results.main(words)
    out, err = capsys.readouterr()
    assert out.startswith("study,key,state,")
    assert "18 done" in err
    (tmp_path / "contraction.csv").write_text("name,price\na,1\n")
    with pytest.raises(SystemExit) as stop:
        results.main(words)
    assert stop.value.code == 2
    assert "has lines without a key" in capsys.readouterr().err
    assert (tmp_path / "contraction.csv").read_text() == "name,price\na,1\n"


def test_the_summary_equals_pandas():
    table = results.load(ABLATIONS, "contraction")
    found = results.summary(table).set_index("k")
    for k, group in pd.read_csv(ABLATIONS / "contraction.csv").groupby("k"):
        assert found.loc[k, "n"] == len(group)
        assert (
            found.loc[k, "top1"]
            == f"{100 * group['top1'].mean():.1f} ± {100 * group['top1'].std(ddof=1):.1f}"
        )


@pytest.mark.parametrize(
    ("source", "studies", "says"),
    [
        ("nowhere", [], "no such folder"),
        ("nowhere.csv", [], "no such file"),
        (ABLATIONS / "contraction.csv", ["mobilenetv2"], "contains no rows of mobilenetv2$"),
        (ABLATIONS, ["mobilnetv2"], r"no CSV of mobilnetv2; did you mean mobilenetv2\?$"),
        (ABLATIONS, ["contraction", "mobilnetv2"], r"no rows of mobilnetv2; did you mean mobilenetv2\?$"),
        (ABLATIONS, ["qwert"], "no CSV of qwert; there are backbones_cifar10, .*, table6_cifar10$"),
        (ROOT / "tests", [], "contains no row.json and no CSV"),
    ],
)
def test_no_rows_is_an_error(source, studies, says):
    with pytest.raises(UserError, match=says):
        results.load(source, *studies)


def test_wandb_without_a_key_is_an_error(tmp_path):
    env = {"WANDB_API_KEY": None, "NETRC": str(tmp_path / "none"), "WANDB_MODE": None}
    _, err = call("hbo.analysis.results", "wandb:entity/project", expect=2, env=env)
    assert err.startswith("error: wandb:entity/project: no key")
    assert len(err.splitlines()) == 1


def test_a_network_without_a_width_has_none_from_a_csv_too(tmp_path):
    """An empty cell of a field means None, not the field's default."""
    run = resolve(data="digits", net="torchvision:resnet18")
    made = results.frame(
        [{**asdict(run), "study": "s", "key": run.key(), "state": "done", "git": "x", "top1": 0.5}]
    )
    (tmp_path / "s.csv").write_text(results.to_csv(made))
    (row,) = results.load(tmp_path).to_dict("records")
    assert pd.isna(row["width"])
    assert row["top1"] == 0.5


def test_each_csv_of_a_folder_is_read_once(monkeypatch):
    read = []
    monkeypatch.setattr(sources, "lines_of", lambda path: read.append(path) or csv_rows.lines_of(path))
    results.load(ABLATIONS)
    assert len(read) == len(set(read)) == len(list(ABLATIONS.glob("*.csv")))


def test_runs_that_were_interrupted_are_resumed():
    for states, more in (
        (["failed"], ""),
        (["interrupted", "failed"], "; the same hbo.fit command resumes one"),
    ):
        with pytest.raises(
            UserError, match=f"^none of the {len(states)} runs is finished: {', '.join(states)}{more}$"
        ):
            results.finished(pd.DataFrame({"state": states}))
