"""A study as read: its arms, its baseline, its conclusions."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, make_runs
from scipy import stats

from hbo.analysis import figures, programs, report, results, study
from hbo.analysis.numbers import is_number
from hbo.analysis.question import Question
from hbo.errors import UserError

ABLATIONS = ROOT / "ablations"


def test_arms_are_named_by_their_differences():
    """Arms of one network are named by their switches, arms of several by network and switches; a network
    with a single arm by its name alone.
    """
    assert study.read("contraction").arms == ["k=1", "k=2", "k=3"]
    assert study.read("contraction", "mobilenetv2").arms == [
        "hbonet k=1",
        "hbonet k=2",
        "hbonet k=3",
        "mobilenetv2",
    ]
    both = study.read("contraction", "contraction_uniform")
    assert both.arms == [
        f"k={k} scheme={s}" for s, ks in (("release", (1, 2, 3)), ("uniform", (0, 1, 2, 3))) for k in ks
    ] or set(both.arms) == {
        f"k={k} scheme={s}" for s, ks in (("release", (1, 2, 3)), ("uniform", (0, 1, 2, 3))) for k in ks
    }
    assert both.done.groupby("arm")["key"].count().eq(6).all()


@pytest.mark.parametrize(
    ("names", "baseline"),
    [(["contraction"], "k=1"), (["contraction_uniform"], "k=0"), (["contraction", "mobilenetv2"], "hbonet k=1"), (["mobilenetv2"], "mobilenetv2")],
)  # fmt: skip
def test_the_baseline_is_the_control_or_the_published_arm(names, baseline):
    assert study.read(*names).baseline == baseline


def test_a_baseline_that_is_not_an_arm_is_an_error():
    with pytest.raises(UserError, match="the arms are k=1, k=2, k=3"):
        study.read("contraction", baseline="k=4")
    with pytest.raises(UserError, match="no finished run of contraction where"):
        study.read("contraction", k=5)
    with pytest.raises(UserError, match="metric='loss': choose from top1, top5, balanced_accuracy"):
        study.read("contraction", metric="loss")


@pytest.mark.parametrize(("words", "says"), [
    (("--versus", "k=7 against k=1"), "no arm has k=7; the arms are: k=1, k=2, k=3"),
    (("--versus", "width"), "all arms have width=0.25"),
    (("--versus", "k=2 against k=1", "--judge", "mean"), "a single comparison has no mean"),
])  # fmt: skip
def test_a_question_that_the_arms_do_not_answer_is_an_error(words, says, capsys):
    with pytest.raises(SystemExit) as stop:
        study.main(["contraction", *words])
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_equivalence_at_chance_is_not_success():
    """Arms that all do as well as one answer for every image are equal because none has learned."""
    it = study.read("contraction", asked=Question(versus=("k=2 against k=1",), margin=50))
    assert it.conclusion() == "k=2 against k=1: equivalent."
    assert it.warning() == ""
    it.rows["top1"], it.rows["class_weights"] = 0.6 + 0.002 * it.rows["seed"], "none"
    assert it.warning() == (
        "warning: no arm's mean top-1 is above the largest class (68.8 %): the arms may have learned"
        " nothing, so the results here may say nothing about a switch; train longer"
    )
    assert it.verdict().startswith(f"{it.warning()}\n\n- k=2 against k=1: ")
    assert f'<p class="warning">{it.warning()[:40]}'.replace("'", "&#39;") in report.page(it)
    it.rows.loc[it.rows["arm"] == "k=2", "top1"] += 0.1
    assert it.warning().startswith("warning: k=1, k=3: mean top-1 is not above the largest class (68.8 %): ")
    # A weighted loss gives up top-1 for balanced accuracy: half of each of two classes is one answer.
    it.rows["class_weights"] = "balanced"
    assert it.warning() == ""
    it.rows["balanced_accuracy"] = 0.5
    assert it.warning().startswith(
        "warning: no arm's mean balanced accuracy is above that of one answer for every image (50.0 %): "
    )


def test_what_is_shown_stays_within_what_shares_can_be():
    """Two seeds that are far apart: intervals beyond 100 points are computed, and shown up to 100."""
    it = study.read("contraction", asked=Question(versus=("k=2 against k=1",), margin=5))
    it.rows = it.rows[it.rows["seed"] < 2].reset_index(drop=True)
    it.rows.loc[it.rows["arm"] == "k=2", "top1"] = [0.95, 0.15]
    (line,) = it.judged()[0][1]
    assert line.low < -1
    assert line.high > 1
    assert line.detectable[0] > 1
    first = it.differences().frame.iloc[0]
    assert first[["95% interval", "90% interval", "detectable"]].tolist() == ["-100.0 to +100.0"] * 2 + [
        "> 100"
    ]
    assert is_number(first["detectable"])
    assert " points [-100.0, +100.0] of top-1" in it.findings()[0]
    assert "No difference is excluded." in it.findings()[0]
    (forest, levels) = (figures.of(it)[name].axes[0] for name in ("differences", "macs"))
    drawn = [x for one in forest.lines[1:] for x in one.get_xdata()]
    assert (min(drawn), max(drawn)) == (-100, 100)
    bars = [y for part in levels.collections for path in part.get_paths() for y in path.vertices[:, 1]]
    assert (min(bars), max(bars)) == (0, 100)
    assert json.loads(programs.as_json([it]))["settings"][0]["families"][0]["lines"][0]["low"] == line.low


def test_a_study_without_a_sweep_file_says_where_its_question_goes():
    said = study.read("elpv_recipe").question()
    assert (
        said
        == "Study elpv_recipe, without a question in words: write it as the first comment of its sweep file."
    )


def test_a_study_of_own_runs_is_suggested(tmp_path, monkeypatch):
    (tmp_path / "runs" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no CSV of small; did you mean runs/small\?$"):
        study.read("small")


def test_arms_outside_the_question_are_shown():
    it = study.read("contraction", asked=Question(versus=("k=7 against k=1",)))
    assert it.conclusion() == (
        "No comparison of the question has finished runs of both arms; arms with finished runs: k=1, k=2, k=3."
    )


def test_the_first_folder_has_the_question(tmp_path):
    """Its runs' question is used, whatever the order of the names."""
    make_runs(tmp_path, "contraction", "mobilenetv2")
    (tmp_path / "mobilenetv2" / "question.json").write_text('{"versus": ["net=mobilenetv2"], "margin": 7}')
    places = [str(tmp_path / name) for name in ("mobilenetv2", "contraction")]
    it = study.read(*places)
    assert it.names == ("mobilenetv2", "contraction")
    assert it.asked == Question(versus=("net=mobilenetv2",), margin=7)
    assert study.read(*reversed(places)).names == ("contraction", "mobilenetv2")


def test_rows_that_are_not_done_are_counted_and_not_averaged(tmp_path):
    root = make_runs(tmp_path, "contraction")
    lost = next(path for path in root.glob("*/*/row.json") if json.loads(path.read_text())["k"] == 2)
    lost.write_text(json.dumps(json.loads(lost.read_text()) | {"state": "failed", "top1": 0.0}))
    it = study.read("contraction", source=root)
    table = it.table()
    assert dict(zip(table.frame["arm"], table.frame["n"], strict=True)) == {"k=1": 6, "k=2": 5, "k=3": 6}
    assert f"Not in the table: 1 failed ({lost.parent.name})." in table.notes
    assert it.comparisons()["n"].tolist() == [(5, 6), (5, 6)]  # k = 2 is in both lines


def test_the_interval_over_images_is_that_of_the_outcomes():
    """The bits of `correct` give top-1, and the difference of each pair of arms."""
    it = study.read("contraction", asked=Question())
    found = it.images()
    assert found is not None
    for row in it.done.to_dict("records"):
        assert study.right(row).mean() == pytest.approx(row["top1"], abs=1e-12)
        assert len(study.right(row)) == row["val_images_seen"]
    means = it.done.groupby("arm")["top1"].mean()
    assert found.frame[""].tolist() == ["k=2 against k=1", "k=3 against k=1"]
    for line in found.frame.to_dict("records"):
        a, b = line[""].split(" against ")
        assert float(line["difference"]) == pytest.approx(100 * (means[a] - means[b]), abs=0.051)
        assert line["n"] == "6 and 6 seeds, 656 images"
        assert float(line["standard error, images"]) > 0.5  # 656 images: their part is as large as the seeds'
    assert study.Study(it.names, it.rows.drop(columns="correct"), it.curves, it.baseline).images() is None


def test_saved_outcomes_replace_a_missing_column(tmp_path):
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
    """A made-up factorial: k changes top-1 by 4 points, the residual has no effect."""
    base = study.read("contraction_uniform")
    draw, lines = np.random.default_rng(0), []
    row = base.done.to_dict("records")[0]
    for k in (1, 2):
        for residual in (True, False):
            for seed in range(3):
                top1 = 0.7 + 0.04 * (k == 2) + draw.normal(0, 0.003)
                lines.append(
                    row
                    | {
                        "k": k,
                        "residual": residual,
                        "seed": seed,
                        "top1": top1,
                        "key": f"{k}{residual}{seed}",
                    }
                )
    rows = pd.DataFrame(lines)
    rows["arm"] = study.labels(rows)
    return study.Study(("factorial",), rows, base.curves, "k=1 residual=True")


def test_only_a_crossed_study_has_effects():
    found = crossed().effects()
    assert found.frame.columns.tolist() == [
        "effect of", "degrees of freedom", "sum of squares", "share", "F", "p", "p, adjusted",
    ]  # fmt: skip
    assert found is not None
    terms = found.frame.set_index("effect of")
    assert terms.index[0] == "k"
    assert terms.loc["k", "p, adjusted"] == "<0.001"
    assert float(terms.loc["residual", "p, adjusted"]) > 0.05
    assert study.read("contraction").effects() is None
    without = crossed()
    without.rows = without.rows[without.rows["arm"] != "k=2 residual=False"]
    assert without.effects() is None


def test_two_arms_of_a_study_judged_by_effects_are_compared(monkeypatch, capsys):
    it = crossed()
    monkeypatch.setattr(study, "settings", lambda *names, **options: [it])
    it.asked = Question(versus=("k",), judge="effects")
    study.main(["factorial", "--versus", "k=2 residual=true against k=1 residual=true"])
    mean = it.done.groupby("arm")["top1"].mean()
    found = 100 * (mean["k=2 residual=True"] - mean["k=1 residual=True"])
    said = f"k=2 residual=True against k=1 residual=True: +{found:.1f} points"
    assert said in capsys.readouterr().out
    it.asked = Question(versus=("k",), judge="effects")
    with pytest.raises(SystemExit):
        study.main(["factorial", "--versus", "residul"])
    assert (
        "must name fields, such as [k, residual, k x residual]; did you mean residual?"
        in capsys.readouterr().err
    )


def test_the_conclusion_follows_the_comparisons():
    it = crossed()
    decided = it.comparisons().set_index("label")["verdict"]
    assert decided["k=1 residual=False against k=1 residual=True"] == "undecided"
    assert it.conclusion() == (
        "k=2 residual=True against k=1 residual=True: higher; k=2 residual=False against k=1 residual=True:"
        " higher on 3 seeds. Undecided: k=1 residual=False against k=1 residual=True."
    )
    assert study.read("contraction", seed=0).conclusion().startswith("Too few runs to judge")
    assert study.read("mobilenetv2").conclusion().endswith("there is nothing to compare.")


def test_a_question_names_its_primary_lines():
    """A single primary comparison is tested at 5 %, the others are exploratory; the interval is Welch's."""
    it = study.read("contraction", asked=Question(versus=("k=2 against k=3",), margin=5.0))
    found = it.comparisons()
    assert found["label"].tolist() == ["k=2 against k=3", "k=2 against k=1"][:1] or found[
        "primary"
    ].tolist() == [True, False]
    line, runs = found.iloc[0], it.samples()
    test = stats.ttest_ind(list(runs["k=2"].values()), list(runs["k=3"].values()), equal_var=False)
    assert (line["low"], line["high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert line["verdict"] == "equivalent"
    assert it.conclusion() == "k=2 against k=3: equivalent."
    assert "is within 5 points (two one-sided tests)" in it.findings()[0]


def test_a_collapsed_run_is_counted_and_named():
    it = crossed()
    key = it.rows["key"].iloc[0]
    it.rows.loc[0, "top1"] = 0.3
    table = it.table()
    assert table.frame["odd runs"].tolist() == [1, 0, 0, 0]
    (note,) = (note for note in table.notes if note.startswith("Included"))
    assert f"k=1 residual=True, seed 0 ({key}): 40" in note
    one_class = it.rows["class_names"].map(len).iloc[0] if "class_names" in it.rows else 2
    it.rows.loc[1, ["balanced_accuracy", "top1"]] = 1 / one_class, it.rows.loc[1, "majority"]
    assert "as good as one class for every image" in " ".join(it.table().notes)
    it.rows = it.rows[it.rows["seed"] < 2].reset_index(drop=True)
    assert "points from its arm's median" not in " ".join(it.table().notes)  # of two, both are equally far


def test_a_study_is_judged_as_frozen(tmp_path):
    """As frozen; another metric, more seeds, or a start before the plan are named; an edited plan is an
    error.
    """
    from hbo.analysis.frozen import Frozen

    for name in ("contraction.csv", "contraction_curves.csv"):
        (tmp_path / name).write_bytes((ABLATIONS / name).read_bytes())
    asked = Question(metric="top1", versus=("k=2 against k=1",), margin=1.0)
    plan = Frozen(
        "contraction",
        asked,
        [0, 1, 2, 3, 4, 5],
        [6],
        [],
        when="2026-11-01T00:00:00Z",
        commit="0123456789abcdef",
    )
    path = tmp_path / "contraction_frozen.json"
    path.write_text(plan.text())
    it = study.read("contraction", source=tmp_path)
    assert it.asked == asked
    assert it.provision().startswith(
        "Question, margin, level, looks and seeds are as frozen on 2026-11-01, commit 0123456789 (hash "
    )
    other = study.read("contraction", source=tmp_path, metric="balanced_accuracy").provision()
    assert other == "Not as frozen on 2026-11-01: metric: 'top1' was frozen, 'balanced_accuracy' is judged."
    path.write_text(replace(plan, seeds=[0, 1, 2, 3], when="2026-11-30T00:00:00Z").text())
    said = study.read("contraction", source=tmp_path).provision()
    assert "seeds 4, 5 were added to the 4 frozen" in said
    assert "before the plan was frozen" in said
    path.write_text(plan.text().replace('"margin": 1.0', '"margin": 3.0'))
    with pytest.raises(UserError, match="was edited after it was frozen"):
        study.read("contraction", source=tmp_path)


@pytest.mark.parametrize(
    ("name", "metric"), [("contraction", "top1"), ("detection_bccd", "map"), ("reid_coil20", "map")]
)
def test_a_study_is_judged_by_its_tasks_metric(name, metric):
    from hbo.runs.rows import main_metric
    from hbo.tasks.classify.module import Classify
    from hbo.tasks.detect.module import Detect
    from hbo.tasks.reid.module import Reid

    assert study.read(name).metric == metric
    heads = {"classify": Classify.headline, "detect": Detect.headline, "reid": Reid.headline}
    assert {task: main_metric({"task": task}) for task in heads} == heads
