"""A table's rows written back as runs: nothing is lost, and a sweep continues from them."""

import json

import pandas as pd
import pytest
from conftest import ROOT, call
from flagged import flags

from hbo.analysis import frozen, results
from hbo.analysis.restore import restore
from hbo.errors import UserError

pytestmark = pytest.mark.usefixtures("short_networks")

ABLATIONS = ROOT / "ablations"
STUDIES = ("table2_cifar10", "contraction", "detection_bccd", "reid_omniglot", "few_photographs")


@pytest.mark.parametrize("study", STUDIES)
def test_rows_written_back_make_the_same_table(tmp_path, study):
    rows = len(results.load(ABLATIONS, study))
    assert restore(str(ABLATIONS), study, tmp_path) == (rows, 0)
    assert restore(str(ABLATIONS), study, tmp_path) == (0, rows)
    for read, by in ((results.load, ["key"]), (results.curves, ["key", "epoch"])):
        one, other = (
            read(source, study).sort_values(by, ignore_index=True) for source in (tmp_path, ABLATIONS)
        )
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    plans = [frozen.read(source, study) for source in (tmp_path, ABLATIONS)]
    assert plans[0] == plans[1]


def test_another_result_of_the_same_run_is_refused_before_anything_is_written(tmp_path):
    restore(str(ABLATIONS), "contraction", tmp_path)
    *others, last = sorted(tmp_path.glob("contraction/*/row.json"))
    others[0].unlink()
    row = json.loads(last.read_text())
    last.write_text(json.dumps(row | {"top1": row["top1"] + 0.01}))
    with pytest.raises(UserError, match=r"its top1 is .*; remove one of the two"):
        restore(str(ABLATIONS), "contraction", tmp_path)
    assert not others[0].exists()


def test_an_unfinished_run_is_not_called_finished(tmp_path):
    """Otherwise its checkpoint would be evaluated as the row's."""
    key = results.load(ABLATIONS, "contraction")["key"][0]
    checkpoint = tmp_path / "contraction" / key / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    with pytest.raises(UserError, match=rf"{key}: this run is unfinished here"):
        restore(str(ABLATIONS), "contraction", tmp_path)
    assert list(tmp_path.rglob("*.json")) == []


def test_another_frozen_plan_is_refused(tmp_path):
    restore(str(ABLATIONS), "reid_omniglot", tmp_path)
    plan = (ABLATIONS / "few_photographs_frozen.json").read_text()
    (tmp_path / "reid_omniglot" / "frozen.json").write_text(plan)
    with pytest.raises(UserError, match="remove the one that was not followed"):
        restore(str(ABLATIONS), "reid_omniglot", tmp_path)


@pytest.mark.slow
def test_a_sweep_counts_a_restored_row_as_done(tmp_path):
    sweep = tmp_path / "seeds.yaml"
    sweep.write_text(
        "name: seeds\nprogram: hbo/fit.py\nmethod: grid\nparameters:\n  study: {value: seeds}\n"
        "  data: {value: digits}\n  width: {value: 0.1}\n  epochs: {value: 1}\n  threads: {value: 1}\n  seed: {values: [0, 1]}\n"
    )
    fit = flags(data="digits", width=0.1, epochs=1, threads=1, study="seeds", out=tmp_path / "a")
    call("hbo.fit", *fit, "--seed", "0")
    call("hbo.analysis.results", "seeds", "--runs", tmp_path / "a", "--to", tmp_path)
    call("hbo.analysis.results", "seeds", "--runs", tmp_path / "seeds.csv", "--restore", tmp_path / "b")
    shown, _ = call("hbo.sweep", "plan", sweep, "--set", f"out={tmp_path / 'b'}")
    assert "2 runs: 1 done, 1 missing" in shown
