"""A study read: its arms, its baseline, what it concludes."""

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, make_runs

from hbo.analysis import results, stats, study
from hbo.errors import UserError

ABLATIONS = ROOT / "ablations"


def test_arms_are_named_by_what_differs():
    """In one network by its switches, in several by the network too; a network that varies in nothing by its name alone."""
    assert study.read("contraction").arms == ["k=1", "k=2", "k=3"]
    assert study.read("contraction", "mobilenetv2").arms == ["hbonet k=1", "hbonet k=2", "hbonet k=3", "mobilenetv2"]
    both = study.read("contraction", "contraction_uniform")
    assert both.arms == [
        f"k={k} scheme={s}" for s, ks in (("release", (1, 2, 3)), ("uniform", (0, 1, 2, 3))) for k in ks
    ] or set(both.arms) == {f"k={k} scheme={s}" for s, ks in (("release", (1, 2, 3)), ("uniform", (0, 1, 2, 3))) for k in ks}
    assert both.done.groupby("arm")["key"].count().eq(6).all()


@pytest.mark.parametrize(
    ("names", "baseline"),
    [(["contraction"], "k=1"), (["contraction_uniform"], "k=0"), (["contraction", "mobilenetv2"], "hbonet k=1"), (["mobilenetv2"], "mobilenetv2")],
)  # fmt: skip
def test_the_baseline_is_the_control_or_what_is_published(names, baseline):
    assert study.read(*names).baseline == baseline


def test_a_baseline_that_is_no_arm_is_refused():
    with pytest.raises(UserError, match="the arms are k=1, k=2, k=3"):
        study.read("contraction", baseline="k=4")
    with pytest.raises(UserError, match="no finished run of contraction where"):
        study.read("contraction", k=5)
    with pytest.raises(UserError, match="metric='loss': choose from top1, top5, balanced_accuracy"):
        study.read("contraction", metric="loss")


def test_rows_that_are_not_done_are_counted_and_not_averaged(tmp_path):
    import json

    root = make_runs(tmp_path, "contraction")
    lost = next(path for path in root.glob("*/*/row.json") if json.loads(path.read_text())["k"] == 2)
    lost.write_text(json.dumps(json.loads(lost.read_text()) | {"state": "failed", "top1": 0.0}))
    it = study.read("contraction", source=root)
    table = it.table()
    assert dict(zip(table.frame["arm"], table.frame["n"], strict=True)) == {"k=1": 6, "k=2": 5, "k=3": 6}
    assert f"Not in the table: 1 failed ({lost.parent.name})." in table.notes
    assert it.comparisons()["n"].tolist() == [5, 6]


def test_image_by_image_is_what_the_bits_say():
    """The bits of `correct` give top-1 back, and the counts of the table."""
    it = study.read("contraction")
    found = it.images()
    assert found is not None
    rows = {(row["arm"], row["seed"]): row for row in it.done.to_dict("records")}
    for row in rows.values():
        assert study.right(row).mean() == pytest.approx(row["top1"], abs=1e-12)
        assert len(study.right(row)) == row["val_images_seen"]
    for line in found.frame.to_dict("records"):
        a, b = (study.right(rows[arm, line["seed"]]) for arm in (line["arm"], "k=1"))
        assert (line["only this right"], line["only the baseline right"]) == (np.sum(a & ~b), np.sum(b & ~a))
    assert study.Study(it.names, it.rows.drop(columns="correct"), it.curves, it.baseline).images() is None


def test_saved_outcomes_stand_in_for_a_column_that_a_row_lacks(tmp_path):
    import json

    root = make_runs(tmp_path, "mobilenetv2")
    (path, *_) = root.glob("*/*/row.json")
    row = json.loads(path.read_text())
    right = study.right(row)
    del row["correct"]
    path.write_text(json.dumps(row))
    label = np.arange(len(right)) % 2
    np.savez(path.parent / "outcomes.npz", prediction=np.where(right, label, 1 - label), label=label)
    pd.testing.assert_frame_equal(results.load(root), results.load(ABLATIONS, "mobilenetv2"))


def crossed() -> study.Study:
    """A made-up factorial: k moves top-1 by 4 points, the residual does not."""
    base = study.read("contraction_uniform")
    draw, lines = np.random.default_rng(0), []
    row = base.done.to_dict("records")[0]
    for k in (1, 2):
        for residual in (True, False):
            for seed in range(3):
                top1 = 0.7 + 0.04 * (k == 2) + draw.normal(0, 0.003)
                lines.append(row | {"k": k, "residual": residual, "seed": seed, "top1": top1, "key": f"{k}{residual}{seed}"})
    rows = pd.DataFrame(lines)
    rows["arm"] = study.labels(rows)
    return study.Study(("factorial",), rows, base.curves, "k=1 residual=True")


def test_a_crossed_study_has_effects_and_no_other():
    found = crossed().effects()
    assert found is not None
    terms = found.frame.set_index("term")
    assert terms.index[0] == "k"
    assert terms.loc["k", "p_holm"] == "<0.001"
    assert float(terms.loc["residual", "p_holm"]) > 0.05
    assert study.read("contraction").effects() is None
    without = crossed()
    without.rows = without.rows[without.rows["arm"] != "k=2 residual=False"]
    assert without.effects() is None


def test_the_conclusion_follows_the_comparisons():
    it = crossed()
    decided = it.comparisons().set_index("arm")["verdict"]
    assert decided["k=1 residual=False"] == "undecided"
    assert it.conclusion() == "Told from k=1 residual=True: k=2 residual=True (higher), k=2 residual=False (higher)."
    for line, said in zip(it.comparisons().to_dict("records"), it.findings(), strict=True):
        assert said == stats.verdict(line)
    assert study.read("contraction", seed=0).conclusion().startswith("Too few pairs of runs to tell any arm from k=1")
    assert study.read("mobilenetv2").conclusion().endswith("there is nothing to compare.")


@pytest.mark.parametrize(("name", "metric"), [("contraction", "top1"), ("detection_bccd", "map"), ("reid_coil20", "map")])
def test_a_study_is_judged_by_its_task_s_own_metric(name, metric):
    from hbo.runs.rows import main_metric
    from hbo.tasks.classify.module import Classify
    from hbo.tasks.detect.module import Detect
    from hbo.tasks.reid.module import Reid

    assert study.read(name).metric == metric
    heads = {"classify": Classify.headline, "detect": Detect.headline, "reid": Reid.headline}
    assert {task: main_metric({"task": task}) for task in heads} == heads
