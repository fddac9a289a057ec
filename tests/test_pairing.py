"""What pairing by seed gains, against theory: normal results with a known correlation."""

import numpy as np
import pytest
from statsmodels.stats.power import TTestIndPower, TTestPower

from hbo.analysis import contrasts, pairing
from hbo.errors import UserError


def arms(correlation: float, seeds: int = 2000) -> tuple[dict[int, float], dict[int, float]]:
    """Two arms' results, with standard deviation 0.01."""
    draws = np.random.default_rng(0).multivariate_normal(
        [0.8, 0.7], [[1, correlation], [correlation, 1]], seeds
    )
    return tuple(dict(enumerate(0.01 * (arm - arm.mean()) / arm.std() + 0.75)) for arm in draws.T)  # pyright: ignore


def test_the_correlation_and_its_interval():
    """Fisher's z: atanh(r) has the standard error 1 / sqrt(n - 3)."""
    found = pairing.correlation(*arms(0.6, 200))
    assert found.seeds == 200
    assert found.low < 0.6 < found.high
    np.testing.assert_allclose(
        np.arctanh([found.low, found.high]), np.arctanh(found.value) + np.array([-1, 1]) * 1.959964 / 197**0.5
    )


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_power_is_that_of_theory(correlation):
    """The standard deviation of a paired difference is sqrt(2 (1 - r)) times a run's. Without correlation Welch's test
    has the power of two independent samples, and the paired test a little less.
    """
    found = pairing.power(*arms(correlation), 0.01, seeds=(4, 8)).set_index("seeds")
    for n in (4, 8):
        paired = TTestPower().power(1 / (2 * (1 - correlation)) ** 0.5, n, 0.05)
        assert found.loc[n, "paired"] == pytest.approx(paired, abs=0.025)
    if not correlation:
        independent = TTestIndPower().power(1.0, 8, 0.05)
        assert found.loc[8, "unpaired"] == pytest.approx(independent, abs=0.025)
        assert found.loc[8, "paired"] < found.loc[8, "unpaired"]
    else:
        assert found.loc[8, "paired"] > found.loc[8, "unpaired"] + 0.2


def test_without_a_difference_tests_find_one_in_five_percent():
    for correlation in (0.0, 0.5):
        found = pairing.power(*arms(correlation), 0.0, seeds=(6,)).iloc[0]
        assert found["paired"] == pytest.approx(0.05, abs=0.012)
        assert found["unpaired"] < 0.06
        assert found["chosen"] < 0.07


def test_the_rule_is_the_one_that_studies_follow():
    """For many studies at once it chooses as for each one alone."""
    draws = np.random.default_rng(1).normal(size=(50, 2, 6)) + np.random.default_rng(2).normal(
        size=(50, 1, 6)
    )
    correlation, p = contrasts.of_seeds(draws)
    for study, r, one in zip(draws, correlation, p, strict=True):
        found = contrasts.pairing({arm: dict(enumerate(runs)) for arm, runs in zip("ab", study, strict=True)})
        np.testing.assert_allclose((found.correlation, found.p), (r, one))
    assert 0 < (p <= contrasts.PAIRING).mean() < 1


def test_errors():
    a, b = arms(0.5, 10)
    with pytest.raises(UserError, match="10 common seeds: too few for studies of 24"):
        pairing.power(a, b, 0.01)
    with pytest.raises(UserError, match="3 common seeds"):
        pairing.correlation(a, {seed: b[seed] for seed in (1, 2, 3)})
    with pytest.raises(UserError, match="all runs of an arm are equal"):
        pairing.correlation(a, dict.fromkeys(b, 0.5))


def test_the_table_and_the_figure_say_what_was_computed():
    pairs = {"alike": arms(0.8, 200)}
    shown = pairing.table(pairs, (3, 6)).frame
    found = pairing.power(*pairs["alike"], pairing.deviation(*pairs["alike"]), (3, 6))
    assert shown["power, paired"].tolist() == [f"{100 * one:.0f} %" for one in found["paired"]]
    assert shown["sd, points"].tolist() == ["1.00"] * 2
    lines = {line.get_label(): line for line in pairing.drawn(pairs).axes[0].lines}
    full = pairing.power(*pairs["alike"], pairing.deviation(*pairs["alike"]))
    for name, label in pairing.TESTS.items():
        np.testing.assert_allclose(lines[label].get_ydata(), 100 * full[name])
