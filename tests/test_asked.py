"""A sweep file's question against its own arms: every file in sweeps/ can be answered, and a typo is an error
before any run.
"""

import math
import shlex

import pandas as pd
import pytest
import yaml
from conftest import ROOT, make_market, make_voc
from test_studies import few_photographs, started, trained

from hbo.analysis import families, study
from hbo.analysis.families import Arm, check_arms
from hbo.analysis.question import Question
from hbo.config import resolve
from hbo.errors import UserError
from hbo.runs import rows
from hbo.sweep import asked, plan
from hbo.sweep.__main__ import main
from hbo.sweep.study import read

FILES = sorted((ROOT / "sweeps").glob("*.yaml"))
GRID = {"data": {"value": "digits"}, "k": {"values": [1, 2]}, "seed": {"values": [0, 1]}}


@pytest.fixture
def write(tmp_path):
    def write(primary, parameters=GRID, **keys):
        path = tmp_path / "tiny.yaml"
        path.write_text(
            yaml.safe_dump({"method": "grid", "primary": primary, "parameters": parameters, **keys})
        )
        return path

    return write


ELSEWHERE = {
    path.stem
    for path in FILES
    if yaml.safe_load(path.read_text())["parameters"]["data"]["value"]
    in ("cifar10", "imagefolder", "marketfolder", "market1501", "voc", "vocfolder")
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Fields for the sweep files whose keys depend on the contents of a folder or a checkpoint."""
    root = tmp_path_factory.mktemp("folders")
    voc = {"data_dir": str(make_voc(root / "voc", train=2, test=1))}
    weights = trained(root / "backbones_cifar10")
    transfer = voc | {"backbone_checkpoint": None}
    return {
        "detection_bccd": voc, "detection_bccd_transfer": transfer,
        "reid_coil20": {"data_dir": str(make_market(root / "market"))},
        "table9": {"backbone_checkpoint": None},
        "reid_omniglot": {"data_dir": str(make_market(root / "characters")), "variant": started("reid_omniglot", weights)},
        "few_photographs": {"data_dir": str(few_photographs(root / "few")), "variant": started("few_photographs", weights)},
    }  # fmt: skip


def lines(path, **overrides):
    sweep = read(path, overrides)
    return [one.label for one in asked.primary(sweep, plan.entries(sweep)).contrasts]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_sweep_file_can_answer_its_question(path, folders):
    overrides = folders.get(path.stem, {})
    sweep = read(path, overrides)
    runs = plan.entries(sweep)
    asked.check(sweep, runs)
    assert sweep.primary.margin is not None
    assert sweep.primary.metric == asked.metric(sweep, runs)
    assert sweep.primary == study.of_file(path.stem)
    if path.stem != "mobilenetv2":  # the control, which is read with other studies
        assert lines(path, **overrides)


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem not in ELSEWHERE], ids=lambda path: path.stem
)
def test_the_question_is_the_same_on_other_data(path):
    """Multiply-adds change with the classes and the resolution; the pairs do not."""
    if path.stem != "mobilenetv2":
        assert len(lines(path, data="elpv")) == len(lines(path))


def test_table_2_pairs_equal_budgets_and_asks_for_the_trend():
    sweep = read(ROOT / "sweeps" / "table2.yaml")
    runs = plan.entries(sweep)
    mean, each, trend = families.of(sweep.primary, asked.arms(runs))
    assert (mean.kind, mean.primary, each.kind, trend.kind) == ("mean", True, "each", "trend")
    width = lambda label: label.split("width=")[1].split()[0]
    pairs = [tuple(map(width, one.label.split(" against "))) for one in each.contrasts]
    assert pairs == [
        ("1", "1"),
        ("0.8", "0.75"),
        ("0.5", "0.5"),
        ("0.35", "0.35"),
        ("0.25", "0.25"),
        ("0.1", "0.1"),
    ]
    assert all(
        one.label.startswith("hbonet") and " against mobilenetv2" in one.label for one in each.contrasts
    )


def test_a_control_is_judged_with_its_study():
    it = study.read("mobilenetv2", "contraction")
    (family,) = it.families()
    assert [one.label for one in family.contrasts] == [f"hbonet k={k} against mobilenetv2" for k in (1, 2, 3)]
    assert family.primary


@pytest.mark.parametrize(("primary", "said"), [
    ({"versus": "k=1", "margn": 1}, "primary.margn: no such key; did you mean margin?"),
    ({"versus": "k=2 agains k=1"}, "'agains' must be FIELD=VALUE"),
    ({"versus": "k=2 against k=0"}, "primary.versus='k=2 against k=0': no arm has k=0; the arms are: k=1, k=2"),
    ({"versus": "upsample"}, "primary.versus='upsample': all arms have upsample="),
    ({"versus": ["k=1 against k=2", "k=2 against k=1"], "judge": "trend", "trend": "epochs"}, "primary.trend=epochs: must be a different number"),
    ({"metric": "map"}, "primary.metric=map: for task=classify choose from top1"),
    ({"versus": "k=1 against k=2", "judge": "effects"}, "must name fields"),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["plan", "run", "status"])
def test_a_question_without_its_arms_is_one_line_naming_the_file(
    write, tmp_path, primary, said, verb, capsys, monkeypatch
):
    monkeypatch.setattr("hbo.sweep.pool.run", lambda *_: pytest.fail("runs were started"))
    path = write(primary)
    with pytest.raises(SystemExit) as stop:
        main([verb, str(path), "--set", f"out={tmp_path}"])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(err.strip().splitlines()) == 1
    assert err.startswith(f"error: {path}: ")
    assert said in err


def test_an_arm_without_a_partner_is_an_error(write):
    variants = [
        "net=hbonet width=1.0",
        "net=hbonet width=0.5",
        "net=mobilenetv2 width=1.0",
        "net=mobilenetv2 width=0.1",
    ]
    path = write({"versus": "net"}, {"data": {"value": "digits"}, "variant": {"values": variants}})
    sweep = read(path)
    with pytest.raises(
        UserError,
        match=r"tiny.yaml: .*width=0.5.* has no partner with the same multiply-adds; name each pair",
    ):
        asked.check(sweep, plan.entries(sweep))


@pytest.mark.parametrize("versus", ["residual=true against residual=true", "k=2 against  k=2"])
def test_an_arm_against_itself_is_an_error(write, versus):
    grid = GRID | {"residual": {"values": [True, False]}, "upsample": {"values": ["nearest", "bilinear"]}}
    sweep = read(write({"versus": versus}, grid))
    with pytest.raises(UserError, match=rf"compares {versus.split()[0]} with itself; name two arms"):
        asked.check(sweep, plan.entries(sweep))


def test_a_study_that_is_done_says_where_its_verdict_is(write, tmp_path, capsys):
    """The command works; it is not printed before the last run is done, nor if there is nothing to compare."""
    out = tmp_path / "my runs"
    path, sets = write({"versus": "k"}), {"out": str(out)}
    for n, run in enumerate(resolve(**row) for row in read(path, sets).rows):
        assert asked.where_to_read(plan.entries(read(path, sets))) == ""
        rows.folder(run).mkdir(parents=True)
        rows.write(
            rows.folder(run),
            rows.keyed(run) | {"state": "done", "top1": 0.9 + n / 100, "seconds": 1.0, "started": "x"},
        )
    with pytest.raises(SystemExit) as stop:
        main(["run", str(path), "--set", f"out={out}"])
    assert stop.value.code == 0
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"the verdict: python -m hbo.analysis.study '{out / 'tiny'}'"
    study.main(shlex.split(said)[5:])
    assert "k=2" in capsys.readouterr().out
    assert asked.where_to_read(plan.entries(read(path, sets | {"k": [1]}))) == ""


def test_a_field_whose_default_no_arm_has_is_compared_with_its_lowest_value(write):
    sweep = read(write({"versus": "k"}, {"data": {"value": "digits"}, "k": {"values": [3, 2]}}))
    runs = plan.entries(sweep)
    asked.check(sweep, runs)
    assert [line.label for line in asked.primary(sweep, runs).contrasts] == ["k=3 against k=2"]


def test_part_of_a_study_is_a_warning(write, tmp_path, capsys):
    """`--set k=2` leaves only one of the two arms that are compared."""
    path = write({"versus": "k=2 against k=1"})
    with pytest.raises(SystemExit) as stop:
        main(["status", str(path), "--set", "k=2", "--set", f"out={tmp_path}"])
    assert stop.value.code == 0
    said = capsys.readouterr()
    assert (
        said.err
        == f"warning: {path}: primary.versus='k=2 against k=1': no arm has k=1; the arms are: hbonet\n"
    )
    assert "2 runs: 2 missing" in said.out
    sweep = read(path, {"k": 2})
    with pytest.raises(UserError, match="no arm has k=1"):
        asked.primary(sweep, plan.entries(sweep))  # a plan or a frozen question must have its arms


def test_keys_for_readers_are_ignored(write):
    path = write({"versus": "k=1"}, **{"x-note": "anything", "x-": [1]})
    assert read(path).primary == Question(versus=("k=1",))
    path.write_text(path.read_text().replace("x-note", "y-note"))
    with pytest.raises(UserError, match="y-note: no such key"):
        read(path)


def test_a_file_without_a_question_gets_the_default(write):
    path = write({})
    path.write_text(
        "".join(line for line in path.read_text().splitlines(keepends=True) if "primary" not in line)
    )
    assert read(path).primary == Question()
    assert lines(path) == ["k=2 against k=1"]


def test_main_effects_are_means_over_all_arms():
    """In a full factorial and in half of one: without noise each effect is the true one, whatever the other
    factors do.
    """
    combinations = [(k, r, s) for k in (1, 2) for r in (True, False) for s in ("release", "uniform")]
    truth = {"k": 0.3, "residual": -0.2, "scheme": 0.7}
    for some in (combinations, [c for c in combinations if (c[0] == 2) ^ (not c[1]) ^ (c[2] == "uniform")]):
        arms = [Arm(str(c), {"k": c[0], "residual": c[1], "scheme": c[2]}, math.nan) for c in some]
        value = {
            str((k, r, s)): truth["k"] * (k == 2)
            + truth["residual"] * (not r)
            + truth["scheme"] * (s == "uniform")
            for k, r, s in some
        }
        asks = Question(versus=("k", "residual", "scheme"), judge="effects")
        check_arms(asks, arms)
        (family,) = families.of(asks, arms)
        assert (family.kind, family.primary) == ("effects", True)
        assert [one.label for one in family.contrasts] == [
            "k=2 against k=1",
            "residual=False against residual=True",
            "scheme=uniform against scheme=release",
        ]
        found = [math.fsum(w * value[arm] for arm, w in one.weights.items()) for one in family.contrasts]
        assert found == pytest.approx(list(truth.values()))
        assert all(len(one.weights) == len(arms) for one in family.contrasts)


def test_a_confounded_main_effect_is_an_error():
    arms = [Arm(f"{k}{r}", {"k": k, "residual": r}, math.nan) for k, r in ((1, True), (1, False), (2, True))]
    asks = Question(versus=("k",), judge="effects")
    assert families.of(asks, arms)[0].contrasts == []  # runs are missing, so there is no line yet
    with pytest.raises(UserError, match="the arms of its values also differ in other fields"):
        check_arms(asks, arms)


def test_several_comparisons_have_no_common_mean():
    arms = [Arm(f"k={k}", {"k": k}, 44e6) for k in (1, 2, 3)]
    kinds = lambda asks: [family.kind for family in families.of(asks, arms)]
    assert kinds(Question(versus=("k=2 against k=1", "k=2 against k=3"))) == ["each"]
    assert kinds(Question(versus=("k=2 against k=1", "k=2 against k=3"), judge="mean")) == ["mean", "each"]


def test_a_margin_applies_to_differences_not_to_slopes():
    it = study.read("contraction", asked=Question(versus=("k=1",), judge="trend", trend="k", margin=5))
    said: pd.DataFrame = it.comparisons().set_index("family")
    assert said.loc["trend", "verdict"] == "undecided"
    assert set(said.loc["each", "verdict"]) == {"equivalent"}
    assert len(it.findings()) == 1
