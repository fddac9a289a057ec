"""Power against statsmodels and simulated tests."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from hbo.analysis import power

TWO = [(1.0, 1.0), (-1.0, 1.0)]


@pytest.mark.parametrize("n", [2, 3, 6, 24])
@pytest.mark.parametrize("effect", [0.5, 1.0, 2.0])
def test_power_of_two_samples_and_of_pairs(n, effect):
    assert power.find(effect, TWO, n, 0.05) == pytest.approx(TTestIndPower().power(effect, n, 0.05), abs=2e-5)
    theirs = TTestPower().power(effect, n, 0.05)
    if math.isfinite(theirs):  # scipy's noncentral t returns NaN when the power is almost 1
        assert power.find(effect, [(1.0, 1.0)], n, 0.05, pairs=True) == pytest.approx(theirs, abs=2e-5)


def test_many_seeds_have_full_power():
    assert power.find(0.008, [(1, 0.014), (-1, 0.013)], 1000, 0.017) == pytest.approx(1)


@pytest.mark.parametrize(("n", "sds"), [(3, (1.0, 1.0)), (6, (1.0, 1.0)), (6, (1.0, 2.0))])
def test_power_of_equivalence_by_simulation(n, sds):
    rng, margin, difference = np.random.default_rng(n), 2.0, 0.4
    a, b = rng.normal(difference, sds[0], (100_000, n)), rng.normal(0, sds[1], (100_000, n))
    va, vb = a.var(1, ddof=1) / n, b.var(1, ddof=1) / n
    df = 2 * n - 2 if sds[0] == sds[1] else (va + vb) ** 2 / (va**2 + vb**2) * (n - 1)
    half = stats.t.isf(0.05, df) * np.sqrt(va + vb)
    d = a.mean(1) - b.mean(1)
    found = power.find_within(difference, [(1, sds[0]), (-1, sds[1])], n, 0.05, margin)
    # The test itself estimates Satterthwaite's degrees of freedom.
    tolerance = 0.005 if sds[0] == sds[1] else 0.02
    assert np.mean((d - half > -margin) & (d + half < margin)) == pytest.approx(found, abs=tolerance)


def test_the_detectable_difference_has_the_power_asked_for():
    for n, alpha, wanted in product((2, 3, 6, 30), (0.1, 0.05, 0.01), (0.5, 0.8, 0.95)):
        found = power.detectable([(1, 0.02), (-1, 0.01)], n, alpha, wanted)
        assert power.find(found, [(1, 0.02), (-1, 0.01)], n, alpha) == pytest.approx(wanted, abs=1e-6)
    assert math.isnan(power.detectable([(1, 0.0), (-1, 0.0)], 6, 0.05))


def test_the_number_of_seeds_is_the_smallest():
    at = lambda n: power.find(0.7, TWO, n, 0.05)
    n = power.seeds(at)
    assert n is not None
    assert at(n) >= 0.8 > at(n - 1)
    assert math.ceil(TTestIndPower().solve_power(0.7, alpha=0.05, power=0.8)) == n
    assert power.seeds(lambda n: power.find(0.001, TWO, n, 0.05)) is None
