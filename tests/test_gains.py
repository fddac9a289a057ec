"""Gains and trends against scipy and statsmodels, and their coverage in simulations."""

import math

import numpy as np
import pytest
from scipy import stats

from hbo.analysis import contrasts, gains

DRAW = np.random.default_rng(0)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 6), (10, 4)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_a_gain_has_welch_s_interval(n, m, level):
    a, b = DRAW.normal(0.7, 0.03, n), DRAW.normal(0.6, 0.01, m)
    found, oracle = gains.gain(a, b, level), stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    np.testing.assert_allclose(
        [found.value, found.low, found.high], [a.mean() - b.mean(), oracle.low, oracle.high]
    )
    assert found.runs == (n, m)


def test_a_trend_is_a_regression_s_slope():
    costs = [300, 200, 100, 60, 37, 13]
    values = DRAW.normal(0.02, 0.01, 6)
    slope = stats.linregress(-np.log2(costs), values).slope
    np.testing.assert_allclose(gains.halving(costs) @ values, slope)
    budgets = [
        (cost, np.full(2, 0.5 + value), np.full(3, 0.5)) for cost, value in zip(costs, values, strict=True)
    ]
    assert gains.trend(budgets).value == pytest.approx(slope)


def test_a_trends_interval_has_its_stated_coverage():
    """95 %, within the error of 600 draws, when one network's standard deviation is three times as large."""
    costs, covered = [8.0, 4.0, 2.0, 1.0], []
    for seed in range(600):
        draw = np.random.default_rng(seed)
        gap = [0.01 * -math.log2(cost) for cost in costs]
        sd = [0.03, 0.01]  # the two networks' standard deviations differ
        budgets = [
            (c, draw.normal(0.6 + g, sd[0], 4), draw.normal(0.6, sd[1], 4))
            for c, g in zip(costs, gap, strict=True)
        ]
        found = gains.trend(budgets)
        covered.append(found.low <= 0.01 <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.975


def test_one_run_or_no_variance_gives_no_interval():
    for a, b in (([0.7], [0.6, 0.61]), ([0.7, 0.7], [0.6, 0.6])):
        found = gains.gain(a, b)
        assert math.isnan(found.low)
        assert str(found) == f"{100 * found.value:+.1f} (n={len(a)} and {len(b)})"


def test_with_one_constant_side_the_interval_is_the_others():
    a, b = np.full(3, 0.7), np.array([0.6, 0.62, 0.61])
    found = gains.gain(a, b)
    half = stats.t.ppf(0.975, 2) * b.std(ddof=1) / math.sqrt(3)
    np.testing.assert_allclose([found.low, found.high], [found.value - half, found.value + half])


@pytest.mark.parametrize(
    ("a", "b", "same"), [(100, 110, True), (110, 100, True), (100, 112, False), (0.9, 1, True)]
)
def test_two_costs_are_the_same_budget_within_10_percent_of_the_larger(a, b, same):
    assert contrasts.same_budget(a, b) == same
