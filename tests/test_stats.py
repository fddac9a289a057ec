"""Statistics against textbook numbers, brute force and other libraries; and their error rates in simulated studies."""

import math
import subprocess
import sys
from dataclasses import asdict
from functools import lru_cache
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from hbo.analysis import stats
from hbo.errors import UserError

A, B = [0.75, 0.83, 0.70, 0.78, 0.81], [0.70, 0.80, 0.71, 0.72, 0.76]  # differences 5, 3, -1, 6, 5 points
T4 = 2.776445105  # 0.975 quantile of t at 4 degrees of freedom, from tables


def study(rng: np.random.Generator, n: int = 6, arms: int = 4, effect: float = 0.0, noise: float = 0.01) -> pd.DataFrame:
    """Arms on the same n seeds; a seed moves all its runs by five times the noise, and arms but the first by the effect."""
    seeds = rng.normal(0.7, 5 * noise, n)
    top1 = seeds + rng.normal(0, noise, (arms, n)) + effect * (np.arange(arms) > 0)[:, None]
    return pd.DataFrame({"arm": np.repeat(np.arange(arms), n), "seed": np.tile(np.arange(n), arms), "top1": top1.ravel()})


def factorial(rng: np.random.Generator, seeds: int = 3, **shift: float) -> pd.DataFrame:
    """A 2 x 3 x 2 study of factors of a number, a string and a boolean, each seed a block; `shift`: of k = 2, flag True."""
    cells = list(product((1, 2), ("bilinear", "nearest", "pixelshuffle"), (False, True), range(seeds)))
    rows = pd.DataFrame(cells, columns=["k", "upsample", "flag", "seed"])
    block = rng.normal(0, 0.05, seeds)[rows["seed"]]
    moved = shift.get("k", 0) * (rows["k"] == 2) + shift.get("flag", 0) * rows["flag"]
    return rows.assign(top1=0.7 + block + moved + rng.normal(0, 0.01, len(rows)))


def share(hits: list[float] | np.ndarray) -> tuple[float, float]:
    """The mean of independent studies' outcomes and its standard error."""
    return float(np.mean(hits)), float(np.std(hits, ddof=1) / math.sqrt(len(hits)))


@lru_cache
def rates(studies: int = 2000) -> dict[str, tuple[float, float]]:
    """Measured rates with their standard errors over simulated studies of 6 seeds and 4 arms, and of 6 pairs."""
    rng = np.random.default_rng(1)
    tables = [stats.compare(study(rng), 0) for _ in range(studies)]
    found = {
        "A/A: studies with any verdict": share([(table["verdict"] != "undecided").any() for table in tables]),
        "A/A: intervals without zero": share([((table["low"] > 0) | (table["high"] < 0)).mean() for table in tables]),
        "A/A: sign flips at or below 0.05": share([(table["p_exact"] <= 0.05).mean() for table in tables]),
    }
    tables = [stats.compare(study(rng, effect=0.01), 0) for _ in range(studies // 4)]
    held = [((table["low"] <= 0.01) & (table["high"] >= 0.01)).mean() for table in tables]
    found["A/B: intervals with the truth"] = share(held)
    found["A/B: verdicts of the wrong sign"] = share([(table["verdict"] == "lower").mean() for table in tables])
    pair = stats.paired([*A, 0.8], [*B, 0.7])
    effect = pair.detectable / pair.sd  # in deviations of the differences, here 0.01
    lots = [stats.paired(row, np.zeros(6)) for row in rng.normal(effect * 0.01, 0.01, (studies // 2, 6))]
    found["A/B: detectable difference found"] = share([one.low > 0 for one in lots])
    return found


@lru_cache
def factorial_rates(studies: int = 240) -> dict[str, tuple[float, float]]:
    """Measured rates of effects() over simulated studies without, and with, an effect of k."""
    rng = np.random.default_rng(2)
    names = ["k", "upsample", "flag"]
    none = [stats.effects(factorial(rng), names) for _ in range(studies)]
    some = [stats.effects(factorial(rng, k=0.03), names).set_index("term")["p_holm"] for _ in range(studies // 2)]
    return {
        "effects, A/A: studies with any term": share([(table["p_holm"] <= 0.05).any() for table in none]),
        "effects, A/B: k found": share([p["k"] <= 0.05 for p in some]),
        "effects, A/B: any other term": share([(p.drop("k") <= 0.05).any() for p in some]),
    }


def test_importing_is_quick():
    code = "import sys, hbo.analysis.stats; print({'scipy', 'statsmodels', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_a_sample_by_hand():
    about = stats.describe([2, 4, 4, 5, 10])  # squares about 5: 9 + 1 + 1 + 0 + 25 = 36
    assert (about.n, about.mean, about.sd) == (5, 5, 3)
    assert about.high - 5 == pytest.approx(T4 * 3 / math.sqrt(5))
    assert about.low + about.high == pytest.approx(10)
    single = stats.describe([0.5])
    assert (single.n, single.mean) == (1, 0.5)
    assert all(math.isnan(x) for x in (single.sd, single.low, single.high))


def test_pairs_by_hand():
    pair = stats.paired(A, B)  # mean 3.6; squares about it: 1.96 + 0.36 + 21.16 + 5.76 + 1.96 = 31.2
    sd = math.sqrt(31.2 / 4) / 100
    assert (pair.n, pair.least_p) == (5, 1 / 16)
    assert pair.difference == pytest.approx(0.036)
    assert pair.sd == pytest.approx(sd)
    assert pair.low == pytest.approx(0.036 - T4 * sd / math.sqrt(5))
    assert pair.high == pytest.approx(0.036 + T4 * sd / math.sqrt(5))
    # The t distribution's function at 4 degrees of freedom in closed form.
    t = 0.036 / (sd / math.sqrt(5))
    x = t / math.sqrt(4 + t * t)
    assert pair.p == pytest.approx(1 - 1.5 * (x - x**3 / 3))
    # Of 32 flips, those of 5 3 1 6 5 with a sum of 18 or more: 20, and 18 with the 1 against; twice, for both signs.
    assert pair.p_exact == 4 / 32
    assert pair.superiority == 0.8
    # Clopper-Pearson by its definition: 4 or more of 5, 4 or fewer of 5, each of probability 0.025 at an end.
    low, high = pair.superiority_low, pair.superiority_high
    assert 5 * low**4 * (1 - low) + low**5 == pytest.approx(0.025)
    assert 1 - high**5 == pytest.approx(0.025)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_interval_and_p_are_of_one_test(level):
    test = scipy_stats.ttest_rel(A, B)
    pair = stats.paired(A, B, level)
    interval = test.confidence_interval(level)
    assert (pair.low, pair.high, pair.p) == pytest.approx((interval.low, interval.high, test.pvalue))


@pytest.mark.parametrize("n", [2, 5, 9, 12])
def test_sign_flips_by_brute_force(n):
    rng = np.random.default_rng(n)
    for _ in range(3):
        whole = rng.integers(-9, 20, n)  # in images, so that ties are exact
        means = [abs(sum(s * d for s, d in zip(signs, whole, strict=True))) for signs in product((-1, 1), repeat=n)]
        p = np.mean([mean >= abs(whole.sum()) for mean in means])
        base = rng.integers(300, 700, n) / 1000
        assert stats.paired(base + whole / 1000, base).p_exact == p
    assert stats.paired(np.arange(1, n + 1), np.zeros(n)).p_exact == stats.paired([1, 2], [0, 0]).least_p * 2.0 ** (2 - n)


@pytest.mark.parametrize("n", [14, 15, 40])
def test_sign_flips_against_scipy(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    exact = {} if n > 14 else {"n_resamples": np.inf}
    theirs = scipy_stats.permutation_test((d,), np.mean, permutation_type="samples", rng=np.random.default_rng(5), **exact)
    ours = stats.paired(d, np.zeros(n)).p_exact
    assert ours == pytest.approx(theirs.pvalue, abs=1e-12 if n <= 14 else 5 * math.sqrt(2 * 0.25 / 9999))


def test_few_differences_and_none():
    same = stats.paired([0.3, 0.5, 0.7], [0.2, 0.4, 0.6])  # equal but for rounding
    assert (same.sd, same.p, same.detectable, same.p_exact) == (0, 1 / 4, 0, 1 / 4)
    assert same.low == same.difference == same.high == pytest.approx(0.1)
    none = stats.paired([0.1 + 0.2, 0.5], [0.3, 0.5])
    assert (none.difference, none.sd, none.low, none.high, none.p, none.p_exact) == (0, 0, 0, 0, 1, 1)
    rounded = stats.paired([0.1 + 0.2, 0.5, 0.9], [0.3, 0.4, 0.7])
    assert rounded.superiority == pytest.approx(2.5 / 3)
    assert (none.superiority, none.superiority_low, none.superiority_high) == (0.5, 0, 1)


def test_ties_widen_the_interval_to_both_sides():
    pair = stats.paired([1, 1, 1, 1, 0, 0.5], [0, 0, 0, 0, 1, 0.5])
    interval = lambda k: scipy_stats.binomtest(k, 6).proportion_ci(method="exact")
    assert pair.superiority == pytest.approx(4.5 / 6)
    assert (pair.superiority_low, pair.superiority_high) == (interval(4).low, interval(5).high)


@pytest.mark.parametrize(
    ("a", "b"), [([1, 2], [1, 2, 3]), ([1], [2]), ([], []), ([1, math.nan], [1, 2]), ([1, 2], [1, math.inf])]
)
def test_what_cannot_be_paired_is_refused(a, b):
    with pytest.raises(UserError):
        stats.paired(a, b)


def test_the_detectable_difference_has_the_power_asked_for():
    for n, level, power in product((2, 3, 6, 30), (0.9, 0.95, 0.99), (0.5, 0.8, 0.95)):
        pair = stats.paired(np.arange(n) % 5, np.zeros(n), level, power)
        effect = pair.detectable / pair.sd
        # Power from the normal and chi distributions: t beyond its quantile when Z + shift > quantile * chi / sqrt(df).
        df, quantile = n - 1, scipy_stats.t.ppf((1 + level) / 2, n - 1)
        beyond = lambda s: scipy_stats.norm.sf(quantile * s / math.sqrt(df) - effect * math.sqrt(n))  # noqa: B023
        assert scipy_stats.chi(df).expect(beyond) == pytest.approx(power, abs=1e-5), (n, level, power)
    effect = TTestPower().solve_power(nobs=6, alpha=0.05, power=0.8)
    pair = stats.paired([*A, 0.8], [*B, 0.7])
    assert pair.detectable == pytest.approx(effect * pair.sd, rel=1e-5)


def test_holm_as_published():
    # Holm's example, as worked in Wikipedia's article on the method, and one in which monotony has to be forced.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.04, math.nan, 0.01, 0.03]) == pytest.approx([0.06, math.nan, 0.03, 0.06], nan_ok=True)
    for p in np.random.default_rng(0).uniform(0, 0.3, (2, 6)).round(2):
        assert stats.holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert stats.holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert np.isnan(stats.holm([math.nan])).all()
    assert len(stats.holm([])) == 0


def test_arms_against_the_baseline():
    rows = pd.DataFrame(
        [("new", s, x) for s, x in zip(range(5), A, strict=True)]
        + [("base", 9, 0.1)]
        + [("base", s, x) for s, x in zip(range(4, -1, -1), reversed(B), strict=True)]
        + [("new", 8, math.nan), ("new", 8, None)]  # failed, and once more; base's 9 has no partner
        + [("few", 0, 0.7), ("few", 1, math.inf), ("none", 0, None)],
        columns=["arm", "seed", "top1"],
    )
    table = stats.compare(rows, "base")
    assert table["arm"].tolist() == ["new", "few", "none"]
    assert table["n"].tolist() == [5, 1, 0]
    pair = asdict(stats.paired(A, B))
    assert list(table.columns) == ["arm", "baseline", *pair, "p_holm", "verdict"]
    assert table.loc[0, list(pair)].to_dict() == pair
    assert table.loc[0, "p_holm"] == pair["p"]  # those too few are not in the family
    assert table["verdict"].tolist() == ["higher", "too few", "too few"]
    assert table.loc[1:, [name for name in pair if name != "n"]].isna().all(axis=None)
    assert stats.compare(rows, "new").loc[0, "verdict"] == "lower"
    assert stats.compare(rows[rows["arm"] == "base"], "base").empty


def test_holm_decides_over_the_arms():
    values = {
        0: B,
        1: A,
        2: [x + 0.0001 * i * (-1) ** i for i, x in enumerate(B)],
        3: [x + 0.001 * (-1) ** s for s, x in enumerate(B)],
    }
    rows = pd.DataFrame([(arm, s, x) for arm, xs in values.items() for s, x in enumerate(xs)], columns=["k", "seed", "f1"])
    table = stats.compare(rows, 0, arm="k", metric="f1")
    assert table["p_holm"].tolist() == pytest.approx(stats.holm(table["p"]))
    assert table.loc[0, "p"] < 0.05 < table.loc[0, "p_holm"]
    assert table.loc[0, "low"] > 0
    assert table["verdict"].tolist() == ["undecided"] * 3


def test_rows_that_cannot_be_compared_are_refused():
    rows = study(np.random.default_rng(0))
    with pytest.raises(UserError, match=r"arm 3 has seed 5 twice"):
        stats.compare(pd.concat([rows, rows.tail(1)]), 0)
    with pytest.raises(UserError, match=r"arm 'x' .* 0, 1, 2, 3"):
        stats.compare(rows, "x")
    with pytest.raises(UserError, match=r"no column top5; there are arm, seed, top1"):
        stats.compare(rows, 0, metric="top5")


def test_the_order_of_the_rows_does_not_matter():
    for n in (6, 20):
        rows = study(np.random.default_rng(n), n=n, effect=0.01)
        shuffled = stats.compare(rows.sample(frac=1, random_state=1), 0).sort_values("arm", ignore_index=True)
        pd.testing.assert_frame_equal(shuffled, stats.compare(rows, 0), rtol=0, atol=0)


@pytest.mark.parametrize("n", [5, 20])
def test_swapping_the_sides_flips_the_sign(n):
    a, b = np.random.default_rng(n).normal(0.7, 0.01, (2, n)).round(3)
    one, other = stats.paired(a, b), stats.paired(b, a)
    flipped = (-other.difference, -other.high, -other.low, 1 - other.superiority)
    assert (one.difference, one.low, one.high, one.superiority) == pytest.approx(flipped)
    assert (one.superiority_low, one.superiority_high) == pytest.approx((1 - other.superiority_high, 1 - other.superiority_low))
    same = ("sd", "p", "p_exact", "detectable")
    assert [getattr(one, name) for name in same] == pytest.approx([getattr(other, name) for name in same])


def test_what_a_seed_does_to_both_arms_does_not_matter():
    rows = study(np.random.default_rng(3), effect=0.01)
    moved = rows.assign(top1=rows["top1"] + np.array([0.2, -0.1, 0, 0.05, -0.3, 0.1])[rows["seed"]])
    pd.testing.assert_frame_equal(stats.compare(moved, 0), stats.compare(rows, 0), rtol=1e-9)


def test_two_models_on_the_same_images():
    a = np.repeat([True, True, False, False], [600, 25, 10, 365])
    b = np.repeat([True, False, True, False], [600, 25, 10, 365])
    found = stats.compare_images(a, b)
    assert (found.n, found.only_a, found.only_b, found.difference) == (1000, 25, 10, 0.015)
    assert found.p == pytest.approx(2 * sum(math.comb(35, k) for k in range(11)) / 2**35)
    # The bootstrap over whole images, drawn one by one: its end points to within their own randomness, an image or two.
    rng, d = np.random.default_rng(1), a.astype(float) - b
    ends = np.quantile([rng.choice(d, 1000).mean() for _ in range(4000)], [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(ends, abs=0.0015)
    # And the interval for paired proportions by its formula: variance (b + c - (b - c)^2 / n) / n^2.
    half = 1.959964 * math.sqrt(35 - 225 / 1000) / 1000
    assert (found.low, found.high) == pytest.approx((0.015 - half, 0.015 + half), abs=0.001)
    assert stats.compare_images(b, a).p == found.p
    assert stats.compare_images(a, a) == stats.ImageTest(1000, 0, 0, 1, 0, 0, 0)
    for other in (a[1:], np.arange(1000)):
        with pytest.raises(UserError):
            stats.compare_images(a, other)


def test_a_two_by_two_study_by_hand():
    # Cell means 10 12 / 14 20, grand mean 14; two runs a cell, one to either side of its mean by 1.
    cells = {(0, "x"): 10, (0, "y"): 12, (1, "x"): 14, (1, "y"): 20}
    rows = pd.DataFrame([(k, up, mean + e) for (k, up), mean in cells.items() for e in (-1, 1)], columns=["k", "C", "Q"])
    table = stats.effects(rows.assign(seed=0), ["k", "C"], metric="Q").set_index("term")
    # k: 8 * 3^2; C: 8 * 2^2; both: 8 * 1^2; noise: 8 * 1^2 over 4 degrees of freedom.
    assert table["sum_sq"].to_dict() == pytest.approx({"k": 72, "C": 32, "k x C": 8})
    assert table["share"].to_dict() == pytest.approx({"k": 0.6, "C": 32 / 120, "k x C": 8 / 120})
    assert table["f"].to_dict() == pytest.approx({"k": 36, "C": 16, "k x C": 4})
    assert table["df"].tolist() == [1, 1, 1]
    p = [2 * scipy_stats.t.sf(math.sqrt(f), 4) for f in (36, 16, 4)]  # F(1, 4) is t(4) squared
    assert table["p"].tolist() == pytest.approx(p)
    assert table["p_holm"].tolist() == pytest.approx([3 * p[0], 2 * p[1], p[2]])


def test_a_balanced_study_splits_up_into_its_terms():
    rows = factorial(np.random.default_rng(4), k=0.02, flag=-0.03)
    y, names = rows["top1"], ["k", "upsample", "flag"]
    table = stats.effects(rows, names, order=3)
    assert set(table["term"]) == {*names, "seed", "k x upsample", "k x flag", "upsample x flag", "k x upsample x flag"}
    assert table["share"].is_monotonic_decreasing
    df = len(rows) - 1 - table["df"].sum()
    assert df == 22  # of 36 runs: 12 cells, less one, times 3 seeds, less one
    # The noise is what the means of cell and seed leave; with it the shares are the whole.
    rest = (
        y - y.groupby([rows[name] for name in names]).transform("mean") - y.groupby(rows["seed"]).transform("mean") + y.mean()
    )
    total = ((y - y.mean()) ** 2).sum()
    assert table["share"].sum() + (rest**2).sum() / total == pytest.approx(1)
    for name in [*names, "seed"]:  # a main effect's sum of squares is that of its values' means
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
        """Residual sum of squares of a least-squares fit of indicators of each term's combinations."""
        columns = [pd.get_dummies(rows[term].astype(str).agg("/".join, axis=1)).to_numpy(float) for term in terms]
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


def test_studies_that_cannot_be_split_up_are_refused():
    rows = factorial(np.random.default_rng(6))
    with pytest.raises(UserError, match="fewer than two values of k "):
        stats.effects(rows[rows["k"] == 1], ["k", "flag"])
    with pytest.raises(UserError, match="no column scheme"):
        stats.effects(rows, ["k", "scheme"])
    with pytest.raises(UserError, match="combinations of k, flag and seed"):
        stats.effects(rows[(rows["k"] == 1) | rows["flag"]], ["k", "flag"])
    with pytest.raises(UserError, match="no noise"):  # as many terms as runs
        stats.effects(rows[rows["seed"] == 0], ["k", "upsample", "flag"], order=3)
    with pytest.raises(UserError, match="no noise"):
        stats.effects(rows.assign(top1=0.7), ["k", "flag"])


def test_sentences():
    line = {"arm": "k=2", "baseline": "k=1", "n": 6, "difference": 0.012, "low": 0.003, "high": 0.0214, "p_holm": 0.0204,
            "detectable": 0.015, "verdict": "higher"}  # fmt: skip
    start = "k=2 against k=1: +1.2 points [+0.3, +2.1] of top-1 over 6 pairs, p = 0.02 after Holm: "
    assert stats.verdict(line) == start + "higher."
    line |= {"difference": -0.0004, "low": -0.0101, "high": 0.0093, "p_holm": 0.00001, "verdict": "undecided"}
    assert stats.verdict(line, "balanced_accuracy") == (
        "k=2 against k=1: -0.04 points [-1.0, +0.9] of balanced accuracy over 6 pairs, p < 0.0001 after Holm: undecided; "
        "the 95 % interval holds zero, so neither is shown to be better; "
        "a difference of 1.5 points would have been found 4 times in 5."
    )
    line |= {"low": -0.02, "high": -0.01, "p_holm": 0.3}
    assert "undecided; p after Holm is above 0.05, so neither" in stats.verdict(line)
    rows = pd.DataFrame({"arm": [1, 1, 2], "seed": [0, 1, 0], "top1": [0.1, 0.2, 0.3]})
    table = stats.compare(rows, 1)
    assert stats.verdict(table.iloc[0]) == "2 against 1: 1 pair of top-1, too few to compare; 2 are needed."


@pytest.mark.slow
def test_error_rates_of_comparisons(record_property):
    for name, (rate, error) in rates().items():
        record_property(name, rate)
        print(f"{name}: {rate:.4f} ± {error:.4f}")
    within = lambda name, truth: abs(rates()[name][0] - truth) <= 3 * rates()[name][1]
    any_verdict, error = rates()["A/A: studies with any verdict"]
    assert any_verdict <= 0.05 + 3 * error, rates()
    assert within("A/A: intervals without zero", 0.05), rates()
    assert within("A/A: sign flips at or below 0.05", 2 / 64), rates()  # of the 64 flips' ps, 2 / 64 alone is at most 0.05
    assert within("A/B: intervals with the truth", 0.95), rates()
    assert rates()["A/B: verdicts of the wrong sign"][0] <= 0.01, rates()
    assert within("A/B: detectable difference found", 0.8), rates()


@pytest.mark.slow
def test_error_rates_of_factorial_studies(record_property):
    for name, (rate, error) in factorial_rates().items():
        record_property(name, rate)
        print(f"{name}: {rate:.4f} ± {error:.4f}")
    for name in ("effects, A/A: studies with any term", "effects, A/B: any other term"):
        rate, error = factorial_rates()[name]
        assert rate <= 0.05 + 3 * error, factorial_rates()
    assert factorial_rates()["effects, A/B: k found"][0] >= 0.99, factorial_rates()
