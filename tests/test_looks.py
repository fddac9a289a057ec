"""Boundaries against published tables and simulated Brownian motions."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from hbo.analysis import looks, power, sentences
from hbo.analysis.contrasts import Contrast, Judged, Levels

FIVE = (0.2, 0.4, 0.6, 0.8, 1.0)


def pocock(share: float, alpha: float) -> float:
    """Lan and DeMets' spending function of Pocock's type."""
    return alpha * math.log(1 + (math.e - 1) * share)


def edges(levels: tuple[float, ...]) -> list[float]:
    return [float(norm.isf(level / 2)) for level in levels]


def test_boundaries_are_the_published_ones():
    """Five looks at 5 %, two-sided: the tables of Lan and DeMets' program (Reboussin et al. 2000)."""
    assert edges(looks.nominal(FIVE)) == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)
    assert edges(looks.nominal(FIVE, 0.05, pocock)) == pytest.approx(
        [2.4380, 2.4268, 2.4101, 2.3966, 2.3859], abs=2e-4
    )


def test_a_single_look_is_the_usual_test():
    assert looks.nominal((1.0,), 0.03) == pytest.approx((0.03,))
    each = Levels(0.05, 0.05)
    only = looks.levels_at(0, [12], each)
    assert (only.difference, only.within) == pytest.approx((0.05, 0.05))


@pytest.mark.parametrize("shares", [(0.25, 10 / 24, 16 / 24, 1.0), (0.5, 1.0)])
@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_simulated_paths_cross_at_the_spent_rate(shares, alpha):
    rng, n = np.random.default_rng(0), 400_000
    motion, inside, before = np.zeros(n), np.ones(n, bool), 0.0
    for share, edge in zip(shares, edges(looks.nominal(shares, alpha)), strict=True):
        motion += rng.normal(0, math.sqrt(share - before), n)
        inside &= np.abs(motion) <= edge * math.sqrt(share)
        crossed, expected, before = 1 - inside.mean(), looks.spent(share, alpha), share
        assert abs(crossed - expected) <= 4 * math.sqrt(expected * (1 - expected) / n) + 1e-9


def test_before_the_first_look_the_runs_there_are_are_counted():
    """No look reads these runs, but the page must not say that there are none."""
    samples = {"a": {0: 0.5, 1: 0.6, 2: 0.7}, "b": {0: 0.5}, "c": {0: 0.4, 1: 0.5}}
    each = Levels(0.05, 0.05)
    found = looks.judge_at_looks(
        samples,
        [Contrast("a against b", {"a": 1, "b": -1}), Contrast("a against c", {"a": 1, "c": -1})],
        0.01, (3, 8), range(8), each,
    )  # fmt: skip
    assert [(line.n, line.verdict, look) for line, look in found] == [
        ((1, 3), "too few", -1), ((2, 3), "too few", -1)
    ]  # fmt: skip
    said = [sentences.sentence(line, "top1") for line, _ in found]
    assert said == [
        "a against b: 1 to 3 seeds, too few to judge; the first look is at 3.",
        "a against c: 2 to 3 seeds, too few to judge; the first look is at 3.",
    ]


def test_the_seeds_that_would_decide_are_those_of_the_last_looks_level():
    """An early look's level is hundreds of times stricter, and would ask for seeds that nobody needs."""
    samples = {"a": {0: 0.50, 1: 0.52, 2: 0.54}, "b": {0: 0.53, 1: 0.55, 2: 0.57}}
    one, each = Contrast("a against b", {"a": 1, "b": -1}), Levels(0.05, 0.05)
    ((line, look),) = looks.judge_at_looks(samples, [one], None, (3, 8), range(8), each)
    assert (line.verdict, look) == ("undecided", 0)
    last = looks.levels_at(1, (3, 8), each)
    assert line.each.difference < 0.002 < 0.04 < last.difference
    parts = [(1, 0.02), (-1, 0.02)]
    assert line.needed == power.seeds(lambda n: power.find(0.03, parts, n, last.difference))
    assert line.needed < power.seeds(lambda n: power.find(0.03, parts, n, line.each.difference))


def test_an_early_look_says_its_level_and_the_next_look():
    """P = 0.021 is undecided there; a number of seeds that would decide would contradict the plan."""
    samples = {"a": {0: 0.50, 1: 0.52, 2: 0.54}, "b": {0: 0.56, 1: 0.58, 2: 0.60}}
    one, each = Contrast("a against b", {"a": 1, "b": -1}), Levels(0.05, 0.05)
    said = {}
    for at in ((3, 8), (2, 3)):
        ((line, _),) = looks.judge_at_looks(samples, [one], None, at, range(at[-1]), each)
        said[at] = sentences.sentence(line, "top1")
    low, high = "-22.8", "+10.8"
    assert said[3, 8] == (
        f"a against b: -6.0 points [{low}, {high}] of top-1, p = 0.021: undecided on 3 seeds at look 1 of 2,"
        f" where a difference needs p of at most 0.0005. The next look is at 8 seeds. Differences above {high} and"
        f" below {low} are excluded."
    )
    assert said[2, 3].startswith("a against b: -6.0 points")
    assert said[2, 3].endswith("lower on 3 seeds.")


def test_differences_beyond_a_hundred_points_are_not_excluded():
    """Shares cannot differ by more, though an interval of two seeds may be wider."""
    line = lambda low, high: Judged("a against b", (2, 2), False, "undecided", low=low, high=high)
    assert sentences.excluded(line(-0.1, 0.2)) == "Differences above +20.0 and below -10.0 are excluded."
    assert sentences.excluded(line(-1.2, 0.2)) == "Differences above +20.0 are excluded."
    assert sentences.excluded(line(-1.2, 1.4)) == "No difference is excluded."
