"""Contrasts against other libraries and hand-computed values, and their error rates in simulated studies."""

import math
from functools import lru_cache

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.weightstats import ttost_ind

from hbo.analysis import contrasts, looks, sentences
from hbo.analysis.contrasts import Contrast, Levels

A, B = [0.75, 0.83, 0.70, 0.78, 0.81], [0.70, 0.80, 0.71, 0.72, 0.76, 0.74]
AGAINST = Contrast("a against b", {"a": 1.0, "b": -1.0})
SEEDS = (3, 5, 10)


def seeded(values) -> dict[int, float]:
    return dict(enumerate(map(float, values)))


def one(a, b, margin: float | None = None, **levels: float) -> contrasts.Judged:
    each = Levels(**levels) if levels else None
    (line,) = contrasts.judge({"a": seeded(a), "b": seeded(b)}, [AGAINST], margin, each)
    return line


def test_a_difference_is_welch_s():
    line, test = one(A, B), scipy_stats.ttest_ind(A, B, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert (line.low, line.high, line.p, line.df) == pytest.approx(
        (interval.low, interval.high, test.pvalue, test.df)
    )
    assert (line.n, line.p_adjusted, line.paired) == ((5, 6), line.p, False)
    assert line.difference == pytest.approx(np.mean(A) - np.mean(B))


@pytest.mark.parametrize("margin", [0.03, 0.1, 0.2])
def test_an_equivalence_is_two_one_sided_tests(margin):
    line = one(A, B, margin)
    p, *_ = ttost_ind(np.array(A), np.array(B), -margin, margin, usevar="unequal")
    assert line.p_within == pytest.approx(p)
    assert (line.verdict == "equivalent") == (p < 0.05)


def test_a_trend_is_a_regression_s_slope():
    """The estimate is the least-squares slope of the arms' means; its variance sums the arms' own."""
    rng, x = np.random.default_rng(0), np.array([0.0, 1.0, 2.5, 4.0])
    runs = {str(i): rng.normal(0.7 + 0.01 * i, 0.01, 4) for i in range(4)}
    slope = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    (line,) = contrasts.judge(
        {k: seeded(v) for k, v in runs.items()}, [Contrast("trend", dict(zip(runs, slope, strict=True)))]
    )
    assert line.difference == pytest.approx(np.polyfit(x, [v.mean() for v in runs.values()], 1)[0])
    assert line.se**2 == pytest.approx(
        sum(w**2 * v.var(ddof=1) / 4 for w, v in zip(slope, runs.values(), strict=True))
    )


def test_a_family_is_adjusted_together():
    """An interval excludes zero exactly when the adjusted p is at most 5 %; it is never wider than Sidak's
    rule.
    """
    rng = np.random.default_rng(3)
    for _ in range(30):
        samples = {str(i): seeded(rng.normal(0.01 * (i > 0), 0.01, 5)) for i in range(4)}
        lines = contrasts.judge(samples, [Contrast(str(i), {str(i): 1.0, "0": -1.0}) for i in range(1, 4)])
        for line in lines:
            assert line.p <= line.p_adjusted <= 1 - (1 - line.p) ** 3 + 1e-12
            assert (
                (line.p_adjusted <= 0.05)
                == (line.low > 0 or line.high < 0)
                == (line.verdict in ("higher", "lower"))
            )
    assert contrasts.levels(3).difference == pytest.approx(1 - 0.95 ** (1 / 3))


def test_the_counted_rates_are_those_of_the_judged_lines(monkeypatch):
    monkeypatch.setattr(contrasts, "DRAWS", 1000)
    rng, asked = np.random.default_rng(6), [Contrast(str(i), {str(i): 1.0, "0": -1.0}) for i in range(1, 4)]
    for n in (3, 6, 6, 6):
        samples = study(rng, n, [1.5, 1.5, 1.5, 3.0], effect=2.5, correlation=0.5)
        assert decided(samples, asked) == [
            line.verdict != "undecided" for line in contrasts.judge(samples, asked)
        ]


def test_runs_are_paired_if_seeds_explain_the_variance():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.05, 8)
    a, b = 0.72 + shared + rng.normal(0, 0.005, 8), 0.7 + shared + rng.normal(0, 0.005, 8)
    line, test = one(a, b), scipy_stats.ttest_rel(a, b)
    interval = test.confidence_interval(0.95)
    assert (line.paired, line.n) == (True, (8, 8))
    assert (line.low, line.high, line.p) == pytest.approx((interval.low, interval.high, test.pvalue))
    found = contrasts.pairing({"a": seeded(a), "b": seeded(b)})
    assert found.used
    assert found.correlation > 0.9
    # The analysis of variance by its definition: with two arms F is (1 + r) / (1 - r) of sums and
    # differences.
    s, d = a + b, a - b
    assert found.p == pytest.approx(scipy_stats.f.sf(s.var(ddof=1) / d.var(ddof=1), 7, 7))
    moved = {seed: value + 0.3 * (seed % 2) for seed, value in seeded(a).items()}
    both = {seed: value + 0.3 * (seed % 2) for seed, value in seeded(b).items()}
    (same,) = contrasts.judge({"a": moved, "b": both}, [AGAINST])
    # A seed's effect on both arms cancels.
    assert (same.low, same.high) == pytest.approx((line.low, line.high))


def test_too_few_runs_and_no_runs():
    assert one([0.7], B).verdict == "too few"
    assert one([0.7], B).difference == pytest.approx(0.7 - np.mean(B))
    assert math.isnan(one([], B).difference)
    stuck = one([0.5] * 4, [0.6] * 4)
    assert (stuck.verdict, stuck.se) == ("undecided", 0)
    assert all(math.isnan(x) for x in (stuck.p, stuck.low, stuck.detectable[0]))
    assert "all runs are equal" in sentences.sentence(stuck, "top1")
    half = one([0.5] * 4, B)  # the other arm's standard deviation is enough
    assert half.df == pytest.approx(5)


def test_the_order_of_runs_does_not_matter_and_sides_flip_the_sign():
    a, b = seeded(A), seeded(B)
    line = contrasts.judge({"a": a, "b": b}, [AGAINST])[0]
    other = contrasts.judge({"b": dict(reversed(b.items())), "a": dict(reversed(a.items()))}, [AGAINST])[0]
    assert line == other
    back = contrasts.judge({"a": a, "b": b}, [Contrast("b against a", {"a": -1.0, "b": 1.0})])[0]
    assert (back.difference, back.low, back.high, back.p) == pytest.approx(
        (-line.difference, -line.high, -line.low, line.p)
    )


def test_the_number_of_seeds_named_decides():
    """With the named number of seeds, 80 % of studies with the same difference and standard deviations are
    decided.
    """
    line = one(A, B)
    assert line.verdict == "undecided"
    assert line.needed is not None
    sd = [float(np.std(x, ddof=1)) for x in (A, B)]
    rng = np.random.default_rng(1)
    a, b = rng.normal(line.difference, sd[0], (2000, line.needed)), rng.normal(0, sd[1], (2000, line.needed))
    found = scipy_stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue <= 0.05
    assert abs(np.mean(found) - 0.8) <= 3 * math.sqrt(0.8 * 0.2 / 2000)


# ------------------------------------------------------------ rates


def study(rng, n, noise, effect=0.0, correlation=0.0, collapses=0.0) -> dict[str, dict[int, float]]:
    """Arms with these standard deviations on n seeds; `effect` is added to all arms but the first; a share of
    the runs loses 30 points.
    """
    shared = rng.normal(size=n)
    found = {}
    for arm, sd in enumerate(noise):
        x = sd * (
            math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * rng.normal(size=n)
        ) + effect * (arm > 0)
        found[str(arm)] = seeded(x - 30 * (rng.random(n) < collapses))
    return found


def decided(samples, asked) -> list[bool]:
    """Which lines `judge` would call higher or lower, without its other results; with 1,000 draws."""
    paired = contrasts.pairing(samples).used
    level = contrasts.levels(len(asked)).difference
    if not paired and len(asked) > 1:
        level = max(level, float(contrasts.drawn(samples, asked, 1000)[44]))
    return [contrasts.estimate(samples, line, paired).p <= level for line in asked]


@lru_cache
def rates(n: int, arms: int, case: str, studies: int = 1000) -> tuple[float, float]:
    """Shares of studies with at least one significant difference, and with one for the first comparison."""
    base = [1.5] * arms
    noise, keywords = {
        "equal": (base, {}),
        "noisy arm": ([*base[:-1], 4.5], {}),
        "noisy baseline": ([4.5, *base[1:]], {}),
        "collapses": (base, {"collapses": 1 / 30}),
        "correlated": (base, {"correlation": 0.8}),
        "3 points": (base, {"effect": 3.0}),
        "3 points, correlated": (base, {"effect": 3.0, "correlation": 0.8}),
    }[case]
    rng, every, first = np.random.default_rng(n + 100 * arms), 0, 0
    asked = [Contrast(str(a), {str(a): 1.0, "0": -1.0}) for a in range(1, arms)]
    for _ in range(studies):
        hits = decided(study(rng, n, noise, **keywords), asked)
        every, first = every + any(hits), first + hits[0]
    return every / studies, first / studies


@pytest.mark.slow
@pytest.mark.parametrize("case", ["equal", "noisy arm", "noisy baseline", "collapses", "correlated"])
@pytest.mark.parametrize("arms", [2, 4])
@pytest.mark.parametrize("n", SEEDS)
def test_false_alarms_stay_below_five_percent(n, arms, case, record_property):
    """A/A: no arm differs; one arm may be 3 times as noisy, one run in thirty may collapse, seeds may affect
    all arms.
    """
    found, _ = rates(n, arms, case)
    record_property("rate", found)
    print(f"A/A, {arms} arms, {n} seeds, {case}: {found:.4f}")
    assert found <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.slow
def test_differences_are_found_more_often_than_by_pairs_alone(record_property):
    """3 points with a standard deviation of 1.5, 5 seeds and 6 arms: a paired t-test with Holm's rule found
    38 to 41 %.
    """
    found = {case: rates(5, 6, case)[1] for case in ("3 points", "3 points, correlated")}
    single = rates(5, 2, "3 points")[1]
    print(f"power: {found}, a primary comparison alone: {single}")
    assert found["3 points"] >= 0.45
    assert found["3 points, correlated"] >= 0.9
    assert single >= 0.75


@pytest.mark.slow
def test_an_equivalence_is_false_five_times_in_a_hundred_at_most():
    """Arms that differ by exactly the margin."""
    rng, found = np.random.default_rng(5), 0
    for _ in range(1500):
        samples = study(rng, 6, [1.5, 1.5], effect=3.0)
        found += (
            contrasts.judge(samples, [Contrast("", {"1": 1.0, "0": -1.0})], margin=3.0)[0].verdict
            == "equivalent"
        )
    assert found / 1500 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)


@pytest.mark.slow
@pytest.mark.parametrize("arms", [2, 3])
def test_looks_do_not_raise_the_rate_of_false_alarms(arms):
    """A/A studies with looks at 6, 10, 16 and 24 seeds, stopped at the first that decides; looks save seeds
    if there is a gain.
    """
    at, rng = [6, 10, 16, 24], np.random.default_rng(arms)
    asked = [Contrast(str(a), {str(a): 1.0, "0": -1.0}) for a in range(1, arms)]
    each, studies, wrong = contrasts.levels(len(asked)), 600, 0
    for _ in range(studies):
        samples = study(rng, 24, [1.5] * arms)
        found = looks.judge_at_looks(samples, asked, None, at, list(range(24)), each)
        wrong += any(line.verdict in ("higher", "lower") for line, _ in found)
    assert wrong / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


@pytest.mark.slow
def test_looks_save_seeds():
    """A difference that 24 seeds find in over 80 % of studies is found as often, with fewer seeds."""
    at, rng = [6, 12, 18, 24], np.random.default_rng(9)
    used, found = [], []
    for _ in range(300):
        samples = study(rng, 24, [1.5, 1.5], effect=1.5)
        ((line, look),) = looks.judge_at_looks(
            samples, [Contrast("", {"1": 1.0, "0": -1.0})], None, at, list(range(24)), Levels(0.05, 0.05)
        )
        used.append(at[look])
        found.append(line.verdict == "higher")
    print(f"seeds used: {np.mean(used):.1f} of 24, found {np.mean(found):.2f}")
    assert np.mean(found) >= 0.88
    assert np.mean(used) <= 20


def test_stopping_and_continuing_changes_no_verdict():
    """What a look decides stays, whatever later seeds show; before the first look there is no verdict."""
    rng, at, seeds = np.random.default_rng(4), [6, 10, 16, 24], list(range(24))
    asked = [Contrast(str(a), {str(a): 1.0, "0": -1.0}) for a in range(1, 3)]
    samples = study(rng, 24, [1.5] * 3, effect=2.0)
    upto = lambda n: {arm: {s: v for s, v in runs.items() if s < n} for arm, runs in samples.items()}
    assert {
        look for _, look in looks.judge_at_looks(upto(5), asked, None, at, seeds, contrasts.levels(2))
    } == {-1}
    final: dict[str, tuple] = {}
    for n in range(6, 25):
        for line, look in looks.judge_at_looks(upto(n), asked, None, at, seeds, contrasts.levels(2)):
            assert (
                look == max(i for i in range(4) if at[i] <= n)
                or line.label in final
                or line.verdict == "higher"
            )
            if line.verdict in ("higher", "lower"):
                assert final.setdefault(line.label, (line, look)) == (line, look)
    assert len(final) == 2
