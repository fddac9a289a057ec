"""A study for other programs: the gate and JSON."""

import json

import pytest
from conftest import ROOT, call

from hbo.analysis import study

ABLATIONS = ROOT / "ablations"


def test_a_gate_sets_the_exit_status(tmp_path):
    """0: true, 1: false, 3: undecided; 2 and a one-line error if there is no such line."""
    source = ("--source", ABLATIONS, "--versus", "k=2 against k=3", "--margin", "5")
    for verdict, status in (("equivalent", 0), ("higher", 1)):
        out, _ = call("hbo.analysis.study", "contraction", *source, "--gate", f"k=2 {verdict}", expect=status)
        assert out.startswith("k=2 against k=3: -1.3 points")
    call("hbo.analysis.study", "contraction", "--versus", "k=2 against k=3", "--gate", "k=2 higher", expect=3)
    _, err = call("hbo.analysis.study", "contraction", "--gate", "k=4 higher", expect=2)
    assert "'k=4' names 0 lines, not one; there are: k=2 against k=1" in err
    _, err = call("hbo.analysis.study", "contraction", "--gate", "k=2 better", expect=2)
    assert "must be a line and a verdict" in err


def test_a_gate_takes_the_words_of_the_question():
    """One question over four budgets, judged by the mean of their differences."""
    out, _ = call(
        "hbo.analysis.study", "table2_cifar10", "--gate", "net=hbonet against net=mobilenetv2 higher"
    )
    assert out.startswith("mean of 4 differences: +5.0 points")


def test_json_has_every_number_of_the_page():
    out, _ = call("hbo.analysis.study", "contraction", "--json")
    (setting,) = json.loads(out)["settings"]
    it = study.read("contraction")
    assert setting["conclusion"] == it.conclusion()
    lines = [line for family in setting["families"] for line in family["lines"]]
    for line, row in zip(lines, it.comparisons().to_dict("records"), strict=True):
        assert (line["label"], line["verdict"]) == (row["label"], row["verdict"])
        assert (line["low"], line["p_adjusted"]) == pytest.approx((row["low"], row["p_adjusted"]))
    keys = {run["key"] for arm in setting["arms"] for run in arm["runs"]}
    assert keys == set(it.done["key"])
