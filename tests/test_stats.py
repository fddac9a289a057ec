"""Statistics against textbook numbers, brute force and other libraries, and their error rates in simulated
studies.
"""

import math
import subprocess
import sys
from functools import lru_cache
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from hbo.analysis import stats
from hbo.errors import UserError

A, B = [0.75, 0.83, 0.70, 0.78, 0.81], [0.70, 0.80, 0.71, 0.72, 0.76]  # differences 5, 3, -1, 6, 5 points
T4 = 2.776445105  # 0.975 quantile of t with 4 degrees of freedom, from tables


def factorial(rng: np.random.Generator, seeds: int = 3, **shift: float) -> pd.DataFrame:
    """A 2 x 3 x 2 study with a number, a string and a boolean as factors and seeds as blocks; `shift`: the
    effects of k = 2 and flag = True.
    """
    cells = list(product((1, 2), ("bilinear", "nearest", "pixelshuffle"), (False, True), range(seeds)))
    rows = pd.DataFrame(cells, columns=["k", "upsample", "flag", "seed"])
    block = rng.normal(0, 0.05, seeds)[rows["seed"]]
    moved = shift.get("k", 0) * (rows["k"] == 2) + shift.get("flag", 0) * rows["flag"]
    return rows.assign(top1=0.7 + block + moved + rng.normal(0, 0.01, len(rows)))


def share(hits: list[float] | np.ndarray) -> tuple[float, float]:
    """The mean over independent studies and its standard error."""
    return float(np.mean(hits)), float(np.std(hits, ddof=1) / math.sqrt(len(hits)))


@lru_cache
def factorial_rates(studies: int = 240) -> dict[str, tuple[float, float]]:
    """Measured rates of effects() over simulated studies with and without an effect of k."""
    rng = np.random.default_rng(2)
    names = ["k", "upsample", "flag"]
    none = [stats.effects(factorial(rng), names) for _ in range(studies)]
    some = [
        stats.effects(factorial(rng, k=0.03), names).set_index("term")["p_holm"] for _ in range(studies // 2)
    ]
    return {
        "effects, A/A: studies with any term": share([(table["p_holm"] <= 0.05).any() for table in none]),
        "effects, A/B: k found": share([p["k"] <= 0.05 for p in some]),
        "effects, A/B: any other term": share([(p.drop("k") <= 0.05).any() for p in some]),
    }


def test_importing_is_quick():
    code = "import sys, hbo.analysis.stats; print({'scipy', 'statsmodels', 'torch'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    )


def test_tables_and_notebooks_do_without_torchvision():
    """It takes as long to import as torch."""
    code = "import sys, hbo.analysis.paper, hbo.analysis.notebooks, hbo.analysis.holds; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_sample_described_by_hand():
    about = stats.describe([2, 4, 4, 5, 10])  # squared deviations from 5: 9 + 1 + 1 + 0 + 25 = 36
    assert (about.n, about.mean, about.sd) == (5, 5, 3)
    assert about.high - 5 == pytest.approx(T4 * 3 / math.sqrt(5))
    assert about.low + about.high == pytest.approx(10)
    single = stats.describe([0.5])
    assert (single.n, single.mean) == (1, 0.5)
    assert all(math.isnan(x) for x in (single.sd, single.low, single.high))


def test_holm_is_as_published():
    # Holm's example from Wikipedia's article on the method, and one that needs the monotonicity step.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.04, math.nan, 0.01, 0.03]) == pytest.approx(
        [0.06, math.nan, 0.03, 0.06], nan_ok=True
    )
    for p in np.random.default_rng(0).uniform(0, 0.3, (2, 6)).round(2):
        assert stats.holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert stats.holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert np.isnan(stats.holm([math.nan])).all()
    assert len(stats.holm([])) == 0


def test_a_two_by_two_study_by_hand():
    # Cell means 10 12 / 14 20, grand mean 14; two runs per cell, at its mean plus and minus 1.
    cells = {(0, "x"): 10, (0, "y"): 12, (1, "x"): 14, (1, "y"): 20}
    rows = pd.DataFrame(
        [(k, up, mean + e) for (k, up), mean in cells.items() for e in (-1, 1)], columns=["k", "C", "Q"]
    )
    table = stats.effects(rows.assign(seed=0), ["k", "C"], metric="Q").set_index("term")
    # k: 8 * 3^2; C: 8 * 2^2; k x C: 8 * 1^2; residual: 8 * 1^2 with 4 degrees of freedom.
    assert table["sum_sq"].to_dict() == pytest.approx({"k": 72, "C": 32, "k x C": 8})
    assert table["share"].to_dict() == pytest.approx({"k": 0.6, "C": 32 / 120, "k x C": 8 / 120})
    assert table["f"].to_dict() == pytest.approx({"k": 36, "C": 16, "k x C": 4})
    assert table["df"].tolist() == [1, 1, 1]
    p = [2 * scipy_stats.t.sf(math.sqrt(f), 4) for f in (36, 16, 4)]  # F(1, 4) is t(4) squared
    assert table["p"].tolist() == pytest.approx(p)
    assert table["p_holm"].tolist() == pytest.approx([3 * p[0], 2 * p[1], p[2]])


def test_a_balanced_study_has_orthogonal_terms():
    rows = factorial(np.random.default_rng(4), k=0.02, flag=-0.03)
    y, names = rows["top1"], ["k", "upsample", "flag"]
    table = stats.effects(rows, names, order=3)
    assert set(table["term"]) == {
        *names,
        "seed",
        "k x upsample",
        "k x flag",
        "upsample x flag",
        "k x upsample x flag",
    }
    assert table["share"].is_monotonic_decreasing
    df = len(rows) - 1 - table["df"].sum()
    assert df == 22  # 36 runs: (12 cells - 1) * (3 seeds - 1)
    # The residual is what the means of cell and seed do not explain; with it the shares add up to 1.
    rest = (
        y
        - y.groupby([rows[name] for name in names]).transform("mean")
        - y.groupby(rows["seed"]).transform("mean")
        + y.mean()
    )
    total = ((y - y.mean()) ** 2).sum()
    assert table["share"].sum() + (rest**2).sum() / total == pytest.approx(1)
    for name in [*names, "seed"]:  # a main effect's sum of squares is that of its levels' means
        mean = y.groupby(rows[name]).transform("mean")
        assert table.set_index("term").loc[name, "sum_sq"] == pytest.approx(((mean - y.mean()) ** 2).sum())
    f = table["sum_sq"] / table["df"] / ((rest**2).sum() / df)
    assert table["p"].tolist() == pytest.approx(scipy_stats.f.sf(f, table["df"], df).tolist())
    tested = table["term"] != "seed"
    assert table.loc[tested, "p_holm"].tolist() == pytest.approx(stats.holm(table.loc[tested, "p"]).tolist())
    assert table.loc[~tested, "p_holm"].isna().all()
    pd.testing.assert_frame_equal(stats.effects(rows.sample(frac=1, random_state=1), names, order=3), table)


def test_an_unbalanced_study_by_comparing_fits():
    rows = factorial(np.random.default_rng(5), k=0.02).drop(index=[0, 5, 17, 30])
    failed = rows.assign(top1=rows["top1"].where(rows.index != 9))
    table = stats.effects(failed, ["k", "upsample"]).set_index("term")
    rows = failed.dropna()

    def left(*terms: list[str]) -> float:
        """Residual sum of squares of a least-squares fit on indicators of each term's combinations."""
        columns = [
            pd.get_dummies(rows[term].astype(str).agg("/".join, axis=1)).to_numpy(float) for term in terms
        ]
        x = np.hstack(columns)
        return float(((rows["top1"] - x @ np.linalg.lstsq(x, rows["top1"])[0]) ** 2).sum())

    k, up, both, seed = ["k"], ["upsample"], ["k", "upsample"], ["seed"]
    assert table["sum_sq"].to_dict() == pytest.approx(
        {
            "k": left(up, seed) - left(k, up, seed),
            "upsample": left(k, seed) - left(k, up, seed),
            "k x upsample": left(k, up, seed) - left(both, seed),
            "seed": left(both) - left(both, seed),
        }
    )


def test_studies_without_an_analysis_of_variance_are_errors():
    rows = factorial(np.random.default_rng(6))
    with pytest.raises(UserError, match="fewer than two values of k "):
        stats.effects(rows[rows["k"] == 1], ["k", "flag"])
    with pytest.raises(UserError, match="no column scheme"):
        stats.effects(rows, ["k", "scheme"])
    with pytest.raises(UserError, match="combinations of k, flag and seed"):
        stats.effects(rows[(rows["k"] == 1) | rows["flag"]], ["k", "flag"])
    with pytest.raises(UserError, match="no residual"):  # as many terms as runs
        stats.effects(rows[rows["seed"] == 0], ["k", "upsample", "flag"], order=3)
    with pytest.raises(UserError, match="no residual"):
        stats.effects(rows.assign(top1=0.7), ["k", "flag"])


@pytest.mark.slow
def test_error_rates_of_factorial_studies(record_property):
    for name, (rate, error) in factorial_rates().items():
        record_property(name, rate)
        print(f"{name}: {rate:.4f} ± {error:.4f}")
    for name in ("effects, A/A: studies with any term", "effects, A/B: any other term"):
        rate, error = factorial_rates()[name]
        assert rate <= 0.05 + 3 * error, factorial_rates()
    assert factorial_rates()["effects, A/B: k found"][0] >= 0.99, factorial_rates()
