"""A study for other programs: the gate and JSON."""

import json

import pytest
from conftest import ROOT, call

from hbo.analysis import programs, study
from hbo.analysis.question import Question

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


def test_arms_that_learned_nothing_are_not_equivalent():
    """All are as good as one answer for every image; then one is better."""
    asked = Question(versus=("k=2 against k=1", "k=2 against k=3"), margin=50)
    it, wanted = study.read("contraction", asked=asked), "k=2 against k=1 equivalent"
    assert programs.gate([it], wanted)[0] == programs.SO
    it.rows["top1"], it.rows["class_weights"] = 0.6 + 0.002 * it.rows["seed"], "none"
    but = "equivalent (but no arm is above the largest class (68.8 %))"
    status, said = programs.gate([it], wanted)
    assert status == programs.UNDECIDED
    nothing = "This gate is undecided: {} above the largest class (68.8 %), so equal arms show nothing."
    assert said.endswith(nothing.format("no arm is"))
    assert it.conclusion() == f"k=2 against k=1: {but}; k=2 against k=3: {but}."
    assert programs.gate([it], "k=2 against k=1 higher")[0] == programs.UNDECIDED
    it.rows.loc[it.rows["arm"] == "k=2", "top1"] += 0.1
    status, said = programs.gate([it], wanted)
    assert status == programs.UNDECIDED
    assert said.endswith(nothing.format("k=1 is not"))
    it.rows.loc[it.rows["arm"] == "k=1", "top1"] += 0.1
    assert programs.gate([it], wanted)[0] == programs.SO  # k=3 is not in the line


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
