"""What a study can show before it is run: seeds against statsmodels and scipy, and the standard deviation
against the rows that it is pooled from.
"""

import json
import math

import numpy as np
import pytest
import yaml
from conftest import ROOT, call, make_runs
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from hbo.analysis import judged, power, results
from hbo.errors import UserError
from hbo.sweep import detect as d
from hbo.sweep import plan, timing
from hbo.sweep.__main__ import main
from hbo.sweep.study import read

SWEEPS = ROOT / "sweeps"
AS_COMMITTED = {"resolution": 64, "epochs": 20}  # how the elpv studies in ablations/ were run


def opened(name, **overrides):
    """A file and its runs, each of one hour; multiply-adds are counted only if the question needs them."""
    sweep = read(SWEEPS / f"{name}.yaml", overrides)
    runs = plan.entries(sweep)
    for entry in runs:
        entry.seconds = 3600.0
    return sweep, runs


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(timing, "calibrate", lambda run: 0.001)


@pytest.fixture
def nothing_committed(monkeypatch, tmp_path):
    monkeypatch.setattr(judged, "ABLATIONS", tmp_path / "ablations")


@pytest.mark.parametrize(("points", "sd"), [(1.0, 1.5), (2.0, 1.5), (0.5, 0.3), (3.0, 1.5)])
def test_the_number_of_seeds_is_statsmodels(points, sd, tmp_path):
    """Two lines at Sidak's level, each between two arms of equal standard deviation."""
    found = d.detect(*opened("contraction", out=str(tmp_path)), points, sd)
    level = 1 - math.sqrt(0.95)
    assert found.level == pytest.approx(level)
    assert found.lines == ("k=2 against k=1", "k=2 against k=3")
    theirs = TTestIndPower().solve_power(points / sd, alpha=level, power=0.8)
    assert found.find.seeds == math.ceil(theirs)
    assert (found.find.runs, found.find.hours) == (3 * found.find.seeds, 3 * found.find.seeds)
    (least,) = found.detectable  # with 6 seeds
    assert TTestIndPower().power(100 * least / sd, 6, level) == pytest.approx(0.8, abs=1e-4)
    assert (found.own.seeds, found.own.runs, found.own.hours) == (6, 18, 18)


def test_an_equivalence_needs_the_fewest_seeds_that_show_it(tmp_path):
    found = d.detect(*opened("contraction", out=str(tmp_path)), 1.0, 1.5)
    assert found.equivalent is not None
    n = found.equivalent.seeds
    assert n is not None
    rng, level, margin = np.random.default_rng(0), found.level, 1.0
    rates = []
    for many in (n - 4, n, n + 4):
        means = rng.normal(0, 1.5 * math.sqrt(2 / many), 200_000)
        sds = 1.5 * np.sqrt(rng.chisquare(2 * many - 2, 200_000) / (2 * many - 2))
        rates.append(
            np.mean(np.abs(means) + stats.t.isf(level, 2 * many - 2) * sds * math.sqrt(2 / many) < margin)
        )
    assert rates[0] < 0.8 < rates[2]
    assert rates[1] == pytest.approx(0.8, abs=0.015)


def test_a_mean_of_pairs_needs_fewer_seeds(tmp_path):
    """Table 2: twelve arms with weight 1/6, so the standard error is sd / sqrt(3 n) with 12 (n - 1) degrees
    of freedom.
    """
    sweep, runs = opened("table2", seed=[0, 1, 2], out=str(tmp_path))
    found = d.detect(sweep, runs, 0.5, 1.0)

    def has(n):
        df, shift = 12 * (n - 1), 0.5 * math.sqrt(3 * n)
        edge = stats.t.isf(0.025, df)
        return stats.nct.sf(edge, df, shift) + stats.nct.cdf(-edge, df, shift)

    n = found.find.seeds
    assert n is not None
    assert has(n) >= 0.8 > has(n - 1)
    assert found.lines == ("mean of 6 differences",)
    assert found.level == pytest.approx(0.05)
    assert found.find.runs == 12 * n


def test_a_trend_needs_seeds_by_its_weights_and_has_no_margin(tmp_path):
    file = tmp_path / "trend.yaml"
    content = yaml.safe_load((SWEEPS / "contraction.yaml").read_text())
    file.write_text(
        yaml.safe_dump(
            content | {"primary": {"versus": "k=1", "judge": "trend", "trend": "k", "margin": 1.0}}
        )
    )
    sweep = read(file, {"out": str(tmp_path)})
    found = d.detect(sweep, plan.entries(sweep), 1.0, 1.5)
    assert found.lines == ("trend, per step of k",)
    n = found.find.seeds
    assert n is not None
    has = lambda n: power.find(1.0, [(-0.5, 1.5), (0.5, 1.5)], n, 0.05)  # slope over three equally spaced k
    assert has(n) >= 0.8 > has(n - 1)
    assert (found.margin, found.equivalent, found.find.hours) == (None, None, None)


def test_the_deviation_is_pooled_over_rows_of_the_same_data_and_protocol(tmp_path):
    """Eight arms with six seeds on elpv, from three studies; not the tuning, 96 px or CIFAR-10."""
    found = d.detect(*opened("contraction", **AS_COMMITTED, out=str(tmp_path)), 1.0).deviation
    rows = results.load(ROOT / "ablations", "contraction", "contraction_uniform", "mobilenetv2")
    variances = rows.groupby(["study", "k"])["top1"].var()
    assert len(variances) == 8
    assert found.sd == pytest.approx(math.sqrt(variances.mean()))
    ends = [found.sd * math.sqrt(40 / stats.chi2.ppf(q, 40)) for q in (0.975, 0.025)]
    assert [found.low, found.high] == pytest.approx(ends)
    assert (found.runs, found.arms, found.studies) == (
        48,
        8,
        ("contraction", "contraction_uniform", "mobilenetv2"),
    )


@pytest.mark.usefixtures("nothing_committed")
def test_rows_in_runs_count_and_each_run_counts_once(tmp_path, monkeypatch):
    out = make_runs(tmp_path / "runs", "contraction")
    sweep, runs = opened("contraction", **AS_COMMITTED, out=str(out))
    alone = d.detect(sweep, runs, 1.0).deviation
    assert (alone.runs, alone.arms, alone.studies) == (18, 3, ("contraction",))
    monkeypatch.setattr(judged, "ABLATIONS", ROOT / "ablations")
    assert d.detect(sweep, runs, 1.0).deviation.runs == 48


def test_the_interval_of_the_deviation_gives_that_of_the_seeds(tmp_path):
    sweep, runs = opened("contraction", **AS_COMMITTED, out=str(tmp_path))
    found = d.detect(sweep, runs, 1.0)
    sd = found.deviation
    assert sd.low is not None
    assert sd.high is not None
    by_hand = [d.detect(sweep, runs, 1.0, 100 * one).find.seeds for one in (sd.sd, sd.low, sd.high)]
    assert [found.find.seeds, found.find.low, found.find.high] == by_hand
    assert found.detectable == pytest.approx(
        [found.detectable[0] * one / sd.sd for one in (sd.sd, sd.low, sd.high)]
    )


@pytest.mark.usefixtures("nothing_committed")
def test_without_rows_the_deviation_must_be_given(tmp_path):
    with pytest.raises(
        UserError, match=r"no two finished runs with this data and protocol .*such as --sd 1.5"
    ):
        d.detect(*opened("contraction", out=str(tmp_path)), 1.0)
    assert d.detect(*opened("contraction", out=str(tmp_path)), 1.0, 1.5).deviation == d.Deviation(
        0.015, None, None
    )


def test_one_arm_and_one_seed(tmp_path):
    with pytest.raises(UserError, match=r"mobilenetv2.yaml: no comparison: its arms are mobilenetv2"):
        d.detect(*opened("mobilenetv2", out=str(tmp_path)), 1.0, 1.5)
    found = d.detect(*opened("contraction", seed=0, out=str(tmp_path)), 1.0, 1.5)
    assert found.detectable == ()
    assert "with the file's own seeds: nothing, as one seed has no standard deviation" in d.text(found)


def test_more_than_a_thousand_seeds(tmp_path):
    found = d.detect(*opened("contraction", out=str(tmp_path)), 0.01, 5.0)
    assert (found.find.seeds, found.find.runs, found.find.hours) == (None, None, None)
    assert "more than 1,000" in d.text(found)


@pytest.mark.parametrize(("argv", "word"), [
    (["--detect", "0"], "--detect: 0: must be percentage points, above 0 and below 100"),
    (["--detect", "one"], "--detect: one: must be percentage points"),
    (["--sd", "1.5"], "--sd 1.5: needs --detect"),
])  # fmt: skip
def test_a_wrong_flag_is_one_line(argv, word, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan", str(SWEEPS / "contraction.yaml"), *argv])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(err.strip().splitlines()) == 1
    assert word in err


def test_the_plan_prints_it_after_its_runs(tmp_path, capsys):
    argv = [
        str(SWEEPS / "contraction.yaml"),
        "--set",
        f"out={tmp_path}",
        "--set",
        "resolution=64",
        "--set",
        "epochs=20",
    ]
    with pytest.raises(SystemExit):
        main(["plan", *argv, "--detect", "1.0"])
    said = capsys.readouterr().out
    assert "18 runs: 18 missing" in said
    assert "primary, each at 2.5 %: k=2 against k=1; k=2 against k=3" in said
    assert (
        "pooled over 48 runs with the same data and protocol, 8 arms of contraction, contraction_uniform,"
        " mobilenetv2" in said
    )
    rows = [
        line
        for line in said.splitlines()
        if line.startswith(("a difference", "with the file", "equivalence"))
    ]
    assert len(rows) == 3


def test_json_is_a_list_and_with_detect_an_object(tmp_path):
    argv = [
        "plan",
        SWEEPS / "contraction.yaml",
        "--set",
        f"out={tmp_path}",
        "--set",
        "resolution=64",
        "--set",
        "epochs=20",
        "--json",
    ]
    plain, with_it = (json.loads(call("hbo.sweep", *argv, *more)[0]) for more in ([], ["--detect", 1.0]))
    assert [run["key"] for run in plain] == [run["key"] for run in with_it["runs"]]
    found = with_it["detect"]
    assert found["question"] == {
        "metric": "top1",
        "versus": ["k=2 against k=1", "k=2 against k=3"],
        "margin": 1.0,
        "judge": "each",
        "trend": None,
    }
    assert (found["difference"], found["power"], found["deviation"]["runs"]) == (0.01, 0.8, 48)
    assert found["find"]["low"] < found["find"]["seeds"] < found["find"]["high"]
    assert found["find"]["runs"] == 3 * found["find"]["seeds"]
    a_run = sum(run["seconds"] for run in with_it["runs"]) / 18 / 3600
    assert found["find"]["hours"] == pytest.approx(found["find"]["runs"] * a_run)
